// SPDX-License-Identifier: Apache-2.0
//
// Distribution of nanoseconds or bytes: log-linear, every power of two cut into eight buckets.
//
//   value     0 1 .. 7 | 8 9 .. 15 | 16-17 18-19 .. 30-31 | 32-35 .. 60-63 | ...   up to 2^64 - 1
//   bucket    exact      exact       8 buckets of 2         8 buckets of 4
//
// A percentile is at most one eighth (12.5 %) above the true value, whatever the range: no bounds
// to configure, 496 buckets, 4 KiB.
//
// Invariants
//   1. A recorded value is in exactly one bucket, and bucket_low <= value <= bucket_high of it.
//   2. In a snapshot count is the sum of the buckets.
//   3. If nothing records meanwhile, sum, min and max of a snapshot belong to the same values.
//
// Thread safety: `record` from any thread, lock-free, allocates nothing. `snapshot` from any
// thread; while others record, its sum, min and max may be of a few values more or fewer than its
// buckets.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace kvmm {

inline constexpr unsigned kHistogramSubBits = 3;  // eight buckets in a power of two
inline constexpr size_t kHistogramBuckets = (64 - kHistogramSubBits + 1) << kHistogramSubBits;

constexpr size_t histogram_bucket(uint64_t value) {
  constexpr uint64_t kSub = uint64_t{1} << kHistogramSubBits;
  if (value < kSub) {
    return value;
  }
  const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kHistogramSubBits;
  return (size_t{shift + 1} << kHistogramSubBits) + ((value >> shift) & (kSub - 1));
}

// The smallest and the largest value of a bucket. REQUIRES: bucket < kHistogramBuckets.
constexpr uint64_t histogram_bucket_low(size_t bucket) {
  constexpr uint64_t kSub = uint64_t{1} << kHistogramSubBits;
  if (bucket < kSub) {
    return bucket;
  }
  const size_t shift = (bucket >> kHistogramSubBits) - 1;
  return (kSub + (bucket & (kSub - 1))) << shift;
}
constexpr uint64_t histogram_bucket_high(size_t bucket) {
  return bucket + 1 < kHistogramBuckets ? histogram_bucket_low(bucket + 1) - 1 : UINT64_MAX;
}

struct HistogramSnapshot {
  uint64_t count = 0;
  uint64_t sum = 0;  // wraps after 2^64: 584 years of nanoseconds
  uint64_t min = 0;  // 0 if count is 0
  uint64_t max = 0;
  std::array<uint64_t, kHistogramBuckets> buckets{};

  // Rounded down; 0 if empty.
  uint64_t mean() const noexcept { return count == 0 ? 0 : sum / count; }
  // A value that at least `per_mille` thousandths of the values do not exceed: 500 is the median,
  // 999 the 99.9th percentile. Nearest rank, upper edge of its bucket, within [min, max]; 0 if
  // empty. REQUIRES: per_mille <= 1000.
  uint64_t percentile(uint32_t per_mille) const;
};

class Histogram {
 public:
  Histogram() = default;
  Histogram(const Histogram&) = delete;
  Histogram& operator=(const Histogram&) = delete;

  void record(uint64_t value) noexcept;
  HistogramSnapshot snapshot() const noexcept;

 private:
  // All atomic because any thread records; relaxed, because they order nothing else.
  std::array<std::atomic<uint64_t>, kHistogramBuckets> buckets_{};
  alignas(64) std::atomic<uint64_t> sum_{0};
  std::atomic<uint64_t> min_{UINT64_MAX};
  std::atomic<uint64_t> max_{0};
};

}  // namespace kvmm
