// SPDX-License-Identifier: Apache-2.0
//
// Work on page bytes by the CPU that calls: checksum, zero, scrub, copy, rebuild; and plain copies.
//
//   worker thread:  data.submit({&request, 1})   the work is done when it returns, and the request
//                                                is in its queue
//
// A 2 MiB page that lies cold takes 180-300 us to checksum: so the runtime calls `submit` from its
// data workers, never from the stepping thread.
//
// Thread safety: any number of threads at once, also beside the MMU, as long as nobody else uses
// the frames of the request: they are unmapped (movable) or owned by the caller. The address of a
// movable frame that is mapped somewhere must not be given: reading it would wait for ever.
#pragma once

#include "drivers/host/move_mmu.h"
#include "drivers/ops.h"

namespace kvmm {

class HostData final : public DataOps {
 public:
  // `rebuilder`: whose frames DataOp::kRebuild can heal; null: kNotSupported.
  explicit HostData(HostMoveMmu* rebuilder) : rebuilder_(rebuilder) {}
  // Results beside DataOps': kInvalid (length 0, too few digests, kRebuild of anything but a 2 MiB
  // frame), kNoMemory (kRebuild: no huge page to be had; the frame is as it was).
  size_t submit(std::span<DataRequest* const> requests) override;

 private:
  Result<void> run(DataRequest& r) const;

  HostMoveMmu* const rebuilder_;  // not owned; outlives this
};

class HostCopy final : public CopyOps {
 public:
  size_t submit(std::span<CopyRequest* const> requests) override;
};

}  // namespace kvmm
