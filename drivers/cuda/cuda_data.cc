// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/cuda_data.h"

#include <xxhash.h>

#include <algorithm>

#include "drivers/cuda/cuda_copy.h"

namespace kvmm::cuda {

Result<std::unique_ptr<CudaData>> CudaData::create(Gpu& gpu, HostDmaFrames& host) {
  Result<GpuStream> stream = GpuStream::create(gpu);
  if (!stream) {
    return stream.error();
  }
  Result<FrameArea> staging = host.create(kStaging, kSlots);
  if (!staging) {
    return staging.error();
  }
  std::unique_ptr<CudaData> data(new CudaData(gpu, host, *std::move(stream)));
  data->staging_ = *staging;
  data->slots_.reserve(kSlots);
  for (uint32_t i = 0; i < kSlots; ++i) {
    Result<GpuEvent> event = GpuEvent::create(gpu);
    if (!event) {
      return event.error();
    }
    data->slots_.emplace_back(*std::move(event), staging->frame(i));
  }
  return data;
}

CudaData::~CudaData() {
  {
    const ContextScope scope(gpu_);
    gpu_.torn_down(gpu_.api().stream_synchronize(stream_.get()));
  }
  for (Slot& slot : slots_) {
    if (slot.req != nullptr) {
      finish(slot, Errc::kCancelled);
    }
  }
  host_.destroy(staging_);
}

size_t CudaData::submit(std::span<DataRequest* const> requests) {
  const ContextScope scope(gpu_);
  size_t taken = 0;
  for (DataRequest* req : requests) {
    const auto slot = std::ranges::find_if(slots_, [](const Slot& s) { return s.req == nullptr; });
    if (slot == slots_.end()) {
      break;
    }
    ++taken;
    slot->req = req;
    slot->offset = 0;
    if (req->op == DataOp::kRebuild) {
      finish(*slot, Errc::kNotSupported);
      continue;
    }
    const CuResult r = scope.result() == CuResult::kSuccess ? begin(*slot) : scope.result();
    if (r != CuResult::kSuccess) {
      finish(*slot, to_errc(r));
    }
  }
  return taken;
}

// Queues the first work of the request. An error: nothing is queued.
CuResult CudaData::begin(Slot& slot) {
  const DataRequest& req = *slot.req;
  if (req.length == Bytes(0) ||
      gpu_.addresses().find(req.addr.value(), req.length.value()) != AddressMap::Kind::kDevice) {
    return CuResult::kInvalidValue;
  }
  if (req.op == DataOp::kChecksum) {
    const uint64_t pieces = round_up(req.length.value(), kPieceSize.value()) / kPieceSize.value();
    return req.digests.size() < pieces ? CuResult::kInvalidValue : begin_chunk(slot);
  }
  const CuResult r =
      req.op == DataOp::kCopy
          ? issue_copy(gpu_, req.addr, req.from, req.length, stream_.get())
          : gpu_.api().memset_d8_async(req.addr.value(), 0, req.length.value(), stream_.get());
  if (r == CuResult::kSuccess) {
    slot.event.record(stream_);
  }
  return r;
}

CuResult CudaData::begin_chunk(Slot& slot) {
  const DataRequest& req = *slot.req;
  slot.length = std::min(req.length.value() - slot.offset, kStaging.value());
  const CuResult r = issue_copy(gpu_, slot.staging, req.addr + Bytes(slot.offset),
                                Bytes(slot.length), stream_.get());
  if (r == CuResult::kSuccess) {
    slot.event.record(stream_);
  }
  return r;
}

void CudaData::poll() {
  const ContextScope scope(gpu_);
  bool hashed = false;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const size_t index = (next_poll_ + i) % slots_.size();
    Slot& slot = slots_[index];
    if (slot.req == nullptr || (hashed && slot.req->op == DataOp::kChecksum)) {
      continue;
    }
    CuResult r = scope.result() == CuResult::kSuccess ? slot.event.query() : scope.result();
    if (r == CuResult::kNotReady) {
      continue;
    }
    if (r == CuResult::kSuccess && slot.req->op == DataOp::kChecksum) {
      hash_chunk(slot);
      hashed = true;
      next_poll_ = index + 1;
      slot.offset += slot.length;
      if (slot.offset < slot.req->length.value()) {
        r = begin_chunk(slot);
        if (r == CuResult::kSuccess) {
          continue;
        }
      }
    }
    finish(slot, to_errc(r));
  }
}

void CudaData::hash_chunk(const Slot& slot) {
  const auto* bytes = reinterpret_cast<const std::byte*>(slot.staging.value());
  uint64_t piece = slot.offset / kPieceSize.value();  // a chunk starts at a whole piece
  for (uint64_t at = 0; at < slot.length; at += kPieceSize.value(), ++piece) {
    slot.req->digests[piece] =
        XXH3_64bits(bytes + at, std::min(kPieceSize.value(), slot.length - at));
  }
}

void CudaData::finish(Slot& slot, Errc result) {
  DataRequest* req = slot.req;
  slot.req = nullptr;
  req->result = result;
  req->queue->push(*req);
}

}  // namespace kvmm::cuda
