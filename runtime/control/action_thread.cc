// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/action_thread.h"

#include <unistd.h>

#include <utility>

#include "runtime/thread.h"

namespace kvmm {

ActionThread::~ActionThread() {
  {
    const MutexLock lock(mutex_);
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
    thread_ = start_thread("kvmm-action", [this] { run(); });
  }
  {
    const MutexLock lock(mutex_);
    waiting_.push_back({client, std::move(work)});
  }
  more_.notify_one();
}

std::vector<ActionThread::Finished> ActionThread::take_finished() {
  const MutexLock lock(mutex_);
  return std::exchange(finished_, {});
}

std::optional<ActionThread::Waiting> ActionThread::next() {
  const MutexLock lock(mutex_);
  while (!stop_ && waiting_.empty()) {
    more_.wait(mutex_);
  }
  if (stop_) {
    return std::nullopt;
  }
  Waiting first = std::move(waiting_.front());
  waiting_.pop_front();
  return first;
}

void ActionThread::run() {
  while (std::optional<Waiting> job = next()) {
    std::string reply = job->work();
    {
      const MutexLock lock(mutex_);
      finished_.push_back({job->client, std::move(reply)});
    }
    const uint64_t one = 1;
    // It can only fail by overflow of the counter, and then it is readable all the same.
    [[maybe_unused]] const ssize_t n = write(wake_fd_, &one, sizeof one);
  }
}

}  // namespace kvmm
