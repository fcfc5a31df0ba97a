// SPDX-License-Identifier: Apache-2.0
#include "drivers/sim/sim_disk.h"

#include <cstdlib>
#include <cstring>
#include <set>

#include "tests/drivers/sim/sim_rig.h"

namespace kvmm {
namespace {

constexpr uint64_t kUnit = 4096;

class SimDiskTest : public testing::Test {
 protected:
  void build(const std::string& options) {
    device_ = bind_sim(clock_, DeviceClass::kBlock, options);
    ASSERT_NE(device_, nullptr);
    disk_ = find_sim_disk(*device_);
  }
  void SetUp() override { build("size=1M,depth=4,latency_us=100,bytes_per_s=4096000000"); }
  void TearDown() override {
    while (disk_->in_flight() != 0 && clock_.advance_to_alarm()) {
      disk_->poll();
    }
  }
  std::byte* page(size_t i) { return memory_.get() + i * kUnit; }
  void fill(size_t i, uint64_t seed) {
    const TestBytes b = bytes_of(kUnit, seed);
    std::memcpy(page(i), b.data(), kUnit);
  }
  BlockRequest request(BlockOp op, size_t memory, uint64_t unit, uint64_t units = 1) {
    BlockRequest r;
    r.queue = &queue_;
    r.op = op;
    r.data = page(memory);
    r.offset = unit * kUnit;
    r.length = Bytes(units * kUnit);
    return r;
  }
  void submit(BlockRequest& r) {
    BlockRequest* one = &r;
    ASSERT_EQ(disk_->submit({&one, 1}), 1u);
  }
  Errc run(BlockOp op, size_t memory, uint64_t unit, uint64_t units = 1) {
    BlockRequest r = request(op, memory, unit, units);
    submit(r);
    while (queue_.empty() && clock_.advance_to_alarm()) {
      disk_->poll();
    }
    EXPECT_EQ(queue_.pop(), &r);
    return r.result;
  }
  void write(uint64_t unit, uint64_t seed) {
    fill(0, seed);
    ASSERT_EQ(run(BlockOp::kWrite, 0, unit), Errc::kOk);
  }
  void flush() { ASSERT_EQ(run(BlockOp::kFlush, 0, 0, 0), Errc::kOk); }
  TestBytes content(uint64_t unit) {
    TestBytes out(kUnit);
    disk_->peek(unit * kUnit, out);
    return out;
  }

  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  SimClock clock_;
  CompletionQueue queue_;
  std::unique_ptr<Device> device_;
  SimDisk* disk_ = nullptr;
  std::unique_ptr<std::byte, Free> memory_{
      static_cast<std::byte*>(std::aligned_alloc(kUnit, 16 * kUnit))};
};

TEST_F(SimDiskTest, TimeIsTransferPlusLatency) {
  BlockRequest a = request(BlockOp::kRead, 0, 0), b = request(BlockOp::kRead, 1, 1, 2);
  submit(a);
  submit(b);
  clock_.advance(micros(101) - Tick(1));
  disk_->poll();
  EXPECT_EQ(queue_.pop(), nullptr);
  clock_.advance(Tick(1));  // 4096 bytes at 4.096 GB/s, and 100 us
  disk_->poll();
  EXPECT_EQ(queue_.pop(), &a);
  EXPECT_EQ(queue_.pop(), nullptr);
  EXPECT_EQ(clock_.next_alarm(), micros(103)) << "its transfer waited for the first one's";
  clock_.advance(micros(2));
  disk_->poll();
  EXPECT_EQ(queue_.pop(), &b);
  EXPECT_EQ(clock_.next_alarm(), std::nullopt);
}

TEST_F(SimDiskTest, EqualTimesFinishInOrderOfSubmit) {
  BlockRequest r[4];
  for (BlockRequest& f : r) {
    f = request(BlockOp::kFlush, 0, 0, 0);  // moves no bytes
    submit(f);
  }
  BlockRequest more = request(BlockOp::kFlush, 0, 0, 0);
  BlockRequest* one = &more;
  EXPECT_EQ(disk_->submit({&one, 1}), 0u) << "its depth";
  clock_.advance(micros(100));
  disk_->poll();
  for (BlockRequest& f : r) {
    EXPECT_EQ(queue_.pop(), &f);
  }
}

TEST_F(SimDiskTest, BytesMoveAtTheDueTime) {
  fill(0, 1);
  BlockRequest w = request(BlockOp::kWrite, 0, 3);
  submit(w);
  fill(0, 2);  // the caller's mistake: the page changed in flight
  clock_.advance(millis(1));
  disk_->poll();
  ASSERT_EQ(queue_.pop(), &w);
  EXPECT_EQ(content(3), bytes_of(kUnit, 2));
}

TEST_F(SimDiskTest, WhatWasFlushedSurvives) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    build("size=1M,seed=" + std::to_string(seed));
    write(1, 10);
    flush();
    EXPECT_EQ(disk_->unflushed(), 0u);
    disk_->power_loss();
    disk_->power_on();
    ASSERT_EQ(content(1), bytes_of(kUnit, 10)) << "seed " << seed;
  }
}

TEST_F(SimDiskTest, WhatWasNotFlushedIsOldNewOrTorn) {
  const TestBytes older = bytes_of(kUnit, 10), newer = bytes_of(kUnit, 11);
  int lost = 0, kept = 0, torn = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    build("size=1M,seed=" + std::to_string(seed));
    write(1, 10);
    flush();
    write(1, 11);
    EXPECT_EQ(disk_->unflushed(), 1u);
    EXPECT_EQ(content(1), newer) << "a read sees it";
    disk_->power_loss();
    disk_->power_on();
    const TestBytes now = content(1);
    if (now == older) {
      ++lost;
    } else if (now == newer) {
      ++kept;
    } else {
      ++torn;
      for (size_t sector = 0; sector < kUnit; sector += 512) {
        const bool old_one = std::memcmp(&now[sector], &older[sector], 512) == 0;
        const bool new_one = std::memcmp(&now[sector], &newer[sector], 512) == 0;
        ASSERT_TRUE(old_one || new_one) << "seed " << seed << " sector " << sector;
      }
    }
  }
  EXPECT_GT(lost, 20);
  EXPECT_GT(kept, 20);
  EXPECT_GT(torn, 5);
}

TEST_F(SimDiskTest, AFlushCoversWhatHadFinishedBeforeIt) {
  std::set<TestBytes> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    build("size=1M,seed=" + std::to_string(seed));
    fill(0, 20);
    BlockRequest late = request(BlockOp::kWrite, 0, 2);
    BlockRequest f = request(BlockOp::kFlush, 0, 0, 0);
    submit(late);
    submit(f);  // while the write is in flight
    while (clock_.advance_to_alarm()) {
      disk_->poll();
    }
    EXPECT_EQ(queue_.pop(), &late);
    EXPECT_EQ(queue_.pop(), &f);
    EXPECT_EQ(disk_->unflushed(), 1u);
    disk_->power_loss();
    disk_->power_on();
    seen.insert(content(2));
  }
  EXPECT_GE(seen.size(), 2u) << "sometimes it is lost";
}

TEST_F(SimDiskTest, PowerLossFinishesWhatIsInFlight) {
  fill(0, 1);
  BlockRequest w = request(BlockOp::kWrite, 0, 3), rd = request(BlockOp::kRead, 1, 3);
  submit(w);
  submit(rd);
  disk_->power_loss();
  EXPECT_EQ(queue_.pop(), &w);
  EXPECT_EQ(queue_.pop(), &rd);
  EXPECT_EQ(w.result, Errc::kDeviceGone);
  EXPECT_EQ(rd.result, Errc::kDeviceGone);
  EXPECT_EQ(disk_->in_flight(), 0u);
  BlockRequest off = request(BlockOp::kRead, 1, 3);
  submit(off);
  EXPECT_EQ(queue_.pop(), &off);
  EXPECT_EQ(off.result, Errc::kDeviceGone);
  disk_->power_on();
  EXPECT_EQ(run(BlockOp::kRead, 1, 3), Errc::kOk);
}

TEST_F(SimDiskTest, SameSeedSameLoss) {
  std::vector<TestBytes> all;
  for (int round = 0; round < 2; ++round) {
    build("size=1M,seed=77");
    for (uint64_t u = 0; u < 20; ++u) {
      write(u, u);
      write(u, u + 100);
    }
    disk_->power_loss();
    TestBytes now(20 * kUnit);
    disk_->peek(0, now);
    all.push_back(now);
  }
  EXPECT_EQ(all[0], all[1]);
}

TEST_F(SimDiskTest, PokeChangesTheMedium) {
  write(1, 1);
  const TestBytes wrong = bytes_of(10, 9);
  disk_->poke(kUnit - 5, wrong);  // over the border of two blocks, one never written
  ASSERT_EQ(run(BlockOp::kRead, 1, 0, 2), Errc::kOk);
  EXPECT_EQ(0, std::memcmp(page(1) + kUnit - 5, wrong.data(), wrong.size()));
  EXPECT_EQ(0, std::memcmp(page(2) + 5, bytes_of(kUnit, 1).data() + 5, kUnit - 5));
}

TEST_F(SimDiskTest, IoOnAMappedFrameIsSeen) {
  auto memory = bind_sim(clock_, DeviceClass::kMemory, "size=1M,strict=0");
  SimMmu* mmu = find_sim_mmu(*memory);
  disk_->set_guard(mmu);
  auto area = mmu->create_frames(kib(4), 2, NodeId(0));
  auto range = mmu->reserve(kib(8), kib(4), kib(4));
  ASSERT_TRUE(area.ok() && range.ok());
  BlockRequest w = request(BlockOp::kWrite, 0, 1);
  w.data = reinterpret_cast<std::byte*>(area->frame(0).value());
  submit(w);
  EXPECT_EQ(mmu->violations(), 0u);
  // Mapped while the write is in flight: seen when the bytes move.
  MapEntry e{range->start, area->frame(0)};
  MmuRequest m;
  m.queue = &queue_;
  m.page_size = kib(4);
  m.entries = {&e, 1};
  MmuRequest* one = &m;
  ASSERT_EQ(mmu->submit({&one, 1}), 1u);
  ASSERT_EQ(queue_.pop(), &m);
  ASSERT_EQ(m.result, Errc::kOk);
  clock_.advance(millis(1));
  disk_->poll();
  EXPECT_EQ(queue_.pop(), &w);
  EXPECT_EQ(mmu->violations(), 1u);
  submit(w);  // and at submit
  EXPECT_EQ(mmu->violations(), 2u);
  clock_.advance(millis(1));
  disk_->poll();
  EXPECT_EQ(queue_.pop(), &w);
  disk_->set_guard(nullptr);
}

TEST(SimClockTest, StandsUntilMoved) {
  SimClock clock;
  EXPECT_EQ(clock.now(), Tick(0));
  EXPECT_FALSE(clock.advance_to_alarm());
  clock.alarm(micros(5));
  clock.alarm(micros(3));
  clock.alarm(micros(3));
  EXPECT_TRUE(clock.advance_to_alarm());
  EXPECT_EQ(clock.now(), micros(3));
  EXPECT_EQ(clock.next_alarm(), micros(5));
  clock.advance(micros(10));
  EXPECT_EQ(clock.now(), micros(13));
  EXPECT_EQ(clock.next_alarm(), std::nullopt) << "passed";
  EXPECT_DEATH(clock.advance_to(micros(12)), "time does not go back");
}

}  // namespace
}  // namespace kvmm
