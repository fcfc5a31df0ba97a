// SPDX-License-Identifier: Apache-2.0
//
// A small world on a virtual clock: the production vmm, tiers and sched over simulated memory, MMU
// and disk, one thread, one seed. Engines are played by calling `touch`.
//
//   touch ---fault--> Mm::handle_fault ... Mm::step ... SimClock jumps to the next alarm ... again
//
// Same seed, same run: nothing here reads a clock or iterates in hash or pointer order.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "drivers/delay/delay_driver.h"
#include "drivers/error/error_driver.h"
#include "drivers/sim/sim_data.h"
#include "drivers/sim/sim_disk.h"
#include "drivers/sim/sim_mmu.h"
#include "runtime/base/random.h"
#include "sched/mm.h"

namespace kvmm::test {

struct WorldTier {
  std::string name;
  uint32_t rank = 0;
  uint16_t node = 0;
  uint32_t frames = 0;  // of page_size
};

struct WorldConfig {
  uint64_t seed = 1;
  Bytes page_size = Bytes(4096);
  Bytes page_size_2;     // of every second plane; 0: page_size
  uint32_t frames = 16;  // of page_size
  uint32_t lanes = 8;
  uint32_t planes = 2;
  uint32_t pages_a_lane = 32;  // of the plane's page size
  uint32_t tokens_a_page = 4;
  Bytes swap = mib(16);
  bool asynchronous_mmu = false;
  bool fixed_frames = false;
  bool shareable = false;  // frames that several addresses can map; fixed ones are
  EngineKind engine = EngineKind::kFaulting;
  // The disk is stacked: SimDisk <- ErrorBlock <- DelayBlock. Both are transparent until told
  // otherwise.
  bool stacked_disk = false;
  Tick notice_time;        // see Mm::Deps
  bool two_tiers = false;  // half of the frames in `dram`, half in `slow`; not with fixed_frames
  std::vector<WorldTier> tiers;    // instead of these; `frames` is their sum then
  NodeDistances distances;         // between their nodes
  bool asynchronous_data = false;  // data work takes a while: a page stays in flight
  Bytes swap_2;                    // a second swap area of this size; 0: none
  int32_t swap_2_priority = -1;
  Bytes swap_extent = kPageSizeMax;
  bool swap_grows = false;  // the first area's disk is empty and grows up to `swap`
  uint64_t disk_bytes_per_s = SimDiskConfig{}.bytes_per_s;
};

class World {
 public:
  explicit World(const WorldConfig& config);
  ~World();

  AddressSpace& open(uint32_t lane, ObjectKind kind = ObjectKind::kRaw, uint32_t tenant = 1);
  void close(AddressSpace& space);

  // An engine's access of 8 bytes in the middle of a page; runs the world until it is answered.
  struct Answer {
    SimAccess access = SimAccess::kDone;
    uint64_t value = 0;
  };
  Answer read(AddressSpace& space, uint32_t plane, uint32_t page);
  Answer write(AddressSpace& space, uint32_t plane, uint32_t page, uint64_t value);
  // One try of an access: kFault says that the thread waits, and that it must try again.
  Answer try_access(AddressSpace& space, uint32_t plane, uint32_t page, uint32_t thread,
                    std::optional<uint64_t> value);
  // Starts an access that may fault and returns at once: true if it was answered.
  bool start_read(AddressSpace& space, uint32_t plane, uint32_t page, uint32_t thread);

  // One step of the memory manager at the present time.
  void step();
  // Lets time pass to the next alarm (or by a millisecond, if something is due). False: all is
  // quiet.
  bool pass();
  // Until nothing is in flight and nothing waits. Bounded: a livelock fails the test.
  void settle();
  void run_job(const std::function<Result<void>(MmJob&)>& begin, Errc expected = Errc::kOk);
  void check() {
    mm->check_invariants();
    for (const auto& area : swap.areas()) {
      area->check_invariants();
    }
  }
  // Steps through time, whatever happens in it.
  void pass_time(Tick how_long);
  // Adds an area on `block`, or takes one out that holds nothing.
  SwapArea& add_area(BlockOps& block, const char* name, int32_t priority, Bytes size = Bytes(0));
  void remove_area(SwapArea& area);

  Page& page(AddressSpace& space, uint32_t plane, uint32_t index) {
    return space.planes()[plane].object->page(index);
  }
  uint64_t slot_offset(const Page& p) {
    return swap.area(SlotId(p.slot)).offset_of(SlotId(p.slot)).value();
  }

  const WorldConfig config;
  SimClock clock;
  std::unique_ptr<SimMmu> mmu;
  std::unique_ptr<SimDisk> disk, disk_2;
  std::unique_ptr<ErrorBlock> errors;  // stacked_disk
  std::unique_ptr<DelayBlock> delay;   // stacked_disk
  std::unique_ptr<SimData> data;
  // Of the next so many copies, a bit is wrong. Not with asynchronous_data.
  uint32_t bad_copies = 0;
  CompletionQueue completions;
  std::unique_ptr<TierTable> tiers;
  SwapSpace swap;
  AddressMap map;
  MmConfig mm_config;
  TraceRing ring = *TraceRing::create(4096);
  std::unique_ptr<Mm> mm;
  std::unique_ptr<Arena> arena;
  std::vector<std::unique_ptr<AddressSpace>> spaces;

 private:
  // The data workers, with copies that go wrong when told to.
  class Workers final : public DataOps {
   public:
    explicit Workers(World& world) : world_(world) {}
    size_t submit(std::span<DataRequest* const> requests) override;
    void poll() override { world_.data->poll(); }

   private:
    World& world_;
  };

  std::vector<TierDescription> describe(Bytes capacity, Bytes largest);
  Answer access(AddressSpace& space, uint32_t plane, uint32_t page, std::optional<uint64_t> value);
  VirtAddr address(AddressSpace& space, uint32_t plane, uint32_t page);
  Workers workers_{*this};
  uint64_t next_id_ = 1;
};

}  // namespace kvmm::test
