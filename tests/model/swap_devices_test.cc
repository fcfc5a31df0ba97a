// SPDX-License-Identifier: Apache-2.0
//
// Swap devices that fail, hang, are slow, or go: what an engine reads is right, or an error says
// so, nothing waits for ever, and the area is emptied.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "tests/model/swap_world.h"

namespace kvmm::test {
namespace {

TEST(Failing, ADeviceThatCannotWriteIsEmptiedWithoutLoss) {
  SwapWorld t(two_areas());
  t.fill(16);
  SwapArea& bad = t.area(0);
  EXPECT_EQ(t.out(bad), 16u);
  ASSERT_TRUE(t.w.errors->add_rule(failing_for_good(kWrites)).ok());
  for (uint32_t round = 0; round < 4; ++round) {
    for (uint32_t i = 16; i < 32; ++i) {
      ASSERT_EQ(t.w.write(t.s, 0, i, 100 + i).access, SimAccess::kDone);
    }
    t.w.mm->evict(t.s);
    t.w.settle();
  }
  EXPECT_EQ(bad.health().verdict(), Verdict::kFailing);
  EXPECT_FALSE(bad.accepting());
  t.w.settle();
  t.w.pass_time(millis(2000));
  EXPECT_EQ(bad.used_bytes(), Bytes(0)) << "its pages moved by way of memory";
  EXPECT_TRUE(t.w.mm->emptied(bad));
  EXPECT_EQ(bad.stats().lost_pages, 0u);
  t.expect(32);
  t.w.check();
  std::set<MmNotice::Kind> said;
  for (MmNotice n; t.w.mm->take_notice(&n);) {
    said.insert(n.kind);
    if (n.kind == MmNotice::Kind::kSwapFailing) {
      EXPECT_STREQ(n.swap.data(), "swap0");
    }
  }
  EXPECT_TRUE(said.count(MmNotice::Kind::kSwapFailing) != 0);
  EXPECT_TRUE(said.count(MmNotice::Kind::kSwapEmptied) != 0);
  t.w.remove_area(bad);
  t.expect(32);
}

TEST(Failing, WithoutRoomElsewhereItGoesOnTryingAndTouchesAreAnswered) {
  WorldConfig c = two_areas(4);
  c.swap_2 = Bytes(0);
  SwapWorld t(c);
  t.fill(16);
  SwapArea& bad = t.area(0);
  t.w.mm_config.swap_fail_errors = 1;
  ErrorRule once = failing_for_good(kWrites);
  once.count = 1;
  ASSERT_TRUE(t.w.errors->add_rule(once).ok());
  ASSERT_EQ(t.w.write(t.s, 0, 0, 1).access, SimAccess::kDone);
  ASSERT_EQ(t.w.write(t.s, 0, 0, 100).access, SimAccess::kDone);
  ASSERT_EQ(t.w.write(t.s, 0, 31, 131).access, SimAccess::kDone);
  t.w.mm->evict(t.s);
  t.w.settle();
  EXPECT_EQ(bad.health().verdict(), Verdict::kFailing);
  t.w.pass_time(millis(5000));
  EXPECT_GT(bad.used_bytes(), Bytes(0)) << "four frames hold no sixteen pages";
  t.w.check();
  // A touch of what has no frame gets an answer, and what is there stays right.
  uint32_t done = 0;
  for (uint32_t i = 0; i < 16; ++i) {
    const World::Answer a = t.w.read(t.s, 0, i);
    ASSERT_TRUE(a.access == SimAccess::kPoisoned || a.value == 100 + i) << i;
    done += a.access == SimAccess::kDone ? 1 : 0;
  }
  EXPECT_GT(done, 0u);
  // Room comes: it is emptied.
  SimDiskConfig d;
  d.capacity = mib(4);
  SimDisk more(t.w.clock, d);
  SwapArea& added = t.w.add_area(more, "more", 0);
  t.w.pass_time(millis(3000));
  EXPECT_EQ(bad.used_bytes(), Bytes(0));
  EXPECT_TRUE(t.w.mm->emptied(bad));
  EXPECT_GT(added.used_bytes(), Bytes(0));
  t.w.check();
  const Vma& v = *t.s.planes()[0].vma;
  t.w.run_job([&](MmJob& job) {
    return t.w.mm->clear_range({v.address_of(0), v.page_size * 32}, job);
  });
  t.w.settle();
  t.w.remove_area(added);
}

TEST(Failing, ADeviceThatHangsStopsNobodyElse) {
  SwapWorld t(two_areas());
  AddressSpace& other = t.w.open(1);
  t.fill(8);
  SwapArea& hung = t.area(0);
  t.w.delay->set_hold(true);
  EXPECT_FALSE(t.w.start_read(t.s, 0, 0, 7));
  t.w.step();
  t.w.pass_time(micros(t.w.mm_config.swap_fail_us.load()) + millis(10));
  EXPECT_EQ(hung.health().verdict(), Verdict::kFailing) << "silence";
  t.w.check();
  // Another session runs, and outgrows memory: its pages go to the other area.
  for (uint32_t i = 0; i < 24; ++i) {
    ASSERT_EQ(t.w.write(other, 0, i, 700 + i).access, SimAccess::kDone);
  }
  for (uint32_t i = 0; i < 24; ++i) {
    ASSERT_EQ(t.w.read(other, 0, i).value, 700 + i);
  }
  EXPECT_GT(t.area(1).used_bytes(), Bytes(0));
  // It answers after all: what it held is there, and it is emptied.
  t.w.delay->set_hold(false);
  t.w.settle();
  t.w.pass_time(millis(3000));
  t.expect(8);
  EXPECT_EQ(hung.used_bytes(), Bytes(0));
  EXPECT_TRUE(t.w.mm->emptied(hung));
  EXPECT_EQ(hung.stats().lost_pages, 0u);
  t.w.check();
}

TEST(Failing, ASlowDeviceComesBehindItsEqualsUntilItIsWellAgain) {
  WorldConfig c = two_areas(16);
  c.swap_2_priority = 0;
  SwapWorld t(c);
  SwapArea& slow = t.area(0);
  SwapArea& good = t.area(1);
  t.w.delay->set_latency(millis(150));
  t.fill(32);
  EXPECT_EQ(slow.health().verdict(), Verdict::kSlow);
  EXPECT_TRUE(slow.accepting());
  const uint64_t before = slow.stats().allocations;
  t.w.delay->set_latency(Tick(0));
  for (uint32_t i = 0; i < 8; ++i) {
    ASSERT_EQ(t.w.write(t.s, 0, i, 200 + i).access, SimAccess::kDone);
  }
  t.w.mm->evict(t.s);
  t.w.settle();
  EXPECT_EQ(slow.stats().allocations, before);
  t.w.pass_time(millis(4000));
  EXPECT_EQ(slow.health().verdict(), Verdict::kOk);
  t.fill(32);
  EXPECT_GT(slow.stats().allocations, before);
  EXPECT_GT(good.stats().allocations, 0u);
  t.expect(32);
  t.w.check();
}

TEST(Gone, WhatWasOnlyThereIsLostAndTheRestGoesOn) {
  WorldConfig c = two_areas(8);
  c.swap_2_priority = 0;
  SwapWorld t(c);
  t.fill(16);
  SwapArea& gone = t.area(0);
  const uint8_t id = gone.id();
  std::array<bool, 16> there{};
  for (uint32_t i = 0; i < 16; ++i) {
    there[i] = SlotId(t.w.page(t.s, 0, i).slot).area() != id;
  }
  // Two of them are in memory as well: those live.
  for (uint32_t i = 0, n = 0; i < 16 && n < 2; ++i) {
    if (!there[i]) {
      ASSERT_EQ(t.w.read(t.s, 0, i).value, 100 + i);
      there[i] = true;
      ++n;
    }
  }
  t.w.disk->power_loss();
  uint32_t lost = 0;
  for (uint32_t i = 0; i < 16; ++i) {
    const World::Answer a = t.w.read(t.s, 0, i);
    lost += a.access == SimAccess::kPoisoned ? 1 : 0;
    ASSERT_EQ(a.access, there[i] ? SimAccess::kDone : SimAccess::kPoisoned) << i;
    ASSERT_TRUE(!there[i] || a.value == 100 + i);
  }
  t.w.settle();
  EXPECT_EQ(lost, 6u);
  EXPECT_EQ(gone.health().verdict(), Verdict::kGone);
  EXPECT_EQ(gone.stats().lost_pages, 6u);
  EXPECT_EQ(gone.used_bytes(), Bytes(0));
  EXPECT_EQ(t.s.stats.bytes_discarded.load(), 6u * 4096);
  EXPECT_TRUE(t.w.mm->emptied(gone));
  t.w.check();
  // sync asks the devices that are there.
  Mm::FlushJob flush;
  t.w.mm->flush(flush);
  for (int i = 0; i < 1000 && !flush.done; ++i) {
    t.w.step();
    t.w.pass();
  }
  EXPECT_TRUE(flush.done);
  EXPECT_EQ(flush.result, Errc::kOk);
  // It comes back, and is swapped on again.
  t.w.remove_area(gone);
  t.w.disk->power_on();
  SwapArea& again = t.w.add_area(*t.w.delay, "swap0", 5);
  EXPECT_EQ(again.superblock().epoch, 2u);
  const Vma& v = *t.s.planes()[0].vma;
  t.w.run_job([&](MmJob& job) {
    return t.w.mm->clear_range({v.address_of(0), v.page_size * 32}, job);
  });
  t.fill(16);
  EXPECT_EQ(t.out(again), 16u);
  t.expect(16);
  t.w.check();
}

TEST(Gone, StructuredSessionsAreToldWhatToComputeAgain) {
  WorldConfig c = two_areas(8);
  c.swap_2 = Bytes(0);
  SwapWorld t(c);
  AddressSpace& s = t.w.open(1, ObjectKind::kPrivate);
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_EQ(t.w.write(s, 0, i, i).access, SimAccess::kDone);
  }
  ASSERT_TRUE(t.w.mm->append(s, 16).ok());
  t.w.mm->evict(s);
  t.w.settle();
  t.w.disk->power_loss();
  t.w.mm->prefetch(s, 0, 4, Tick(0));
  t.w.settle();
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  t.w.mm->for_each_gone(s, [&](uint64_t a, uint64_t b) { ranges.emplace_back(a, b); });
  EXPECT_EQ(t.area(0).stats().lost_pages, 4u);
  EXPECT_EQ(ranges.size(), 4u);
  t.w.check();
}

// A small run in which the device fails for good, or goes, at its n-th I/O, for every n: values are
// right, or an error says so; it ends, and the area is emptied.
class DiesAt : public ::testing::TestWithParam<Errc> {};

TEST_P(DiesAt, ValuesAreRightOrAnErrorSaysSo) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("dies at I/O " + std::to_string(nth));
    WorldConfig c = two_areas(4);
    c.swap_2_priority = nth % 2 == 0 ? 0 : -1;
    c.seed = nth;
    SwapWorld t(c);
    t.w.mm_config.swap_fail_errors = 2;
    ErrorRule r = failing_for_good(kAllBlockOps, GetParam());
    r.nth = nth;
    const auto number = t.w.errors->add_rule(r);
    ASSERT_TRUE(number.ok());
    std::array<uint64_t, 12> value{};
    std::array<bool, 12> lost{};
    Random random(nth);
    for (uint64_t i = 1; i <= 100; ++i) {
      const auto page = static_cast<uint32_t>(random.below(value.size()));
      const bool write = random.below(2) == 0;
      const World::Answer a = write ? t.w.write(t.s, 0, page, i) : t.w.read(t.s, 0, page);
      if (a.access == SimAccess::kPoisoned) {
        lost[page] = true;
        continue;
      }
      ASSERT_EQ(a.access, SimAccess::kDone);
      ASSERT_FALSE(lost[page]) << "an error turned into bytes";
      if (write) {
        value[page] = i;
      } else {
        ASSERT_EQ(a.value, value[page]) << "page " << page << " operation " << i;
      }
      t.w.check();
    }
    t.w.settle();
    t.w.pass_time(millis(3000));
    t.w.check();
    ASSERT_EQ(t.w.mmu->waiters(), 0u);
    const uint64_t fired = t.w.errors->fired(*number);
    if (fired >= 2 || (fired == 1 && GetParam() == Errc::kDeviceGone)) {
      ASSERT_TRUE(t.w.mm->emptied(t.area(0)));
    }
    if (fired == 0) {
      ASSERT_GT(nth, 20u) << "the run has I/O to fail";
      break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Device, DiesAt, ::testing::Values(Errc::kIo, Errc::kDeviceGone));

}  // namespace
}  // namespace kvmm::test
