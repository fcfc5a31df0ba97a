// SPDX-License-Identifier: Apache-2.0
//
// Data workers and the thread that helps them.
#include "runtime/worker_data.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <set>

namespace kvmm {
namespace {

constexpr int kWaitMs = 20'000;

// Finishes at once and notes in whose thread.
class InlineOps final : public DataOps {
 public:
  size_t submit(std::span<DataRequest* const> requests) override {
    for (DataRequest* r : requests) {
      r->os_error = static_cast<int>(gettid());
      r->queue->push(*r);
    }
    return requests.size();
  }
};

class WorkerDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    event_ = eventfd(0, EFD_CLOEXEC);
    ASSERT_GE(event_, 0);
    queue_.set_notifier(
        [](void* fd) noexcept {
          const uint64_t one = 1;
          EXPECT_EQ(write(*static_cast<int*>(fd), &one, sizeof one), ssize_t{sizeof one});
        },
        &event_);
  }
  void TearDown() override { close(event_); }

  DataRequest request(Bytes length) {
    DataRequest r;
    r.queue = &queue_;
    r.op = DataOp::kZero;
    r.length = length;
    return r;
  }
  void submit(WorkerData& workers, DataRequest& r) {
    DataRequest* const one = &r;
    ASSERT_EQ(workers.submit(std::span<DataRequest* const>(&one, 1)), 1u);
  }
  // The next one that is finished; null after kWaitMs.
  Request* finished() {
    while (true) {
      if (Request* r = queue_.pop()) {
        return r;
      }
      pollfd p{event_, POLLIN, 0};
      if (::poll(&p, 1, kWaitMs) != 1) {
        return nullptr;
      }
      uint64_t n = 0;
      EXPECT_EQ(read(event_, &n, sizeof n), ssize_t{sizeof n});
    }
  }

  InlineOps ops_;
  CompletionQueue queue_;
  int event_ = -1;
};

TEST_F(WorkerDataTest, WithoutAHelperWorkersDoEverything) {
  WorkerData workers(ops_, 2);
  std::array<DataRequest, 8> r;
  for (DataRequest& one : r) {
    one = request(kib(64));
    submit(workers, one);
  }
  for (size_t i = 0; i < r.size(); ++i) {
    Request* const done = finished();
    ASSERT_NE(done, nullptr);
    EXPECT_NE(done->os_error, gettid());
  }
}

TEST_F(WorkerDataTest, EveryRequestIsDoneOnceByTheHelperOrAWorker) {
  WorkerData workers(ops_, 1);
  workers.helper_started();
  std::array<DataRequest, 64> r;
  std::set<Request*> seen;
  for (DataRequest& one : r) {
    one = request(kib(64));
    submit(workers, one);
    (void)workers.help();
  }
  while (workers.help()) {
  }
  EXPECT_FALSE(workers.help_wanted());
  for (size_t i = 0; i < r.size(); ++i) {
    Request* const done = finished();
    ASSERT_NE(done, nullptr);
    EXPECT_TRUE(seen.insert(done).second);
  }
  workers.helper_stopped();
}

TEST_F(WorkerDataTest, ALongRequestIsForAWorker) {
  WorkerData workers(ops_, 1);
  workers.helper_started();
  DataRequest r = request(mib(2));
  submit(workers, r);
  EXPECT_FALSE(workers.help_wanted());
  EXPECT_FALSE(workers.help());
  Request* const done = finished();
  ASSERT_EQ(done, &r);
  EXPECT_NE(done->os_error, gettid());
  workers.helper_stopped();
}

TEST_F(WorkerDataTest, WhatAHelperLeavesBehindIsDone) {
  WorkerData workers(ops_, 1);
  workers.helper_started();
  DataRequest r = request(kib(64));
  submit(workers, r);  // nobody is woken: the helper would take it
  workers.helper_stopped();
  EXPECT_EQ(finished(), &r);
}

TEST_F(WorkerDataTest, TheDestructorWaitsForWhatIsQueued) {
  std::array<DataRequest, 16> r;
  {
    WorkerData workers(ops_, 1);
    for (DataRequest& one : r) {
      one = request(kib(64));
      submit(workers, one);
    }
  }
  size_t n = 0;
  while (queue_.pop() != nullptr) {
    ++n;
  }
  EXPECT_EQ(n, r.size());
}

}  // namespace
}  // namespace kvmm
