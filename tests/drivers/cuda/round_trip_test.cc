// SPDX-License-Identifier: Apache-2.0
//
// One 2 MiB page all the way: HBM -> DRAM -> NVMe -> DRAM -> HBM, at one address.
//
//   engine's kernel writes va | fence, unmap | digest | copy out | write | scrub both
//   read | digest | copy in to another frame | digest | map at va | engine's kernel reads va
//
// At every stop the page's checksum, identity included, is the expected one. The GPU is the libcuda
// double; the disk is a real file through the uring driver.
#include <poll.h>

#include <cstdlib>

#include "drivers/uring/uring_driver.h"
#include "tests/drivers/cuda/rig.h"
#include "vmm/identity.h"

namespace kvmm::cuda {
namespace {

constexpr PageIdentity kIdentity{0x1111, 0x2222, 0x3333, 0x4444, 5, 6};
constexpr uint32_t kPieces = piece_count(kPage);

class RoundTrip : public testing::Test {
 protected:
  void SetUp() override {
    DeviceInfo info;
    info.name = "swap0";
    info.cls = DeviceClass::kBlock;
    info.bus = "file";
    info.path = path_;
    info.options = "size=8M,depth=4";
    Result<std::unique_ptr<Device>> bound = make_uring_driver()->bind(info, nullptr);
    const Errc code = bound.code();
    if ((code == Errc::kNotSupported || code == Errc::kPermission) && getenv("CI") == nullptr) {
      GTEST_SKIP() << "no io_uring or no direct I/O here: " << bound.error().message();
    }
    ASSERT_TRUE(bound) << bound.error().message();
    disk_ = *std::move(bound);
    range_ = *rig_.mmu().reserve(mib(16), kPage, kPage);
    frames_ = *rig_.mmu().create_frames(kPage, 2, NodeId(0));
    host_ = *rig_.device->host_frames().create(kPage, 2);
  }
  void TearDown() override {
    if (disk_ != nullptr) {
      rig_.device->host_frames().destroy(host_);
      rig_.mmu().release(range_);
      rig_.mmu().destroy_frames(frames_);
      disk_.reset();
      unlink(path_.c_str());
    }
  }

  // Through the device's DataOps, from HBM.
  uint64_t gpu_checksum(FrameAddr frame, const PageIdentity& id = kIdentity) {
    std::array<uint64_t, kPieces> digests{};
    DataRequest d;
    d.addr = frame;
    d.length = kPage;
    d.digests = digests;
    EXPECT_EQ(rig_.run(rig_.data(), d), Errc::kOk);
    return page_checksum(digests, id);
  }
  static uint64_t host_checksum(uint64_t addr) {
    std::array<uint64_t, kPieces> digests{};
    for (uint32_t i = 0; i < kPieces; ++i) {
      digests[i] = piece_digest({bytes_at(addr) + i * kPieceSize.value(), kPieceSize.value()});
    }
    return page_checksum(digests, kIdentity);
  }
  Errc disk(BlockOp op, FrameAddr memory, uint64_t offset) {
    CompletionQueue cq;
    BlockRequest r;
    r.queue = &cq;
    r.op = op;
    r.data = op == BlockOp::kFlush ? nullptr : bytes_at(memory.value());
    r.offset = offset;
    r.length = op == BlockOp::kFlush ? Bytes(0) : kPage;
    std::array<BlockRequest*, 1> one{&r};
    EXPECT_EQ(disk_->block()->submit(one), 1U);
    disk_->block()->poll();
    while (cq.empty()) {
      pollfd p{disk_->block()->event_fd(), POLLIN, 0};
      if (::poll(&p, 1, 30'000) <= 0) {
        ADD_FAILURE() << "the disk does not answer";
        break;
      }
      disk_->block()->poll();
    }
    return cq.pop() == &r ? r.result : Errc::kAgain;
  }
  Errc scrub(FrameAddr frame) {
    DataRequest d;
    d.op = DataOp::kScrub;
    d.addr = frame;
    d.length = kPage;
    return rig_.run(rig_.data(), d);
  }
  // The engine's kernel: in stream order on the engine's stream, then the event.
  void launch(void (*kernel)(void*), void* argument) {
    ASSERT_EQ(rig_.controls.launch(rig_.engine_stream(), kernel, argument), 0);
    ASSERT_EQ(rig_.api.event_record(rig_.engine_event(), rig_.engine_stream()), CuResult::kSuccess);
  }

  const std::string path_ = "cuda_round_trip." + std::to_string(getpid()) + ".swap";
  Rig rig_;
  std::unique_ptr<Device> disk_;
  AddressRange range_;
  FrameArea frames_;
  FrameArea host_;
};

struct EngineKernel {
  uint64_t va;
  uint64_t checksum = 0;
  static void write(void* p) {
    fill_pattern(bytes_at(static_cast<EngineKernel*>(p)->va), kPage.value(), 99);
  }
};

TEST_F(RoundTrip, OnePageOutAndBackAtItsAddress) {
  const VirtAddr va = range_.start + kPage * 3;
  std::vector<std::byte> reference(kPage.value());
  fill_pattern(reference.data(), kPage.value(), 99);
  const uint64_t expected = host_checksum(reinterpret_cast<uint64_t>(reference.data()));

  // In HBM, mapped; the engine's kernel is queued, not run.
  ASSERT_EQ(rig_.map(va, frames_.frame(0)), Errc::kOk);
  EngineKernel kernel{va.value()};
  launch(&EngineKernel::write, &kernel);

  // Out: the unmap waits for the engine's event.
  CompletionQueue cq;
  std::array<MapEntry, 1> e{MapEntry{.va = va, .frame = frames_.frame(0)}};
  MmuRequest unmap;
  unmap.queue = &cq;
  unmap.op = MmuOp::kUnmap;
  unmap.page_size = kPage;
  unmap.entries = e;
  unmap.fence = {Fence::Kind::kEvent, rig_.engine_event(), nullptr};
  std::array<MmuRequest*, 1> one{&unmap};
  ASSERT_EQ(rig_.mmu().submit(one), 1U);
  rig_.poll();
  ASSERT_EQ(cq.pop(), nullptr) << "unmapped before the engine's kernel was over";
  ASSERT_EQ(rig_.settle(cq), &unmap);
  ASSERT_EQ(unmap.result, Errc::kOk);

  // HBM, unmapped, by the direct map.
  EXPECT_EQ(gpu_checksum(frames_.frame(0)), expected);
  PageIdentity older = kIdentity;
  --older.generation;
  EXPECT_NE(gpu_checksum(frames_.frame(0), older), expected) << "another generation is not it";
  // HBM -> DRAM.
  ASSERT_EQ(rig_.copy_now(host_.frame(0), frames_.frame(0)), Errc::kOk);
  EXPECT_EQ(host_checksum(host_.frame(0).value()), expected);
  // DRAM -> disk; then nothing of it is left in memory.
  ASSERT_EQ(disk(BlockOp::kWrite, host_.frame(0), 4 * kMiB), Errc::kOk);
  ASSERT_EQ(disk(BlockOp::kFlush, FrameAddr(0), 0), Errc::kOk);
  ASSERT_EQ(scrub(frames_.frame(0)), Errc::kOk);
  std::memset(bytes_at(host_.frame(0).value()), 0, kPage.value());
  EXPECT_NE(gpu_checksum(frames_.frame(0)), expected);
  EXPECT_NE(host_checksum(host_.frame(0).value()), expected);
  // Disk -> DRAM.
  ASSERT_EQ(disk(BlockOp::kRead, host_.frame(1), 4 * kMiB), Errc::kOk);
  EXPECT_EQ(host_checksum(host_.frame(1).value()), expected);
  // DRAM -> HBM, another frame.
  ASSERT_EQ(rig_.copy_now(frames_.frame(1), host_.frame(1)), Errc::kOk);
  EXPECT_EQ(gpu_checksum(frames_.frame(1)), expected);
  // Mapped where it was; the engine's kernel reads it there.
  ASSERT_EQ(rig_.map(va, frames_.frame(1), Prot::kRead), Errc::kOk);
  launch(
      [](void* p) {
        EngineKernel& k = *static_cast<EngineKernel*>(p);
        k.checksum = host_checksum(k.va);
      },
      &kernel);
  ASSERT_EQ(rig_.controls.step(2), 2U);
  EXPECT_EQ(kernel.checksum, expected);
  ASSERT_EQ(rig_.unmap(va, frames_.frame(1)), Errc::kOk);
}

// The control: the same way out without the fence certifies bytes that the kernel then changes.
TEST_F(RoundTrip, WithoutTheFenceTheChecksumDiffers) {
  const VirtAddr va = range_.start;
  std::vector<std::byte> reference(kPage.value());
  fill_pattern(reference.data(), kPage.value(), 99);
  const uint64_t expected = host_checksum(reinterpret_cast<uint64_t>(reference.data()));
  ASSERT_EQ(rig_.map(va, frames_.frame(0)), Errc::kOk);
  EngineKernel kernel{va.value()};
  launch(&EngineKernel::write, &kernel);
  // Only our stream moves: the copy overtakes the kernel.
  CompletionQueue cq;
  CopyRequest r;
  r.queue = &cq;
  r.from = frames_.frame(0);
  r.to = host_.frame(0);
  r.length = kPage;
  std::array<CopyRequest*, 1> one{&r};
  rig_.copy().submit(one);
  size_t kernels = 0;
  while (rig_.copy().poll(), cq.empty() && kernels < 4) {
    kernels += rig_.controls.step(1);
  }
  EXPECT_EQ(cq.pop(), &r);
  const bool overtaken = host_checksum(host_.frame(0).value()) != expected;
  rig_.controls.step(100);
  EXPECT_EQ(gpu_checksum(frames_.frame(0)), expected);
  EXPECT_TRUE(overtaken);
  ASSERT_EQ(rig_.unmap(va, frames_.frame(0)), Errc::kOk);
}

}  // namespace
}  // namespace kvmm::cuda
