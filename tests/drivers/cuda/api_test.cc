// SPDX-License-Identifier: Apache-2.0
//
// The border to the vendor's library: declarations, names, loading, results.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "tests/drivers/cuda/rig.h"

#if __has_include(<cuda.h>)
#include <cuda.h>
#define KVMM_HAVE_CUDA_H 1
#endif

namespace kvmm::cuda {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::set<std::string> words_of(const std::string& path) {
  std::istringstream in(read_all(path));
  std::set<std::string> names;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') {
      names.insert(line);
    }
  }
  return names;
}

std::set<std::string> entry_points() {
  CudaApi api{};
  std::set<std::string> names;
  for_each_entry_point(api, [&](const char* name, auto&) { names.insert(name); });
  return names;
}

bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// Whole strings in an object file that look like entry points: cuXxx.
std::set<std::string> cu_strings(const std::string& bytes) {
  std::set<std::string> found;
  for (size_t i = 0; i < bytes.size();) {
    size_t end = i;
    while (end < bytes.size() && is_name(bytes[end])) {
      ++end;
    }
    const bool whole = end < bytes.size() && bytes[end] == '\0' && (i == 0 || bytes[i - 1] == '\0');
    if (whole && end - i > 4 && bytes.compare(i, 2, "cu") == 0 && bytes[i + 2] >= 'A' &&
        bytes[i + 2] <= 'Z') {
      found.insert(bytes.substr(i, end - i));
    }
    i = end + 1;
  }
  return found;
}

TEST(CudaApi, ResolvesExactlyTheCommittedNames) {
  const std::set<std::string> committed = words_of(KVMM_CUDA_NAMES);
  EXPECT_EQ(committed.size(), kEntryPoints);
  EXPECT_EQ(entry_points(), committed);
}

TEST(CudaApi, ObjectFilesNameNothingElse) {
  const std::set<std::string> committed = words_of(KVMM_CUDA_NAMES);
  std::set<std::string> resolved;
  std::istringstream objects(read_all(KVMM_CUDA_OBJECTS));
  size_t files = 0;
  for (std::string path; std::getline(objects, path);) {
    if (path.find("/drivers/cuda/") == std::string::npos) {
      continue;
    }
    const std::string bytes = read_all(path);
    ASSERT_FALSE(bytes.empty()) << path;
    ++files;
    EXPECT_EQ(bytes.find("kvmm_double"), std::string::npos) << path;
    for (const std::string& name : cu_strings(bytes)) {
      resolved.insert(name);
    }
  }
  EXPECT_EQ(files, 7U);
  for (const std::string& name : committed) {
    EXPECT_EQ(resolved.count(name), 1U) << name << " is not where this test looks for it";
  }
  for (const std::string& name : resolved) {
    // Texts of errors name calls without their version.
    EXPECT_TRUE(committed.count(name) == 1 || committed.count(name + "_v2") == 1) << name;
  }
}

TEST(CudaApi, TheToolkitsStubExportsEveryName) {
  std::string stub;
  for (const char* path :
       {"/usr/local/cuda/lib64/stubs/libcuda.so", "/usr/lib/x86_64-linux-gnu/stubs/libcuda.so"}) {
    if (stub.empty() && std::filesystem::exists(path)) {
      stub = read_all(path);
    }
  }
  if (stub.empty()) {
    GTEST_SKIP() << "no CUDA toolkit here";
  }
  for (const std::string& name : entry_points()) {
    EXPECT_NE(stub.find('\0' + name + '\0'), std::string::npos) << name;
  }
  EXPECT_EQ(stub.find(std::string("\0cuMemNoSuchCall\0", 17)), std::string::npos);
}

#ifdef KVMM_HAVE_CUDA_H
template <class T>
constexpr size_t shape() {
  // NOLINTNEXTLINE(bugprone-sizeof-expression): also of pointers
  return sizeof(T) * 4 + (std::is_pointer_v<T> ? 1 : 0) + (std::is_same_v<T, void> ? 2 : 0);
}
template <class A, class B>
struct SameShape;
template <class R1, class... A1, class R2, class... A2>
struct SameShape<R1 (*)(A1...), R2 (*)(A2...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(A1) != sizeof...(A2) || sizeof(R1) != sizeof(R2)) {
      return false;
    } else {
      return ((shape<A1>() == shape<A2>()) && ...);
    }
  }();
};
#define KVMM_SAME(member, theirs) \
  static_assert(SameShape<decltype(CudaApi::member), decltype(&::theirs)>::value)
KVMM_SAME(init, cuInit);
KVMM_SAME(get_error_name, cuGetErrorName);
KVMM_SAME(device_get_count, cuDeviceGetCount);
KVMM_SAME(device_get, cuDeviceGet);
KVMM_SAME(device_get_attribute, cuDeviceGetAttribute);
KVMM_SAME(primary_ctx_retain, cuDevicePrimaryCtxRetain);
KVMM_SAME(primary_ctx_release, cuDevicePrimaryCtxRelease);
KVMM_SAME(ctx_push_current, cuCtxPushCurrent);
KVMM_SAME(ctx_pop_current, cuCtxPopCurrent);
KVMM_SAME(mem_get_allocation_granularity, cuMemGetAllocationGranularity);
KVMM_SAME(mem_create, cuMemCreate);
KVMM_SAME(mem_release, cuMemRelease);
KVMM_SAME(mem_address_reserve, cuMemAddressReserve);
KVMM_SAME(mem_address_free, cuMemAddressFree);
KVMM_SAME(mem_map, cuMemMap);
KVMM_SAME(mem_unmap, cuMemUnmap);
KVMM_SAME(mem_set_access, cuMemSetAccess);
KVMM_SAME(mem_host_alloc, cuMemHostAlloc);
KVMM_SAME(mem_free_host, cuMemFreeHost);
KVMM_SAME(memcpy_htod_async, cuMemcpyHtoDAsync);
KVMM_SAME(memcpy_dtoh_async, cuMemcpyDtoHAsync);
KVMM_SAME(memcpy_dtod_async, cuMemcpyDtoDAsync);
KVMM_SAME(memset_d8_async, cuMemsetD8Async);
KVMM_SAME(stream_create, cuStreamCreate);
KVMM_SAME(stream_destroy, cuStreamDestroy);
KVMM_SAME(stream_synchronize, cuStreamSynchronize);
KVMM_SAME(event_create, cuEventCreate);
KVMM_SAME(event_destroy, cuEventDestroy);
KVMM_SAME(event_record, cuEventRecord);
KVMM_SAME(event_query, cuEventQuery);

// cuda.h renames by macro: what its name stands for must be the name that we look up.
#define KVMM_TEXT2(x) #x
#define KVMM_TEXT(x) KVMM_TEXT2(x)
TEST(CudaApi, VersionedNamesAreThoseOfTheHeader) {
  const std::set<std::string> names = entry_points();
  for (const char* name : {KVMM_TEXT(cuDevicePrimaryCtxRelease),
                           KVMM_TEXT(cuCtxPushCurrent),
                           KVMM_TEXT(cuCtxPopCurrent),
                           KVMM_TEXT(cuMemcpyHtoDAsync),
                           KVMM_TEXT(cuMemcpyDtoHAsync),
                           KVMM_TEXT(cuMemcpyDtoDAsync),
                           KVMM_TEXT(cuMemsetD8Async),
                           KVMM_TEXT(cuStreamCreate),
                           KVMM_TEXT(cuStreamDestroy),
                           KVMM_TEXT(cuStreamSynchronize),
                           KVMM_TEXT(cuEventCreate),
                           KVMM_TEXT(cuEventDestroy),
                           KVMM_TEXT(cuEventRecord),
                           KVMM_TEXT(cuEventQuery),
                           KVMM_TEXT(cuMemHostAlloc),
                           KVMM_TEXT(cuMemFreeHost),
                           KVMM_TEXT(cuMemCreate),
                           KVMM_TEXT(cuMemMap),
                           KVMM_TEXT(cuMemUnmap),
                           KVMM_TEXT(cuMemSetAccess)}) {
    EXPECT_EQ(names.count(name), 1U) << name;
  }
}

static_assert(sizeof(CuAllocationProp) == sizeof(CUmemAllocationProp));
static_assert(offsetof(CuAllocationProp, location) == offsetof(CUmemAllocationProp, location));
static_assert(offsetof(CuAllocationProp, requested_handle_types) ==
              offsetof(CUmemAllocationProp, requestedHandleTypes));
static_assert(offsetof(CuAllocationProp, win32_handle_meta_data) ==
              offsetof(CUmemAllocationProp, win32HandleMetaData));
static_assert(offsetof(CuAllocationProp, alloc_flags) == offsetof(CUmemAllocationProp, allocFlags));
static_assert(sizeof(CuAccessDesc) == sizeof(CUmemAccessDesc));
static_assert(offsetof(CuAccessDesc, flags) == offsetof(CUmemAccessDesc, flags));
static_assert(sizeof(CuLocation) == sizeof(CUmemLocation));
static_assert(offsetof(CuLocation, id) == offsetof(CUmemLocation, id));
static_assert(sizeof(CuAllocation) == sizeof(CUmemGenericAllocationHandle));
static_assert(kAttributeVmmSupported == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
static_assert(kAllocationPinned == CU_MEM_ALLOCATION_TYPE_PINNED);
static_assert(kLocationDevice == CU_MEM_LOCATION_TYPE_DEVICE);
static_assert(kGranularityMinimum == CU_MEM_ALLOC_GRANULARITY_MINIMUM);
static_assert(kAccessNone == CU_MEM_ACCESS_FLAGS_PROT_NONE);
static_assert(kAccessRead == CU_MEM_ACCESS_FLAGS_PROT_READ);
static_assert(kAccessReadWrite == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
static_assert(kStreamNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kEventDisableTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kHostAllocPortable == CU_MEMHOSTALLOC_PORTABLE);
static_assert(sizeof(CuResult) == sizeof(CUresult));
constexpr bool same(CuResult ours, CUresult theirs) {
  return static_cast<int>(ours) == static_cast<int>(theirs);
}
static_assert(same(CuResult::kSuccess, CUDA_SUCCESS));
static_assert(same(CuResult::kInvalidValue, CUDA_ERROR_INVALID_VALUE));
static_assert(same(CuResult::kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY));
static_assert(same(CuResult::kNotInitialized, CUDA_ERROR_NOT_INITIALIZED));
static_assert(same(CuResult::kDeinitialized, CUDA_ERROR_DEINITIALIZED));
static_assert(same(CuResult::kStubLibrary, CUDA_ERROR_STUB_LIBRARY));
static_assert(same(CuResult::kDeviceUnavailable, CUDA_ERROR_DEVICE_UNAVAILABLE));
static_assert(same(CuResult::kNoDevice, CUDA_ERROR_NO_DEVICE));
static_assert(same(CuResult::kInvalidDevice, CUDA_ERROR_INVALID_DEVICE));
static_assert(same(CuResult::kInvalidContext, CUDA_ERROR_INVALID_CONTEXT));
static_assert(same(CuResult::kEccUncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE));
static_assert(same(CuResult::kNvlinkUncorrectable, CUDA_ERROR_NVLINK_UNCORRECTABLE));
static_assert(same(CuResult::kOperatingSystem, CUDA_ERROR_OPERATING_SYSTEM));
static_assert(same(CuResult::kInvalidHandle, CUDA_ERROR_INVALID_HANDLE));
static_assert(same(CuResult::kNotFound, CUDA_ERROR_NOT_FOUND));
static_assert(same(CuResult::kNotReady, CUDA_ERROR_NOT_READY));
static_assert(same(CuResult::kIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS));
static_assert(same(CuResult::kLaunchTimeout, CUDA_ERROR_LAUNCH_TIMEOUT));
static_assert(same(CuResult::kContextIsDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED));
static_assert(same(CuResult::kAssert, CUDA_ERROR_ASSERT));
static_assert(same(CuResult::kHardwareStackError, CUDA_ERROR_HARDWARE_STACK_ERROR));
static_assert(same(CuResult::kLaunchFailed, CUDA_ERROR_LAUNCH_FAILED));
static_assert(same(CuResult::kNotPermitted, CUDA_ERROR_NOT_PERMITTED));
static_assert(same(CuResult::kNotSupported, CUDA_ERROR_NOT_SUPPORTED));
static_assert(same(CuResult::kSystemNotReady, CUDA_ERROR_SYSTEM_NOT_READY));
static_assert(same(CuResult::kSystemDriverMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH));
static_assert(same(CuResult::kCompatNotSupported, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE));
static_assert(same(CuResult::kUnknown, CUDA_ERROR_UNKNOWN));
#endif

TEST(CudaApi, ResultsBecomeErrc) {
  EXPECT_EQ(to_errc(CuResult::kSuccess), Errc::kOk);
  EXPECT_EQ(to_errc(CuResult::kInvalidValue), Errc::kInvalid);
  EXPECT_EQ(to_errc(CuResult::kOutOfMemory), Errc::kNoMemory);
  EXPECT_EQ(to_errc(CuResult::kNotReady), Errc::kAgain);
  EXPECT_EQ(to_errc(CuResult::kNoDevice), Errc::kNotFound);
  EXPECT_EQ(to_errc(CuResult::kNotPermitted), Errc::kPermission);
  EXPECT_EQ(to_errc(CuResult::kSystemDriverMismatch), Errc::kNotSupported);
  EXPECT_EQ(to_errc(CuResult::kIllegalAddress), Errc::kDeviceGone);
  EXPECT_EQ(to_errc(CuResult::kInvalidContext), Errc::kDeviceGone);
  EXPECT_EQ(to_errc(CuResult::kEccUncorrectable), Errc::kIo);
  EXPECT_EQ(to_errc(static_cast<CuResult>(123456)), Errc::kIo);
}

// ---------------------------------------------------------------------------------------- binding

TEST(CudaDriver, WantsGpusOnly) {
  const std::unique_ptr<Driver> driver = make_cuda_driver();
  EXPECT_STREQ(driver->name(), "cuda");
  EXPECT_NE(std::string(driver->help()).find("lib="), std::string::npos);
  DeviceInfo info = double_info();
  EXPECT_TRUE(driver->probe(info));
  info.bus = "numa";
  EXPECT_FALSE(driver->probe(info));
  info.bus = "cuda";
  info.cls = DeviceClass::kBlock;
  EXPECT_FALSE(driver->probe(info));
}

Error bind_error(const std::string& options) {
  DeviceInfo info = double_info();
  info.options = options;
  const Result<std::unique_ptr<Device>> r = make_cuda_driver()->bind(info, nullptr);
  EXPECT_FALSE(r);
  return r ? Error(Errc::kOk) : r.error();
}

TEST(CudaDriver, WithoutALibrarySaysSo) {
  const Error e = bind_error("lib=/nonexistent/libcuda.so.1");
  EXPECT_EQ(e.code, Errc::kNotSupported);
  EXPECT_NE(e.detail.find("/nonexistent/libcuda.so.1"), std::string::npos) << e.detail;
  EXPECT_NE(e.detail.find("NVIDIA driver"), std::string::npos) << e.detail;
}

TEST(CudaDriver, NamesAMissingEntryPoint) {
  const Error e = bind_error("lib=libm.so.6");  // a library, but not this one
  EXPECT_EQ(e.code, Errc::kNotSupported);
  EXPECT_NE(e.detail.find("'cuInit'"), std::string::npos) << e.detail;
}

TEST(CudaDriver, RefusesBadOptions) {
  const std::string lib = std::string("lib=") + KVMM_CUDA_DOUBLE;
  for (const std::string& bad :
       {std::string(",device=x"), std::string(",device=-1"), std::string(",device="),
        std::string(",colour=red"), std::string(",device=99999999999999999999")}) {
    EXPECT_EQ(bind_error(lib + bad).code, Errc::kInvalid) << bad;
  }
  Controls::load().reset(nullptr);
  EXPECT_EQ(bind_error(lib + ",device=1").code, Errc::kNotFound);
}

TEST(CudaDriver, StacksOnNothing) {
  Rig rig;
  Result<std::unique_ptr<Device>> r =
      make_cuda_driver()->bind(double_info(), std::move(rig.device));
  EXPECT_EQ(r.code(), Errc::kInvalid);
}

TEST(CudaDriver, RefusesGpusThatCannotDoIt) {
  const Controls c = Controls::load();
  const std::string lib = std::string("lib=") + KVMM_CUDA_DOUBLE;
  KvmmDoubleConfig config{2 << 20, 1 << 30, 0, 1, 1};
  c.reset(&config);
  EXPECT_EQ(bind_error(lib).code, Errc::kNotFound) << "no GPU";
  config = {2 << 20, 1 << 30, 1, 0, 1};
  c.reset(&config);
  EXPECT_EQ(bind_error(lib).code, Errc::kNotSupported) << "no virtual memory management";
  for (const uint64_t granule : {uint64_t{4} << 20, uint64_t{3} << 19}) {
    config = {granule, 1 << 30, 1, 1, 1};
    c.reset(&config);
    EXPECT_EQ(bind_error(lib).code, Errc::kNotSupported) << granule;
  }
  config = {2 << 20, 1 << 20, 1, 1, 1};
  c.reset(&config);
  EXPECT_EQ(bind_error(lib).code, Errc::kNoMemory) << "not one page";
  EXPECT_EQ(leaks(counts_of(c)), 0U);
}

}  // namespace
}  // namespace kvmm::cuda
