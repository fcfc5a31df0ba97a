// SPDX-License-Identifier: Apache-2.0
//
// MmuOps of the cuda driver: aliases, batches, rights, fences, and what each wrong use answers.
#include "drivers/cuda/cuda_mmu.h"
#include "tests/drivers/cuda/rig.h"

namespace kvmm::cuda {
namespace {

struct CudaMmuTest : testing::Test {
  CudaMmuTest() {
    range = *rig.mmu().reserve(mib(32), kPage, kPage);
    frames = *rig.mmu().create_frames(kPage, 6, NodeId(0));
  }
  ~CudaMmuTest() override {
    if (!rig.lost && rig.device != nullptr) {
      rig.mmu().release(range);
      rig.mmu().destroy_frames(frames);
    }
  }
  VirtAddr va(uint64_t page) const { return range.start + kPage * page; }

  Rig rig;
  AddressRange range;
  FrameArea frames;
};

TEST_F(CudaMmuTest, SaysWhatItIs) {
  const MmuInfo info = rig.mmu().info();
  EXPECT_STREQ(info.name, "cuda");
  EXPECT_EQ(info.granule, mib(2));
  EXPECT_FALSE(info.faults);
  EXPECT_TRUE(info.asynchronous);
  EXPECT_TRUE(info.protects);
  EXPECT_FALSE(info.poisons);
  EXPECT_EQ(info.kind, FrameKind::kDma);
  EXPECT_EQ(frames.kind, FrameKind::kDma);
}

TEST_F(CudaMmuTest, AMappedPageIsTheFrameItself) {
  fill_pattern(bytes_at(frames.frame(2).value()), kPage.value(), 7);
  ASSERT_EQ(rig.map(va(1), frames.frame(2)), Errc::kOk);
  EXPECT_EQ(std::memcmp(bytes_at(va(1).value()), bytes_at(frames.frame(2).value()), kPage.value()),
            0);
  bytes_at(va(1).value())[12345] = std::byte{0x5a};
  EXPECT_EQ(bytes_at(frames.frame(2).value())[12345], std::byte{0x5a});
  ASSERT_EQ(rig.unmap(va(1), frames.frame(2)), Errc::kOk);
  EXPECT_EQ(bytes_at(frames.frame(2).value())[12345], std::byte{0x5a});
  EXPECT_EQ(rig.mmu().stats().maps, 1U);
  EXPECT_EQ(rig.mmu().stats().unmaps, 1U);
}

TEST_F(CudaMmuTest, OneFrameMayHaveManyUsers) {
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  ASSERT_EQ(rig.map(va(5), frames.frame(0)), Errc::kOk);
  bytes_at(va(0).value())[1] = std::byte{9};
  EXPECT_EQ(bytes_at(va(5).value())[1], std::byte{9});
  ASSERT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kOk);
  EXPECT_EQ(bytes_at(va(5).value())[1], std::byte{9});
  ASSERT_EQ(rig.unmap(va(5), frames.frame(0)), Errc::kOk);
}

TEST_F(CudaMmuTest, ARunOfPagesCostsOneChangeOfAccess) {
  std::array<MapEntry, 5> e{};
  for (uint32_t i = 0; i < 3; ++i) {
    e[i] = {.va = va(i), .frame = frames.frame(i)};
  }
  e[3] = {.va = va(8), .frame = frames.frame(3)};
  e[4] = {.va = va(9), .frame = frames.frame(4)};
  MmuRequest r;
  r.op = MmuOp::kMap;
  r.page_size = kPage;
  r.entries = e;
  const uint64_t before = rig.controls.calls("cuMemSetAccess");
  ASSERT_EQ(rig.run(rig.mmu(), r), Errc::kOk);
  EXPECT_EQ(rig.controls.calls("cuMemSetAccess") - before, 2U);
  r.op = MmuOp::kUnmap;
  ASSERT_EQ(rig.run(rig.mmu(), r), Errc::kOk);
}

TEST_F(CudaMmuTest, ABatchMayHalfSucceed) {
  ASSERT_EQ(rig.map(va(1), frames.frame(5)), Errc::kOk);
  std::array<MapEntry, 4> e{MapEntry{.va = va(0), .frame = frames.frame(0)},
                            MapEntry{.va = va(1), .frame = frames.frame(1)},
                            MapEntry{.va = va(2), .frame = frames.frame(2)},
                            MapEntry{.va = va(2), .frame = frames.frame(3)}};
  MmuRequest r;
  r.op = MmuOp::kMap;
  r.page_size = kPage;
  r.entries = e;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kExists);
  EXPECT_EQ(e[0].result, Errc::kOk);
  EXPECT_EQ(e[1].result, Errc::kExists);
  EXPECT_EQ(e[2].result, Errc::kOk);
  EXPECT_EQ(e[3].result, Errc::kExists);
  r.op = MmuOp::kUnmap;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kInvalid);  // page 1 holds another frame
  EXPECT_EQ(e[0].result, Errc::kOk);
  EXPECT_EQ(e[1].result, Errc::kInvalid);
  EXPECT_EQ(e[2].result, Errc::kOk);
  EXPECT_EQ(e[3].result, Errc::kNotFound);
  EXPECT_EQ(rig.unmap(va(1), frames.frame(5)), Errc::kOk);
}

TEST_F(CudaMmuTest, RefusesWhatItCannotDo) {
  EXPECT_EQ(rig.map(range.start + Bytes(4096), frames.frame(0)), Errc::kInvalid);
  EXPECT_EQ(rig.map(range.end(), frames.frame(0)), Errc::kRange);
  EXPECT_EQ(rig.map(VirtAddr(0), frames.frame(0)), Errc::kRange);
  EXPECT_EQ(rig.map(VirtAddr(~uint64_t{0} << 21), frames.frame(0)), Errc::kRange);
  EXPECT_EQ(rig.map(va(0), FrameAddr(0)), Errc::kInvalid);
  EXPECT_EQ(rig.map(va(0), frames.frame(0) + Bytes(4096)), Errc::kInvalid);
  EXPECT_EQ(rig.map(va(0), frames.frame(6)), Errc::kInvalid);
  EXPECT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kNotFound);
  EXPECT_EQ(rig.unmap(range.end(), frames.frame(0)), Errc::kRange);
  EXPECT_EQ(rig.page_op(MmuOp::kProtect, va(0), FrameAddr(0)), Errc::kNotFound);
  EXPECT_EQ(rig.page_op(MmuOp::kProtect, range.end(), FrameAddr(0)), Errc::kRange);
  EXPECT_EQ(rig.page_op(MmuOp::kPoison, va(0), FrameAddr(0)), Errc::kNotSupported);
  EXPECT_EQ(rig.page_op(MmuOp::kFree, va(0), FrameAddr(0)), Errc::kNotSupported);
  EXPECT_EQ(rig.page_op(MmuOp::kClear, va(0), FrameAddr(0)), Errc::kOk);
  EXPECT_EQ(rig.page_op(MmuOp::kClear, range.end(), FrameAddr(0)), Errc::kRange);
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  EXPECT_EQ(rig.page_op(MmuOp::kClear, va(0), FrameAddr(0)), Errc::kExists);
  ASSERT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kOk);

  EXPECT_EQ(rig.mmu().reserve(mib(3), kPage, kPage).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().reserve(Bytes(0), kPage, kPage).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().reserve(mib(4), kib(64), kPage).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().reserve(mib(4), kPage, Bytes(5000)).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().reserve(mib(6), mib(3), kPage).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().create_frames(kib(64), 1, NodeId(0)).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().create_frames(mib(4), 1, NodeId(0)).code(), Errc::kInvalid);
  EXPECT_EQ(rig.mmu().create_frames(kPage, 0, NodeId(0)).code(), Errc::kInvalid);
  EXPECT_EQ(rig.device->host_frames().create(Bytes(5000), 1).code(), Errc::kInvalid);
  EXPECT_EQ(rig.device->host_frames().create(mib(2), 0).code(), Errc::kInvalid);
}

TEST_F(CudaMmuTest, MoreFramesThanMemoryAreATypedErrorAndLeaveNothing) {
  const KvmmDoubleCounts before = counts_of(rig.controls);
  const Result<FrameArea> r = rig.mmu().create_frames(kPage, 64, NodeId(0));  // of 128 MiB
  EXPECT_EQ(r.code(), Errc::kNoMemory);
  EXPECT_NE(r.error().message().find("CUDA_ERROR_OUT_OF_MEMORY"), std::string::npos);
  const KvmmDoubleCounts after = counts_of(rig.controls);
  EXPECT_EQ(leaks(before), leaks(after));
}

TEST_F(CudaMmuTest, RightsAreEnforcedAndChange) {
  const FrameAddr source = frames.frame(1);
  ASSERT_EQ(rig.map(va(0), frames.frame(0), Prot::kRead), Errc::kOk);
  EXPECT_EQ(rig.copy_now(FrameAddr(va(0).value()), source), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(source, FrameAddr(va(0).value())), Errc::kOk);
  ASSERT_EQ(rig.page_op(MmuOp::kProtect, va(0), FrameAddr(0), Prot::kReadWrite), Errc::kOk);
  EXPECT_EQ(rig.copy_now(FrameAddr(va(0).value()), source), Errc::kOk);
  ASSERT_EQ(rig.page_op(MmuOp::kProtect, va(0), FrameAddr(0), Prot::kNone), Errc::kOk);
  EXPECT_EQ(rig.copy_now(source, FrameAddr(va(0).value())), Errc::kInvalid);
  ASSERT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kOk);
  ASSERT_EQ(rig.map(va(0), frames.frame(0), Prot::kNone), Errc::kOk);
  EXPECT_EQ(rig.copy_now(source, FrameAddr(va(0).value())), Errc::kInvalid);
  EXPECT_EQ(rig.copy_now(source, frames.frame(0)), Errc::kOk)
      << "the direct map has its own rights";
  ASSERT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kOk);
}

TEST(CudaMmu, WithoutReadOnlyMappingsItSaysSo) {
  const KvmmDoubleConfig config{2 << 20, 1 << 30, 1, 1, 0};
  Rig rig(&config);
  EXPECT_FALSE(rig.mmu().info().protects);
  const AddressRange range = *rig.mmu().reserve(kPage, kPage, kPage);
  const FrameArea frames = *rig.mmu().create_frames(kPage, 1, NodeId(0));
  EXPECT_EQ(rig.map(range.start, frames.frame(0), Prot::kRead), Errc::kOk);
  EXPECT_EQ(rig.page_op(MmuOp::kProtect, range.start, FrameAddr(0), Prot::kRead),
            Errc::kNotSupported);
  EXPECT_EQ(rig.unmap(range.start, frames.frame(0)), Errc::kOk);
}

TEST(CudaMmu, ASmallerGranuleGivesSmallerFramesAndLargePagesOfManyGranules) {
  const KvmmDoubleConfig config{64 << 10, 1 << 30, 1, 1, 1};
  Rig rig(&config);
  EXPECT_EQ(rig.mmu().info().granule, kib(64));
  const AddressRange range = *rig.mmu().reserve(mib(4), kPage, kPage);
  const FrameArea large = *rig.mmu().create_frames(kPage, 1, NodeId(0));
  const FrameArea small = *rig.mmu().create_frames(kib(64), 2, NodeId(0));
  ASSERT_EQ(rig.map(range.start, large.frame(0)), Errc::kOk);
  std::array<MapEntry, 1> e{MapEntry{.va = range.start + kib(64), .frame = small.frame(0)}};
  MmuRequest r;
  r.op = MmuOp::kMap;
  r.page_size = kib(64);
  r.entries = e;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kExists) << "inside the large page";
  r.op = MmuOp::kUnmap;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kNotFound) << "a granule of the large page";
  e[0].va = range.start + kPage;
  r.op = MmuOp::kMap;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kOk);
  e[0].frame = large.frame(0);
  e[0].va = range.start + kPage + kib(64);
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kInvalid) << "a frame of another size";
  ASSERT_EQ(rig.unmap(range.start, large.frame(0)), Errc::kOk);
  // The small page that is still mapped goes with the device.
}

// ---------------------------------------------------------------------------------------- fences

struct Kernel {
  uint64_t va;
  std::byte value;
  static void write(void* p) {
    const Kernel& k = *static_cast<Kernel*>(p);
    std::memset(bytes_at(k.va), static_cast<int>(k.value), kPage.value());
  }
};

TEST_F(CudaMmuTest, AnUnmapWaitsForTheEngineEvent) {
  ASSERT_EQ(rig.map(va(3), frames.frame(3)), Errc::kOk);
  Kernel kernel{va(3).value(), std::byte{0x77}};
  ASSERT_EQ(rig.controls.launch(rig.engine_stream(), &Kernel::write, &kernel), 0);
  ASSERT_EQ(rig.api.event_record(rig.engine_event(), rig.engine_stream()), CuResult::kSuccess);

  CompletionQueue cq;
  std::array<MapEntry, 1> e{MapEntry{.va = va(3), .frame = frames.frame(3)}};
  MmuRequest r;
  r.queue = &cq;
  r.op = MmuOp::kUnmap;
  r.page_size = kPage;
  r.entries = e;
  r.fence = {Fence::Kind::kEvent, rig.engine_event(), nullptr};
  std::array<MmuRequest*, 1> one{&r};
  ASSERT_EQ(rig.mmu().submit(one), 1U);
  rig.poll();
  EXPECT_EQ(cq.pop(), nullptr) << "the kernel has not run yet";
  EXPECT_EQ(rig.map(va(3), frames.frame(4)), Errc::kExists) << "still mapped";
  // Would die if the page were unmapped; so the fence held.
  ASSERT_EQ(rig.controls.step_stream(rig.engine_stream()), 1U);
  rig.poll();
  EXPECT_EQ(cq.pop(), nullptr) << "the event has not passed yet";
  ASSERT_EQ(rig.controls.step_stream(rig.engine_stream()), 1U);
  rig.poll();
  ASSERT_EQ(cq.pop(), &r);
  EXPECT_EQ(r.result, Errc::kOk);
  EXPECT_EQ(bytes_at(frames.frame(3).value())[kPage.value() - 1], std::byte{0x77});
}

TEST_F(CudaMmuTest, CallbacksAreAskedUntilTheySayTrueAndOthersOvertake) {
  CompletionQueue cq;
  struct Ask {
    bool ready = false;
    int asked = 0;
    static int done(void* p) {
      Ask& a = *static_cast<Ask*>(p);
      ++a.asked;
      return a.ready ? 1 : 0;
    }
  };
  std::array<Ask, 3> asks;
  std::array<std::array<MapEntry, 1>, 3> entries;
  std::array<MmuRequest, 3> requests;
  std::array<MmuRequest*, 3> all{&requests[0], &requests[1], &requests[2]};
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_EQ(rig.map(va(i), frames.frame(i)), Errc::kOk);
    entries[i][0] = {.va = va(i), .frame = frames.frame(i)};
    requests[i].queue = &cq;
    requests[i].op = MmuOp::kUnmap;
    requests[i].page_size = kPage;
    requests[i].entries = entries[i];
    requests[i].fence = {Fence::Kind::kCallback, &asks[i], &Ask::done};
  }
  ASSERT_EQ(rig.mmu().submit(all), 3U);
  asks[2].ready = true;
  rig.poll();
  EXPECT_EQ(cq.pop(), &requests[2]);
  EXPECT_EQ(cq.pop(), nullptr);
  asks[0].ready = true;
  rig.poll();
  EXPECT_EQ(cq.pop(), &requests[0]);
  // One more behind the one that still waits.
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  asks[0].ready = false;
  ASSERT_EQ(rig.mmu().submit(std::span(all).first(1)), 1U);
  asks[0].ready = asks[1].ready = true;
  rig.poll();
  EXPECT_EQ(cq.pop(), &requests[1]);
  EXPECT_EQ(cq.pop(), &requests[0]);
  EXPECT_GE(asks[1].asked, 3);
}

TEST_F(CudaMmuTest, AFenceThatCannotBeAskedNeverUnmaps) {
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  std::array<MapEntry, 1> e{MapEntry{.va = va(0), .frame = frames.frame(0)}};
  MmuRequest r;
  r.op = MmuOp::kUnmap;
  r.page_size = kPage;
  r.entries = e;
  int nothing = 0;
  for (const Fence& fence :
       {Fence{Fence::Kind::kEvent, nullptr, nullptr}, Fence{Fence::Kind::kEvent, &nothing, nullptr},
        Fence{Fence::Kind::kCallback, nullptr, nullptr},
        Fence{static_cast<Fence::Kind>(99), nullptr, nullptr}}) {
    r.fence = fence;
    EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kInvalid);
    EXPECT_EQ(e[0].result, Errc::kInvalid);
    EXPECT_EQ(rig.map(va(0), frames.frame(1)), Errc::kExists);
  }
  r.fence = {};
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kOk);
}

TEST_F(CudaMmuTest, WhatWaitsAtTheEndIsCancelledAndTheDeviceTakesItsPagesDown) {
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  CompletionQueue cq;
  std::array<MapEntry, 1> e{MapEntry{.va = va(0), .frame = frames.frame(0)}};
  MmuRequest r;
  r.queue = &cq;
  r.op = MmuOp::kUnmap;
  r.page_size = kPage;
  r.entries = e;
  r.fence = {Fence::Kind::kCallback, nullptr, [](void*) { return 0; }};
  std::array<MmuRequest*, 1> one{&r};
  ASSERT_EQ(rig.mmu().submit(one), 1U);
  rig.device.reset();
  ASSERT_EQ(cq.pop(), &r);
  EXPECT_EQ(r.result, Errc::kCancelled);
}

// ---------------------------------------------------------------------------------- failed calls

TEST_F(CudaMmuTest, AFailedChangeOfAccessUndoesTheWholeRun) {
  std::array<MapEntry, 3> e{};
  for (uint32_t i = 0; i < 3; ++i) {
    e[i] = {.va = va(i), .frame = frames.frame(i)};
  }
  MmuRequest r;
  r.op = MmuOp::kMap;
  r.page_size = kPage;
  r.entries = e;
  const uint64_t mapped = counts_of(rig.controls).mappings;
  rig.controls.fail("cuMemSetAccess", 1, static_cast<int>(CuResult::kOutOfMemory));
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kNoMemory);
  EXPECT_EQ(counts_of(rig.controls).mappings, mapped);
  EXPECT_EQ(rig.mmu().stats().maps, 0U);
  EXPECT_EQ(rig.mmu().stats().unmaps, 0U);
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kOk) << "and it can be tried again";
  r.op = MmuOp::kUnmap;
  EXPECT_EQ(rig.run(rig.mmu(), r), Errc::kOk);
}

TEST_F(CudaMmuTest, APageWhoseUndoFailedIsStuckUntilTheDriverLetsGo) {
  const uint64_t mapped = counts_of(rig.controls).mappings;
  const auto fail_map_and_undo = [&] {
    rig.controls.fail("cuMemSetAccess", 1, static_cast<int>(CuResult::kOutOfMemory));
    rig.controls.fail("cuMemUnmap", 1, static_cast<int>(CuResult::kUnknown));
    EXPECT_EQ(rig.map(va(0), frames.frame(0)), Errc::kNoMemory) << "the first reason is reported";
    EXPECT_EQ(counts_of(rig.controls).mappings, mapped + 1);
  };
  fail_map_and_undo();
  EXPECT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kNotFound);
  EXPECT_EQ(rig.page_op(MmuOp::kProtect, va(0), FrameAddr(0)), Errc::kNotFound);
  rig.controls.fail("cuMemUnmap", 1, static_cast<int>(CuResult::kUnknown));
  EXPECT_EQ(rig.map(va(0), frames.frame(1)), Errc::kBusy);
  EXPECT_EQ(rig.map(va(0), frames.frame(1)), Errc::kOk);
  EXPECT_EQ(rig.mmu().stats().busy_retries, 2U);
  EXPECT_EQ(rig.unmap(va(0), frames.frame(1)), Errc::kOk);
  fail_map_and_undo();
  EXPECT_EQ(rig.page_op(MmuOp::kClear, va(0), FrameAddr(0)), Errc::kOk);
  EXPECT_EQ(counts_of(rig.controls).mappings, mapped);
  fail_map_and_undo();  // left to release
}

TEST_F(CudaMmuTest, AnUnmapThatTheDriverRefusesLeavesThePageMapped) {
  ASSERT_EQ(rig.map(va(0), frames.frame(0)), Errc::kOk);
  rig.controls.fail("cuMemUnmap", 1, static_cast<int>(CuResult::kUnknown));
  EXPECT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kIo);
  EXPECT_EQ(rig.map(va(0), frames.frame(2)), Errc::kExists);
  EXPECT_EQ(rig.unmap(va(0), frames.frame(0)), Errc::kOk);
}

}  // namespace
}  // namespace kvmm::cuda
