// SPDX-License-Identifier: Apache-2.0
//
// Movable frames when moves are short, busy, blocked by markers, or fail on the way back.
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "drivers/host/uapi.h"
#include "tests/drivers/host/fake_kernel.h"
#include "tests/drivers/host/host_rig.h"
#include "tests/drivers/mmu_suite/mmu_suite.h"

namespace kvmm::test {
namespace {

constexpr Bytes kSize = kib(64);
constexpr uint32_t kRetries = 20;

class Move : public testing::Test {
 protected:
  void SetUp() override {
    config_.calls = kernel_.calls();
    config_.busy_retries = kRetries;
    mmu_ = make_mmu<HostMoveMmu>(config_);
    ASSERT_NE(mmu_, nullptr);
    range_ = *mmu_->reserve(kSize, kSize, kSize);
    area_ = *mmu_->create_frames(kSize, 1, NodeId(0));
    fill(1);
  }
  void fill(uint64_t seed) {
    memcpy(at<void>(area_.base), pattern(kSize, seed).data(), kSize.value());
  }
  bool frame_has(uint64_t seed) {
    return memcmp(at<void>(area_.base), pattern(kSize, seed).data(), kSize.value()) == 0;
  }
  bool page_has(uint64_t seed) {
    return memcmp(at<void>(range_.start), pattern(kSize, seed).data(), kSize.value()) == 0;
  }
  Errc op(MmuOp what) { return run_one(*mmu_, what, range_.start, area_.base, kSize); }
  // Nothing at all is mapped in the range, by the kernel's own account.
  bool range_is_empty() {
    const Result<Pagemap> map = Pagemap::open(real_system_calls());
    return map.ok() && !map->any_present(range_.start.value(), kSize.value());
  }
  bool to_range(const uapi::UffdMove& m) const { return range_.contains(VirtAddr(m.dst)); }

  // Answers MOVE requests by `hook`, which says how many bytes the kernel may move and what error
  // follows if that is less than asked; others go to the kernel.
  struct Answer {
    uint64_t bytes;
    int os_error;
  };
  void on_move(std::function<Answer(const uapi::UffdMove&)> hook) {
    kernel_.on_ioctl = [hook = std::move(hook)](int fd, unsigned long request,
                                                void* argument) -> std::optional<int> {
      if (request != uapi::kUffdMove) {
        return {};
      }
      auto* m = static_cast<uapi::UffdMove*>(argument);
      const Answer a = hook(*m);
      if (a.bytes >= m->len) {
        return {};
      }
      if (a.bytes == 0) {
        m->move = -a.os_error;
        errno = a.os_error;
        return -1;
      }
      uapi::UffdMove part = *m;
      part.len = a.bytes;
      EXPECT_EQ(real_system_calls().ioctl(fd, uapi::kUffdMove, &part), 0);
      m->move = static_cast<int64_t>(a.bytes);
      errno = EAGAIN;  // how the kernel says "short"
      return -1;
    };
  }

  FakeKernel kernel_;
  HostConfig config_;
  std::unique_ptr<HostMoveMmu> mmu_;
  AddressRange range_;
  FrameArea area_;
};

TEST_F(Move, ShortMovesGoOnWhereTheyStopped) {
  int calls = 0;
  on_move([&](const uapi::UffdMove&) {
    ++calls;
    return Answer{4096, 0};
  });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_EQ(calls, 16);
  EXPECT_TRUE(page_has(1));
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kOk);
  EXPECT_EQ(calls, 32);
  EXPECT_TRUE(frame_has(1));
  EXPECT_EQ(mmu_->stats().busy_retries, 0U) << "progress is no retry";
}

TEST_F(Move, BusyForAMomentIsRetriedAndCounted) {
  int left = 7;
  on_move([&](const uapi::UffdMove&) {
    return left-- > 0 ? Answer{0, left % 2 == 0 ? EBUSY : EAGAIN} : Answer{UINT64_MAX, 0};
  });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_TRUE(page_has(1));
  EXPECT_EQ(mmu_->stats().busy_retries, 7U);
}

TEST_F(Move, BusyForGoodIsBoundedAndMovesNothing) {
  uint32_t calls = 0;
  on_move([&](const uapi::UffdMove&) {
    ++calls;
    return Answer{0, EBUSY};
  });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kBusy);
  EXPECT_EQ(calls, kRetries + 1);
  EXPECT_TRUE(frame_has(1));
  EXPECT_TRUE(range_is_empty());
  kernel_.on_ioctl = nullptr;
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk) << "it can be tried again";
  EXPECT_TRUE(page_has(1));
}

TEST_F(Move, BusyHalfWayIsUndone) {
  on_move([&](const uapi::UffdMove& m) {
    if (!to_range(m)) {
      return Answer{4096 * 3, 0};  // the way back is short, too
    }
    const uint64_t half = range_.start.value() + kSize.value() / 2;
    return m.dst < half ? Answer{half - m.dst, 0} : Answer{0, EBUSY};
  });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kBusy);
  EXPECT_TRUE(range_is_empty());
  EXPECT_TRUE(frame_has(1));
  kernel_.on_ioctl = nullptr;
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  // The same on the way out: the page stays mapped, whole.
  on_move([&](const uapi::UffdMove& m) {
    const uint64_t half = area_.base.value() + kSize.value() / 2;
    if (to_range(m)) {
      return Answer{UINT64_MAX, 0};
    }
    return m.dst < half ? Answer{half - m.dst, 0} : Answer{0, EBUSY};
  });
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kBusy);
  EXPECT_TRUE(page_has(1));
  kernel_.on_ioctl = nullptr;
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kOk);
  EXPECT_TRUE(frame_has(1));
}

TEST_F(Move, FailedWayBackIsAnErrorAndTheBookStaysExact) {
  const uint64_t half = range_.start.value() + kSize.value() / 2;
  on_move([&](const uapi::UffdMove& m) {
    if (to_range(m) && m.dst < half) {
      return Answer{half - m.dst, 0};
    }
    return Answer{0, to_range(m) ? EBUSY : EIO};
  });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kIo);
  kernel_.on_ioctl = nullptr;
  EXPECT_EQ(op(MmuOp::kMap), Errc::kExists) << "half of it is there";
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kNotFound) << "half of it is not";
  // Small page by small page, the book knows which.
  for (uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(
        run_one(*mmu_, MmuOp::kUnmap, range_.start + kib(4) * i, area_.base + kib(4) * i, kib(4)),
        i < 8 ? Errc::kOk : Errc::kNotFound);
  }
  EXPECT_TRUE(frame_has(1));
  mmu_->release(range_);
  mmu_->destroy_frames(area_);
}

TEST_F(Move, FrameSharedWithAChildStaysBusyUntilTheChildIsGone) {
  ASSERT_EQ(madvise(at<void>(area_.base), kSize.value(), MADV_DOFORK), 0);
  std::array<int, 2> go;
  ASSERT_EQ(pipe(go.data()), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    char c = 0;
    close(go[1]);
    _exit(read(go[0], &c, 1) == 0 ? 0 : 1);
  }
  EXPECT_EQ(op(MmuOp::kMap), Errc::kBusy);
  EXPECT_EQ(mmu_->stats().busy_retries, kRetries + 1);
  EXPECT_TRUE(frame_has(1));
  EXPECT_TRUE(range_is_empty());
  close(go[0]);
  close(go[1]);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  fill(2);  // a write makes the frame ours alone again
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_TRUE(page_has(2));
}

TEST_F(Move, MarkerInTheWayIsClearedOnce) {
  uapi::UffdPoison p{};
  p.range = {range_.start.value() + 8192, 4096};
  ASSERT_EQ(ioctl(mmu_->fault_fd(), uapi::kUffdPoison, &p), 0) << "behind the driver's back";
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_TRUE(page_has(1));
}

TEST_F(Move, MarkerThatComesBackIsAnError) {
  on_move([](const uapi::UffdMove&) { return Answer{0, EEXIST}; });
  EXPECT_EQ(op(MmuOp::kMap), Errc::kExists);
  EXPECT_TRUE(frame_has(1));
}

TEST_F(Move, ForeignPageInTheWayIsKept) {
  const std::vector<std::byte> foreign = pattern(kib(4), 99);
  uffdio_copy c{};
  c.dst = range_.start.value() + 8 * 4096;
  c.src = reinterpret_cast<uint64_t>(foreign.data());
  c.len = 4096;
  ASSERT_EQ(ioctl(mmu_->fault_fd(), UFFDIO_COPY, &c), 0);
  EXPECT_EQ(op(MmuOp::kMap), Errc::kExists);
  EXPECT_TRUE(frame_has(1)) << "moved back";
  EXPECT_EQ(memcmp(at<void>(range_.start, 8 * 4096), foreign.data(), 4096), 0);
}

TEST_F(Move, WhatTheEngineDroppedComesBackAsZeros) {
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(madvise(at<void>(range_.start, 4096), 4096, MADV_DONTNEED), 0);
  ASSERT_EQ(op(MmuOp::kUnmap), Errc::kOk);
  std::vector<std::byte> expected = pattern(kSize, 1);
  std::fill_n(expected.begin() + 4096, 4096, std::byte{0});
  EXPECT_EQ(memcmp(at<void>(area_.base), expected.data(), expected.size()), 0);
}

TEST_F(Move, PageWithoutMemoryForItsHolesIsBusy) {
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(madvise(at<void>(range_.start, 4096), 4096, MADV_DONTNEED), 0);
  kernel_.on_ioctl = [](int, unsigned long request, void*) -> std::optional<int> {
    if (request != UFFDIO_COPY) {
      return {};
    }
    errno = ENOMEM;
    return -1;
  };
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kBusy);
  EXPECT_EQ(*at<std::byte>(range_.start), pattern(kSize, 1)[0]) << "moved back";
}

TEST_F(Move, PageWhoseAddressesAreGoneIsAnError) {
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  ASSERT_EQ(munmap(at<void>(range_.start, 4096), 4096), 0);
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kInvalid);
  EXPECT_EQ(*at<std::byte>(range_.start), pattern(kSize, 1)[0]) << "moved back";
}

TEST_F(Move, FramesOutsideEveryAreaAreRefused) {
  EXPECT_EQ(run_one(*mmu_, MmuOp::kMap, range_.start, area_.base + kSize, kSize), Errc::kRange);
  EXPECT_EQ(run_one(*mmu_, MmuOp::kUnmap, range_.start, FrameAddr(0), kSize), Errc::kRange);
  EXPECT_EQ(run_one(*mmu_, MmuOp::kMap, range_.start, area_.base + kib(4), kib(8)), Errc::kInvalid)
      << "not at a multiple of its size";
}

TEST_F(Move, UnmapIntoAnOccupiedFrameIsRefused) {
  const FrameArea other = *mmu_->create_frames(kSize, 1, NodeId(0));
  ASSERT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_EQ(run_one(*mmu_, MmuOp::kUnmap, range_.start, other.base, kSize), Errc::kExists);
  EXPECT_EQ(run_one(*mmu_, MmuOp::kMap, range_.start, area_.base, kSize), Errc::kExists);
  EXPECT_TRUE(page_has(1));
  EXPECT_EQ(op(MmuOp::kUnmap), Errc::kOk);
}

TEST_F(Move, PoisonThatFailsLeavesNoHalf) {
  kernel_.on_ioctl = [n = 0](int fd, unsigned long request,
                             void* argument) mutable -> std::optional<int> {
    if (request != uapi::kUffdPoison) {
      return {};
    }
    if (++n > 1) {
      errno = n < 4 ? EAGAIN : ENOMEM;
      return -1;
    }
    auto* p = static_cast<uapi::UffdPoison*>(argument);
    uapi::UffdPoison part = *p;
    part.range.len = 4096;
    EXPECT_EQ(real_system_calls().ioctl(fd, uapi::kUffdPoison, &part), 0);
    p->updated = 4096;
    errno = EAGAIN;
    return -1;
  };
  EXPECT_EQ(op(MmuOp::kPoison), Errc::kNoMemory);
  EXPECT_EQ(mmu_->stats().busy_retries, 2U);
  kernel_.on_ioctl = nullptr;
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
  EXPECT_TRUE(page_has(1));
}

TEST_F(Move, ClearAndMapReportWhatTheKernelRefuses) {
  ASSERT_EQ(op(MmuOp::kPoison), Errc::kOk);
  kernel_.on_madvise = [](uint64_t, size_t, int advice) -> std::optional<int> {
    if (advice != MADV_DONTNEED) {
      return {};
    }
    errno = EINVAL;
    return -1;
  };
  for (const MmuOp what : {MmuOp::kClear, MmuOp::kMap, MmuOp::kPoison}) {
    EXPECT_EQ(op(what), Errc::kInvalid);
  }
  kernel_.on_madvise = nullptr;
  EXPECT_EQ(op(MmuOp::kMap), Errc::kOk);
}

TEST_F(Move, FenceOfAnotherDeviceIsRefused) {
  CompletionQueue queue;
  MapEntry e{range_.start, area_.base};
  MmuRequest r;
  r.queue = &queue;
  r.page_size = kSize;
  r.fence.kind = Fence::Kind::kEvent;
  r.entries = std::span<MapEntry>(&e, 1);
  MmuRequest* const list[] = {&r};
  EXPECT_EQ(mmu_->submit(list), 1U);
  EXPECT_EQ(queue.pop(), &r);
  EXPECT_EQ(r.result, Errc::kInvalid);
  EXPECT_EQ(e.result, Errc::kInvalid);
  EXPECT_TRUE(frame_has(1));
}

TEST_F(Move, FencedRequestsFinishOneByOne) {
  // Two that wait; the second is done first.
  const FrameArea other = *mmu_->create_frames(kSize, 1, NodeId(0));
  const AddressRange range = *mmu_->reserve(kSize, kSize, kSize);
  std::array<bool, 2> done{};
  std::array<MapEntry, 2> entries{{{range_.start, area_.base}, {range.start, other.base}}};
  std::array<MmuRequest, 2> requests;
  CompletionQueue queue;
  for (size_t i = 0; i < 2; ++i) {
    requests[i].queue = &queue;
    requests[i].page_size = kSize;
    requests[i].entries = std::span(&entries[i], 1);
    requests[i].fence = {Fence::Kind::kCallback, &done[i],
                         [](void* h) { return *static_cast<bool*>(h) ? 1 : 0; }};
  }
  MmuRequest* const list[] = {&requests[0], &requests[1]};
  EXPECT_EQ(mmu_->submit(list), 2U);
  done[1] = true;
  mmu_->poll();
  EXPECT_EQ(queue.pop(), &requests[1]);
  EXPECT_EQ(queue.pop(), nullptr);
  // The list's tail was taken out: what comes now goes behind the one that still waits.
  ASSERT_EQ(run_one(*mmu_, MmuOp::kUnmap, range.start, other.base, kSize), Errc::kOk);
  done[1] = false;
  MmuRequest* const again[] = {&requests[1]};
  EXPECT_EQ(mmu_->submit(again), 1U);
  done = {true, true};
  mmu_->poll();
  EXPECT_EQ(queue.pop(), &requests[0]);
  EXPECT_EQ(queue.pop(), &requests[1]);
  EXPECT_EQ(requests[1].result, Errc::kOk);
}

}  // namespace
}  // namespace kvmm::test
