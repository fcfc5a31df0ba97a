// SPDX-License-Identifier: Apache-2.0
//
// Simulated memory: frames of real bytes, addresses that exist in a table only.
//
//   engine (simulated)            SimMmu                              kvmm
//   write(va, bytes)  --> page at va? --yes--> frame's bytes <------- BlockRequest.data, DataOps
//                          |      |                                   (only while it is unmapped)
//                          no     poisoned --> kPoisoned
//                          |
//                          kFault, and a FaultEvent for read_faults()
//
// A FrameAddr is an address of this process, so that disks and checksums work on the bytes. A
// VirtAddr is none: touching it crashes, and only read() and write() reach a page. Each of them
// looks the page up anew, so an access through a stale mapping cannot happen.
//
// What the layers above may get wrong, and what happens then:
//   map over a mapped page           kExists            unmap of nothing       kNotFound
//   unmap to a frame with bytes      kExists            map of an emptied frame kNotFound
//   address or frame not ours        kRange             not aligned            kInvalid
//   a device touches a mapped frame  stops the process (strict), or counts in violations()
//   release of a mapped range, destroying a mapped frame: stops the process
// A frame goes back only to where it came from. (UFFDIO_MOVE could take any emptied frame.)
//
// Movable frames: any access of a device while mapped is a violation. Shareable and dma frames:
// writing is one, reading is one while a mapping is writable.
//
// Invariants
//   1. A request takes effect at one moment: at its due tick (asynchronous), and after its fence.
//   2. A movable frame has at most one mapping; pages do not overlap.
//   3. An address range is never given out twice, so that an old address finds nothing.
//
// Thread safety: one thread. Allocates (it is a simulator).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "drivers/ops.h"
#include "drivers/sim/frame_guard.h"
#include "drivers/sim/sim_clock.h"
#include "drivers/sim/sim_queue.h"
#include "runtime/base/lazy_array.h"
#include "runtime/base/random.h"

namespace kvmm {

struct SimMmuConfig {
  Bytes memory = mib(64);       // for frames; committed by the system when touched
  Bytes granule = Bytes(4096);  // smallest page, a power of two; a simulator may go down to 256
  Bytes page_size_max = mib(2);
  uint16_t nodes = 1;  // NUMA nodes that frames may be asked of; their memory is one
  FrameKind kind = FrameKind::kMovable;
  bool fixed_frames = false;  // see MmuOps::fixed_frame; `memory` is not used then
  bool faults = true;
  bool protects = true;
  bool poisons = true;
  bool strict = true;  // a guard violation stops the process
  SimTiming timing;    // bytes_per_s is not used
  Tick jitter;         // asynchronous: requests change their order, by the seed
  uint64_t seed = 0;
  // Errors: kInvalid with the field's name.
  Result<void> validate() const;
};

// What an access of the engine met.
enum class SimAccess : uint8_t {
  kDone,
  kFault,     // not mapped: a FaultEvent is queued (info().faults); the engine waits, then repeats
  kPoisoned,  // SIGBUS on a host
  kDenied,    // a write to a page mapped kRead, any access to one mapped kNone
  kRange,     // no reserved address: SIGSEGV on a host
};

// A Fence of kind kEvent: its handle is a SimEvent*.
struct SimEvent {
  bool done = false;
};

class SimMmu final : public MmuOps, public FrameGuard {
 public:
  // Errors: kInvalid (config), kNoMemory. `clock` outlives it.
  static Result<std::unique_ptr<SimMmu>> create(SimClock& clock, const SimMmuConfig& config);
  // REQUIRES: no request is in flight.
  ~SimMmu() override;

  MmuInfo info() const override;
  MmuStats stats() const override { return stats_; }
  Result<AddressRange> reserve(Bytes length, Bytes align, Bytes page_size) override;
  void release(AddressRange range) override;
  // The bytes of fresh frames are 0xdb: what relies on zeros shows.
  Result<FrameArea> create_frames(Bytes size, uint32_t count, NodeId node) override;
  void destroy_frames(const FrameArea& area) override;
  FrameAddr fixed_frame(VirtAddr va) const override;
  size_t submit(std::span<MmuRequest* const> requests) override;
  void poll() override;
  size_t read_faults(std::span<FaultEvent> out) override;
  void wake(AddressRange range) override;

  // The engine's accesses. Bytes before the page that answers otherwise have moved, as on a real
  // machine. `thread` waits until wake() or a mapping lets it try again; until then its repeated
  // faults on one page queue no second event.
  SimAccess read(VirtAddr va, std::span<std::byte> out, uint32_t thread = 0);
  SimAccess write(VirtAddr va, std::span<const std::byte> in, uint32_t thread = 0);
  // Threads that faulted and have not been let go. A run that ends with any has hung.
  size_t waiters() const { return waiting_.size(); }

  bool frame_is_mapped(FrameAddr frame) const;
  bool page_is_mapped(VirtAddr va) const;
  bool page_is_poisoned(VirtAddr va) const { return poisoned(va.value(), va.value() + 1); }
  void on_device_access(const std::byte* data, Bytes length, bool writes, const char* who) override;
  uint64_t violations() const { return violations_; }

  // Fault injection. The next `times` maps and unmaps of this frame answer kBusy.
  void make_busy(FrameAddr frame, uint32_t times) { busy_[frame.value()] = times; }
  // The `nth` entry (1: the next) of an `op`, from now on, answers `result`, once.
  void fail_entry(MmuOp op, uint64_t nth, Errc result) { failures_.push_back({op, nth, result}); }

  void check_invariants() const;

 private:
  struct Range {
    Bytes length;
    LazyArray<std::byte> bytes;  // fixed frames
    uint64_t frames = 0;         // address of the first of them
  };
  struct Mapping {
    uint64_t frame = 0;
    uint64_t size = 0;
    Prot prot = Prot::kReadWrite;
  };
  struct MappedFrame {
    uint64_t size = 0;
    uint32_t mappings = 0;
    uint32_t writable = 0;
  };
  struct Pending {
    Tick due;
    MmuRequest* request;
  };
  struct Failure {
    MmuOp op;
    uint64_t countdown;
    Errc result;
  };
  struct Waiter {
    uint64_t page;
    bool write;
  };

  SimMmu(SimClock& clock, const SimMmuConfig& config);
  bool page_size_ok(Bytes size) const;
  const Range* range_of(uint64_t va, uint64_t length, uint64_t* start = nullptr) const;
  bool frame_exists(uint64_t frame, uint64_t size) const;
  bool poisoned(uint64_t start, uint64_t end) const;
  void set_poison(uint64_t start, uint64_t end);
  void clear_poison(uint64_t start, uint64_t end);
  // The first mapping that overlaps [start, end), or end().
  std::map<uint64_t, Mapping>::iterator mapping_in(uint64_t start, uint64_t end);
  std::map<uint64_t, Mapping>::const_iterator mapping_in(uint64_t start, uint64_t end) const;
  std::map<uint64_t, MappedFrame>::const_iterator mapped_frame_in(uint64_t start,
                                                                  uint64_t end) const;

  void perform(MmuRequest& r);
  Errc perform(const MmuRequest& r, MapEntry& e);
  Errc map(const MmuRequest& r, MapEntry& e);
  Errc unmap(const MmuRequest& r, MapEntry& e);
  Errc protect(const MmuRequest& r, MapEntry& e);
  Errc free_fixed(const MmuRequest& r, MapEntry& e);
  std::optional<Errc> injected(const MmuRequest& r, const MapEntry& e);
  SimAccess access(VirtAddr va, std::byte* out, const std::byte* in, size_t length,
                   uint32_t thread);
  void fault(uint64_t va, bool write, uint32_t thread);

  SimClock& clock_;
  SimMmuConfig config_;
  Random random_;
  LazyArray<std::byte> memory_;
  uint64_t memory_base_ = 0;  // of the aligned part of memory_
  uint64_t next_va_ = 0x100000000000;
  MmuStats stats_;
  uint64_t violations_ = 0;
  std::map<uint64_t, Range> ranges_;               // by start
  std::map<uint64_t, FrameArea> areas_;            // by base
  std::map<uint64_t, Mapping> pages_;              // by va
  std::map<uint64_t, MappedFrame> mapped_frames_;  // by frame address
  std::map<uint64_t, uint64_t> poison_;            // start -> end, apart from each other
  std::vector<Pending> pending_;                   // sorted by due
  std::deque<FaultEvent> faults_;
  std::map<uint32_t, Waiter> waiting_;  // by thread
  std::map<uint64_t, uint32_t> busy_;
  std::vector<Failure> failures_;
};

}  // namespace kvmm
