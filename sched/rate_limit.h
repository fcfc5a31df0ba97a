// SPDX-License-Identifier: Apache-2.0
//
// Bytes a second, as a bucket that fills with time: integers, and the time is given.
//
//   rate 1 GiB/s     full at an eighth of a second's bytes, or at one page if that is more
//   take(now, ...)   true: they may go. False: `due` says when they may.
//
// Thread safety: guarded by the core lock.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/base/units.h"

namespace kvmm {

class RateLimit {
 public:
  // `rate` 0: never.
  bool take(Tick now, uint64_t rate, Bytes bytes) {
    if (rate == 0) {
      return false;
    }
    const uint64_t want = bytes.value();
    fill(now, rate, want);
    if (level_ < want) {
      return false;
    }
    level_ -= want;
    return true;
  }
  // When the bytes that were just refused can go; 0: never.
  Tick due(Tick now, uint64_t rate, Bytes bytes) const {
    if (rate == 0) {
      return Tick(0);
    }
    const uint64_t missing = bytes.value() - std::min(level_, bytes.value());
    return now + Tick(missing / rate * kSecond + missing % rate * kSecond / rate + 1);
  }

 private:
  static constexpr uint64_t kSecond = 1'000'000'000;

  void fill(Tick now, uint64_t rate, uint64_t want) {
    const uint64_t full = std::max(rate / 8, want);
    if (!started_) {
      started_ = true;
      level_ = full;
      filled_ = now;
    }
    const uint64_t passed = now > filled_ ? (now - filled_).value() : 0;
    const uint64_t whole = std::min<uint64_t>(passed / kSecond, 60) * rate;
    const uint64_t rest = passed % kSecond;
    // Two parts, so that nothing overflows: rates go up to 2^40.
    const uint64_t part = rate / kSecond * rest + rate % kSecond * rest / kSecond;
    if (whole + part != 0) {
      filled_ = now;
      level_ = std::min(full, level_ + whole + part);
    }
  }

  bool started_ = false;
  uint64_t level_ = 0;
  Tick filled_;
};

}  // namespace kvmm
