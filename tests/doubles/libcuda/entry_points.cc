// SPDX-License-Identifier: Apache-2.0
//
// libcuda.so.1, the double: the entry points that the cuda driver uses, with the semantics of the
// CUDA driver API reference 13.0.
#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "tests/doubles/libcuda/gate.h"

namespace kvmm::cuda_double {
namespace {

using namespace kvmm::cuda;  // NOLINT(google-build-using-namespace): the API's own types

bool pinned(const Double& d, const void* host, size_t bytes) {
  const uint64_t start = reinterpret_cast<uint64_t>(host);
  auto it = d.host_areas.upper_bound(start);
  if (it == d.host_areas.begin()) {
    return false;
  }
  --it;
  const uint64_t offset = start - it->first;
  return offset < it->second && bytes <= it->second - offset;
}

bool overlaps_device(const Double& d, const void* host) {
  return d.memory.in_reservation(reinterpret_cast<uint64_t>(host));
}

// A host area freed, a page unmapped or protected since the copy was queued.
constexpr CuResult kGone = CuResult::kIllegalAddress;

void* pointer(CuDevicePtr va) {
  return reinterpret_cast<void*>(va);
}

CuResult push(Double& d, CuStream stream, Streams::Work work) {
  return d.streams.push(reinterpret_cast<uint64_t>(stream), std::move(work));
}

}  // namespace

// ---------------------------------------------------------------------------- device and context

KVMM_EXPORT CuResult cuInit(unsigned flags) {
  return enter("cuInit", Needs::kNothing, [&](Double& d) {
    if (flags != 0) {
      return CuResult::kInvalidValue;
    }
    if (d.config.devices == 0) {
      return CuResult::kNoDevice;
    }
    d.initialized = true;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuGetErrorName(CuResult error, const char** name) {
  return enter("cuGetErrorName", Needs::kNothing, [&](Double&) {
    static const std::map<CuResult, const char*> names = {
        {CuResult::kSuccess, "CUDA_SUCCESS"},
        {CuResult::kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
        {CuResult::kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
        {CuResult::kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED"},
        {CuResult::kNoDevice, "CUDA_ERROR_NO_DEVICE"},
        {CuResult::kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
        {CuResult::kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
        {CuResult::kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
        {CuResult::kNotReady, "CUDA_ERROR_NOT_READY"},
        {CuResult::kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {CuResult::kNotSupported, "CUDA_ERROR_NOT_SUPPORTED"},
        {CuResult::kUnknown, "CUDA_ERROR_UNKNOWN"},
    };
    const auto it = names.find(error);
    *name = it == names.end() ? nullptr : it->second;
    return it == names.end() ? CuResult::kInvalidValue : CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuDeviceGetCount(int* count) {
  return enter("cuDeviceGetCount", Needs::kInit, [&](Double& d) {
    *count = d.config.devices;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuDeviceGet(CuDevice* device, int ordinal) {
  return enter("cuDeviceGet", Needs::kInit, [&](Double& d) {
    if (ordinal < 0 || ordinal >= d.config.devices) {
      return CuResult::kInvalidDevice;
    }
    *device = ordinal;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuDeviceGetAttribute(int* value, int attribute, CuDevice device) {
  return enter("cuDeviceGetAttribute", Needs::kInit, [&](Double& d) {
    if (device < 0 || device >= d.config.devices) {
      return CuResult::kInvalidDevice;
    }
    if (attribute != kAttributeVmmSupported) {
      return CuResult::kInvalidValue;
    }
    *value = d.config.vmm;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuDevicePrimaryCtxRetain(CuContext* context, CuDevice device) {
  return enter("cuDevicePrimaryCtxRetain", Needs::kInit, [&](Double& d) {
    if (device < 0 || device >= d.config.devices) {
      return CuResult::kInvalidDevice;
    }
    ++d.retains;
    *context = primary_context();
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuDevicePrimaryCtxRelease_v2(CuDevice device) {
  return enter("cuDevicePrimaryCtxRelease_v2", Needs::kInit, [&](Double& d) {
    if (device < 0 || device >= d.config.devices) {
      return CuResult::kInvalidDevice;
    }
    if (d.retains == 0) {
      return CuResult::kInvalidContext;
    }
    --d.retains;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuCtxPushCurrent_v2(CuContext context) {
  return enter("cuCtxPushCurrent_v2", Needs::kInit, [&](Double& d) {
    if (context != primary_context() || d.retains == 0) {
      return CuResult::kInvalidContext;
    }
    current_contexts().push_back(context);
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuCtxPopCurrent_v2(CuContext* context) {
  return enter("cuCtxPopCurrent_v2", Needs::kInit, [&](Double&) {
    if (current_contexts().empty()) {
      return CuResult::kInvalidContext;
    }
    *context = current_contexts().back();
    current_contexts().pop_back();
    return CuResult::kSuccess;
  });
}

// ---------------------------------------------------------------------- virtual memory management

KVMM_EXPORT CuResult cuMemGetAllocationGranularity(size_t* bytes, const CuAllocationProp* prop,
                                                   int which) {
  return enter("cuMemGetAllocationGranularity", Needs::kContext, [&](Double& d) {
    const CuResult r = d.memory.check_prop(prop);
    if (r == CuResult::kSuccess && bytes != nullptr && (which == 0 || which == 1)) {
      *bytes = d.memory.granularity();
      return r;
    }
    return r != CuResult::kSuccess ? r : CuResult::kInvalidValue;
  });
}

KVMM_EXPORT CuResult cuMemCreate(CuAllocation* handle, size_t bytes, const CuAllocationProp* prop,
                                 CuFlags64 flags) {
  return enter("cuMemCreate", Needs::kContext, [&](Double& d) {
    uint64_t h = 0;
    const CuResult r = flags != 0 || handle == nullptr ? CuResult::kInvalidValue
                                                       : d.memory.create(&h, bytes, prop);
    if (r == CuResult::kSuccess) {
      *handle = h;
    }
    return r;
  });
}

KVMM_EXPORT CuResult cuMemRelease(CuAllocation handle) {
  return enter("cuMemRelease", Needs::kContext,
               [&](Double& d) { return d.memory.release(handle); });
}

KVMM_EXPORT CuResult cuMemAddressReserve(CuDevicePtr* va, size_t bytes, size_t alignment,
                                         CuDevicePtr hint, CuFlags64 flags) {
  static_cast<void>(hint);  // a hint
  return enter("cuMemAddressReserve", Needs::kContext, [&](Double& d) {
    uint64_t start = 0;
    const CuResult r = flags != 0 || va == nullptr ? CuResult::kInvalidValue
                                                   : d.memory.reserve(&start, bytes, alignment);
    if (r == CuResult::kSuccess) {
      *va = start;
    }
    return r;
  });
}

KVMM_EXPORT CuResult cuMemAddressFree(CuDevicePtr va, size_t bytes) {
  return enter("cuMemAddressFree", Needs::kContext,
               [&](Double& d) { return d.memory.free_range(va, bytes); });
}

KVMM_EXPORT CuResult cuMemMap(CuDevicePtr va, size_t bytes, size_t offset, CuAllocation handle,
                              CuFlags64 flags) {
  return enter("cuMemMap", Needs::kContext, [&](Double& d) {
    return flags != 0 ? CuResult::kInvalidValue : d.memory.map(va, bytes, offset, handle);
  });
}

KVMM_EXPORT CuResult cuMemUnmap(CuDevicePtr va, size_t bytes) {
  return enter("cuMemUnmap", Needs::kContext, [&](Double& d) { return d.memory.unmap(va, bytes); });
}

KVMM_EXPORT CuResult cuMemSetAccess(CuDevicePtr va, size_t bytes, const CuAccessDesc* desc,
                                    size_t count) {
  return enter("cuMemSetAccess", Needs::kContext,
               [&](Double& d) { return d.memory.set_access(va, bytes, desc, count); });
}

KVMM_EXPORT CuResult cuMemHostAlloc(void** host, size_t bytes, unsigned flags) {
  return enter("cuMemHostAlloc", Needs::kContext, [&](Double& d) {
    if (host == nullptr || bytes == 0 || (flags & ~7U) != 0) {
      return CuResult::kInvalidValue;
    }
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      return CuResult::kOutOfMemory;
    }
    fill_fresh(p, bytes);
    d.host_areas[reinterpret_cast<uint64_t>(p)] = bytes;
    *host = p;
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuMemFreeHost(void* host) {
  return enter("cuMemFreeHost", Needs::kContext, [&](Double& d) {
    const auto it = d.host_areas.find(reinterpret_cast<uint64_t>(host));
    if (it == d.host_areas.end()) {
      return CuResult::kInvalidValue;
    }
    munmap(host, it->second);
    d.host_areas.erase(it);
    return CuResult::kSuccess;
  });
}

// ------------------------------------------------------------------------------------- copies

KVMM_EXPORT CuResult cuMemcpyHtoDAsync_v2(CuDevicePtr to, const void* from, size_t bytes,
                                          CuStream stream) {
  return enter("cuMemcpyHtoDAsync_v2", Needs::kContext, [&](Double& d) {
    if (!d.memory.accessible(to, bytes, true) || from == nullptr || overlaps_device(d, from)) {
      return CuResult::kInvalidValue;
    }
    if (!pinned(d, from, bytes)) {  // staged by the driver: the bytes of now
      ++d.pageable_copies;
      const auto* b = static_cast<const std::byte*>(from);
      return push(d, stream, [&d, to, copy = std::vector<std::byte>(b, b + bytes)] {
        if (!d.memory.accessible(to, copy.size(), true)) {
          return kGone;
        }
        std::memcpy(pointer(to), copy.data(), copy.size());
        return CuResult::kSuccess;
      });
    }
    return push(d, stream, [&d, to, from, bytes] {
      if (!d.memory.accessible(to, bytes, true) || !pinned(d, from, bytes)) {
        return kGone;
      }
      std::memcpy(pointer(to), from, bytes);
      return CuResult::kSuccess;
    });
  });
}

KVMM_EXPORT CuResult cuMemcpyDtoHAsync_v2(void* to, CuDevicePtr from, size_t bytes,
                                          CuStream stream) {
  return enter("cuMemcpyDtoHAsync_v2", Needs::kContext, [&](Double& d) {
    if (!d.memory.accessible(from, bytes, false) || to == nullptr || overlaps_device(d, to)) {
      return CuResult::kInvalidValue;
    }
    const bool direct = pinned(d, to, bytes);
    const CuResult r = push(d, stream, [&d, to, from, bytes, direct] {
      if (!d.memory.accessible(from, bytes, false) || (direct && !pinned(d, to, bytes))) {
        return kGone;
      }
      std::memcpy(to, pointer(from), bytes);
      return CuResult::kSuccess;
    });
    if (r != CuResult::kSuccess || direct) {
      return r;
    }
    ++d.pageable_copies;  // returns only when the bytes are there
    return drain(d, stream);
  });
}

KVMM_EXPORT CuResult cuMemcpyDtoDAsync_v2(CuDevicePtr to, CuDevicePtr from, size_t bytes,
                                          CuStream stream) {
  return enter("cuMemcpyDtoDAsync_v2", Needs::kContext, [&](Double& d) {
    if (!d.memory.accessible(to, bytes, true) || !d.memory.accessible(from, bytes, false)) {
      return CuResult::kInvalidValue;
    }
    return push(d, stream, [&d, to, from, bytes] {
      if (!d.memory.accessible(to, bytes, true) || !d.memory.accessible(from, bytes, false)) {
        return kGone;
      }
      std::memmove(pointer(to), pointer(from), bytes);
      return CuResult::kSuccess;
    });
  });
}

KVMM_EXPORT CuResult cuMemsetD8Async(CuDevicePtr to, unsigned char value, size_t count,
                                     CuStream stream) {
  return enter("cuMemsetD8Async", Needs::kContext, [&](Double& d) {
    if (!d.memory.accessible(to, count, true)) {
      return CuResult::kInvalidValue;
    }
    return push(d, stream, [&d, to, value, count] {
      if (!d.memory.accessible(to, count, true)) {
        return kGone;
      }
      std::memset(pointer(to), value, count);
      return CuResult::kSuccess;
    });
  });
}

// --------------------------------------------------------------------------- streams and events

KVMM_EXPORT CuResult cuStreamCreate(CuStream* stream, unsigned flags) {
  return enter("cuStreamCreate", Needs::kContext, [&](Double& d) {
    if (stream == nullptr || flags > kStreamNonBlocking) {
      return CuResult::kInvalidValue;
    }
    *stream = reinterpret_cast<CuStream>(d.streams.create_stream());
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuStreamDestroy_v2(CuStream stream) {
  return enter("cuStreamDestroy_v2", Needs::kContext, [&](Double& d) {
    const CuResult r = drain(d, stream);
    return r != CuResult::kSuccess ? r
                                   : d.streams.destroy_stream(reinterpret_cast<uint64_t>(stream));
  });
}

KVMM_EXPORT CuResult cuStreamSynchronize(CuStream stream) {
  return enter("cuStreamSynchronize", Needs::kContext, [&](Double& d) { return drain(d, stream); });
}

KVMM_EXPORT CuResult cuEventCreate(CuEvent* event, unsigned flags) {
  return enter("cuEventCreate", Needs::kContext, [&](Double& d) {
    if (event == nullptr || flags > 7) {
      return CuResult::kInvalidValue;
    }
    *event = reinterpret_cast<CuEvent>(d.streams.create_event());
    return CuResult::kSuccess;
  });
}

KVMM_EXPORT CuResult cuEventDestroy_v2(CuEvent event) {
  return enter("cuEventDestroy_v2", Needs::kContext, [&](Double& d) {
    return d.streams.destroy_event(reinterpret_cast<uint64_t>(event));
  });
}

KVMM_EXPORT CuResult cuEventRecord(CuEvent event, CuStream stream) {
  return enter("cuEventRecord", Needs::kContext, [&](Double& d) {
    return d.streams.record(reinterpret_cast<uint64_t>(event), reinterpret_cast<uint64_t>(stream));
  });
}

KVMM_EXPORT CuResult cuEventQuery(CuEvent event) {
  return enter("cuEventQuery", Needs::kContext,
               [&](Double& d) { return d.streams.query(reinterpret_cast<uint64_t>(event)); });
}

}  // namespace kvmm::cuda_double
