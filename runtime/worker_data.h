// SPDX-License-Identifier: Apache-2.0
//
// Data work (checksum, zero, scrub, copy, rebuild) on threads of its own, so that no step touches
// page bytes.
//
//   submit -> queue (bounded by the core's operations) -> worker, or the core thread between two
//   steps: inline DataOps -> push to the core
//
// The core thread helps (`help`) because handing a request over and back costs two wake-ups, which
// on an idle core take longer than the checksum of a small page. It takes one short request, then
// looks at faults and completions again; workers are woken for what is queued beyond that.
// docs/decisions/0025-the-core-thread-helps.md.
//
// Thread safety: `submit` by the holder of the core lock; `help` by the core thread alone; workers
// push completions, which are lock-free. Lock: kWorkers, for the queue alone. Workers block all
// signals, and end in the destructor, before the devices they work on.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/base/lock.h"
#include "runtime/platform.h"

namespace kvmm {

class WorkerData final : public DataWorkers {
 public:
  // `threads` 0: one. Throws what start_thread does.
  WorkerData(DataOps& inline_ops, uint32_t threads);
  ~WorkerData() override;
  size_t submit(std::span<DataRequest* const> requests) override;
  void helper_started() noexcept override;
  void helper_stopped() noexcept override;
  bool help() override;
  bool help_wanted() const noexcept override;

 private:
  void run();
  void stop();  // and joins
  DataRequest* pop() KVMM_REQUIRES(lock_);
  void look_at_first() KVMM_REQUIRES(lock_);

  DataOps& inline_ops_;
  Mutex lock_{LockRank::kWorkers};
  CondVar wake_;
  // Guarded by lock_: a list through Request::next, oldest first.
  Request* head_ KVMM_GUARDED_BY(lock_) = nullptr;
  Request* tail_ KVMM_GUARDED_BY(lock_) = nullptr;
  size_t sleeping_ KVMM_GUARDED_BY(lock_) = 0;  // workers that wait
  bool stop_ KVMM_GUARDED_BY(lock_) = false;
  size_t queued_ KVMM_GUARDED_BY(lock_) = 0;
  std::atomic<bool> short_first_{false};   // atomic because help_wanted() reads it unlocked
  std::atomic<std::thread::id> helper_{};  // atomic because submit() reads it in other threads
  std::vector<std::thread> threads_;
};

}  // namespace kvmm
