// SPDX-License-Identifier: Apache-2.0
//
// DataOps of a GPU: checksum, zero, scrub and copy of bytes in frames, in order on one stream.
//
//   kChecksum   frame --copy engine--> pinned staging --XXH3 on the CPU, inside poll--> digests
//   kZero, kScrub   cuMemsetD8Async        kCopy   cuMemcpy*Async
//
// Limitation. The digests should come from a kernel on the GPU, in stream order. Until there is one
// the bytes take the way over PCIe and are hashed by whoever calls `poll`. That breaks "a step
// never touches page bytes" unless poll is called from a worker: one poll hashes at most one 2 MiB
// chunk (about 200 us), so a caller that steps can bound it, and the op table stays the same when
// the kernel comes.
//
// Results: kOk, kInvalid (length 0, not this GPU's memory, too few digests), kNotSupported
// (kRebuild), kDeviceGone, kIo.
//
// Thread safety: serialised by the caller. Destruction waits for the stream; what was not finished
// then is finished as kCancelled.
#pragma once

#include <vector>

#include "drivers/cuda/gpu.h"
#include "drivers/cuda/host_dma_frames.h"
#include "drivers/ops.h"

namespace kvmm::cuda {

class CudaData final : public DataOps {
 public:
  static constexpr uint32_t kSlots = 4;  // requests in flight, each with a staging buffer
  static constexpr Bytes kStaging = kPageSizeMax;

  // BLOCKING. `host` gives the staging buffers. Errors: kNoMemory, kDeviceGone, kIo.
  static Result<std::unique_ptr<CudaData>> create(Gpu& gpu, HostDmaFrames& host);
  ~CudaData() override;

  size_t submit(std::span<DataRequest* const> requests) override;
  void poll() override;

 private:
  struct Slot {
    GpuEvent event;
    FrameAddr staging;
    DataRequest* req = nullptr;  // null: free
    uint64_t offset = 0;         // kChecksum: the chunk that is under way
    uint64_t length = 0;
    Slot(GpuEvent e, FrameAddr s) : event(std::move(e)), staging(s) {}
  };

  CudaData(Gpu& gpu, HostDmaFrames& host, GpuStream stream)
      : gpu_(gpu), host_(host), stream_(std::move(stream)) {}
  CuResult begin(Slot& slot);
  CuResult begin_chunk(Slot& slot);
  void hash_chunk(const Slot& slot);
  static void finish(Slot& slot, Errc result);

  Gpu& gpu_;
  HostDmaFrames& host_;
  GpuStream stream_;
  FrameArea staging_;
  std::vector<Slot> slots_;
  size_t next_poll_ = 0;  // where poll starts, so that no slot starves
};

}  // namespace kvmm::cuda
