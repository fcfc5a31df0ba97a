// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_mmu.h"

#include <array>
#include <cstring>

#include "drivers/sim/sim_data.h"
#include "tests/drivers/sim/sim_mmu_rig.h"

namespace kvmm {
namespace {

TEST_F(SimMmuTest, AccessesFollowTheMapping) {
  build("size=1M");
  const TestBytes in = bytes_of(4096, 1);
  std::memcpy(bytes(0), in.data(), in.size());
  ASSERT_EQ(run(MmuOp::kMap, 1, 0), Errc::kOk);
  TestBytes out(4096);
  ASSERT_EQ(mmu_->read(va(1), out), SimAccess::kDone);
  EXPECT_EQ(out, in);
  const TestBytes changed = bytes_of(100, 2);
  ASSERT_EQ(mmu_->write(va(1) + Bytes(50), changed), SimAccess::kDone);
  ASSERT_EQ(run(MmuOp::kUnmap, 1, 0), Errc::kOk);
  EXPECT_EQ(0, std::memcmp(bytes(0) + 50, changed.data(), changed.size()));
  EXPECT_EQ(touch(1), SimAccess::kFault) << "the old mapping is of no use";
  ASSERT_EQ(run(MmuOp::kMap, 1, 2), Errc::kOk);
  ASSERT_EQ(mmu_->read(va(1), out), SimAccess::kDone);
  EXPECT_EQ(out, TestBytes(4096, std::byte{0xdb})) << "another frame, never written";
}

TEST_F(SimMmuTest, AccessesCrossPagesAndStopAtTheFirstMissing) {
  build("size=1M");
  ASSERT_EQ(run(MmuOp::kMap, 0, 3), Errc::kOk);
  ASSERT_EQ(run(MmuOp::kMap, 1, 1), Errc::kOk);
  const TestBytes in = bytes_of(8192, 1);
  ASSERT_EQ(mmu_->write(va(0), in), SimAccess::kDone);
  EXPECT_EQ(0, std::memcmp(bytes(3), in.data(), 4096));
  EXPECT_EQ(0, std::memcmp(bytes(1), in.data() + 4096, 4096));
  TestBytes out(3 * 4096);
  EXPECT_EQ(mmu_->read(va(0), out), SimAccess::kFault);
  ASSERT_EQ(faults().size(), 1u);
  EXPECT_EQ(mmu_->read(VirtAddr(4096), out), SimAccess::kRange);
  EXPECT_EQ(mmu_->read(va(3) + Bytes(4096), out), SimAccess::kRange);
}

TEST_F(SimMmuTest, FaultsAreEventsOfTheirThread) {
  build("size=1M");
  EXPECT_EQ(mmu_->read(va(2) + Bytes(100), std::span<std::byte>(bytes(0), 1), 7),
            SimAccess::kFault);
  EXPECT_EQ(touch(2, true, 8), SimAccess::kFault);
  EXPECT_EQ(touch(2, false, 7), SimAccess::kFault);
  const auto events = faults();
  ASSERT_EQ(events.size(), 2u) << "a thread that waits says so once";
  EXPECT_EQ(events[0].va, va(2));
  EXPECT_FALSE(events[0].write);
  EXPECT_EQ(events[0].thread, 7u);
  EXPECT_TRUE(events[1].write);
  EXPECT_EQ(events[1].thread, 8u);
  EXPECT_EQ(mmu_->waiters(), 2u);
  mmu_->wake({va(0), page_});
  EXPECT_EQ(mmu_->waiters(), 2u) << "another page";
  mmu_->wake({va(2), page_});
  EXPECT_EQ(mmu_->waiters(), 0u);
  EXPECT_EQ(touch(2, false, 7), SimAccess::kFault);
  EXPECT_EQ(faults().size(), 1u) << "woken without a page: it faults again";
  ASSERT_EQ(run(MmuOp::kMap, 2, 0), Errc::kOk);
  EXPECT_EQ(mmu_->waiters(), 0u) << "a mapping lets it go";
  EXPECT_EQ(touch(2, false, 7), SimAccess::kDone);
  std::array<FaultEvent, 1> small;
  touch(0, false, 1);
  touch(1, false, 2);
  EXPECT_EQ(mmu_->read_faults(small), 1u);
  EXPECT_EQ(mmu_->read_faults(small), 1u);
  EXPECT_EQ(mmu_->read_faults(small), 0u);
}

TEST_F(SimMmuTest, WithoutFaultsNothingIsReported) {
  build("size=1M,faults=0");
  EXPECT_EQ(touch(0), SimAccess::kFault);
  EXPECT_EQ(mmu_->waiters(), 0u);
  EXPECT_TRUE(faults().empty());
}

TEST_F(SimMmuTest, PoisonAnswersEveryAccess) {
  build("size=1M");
  EXPECT_EQ(touch(1, false, 3), SimAccess::kFault);
  ASSERT_EQ(run(MmuOp::kPoison, 1, 0), Errc::kOk);
  EXPECT_TRUE(mmu_->page_is_poisoned(va(1)));
  EXPECT_EQ(touch(1, false, 3), SimAccess::kPoisoned);
  EXPECT_EQ(mmu_->waiters(), 0u);
  EXPECT_EQ(touch(1, true), SimAccess::kPoisoned);
  EXPECT_EQ(touch(0), SimAccess::kFault) << "its neighbour is only missing";
  ASSERT_EQ(run(MmuOp::kClear, 1, 0), Errc::kOk);
  EXPECT_EQ(touch(1), SimAccess::kFault);
}

TEST_F(SimMmuTest, APartOfAPoisonedPageCanBeMapped) {
  build("size=1M,granule=1K", kib(4));
  ASSERT_EQ(run(MmuOp::kPoison, 0, 0), Errc::kOk);
  page_ = kib(1);
  MapEntry e{range_.start + kib(1), frame(0)};
  MmuRequest r;
  prepare(r, MmuOp::kMap, {&e, 1});
  MmuRequest* one = &r;
  ASSERT_EQ(mmu_->submit({&one, 1}), 1u);
  ASSERT_EQ(queue_.pop(), &r);
  EXPECT_EQ(r.result, Errc::kOk);
  mmu_->check_invariants();
  std::byte b;
  EXPECT_EQ(mmu_->read(range_.start, {&b, 1}), SimAccess::kPoisoned);
  EXPECT_EQ(mmu_->read(range_.start + kib(1), {&b, 1}), SimAccess::kDone);
  EXPECT_EQ(mmu_->read(range_.start + kib(2), {&b, 1}), SimAccess::kPoisoned);
}

TEST_F(SimMmuTest, RightsAreEnforced) {
  build("size=1M,kind=shareable");
  ASSERT_EQ(run(MmuOp::kMap, 0, 0, Prot::kRead), Errc::kOk);
  EXPECT_EQ(touch(0), SimAccess::kDone);
  EXPECT_EQ(touch(0, true), SimAccess::kDenied);
  ASSERT_EQ(run(MmuOp::kProtect, 0, 0, Prot::kReadWrite), Errc::kOk);
  EXPECT_EQ(touch(0, true), SimAccess::kDone);
  ASSERT_EQ(run(MmuOp::kProtect, 0, 0, Prot::kNone), Errc::kOk);
  EXPECT_EQ(touch(0), SimAccess::kDenied);
  EXPECT_EQ(run(MmuOp::kProtect, 1, 0), Errc::kNotFound);
}

TEST_F(SimMmuTest, MovableFramesHaveOneMappingSharedOnesMany) {
  build("size=1M");
  ASSERT_EQ(run(MmuOp::kMap, 0, 0), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kMap, 1, 0), Errc::kNotFound) << "its bytes have moved away";
  build("size=1M,kind=shareable");
  ASSERT_EQ(run(MmuOp::kMap, 0, 0), Errc::kOk);
  ASSERT_EQ(run(MmuOp::kMap, 1, 0), Errc::kOk);
  const TestBytes in = bytes_of(10, 1);
  ASSERT_EQ(mmu_->write(va(0), in), SimAccess::kDone);
  TestBytes out(10);
  ASSERT_EQ(mmu_->read(va(1), out), SimAccess::kDone);
  EXPECT_EQ(out, in);
  ASSERT_EQ(run(MmuOp::kUnmap, 0, 0), Errc::kOk);
  EXPECT_TRUE(mmu_->frame_is_mapped(frame(0))) << "by the other";
  ASSERT_EQ(run(MmuOp::kUnmap, 1, 0), Errc::kOk);
  EXPECT_FALSE(mmu_->frame_is_mapped(frame(0)));
}

TEST_F(SimMmuTest, WrongUseIsATypedError) {
  build("size=1M");
  ASSERT_EQ(run(MmuOp::kMap, 0, 0), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kMap, 0, 1), Errc::kExists);
  EXPECT_EQ(run(MmuOp::kUnmap, 1, 1), Errc::kNotFound);
  EXPECT_EQ(run(MmuOp::kUnmap, 0, 1), Errc::kExists) << "a frame with bytes of its own";
  EXPECT_EQ(run(MmuOp::kUnmap, 0, 77), Errc::kRange) << "a frame that is none";
  EXPECT_EQ(run(MmuOp::kMap, 1, 77), Errc::kRange);
  page_ = kib(8);
  EXPECT_EQ(run(MmuOp::kUnmap, 0, 0), Errc::kInvalid) << "another page size";
  EXPECT_EQ(run(MmuOp::kMap, 0, 0), Errc::kExists) << "overlaps";
  page_ = kib(4);
  EXPECT_EQ(run(MmuOp::kUnmap, 0, 0), Errc::kOk);
}

TEST_F(SimMmuTest, SmallPagesForSmallWorlds) {
  build("size=64K,granule=256", Bytes(256), 16);
  for (uint32_t i = 0; i < 16; ++i) {
    ASSERT_EQ(run(MmuOp::kMap, i, 15 - i), Errc::kOk);
  }
  const TestBytes in = bytes_of(16 * 256, 1);
  ASSERT_EQ(mmu_->write(va(0), in), SimAccess::kDone);
  EXPECT_EQ(0, std::memcmp(bytes(15), in.data(), 256));
  ASSERT_EQ(run(MmuOp::kUnmap, 3, 12), Errc::kOk);
  std::byte b;
  EXPECT_EQ(mmu_->read(va(3) + Bytes(200), {&b, 1}), SimAccess::kFault);
  const auto events = faults();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].va, va(3)) << "rounded to its granule, not to 4 KiB";
}

// ------------------------------------------------------------------------------ asynchrony, fences

TEST_F(SimMmuTest, AsynchronousRequestsTakeEffectAtTheirTick) {
  build("size=1M,async=1,latency_us=20,depth=2");
  EXPECT_TRUE(mmu_->info().asynchronous);
  std::array<MapEntry, 3> e{{{va(0), frame(0)}, {va(1), frame(1)}, {va(2), frame(2)}}};
  std::array<MmuRequest, 3> r;
  std::array<MmuRequest*, 3> list;
  for (size_t i = 0; i < 3; ++i) {
    prepare(r[i], MmuOp::kMap, {&e[i], 1});
    list[i] = &r[i];
  }
  EXPECT_EQ(mmu_->submit(list), 2u) << "its depth";
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), nullptr);
  EXPECT_EQ(touch(0), SimAccess::kFault);
  clock_.advance(micros(20) - Tick(1));
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), nullptr);
  ASSERT_TRUE(clock_.advance_to_alarm());
  EXPECT_EQ(clock_.now(), micros(20));
  EXPECT_EQ(touch(0), SimAccess::kFault) << "not before somebody polls";
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), &r[0]);
  EXPECT_EQ(queue_.pop(), &r[1]);
  EXPECT_EQ(touch(0), SimAccess::kDone);
  EXPECT_EQ(mmu_->submit(std::span(list).subspan(2)), 1u);
  clock_.advance(micros(20));
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), &r[2]);
}

TEST_F(SimMmuTest, AFenceHoldsUpItsRequestAndNoOther) {
  build("size=1M,kind=dma");
  ASSERT_EQ(run(MmuOp::kMap, 0, 0), Errc::kOk);
  ASSERT_EQ(run(MmuOp::kMap, 1, 1), Errc::kOk);
  SimEvent event;
  std::array<MapEntry, 2> e{{{va(0), frame(0)}, {va(1), frame(1)}}};
  std::array<MmuRequest, 2> r;
  std::array<MmuRequest*, 2> list{&r[0], &r[1]};
  prepare(r[0], MmuOp::kUnmap, {&e[0], 1});
  r[0].fence = {Fence::Kind::kEvent, &event, nullptr};
  prepare(r[1], MmuOp::kUnmap, {&e[1], 1});
  ASSERT_EQ(mmu_->submit(list), 2u);
  EXPECT_EQ(queue_.pop(), &r[1]);
  clock_.advance(millis(1));
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), nullptr);
  EXPECT_EQ(touch(0, true), SimAccess::kDone) << "the engine is still at it";
  event.done = true;
  mmu_->poll();
  EXPECT_EQ(queue_.pop(), &r[0]);
  EXPECT_EQ(touch(0), SimAccess::kFault);
}

TEST_F(SimMmuTest, JitterChangesTheOrderByItsSeed) {
  std::vector<std::vector<size_t>> orders;
  for (const char* seed : {"1", "1", "2", "3", "4"}) {
    clock_ = SimClock();
    build(std::string("size=1M,async=1,jitter_us=90,seed=") + seed);
    std::array<MapEntry, 4> e;
    std::array<MmuRequest, 4> r;
    std::array<MmuRequest*, 4> list;
    for (uint32_t i = 0; i < 4; ++i) {
      e[i] = {va(i), frame(i)};
      prepare(r[i], MmuOp::kMap, {&e[i], 1});
      list[i] = &r[i];
    }
    ASSERT_EQ(mmu_->submit(list), 4u);
    clock_.advance(millis(1));
    mmu_->poll();
    std::vector<size_t> order;
    while (Request* done = queue_.pop()) {
      order.push_back(static_cast<size_t>(static_cast<MmuRequest*>(done) - r.data()));
    }
    ASSERT_EQ(order.size(), 4u);
    orders.push_back(order);
  }
  EXPECT_EQ(orders[0], orders[1]);
  EXPECT_TRUE(orders[0] != orders[2] || orders[0] != orders[3] || orders[0] != orders[4]);
}

// ------------------------------------------------------------------------------ fault injection

TEST_F(SimMmuTest, BusyFramesAndInjectedFailures) {
  build("size=1M");
  mmu_->make_busy(frame(0), 2);
  EXPECT_EQ(run(MmuOp::kMap, 0, 0), Errc::kBusy);
  EXPECT_EQ(run(MmuOp::kMap, 1, 1), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kMap, 0, 0), Errc::kBusy);
  EXPECT_EQ(run(MmuOp::kMap, 0, 0), Errc::kOk);
  EXPECT_EQ(mmu_->stats().busy_retries, 2u);
  mmu_->fail_entry(MmuOp::kUnmap, 2, Errc::kDeviceGone);
  EXPECT_EQ(run(MmuOp::kUnmap, 0, 0), Errc::kOk);
  EXPECT_EQ(run(MmuOp::kUnmap, 1, 1), Errc::kDeviceGone);
  EXPECT_EQ(touch(1), SimAccess::kDone) << "nothing moved";
  EXPECT_EQ(run(MmuOp::kUnmap, 1, 1), Errc::kOk);
}

// -------------------------------------------------------------------------------------- the guard

TEST_F(SimMmuTest, TheGuardSeesDevicesOnMappedFrames) {
  build("size=1M,strict=0");
  ASSERT_EQ(run(MmuOp::kMap, 0, 1), Errc::kOk);
  mmu_->on_device_access(bytes(0), Bytes(4096), true, "test");
  EXPECT_EQ(mmu_->violations(), 0u);
  mmu_->on_device_access(bytes(1) + 4095, Bytes(1), false, "test");
  EXPECT_EQ(mmu_->violations(), 1u);
  mmu_->on_device_access(bytes(0), Bytes(4 * 4096), false, "test");
  EXPECT_EQ(mmu_->violations(), 2u) << "the run touches it";
  build("size=1M,kind=dma,strict=0");
  ASSERT_EQ(run(MmuOp::kMap, 0, 1, Prot::kRead), Errc::kOk);
  mmu_->on_device_access(bytes(1), Bytes(4096), false, "test");
  EXPECT_EQ(mmu_->violations(), 0u) << "nobody can be writing it";
  mmu_->on_device_access(bytes(1), Bytes(4096), true, "test");
  EXPECT_EQ(mmu_->violations(), 1u);
  ASSERT_EQ(run(MmuOp::kProtect, 0, 1, Prot::kReadWrite), Errc::kOk);
  mmu_->on_device_access(bytes(1), Bytes(4096), false, "test");
  EXPECT_EQ(mmu_->violations(), 2u);
}

TEST_F(SimMmuTest, CopiesAndDataWorkAreGuarded) {
  build("size=1M,strict=0");
  ASSERT_EQ(run(MmuOp::kMap, 0, 1), Errc::kOk);
  CopyRequest copy;
  copy.queue = &queue_;
  copy.from = frame(0);
  copy.to = frame(2);
  copy.length = page_;
  CopyRequest* one = &copy;
  ASSERT_EQ(device_->copy()->submit({&one, 1}), 1u);
  ASSERT_EQ(queue_.pop(), &copy);
  EXPECT_EQ(mmu_->violations(), 0u);
  copy.from = frame(1);
  ASSERT_EQ(device_->copy()->submit({&one, 1}), 1u);
  EXPECT_EQ(queue_.pop(), &copy);
  EXPECT_EQ(mmu_->violations(), 1u);
  for (const DataOp op : {DataOp::kChecksum, DataOp::kZero, DataOp::kScrub, DataOp::kRebuild}) {
    const uint64_t before = mmu_->violations();
    std::array<uint64_t, 1> digest;
    DataRequest r;
    r.queue = &queue_;
    r.op = op;
    r.addr = frame(1);
    r.length = page_;
    r.digests = digest;
    DataRequest* data = &r;
    ASSERT_EQ(device_->data()->submit({&data, 1}), 1u);
    EXPECT_EQ(queue_.pop(), &r);
    EXPECT_EQ(mmu_->violations(), before + 1);
  }
}

TEST_F(SimMmuTest, BadCopiesAreRefused) {
  build("size=1M,async=1,copy_us=10,bytes_per_s=4096000000");
  const auto result = [&](FrameAddr from, FrameAddr to, Bytes length) {
    CopyRequest r;
    r.queue = &queue_;
    r.from = from;
    r.to = to;
    r.length = length;
    CopyRequest* one = &r;
    EXPECT_EQ(device_->copy()->submit({&one, 1}), 1u);
    EXPECT_TRUE(queue_.empty());
    EXPECT_TRUE(clock_.advance_to_alarm());
    device_->copy()->poll();
    EXPECT_EQ(queue_.pop(), &r);
    return r.result;
  };
  EXPECT_EQ(result(frame(0), frame(1), page_), Errc::kOk);
  EXPECT_EQ(clock_.now(), micros(11)) << "4096 bytes at 4.096 GB/s, and 10 us";
  EXPECT_EQ(0, std::memcmp(bytes(0), bytes(1), 4096));
  EXPECT_EQ(result(frame(0), frame(1), Bytes(0)), Errc::kInvalid);
  EXPECT_EQ(result(FrameAddr(0), frame(1), page_), Errc::kInvalid);
  EXPECT_EQ(result(frame(0), FrameAddr(0), page_), Errc::kInvalid);
  EXPECT_EQ(result(frame(0), frame(0) + Bytes(1), page_), Errc::kInvalid) << "overlapping";
}

using SimMmuDeathTest = SimMmuTest;

TEST_F(SimMmuDeathTest, StrictModeStopsTheRun) {
  build("size=1M");
  ASSERT_EQ(run(MmuOp::kMap, 0, 1), Errc::kOk);
  EXPECT_DEATH(mmu_->on_device_access(bytes(1), Bytes(4096), false, "disk"), "disk");
  EXPECT_DEATH(mmu_->release(range_), "nothing is mapped");
  EXPECT_DEATH(mmu_->destroy_frames(area_), "no frame of the area is mapped");
  EXPECT_DEATH(mmu_->release({VirtAddr(0), page_}), "reserved range");
}

// --------------------------------------------------------------------------------- set-up, limits

TEST_F(SimMmuTest, MemoryIsFinite) {
  build("size=64K");
  EXPECT_EQ(mmu_->create_frames(kib(4), 13, NodeId(0)).code(), Errc::kNoMemory);
  auto rest = mmu_->create_frames(kib(4), 12, NodeId(0));
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(mmu_->create_frames(kib(4), 1, NodeId(0)).code(), Errc::kNoMemory);
  mmu_->destroy_frames(area_);
  auto again = mmu_->create_frames(kib(8), 2, NodeId(0));
  ASSERT_TRUE(again.ok()) << "first fit";
  EXPECT_EQ(again->base, area_.base);
  EXPECT_EQ(mmu_->create_frames(kib(4), 1, NodeId(1)).code(), Errc::kInvalid) << "another node";
}

TEST_F(SimMmuTest, AddressesAreNeverGivenOutTwice) {
  build("size=1M");
  mmu_->release(range_);
  auto second = mmu_->reserve(page_ * 4, page_, page_);
  ASSERT_TRUE(second.ok());
  EXPECT_GE(second->start, range_.end());
  EXPECT_EQ(touch(0), SimAccess::kRange) << "an address of the released range";
  EXPECT_EQ(mmu_->reserve(Bytes(uint64_t{1} << 60), page_, page_).code(), Errc::kNoMemory);
}

TEST_F(SimMmuTest, BadOptionsAreRefused) {
  auto driver = make_sim_driver(clock_);
  EXPECT_TRUE(driver->probe(sim_info(DeviceClass::kMemory, "")));
  DeviceInfo other = sim_info(DeviceClass::kMemory, "");
  other.bus = "numa";
  EXPECT_FALSE(driver->probe(other));
  for (const char* options : {"size=0", "size=100", "granule=100", "granule=128", "granule=4M",
                              "kind=magic", "fixed=1", "kind=shareable,fixed=1,granule=1K",
                              "faults=2", "async=x", "depth=0", "bytes=1", "latency_us=-1"}) {
    EXPECT_EQ(driver->bind(sim_info(DeviceClass::kMemory, options), nullptr).code(), Errc::kInvalid)
        << options;
  }
  for (const char* options :
       {"", "size=0", "size=100", "size=1M,alignment=100", "size=1M,alignment=128",
        "size=1M,depth=0", "size=1M,bytes_per_s=0"}) {
    EXPECT_EQ(driver->bind(sim_info(DeviceClass::kBlock, options), nullptr).code(), Errc::kInvalid)
        << options;
  }
  auto below = bind_sim(clock_, DeviceClass::kBlock, "size=1M");
  EXPECT_EQ(driver->bind(sim_info(DeviceClass::kBlock, "size=1M"), std::move(below)).code(),
            Errc::kInvalid);
}

}  // namespace
}  // namespace kvmm
