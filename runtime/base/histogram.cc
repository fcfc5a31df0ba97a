// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/histogram.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

static_assert(histogram_bucket(UINT64_MAX) == kHistogramBuckets - 1, "the range is all of uint64");
static_assert(histogram_bucket(7) == 7 && histogram_bucket(8) == 8 && histogram_bucket(17) == 16);
static_assert(histogram_bucket_low(16) == 16 && histogram_bucket_high(16) == 17);

}  // namespace

uint64_t HistogramSnapshot::percentile(uint32_t per_mille) const {
  check(per_mille <= 1000, "thousandths", per_mille, 1000);
  if (count == 0) {
    return 0;
  }
  // Nearest rank, at least the first; in two parts, so that huge counts do not overflow.
  const uint64_t rank =
      std::max<uint64_t>(1, count / 1000 * per_mille + (count % 1000 * per_mille + 999) / 1000);
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets.size(); ++i) {
    seen += buckets[i];
    if (seen >= rank) {
      return std::clamp(histogram_bucket_high(i), min, std::max(min, max));
    }
  }
  return max;
}

void Histogram::record(uint64_t value) noexcept {
  buckets_[histogram_bucket(value)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
  uint64_t seen = min_.load(std::memory_order_relaxed);
  while (value < seen && !min_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
  seen = max_.load(std::memory_order_relaxed);
  while (value > seen && !max_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

HistogramSnapshot Histogram::snapshot() const noexcept {
  HistogramSnapshot s;
  for (size_t i = 0; i < kHistogramBuckets; ++i) {
    s.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
    s.count += s.buckets[i];
  }
  s.sum = sum_.load(std::memory_order_relaxed);
  s.min = s.count == 0 ? 0 : min_.load(std::memory_order_relaxed);
  s.max = max_.load(std::memory_order_relaxed);
  return s;
}

}  // namespace kvmm
