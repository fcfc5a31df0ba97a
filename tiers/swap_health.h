// SPDX-License-Identifier: Apache-2.0
//
// How a swap device does: what it took for its I/O, what failed, and what follows from that.
//
//            average latency >= slow             errors, average or silence >= fail
//      ok ----------------------------> slow ----------------------------------------> failing
//       ^      (taken when there is      |                                      (no new slots, its
//       +---- no other of its priority) -+        the device says that it        content leaves)
//              average < slow / 2                 is not there any more  ------> gone
//
// Latency. Of reads and writes, from the submit to the step that saw the completion. The average is
// exponentially weighted, one eighth for the newest, and an idle second halves it: a device is
// judged by what it does, not by what it once did.
//
// Errors. A leaky count: an error adds one, a success takes a 64th off. One bad sector, read twice,
// stays far below; a device on which a fifth of the I/O fails reaches the limit within some tens.
//
// Silence. Requests are in flight and none has completed for `fail`: a device that hangs has no
// latency to be averaged.
//
// Who looks must not have slept: a process that was stopped finds its I/O old, and no device is to
// blame. `woke` says so, and what was in flight then is neither averaged nor silent.
//
// Failing and gone are for good: whoever wants the device back swaps it off and on.
//
// Thread safety: guarded by the core lock; the histograms may be read by anybody.
#pragma once

#include <cstdint>

#include "drivers/ops.h"
#include "runtime/base/histogram.h"
#include "runtime/base/units.h"

namespace kvmm {

struct SwapHealthLimits {
  Tick slow;            // average latency
  Tick fail;            // average latency, or silence
  uint64_t errors = 0;  // of the leaky count
};

class SwapHealth {
 public:
  enum class Verdict : uint8_t { kOk, kSlow, kFailing, kGone };

  // At the start of each step, before completions are looked at.
  void woke(Tick now, const SwapHealthLimits& limits);
  // The device took a request.
  void started(const BlockRequest& io, Tick now);
  // It gave one back. `io.submitted` is when it was taken.
  void finished(const BlockRequest& io, Tick now);
  // Looks at the device anew. True: the verdict has changed.
  bool judge(Tick now, const SwapHealthLimits& limits);
  // When judge() might say something else although nothing completes; 0: never.
  Tick judge_due(const SwapHealthLimits& limits) const;

  Verdict verdict() const { return verdict_; }
  uint64_t average_ns() const { return average_ns_; }
  uint64_t read_errors() const { return read_errors_; }
  uint64_t write_errors() const { return write_errors_; }
  const Histogram& read_ns() const { return read_ns_; }
  const Histogram& write_ns() const { return write_ns_; }

 private:
  static constexpr uint64_t kErrorParts = 64;  // of an error, that a success takes off
  static constexpr uint64_t kSamplesMin = 8;   // before the average says anything

  Histogram read_ns_, write_ns_;
  uint64_t read_errors_ = 0, write_errors_ = 0;  // also flushes and the index
  uint64_t error_parts_ = 0;
  uint64_t average_ns_ = 0;
  uint64_t samples_ = 0;
  uint32_t in_flight_ = 0;  // reads and writes
  Tick progress_;           // the last completion, or when the first came in flight
  Tick sampled_;            // the average was last moved
  Tick seen_;               // somebody last looked, since something is in flight
  Tick slept_until_;        // what was submitted before is not averaged
  bool gone_ = false;
  Verdict verdict_ = Verdict::kOk;
};

}  // namespace kvmm
