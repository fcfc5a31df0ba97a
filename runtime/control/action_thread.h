// SPDX-License-Identifier: Apache-2.0
//
// One thread that runs actions one after another, for the control thread, which must not wait.
//
//   control thread   submit(client, work) ... poll on wake_fd() ... take_finished()
//   action thread    work() -> result -> wake_fd becomes readable
//
// Thread safety: all functions are the control thread's; the queues between are guarded inside.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace kvmm {

class ActionThread {
 public:
  struct Finished {
    uint64_t client;
    std::string reply;
  };

  // `wake_fd`: an eventfd, owned by the caller, that is written when something has finished.
  explicit ActionThread(int wake_fd) : wake_fd_(wake_fd) {}
  // Drops what has not begun and waits for what runs.
  ~ActionThread();
  ActionThread(const ActionThread&) = delete;
  ActionThread& operator=(const ActionThread&) = delete;

  // REQUIRES: the caller blocks all signals (the thread is started here and inherits that).
  // Throws std::system_error if no thread can be had.
  void submit(uint64_t client, std::function<std::string()> work);
  std::vector<Finished> take_finished();

 private:
  void run();

  const int wake_fd_;
  std::thread thread_;  // started by the first submit

  std::mutex mutex_;
  std::condition_variable more_;
  // guarded by mutex_
  std::deque<std::pair<uint64_t, std::function<std::string()>>> waiting_;
  std::vector<Finished> finished_;
  bool stop_ = false;
};

}  // namespace kvmm
