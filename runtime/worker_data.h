// SPDX-License-Identifier: Apache-2.0
//
// Data work (checksum, zero, scrub, copy, rebuild) on threads of its own, so that no step touches
// page bytes.
//
//   submit -> queue (bounded by the core's operations) -> worker: inline DataOps -> push to the
//   core
//
// Thread safety: `submit` by the holder of the core lock; workers push completions, which are
// lock-free. Lock: kWorkers, for the queue alone. Workers block all signals, and end in the
// destructor, before the devices they work on.
#pragma once

#include <thread>
#include <vector>

#include "drivers/ops.h"
#include "runtime/base/lock.h"

namespace kvmm {

class WorkerData final : public DataOps {
 public:
  // `threads` 0: one. Throws what start_thread does.
  WorkerData(DataOps& inline_ops, uint32_t threads);
  ~WorkerData() override;
  size_t submit(std::span<DataRequest* const> requests) override;

 private:
  void run();
  void stop();  // and joins

  DataOps& inline_ops_;
  Mutex lock_{LockRank::kWorkers};
  CondVar wake_;
  // Guarded by lock_: a list through Request::next, oldest first.
  Request* head_ KVMM_GUARDED_BY(lock_) = nullptr;
  Request* tail_ KVMM_GUARDED_BY(lock_) = nullptr;
  bool stop_ KVMM_GUARDED_BY(lock_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvmm
