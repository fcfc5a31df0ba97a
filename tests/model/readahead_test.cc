// SPDX-License-Identifier: Apache-2.0
//
// What comes before it is touched: readahead, fault-around, resume, prefetch; frames zeroed or
// freed ahead of need. All of it is a hint to the memory manager, so no wrong byte shows when it is
// missing: these tests count instead.
#include <gtest/gtest.h>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

constexpr uint32_t kPages = 32;
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kTokensAPage = 4;

WorldConfig roomy(uint32_t planes) {
  WorldConfig c;
  c.frames = 256;
  c.planes = planes;
  c.pages_a_lane = kPages;
  c.tokens_a_page = kTokensAPage;
  return c;
}

// Only what a test is about happens.
void nothing_ahead(World& w) {
  w.mm_config.readahead_max = 0;
  w.mm_config.fault_around = 0;
  w.mm_config.resume_prefetch = 0;
  w.mm_config.zero_ahead = 0;
}

uint64_t value_of(uint32_t plane, uint32_t page) {
  return 1000 * (plane + 1) + page;
}

// A session whose every page was written and lies in a slot.
AddressSpace& swapped_session(World& w, uint32_t lane) {
  AddressSpace& s = w.open(lane);
  for (uint32_t plane = 0; plane < w.config.planes; ++plane) {
    for (uint32_t i = 0; i < kPages; ++i) {
      EXPECT_EQ(w.write(s, plane, i, value_of(plane, i)).access, SimAccess::kDone);
    }
  }
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.bytes_swapped.load(), kPages * kPageBytes * w.config.planes);
  return s;
}

uint32_t count(World& w, AddressSpace& s, uint32_t plane, Place place, uint32_t begin = 0,
               uint32_t end = kPages) {
  uint32_t n = 0;
  for (uint32_t i = begin; i < end; ++i) {
    n += w.page(s, plane, i).place == place ? 1 : 0;
  }
  return n;
}

void expect_values(World& w, AddressSpace& s) {
  for (uint32_t plane = 0; plane < w.config.planes; ++plane) {
    for (uint32_t i = 0; i < kPages; ++i) {
      EXPECT_EQ(w.read(s, plane, i).value, value_of(plane, i)) << plane << " " << i;
    }
  }
}

// ---- readahead

TEST(Readahead, AMajorFaultReadsTheNextPagesAndTheMarkStartsTheNextWindow) {
  World w(roomy(1));
  nothing_ahead(w);
  w.mm_config.readahead_max = 8 * kPageBytes;
  AddressSpace& s = swapped_session(w, 0);
  const MmStats& stats = w.mm->stats();

  EXPECT_EQ(w.read(s, 0, 0).value, value_of(0, 0));
  w.settle();
  EXPECT_EQ(count(w, s, 0, Place::kUnmapped, 1, 9), 8u) << "the window";
  EXPECT_EQ(count(w, s, 0, Place::kSwapped, 9), kPages - 9) << "and no more";
  EXPECT_EQ(stats.readahead_pages.load(), 8u);

  for (uint32_t i = 1; i < 4; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, value_of(0, i));
  }
  w.settle();
  EXPECT_EQ(stats.readahead_pages.load(), 8u) << "the mark is the middle of the window";
  EXPECT_EQ(w.read(s, 0, 4).value, value_of(0, 4));
  w.settle();
  EXPECT_EQ(count(w, s, 0, Place::kUnmapped, 5, 13), 8u) << "the mark's touch";
  EXPECT_EQ(count(w, s, 0, Place::kSwapped, 13), kPages - 13);
  EXPECT_EQ(stats.faults_major.load(), 1u);
  w.check();
}

TEST(Readahead, APassFrontToBackHasOneMajorFault) {
  World w(roomy(1));
  nothing_ahead(w);
  w.mm_config.readahead_max = 8 * kPageBytes;
  AddressSpace& s = swapped_session(w, 0);
  for (uint32_t i = 0; i < kPages; ++i) {
    ASSERT_EQ(w.read(s, 0, i).value, value_of(0, i));
    w.settle();  // as slow as an engine that computes
  }
  EXPECT_EQ(w.mm->stats().faults_major.load(), 1u);
  EXPECT_EQ(w.mm->stats().readahead_useful.load(), kPages - 1u);
  EXPECT_EQ(w.mm->stats().readahead_useless.load(), 0u);
}

TEST(Readahead, WhatWasReadForNothingIsCounted) {
  World w(roomy(1));
  nothing_ahead(w);
  w.mm_config.readahead_max = 8 * kPageBytes;
  AddressSpace& s = swapped_session(w, 0);
  EXPECT_EQ(w.read(s, 0, 0).value, value_of(0, 0));
  w.settle();
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.mm->stats().readahead_useless.load(), 8u);
  EXPECT_EQ(w.mm->stats().readahead_useful.load(), 0u);
}

// ---- fault-around

TEST(FaultAround, AMinorFaultMapsResidentNeighboursAndNoOthers) {
  World w(roomy(1));
  nothing_ahead(w);
  w.mm_config.readahead_max = 8 * kPageBytes;
  w.mm_config.fault_around = 8 * kPageBytes;
  AddressSpace& s = swapped_session(w, 0);
  EXPECT_EQ(w.read(s, 0, 0).value, value_of(0, 0));
  w.settle();
  ASSERT_EQ(count(w, s, 0, Place::kUnmapped, 1, 9), 8u);

  EXPECT_EQ(w.read(s, 0, 2).value, value_of(0, 2));
  w.settle();
  EXPECT_EQ(count(w, s, 0, Place::kMapped, 0, 8), 7u) << "the aligned window around page 2";
  EXPECT_EQ(w.page(s, 0, 4).place, Place::kUnmapped) << "the mark has to be touched itself";
  EXPECT_EQ(w.page(s, 0, 8).place, Place::kUnmapped) << "outside of the window";
  EXPECT_EQ(w.mm->stats().faults_minor.load(), 1u);
  for (const uint32_t i : {1u, 3u, 5u, 6u, 7u}) {
    EXPECT_EQ(w.read(s, 0, i).value, value_of(0, i));
  }
  EXPECT_EQ(w.mm->stats().faults_minor.load(), 1u) << "they were mapped along";
  w.check();
}

// ---- resume

TEST(Resume, OneTouchBringsAWholeSessionThatIsOut) {
  World w(roomy(2));
  nothing_ahead(w);
  w.mm_config.resume_prefetch = 1;
  AddressSpace& s = swapped_session(w, 0);
  EXPECT_EQ(w.read(s, 1, 7).value, value_of(1, 7));
  w.settle();
  EXPECT_EQ(count(w, s, 0, Place::kMapped), kPages);
  EXPECT_EQ(count(w, s, 1, Place::kMapped), kPages);
  EXPECT_EQ(w.mm->stats().prefetch_pages.load(), 2 * kPages - 1u);
  expect_values(w, s);
  EXPECT_EQ(w.mm->stats().faults_major.load(), 1u);
  w.check();
}

TEST(Resume, NotWhenItIsSwitchedOff) {
  World w(roomy(2));
  nothing_ahead(w);
  AddressSpace& s = swapped_session(w, 0);
  EXPECT_EQ(w.read(s, 1, 7).value, value_of(1, 7));
  w.settle();
  EXPECT_EQ(count(w, s, 0, Place::kSwapped), kPages);
  EXPECT_EQ(count(w, s, 1, Place::kSwapped), kPages - 1);
}

// ---- prefetch

TEST(Prefetch, ItsTokensAreThereInEveryPlaneWithoutAMajorFault) {
  World w(roomy(2));
  nothing_ahead(w);
  AddressSpace& s = swapped_session(w, 0);
  w.mm->prefetch(s, 8 * kTokensAPage, 16 * kTokensAPage, w.clock.now());
  w.settle();
  for (uint32_t plane = 0; plane < 2; ++plane) {
    EXPECT_EQ(count(w, s, plane, Place::kMapped, 8, 16), 8u) << plane;
    EXPECT_EQ(count(w, s, plane, Place::kSwapped), kPages - 8) << plane;
    for (uint32_t i = 8; i < 16; ++i) {
      EXPECT_EQ(w.read(s, plane, i).value, value_of(plane, i));
    }
  }
  EXPECT_EQ(w.mm->stats().prefetch_pages.load(), 16u);
  EXPECT_EQ(w.mm->stats().faults_major.load(), 0u);
  EXPECT_EQ(w.mm->stats().faults_minor.load(), 0u);
  w.check();
}

TEST(Prefetch, ATouchBeforeItsPageHasArrivedIsLate) {
  World w(roomy(1));
  nothing_ahead(w);
  AddressSpace& s = swapped_session(w, 0);
  w.mm->prefetch(s, 0, UINT64_MAX, w.clock.now());
  w.step();
  EXPECT_EQ(w.read(s, 0, 3).value, value_of(0, 3));
  EXPECT_EQ(w.mm->stats().prefetch_late.load(), 1u);
}

TEST(Prefetch, TheEarlierDeadlineArrivesFirst) {
  for (const bool early_asks_first : {false, true}) {
    SCOPED_TRACE(early_asks_first ? "early asks first" : "early asks last");
    World w(roomy(1));
    nothing_ahead(w);
    w.mm_config.prefetch_window = 2 * kPageBytes;  // two pages in flight: their order shows
    AddressSpace& early = swapped_session(w, 0);
    AddressSpace& late = swapped_session(w, 1);
    const Tick soon = w.clock.now() + millis(1);
    const Tick later = w.clock.now() + millis(100);
    if (early_asks_first) {
      w.mm->prefetch(early, 0, UINT64_MAX, soon);
      w.mm->prefetch(late, 0, UINT64_MAX, later);
    } else {
      w.mm->prefetch(late, 0, UINT64_MAX, later);
      w.mm->prefetch(early, 0, UINT64_MAX, soon);
    }
    w.step();
    while (count(w, early, 0, Place::kMapped) != kPages) {
      ASSERT_TRUE(w.pass());
      w.step();
    }
    EXPECT_GE(count(w, late, 0, Place::kSwapped), kPages - 2);
    w.settle();
    EXPECT_EQ(count(w, late, 0, Place::kMapped), kPages);
  }
}

// A second call while the first is on its way is not lost, wherever the first one is.
TEST(Prefetch, ASecondRangeOfTheSameSessionComesToo) {
  for (const uint32_t plane_0_done : {0u, 8u}) {
    SCOPED_TRACE(plane_0_done);
    World w(roomy(2));
    nothing_ahead(w);
    w.mm_config.prefetch_window = 2 * kPageBytes;
    AddressSpace& s = swapped_session(w, 0);
    w.mm->prefetch(s, 16 * kTokensAPage, 24 * kTokensAPage, w.clock.now());
    w.step();
    while (count(w, s, 0, Place::kMapped, 16, 24) < plane_0_done) {
      ASSERT_TRUE(w.pass());
      w.step();
    }
    ASSERT_NE(count(w, s, 1, Place::kMapped, 16, 24), 8u) << "the first one is still on its way";
    w.mm->prefetch(s, 0, 4 * kTokensAPage, w.clock.now());
    w.settle();
    for (uint32_t plane = 0; plane < 2; ++plane) {
      EXPECT_EQ(count(w, s, plane, Place::kMapped, 0, 4), 4u) << plane;
      EXPECT_EQ(count(w, s, plane, Place::kMapped, 16, 24), 8u) << plane;
      EXPECT_EQ(count(w, s, plane, Place::kSwapped, 24), kPages - 24) << plane;
    }
  }
}

// ---- frames ahead of need

TEST(ZeroAhead, FramesAreZeroedBeforeTheyAreNeeded) {
  for (const uint64_t target : {0u, 6u}) {
    World w(roomy(1));
    nothing_ahead(w);
    w.mm_config.zero_ahead = target;
    AddressSpace& s = w.open(0);
    EXPECT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
    w.settle();
    EXPECT_EQ(w.mm->zones().class_stats(Bytes(kPageBytes)).zeroed, target);
    EXPECT_EQ(w.read(s, 0, 1).value, 0u) << "a simulated frame is not zeros by itself";
    w.check();
  }
}

// reclaimd keeps a frame ready for one fault after another; many at once find none.
TEST(DirectReclaim, FaultsThatFindNoFrameReclaimForThemselves) {
  for (const uint32_t frames : {8u, 256u}) {
    WorldConfig c = roomy(1);
    c.frames = frames;
    World w(c);
    AddressSpace& s = w.open(0);
    for (uint32_t i = 0; i < 8; ++i) {
      ASSERT_EQ(w.write(s, 0, i, value_of(0, i)).access, SimAccess::kDone);
    }
    ASSERT_EQ(w.mm->stats().direct_reclaim.load(), 0u);
    for (uint32_t thread = 0; thread < 6; ++thread) {
      EXPECT_FALSE(w.start_read(s, 0, 8 + thread, thread));
    }
    w.settle();
    EXPECT_EQ(w.mmu->waiters(), 0u);
    EXPECT_EQ(w.mm->stats().direct_reclaim.load() > 0, frames == 8) << frames;
    for (uint32_t i = 0; i < 8; ++i) {
      EXPECT_EQ(w.read(s, 0, i).value, value_of(0, i));
    }
    w.check();
  }
}

}  // namespace
}  // namespace kvmm::test
