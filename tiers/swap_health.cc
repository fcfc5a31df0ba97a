// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_health.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

bool moves_bytes(const BlockRequest& io) {
  return io.op == BlockOp::kRead || io.op == BlockOp::kWrite;
}

}  // namespace

void SwapHealth::woke(Tick now, const SwapHealthLimits& limits) {
  if (in_flight_ != 0 && now > seen_ + Tick(limits.fail.value() / 2)) {
    progress_ = slept_until_ = now;  // judge_due had asked for less
  }
  seen_ = now;
}

void SwapHealth::started(const BlockRequest& io, Tick now) {
  if (moves_bytes(io) && in_flight_++ == 0) {
    progress_ = seen_ = now;
  }
}

void SwapHealth::finished(const BlockRequest& io, Tick now) {
  const bool read = io.op == BlockOp::kRead;
  gone_ = gone_ || io.result == Errc::kDeviceGone;
  if (io.result == Errc::kIo || io.result == Errc::kDeviceGone) {
    ++(read ? read_errors_ : write_errors_);
  }
  if (io.result == Errc::kIo) {
    error_parts_ += kErrorParts;
  } else if (io.result == Errc::kOk) {
    error_parts_ -= std::min<uint64_t>(error_parts_, 1);
  }
  if (!moves_bytes(io)) {
    return;
  }
  check(in_flight_ != 0, "a request that was started", io.offset, io.length);
  --in_flight_;
  progress_ = now;
  if (io.result != Errc::kOk || io.submitted < slept_until_) {
    return;  // a quick error would make a device look quick
  }
  const uint64_t took = (now - io.submitted).value();
  (read ? read_ns_ : write_ns_).record(took);
  sampled_ = now;
  if (++samples_ == 1) {
    average_ns_ = took;
  } else if (took >= average_ns_) {
    average_ns_ += (took - average_ns_) / 8;
  } else {
    average_ns_ -= (average_ns_ - took) / 8;
  }
}

bool SwapHealth::judge(Tick now, const SwapHealthLimits& limits) {
  for (; average_ns_ != 0 && in_flight_ == 0 && now >= sampled_ + millis(1000);
       sampled_ += millis(1000)) {
    average_ns_ /= 2;
  }
  const bool known = samples_ >= kSamplesMin;
  const bool silent = in_flight_ != 0 && now >= progress_ + limits.fail;
  const bool fails = error_parts_ >= limits.errors * kErrorParts || silent ||
                     (known && average_ns_ >= limits.fail.value());
  Verdict v = verdict_;
  if (gone_) {
    v = Verdict::kGone;
  } else if (fails || v == Verdict::kFailing) {
    v = Verdict::kFailing;
  } else if (known && average_ns_ >= limits.slow.value()) {
    v = Verdict::kSlow;
  } else if (average_ns_ < limits.slow.value() / 2) {
    v = Verdict::kOk;
  }
  const bool changed = v != verdict_;
  verdict_ = v;
  return changed;
}

Tick SwapHealth::judge_due(const SwapHealthLimits& limits) const {
  if (verdict_ == Verdict::kGone || verdict_ == Verdict::kFailing) {
    return Tick(0);
  }
  if (in_flight_ != 0) {
    return std::min(progress_ + limits.fail, seen_ + Tick(limits.fail.value() / 4));
  }
  return verdict_ == Verdict::kSlow ? sampled_ + millis(1000) : Tick(0);
}

}  // namespace kvmm
