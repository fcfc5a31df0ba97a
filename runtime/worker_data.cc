// SPDX-License-Identifier: Apache-2.0
#include "runtime/worker_data.h"

#include <sched.h>

#include <algorithm>

#include "runtime/thread.h"

namespace kvmm {
namespace {

// The longest request that the core thread takes: some 10 us, which a fault can wait.
constexpr Bytes kHelpMax = kib(256);
// So many short requests (one page of 2 MiB, some 70 us) the core thread does by itself: a worker
// would take a core from the threads that have just got their pages, and whose next touches the
// devices wait for.
constexpr size_t kHelperAlone = 8;

}  // namespace

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
  size_t wanted = 0;
  {
    MutexLock l(lock_);
    for (DataRequest* r : requests) {
      r->next = nullptr;
      (tail_ != nullptr ? tail_->next : head_) = r;
      tail_ = r;
    }
    queued_ += requests.size();
    look_at_first();
    const bool helps = helper_.load(std::memory_order_relaxed) == std::this_thread::get_id() &&
                       short_first_.load(std::memory_order_relaxed);
    size_t alone = 0;
    for (const Request* r = helps ? head_ : nullptr;
         r != nullptr && alone < kHelperAlone &&
         static_cast<const DataRequest*>(r)->length <= kHelpMax;
         r = r->next) {
      ++alone;
    }
    wanted = std::min(sleeping_, queued_ - alone);
  }
  for (; wanted != 0; --wanted) {
    wake_.notify_one();
  }
  return requests.size();
}

DataRequest* WorkerData::pop() {
  auto* r = static_cast<DataRequest*>(head_);
  head_ = r->next;
  tail_ = head_ == nullptr ? nullptr : tail_;
  r->next = nullptr;
  --queued_;
  look_at_first();
  return r;
}

void WorkerData::look_at_first() {
  short_first_.store(head_ != nullptr && static_cast<DataRequest*>(head_)->length <= kHelpMax,
                     std::memory_order_relaxed);
}

void WorkerData::helper_started() noexcept {
  helper_.store(std::this_thread::get_id(), std::memory_order_relaxed);
}

void WorkerData::helper_stopped() noexcept {
  helper_.store(std::thread::id(), std::memory_order_relaxed);
  MutexLock l(lock_);
  wake_.notify_all();  // what it would have done
}

bool WorkerData::help_wanted() const noexcept {
  return short_first_.load(std::memory_order_relaxed);
}

bool WorkerData::help() {
  DataRequest* r = nullptr;
  {
    MutexLock l(lock_);
    if (!short_first_.load(std::memory_order_relaxed)) {
      return false;  // none, or a long one, which a worker was woken for
    }
    r = pop();
    if (head_ != nullptr && !short_first_.load(std::memory_order_relaxed)) {
      wake_.notify_one();  // a long one is next: nobody was woken for it yet
    }
  }
  inline_ops_.submit(std::span<DataRequest* const>(&r, 1));
  return true;
}

void WorkerData::run() {
  // A batch thread takes an idle core, but never the core of who wakes it: the core thread has the
  // first page to map while this one checksums the second.
  const sched_param none{};
  (void)sched_setscheduler(0, SCHED_BATCH, &none);  // needs no right; a refusal only costs time
  while (true) {
    DataRequest* r = nullptr;
    {
      MutexLock l(lock_);
      while (head_ == nullptr && !stop_) {
        ++sleeping_;
        wake_.wait(lock_);
        --sleeping_;
      }
      if (head_ == nullptr) {
        return;  // stopped, and everything is done
      }
      r = pop();
    }
    inline_ops_.submit(std::span<DataRequest* const>(&r, 1));  // pushes to the core's queue
    sched_yield();  // a thread whose page has just been mapped asks for the next one first
  }
}

}  // namespace kvmm
