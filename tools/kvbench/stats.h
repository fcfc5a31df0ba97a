// SPDX-License-Identifier: Apache-2.0
//
// Values with their intervals. Times and ratios of a shared machine are not normal: they have a
// hard lower end and a long tail. So the median, with an interval by order statistics, which holds
// for any distribution; and a bootstrap for what order statistics do not cover.
//
// Everything is deterministic: the same samples give the same interval.
#pragma once

#include <cstdint>
#include <vector>

namespace kvmm::bench {

struct Estimate {
  double value;
  double low, high;  // 95 %; the range of the samples where there are too few for 95 %
  uint64_t n;
};

// The q-quantile (0 <= q <= 1), interpolated between neighbours. REQUIRES: samples is not empty.
double quantile(std::vector<double> samples, double q);

// Median; low and high are the order statistics k and n + 1 - k with the largest k for which
// P(Binomial(n, 1/2) < k) <= 0.025. REQUIRES: samples is not empty.
Estimate median_of(std::vector<double> samples);

// Two things measured by turns; each entry is a pass of many samples.
struct PassPair {
  std::vector<double> ours, theirs;
};
// q-quantile of all of ours by that of all of theirs. Passes, not samples, are drawn anew (samples
// of a pass have the machine's mood in common). REQUIRES: no pair has an empty side; pairs is not
// empty.
Estimate quantile_ratio(const std::vector<PassPair>& pairs, double q);

}  // namespace kvmm::bench
