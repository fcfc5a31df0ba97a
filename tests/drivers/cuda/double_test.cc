// SPDX-License-Identifier: Apache-2.0
//
// The libcuda double itself: it must be at least as strict as the real driver, or tests over it
// prove nothing.
#include "tests/drivers/cuda/rig.h"

namespace kvmm::cuda {
namespace {

constexpr uint64_t kSize = 2 * kMiB;

struct LibcudaDouble : testing::Test {
  LibcudaDouble() : controls(Controls::load()) {
    controls.reset(nullptr);
    api = *load_cuda_api(KVMM_CUDA_DOUBLE);
  }
  void make_current() {
    EXPECT_EQ(api.init(0), CuResult::kSuccess);
    EXPECT_EQ(api.primary_ctx_retain(&context, 0), CuResult::kSuccess);
    EXPECT_EQ(api.ctx_push_current(context), CuResult::kSuccess);
  }
  static CuAllocationProp prop() {
    CuAllocationProp p;
    p.type = kAllocationPinned;
    p.location.type = kLocationDevice;
    return p;
  }
  CuAllocation create(uint64_t bytes = kSize) {
    CuAllocation h = 0;
    const CuAllocationProp p = prop();
    EXPECT_EQ(api.mem_create(&h, bytes, &p, 0), CuResult::kSuccess);
    return h;
  }
  CuDevicePtr reserve(uint64_t bytes) {
    CuDevicePtr va = 0;
    EXPECT_EQ(api.mem_address_reserve(&va, bytes, kSize, 0, 0), CuResult::kSuccess);
    return va;
  }
  CuResult access(CuDevicePtr va, uint64_t bytes, int flags = kAccessReadWrite, int device = 0) {
    const CuAccessDesc d{{kLocationDevice, device}, flags};
    return api.mem_set_access(va, bytes, &d, 1);
  }

  const Controls controls;
  CudaApi api{};
  CuContext context = nullptr;
};

TEST_F(LibcudaDouble, WantsInitThenAContext) {
  CuStream s = nullptr;
  int n = 0;
  CuDevicePtr va = 0;
  EXPECT_EQ(api.device_get_count(&n), CuResult::kNotInitialized);
  EXPECT_EQ(api.stream_create(&s, 0), CuResult::kNotInitialized);
  EXPECT_EQ(api.init(1), CuResult::kInvalidValue);
  ASSERT_EQ(api.init(0), CuResult::kSuccess);
  EXPECT_EQ(api.stream_create(&s, 0), CuResult::kInvalidContext);
  EXPECT_EQ(api.mem_address_reserve(&va, kSize, 0, 0, 0), CuResult::kInvalidContext);
  ASSERT_EQ(api.primary_ctx_retain(&context, 0), CuResult::kSuccess);
  EXPECT_EQ(api.stream_create(&s, 0), CuResult::kInvalidContext) << "retained, not current";
  ASSERT_EQ(api.ctx_push_current(context), CuResult::kSuccess);
  EXPECT_EQ(api.stream_create(&s, 0), CuResult::kSuccess);
  ASSERT_EQ(api.primary_ctx_release(0), CuResult::kSuccess);
  EXPECT_EQ(api.stream_synchronize(s), CuResult::kInvalidContext) << "current, but destroyed";
  EXPECT_EQ(api.primary_ctx_release(0), CuResult::kInvalidContext);
}

TEST_F(LibcudaDouble, EnforcesGranularityAndFields) {
  make_current();
  CuAllocation h = 0;
  CuDevicePtr va = 0;
  CuAllocationProp p = prop();
  EXPECT_EQ(api.mem_create(&h, 4096, &p, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_create(&h, 0, &p, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_create(&h, kSize, &p, 1), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_create(&h, kGiB, &p, 0), CuResult::kOutOfMemory);
  p.type = 0;
  EXPECT_EQ(api.mem_create(&h, kSize, &p, 0), CuResult::kInvalidValue);
  p = prop();
  p.location.id = 1;
  EXPECT_EQ(api.mem_create(&h, kSize, &p, 0), CuResult::kInvalidDevice);
  EXPECT_EQ(api.mem_address_reserve(&va, 4096, 0, 0, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_address_reserve(&va, kSize, 3 * kMiB, 0, 0), CuResult::kInvalidValue);
  va = reserve(2 * kSize);
  EXPECT_EQ(va % kSize, 0U);
  h = create();
  EXPECT_EQ(api.mem_map(va + 4096, kSize, 0, h, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_map(va, kSize, 4096, h, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_map(va, 2 * kSize, 0, h, 0), CuResult::kInvalidValue) << "larger than it is";
  EXPECT_EQ(api.mem_map(va + 2 * kSize, kSize, 0, h, 0), CuResult::kInvalidValue) << "not reserved";
  EXPECT_EQ(api.mem_map(va, kSize, 0, h + 1, 0), CuResult::kInvalidValue) << "no such handle";
  EXPECT_EQ(api.mem_address_free(va, kSize), CuResult::kInvalidValue) << "a part of it";
}

TEST_F(LibcudaDouble, MapsOnceAndUnmapsWholeMappings) {
  make_current();
  const CuDevicePtr va = reserve(4 * kSize);
  const CuAllocation small = create();
  const CuAllocation large = create(2 * kSize);
  ASSERT_EQ(api.mem_map(va, kSize, 0, small, 0), CuResult::kSuccess);
  EXPECT_EQ(api.mem_map(va, kSize, 0, small, 0), CuResult::kInvalidValue);
  ASSERT_EQ(api.mem_map(va + kSize, 2 * kSize, 0, large, 0), CuResult::kSuccess);
  EXPECT_EQ(api.mem_map(va + 2 * kSize, kSize, 0, small, 0), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_unmap(va + kSize, kSize), CuResult::kInvalidValue) << "half a mapping";
  EXPECT_EQ(api.mem_unmap(va, 2 * kSize), CuResult::kInvalidValue) << "one and a half";
  EXPECT_EQ(api.mem_unmap(va + 3 * kSize, kSize), CuResult::kInvalidValue) << "nothing there";
  EXPECT_EQ(access(va + kSize, kSize), CuResult::kInvalidValue);
  EXPECT_EQ(access(va, 4 * kSize), CuResult::kInvalidValue);
  EXPECT_EQ(access(va, 3 * kSize, kAccessReadWrite, 1), CuResult::kInvalidDevice);
  EXPECT_EQ(access(va, 3 * kSize, 2), CuResult::kInvalidValue);
  EXPECT_EQ(access(va, 3 * kSize), CuResult::kSuccess);
  EXPECT_EQ(api.mem_address_free(va, 4 * kSize), CuResult::kInvalidValue) << "still mapped";
  EXPECT_EQ(api.mem_unmap(va, 3 * kSize), CuResult::kSuccess);
  EXPECT_EQ(api.mem_address_free(va, 4 * kSize), CuResult::kSuccess);
}

TEST_F(LibcudaDouble, MemoryLivesUntilItsLastMapping) {
  make_current();
  const CuDevicePtr va = reserve(2 * kSize);
  const CuAllocation h = create();
  ASSERT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kSuccess);
  ASSERT_EQ(api.mem_release(h), CuResult::kSuccess);
  EXPECT_EQ(api.mem_release(h), CuResult::kInvalidValue);
  EXPECT_EQ(api.mem_map(va + kSize, kSize, 0, h, 0), CuResult::kInvalidValue);
  EXPECT_EQ(counts_of(controls).allocations, 1U);
  ASSERT_EQ(access(va, kSize), CuResult::kSuccess);
  EXPECT_EQ(bytes_at(va)[0], std::byte{0xcd}) << "new memory is not zeros";
  ASSERT_EQ(api.mem_unmap(va, kSize), CuResult::kSuccess);
  EXPECT_EQ(counts_of(controls).allocations, 0U);
}

TEST_F(LibcudaDouble, AccessDoesNotSurviveARemap) {
  make_current();
  const CuDevicePtr va = reserve(kSize);
  const CuAllocation h = create();
  CuStream s = nullptr;
  ASSERT_EQ(api.stream_create(&s, 0), CuResult::kSuccess);
  ASSERT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kSuccess);
  EXPECT_EQ(api.memset_d8_async(va, 1, 16, s), CuResult::kInvalidValue) << "no access yet";
  ASSERT_EQ(access(va, kSize), CuResult::kSuccess);
  EXPECT_EQ(api.memset_d8_async(va, 1, 16, s), CuResult::kSuccess);
  EXPECT_EQ(api.memset_d8_async(va + kSize - 8, 1, 16, s), CuResult::kInvalidValue);
  ASSERT_EQ(api.stream_synchronize(s), CuResult::kSuccess);
  ASSERT_EQ(api.mem_unmap(va, kSize), CuResult::kSuccess);
  ASSERT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kSuccess);
  EXPECT_EQ(api.memset_d8_async(va, 1, 16, s), CuResult::kInvalidValue);
}

using LibcudaDoubleDeathTest = LibcudaDouble;

TEST_F(LibcudaDoubleDeathTest, ATouchWithoutAccessDies) {
  make_current();
  const CuDevicePtr va = reserve(kSize);
  const CuAllocation h = create();
  auto* byte = reinterpret_cast<volatile unsigned char*>(va);
  EXPECT_DEATH(static_cast<void>(*byte), "") << "reserved only";
  ASSERT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kSuccess);
  EXPECT_DEATH(static_cast<void>(*byte), "") << "mapped without access";
  ASSERT_EQ(access(va, kSize, kAccessRead), CuResult::kSuccess);
  EXPECT_EQ(*byte, 0xcd);
  EXPECT_DEATH(*byte = 1, "") << "read only";
}

TEST_F(LibcudaDouble, StreamsKeepOrderAndEventsTheLastRecord) {
  make_current();
  CuStream a = nullptr;
  CuStream b = nullptr;
  CuEvent e = nullptr;
  ASSERT_EQ(api.stream_create(&a, kStreamNonBlocking), CuResult::kSuccess);
  ASSERT_EQ(api.stream_create(&b, kStreamNonBlocking), CuResult::kSuccess);
  ASSERT_EQ(api.event_create(&e, kEventDisableTiming), CuResult::kSuccess);
  EXPECT_EQ(api.event_query(e), CuResult::kSuccess) << "never recorded";
  ASSERT_EQ(api.event_record(e, a), CuResult::kSuccess);
  EXPECT_EQ(api.event_query(e), CuResult::kNotReady);
  ASSERT_EQ(api.event_record(e, a), CuResult::kSuccess);
  EXPECT_EQ(controls.step_stream(b), 0U);
  EXPECT_EQ(controls.step_stream(a), 1U);
  EXPECT_EQ(api.event_query(e), CuResult::kNotReady) << "the first record only";
  EXPECT_EQ(controls.step_stream(a), 1U);
  EXPECT_EQ(api.event_query(e), CuResult::kSuccess);
  EXPECT_EQ(api.event_query(nullptr), CuResult::kInvalidHandle);
  EXPECT_EQ(api.event_record(e, nullptr), CuResult::kInvalidHandle);
}

TEST_F(LibcudaDouble, AQueuedCopyOfAnUnmappedPageLosesTheContext) {
  make_current();
  const CuDevicePtr va = reserve(kSize);
  const CuAllocation h = create();
  CuStream s = nullptr;
  ASSERT_EQ(api.stream_create(&s, 0), CuResult::kSuccess);
  ASSERT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kSuccess);
  ASSERT_EQ(access(va, kSize), CuResult::kSuccess);
  ASSERT_EQ(api.memset_d8_async(va, 1, 16, s), CuResult::kSuccess);
  ASSERT_EQ(api.mem_unmap(va, kSize), CuResult::kSuccess);
  EXPECT_EQ(api.stream_synchronize(s), CuResult::kIllegalAddress);
  EXPECT_EQ(api.mem_map(va, kSize, 0, h, 0), CuResult::kIllegalAddress) << "it sticks";
}

TEST_F(LibcudaDouble, PageableCopiesAreStagedAndCounted) {
  make_current();
  const CuDevicePtr va = reserve(kSize);
  CuStream s = nullptr;
  ASSERT_EQ(api.stream_create(&s, 0), CuResult::kSuccess);
  ASSERT_EQ(api.mem_map(va, kSize, 0, create(), 0), CuResult::kSuccess);
  ASSERT_EQ(access(va, kSize), CuResult::kSuccess);
  unsigned char in = 7;
  unsigned char out = 0;
  ASSERT_EQ(api.memcpy_htod_async(va, &in, 1, s), CuResult::kSuccess);
  in = 8;  // too late: it was staged
  ASSERT_EQ(api.memcpy_dtoh_async(&out, va, 1, s), CuResult::kSuccess);
  EXPECT_EQ(out, 7);
  EXPECT_EQ(counts_of(controls).pageable_copies, 2U);
}

}  // namespace
}  // namespace kvmm::cuda
