// SPDX-License-Identifier: Apache-2.0
//
// The composition root: builds drivers, tier, swap areas, core and control plane in order, and
// takes them down in reverse.
//
//   Runtime --+-- DriverRegistry, Device (memory)       drivers are named here and nowhere below
//             +-- TierTable (DRAM pool)
//             +-- Core (memory manager + thread)
//             +-- swap areas (Device + SwapArea each)
//             +-- arenas, sessions                       registry, lock kApi
//             +-- AttrTree, ControlServer
//
// Thread safety: any thread. Locks: kApi (registries), then kCore.
#pragma once

#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/attr.h"
#include "runtime/control/config.h"
#include "runtime/control/server.h"
#include "runtime/core.h"
#include "runtime/driver_loader.h"
#include "runtime/platform.h"
#include "runtime/tier_plan.h"
#include "tiers/tier.h"

namespace kvmm {

// Who runs a swap area.
struct SwapDriver {
  std::string name;     // "": the platform's; with a '/': a shared object (driver_loader.h)
  std::string options;  // the driver's own, "key=value,key=value"
};

struct RuntimeConfig {
  std::string name;
  std::string config_dir;                     // "": KVMM_CONFIG or the default
  Bytes dram;                                 // of all nodes with CPUs; 0: see plan_tiers
  std::vector<TierCapacity> tier_capacities;  // lines of the configuration
  std::string swap_path;                      // "": none
  Bytes swap_size;                            // 0: 16 GiB, a block device: all of it
  SwapDriver swap_driver;
  std::string frames;  // "movable", "shareable", "pinonly"
  bool control = true;
  bool swap_volatile = false;
  uint32_t data_workers = 1;
};

class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> open(Platform platform, RuntimeConfig config);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Closes all sessions and arenas. kBusy: pins are open (nothing is closed).
  Result<void> close();

  Result<Arena*> create_arena(ArenaSpec spec);
  Result<void> destroy_arena(Arena& arena);
  Result<AddressRange> reserve(Arena& arena, Bytes length);
  Result<uint32_t> add_plane(Arena& arena, PlaneSpec plane);
  // Whole pages are dropped; the edges of partly covered ones are zeroed by the calling thread, in
  // arenas of engines that pin while it has them pinned.
  Result<void> clear(Arena& arena, AddressRange range);

  // `lane` < 0: any.
  Result<AddressSpace*> open_session(Arena& arena, SpaceSpec spec, int64_t lane);
  Result<void> close_session(AddressSpace& space);

  Result<void> swapon(const std::string& path, Bytes size, int32_t priority,
                      const SwapDriver& driver = {}, bool discard = true);
  // How many pages could not be read, and are to be computed again. kNoMemory, kNoSpace: the text
  // says whose pages are left, and what they lack.
  Result<uint64_t> swapoff(const std::string& path);

  // Runs `begin` (an Mm call that takes a job) and waits until its job is done.
  Result<void> run_job(const std::function<Result<void>(Mm&, MmJob&)>& begin);
  // Everything of the session into slots, index and devices flushed. Returns the durable sequence
  // number.
  Result<uint64_t> sync(AddressSpace& space);

  // Whether this is a forked child of the process that opened it: none of its threads and none of
  // its memory are here.
  bool forked() const { return getpid() != owner_; }

  Core& core() { return *core_; }
  AttrTree& attributes() { return tree_; }
  TierTable& tiers() { return *tiers_; }
  const RuntimeConfig& config() const { return config_; }
  // Whose runs of the fault path take no lock that readers take: lists of what exists, by copy.
  std::vector<uint64_t> arena_ids();
  std::vector<uint64_t> session_ids();
  std::vector<std::string> swap_names();
  // Calls fn while the object cannot go away. Errors: kNotFound, or fn's.
  Result<AttrValue> with_arena(uint64_t id,
                               const std::function<Result<AttrValue>(const Arena&)>& fn);
  Result<AttrValue> with_session(uint64_t id,
                                 const std::function<Result<AttrValue>(AddressSpace&)>& fn);

 private:
  friend class RuntimeAttributes;
  struct SwapDevice {
    std::unique_ptr<Device> device;
    std::string name;
    std::string path;
  };

  Runtime(Platform platform, RuntimeConfig config);
  Result<void> build();
  Result<void> build_memory();
  Result<void> start_control();
  Result<uint32_t> place_plane(Arena& arena, PlaneSpec plane) KVMM_REQUIRES(lock_);
  // Waits until the pages are there to be written. On an error nothing is pinned.
  Result<void> pin_edges(PinBatch& pins) KVMM_REQUIRES(core_->lock());
  uint32_t tenant_number(const std::string& name) KVMM_REQUIRES(lock_);
  // The driver that is meant, loaded if it is a path.
  Result<std::unique_ptr<Device>> bind_swap(const DeviceInfo& info);
  void print_notices();
  // Takes out the failing areas that hold nothing any more.
  void take_out_emptied();
  Result<void> take_out(SwapArea& area) KVMM_REQUIRES(core_->lock());
  void forget_device(const std::string& name);
  std::string why_not(const std::string& path, const Mm::DrainJob& job);

  const Platform platform_;
  const pid_t owner_ = getpid();
  RuntimeConfig config_;
  DriverRegistry registry_;
  std::unique_ptr<Device> memory_;
  std::unique_ptr<DataWorkers> data_;
  std::unique_ptr<TierTable> tiers_;
  std::unique_ptr<CpuNodes> cpus_;
  std::unique_ptr<TraceRing> trace_;
  CompletionQueue completions_;
  std::unique_ptr<Core> core_;

  Mutex lock_{LockRank::kApi};
  std::map<uint64_t, std::unique_ptr<Arena>> arenas_ KVMM_GUARDED_BY(lock_);
  std::map<uint64_t, std::unique_ptr<AddressSpace>> sessions_ KVMM_GUARDED_BY(lock_);
  DriverLoader loader_ KVMM_GUARDED_BY(lock_);  // before the devices of its drivers
  std::vector<SwapDevice> swap_devices_ KVMM_GUARDED_BY(lock_);
  std::map<std::string, uint32_t> tenants_ KVMM_GUARDED_BY(lock_);
  uint64_t next_id_ KVMM_GUARDED_BY(lock_) = 1;
  uint64_t next_object_ KVMM_GUARDED_BY(lock_) = 1;
  uint64_t next_swap_ KVMM_GUARDED_BY(lock_) = 0;
  uint64_t sync_sequence_ KVMM_GUARDED_BY(lock_) = 0;
  ModelId swap_model_ KVMM_GUARDED_BY(lock_){};

  AttrTree tree_;
  std::unique_ptr<class RuntimeAttributes> attributes_;
  std::unique_ptr<ControlServer> control_;
  Tick opened_;
  std::thread notices_;
  std::atomic<bool> stopping_{false};
};

}  // namespace kvmm
