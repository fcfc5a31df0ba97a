// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/counter.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

namespace kvmm {
namespace {

TEST(Counter, AddsOnesAmountsAndBytes) {
  Counter c;
  EXPECT_EQ(c.value(), 0U);
  c.add();
  c.add(41);
  c.add(kib(1));
  EXPECT_EQ(c.value(), 42U + 1024U);
}

TEST(Counter, HasACacheLineOfItsOwn) {
  std::array<Counter, 2> two;
  const auto a = reinterpret_cast<uintptr_t>(&two[0]);
  const auto b = reinterpret_cast<uintptr_t>(&two[1]);
  EXPECT_EQ(a % 64, 0U);
  EXPECT_EQ(b - a, 64U);
}

TEST(Counter, LosesNothingBetweenThreads) {
  Counter c;
  Gauge g;
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kRounds = 50000;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < kRounds; ++i) {
        c.add(3);
        g.add(2);
        g.sub(2);
      }
    });
  }
  for (std::thread& t : threads) {
    t.join();
  }
  EXPECT_EQ(c.value(), kThreads * kRounds * 3);
  EXPECT_EQ(g.value(), 0U);
  EXPECT_GE(g.highest(), 2U);
  EXPECT_LE(g.highest(), kThreads * 2);
}

TEST(Gauge, RemembersHowHighItWas) {
  Gauge g;
  g.add(5);
  g.sub(3);
  g.add(1);
  EXPECT_EQ(g.value(), 3U);
  EXPECT_EQ(g.highest(), 5U);
  g.add(10);
  EXPECT_EQ(g.highest(), 13U);
}

}  // namespace
}  // namespace kvmm
