// SPDX-License-Identifier: Apache-2.0
//
// The simulated copy engine and data workers: CopyOps and DataOps over SimMmu's frames.
//
//   request --> [due tick] --> FrameGuard: are these bytes mapped? --> the work, by the CPU
//
// Without `asynchronous` everything is done inside submit. Addresses are addresses of this process:
// of SimMmu's frames, or any memory that the caller owns.
//
// Thread safety: one thread.
#pragma once

#include "drivers/ops.h"
#include "drivers/sim/frame_guard.h"
#include "drivers/sim/sim_queue.h"

namespace kvmm {

class SimCopy final : public CopyOps {
 public:
  // `clock` and `guard` outlive this.
  SimCopy(SimClock& clock, const SimTiming& timing, FrameGuard& guard)
      : queue_(clock, timing), guard_(guard) {}
  // Results: kInvalid (length 0, address 0, overlapping ranges).
  size_t submit(std::span<CopyRequest* const> requests) override;
  void poll() override;

 private:
  Errc perform(CopyRequest& r);
  SimQueue<CopyRequest> queue_;
  FrameGuard& guard_;
};

class SimData final : public DataOps {
 public:
  SimData(SimClock& clock, const SimTiming& timing, FrameGuard& guard)
      : queue_(clock, timing), guard_(guard) {}
  // Results: kInvalid (length 0, address 0, too few digests, overlapping ranges of a copy).
  // kRebuild does what the header says: the content becomes zeros.
  size_t submit(std::span<DataRequest* const> requests) override;
  void poll() override;

 private:
  Errc perform(DataRequest& r);
  SimQueue<DataRequest> queue_;
  FrameGuard& guard_;
};

}  // namespace kvmm
