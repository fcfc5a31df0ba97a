// SPDX-License-Identifier: Apache-2.0
#include "drivers/cuda/gpu.h"

#include <dlfcn.h>

#include <bit>

namespace kvmm::cuda {

Errc to_errc(CuResult r) noexcept {
  switch (r) {
    case CuResult::kSuccess:
      return Errc::kOk;
    case CuResult::kInvalidValue:
    case CuResult::kInvalidHandle:
      return Errc::kInvalid;
    case CuResult::kOutOfMemory:
      return Errc::kNoMemory;
    case CuResult::kNotReady:
      return Errc::kAgain;
    case CuResult::kNoDevice:
    case CuResult::kInvalidDevice:
    case CuResult::kNotFound:
      return Errc::kNotFound;
    case CuResult::kNotPermitted:
      return Errc::kPermission;
    case CuResult::kNotSupported:
    case CuResult::kStubLibrary:
    case CuResult::kSystemNotReady:
    case CuResult::kSystemDriverMismatch:
    case CuResult::kCompatNotSupported:
      return Errc::kNotSupported;
    case CuResult::kNotInitialized:
    case CuResult::kDeinitialized:
    case CuResult::kDeviceUnavailable:
    case CuResult::kInvalidContext:  // we always push our own: it was destroyed behind us
    case CuResult::kContextIsDestroyed:
    case CuResult::kNvlinkUncorrectable:
    case CuResult::kIllegalAddress:
    case CuResult::kLaunchTimeout:
    case CuResult::kAssert:
    case CuResult::kHardwareStackError:
    case CuResult::kLaunchFailed:
      return Errc::kDeviceGone;
    case CuResult::kEccUncorrectable:
    case CuResult::kOperatingSystem:
    case CuResult::kUnknown:
      return Errc::kIo;
  }
  return Errc::kIo;  // a number that this file does not know
}

Result<CudaApi> load_cuda_api(const std::string& path) {
  const std::string name = path.empty() ? "libcuda.so.1" : path;
  // NODELETE: the library has threads and exit handlers of its own and does not survive unloading.
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* why = dlerror();
    return Error(Errc::kNotSupported, "no CUDA driver: " + std::string(why != nullptr ? why : "?") +
                                          "; install the NVIDIA driver or give its path by lib=");
  }
  CudaApi api{};
  std::string missing;
  for_each_entry_point(api, [&](const char* symbol, auto& member) {
    void* p = dlsym(library, symbol);
    if (p == nullptr && missing.empty()) {
      missing = symbol;
    }
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(p);
  });
  dlclose(library);  // gives back the count only
  if (!missing.empty()) {
    return Error(Errc::kNotSupported, name + " has no entry point '" + missing +
                                          "'; a driver for CUDA 11.2 or newer is needed");
  }
  return api;
}

AddressMap::Kind AddressMap::find(uint64_t start, uint64_t length) const {
  auto it = ranges_.upper_bound(start);
  if (it == ranges_.begin()) {
    return Kind::kUnknown;
  }
  --it;
  const uint64_t offset = start - it->first;
  const uint64_t size = it->second.first;
  return offset < size && length <= size - offset ? it->second.second : Kind::kUnknown;
}

// ------------------------------------------------------------------------------------------- Gpu

CuAllocationProp Gpu::allocation_prop() const {
  CuAllocationProp prop;
  prop.type = kAllocationPinned;
  prop.location = {kLocationDevice, device_};
  return prop;
}

CuAccessDesc Gpu::access(int flags) const {
  return {{kLocationDevice, device_}, flags};
}

Error Gpu::error(const char* call, CuResult r) const {
  const char* name = nullptr;
  std::string text = std::string(call) + ": ";
  if (api_.get_error_name(r, &name) == CuResult::kSuccess && name != nullptr) {
    text += name;
  } else {
    text += "CUresult " + std::to_string(static_cast<int>(r));
  }
  return Error(to_errc(r), std::move(text));
}

Result<std::unique_ptr<Gpu>> Gpu::open(const std::string& library, int ordinal) {
  Result<CudaApi> api = load_cuda_api(library);
  if (!api) {
    return api.error();
  }
  const Gpu closed(*api, 0);  // only to word errors
  if (const CuResult r = api->init(0); r != CuResult::kSuccess) {
    return closed.error("cuInit", r);
  }
  int count = 0;
  if (const CuResult r = api->device_get_count(&count); r != CuResult::kSuccess) {
    return closed.error("cuDeviceGetCount", r);
  }
  if (ordinal < 0 || ordinal >= count) {
    return Error(Errc::kNotFound, "no GPU " + std::to_string(ordinal) + "; the CUDA driver has " +
                                      std::to_string(count));
  }
  CuDevice device = 0;
  if (const CuResult r = api->device_get(&device, ordinal); r != CuResult::kSuccess) {
    return closed.error("cuDeviceGet", r);
  }
  std::unique_ptr<Gpu> gpu(new Gpu(*api, device));
  if (Result<void> r = gpu->retain_and_ask(); !r) {
    return std::move(r).error();
  }
  return gpu;
}

Result<void> Gpu::retain_and_ask() {
  int vmm = 0;
  if (const CuResult r = api_.device_get_attribute(&vmm, kAttributeVmmSupported, device_);
      r != CuResult::kSuccess) {
    return error("cuDeviceGetAttribute", r);
  }
  if (vmm == 0) {
    return Error(Errc::kNotSupported, "this GPU has no virtual memory management");
  }
  if (const CuResult r = api_.primary_ctx_retain(&context_, device_); r != CuResult::kSuccess) {
    context_ = nullptr;
    return error("cuDevicePrimaryCtxRetain", r);
  }
  const ContextScope scope(*this);
  if (scope.result() != CuResult::kSuccess) {
    return error("cuCtxPushCurrent", scope.result());
  }
  size_t bytes = 0;
  const CuAllocationProp prop = allocation_prop();
  if (const CuResult r = api_.mem_get_allocation_granularity(&bytes, &prop, kGranularityMinimum);
      r != CuResult::kSuccess) {
    return error("cuMemGetAllocationGranularity", r);
  }
  granule_ = Bytes(bytes);
  if (!is_page_size(granule_)) {
    return Error(Errc::kNotSupported,
                 "the GPU maps in units of " + std::to_string(bytes) + " bytes, not a page size");
  }
  return try_read_only();
}

// Drivers differ in whether they take PROT_READ for device memory, and no attribute tells.
Result<void> Gpu::try_read_only() {
  const size_t bytes = granule_.value();
  const CuAllocationProp prop = allocation_prop();
  CuAllocation handle = 0;
  CuDevicePtr va = 0;
  if (const CuResult r = api_.mem_create(&handle, bytes, &prop, 0); r != CuResult::kSuccess) {
    return error("cuMemCreate", r);
  }
  CuResult r = api_.mem_address_reserve(&va, bytes, bytes, 0, 0);
  const char* call = "cuMemAddressReserve";
  if (r == CuResult::kSuccess) {
    r = api_.mem_map(va, bytes, 0, handle, 0);
    call = "cuMemMap";
    if (r == CuResult::kSuccess) {
      const CuAccessDesc read = access(kAccessRead);
      r = api_.mem_set_access(va, bytes, &read, 1);
      call = "cuMemSetAccess";
      read_only_mappings_ = r == CuResult::kSuccess;
      if (r == CuResult::kInvalidValue || r == CuResult::kNotSupported) {
        r = CuResult::kSuccess;  // an answer, not a failure
      }
      torn_down(api_.mem_unmap(va, bytes));
    }
    torn_down(api_.mem_address_free(va, bytes));
  }
  torn_down(api_.mem_release(handle));
  return r == CuResult::kSuccess ? Result<void>() : Result<void>(error(call, r));
}

Gpu::~Gpu() {
  if (context_ != nullptr) {
    torn_down(api_.primary_ctx_release(device_));
  }
}

ContextScope::~ContextScope() {
  if (result_ == CuResult::kSuccess) {
    CuContext ours = nullptr;
    // Cannot fail: the context on top of this thread's stack is the one that we pushed.
    static_cast<void>(api_.ctx_pop_current(&ours));
  }
}

// ---------------------------------------------------------------------------- streams and events

Result<GpuStream> GpuStream::create(Gpu& gpu) {
  const ContextScope scope(gpu);
  CuStream stream = nullptr;
  CuResult r = scope.result();
  if (r == CuResult::kSuccess) {
    r = gpu.api().stream_create(&stream, kStreamNonBlocking);
  }
  if (r != CuResult::kSuccess) {
    return gpu.error("cuStreamCreate", r);
  }
  return GpuStream(gpu, stream);
}

GpuStream::~GpuStream() {
  if (stream_ != nullptr) {
    const ContextScope scope(*gpu_);
    gpu_->torn_down(gpu_->api().stream_synchronize(stream_));
    gpu_->torn_down(gpu_->api().stream_destroy(stream_));
  }
}

Result<GpuEvent> GpuEvent::create(Gpu& gpu) {
  const ContextScope scope(gpu);
  CuEvent event = nullptr;
  CuResult r = scope.result();
  if (r == CuResult::kSuccess) {
    r = gpu.api().event_create(&event, kEventDisableTiming);
  }
  if (r != CuResult::kSuccess) {
    return gpu.error("cuEventCreate", r);
  }
  return GpuEvent(gpu, event);
}

GpuEvent::~GpuEvent() {
  if (event_ != nullptr) {
    const ContextScope scope(*gpu_);
    gpu_->torn_down(gpu_->api().event_destroy(event_));
  }
}

void GpuEvent::record(const GpuStream& stream) {
  stream_ = stream.get();
  state_ = CuResult::kNotReady;
  if (gpu_->api().event_record(event_, stream_) != CuResult::kSuccess) {
    state_ = gpu_->api().stream_synchronize(stream_);
  }
}

CuResult GpuEvent::query() {
  if (state_ == CuResult::kNotReady) {
    const CuResult r = gpu_->api().event_query(event_);
    if (r == CuResult::kNotReady) {
      return r;
    }
    state_ = r == CuResult::kSuccess ? r : gpu_->api().stream_synchronize(stream_);
  }
  return state_;
}

}  // namespace kvmm::cuda
