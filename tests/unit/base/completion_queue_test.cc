// SPDX-License-Identifier: Apache-2.0
//
// CompletionQueue lives in drivers/request.h, but is a leaf: it needs nothing of the drivers.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

#include "drivers/request.h"

namespace kvmm {
namespace {

TEST(CompletionQueue, DeliversInTheOrderOfPushes) {
  CompletionQueue queue;
  std::array<Request, 6> r;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.pop(), nullptr);
  queue.push(r[0]);
  queue.push(r[1]);
  queue.push(r[2]);
  EXPECT_FALSE(queue.empty());
  EXPECT_EQ(queue.pop(), &r[0]);
  queue.push(r[3]);  // behind what is already ordered
  queue.push(r[4]);
  EXPECT_EQ(queue.pop(), &r[1]);
  EXPECT_EQ(queue.pop(), &r[2]);
  EXPECT_EQ(queue.pop(), &r[3]);
  queue.push(r[5]);
  EXPECT_EQ(queue.pop(), &r[4]);
  EXPECT_EQ(queue.pop(), &r[5]);
  EXPECT_EQ(r[5].next, nullptr);
  EXPECT_EQ(queue.pop(), nullptr);
  EXPECT_TRUE(queue.empty());
}

TEST(CompletionQueue, ARequestMayBePushedAgain) {
  CompletionQueue queue;
  Request r;
  for (int i = 0; i < 3; ++i) {
    queue.push(r);
    ASSERT_EQ(queue.pop(), &r);
    ASSERT_EQ(queue.pop(), nullptr);
  }
}

void count(void* context) noexcept {
  ++*static_cast<int*>(context);
}

TEST(CompletionQueue, NotifiesWhenItWasEmpty) {
  CompletionQueue queue;
  int calls = 0;
  queue.set_notifier(&count, &calls);
  std::array<Request, 4> r;
  queue.push(r[0]);
  EXPECT_EQ(calls, 1);
  queue.push(r[1]);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(queue.pop(), &r[0]);
  queue.push(r[2]);  // r[1] is taken out already: a reader that sleeps now would miss this one
  EXPECT_EQ(calls, 2);
  while (queue.pop() != nullptr) {
  }
  queue.push(r[3]);
  EXPECT_EQ(calls, 3);
}

void signal_fd(void* context) noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(*static_cast<int*>(context), &one, sizeof one);
}

// Writers push from many threads; the reader sleeps in poll(2) whenever the queue is empty. A lost
// wake-up would leave it there: the poll has a limit, and reaching it fails the test.
TEST(CompletionQueue, LosesNothingBetweenThreads) {
  struct Item : Request {
    uint64_t sequence = 0;
  };
  constexpr size_t kThreads = 4;
  constexpr size_t kEach = 20000;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT_GE(fd, 0);
  CompletionQueue queue;
  queue.set_notifier(&signal_fd, &fd);
  std::vector<std::vector<Item>> items(kThreads, std::vector<Item>(kEach));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&queue, &mine = items[t], t] {
      for (size_t i = 0; i < kEach; ++i) {
        mine[i].kind = static_cast<uint32_t>(t);
        mine[i].sequence = i;
        queue.push(mine[i]);
      }
    });
  }
  std::array<uint64_t, kThreads> next{};
  size_t got = 0;
  bool in_order = true;
  bool timed_out = false;
  while (got < kThreads * kEach && !timed_out) {
    pollfd p{fd, POLLIN, 0};
    timed_out = poll(&p, 1, 20000) != 1;
    uint64_t signals = 0;
    [[maybe_unused]] const ssize_t n = read(fd, &signals, sizeof signals);
    while (Request* r = queue.pop()) {
      const Item& item = *static_cast<Item*>(r);
      in_order = in_order && item.sequence == next[item.kind];
      ++next[item.kind];
      ++got;
    }
  }
  for (std::thread& t : threads) {
    t.join();
  }
  EXPECT_FALSE(timed_out);
  EXPECT_TRUE(in_order);
  EXPECT_EQ(got, kThreads * kEach);
  EXPECT_TRUE(queue.empty());
  close(fd);
}

}  // namespace
}  // namespace kvmm
