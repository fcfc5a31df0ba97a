// SPDX-License-Identifier: Apache-2.0
//
// A device stream made of one thread: work is launched in order and finishes later, like kernels on
// a GPU. It gives the pinning engine something to fence: pages stay pinned until the launched work
// is over, although the engine's own thread has long gone on.
//
// Thread safety: `launch` and `wait` from one thread; `fence_done` from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "kvmm/kvmm.h"

namespace tiny {

class Stream {
 public:
  // A point in the stream: reached when everything launched before it has run.
  class Mark {
   public:
    bool reached() const { return reached_.load(std::memory_order_acquire); }

   private:
    friend class Stream;
    std::atomic<bool> reached_{false};
  };

  Stream();
  // Runs what is still queued, then ends the thread.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void launch(std::function<void()> work);
  // A mark behind everything launched so far. It lives as long as the stream: kvmm may ask a fence
  // late.
  Mark& record();
  // Returns once `mark` is reached.
  void wait(const Mark& mark);

  // A fence for kvmm_unpin that is done when `mark` is reached.
  static kvmm_fence fence(Mark& mark);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  std::deque<Mark> marks_;                   // guarded by mutex_; addresses are stable
  bool ending_ = false;                      // guarded by mutex_
  std::thread thread_;
};

}  // namespace tiny
