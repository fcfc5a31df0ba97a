// SPDX-License-Identifier: Apache-2.0
//
// Pages between tiers, on worlds of several nodes: where frames are taken, demotion to far and slow
// memory and to swap, promotion back, and what a touch in the middle of a move does.
#include <gtest/gtest.h>

#include <array>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

// Watermarks of a tier, in pages of 4 KiB.
void marks(World& w, const char* tier, uint64_t min, uint64_t low, uint64_t high) {
  const Watermarks m{kib(4 * min), kib(4 * low), kib(4 * high)};
  ASSERT_TRUE(w.tiers->find(tier)->set_watermarks(m).ok()) << tier;
}

WorldConfig world_of(std::vector<WorldTier> tiers) {
  WorldConfig c;
  c.tiers = std::move(tiers);
  c.planes = 1;
  c.lanes = 4;
  c.pages_a_lane = 64;
  return c;
}

// node 0 with CPUs, node 1 without.
WorldConfig near_and_slow() {
  return world_of({{"dram", 0, 0, 8}, {"slow", 1, 1, 16}});
}

void fill(World& w, AddressSpace& s, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 100 * s.id() + i).access, SimAccess::kDone);
  }
}

void expect_content(World& w, AddressSpace& s, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, 100 * s.id() + i) << "page " << i;
  }
  w.check();
}

std::string tier_of(World& w, const Page& p) {
  return p.frame != nullptr ? w.tiers->tier(p.frame->tier).name() : place_name(p.place);
}

// "dram dram slow": where pages [begin, end) lie.
std::string where(World& w, AddressSpace& s, uint32_t begin, uint32_t end) {
  std::string text;
  for (uint32_t i = begin; i < end; ++i) {
    text += (text.empty() ? "" : " ") + tier_of(w, w.page(s, 0, i));
  }
  return text;
}

// Lets time pass until nothing moves, at most `limit` of it.
void run_for(World& w, Tick limit) {
  const Tick end = w.clock.now() + limit;
  w.step();
  while (w.clock.now() < end) {
    if (!w.pass()) {
      w.clock.advance(millis(1));
    }
    w.step();
  }
}

TEST(Tiers, DownToTheSlowOneAndBackUp) {
  World w(near_and_slow());
  marks(w, "dram", 1, 3, 6);
  marks(w, "slow", 0, 1, 2);
  AddressSpace& s = w.open(0);
  fill(w, s, 0, 5);
  w.mm->advise(s, Advice::kIdle);
  w.settle();
  EXPECT_EQ(where(w, s, 0, 5), "dram dram dram dram dram") << "3 pages are free: not below low";
  AddressSpace& busy = w.open(1);
  fill(w, busy, 0, 1);
  w.settle();
  EXPECT_EQ(where(w, busy, 0, 1), "slow") << "what dram keeps free is for those who cannot wait";
  EXPECT_EQ(where(w, s, 0, 5), "slow slow slow dram dram") << "up to the high watermark";
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 3u);
  EXPECT_EQ(w.mm->stats().migrated_bytes.load(), 3u * 4096);
  EXPECT_EQ(w.tiers->find("dram")->stats().demoted, 3u);
  EXPECT_EQ(w.mm->stats().swap_out_bytes.load(), 0u) << "nothing is swapped while memory is free";
  w.check();

  w.mm->advise(s, Advice::kRunning);
  expect_content(w, s, 0, 5);
  EXPECT_EQ(where(w, s, 0, 5), "slow slow slow dram dram") << "one touch is no habit";
  for (int i = 0; i < 3; ++i) {
    run_for(w, millis(1100));  // a hint takes them away
    expect_content(w, s, 0, 5);
  }
  EXPECT_GT(w.mm->stats().hints_hit.load(), 0u);
  EXPECT_EQ(where(w, s, 0, 5), "dram dram dram dram dram") << "touched twice";
  EXPECT_EQ(w.mm->stats().pages_promoted.load(), 3u);
  EXPECT_EQ(w.tiers->find("slow")->stats().promoted, 3u);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 0u);
  EXPECT_EQ(w.mmu->violations(), 0u);
}

TEST(Tiers, NearThenFarThenSlowThenSwap) {
  World w(world_of({{"dram0", 0, 0, 6}, {"dram1", 0, 1, 6}, {"slow", 1, 2, 6}}));
  marks(w, "dram0", 0, 1, 6);
  marks(w, "dram1", 0, 1, 2);
  marks(w, "slow", 0, 1, 2);
  AddressSpace& s = w.open(0);
  w.mm->called_from(s, NodeId(0));
  fill(w, s, 0, 5);
  EXPECT_EQ(where(w, s, 0, 5), "dram0 dram0 dram0 dram0 dram0");
  w.mm->advise(s, Advice::kIdle);
  AddressSpace& next = w.open(1);
  w.mm->called_from(next, NodeId(0));
  fill(w, next, 0, 1);
  w.settle();
  EXPECT_EQ(where(w, s, 0, 5), "dram1 dram1 dram1 slow slow") << "dram1 keeps its high watermark";
  marks(w, "dram1", 0, 6, 6);
  w.settle();
  EXPECT_EQ(where(w, s, 0, 5), "slow slow slow slow slow");
  EXPECT_EQ(w.mm->stats().swap_out_bytes.load(), 0u);
  marks(w, "slow", 0, 6, 6);
  w.settle();
  EXPECT_EQ(where(w, s, 0, 5), "swapped swapped swapped swapped swapped");
  EXPECT_EQ(w.tiers->find("dram0")->stats().demoted, 5u);
  EXPECT_EQ(w.tiers->find("dram1")->stats().demoted, 3u);
  marks(w, "dram1", 0, 1, 2);
  marks(w, "slow", 0, 1, 2);
  w.mm->advise(s, Advice::kRunning);
  expect_content(w, s, 0, 5);
  EXPECT_EQ(where(w, s, 0, 5), "dram0 dram0 dram0 dram0 dram0") << "what is read comes near";
  expect_content(w, next, 0, 1);
}

TEST(Tiers, TwoSiblingsThatAreShortHandNothingBackAndForth) {
  World w(world_of({{"dram0", 0, 0, 8}, {"dram1", 0, 1, 8}}));
  marks(w, "dram0", 1, 3, 4);
  marks(w, "dram1", 1, 3, 4);
  AddressSpace& s = w.open(0);
  fill(w, s, 0, 12);
  w.mm->advise(s, Advice::kIdle);
  run_for(w, millis(500));
  const uint64_t moved = w.mm->stats().pages_demoted.load();
  run_for(w, millis(500));
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), moved) << "it has come to rest";
  expect_content(w, s, 0, 12);
}

TEST(Tiers, ANodeThatIsFullUsesAnotherThatIsFree) {
  World w(world_of({{"dram0", 0, 0, 4}, {"dram1", 0, 1, 12}}));
  w.mm_config.zero_ahead = 0;  // frames that are being zeroed are not to be had: 4 of 4 here
  marks(w, "dram0", 0, 0, 0);
  marks(w, "dram1", 0, 0, 0);
  AddressSpace& s = w.open(0);
  w.mm->threads().row_of(1, w.clock.now());
  w.mm->threads().learnt(1, w.mm->zones().row_of(NodeId(0)), w.clock.now());
  fill(w, s, 0, 16);
  EXPECT_EQ(where(w, s, 0, 6), "dram0 dram0 dram0 dram0 dram1 dram1");
  EXPECT_EQ(w.mm->stats().reclaimed.load(), 0u);
  EXPECT_EQ(w.mm->stats().direct_reclaim.load(), 0u);
  EXPECT_EQ(w.tiers->find("dram1")->pool().free_bytes(), Bytes(0));
  fill(w, s, 16, 17);  // and then both are: swap
  expect_content(w, s, 0, 17);
  EXPECT_GT(w.mm->stats().reclaimed.load(), 0u);
}

TEST(Tiers, FramesComeFromWhereTheThreadRuns) {
  World w(world_of({{"dram0", 0, 0, 16}, {"dram1", 0, 1, 16}}));
  AddressSpace& s = w.open(0);
  fill(w, s, 0, 1);
  EXPECT_EQ(where(w, s, 0, 1), "dram0") << "nobody knows where thread 1 runs";
  std::array<uint32_t, 4> due{};
  ASSERT_EQ(w.mm->threads().due(due, w.clock.now()), 1u);
  EXPECT_EQ(due[0], 1u);
  w.mm->threads().learnt(1, w.mm->zones().row_of(NodeId(1)), w.clock.now());
  EXPECT_EQ(w.mm->threads().due(due, w.clock.now()), 0u);
  fill(w, s, 1, 2);
  EXPECT_EQ(where(w, s, 1, 2), "dram1");
  w.mm->called_from(s, NodeId(0));
  EXPECT_EQ(s.home_row, w.mm->zones().row_of(NodeId(1))) << "touches know better than calls";
  w.clock.advance(ThreadRows::kAge);
  fill(w, s, 2, 3);
  EXPECT_EQ(w.mm->threads().due(due, w.clock.now()), 1u) << "an old answer is asked for again";
}

// One page on its way down; the data workers take their time.
struct OnItsWay {
  OnItsWay() : w(config()), s(w.open(0)) {
    marks(w, "dram", 0, 0, 0);
    fill(w, s, 0, 1);
    marks(w, "dram", 0, 8, 8);
    w.mm->advise(s, Advice::kIdle);
    w.step();
  }
  static WorldConfig config() {
    WorldConfig c = near_and_slow();
    c.asynchronous_data = true;
    return c;
  }
  Page& page() { return w.page(s, 0, 0); }
  World w;
  AddressSpace& s;
};

TEST(Tiers, ATouchTakesADemotionBack) {
  OnItsWay o;
  ASSERT_EQ(o.page().place, Place::kMigrating);
  EXPECT_EQ(o.w.read(o.s, 0, 0).value, 100 * o.s.id());
  EXPECT_EQ(tier_of(o.w, o.page()), "dram");
  EXPECT_EQ(o.w.mm->stats().migrate_cancelled.load(), 1u);
  EXPECT_EQ(o.w.mm->stats().pages_demoted.load(), 0u);
  EXPECT_EQ(o.w.tiers->find("slow")->pool().used_bytes(), Bytes(0))
      << "the new frame is given back";
  o.w.check();
}

TEST(Tiers, APinTakesADemotionBack) {
  OnItsWay o;
  PinBatch batch;
  PinRange r;
  r.space = &o.s;
  r.spans.push_back({o.s.planes()[0].object.get(), 0, 1});
  batch.ranges.push_back(std::move(r));
  ASSERT_TRUE(o.w.mm->pin(batch, o.w.clock.now()).ok());
  EXPECT_EQ(batch.ranges[0].answer, PinAnswer::kComing);
  o.w.settle();
  o.w.mm->pin_poll(batch);
  EXPECT_EQ(batch.ranges[0].answer, PinAnswer::kReady);
  EXPECT_EQ(tier_of(o.w, o.page()), "dram");
  run_for(o.w, millis(10));
  EXPECT_EQ(o.page().place, Place::kMapped) << "a pinned page stays";
  ASSERT_TRUE(o.w.mm->unpin(batch, {}).ok());
}

TEST(Tiers, AnEvictedPageGoesToSwapInstead) {
  OnItsWay o;
  o.w.mm->evict(o.s);
  o.w.settle();
  EXPECT_EQ(o.page().place, Place::kSwapped);
  EXPECT_EQ(o.w.mm->stats().pages_demoted.load(), 0u);
  EXPECT_EQ(o.w.mm->zones().used_bytes(), Bytes(0));
  expect_content(o.w, o.s, 0, 1);
}

TEST(Tiers, ADroppedPageLeavesBothFrames) {
  OnItsWay o;
  o.w.close(o.s);
  o.w.settle();
  EXPECT_EQ(o.w.mm->zones().used_bytes(), Bytes(0));
}

TEST(Tiers, ACopyThatIsNotTheSameIsNotUsed) {
  World w(near_and_slow());
  AddressSpace& s = w.open(0);
  marks(w, "dram", 0, 0, 0);
  fill(w, s, 0, 2);
  w.bad_copies = 1;
  marks(w, "dram", 0, 8, 8);
  w.mm->advise(s, Advice::kIdle);
  run_for(w, millis(10));
  EXPECT_EQ(w.bad_copies, 0u);
  EXPECT_EQ(w.mm->stats().migrate_failed.load(), 1u);
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 1u);
  EXPECT_EQ(where(w, s, 0, 2), "dram slow") << "and it is not tried again for ever";
  expect_content(w, s, 0, 2);
}

TEST(Tiers, MovesKeepToTheirRate) {
  World w(near_and_slow());
  AddressSpace& s = w.open(0);
  marks(w, "dram", 0, 0, 0);
  fill(w, s, 0, 8);
  w.mm_config.demote_rate = 2 * 4096;  // two pages a second
  marks(w, "dram", 0, 8, 8);
  w.mm->advise(s, Advice::kIdle);
  w.step();
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 1u) << "the bucket holds one page";
  EXPECT_NE(w.mm->next_due(), Tick(0)) << "and the core wakes for the next";
  run_for(w, millis(1600));
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 4u);
  w.mm_config.demote_rate = 0;
  run_for(w, millis(3000));
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 4u) << "none";
  w.mm_config.demote_rate = gib(1).value();
  run_for(w, millis(10));
  EXPECT_EQ(w.mm->stats().pages_demoted.load(), 8u);
  w.mm_config.promote_rate = 0;
  marks(w, "dram", 0, 0, 0);
  w.mm->advise(s, Advice::kRunning);
  expect_content(w, s, 0, 8);
  run_for(w, millis(5000));
  expect_content(w, s, 0, 8);
  EXPECT_EQ(w.mm->stats().pages_promoted.load(), 0u);
  EXPECT_EQ(w.mm->stats().hints.load(), 0u) << "nothing is unmapped for what may not be done";
}

TEST(Tiers, ACleanPageIsStillCleanWhereItCameTo) {
  World w(near_and_slow());
  AddressSpace& s = w.open(0);
  fill(w, s, 0, 2);
  w.run_job([&](MmJob& j) {
    w.mm->clean(s, j);
    return Result<void>();
  });
  const uint64_t written = w.mm->stats().swap_out_bytes.load();
  marks(w, "dram", 0, 8, 8);
  w.mm->advise(s, Advice::kIdle);
  run_for(w, millis(10));
  ASSERT_EQ(where(w, s, 0, 2), "slow slow");
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(where(w, s, 0, 2), "swapped swapped");
  EXPECT_EQ(w.mm->stats().swap_out_bytes.load(), written) << "its slot holds the same bytes";
  expect_content(w, s, 0, 2);
}

TEST(RateLimit, BytesASecondAndNoMore) {
  RateLimit r;
  EXPECT_FALSE(r.take(Tick(0), 0, kib(4))) << "0 is none";
  EXPECT_EQ(r.due(Tick(0), 0, kib(4)), Tick(0));
  EXPECT_TRUE(r.take(Tick(0), 8000, Bytes(1000))) << "an eighth of a second's worth";
  EXPECT_FALSE(r.take(Tick(0), 8000, Bytes(1000)));
  const Tick due = r.due(Tick(0), 8000, Bytes(1000));
  EXPECT_FALSE(r.take(due - Tick(1'000'000), 8000, Bytes(1000)));
  EXPECT_TRUE(r.take(due, 8000, Bytes(1000)));
  // Small times add up; large rates and long times do not overflow.
  uint64_t sent = 0;
  RateLimit fast;
  const uint64_t rate = 1024 * kGiB;
  for (uint64_t t = 1; t <= 1000; ++t) {
    sent += fast.take(micros(t), rate, kib(64)) ? 1 : 0;
  }
  EXPECT_EQ(sent, 1000u);
  EXPECT_TRUE(fast.take(Tick(UINT64_MAX / 2), rate, gib(64)));
}

}  // namespace
}  // namespace kvmm::test
