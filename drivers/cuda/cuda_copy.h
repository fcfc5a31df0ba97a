// SPDX-License-Identifier: Apache-2.0
//
// CopyOps of a GPU: three streams, one for each direction, so that copies in and out overlap.
//
//   submit                    host -> GPU  [event 0][event 1] ...      poll: cuEventQuery of the
//     sorts by direction  ->  GPU -> host  [event 0] ...         ->    oldest event of each stream;
//     one event a batch       GPU -> GPU                               its requests are finished
//
// `from` and `to` are addresses of the GPU (direct map or a mapped page) or of host dma frames
// (host_dma_frames.h). The driver, not this file, says whether a GPU address is mapped and
// accessible.
//
// Results: kInvalid (length 0, an address of neither kind, both on the host, unmapped or without
// access), kDeviceGone (the context is lost), kIo.
//
// Invariants
//   1. A request is finished only after its event, or after an error that ended its stream.
//   2. Copies of one direction finish in the order of submission.
//
// Thread safety: serialised by the caller. Destruction waits for the copies in flight and finishes
// their requests.
#pragma once

#include <array>
#include <vector>

#include "drivers/cuda/gpu.h"
#include "drivers/ops.h"

namespace kvmm::cuda {

class CudaCopy final : public CopyOps {
 public:
  static constexpr size_t kDepth = 64;  // batches in flight a direction

  // BLOCKING. Errors: kNoMemory, kDeviceGone, kIo.
  static Result<std::unique_ptr<CudaCopy>> create(Gpu& gpu);
  ~CudaCopy() override;

  size_t submit(std::span<CopyRequest* const> requests) override;
  void poll() override;

 private:
  struct Batch {
    GpuEvent event;
    Request* first = nullptr;  // by Request::next
    Request** end = &first;
    explicit Batch(GpuEvent e) : event(std::move(e)) {}
    Batch(Batch&& o) noexcept : event(std::move(o.event)) {}  // only while empty
  };
  struct Lane {
    GpuStream stream;
    std::vector<Batch> ring;  // kDepth of them
    size_t head = 0;          // the oldest batch in flight
    size_t count = 0;         // batches in flight
    bool open = false;        // ring[head + count] is being filled by submit
    explicit Lane(GpuStream s) : stream(std::move(s)) {}
    Batch& at(size_t i) { return ring[(head + i) % kDepth]; }
  };

  explicit CudaCopy(Gpu& gpu) : gpu_(gpu) {}

  Gpu& gpu_;
  std::vector<Lane> lanes_;  // by direction
};

// Queues one copy between addresses of known kinds; the direction follows from them.
// kInvalidValue: not a copy that this GPU can do.
CuResult issue_copy(Gpu& gpu, FrameAddr to, FrameAddr from, Bytes length, CuStream stream);

}  // namespace kvmm::cuda
