// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/stream.h"

#include <utility>

namespace tiny {
namespace {

int mark_reached(void* handle) {
  return static_cast<Stream::Mark*>(handle)->reached() ? 1 : 0;
}

}  // namespace

Stream::Stream() : thread_([this] { run(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::launch(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  changed_.notify_all();
}

Stream::Mark& Stream::record() {
  std::lock_guard lock(mutex_);
  Mark& mark = marks_.emplace_back();
  queue_.emplace_back([this, &mark] {
    std::lock_guard inner(mutex_);
    mark.reached_.store(true, std::memory_order_release);
    changed_.notify_all();
  });
  changed_.notify_all();
  return mark;
}

void Stream::wait(const Mark& mark) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return mark.reached(); });
}

kvmm_fence Stream::fence(Mark& mark) {
  kvmm_fence fence{};
  fence.size = sizeof(fence);
  fence.type = KVMM_FENCE_CALLBACK;
  fence.handle = &mark;
  fence.done = mark_reached;
  return fence;
}

void Stream::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !queue_.empty(); });
    if (queue_.empty())
      return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

}  // namespace tiny
