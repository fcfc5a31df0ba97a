// SPDX-License-Identifier: Apache-2.0
//
// What the memory manager tells those who look: each step of a fault once, in order, with the time
// at which it happened; and the figures made of it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

WorldConfig small(uint32_t frames = 8) {
  WorldConfig c;
  c.frames = frames;
  c.lanes = 2;
  c.stacked_disk = true;
  return c;
}

// What was recorded since `from`, which goes on behind it.
std::vector<TraceRecord> events_since(const World& w, uint64_t& from) {
  std::vector<TraceRecord> all(w.ring.capacity());
  all.resize(w.ring.read(from, all, from));
  return all;
}

std::string names_of(const std::vector<TraceRecord>& events) {
  std::string names;
  for (const TraceRecord& r : events) {
    names += std::string(names.empty() ? "" : " ") + trace_event_info(r.event).name;
  }
  return names;
}

TraceRecord only(const std::vector<TraceRecord>& events, TraceEvent event) {
  TraceRecord found;
  int n = 0;
  for (const TraceRecord& r : events) {
    if (r.event == event) {
      found = r;
      ++n;
    }
  }
  EXPECT_EQ(n, 1) << trace_event_info(event).name << " in " << names_of(events);
  return found;
}

TEST(TraceOfMm, AMajorFaultTellsEachOfItsSteps) {
  World w(small());
  w.mm_config.readahead_max = 0;
  w.mm_config.resume_prefetch = 0;
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 1, 3, 77).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  const uint64_t slot = w.page(s, 1, 3).slot;
  uint64_t from = w.ring.recorded();
  ASSERT_EQ(w.read(s, 1, 3).access, SimAccess::kDone);
  w.settle();
  const std::vector<TraceRecord> events = events_since(w, from);
  EXPECT_EQ(names_of(events),
            "fault_begin frame read io_submit io_done checksummed swap_in map fault_end");
  Tick last;
  for (const TraceRecord& r : events) {
    EXPECT_EQ(r.args[0], s.id()) << trace_event_info(r.event).name;
    EXPECT_EQ(r.args[1], trace_page(1, 3)) << trace_event_info(r.event).name;
    EXPECT_GE(r.tick, last);
    last = r.tick;
  }
  const TraceRecord begin = only(events, TraceEvent::fault_begin);
  EXPECT_EQ(begin.args[3], 0u);
  EXPECT_EQ(begin.args[4], static_cast<uint64_t>(FaultKind::kMajor));
  EXPECT_EQ(only(events, TraceEvent::read).args[2], slot);
  EXPECT_EQ(only(events, TraceEvent::swap_in).args[3], 0u);
  const TraceRecord end = only(events, TraceEvent::fault_end);
  EXPECT_EQ(end.args[2], static_cast<uint64_t>(Errc::kOk));
  EXPECT_EQ(end.args[3], (end.tick - begin.tick).value());
  EXPECT_GT(end.args[3], 0u) << "the simulated disk takes time";
  const HistogramSnapshot major =
      w.mm->stats().fault_ns[static_cast<size_t>(FaultKind::kMajor)].snapshot();
  EXPECT_EQ(major.count, 1u);
  EXPECT_EQ(major.sum, end.args[3]);
}

TEST(TraceOfMm, MinorAndZeroFaultsAreTimedByKind) {
  World w(small());
  w.mm_config.fault_around = 0;
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  const auto count = [&](FaultKind kind) {
    return w.mm->stats().fault_ns[static_cast<size_t>(kind)].snapshot().count;
  };
  EXPECT_EQ(count(FaultKind::kZero), w.mm->stats().faults_zero.load());
  EXPECT_EQ(count(FaultKind::kZero), 1u);
  EXPECT_EQ(count(FaultKind::kMinor), 0u);
  uint64_t from = w.ring.recorded();
  w.mm->evict(s);  // unmapped at once; the touch takes it back before it is written
  ASSERT_EQ(w.read(s, 0, 0).access, SimAccess::kDone);
  w.settle();
  const std::vector<TraceRecord> events = events_since(w, from);
  const auto kind = static_cast<FaultKind>(only(events, TraceEvent::fault_begin).args[4]);
  EXPECT_TRUE(kind == FaultKind::kMinor || kind == FaultKind::kSpurious);
  EXPECT_EQ(count(kind), kind == FaultKind::kMinor ? 1u : 0u);
}

TEST(TraceOfMm, AWrongPageSaysSoAndTheFaultEndsWithTheReason) {
  World w(small());
  w.mm_config.readahead_max = 0;
  w.mm_config.resume_prefetch = 0;
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 0, 5).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  std::array<std::byte, 1> flipped{std::byte{1}};
  w.disk->poke(w.slot_offset(w.page(s, 0, 0)) + 100, flipped);
  uint64_t from = w.ring.recorded();
  EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
  const std::vector<TraceRecord> events = events_since(w, from);
  EXPECT_EQ(names_of(events),
            "fault_begin frame read io_submit io_done checksummed swap_in verify_fail "
            "frame read io_submit io_done checksummed swap_in verify_fail poison fault_end");
  EXPECT_EQ(only(events, TraceEvent::fault_end).args[2], static_cast<uint64_t>(Errc::kRecompute));
}

TEST(TraceOfMm, AVictimNamesWhoNeedsItsFrame) {
  World w(small(4));
  AddressSpace& owner = w.open(0);
  AddressSpace& taker = w.open(1);
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_EQ(w.write(owner, 0, i, i).access, SimAccess::kDone);
  }
  uint64_t from = w.ring.recorded();
  for (uint32_t i = 0; i < 4; ++i) {
    w.start_read(taker, 0, i, i);  // all at once: more than the frames that are kept free
  }
  w.settle();
  bool named = false;
  for (const TraceRecord& r : events_since(w, from)) {
    if (r.event == TraceEvent::victim && r.args[0] == owner.id()) {
      named = named || r.args[2] == taker.id();
      EXPECT_LT(r.args[3], 5u) << "a pass of reclaim.cc";
    }
  }
  EXPECT_TRUE(named);
}

TEST(OpenFaultsTable, KeepsTheFirstTouchAndCountsWhatItCannotTime) {
  OpenFaults faults;
  std::array<Page, 4096> pages;
  OpenFaults::Entry f;
  EXPECT_FALSE(faults.end(&pages[0], &f));
  faults.begin({&pages[0], 1, 10, Tick(5), FaultKind::kMajor});
  faults.begin({&pages[0], 1, 10, Tick(9), FaultKind::kSpurious});
  EXPECT_EQ(faults.count(), 1u);
  ASSERT_TRUE(faults.end(&pages[0], &f));
  EXPECT_EQ(f.began, Tick(5));
  EXPECT_EQ(f.kind, FaultKind::kMajor);
  EXPECT_FALSE(faults.end(&pages[0], &f));
  for (Page& p : pages) {
    faults.begin({&p, 1, 0, Tick(10), FaultKind::kZero});
  }
  EXPECT_EQ(faults.count() + faults.untimed(), pages.size());
  EXPECT_GT(faults.count(), 64u) << "places are used";
  // Their pages are gone without an end: a minute later the places are taken over.
  const uint64_t untimed = faults.untimed();
  faults.begin({&pages[7], 2, 0, Tick(10) + millis(60'000), FaultKind::kMinor});
  EXPECT_EQ(faults.untimed(), untimed);
  ASSERT_TRUE(faults.end(&pages[7], &f));
  EXPECT_EQ(f.session, 2u);
}

}  // namespace
}  // namespace kvmm::test
