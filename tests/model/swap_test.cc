// SPDX-License-Identifier: Apache-2.0
//
// Swap areas as a whole: several at once, growth, discard, bad sectors. What an engine reads is
// right, or an error says so.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/model/swap_world.h"

namespace kvmm::test {
namespace {

// ---- several areas

TEST(SwapStripes, TwoDevicesOfOnePriorityReadTwiceAsFast) {
  Tick took[2];
  for (const bool two : {false, true}) {
    WorldConfig c = two_areas(64);
    c.stacked_disk = false;
    c.swap_2_priority = two ? 0 : -1;
    c.disk_bytes_per_s = 10'000'000;  // 0.4 ms a page
    SwapWorld t(c);
    t.fill(32);
    const uint32_t on_first = t.out(t.area(0));
    EXPECT_EQ(on_first, two ? 16u : 32u);
    const Tick start = t.w.clock.now();
    t.w.mm->prefetch(t.s, 0, 32 * 4, Tick(0));
    t.w.settle();
    took[two ? 1 : 0] = t.w.clock.now() - start;
    t.expect(32);
    t.w.check();
  }
  EXPECT_LT(took[1].value(), took[0].value() * 6 / 10);
}

// ---- growth and discard

TEST(SwapGrows, AFileGrowsAsItIsNeededAndGivesBackWhatIsFree) {
  WorldConfig c = two_areas();
  c.swap_2 = Bytes(0);
  c.swap_grows = true;
  SwapWorld t(c);
  SwapArea& a = t.area(0);
  t.w.settle();
  const Bytes at_first = a.grown_bytes();
  EXPECT_LE(at_first, kib(256));
  std::array<AddressSpace*, 4> all{&t.s, &t.w.open(1), &t.w.open(2), &t.w.open(3)};
  for (AddressSpace* s : all) {
    for (uint32_t i = 0; i < 32; ++i) {
      ASSERT_EQ(t.w.write(*s, 0, i, s->id() * 100 + i).access, SimAccess::kDone);
      t.w.check();
    }
    t.w.mm->evict(*s);
    t.w.settle();
  }
  EXPECT_EQ(a.used_bytes(), kib(512));
  EXPECT_GE(a.grown_bytes(), kib(512));
  EXPECT_LT(a.grown_bytes(), a.capacity());
  EXPECT_EQ(t.w.mm->stats().swap_full.load(), 0u);
  for (AddressSpace* s : all) {
    for (uint32_t i = 0; i < 32; ++i) {
      ASSERT_EQ(t.w.read(*s, 0, i).value, s->id() * 100 + i);
    }
  }
  const Bytes grown = a.grown_bytes();
  for (size_t i = 1; i < all.size(); ++i) {
    t.w.close(*all[i]);
  }
  t.w.settle();
  EXPECT_EQ(a.stats().discarded_bytes, 0u) << "what is free for a moment stays";
  t.w.pass_time(millis(1500));
  EXPECT_GE(a.stats().discarded_bytes, kib(256).value());
  EXPECT_EQ(a.grown_bytes().value(), grown.value() - a.stats().discarded_bytes);
  for (uint32_t i = 0; i < 32; ++i) {
    ASSERT_EQ(t.w.read(t.s, 0, i).value, t.s.id() * 100 + i) << "no extent in use is discarded";
  }
  t.w.check();
}

TEST(SwapGrows, ADiskThatIsFullLosesNothingAndIsAskedAgain) {
  WorldConfig c = two_areas();
  c.swap_2 = Bytes(0);
  c.swap_grows = true;
  SwapWorld t(c);
  t.w.settle();
  const auto full = t.w.errors->add_rule(failing_for_good(mask_of(BlockOp::kGrow), Errc::kNoSpace));
  ASSERT_TRUE(full.ok());
  const uint64_t room = t.area(0).grown_bytes().value() / 4096;
  std::array<AddressSpace*, 3> all{&t.s, &t.w.open(1), &t.w.open(2)};
  const uint64_t total = std::min<uint64_t>(room + 8, 96);
  const auto at = [&](uint64_t i) -> AddressSpace& { return *all[i / 32]; };
  for (uint64_t i = 0; i < total; ++i) {
    ASSERT_EQ(t.w.write(at(i), 0, i % 32, 100 + i).access, SimAccess::kDone) << i;
    t.w.check();
  }
  EXPECT_GT(t.w.mm->stats().swap_full.load(), 0u);
  EXPECT_EQ(t.w.mm->stats().write_errors.load(), 0u) << "no write was tried in vain";
  EXPECT_EQ(t.verdict(0), Verdict::kOk) << "full is not broken";
  ASSERT_TRUE(t.w.errors->remove_rule(*full).ok());
  t.w.pass_time(millis(1100));
  for (uint64_t i = 0; i < 96; ++i) {
    ASSERT_EQ(t.w.write(at(i), 0, i % 32, 500 + i).access, SimAccess::kDone) << i;
  }
  for (uint64_t i = 0; i < 96; ++i) {
    ASSERT_EQ(t.w.read(at(i), 0, i % 32).value, 500 + i) << i;
  }
  t.w.check();
}

TEST(SwapDiscard, OffMeansOff) {
  SwapWorld t(two_areas());
  t.area(0).set_discard(false);
  t.fill(32);
  t.w.close(t.s);
  t.w.pass_time(millis(3000));
  EXPECT_EQ(t.area(0).stats().discarded_bytes, 0u);
  t.area(0).set_discard(true);
  t.w.pass_time(millis(1500));
  EXPECT_GT(t.area(0).stats().discarded_bytes, 0u);
}

// Writes, reads, drops and idle seconds in random order. A discard of what is in use, or is being
// written, would show as a wrong page: the simulated disk makes zeros of it.
TEST(SwapDiscard, NeverOfWhatIsInUse) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    WorldConfig c = two_areas();
    c.seed = seed;
    c.swap_grows = seed % 2 == 0;
    c.swap_extent = kib(16);
    SwapWorld t(c);
    Random random(seed);
    std::array<uint64_t, 32> value{};
    for (uint64_t i = 1; i <= 3000; ++i) {
      const auto page = static_cast<uint32_t>(random.below(32));
      const uint64_t kind = random.below(100);
      if (kind < 45) {
        ASSERT_EQ(t.w.write(t.s, 0, page, i).access, SimAccess::kDone);
        value[page] = i;
      } else if (kind < 90) {
        ASSERT_EQ(t.w.read(t.s, 0, page).value, value[page]) << "page " << page << " op " << i;
      } else if (kind < 97) {
        const Vma& v = *t.s.planes()[0].vma;
        t.w.run_job([&](MmJob& job) {
          return t.w.mm->clear_range({v.address_of(page), v.page_size}, job);
        });
        value[page] = 0;
      } else if (kind == 97) {
        t.w.mm->evict(t.s);
      } else {
        t.w.pass_time(millis(random.below(1200)));
      }
      if (i % 50 == 0) {
        t.w.check();
      }
    }
    EXPECT_GT(t.area(0).stats().discarded_bytes, 0u);
    EXPECT_EQ(t.w.mm->stats().wrong_pages.load(), 0u);
  }
}

// ---- bad sectors

TEST(BadSector, LosesItsPageAndItsSlotAndNothingElse) {
  SwapWorld t(two_areas());
  t.fill(16);
  const uint64_t bad = t.w.slot_offset(t.w.page(t.s, 0, 5));
  ErrorRule r = failing_for_good(kReads | kWrites);
  r.from = bad + 1024;
  r.to = bad + 1536;
  ASSERT_TRUE(t.w.errors->add_rule(r).ok());
  for (uint32_t i = 0; i < 16; ++i) {
    const World::Answer a = t.w.read(t.s, 0, i);
    ASSERT_EQ(a.access, i == 5 ? SimAccess::kPoisoned : SimAccess::kDone) << i;
    ASSERT_TRUE(i == 5 || a.value == 100 + i);
  }
  EXPECT_EQ(t.verdict(0), Verdict::kOk);
  EXPECT_EQ(t.area(0).retired_bytes(), Bytes(4096));
  EXPECT_EQ(t.area(0).stats().lost_pages, 1u);
  const Vma& v = *t.s.planes()[0].vma;
  t.w.run_job([&](MmJob& job) {
    return t.w.mm->clear_range({v.address_of(0), v.page_size * 32}, job);
  });
  for (int round = 0; round < 3; ++round) {
    t.fill(32);
    for (uint32_t i = 0; i < 32; ++i) {
      ASSERT_TRUE(t.w.page(t.s, 0, i).slot == 0 || t.w.slot_offset(t.w.page(t.s, 0, i)) != bad);
    }
    t.expect(32);
    t.w.check();
  }
  EXPECT_EQ(t.w.mm->stats().write_errors.load(), 0u) << "never tried again";
}

TEST(BadSector, AWriteThatFailsGoesElsewhere) {
  SwapWorld t(two_areas());
  t.fill(1);
  const uint64_t bad = t.w.slot_offset(t.w.page(t.s, 0, 0)) + 4096;  // the next slot
  ErrorRule r = failing_for_good(kWrites);
  r.from = bad;
  r.to = bad + 512;
  ASSERT_TRUE(t.w.errors->add_rule(r).ok());
  t.fill(16);
  EXPECT_EQ(t.w.mm->stats().write_errors.load(), 1u);
  EXPECT_EQ(t.area(0).retired_bytes(), Bytes(4096));
  EXPECT_EQ(t.area(0).stats().lost_pages, 0u);
  t.expect(16);
  t.w.check();
}

}  // namespace
}  // namespace kvmm::test
