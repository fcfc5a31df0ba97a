// SPDX-License-Identifier: Apache-2.0
//
// The two signals that travel upward: a finished `Request` in a `CompletionQueue`.
//
//   upper layer (one stepping thread)                     device, worker thread, or the same thread
//   --------------------------------- ------------------------------------------ fill Request,
//   queue = &cq; ops.submit(req)   ----->   takes it (or says "not now")
//   ...                                          <-----   result is set, queue->push(req)
//   while (Request* r = cq.pop()) step(*r);
//
// Invariants
//   1. A request that `submit` took is pushed to its queue exactly once, also when it failed at
//   once.
//   2. From submit to pop the device owns the request; the caller must not move or reuse it.
//   3. A queue delivers in the order of pushes.
//
// Thread safety: `push` from any thread, lock-free, allocates nothing; `pop` from one thread at a
// time. A queue that workers push to gets a notifier, so that its reader can sleep in poll(2).
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/result.h"

namespace kvmm {

class CompletionQueue;

struct Request {
  CompletionQueue* queue = nullptr;  // set by the caller
  void* owner = nullptr;             // the caller's; devices never look at it
  uint32_t kind = 0;                 // the caller's; devices never look at it
  Errc result = Errc::kOk;           // set by the device before the push
  int os_error = 0;                  // errno of a failed operation, or 0
  Request* next = nullptr;           // the device's while it owns the request, then the queue's
};

class CompletionQueue {
 public:
  using Notifier = void (*)(void* context) noexcept;

  CompletionQueue() = default;
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // Calls `notify(context)` after a push that found the queue empty. Set before the first push.
  void set_notifier(Notifier notify, void* context) noexcept {
    notify_ = notify;
    context_ = context;
  }

  void push(Request& r) noexcept {
    const Notifier notify = notify_;  // the queue may be gone once its reader has `r`
    void* const context = context_;
    Request* head = pushed_.load(std::memory_order_relaxed);
    do {
      r.next = head;
    } while (!pushed_.compare_exchange_weak(head, &r, std::memory_order_release,
                                            std::memory_order_relaxed));
    if (head == nullptr && notify != nullptr) {
      notify(context);
    }
  }

  // The oldest finished request, or null.
  Request* pop() noexcept {
    if (ordered_ == nullptr) {
      Request* r = pushed_.exchange(nullptr, std::memory_order_acquire);
      while (r != nullptr) {  // newest first becomes oldest first
        Request* next = r->next;
        r->next = ordered_;
        ordered_ = r;
        r = next;
      }
    }
    Request* r = ordered_;
    if (r != nullptr) {
      ordered_ = r->next;
      r->next = nullptr;
    }
    return r;
  }

  bool empty() const noexcept {
    return ordered_ == nullptr && pushed_.load(std::memory_order_acquire) == nullptr;
  }

 private:
  std::atomic<Request*> pushed_{nullptr};  // atomic because any thread pushes
  Request* ordered_ = nullptr;             // the reader's
  Notifier notify_ = nullptr;              // constant after set-up
  void* context_ = nullptr;                // constant after set-up
};

}  // namespace kvmm
