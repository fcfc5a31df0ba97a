// SPDX-License-Identifier: Apache-2.0
//
// Huge frames: what keeps them whole, what splits them, how that is noticed, and the cure.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "drivers/host/uapi.h"
#include "tests/drivers/host/fake_kernel.h"
#include "tests/drivers/host/host_rig.h"
#include "tests/drivers/mmu_suite/mmu_suite.h"

namespace kvmm::test {
namespace {

constexpr Bytes kHuge = mib(2);

class Huge : public testing::Test {
 protected:
  void SetUp() override {
    if (!machine_has_huge_pages()) {
      GTEST_SKIP() << "transparent huge pages are switched off";
    }
    HostConfig config;
    config.calls = kernel_.calls();
    mmu_ = make_mmu<HostMoveMmu>(config);
    ASSERT_NE(mmu_, nullptr);
    data_ = std::make_unique<HostData>(mmu_.get());
    range_ = *mmu_->reserve(kHuge * 2, kHuge, kHuge);
    area_ = *mmu_->create_frames(kHuge, 2, NodeId(0));
  }
  bool frame_is_huge(uint32_t i) {
    const Result<Pagemap> map = Pagemap::open(real_system_calls());
    return map.ok() && map->is_huge(area_.frame(i).value());
  }
  Errc op(MmuOp what, bool* split = nullptr) {
    MapEntry e{range_.start, area_.base};
    const Errc result = run_one(*mmu_, what, e, kHuge);
    if (split != nullptr) {
      *split = e.split;
    }
    return result;
  }
  Errc small(MmuOp what, FrameAddr frame, VirtAddr va) {
    return run_one(*mmu_, what, va, frame, kib(4));
  }
  Errc rebuild(FrameAddr frame, Bytes length = kHuge) {
    CompletionQueue queue;
    DataRequest r;
    r.queue = &queue;
    r.op = DataOp::kRebuild;
    r.addr = frame;
    r.length = length;
    DataRequest* const list[] = {&r};
    EXPECT_EQ(data_->submit(list), 1U);
    EXPECT_EQ(queue.pop(), &r);
    return r.result;
  }
  // Moves one small page out of the frame and back: that splits it.
  void split_frame() {
    ASSERT_EQ(small(MmuOp::kMap, area_.base, range_.start + kHuge), Errc::kOk);
    ASSERT_EQ(small(MmuOp::kUnmap, area_.base, range_.start + kHuge), Errc::kOk);
    ASSERT_FALSE(frame_is_huge(0));
  }

  FakeKernel kernel_;
  std::unique_ptr<HostMoveMmu> mmu_;
  std::unique_ptr<HostData> data_;
  AddressRange range_;
  FrameArea area_;
};

TEST_F(Huge, FramesStayHugeThroughManyMoves) {
  ASSERT_TRUE(frame_is_huge(0));
  for (int i = 0; i < 50; ++i) {
    bool split = true;
    ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
    ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
    ASSERT_FALSE(split) << "round " << i;
  }
  EXPECT_TRUE(frame_is_huge(0));
  EXPECT_EQ(mmu_->stats().frames_split, 0U);
}

TEST_F(Huge, AddressesThatHeldSmallPagesTakeHugeOnesWhole) {
  const FrameArea smalls = *mmu_->create_frames(kib(4), 8, NodeId(0));
  for (uint32_t i = 0; i < 8; ++i) {
    ASSERT_EQ(small(MmuOp::kMap, smalls.frame(i), range_.start + kib(256) * i), Errc::kOk);
  }
  EXPECT_EQ(op(MmuOp::kMap), Errc::kExists) << "small pages are in the way";
  EXPECT_TRUE(frame_is_huge(0)) << "and the refusal cost nothing";
  for (uint32_t i = 0; i < 8; ++i) {
    ASSERT_EQ(small(MmuOp::kUnmap, smalls.frame(i), range_.start + kib(256) * i), Errc::kOk);
  }
  bool split = true;
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
  EXPECT_FALSE(split);
  ASSERT_EQ(small(MmuOp::kPoison, FrameAddr(0), range_.start + kib(8)), Errc::kOk);
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
  EXPECT_FALSE(split) << "after poison";
  EXPECT_EQ(mmu_->stats().frames_split, 0U);
}

TEST_F(Huge, SplitFrameIsCountedReportedAndRebuilt) {
  split_frame();
  memcpy(at<void>(area_.base), pattern(kHuge, 5).data(), kHuge.value());
  bool split = false;
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_EQ(memcmp(at<void>(range_.start), pattern(kHuge, 5).data(), kHuge.value()), 0);
  ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
  EXPECT_TRUE(split);
  EXPECT_EQ(mmu_->stats().frames_split, 1U);
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
  EXPECT_TRUE(split);
  EXPECT_EQ(mmu_->stats().frames_split, 1U) << "one frame, once";

  ASSERT_EQ(rebuild(area_.base), Errc::kOk);
  EXPECT_TRUE(frame_is_huge(0));
  EXPECT_EQ(memcmp(at<void>(area_.base), std::vector<char>(kHuge.value()).data(), kHuge.value()), 0)
      << "zeros";
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(op(MmuOp::kUnmap, &split), Errc::kOk);
  EXPECT_FALSE(split);
  EXPECT_EQ(mmu_->stats().frames_split, 1U);
  EXPECT_TRUE(smaps_flag(area_.base.value(), "dc"));
}

TEST_F(Huge, MoveThatFailsAndSplitsIsNoticed) {
  // Small pages one by one, then busy for ever: the way a failed move costs a frame.
  kernel_.on_ioctl = [&](int fd, unsigned long request, void* argument) -> std::optional<int> {
    auto* m = static_cast<uapi::UffdMove*>(argument);
    if (request != uapi::kUffdMove || !range_.contains(VirtAddr(m->dst))) {
      return {};
    }
    if (m->dst != range_.start.value()) {
      errno = EBUSY;
      return -1;
    }
    uapi::UffdMove part = *m;
    part.len = 4096;
    EXPECT_EQ(real_system_calls().ioctl(fd, request, &part), 0);
    m->move = 4096;
    errno = EAGAIN;
    return -1;
  };
  memcpy(at<void>(area_.base), pattern(kHuge, 6).data(), kHuge.value());
  bool split = false;
  EXPECT_EQ(op(MmuOp::kMap, &split), Errc::kBusy);
  EXPECT_TRUE(split);
  EXPECT_EQ(mmu_->stats().frames_split, 1U);
  EXPECT_EQ(memcmp(at<void>(area_.base), pattern(kHuge, 6).data(), kHuge.value()), 0);
}

TEST_F(Huge, RebuildRefusesWhatIsNoFrame) {
  EXPECT_EQ(rebuild(area_.base + kib(4)), Errc::kInvalid);
  EXPECT_EQ(rebuild(area_.frame(2)), Errc::kInvalid) << "behind the area";
  EXPECT_EQ(rebuild(area_.base, kib(64)), Errc::kInvalid);
  std::vector<char> foreign(4096, 'x');
  EXPECT_EQ(rebuild(FrameAddr(reinterpret_cast<uint64_t>(foreign.data()))), Errc::kInvalid);
  HostData plain(nullptr);
  CompletionQueue queue;
  DataRequest r;
  r.queue = &queue;
  r.op = DataOp::kRebuild;
  r.addr = area_.base;
  r.length = kHuge;
  DataRequest* const list[] = {&r};
  plain.submit(list);
  EXPECT_EQ(r.result, Errc::kNotSupported);
  r.length = Bytes(0);
  plain.submit(list);
  EXPECT_EQ(r.result, Errc::kInvalid);
}

TEST_F(Huge, RebuildThatFailsLeavesTheFrameAsItWas) {
  split_frame();
  const std::vector<std::byte> bytes = pattern(kHuge, 7);
  memcpy(at<void>(area_.base), bytes.data(), kHuge.value());
  const Holdings before = Holdings::now();
  for (const int refused : {MADV_HUGEPAGE, MADV_DONTFORK, MADV_POPULATE_WRITE, MADV_DONTNEED}) {
    kernel_.on_madvise = [refused](uint64_t, size_t, int advice) -> std::optional<int> {
      if (advice != refused) {
        return {};
      }
      errno = ENOMEM;
      return -1;
    };
    EXPECT_EQ(rebuild(area_.base), Errc::kNoMemory) << refused;
    EXPECT_EQ(memcmp(at<void>(area_.base), bytes.data(), kHuge.value()), 0);
  }
  // No huge page to be had: the fresh memory is made of small ones.
  kernel_.on_madvise = [](uint64_t, size_t, int advice) -> std::optional<int> {
    return advice == MADV_HUGEPAGE ? std::optional<int>(0) : std::nullopt;
  };
  EXPECT_EQ(rebuild(area_.base), Errc::kNoMemory);
  kernel_.on_madvise = nullptr;
  kernel_.on_mmap = [](size_t, int) -> std::optional<void*> {
    errno = ENOMEM;
    return MAP_FAILED;
  };
  EXPECT_EQ(rebuild(area_.base), Errc::kNoMemory);
  kernel_.on_mmap = nullptr;
  EXPECT_EQ(memcmp(at<void>(area_.base), bytes.data(), kHuge.value()), 0);
  EXPECT_EQ(Holdings::now(), before);
  EXPECT_EQ(rebuild(area_.base), Errc::kOk);
}

TEST_F(Huge, WorkersRebuildAndChecksumBesideMoves) {
  // Frame 0 is mapped and unmapped here, frame 1 is a worker's.
  std::atomic<bool> stop{false};
  std::atomic<int> rebuilt{0};
  std::thread worker([&] {
    std::vector<uint64_t> digests(32), zeros;
    while (!stop || rebuilt < 3) {
      memset(at<void>(area_.frame(1)), 0x5A, kHuge.value());
      ASSERT_EQ(rebuild(area_.frame(1)), Errc::kOk);
      CompletionQueue queue;
      DataRequest r;
      r.queue = &queue;
      r.addr = area_.frame(1);
      r.length = kHuge;
      r.digests = digests;
      DataRequest* const list[] = {&r};
      ASSERT_EQ(data_->submit(list), 1U);
      ASSERT_EQ(r.result, Errc::kOk);
      zeros = zeros.empty() ? digests : zeros;
      ASSERT_EQ(digests, zeros) << "always zeros after a rebuild";
      ++rebuilt;
    }
  });
  for (int i = 0; i < 2000; ++i) {
    *at<int>(area_.base) = i;
    ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
    ASSERT_EQ(*at<int>(range_.start), i);
    ASSERT_EQ(op(MmuOp::kUnmap), Errc::kOk);
    ASSERT_EQ(*at<int>(area_.base), i);
  }
  stop = true;
  worker.join();
  EXPECT_EQ(mmu_->stats().frames_split, 0U);
}

// Whether the 16 pages of a 64 KiB page are one run of physical memory; needs root.
bool is_one_run(const std::vector<uint64_t>& pfns) {
  for (size_t i = 0; i < pfns.size(); ++i) {
    if (pfns[i] == 0 || pfns[i] != pfns[0] + i) {
      return false;
    }
  }
  return true;
}

// Physical page numbers behind [start, start + 64 KiB); zeros where there is none, or no right.
std::vector<uint64_t> pfns_of(VirtAddr start) {
  std::vector<uint64_t> entries(16);
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  const ssize_t n = pread(fd, entries.data(), entries.size() * sizeof(uint64_t),
                          static_cast<off_t>(start.value() / 4096 * sizeof(uint64_t)));
  close(fd);
  EXPECT_EQ(n, static_cast<ssize_t>(entries.size() * sizeof(uint64_t)));
  for (uint64_t& e : entries) {
    e = (e >> 63) != 0 ? e & ((uint64_t{1} << 55) - 1) : 0;
  }
  return entries;
}

TEST_F(Huge, SmallFramesOfACarvedOneStayRunsOfPhysicalMemory) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "physical page numbers are root's to see";
  }
  constexpr Bytes kSmall = kib(64);
  EXPECT_FALSE(mmu_->carve(area_.base)) << "its bytes are undefined afterwards";
  EXPECT_FALSE(frame_is_huge(0));
  EXPECT_TRUE(frame_is_huge(1));
  const auto before = mmu_->stats().frames_split;
  for (uint64_t i = 0; i < kHuge / kSmall; ++i) {
    const FrameAddr frame = area_.base + kSmall * i;
    const VirtAddr va = range_.start + kSmall * i;
    std::memset(at<char>(frame), 0, kSmall.value());  // a page that was never written
    ASSERT_EQ(run_one(*mmu_, MmuOp::kMap, va, frame, kSmall), Errc::kOk);
    const std::vector<uint64_t> mapped = pfns_of(va);
    EXPECT_TRUE(is_one_run(mapped)) << "page " << i;
    std::memset(at<char>(va), 1, kSmall.value());
    EXPECT_EQ(pfns_of(va), mapped) << "the first write took other memory, page " << i;
    ASSERT_EQ(run_one(*mmu_, MmuOp::kUnmap, va, frame, kSmall), Errc::kOk);
  }
  EXPECT_EQ(mmu_->stats().frames_split, before) << "carved on purpose is not lost";
  EXPECT_TRUE(mmu_->carve(area_.base)) << "in small pieces already: nothing is written";
  EXPECT_EQ(*at<char>(area_.base), 1);
}

}  // namespace
}  // namespace kvmm::test
