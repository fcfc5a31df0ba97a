// SPDX-License-Identifier: Apache-2.0
//
// Pinned host memory that the GPU's copy engines reach: frames of kind dma on the host's side.
//
//   disk --O_DIRECT--> [host dma frame] --copy engine--> [frame in HBM]
//
// Copies from pageable memory go through a hidden buffer of the driver and block the caller, so
// `CopyOps` of the cuda driver takes host addresses of such frames only. The frames are
// page-aligned and may be read and written by the CPU and by O_DIRECT.
//
// Invariants: the frames of an area lie in one allocation and in the GPU's address map until they
// are destroyed. Thread safety: serialised by the caller. Ownership: areas that were not destroyed
// are freed with the object.
#pragma once

#include <map>

#include "drivers/cuda/gpu.h"
#include "drivers/ops.h"

namespace kvmm::cuda {

class HostDmaFrames {
 public:
  explicit HostDmaFrames(Gpu& gpu) : gpu_(gpu) {}
  ~HostDmaFrames();
  HostDmaFrames(const HostDmaFrames&) = delete;
  HostDmaFrames& operator=(const HostDmaFrames&) = delete;

  // BLOCKING. `size` is a power of two >= 4 KiB. FrameArea.base is a host address.
  // Errors: kInvalid, kNoMemory, kDeviceGone, kIo.
  Result<FrameArea> create(Bytes size, uint32_t count);
  // BLOCKING. REQUIRES: no frame of the area is used by I/O or a copy.
  void destroy(const FrameArea& area);

 private:
  void free(uint64_t base);
  Gpu& gpu_;
  std::map<uint64_t, uint64_t> areas_;  // base -> bytes
};

}  // namespace kvmm::cuda
