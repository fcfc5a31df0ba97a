// SPDX-License-Identifier: Apache-2.0
#include "runtime/worker_data.h"

#include <algorithm>

#include "runtime/thread.h"

namespace kvmm {

WorkerData::WorkerData(DataOps& inline_ops, uint32_t threads) : inline_ops_(inline_ops) {
  try {
    for (uint32_t i = 0; i < std::max<uint32_t>(1, threads); ++i) {
      threads_.push_back(start_thread("kvmm-data", [this] { run(); }));
    }
  } catch (...) {
    stop();  // those that have started
    throw;
  }
}

WorkerData::~WorkerData() {
  stop();
}

void WorkerData::stop() {
  {
    MutexLock l(lock_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) {
    t.join();
  }
}

size_t WorkerData::submit(std::span<DataRequest* const> requests) {
  {
    MutexLock l(lock_);
    for (DataRequest* r : requests) {
      r->next = nullptr;
      (tail_ != nullptr ? tail_->next : head_) = r;
      tail_ = r;
    }
  }
  wake_.notify_one();
  return requests.size();
}

void WorkerData::run() {
  while (true) {
    DataRequest* r = nullptr;
    {
      MutexLock l(lock_);
      while (head_ == nullptr && !stop_) {
        wake_.wait(lock_);
      }
      if (head_ == nullptr) {
        return;  // stopped, and everything is done
      }
      r = static_cast<DataRequest*>(head_);
      head_ = r->next;
      tail_ = head_ == nullptr ? nullptr : tail_;
      r->next = nullptr;
    }
    inline_ops_.submit(std::span<DataRequest* const>(&r, 1));  // pushes to the core's queue
  }
}

}  // namespace kvmm
