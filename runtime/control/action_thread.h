// SPDX-License-Identifier: Apache-2.0
//
// One thread that runs actions one after another, for the control thread, which must not wait.
//
//   control thread   submit(client, work) ... poll on wake_fd() ... take_finished()
//   action thread    work() -> result -> wake_fd becomes readable
//
// Thread safety: all functions are the control thread's; the queues between are guarded inside.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/lock.h"

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
  struct Waiting {
    uint64_t client;
    std::function<std::string()> work;
  };

  void run();
  // Waits for work; nothing when it is time to stop.
  std::optional<Waiting> next();

  const int wake_fd_;
  std::thread thread_;  // started by the first submit

  Mutex mutex_{LockRank::kControlServer};
  CondVar more_;
  std::deque<Waiting> waiting_ KVMM_GUARDED_BY(mutex_);
  std::vector<Finished> finished_ KVMM_GUARDED_BY(mutex_);
  bool stop_ KVMM_GUARDED_BY(mutex_) = false;
};

}  // namespace kvmm
