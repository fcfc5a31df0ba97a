// SPDX-License-Identifier: Apache-2.0
//
// The core: the memory manager, the lock that guards it, and the thread that steps it.
//
//   engine threads --fault--> userfaultfd --+
//   devices, workers --completions----------+--> core thread: poll, lock, step, unlock
//   tools --queries (lock-free mailbox)-----+
//   engine threads --API calls--> lock, change, step, unlock (and wait, unlocked)
//
// The core thread blocks all signals, allocates nothing while it handles faults, writes only to its
// own descriptors, and takes no lock that a reader of the control plane can hold: readers post a
// query, which the core thread runs between steps and which may only copy into memory of the
// reader.
//
// Thread safety: any thread. Lock: kCore.
#pragma once

#include <poll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <thread>

#include "runtime/base/lock.h"
#include "runtime/cpu_nodes.h"
#include "runtime/platform.h"
#include "sched/mm.h"

namespace kvmm {

class Core {
 public:
  struct Parts {
    Platform platform;
    TierTable* tiers = nullptr;
    Tick notice_time;  // see Mm::Deps
    DataWorkers* data = nullptr;
    const CpuNodes* cpus = nullptr;  // null: threads run anywhere
    TraceRing* trace = nullptr;
    CompletionQueue* completions = nullptr;
  };

  static Result<std::unique_ptr<Core>> create(const Parts& parts);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Starts the thread (if the platform has threads).
  void start();
  void stop();

  Mutex& lock() KVMM_RETURNS_LOCK(lock_) { return lock_; }
  Mm& mm() KVMM_REQUIRES(lock_) { return *mm_; }
  AddressMap& map() KVMM_REQUIRES(lock_) { return map_; }
  SwapSpace& swap() KVMM_REQUIRES(lock_) { return swap_; }
  MmConfig& config() { return config_; }
  const MmStats& stats() const { return mm_->stats(); }
  Tick now() { return parts_.platform.clock->now(); }

  // Steps after a change; what it starts on swap devices is left to the core thread, if there is
  // one. Never waits.
  void step() KVMM_REQUIRES(lock_);
  // The caller's node is where the session's threads run, as long as no touch says otherwise.
  void called_from_here(AddressSpace& space) KVMM_REQUIRES(lock_);
  // Steps and waits until pred() says true. False: it never will (nothing is in flight any more).
  bool wait_until(const std::function<bool()>& pred) KVMM_REQUIRES(lock_);

  // Runs `fn` on the core thread between two steps, waits for it, and takes no lock the fault path
  // takes. `fn` must be short, allocate nothing, and copy into memory of the caller.
  // False: the core has stopped.
  bool query(const std::function<void(Mm&)>& fn);

  // Readable when the memory manager has something to say (Mm::take_notice).
  int notice_fd() const { return notice_fd_; }

  // The core thread looks at everything once more before it sleeps: any thread, costs a system call
  // only if it does sleep.
  void wake() noexcept;

 private:
  struct Query;
  explicit Core(const Parts& parts);
  void run();
  void step_now(Tick now, bool with_io, uint32_t pages_max) KVMM_REQUIRES(lock_);
  void wait_for_events(std::span<pollfd> fds, Tick due);
  bool spin(std::span<pollfd> fds, Tick due);
  void drain(const pollfd& wake) const;
  void after_step() KVMM_REQUIRES(lock_);
  bool run_queries() KVMM_REQUIRES(lock_);  // whether there were any
  bool take_faults() KVMM_REQUIRES(lock_);
  bool threads_unknown() KVMM_REQUIRES(lock_);
  void look_at_threads() KVMM_EXCLUDES(lock_);

  const Parts parts_;
  MmConfig config_;
  Mutex lock_{LockRank::kCore};
  CondVar stepped_;
  AddressMap map_;
  SwapSpace swap_;
  std::unique_ptr<Mm> mm_;
  int wake_fd_ = -1;
  int notice_fd_ = -1;
  std::atomic<Query*> queries_{nullptr};  // lock-free stack: readers push, the core takes all
  std::atomic<bool> stop_{false};
  std::atomic<bool> running_{false};
  // The core thread sets asleep_, then reads woken_; who wakes it sets woken_, then reads asleep_:
  // one of the two sees the other's, and a core thread that is awake costs nobody a system call.
  std::atomic<bool> asleep_{false};
  std::atomic<bool> woken_{false};
  uint32_t waiters_ KVMM_GUARDED_BY(lock_) = 0;
  Tick armed_ KVMM_GUARDED_BY(lock_);  // when the core thread wakes by itself; 0: it does not
  bool worked_ = false;                // the core thread's: it had something to do since it slept
  std::thread thread_;
};

}  // namespace kvmm
