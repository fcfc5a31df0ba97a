// SPDX-License-Identifier: Apache-2.0
//
// Two engine threads write counters into pages while an evictor takes pages away, moves their
// content to a store, soils the frame, and a fault handler brings them back.
//
//   writers --touch--> missing page --> handler: frame from the pool (or evicts one), content from
//      ^                   ^            the store, map
//      |                   `--- evictor: unmap, store, soil the frame
//      `-- each writer owns its words, knows what each must hold, and checks before it adds one
//
// Nothing is timed: a run ends after a fixed number of writes and evictions. A lost update shows as
// a counter that is not what its owner wrote last.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/drivers/host/host_rig.h"

namespace kvmm::test {
namespace {

constexpr uint32_t kPages = 48;
constexpr uint32_t kFrames = 20;
constexpr uint32_t kSlots = 16;  // words of one writer in one page
constexpr uint32_t kNoFrame = UINT32_MAX;

struct Load {
  Bytes page_size;
  uint64_t writes;  // of each writer
  uint64_t seed;
};

// The part of a runtime that this test needs: one lock, a pool, a store.
class Pager {
 public:
  Pager(MmuOps& mmu, Load load)
      : mmu_(mmu), size_(load.page_size), random_(load.seed), store_(kPages * size_.value()) {
    const Result<AddressRange> range = mmu.reserve(size_ * kPages, size_, size_);
    EXPECT_TRUE(range.ok()) << range.error().message();
    range_ = *range;
    fixed_ = mmu.info().fixed_frames;
    if (!fixed_) {
      const Result<FrameArea> area = mmu.create_frames(size_, kFrames, NodeId(0));
      EXPECT_TRUE(area.ok()) << area.error().message();
      area_ = *area;
    }
    for (uint32_t i = 0; i < kFrames; ++i) {
      free_.push_back(i);
    }
    frame_of_.assign(kPages, kNoFrame);
  }

  ~Pager() {
    for (uint32_t i = 0; i < kPages; ++i) {
      if (frame_of_[i] != kNoFrame) {
        op(MmuOp::kUnmap, i, frame_of_[i]);
      }
    }
    if (!fixed_) {
      mmu_.destroy_frames(area_);
    }
    mmu_.release(range_);
  }

  VirtAddr va(uint32_t page) const { return range_.start + size_ * page; }

  void evict_one() {
    const std::lock_guard lock(mutex_);
    evict_locked();
  }

  // Answers what waits; returns whether anything did.
  void answer_faults() {
    std::array<FaultEvent, 4> faults;
    const size_t n = mmu_.read_faults(faults);
    for (size_t i = 0; i < n; ++i) {
      const std::lock_guard lock(mutex_);
      ASSERT_TRUE(range_.contains(faults[i].va)) << "a fault outside the range";
      bring_in(static_cast<uint32_t>((faults[i].va - range_.start) / size_));
    }
    faults_ += n;
  }

  uint64_t faults() const { return faults_; }
  uint64_t evictions() const { return evictions_; }

 private:
  FrameAddr frame_addr(uint32_t page, uint32_t frame) const {
    return fixed_ ? mmu_.fixed_frame(va(page)) : area_.frame(frame);
  }

  void op(MmuOp what, uint32_t page, uint32_t frame) {
    // Busy is allowed to happen (a page in the kernel's hands for a moment), not to last.
    for (int tries = 0; tries < 10000; ++tries) {
      MapEntry e{va(page), frame_addr(page, frame)};
      const Errc result = run_one(mmu_, what, e, size_);
      if (result != Errc::kBusy) {
        ASSERT_EQ(result, Errc::kOk) << "page " << page;
        ASSERT_FALSE(what == MmuOp::kUnmap && size_ == kPageSizeMax && e.split && !fixed_ &&
                     machine_has_huge_pages());
        return;
      }
    }
    FAIL() << "page " << page << " stays busy";
  }

  void evict_locked() {
    const auto start = static_cast<uint32_t>(random_() % kPages);
    for (uint32_t k = 0; k < kPages; ++k) {
      const uint32_t page = (start + k) % kPages;
      const uint32_t frame = frame_of_[page];
      if (frame == kNoFrame) {
        continue;
      }
      op(MmuOp::kUnmap, page, frame);
      auto* bytes = at<std::byte>(frame_addr(page, frame));
      memcpy(stored(page), bytes, size_.value());
      if (fixed_) {
        MapEntry e{va(page), FrameAddr(0)};
        ASSERT_EQ(run_one(mmu_, MmuOp::kFree, e, size_), Errc::kOk);
      } else {
        memset(bytes, 0xAA, size_.value());
      }
      frame_of_[page] = kNoFrame;
      free_.push_back(frame);
      ++evictions_;
      return;
    }
  }

  void bring_in(uint32_t page) {
    if (frame_of_[page] != kNoFrame) {  // another thread's fault brought it in already
      mmu_.wake({va(page), size_});
      return;
    }
    if (free_.empty()) {
      evict_locked();
    }
    ASSERT_FALSE(free_.empty());
    const uint32_t frame = free_.back();
    free_.pop_back();
    memcpy(at<std::byte>(frame_addr(page, frame)), stored(page), size_.value());
    op(MmuOp::kMap, page, frame);
    frame_of_[page] = frame;
  }

  std::byte* stored(uint32_t page) { return store_.data() + page * size_.value(); }

  MmuOps& mmu_;
  const Bytes size_;
  AddressRange range_;
  FrameArea area_;
  bool fixed_ = false;
  std::atomic<uint64_t> faults_{0}, evictions_{0};
  std::mutex mutex_;
  // Guarded by mutex_.
  std::mt19937_64 random_;
  std::vector<std::byte> store_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> frame_of_;
};

// Adds one to words of its own all over the range; each must hold what it left there.
uint64_t write_counters(const Pager& pager, const Load& load, uint32_t writer,
                        std::atomic<uint64_t>& progress) {
  std::mt19937_64 random(load.seed * 31 + writer);
  std::vector<uint64_t> expected(kPages * kSlots);
  uint64_t lost = 0;
  const uint64_t stride = load.page_size.value() / kSlots;
  for (uint64_t i = 0; i < load.writes; ++i) {
    const uint64_t r = random();
    const auto page = static_cast<uint32_t>(r % kPages);
    const auto slot = static_cast<uint32_t>((r >> 32) % kSlots);
    auto* word = at<volatile uint64_t>(pager.va(page), slot * stride + writer * 8);
    uint64_t& want = expected[page * kSlots + slot];
    lost += *word != want ? 1 : 0;
    *word = ++want;
    progress.fetch_add(1, std::memory_order_relaxed);
  }
  for (uint32_t page = 0; page < kPages; ++page) {
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      const auto* word = at<volatile uint64_t>(pager.va(page), slot * stride + writer * 8);
      lost += *word != expected[page * kSlots + slot] ? 1 : 0;
    }
  }
  return lost;
}

void stress(MmuOps& mmu, Load load) {
  SCOPED_TRACE("seed " + std::to_string(load.seed));
  Pager pager(mmu, load);
  const int stop = eventfd(0, EFD_CLOEXEC);
  ASSERT_GE(stop, 0);
  std::atomic<bool> over{false};
  std::atomic<uint64_t> progress{0}, lost{0};
  std::thread handler([&] {
    std::array<pollfd, 2> fds{{{mmu.fault_fd(), POLLIN, 0}, {stop, POLLIN, 0}}};
    while (::poll(fds.data(), fds.size(), -1) > 0 && (fds[1].revents & POLLIN) == 0) {
      pager.answer_faults();
    }
  });
  std::thread evictor([&] {
    // One eviction for every so many writes, so that a run is as long as its writers.
    for (uint64_t seen = 0; !over; std::this_thread::yield()) {
      if (const uint64_t now = progress; now >= seen + 8) {
        seen = now;
        pager.evict_one();
      }
    }
  });
  std::vector<std::thread> writers;
  for (uint32_t w = 0; w < 2; ++w) {
    writers.emplace_back([&, w] { lost += write_counters(pager, load, w, progress); });
  }
  for (std::thread& t : writers) {
    t.join();
  }
  over = true;
  evictor.join();
  const uint64_t one = 1;
  ASSERT_EQ(write(stop, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  handler.join();
  close(stop);
  EXPECT_EQ(lost, 0U) << "lost updates";
  EXPECT_EQ(mmu.stats().frames_split, 0U);
  EXPECT_GT(pager.faults(), load.writes / 8) << "the run did not do what it is for";
  EXPECT_GT(pager.evictions(), load.writes / 8);
  testing::Test::RecordProperty("faults", std::to_string(pager.faults()));
  testing::Test::RecordProperty("evictions", std::to_string(pager.evictions()));
  testing::Test::RecordProperty("busy_retries", std::to_string(mmu.stats().busy_retries));
}

const Load kSmall{kib(4), 40000, 11};
const Load kMedium{kib(64), 20000, 12};
const Load kLarge{mib(2), 1200, 13};

template <class Mmu>
void stress_on(Load load) {
  const std::unique_ptr<Mmu> mmu = make_mmu<Mmu>();
  ASSERT_NE(mmu, nullptr);
  stress(*mmu, load);
}

TEST(HostStress, MovableFrames4KiB) {
  stress_on<HostMoveMmu>(kSmall);
}
TEST(HostStress, MovableFrames64KiB) {
  stress_on<HostMoveMmu>(kMedium);
}
TEST(HostStress, MovableFrames2MiB) {
  stress_on<HostMoveMmu>(kLarge);
}
TEST(HostStress, ShareableFrames4KiB) {
  stress_on<HostShareMmu>(kSmall);
}
TEST(HostStress, ShareableFrames64KiB) {
  stress_on<HostShareMmu>({kib(64), 12000, 12});
}
TEST(HostStress, ShareableFrames2MiB) {
  stress_on<HostShareMmu>({mib(2), 300, 13});
}

}  // namespace
}  // namespace kvmm::test
