// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/stats.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "runtime/base/check.h"

namespace kvmm::bench {
namespace {

constexpr int kResamples = 1000;
constexpr uint64_t kSeed =
    20240607;  // any will do; fixed, so that an interval can be computed again

// Largest k >= 1 with P(Binomial(n, 1/2) < k) <= 0.025; 1 where there is none.
uint64_t lower_rank(uint64_t n) {
  if (n > 500) {  // 0.5^n leaves the range of a double; the normal is exact enough here
    const double d = static_cast<double>(n);
    return static_cast<uint64_t>((d - 1.96 * std::sqrt(d)) / 2);
  }
  double term = std::pow(0.5, static_cast<double>(n));  // P(exactly i)
  double below = 0;
  uint64_t k = 0;
  for (uint64_t i = 0; i < n && below + term <= 0.025; ++i) {
    below += term;
    k = i + 1;
    term *= static_cast<double>(n - i) / static_cast<double>(i + 1);
  }
  return std::max<uint64_t>(k, 1);
}

}  // namespace

double quantile(std::vector<double> samples, double q) {
  check(!samples.empty(), "a quantile of something");
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto i = static_cast<size_t>(at);
  const auto nth = samples.begin() + static_cast<std::ptrdiff_t>(i);
  std::nth_element(samples.begin(), nth, samples.end());
  const double low = *nth;
  if (i + 1 == samples.size()) {
    return low;
  }
  const double high = *std::min_element(nth + 1, samples.end());
  return low + (high - low) * (at - static_cast<double>(i));
}

Estimate median_of(std::vector<double> samples) {
  check(!samples.empty(), "a median of something");
  std::sort(samples.begin(), samples.end());
  const uint64_t n = samples.size();
  const uint64_t k = lower_rank(n);
  const double value = n % 2 == 1 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
  return {value, samples[k - 1], samples[n - k], n};
}

Estimate quantile_ratio(const std::vector<PassPair>& pairs, double q) {
  check(!pairs.empty(), "a ratio of something");
  const auto ratio_of = [&](const auto& chosen) {
    std::vector<double> ours;
    std::vector<double> theirs;
    for (const size_t i : chosen) {
      ours.insert(ours.end(), pairs[i].ours.begin(), pairs[i].ours.end());
      theirs.insert(theirs.end(), pairs[i].theirs.begin(), pairs[i].theirs.end());
    }
    return quantile(std::move(ours), q) / quantile(std::move(theirs), q);
  };
  std::vector<size_t> all(pairs.size());
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = i;
  }
  const double value = ratio_of(all);
  std::mt19937_64 random(kSeed);
  std::vector<double> drawn;
  for (int r = 0; r < kResamples; ++r) {
    std::vector<size_t> chosen(pairs.size());
    for (size_t& i : chosen) {
      i = random() % pairs.size();
    }
    drawn.push_back(ratio_of(chosen));
  }
  return {value, quantile(drawn, 0.025), quantile(drawn, 0.975), pairs.size()};
}

}  // namespace kvmm::bench
