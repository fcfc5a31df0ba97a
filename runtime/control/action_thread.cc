// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/action_thread.h"

#include <unistd.h>

#include <utility>

namespace kvmm {

ActionThread::~ActionThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    waiting_.clear();
  }
  more_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void ActionThread::submit(uint64_t client, std::function<std::string()> work) {
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { run(); });
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.emplace_back(client, std::move(work));
  }
  more_.notify_one();
}

std::vector<ActionThread::Finished> ActionThread::take_finished() {
  const std::lock_guard lock(mutex_);
  return std::exchange(finished_, {});
}

void ActionThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
    if (stop_) {
      return;
    }
    auto [client, work] = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    std::string reply = work();
    lock.lock();
    finished_.push_back({client, std::move(reply)});
    const uint64_t one = 1;
    // It can only fail by overflow of the counter, and then it is readable all the same.
    [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof one);
  }
}

}  // namespace kvmm
