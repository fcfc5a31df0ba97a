// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/host_dma_frames.h"

#include <bit>
#include <limits>

#include "runtime/base/check.h"

namespace kvmm::cuda {

Result<FrameArea> HostDmaFrames::create(Bytes size, uint32_t count) {
  if (!std::has_single_bit(size.value()) || size < kPageSizeMin || count == 0 ||
      size.value() > std::numeric_limits<uint64_t>::max() / count) {
    return Error(Errc::kInvalid, "host frames are powers of two of at least 4 KiB");
  }
  const ContextScope scope(gpu_);
  void* host = nullptr;
  CuResult r = scope.result();
  if (r == CuResult::kSuccess) {
    r = gpu_.api().mem_host_alloc(&host, size.value() * count, kHostAllocPortable);
  }
  if (r != CuResult::kSuccess) {
    return gpu_.error("cuMemHostAlloc", r);
  }
  const uint64_t base = reinterpret_cast<uint64_t>(host);
  check(base % kPageSizeMin.value() == 0, "pinned memory is page-aligned", base, kPageSizeMin);
  areas_[base] = size.value() * count;
  gpu_.addresses().add(base, size.value() * count, AddressMap::Kind::kHost);
  return FrameArea{FrameAddr(base), size, count, FrameKind::kDma, base};
}

void HostDmaFrames::destroy(const FrameArea& area) {
  check(areas_.erase(area.base.value()) == 1, "a host area is destroyed once");
  free(area.base.value());
}

HostDmaFrames::~HostDmaFrames() {
  for (const auto& [base, bytes] : areas_) {
    free(base);
  }
}

void HostDmaFrames::free(uint64_t base) {
  const ContextScope scope(gpu_);
  gpu_.addresses().remove(base);
  gpu_.torn_down(gpu_.api().mem_free_host(reinterpret_cast<void*>(base)));
}

}  // namespace kvmm::cuda
