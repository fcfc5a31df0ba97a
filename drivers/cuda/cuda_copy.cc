// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/cuda_copy.h"

namespace kvmm::cuda {

namespace {

enum Direction : size_t { kHostToDevice, kDeviceToHost, kDeviceToDevice, kDirections };

// kDirections: not a copy that the GPU can do.
Direction direction_of(Gpu& gpu, FrameAddr to, FrameAddr from, Bytes length) {
  using Kind = AddressMap::Kind;
  const Kind source = gpu.addresses().find(from.value(), length.value());
  const Kind target = gpu.addresses().find(to.value(), length.value());
  if (length == Bytes(0)) {
    return kDirections;
  }
  if (source == Kind::kHost && target == Kind::kDevice) {
    return kHostToDevice;
  }
  if (source == Kind::kDevice && target == Kind::kHost) {
    return kDeviceToHost;
  }
  if (source == Kind::kDevice && target == Kind::kDevice) {
    return kDeviceToDevice;
  }
  return kDirections;
}

void finish(Request& req, CuResult r) {
  req.result = to_errc(r);
  req.queue->push(req);
}

}  // namespace

CuResult issue_copy(Gpu& gpu, FrameAddr to, FrameAddr from, Bytes length, CuStream stream) {
  const CudaApi& api = gpu.api();
  switch (direction_of(gpu, to, from, length)) {
    case kHostToDevice:
      return api.memcpy_htod_async(to.value(), reinterpret_cast<const void*>(from.value()),
                                   length.value(), stream);
    case kDeviceToHost:
      return api.memcpy_dtoh_async(reinterpret_cast<void*>(to.value()), from.value(),
                                   length.value(), stream);
    case kDeviceToDevice:
      return api.memcpy_dtod_async(to.value(), from.value(), length.value(), stream);
    case kDirections:
      break;
  }
  return CuResult::kInvalidValue;
}

Result<std::unique_ptr<CudaCopy>> CudaCopy::create(Gpu& gpu) {
  std::unique_ptr<CudaCopy> copy(new CudaCopy(gpu));
  copy->lanes_.reserve(kDirections);
  for (size_t d = 0; d < kDirections; ++d) {
    Result<GpuStream> stream = GpuStream::create(gpu);
    if (!stream) {
      return stream.error();
    }
    Lane& lane = copy->lanes_.emplace_back(*std::move(stream));
    lane.ring.reserve(kDepth);
    for (size_t i = 0; i < kDepth; ++i) {
      Result<GpuEvent> event = GpuEvent::create(gpu);
      if (!event) {
        return event.error();
      }
      lane.ring.emplace_back(*std::move(event));
    }
  }
  return copy;
}

CudaCopy::~CudaCopy() {
  const ContextScope scope(gpu_);
  for (Lane& lane : lanes_) {
    if (lane.count == 0) {
      continue;
    }
    const CuResult r = gpu_.api().stream_synchronize(lane.stream.get());
    for (; lane.count > 0; lane.head = (lane.head + 1) % kDepth, --lane.count) {
      for (Request* q = lane.at(0).first; q != nullptr;) {
        Request* next = q->next;
        finish(*q, r);
        q = next;
      }
    }
  }
}

size_t CudaCopy::submit(std::span<CopyRequest* const> requests) {
  const ContextScope scope(gpu_);
  size_t taken = 0;
  for (CopyRequest* req : requests) {
    const Direction d = direction_of(gpu_, req->to, req->from, req->length);
    if (scope.result() != CuResult::kSuccess || d == kDirections) {
      finish(*req, scope.result() != CuResult::kSuccess ? scope.result() : CuResult::kInvalidValue);
      ++taken;
      continue;
    }
    Lane& lane = lanes_[d];
    if (lane.count == kDepth) {
      break;  // every event of this direction is in flight
    }
    ++taken;
    const CuResult r = issue_copy(gpu_, req->to, req->from, req->length, lane.stream.get());
    if (r != CuResult::kSuccess) {
      finish(*req, r);
      continue;
    }
    Batch& batch = lane.at(lane.count);
    if (!lane.open) {
      batch.first = nullptr;
      batch.end = &batch.first;
      lane.open = true;
    }
    req->next = nullptr;
    *batch.end = req;
    batch.end = &req->next;
  }
  for (Lane& lane : lanes_) {
    if (lane.open) {
      lane.at(lane.count).event.record(lane.stream);
      ++lane.count;
      lane.open = false;
    }
  }
  return taken;
}

void CudaCopy::poll() {
  const ContextScope scope(gpu_);
  for (Lane& lane : lanes_) {
    while (lane.count > 0) {
      Batch& batch = lane.at(0);
      const CuResult r =
          scope.result() == CuResult::kSuccess ? batch.event.query() : scope.result();
      if (r == CuResult::kNotReady) {
        break;
      }
      Request* q = batch.first;
      lane.head = (lane.head + 1) % kDepth;
      --lane.count;
      while (q != nullptr) {
        Request* next = q->next;
        finish(*q, r);
        q = next;
      }
    }
  }
}

}  // namespace kvmm::cuda
