// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "runtime/base/clock.h"

namespace kvmm {
namespace {

TEST(Random, SplitMixGivesThePublishedSequence) {
  // Seed 1234567, as in the reference implementation of S. Vigna.
  uint64_t state = 1234567;
  EXPECT_EQ(splitmix64(state), 6457827717110365317ULL);
  EXPECT_EQ(splitmix64(state), 3203168211198807973ULL);
  EXPECT_EQ(splitmix64(state), 9817491932198370423ULL);
}

TEST(Random, SameSeedSameNumbers) {
  Random a(42);
  Random b(42);
  Random c(43);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const uint64_t v = a();
    EXPECT_EQ(v, b());
    differs = differs || v != c();
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(a.seed(), 42U);
}

TEST(Random, StaysInsideItsRangeAndReachesAllOfIt) {
  Random rng(7);
  std::array<uint64_t, 10> seen{};
  for (int i = 0; i < 10000; ++i) {
    const uint64_t v = rng.below(10);
    ASSERT_LT(v, 10U);
    ++seen[v];
  }
  for (const uint64_t n : seen) {
    EXPECT_GT(n, 850U);  // 1000 expected, 30 standard deviation
    EXPECT_LT(n, 1150U);
  }
  for (int i = 0; i < 1000; ++i) {
    const uint64_t v = rng.between(5, 7);
    EXPECT_GE(v, 5U);
    EXPECT_LE(v, 7U);
  }
  EXPECT_EQ(rng.below(1), 0U);
  EXPECT_EQ(rng.between(9, 9), 9U);
}

TEST(Random, ChanceHasItsMean) {
  Random rng(11);
  int hits = 0;
  for (int i = 0; i < 10000; ++i) {
    hits += rng.chance(1, 4) ? 1 : 0;
  }
  EXPECT_GT(hits, 2300);
  EXPECT_LT(hits, 2700);
  EXPECT_FALSE(rng.chance(0, 4));
  EXPECT_TRUE(rng.chance(4, 4));
}

TEST(Random, StreamsDependOnSeedAndNumberOnly) {
  Random a(5);
  Random early = a.split(3);
  for (int i = 0; i < 10; ++i) {
    a();
  }
  Random late = a.split(3);
  std::set<uint64_t> firsts;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(early(), late());
  }
  for (uint64_t s = 0; s < 100; ++s) {
    firsts.insert(Random(5).split(s)());
    firsts.insert(Random(6).split(s)());
  }
  EXPECT_EQ(firsts.size(), 200U);
}

TEST(RandomDeathTest, RefusesAnEmptyRange) {
  Random rng(1);
  EXPECT_DEATH(rng.below(0), "a range to draw from");
}

class StandingClock : public Clock {
 public:
  Tick now() noexcept override { return Tick(17); }
};

TEST(Clock, IsWhatItIsGiven) {
  StandingClock standing;
  Clock& clock = standing;
  EXPECT_EQ(clock.now(), Tick(17));
}

}  // namespace
}  // namespace kvmm
