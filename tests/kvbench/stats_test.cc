// SPDX-License-Identifier: Apache-2.0
//
// Intervals against numbers from tables and against what they promise.
#include "tools/kvbench/stats.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace kvmm::bench {
namespace {

std::vector<double> up_to(int n) {
  std::vector<double> all(static_cast<size_t>(n));
  std::iota(all.rbegin(), all.rend(), 1.0);  // n .. 1: nothing relies on an order
  return all;
}

TEST(Quantile, InterpolatesBetweenNeighbours) {
  EXPECT_DOUBLE_EQ(quantile({3}, 0.99), 3);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(up_to(101), 0.99), 100);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 0), 1);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 1), 2);
}

// Ranks of the 95 % interval of a median, as statistical tables have them.
TEST(Median, IntervalHasTheRanksOfTheTables) {
  const struct {
    int n;
    double low, high;
  } kTable[] = {{6, 1, 6}, {9, 2, 8}, {10, 2, 9}, {20, 6, 15}, {30, 10, 21}, {100, 40, 61}};
  for (const auto& row : kTable) {
    const Estimate e = median_of(up_to(row.n));
    EXPECT_EQ(e.low, row.low) << row.n;
    EXPECT_EQ(e.high, row.high) << row.n;
    EXPECT_DOUBLE_EQ(e.value, (row.n + 1) / 2.0);
    EXPECT_EQ(e.n, static_cast<uint64_t>(row.n));
  }
}

TEST(Median, TooFewSamplesGiveTheirRange) {
  const Estimate e = median_of({5, 1, 9});
  EXPECT_EQ(e.low, 1);
  EXPECT_EQ(e.high, 9);
}

TEST(Median, ExactAndNormalRanksMeet) {
  const Estimate exact = median_of(up_to(500));
  const Estimate normal = median_of(up_to(501));
  EXPECT_NEAR(exact.low, normal.low, 1.5);
  EXPECT_NEAR(exact.high, normal.high, 1.5);
}

TEST(QuantileRatio, HoldsTheTruthAndIsTheSameEveryTime) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> wait(1.0);
  std::vector<PassPair> pairs(30);
  for (PassPair& p : pairs) {
    for (int i = 0; i < 50; ++i) {
      p.ours.push_back(2 * wait(random));
      p.theirs.push_back(wait(random));
    }
  }
  const Estimate e = quantile_ratio(pairs, 0.5);
  EXPECT_LT(e.low, 2);
  EXPECT_GT(e.high, 2);
  EXPECT_LT(e.low, e.value);
  EXPECT_GT(e.high, e.value);
  const Estimate again = quantile_ratio(pairs, 0.5);
  EXPECT_EQ(e.low, again.low);
  EXPECT_EQ(e.high, again.high);
}

}  // namespace
}  // namespace kvmm::bench
