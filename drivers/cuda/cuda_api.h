// SPDX-License-Identifier: Apache-2.0
//
// The part of the CUDA driver API that kvmm calls: types, constants and one table of entry points.
//
//   libcuda.so.1 --dlsym("cuMemMap")--> CudaApi::mem_map --> mmu, copy and data of the cuda driver
//
// kvmm is built on machines that have no CUDA toolkit, so nothing here includes cuda.h. Every
// declaration names the one in cuda.h (CUDA 13.0; unchanged since 11.2) that it repeats;
// tests/drivers/cuda/api_test.cc compares sizes, offsets, values and parameter lists with cuda.h
// where that file exists, and the names with a committed list and with the toolkit's stub library.
//
// Invariants
//   1. An entry point is looked up under the name that the library exports. cuda.h hides it behind
//      macros: `cuMemcpyHtoDAsync` there is `cuMemcpyHtoDAsync_v2` in the library.
//   2. `for_each_entry_point` visits every member of `CudaApi` once; there is no other list.
//
// Thread safety: values; the table is constant after loading. The driver API is thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvmm::cuda {

// CUresult. Those that kvmm tells apart; any other value may arrive and maps to Errc::kIo.
enum class CuResult : int32_t {
  kSuccess = 0,                 // CUDA_SUCCESS
  kInvalidValue = 1,            // CUDA_ERROR_INVALID_VALUE
  kOutOfMemory = 2,             // CUDA_ERROR_OUT_OF_MEMORY
  kNotInitialized = 3,          // CUDA_ERROR_NOT_INITIALIZED
  kDeinitialized = 4,           // CUDA_ERROR_DEINITIALIZED
  kStubLibrary = 34,            // CUDA_ERROR_STUB_LIBRARY
  kDeviceUnavailable = 46,      // CUDA_ERROR_DEVICE_UNAVAILABLE
  kNoDevice = 100,              // CUDA_ERROR_NO_DEVICE
  kInvalidDevice = 101,         // CUDA_ERROR_INVALID_DEVICE
  kInvalidContext = 201,        // CUDA_ERROR_INVALID_CONTEXT
  kEccUncorrectable = 214,      // CUDA_ERROR_ECC_UNCORRECTABLE
  kNvlinkUncorrectable = 220,   // CUDA_ERROR_NVLINK_UNCORRECTABLE
  kOperatingSystem = 304,       // CUDA_ERROR_OPERATING_SYSTEM
  kInvalidHandle = 400,         // CUDA_ERROR_INVALID_HANDLE
  kNotFound = 500,              // CUDA_ERROR_NOT_FOUND
  kNotReady = 600,              // CUDA_ERROR_NOT_READY
  kIllegalAddress = 700,        // CUDA_ERROR_ILLEGAL_ADDRESS: the context is lost
  kLaunchTimeout = 702,         // CUDA_ERROR_LAUNCH_TIMEOUT: the context is lost
  kContextIsDestroyed = 709,    // CUDA_ERROR_CONTEXT_IS_DESTROYED
  kAssert = 710,                // CUDA_ERROR_ASSERT: the context is lost
  kHardwareStackError = 714,    // CUDA_ERROR_HARDWARE_STACK_ERROR: the context is lost
  kLaunchFailed = 719,          // CUDA_ERROR_LAUNCH_FAILED: the context is lost
  kNotPermitted = 800,          // CUDA_ERROR_NOT_PERMITTED
  kNotSupported = 801,          // CUDA_ERROR_NOT_SUPPORTED
  kSystemNotReady = 802,        // CUDA_ERROR_SYSTEM_NOT_READY
  kSystemDriverMismatch = 803,  // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
  kCompatNotSupported = 804,    // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
  kUnknown = 999,               // CUDA_ERROR_UNKNOWN
};

using CuDevice = int;                       // CUdevice
using CuDevicePtr = unsigned long long;     // CUdeviceptr  NOLINT(google-runtime-int)
using CuAllocation = unsigned long long;    // CUmemGenericAllocationHandle  NOLINT
using CuContext = struct CuContextOpaque*;  // CUcontext
using CuStream = struct CuStreamOpaque*;    // CUstream
using CuEvent = struct CuEventOpaque*;      // CUevent
using CuFlags64 = unsigned long long;       // `unsigned long long flags`  NOLINT

// CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
inline constexpr int kAttributeVmmSupported = 102;
inline constexpr int kAllocationPinned = 1;         // CU_MEM_ALLOCATION_TYPE_PINNED
inline constexpr int kLocationDevice = 1;           // CU_MEM_LOCATION_TYPE_DEVICE
inline constexpr int kGranularityMinimum = 0;       // CU_MEM_ALLOC_GRANULARITY_MINIMUM
inline constexpr int kAccessNone = 0;               // CU_MEM_ACCESS_FLAGS_PROT_NONE
inline constexpr int kAccessRead = 1;               // CU_MEM_ACCESS_FLAGS_PROT_READ
inline constexpr int kAccessReadWrite = 3;          // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
inline constexpr unsigned kStreamNonBlocking = 1;   // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kHostAllocPortable = 1;   // CU_MEMHOSTALLOC_PORTABLE

struct CuLocation {  // CUmemLocation_v1
  int type = 0;
  int id = 0;
};

struct CuAllocationProp {  // CUmemAllocationProp_v1
  int type = 0;
  int requested_handle_types = 0;
  CuLocation location;
  void* win32_handle_meta_data = nullptr;
  struct {
    unsigned char compression_type = 0;
    unsigned char gpu_direct_rdma_capable = 0;
    uint16_t usage = 0;
    unsigned char reserved[4] = {};
  } alloc_flags;
};

struct CuAccessDesc {  // CUmemAccessDesc_v1
  CuLocation location;
  int flags = 0;
};

static_assert(sizeof(CuLocation) == 8 && sizeof(CuAccessDesc) == 12);
static_assert(sizeof(CuAllocationProp) == 32 && offsetof(CuAllocationProp, alloc_flags) == 24);

// The signatures are those of cuda.h. A member is null until the table is loaded.
struct CudaApi {
  CuResult (*init)(unsigned flags);
  CuResult (*get_error_name)(CuResult error, const char** name);
  CuResult (*device_get_count)(int* count);
  CuResult (*device_get)(CuDevice* device, int ordinal);
  CuResult (*device_get_attribute)(int* value, int attribute, CuDevice device);
  CuResult (*primary_ctx_retain)(CuContext* context, CuDevice device);
  CuResult (*primary_ctx_release)(CuDevice device);
  CuResult (*ctx_push_current)(CuContext context);
  CuResult (*ctx_pop_current)(CuContext* context);
  CuResult (*mem_get_allocation_granularity)(size_t* bytes, const CuAllocationProp* prop,
                                             int which);
  CuResult (*mem_create)(CuAllocation* handle, size_t bytes, const CuAllocationProp* prop,
                         CuFlags64 flags);
  CuResult (*mem_release)(CuAllocation handle);
  CuResult (*mem_address_reserve)(CuDevicePtr* va, size_t bytes, size_t alignment, CuDevicePtr hint,
                                  CuFlags64 flags);
  CuResult (*mem_address_free)(CuDevicePtr va, size_t bytes);
  CuResult (*mem_map)(CuDevicePtr va, size_t bytes, size_t offset, CuAllocation handle,
                      CuFlags64 flags);
  CuResult (*mem_unmap)(CuDevicePtr va, size_t bytes);
  CuResult (*mem_set_access)(CuDevicePtr va, size_t bytes, const CuAccessDesc* desc, size_t count);
  CuResult (*mem_host_alloc)(void** host, size_t bytes, unsigned flags);
  CuResult (*mem_free_host)(void* host);
  CuResult (*memcpy_htod_async)(CuDevicePtr to, const void* from, size_t bytes, CuStream stream);
  CuResult (*memcpy_dtoh_async)(void* to, CuDevicePtr from, size_t bytes, CuStream stream);
  CuResult (*memcpy_dtod_async)(CuDevicePtr to, CuDevicePtr from, size_t bytes, CuStream stream);
  CuResult (*memset_d8_async)(CuDevicePtr to, unsigned char value, size_t count, CuStream stream);
  CuResult (*stream_create)(CuStream* stream, unsigned flags);
  CuResult (*stream_destroy)(CuStream stream);
  CuResult (*stream_synchronize)(CuStream stream);
  CuResult (*event_create)(CuEvent* event, unsigned flags);
  CuResult (*event_destroy)(CuEvent event);
  CuResult (*event_record)(CuEvent event, CuStream stream);
  CuResult (*event_query)(CuEvent event);
};

// Calls visit(name, member) for every entry point, in the order of the table.
template <class Api, class Visitor>
void for_each_entry_point(Api& a, Visitor&& visit) {
  visit("cuInit", a.init);
  visit("cuGetErrorName", a.get_error_name);
  visit("cuDeviceGetCount", a.device_get_count);
  visit("cuDeviceGet", a.device_get);
  visit("cuDeviceGetAttribute", a.device_get_attribute);
  visit("cuDevicePrimaryCtxRetain", a.primary_ctx_retain);
  visit("cuDevicePrimaryCtxRelease_v2", a.primary_ctx_release);
  visit("cuCtxPushCurrent_v2", a.ctx_push_current);
  visit("cuCtxPopCurrent_v2", a.ctx_pop_current);
  visit("cuMemGetAllocationGranularity", a.mem_get_allocation_granularity);
  visit("cuMemCreate", a.mem_create);
  visit("cuMemRelease", a.mem_release);
  visit("cuMemAddressReserve", a.mem_address_reserve);
  visit("cuMemAddressFree", a.mem_address_free);
  visit("cuMemMap", a.mem_map);
  visit("cuMemUnmap", a.mem_unmap);
  visit("cuMemSetAccess", a.mem_set_access);
  visit("cuMemHostAlloc", a.mem_host_alloc);
  visit("cuMemFreeHost", a.mem_free_host);
  visit("cuMemcpyHtoDAsync_v2", a.memcpy_htod_async);
  visit("cuMemcpyDtoHAsync_v2", a.memcpy_dtoh_async);
  visit("cuMemcpyDtoDAsync_v2", a.memcpy_dtod_async);
  visit("cuMemsetD8Async", a.memset_d8_async);
  visit("cuStreamCreate", a.stream_create);
  visit("cuStreamDestroy_v2", a.stream_destroy);
  visit("cuStreamSynchronize", a.stream_synchronize);
  visit("cuEventCreate", a.event_create);
  visit("cuEventDestroy_v2", a.event_destroy);
  visit("cuEventRecord", a.event_record);
  visit("cuEventQuery", a.event_query);
}
inline constexpr size_t kEntryPoints = 30;
static_assert(sizeof(CudaApi) == kEntryPoints * sizeof(void*), "every member is an entry point");

}  // namespace kvmm::cuda
