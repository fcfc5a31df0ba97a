// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "runtime/base/random.h"

namespace kvmm {
namespace {

TEST(Histogram, BucketsCoverTheRangeWithoutGapOrOverlap) {
  EXPECT_EQ(histogram_bucket_low(0), 0U);
  for (size_t i = 0; i + 1 < kHistogramBuckets; ++i) {
    const uint64_t low = histogram_bucket_low(i);
    const uint64_t high = histogram_bucket_high(i);
    ASSERT_LE(low, high) << i;
    ASSERT_EQ(high + 1, histogram_bucket_low(i + 1)) << i;
    ASSERT_EQ(histogram_bucket(low), i);
    ASSERT_EQ(histogram_bucket(high), i);
    // One eighth at most.
    ASSERT_LE(high - low, low / 8) << i;
  }
  EXPECT_EQ(histogram_bucket_high(kHistogramBuckets - 1), UINT64_MAX);
  EXPECT_EQ(histogram_bucket(UINT64_MAX), kHistogramBuckets - 1);
}

TEST(Histogram, EmptyHasNoValues) {
  const Histogram h;
  const HistogramSnapshot s = h.snapshot();
  EXPECT_EQ(s.count, 0U);
  EXPECT_EQ(s.min, 0U);
  EXPECT_EQ(s.max, 0U);
  EXPECT_EQ(s.mean(), 0U);
  EXPECT_EQ(s.percentile(500), 0U);
}

TEST(Histogram, OneValueIsEveryPercentile) {
  Histogram h;
  h.record(1'000'003);
  const HistogramSnapshot s = h.snapshot();
  for (const uint32_t p : {0U, 1U, 500U, 999U, 1000U}) {
    EXPECT_EQ(s.percentile(p), 1'000'003U) << p;
  }
  EXPECT_EQ(s.mean(), 1'000'003U);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram h;
  for (uint64_t v = 1; v <= 10; ++v) {
    h.record(v);
  }
  const HistogramSnapshot s = h.snapshot();
  EXPECT_EQ(s.count, 10U);
  EXPECT_EQ(s.sum, 55U);
  EXPECT_EQ(s.min, 1U);
  EXPECT_EQ(s.max, 10U);
  EXPECT_EQ(s.percentile(100), 1U);
  EXPECT_EQ(s.percentile(500), 5U);
  EXPECT_EQ(s.percentile(501), 6U);
  EXPECT_EQ(s.percentile(1000), 10U);
}

TEST(Histogram, PercentilesAgreeWithASortedList) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random rng(seed);
    Histogram h;
    std::vector<uint64_t> values(rng.between(1, 3000));
    for (uint64_t& v : values) {
      v = rng() >> rng.below(64);
      h.record(v);
    }
    std::sort(values.begin(), values.end());
    const HistogramSnapshot s = h.snapshot();
    ASSERT_EQ(s.count, values.size());
    EXPECT_EQ(s.min, values.front());
    EXPECT_EQ(s.max, values.back());
    uint64_t sum = 0;
    for (const uint64_t v : values) {
      sum += v;
    }
    EXPECT_EQ(s.sum, sum);
    for (const uint32_t p : {0U, 1U, 100U, 500U, 900U, 990U, 999U, 1000U}) {
      const size_t rank = std::max<size_t>(1, (values.size() * p + 999) / 1000);
      const uint64_t exact = values[rank - 1];
      const uint64_t told = s.percentile(p);
      EXPECT_GE(told, exact) << p;
      EXPECT_LE(told - exact, exact / 8 + 1) << p;
    }
  }
}

TEST(Histogram, LosesNothingBetweenThreads) {
  Histogram h;
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kRounds = 20000;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&h, t] {
      for (uint64_t i = 1; i <= kRounds; ++i) {
        h.record(i * kThreads + t);
      }
    });
  }
  for (std::thread& t : threads) {
    t.join();
  }
  const HistogramSnapshot s = h.snapshot();
  EXPECT_EQ(s.count, kThreads * kRounds);
  EXPECT_EQ(s.min, kThreads);
  EXPECT_EQ(s.max, kRounds * kThreads + kThreads - 1);
  uint64_t sum = 0;
  for (uint64_t v = kThreads; v < (kRounds + 1) * kThreads; ++v) {
    sum += v;
  }
  EXPECT_EQ(s.sum, sum);
}

TEST(HistogramDeathTest, RefusesMoreThanAThousandThousandths) {
  Histogram h;
  h.record(1);
  EXPECT_DEATH(static_cast<void>(h.snapshot().percentile(1001)), "thousandths: 1001");
}

}  // namespace
}  // namespace kvmm
