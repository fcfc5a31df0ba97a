// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/trace.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace kvmm {
namespace {

TraceRing ring_of(size_t capacity) {
  Result<TraceRing> ring = TraceRing::create(capacity);
  EXPECT_TRUE(ring) << ring.error().message();
  return *std::move(ring);
}

TEST(Trace, EventsHaveDifferentNames) {
  std::set<std::string> names;
  for (size_t i = 0; i < kTraceEvents.size(); ++i) {
    EXPECT_TRUE(names.insert(kTraceEvents[i].name).second) << kTraceEvents[i].name;
    Result<TraceEvent> e = trace_event_of(kTraceEvents[i].name);
    ASSERT_TRUE(e);
    EXPECT_EQ(static_cast<size_t>(*e), i);
  }
  EXPECT_EQ(trace_event_of("no_such_event").code(), Errc::kNotFound);
  EXPECT_STREQ(trace_event_info(TraceEvent::swap_out).name, "swap_out");
}

TEST(Trace, ReadsListsOfNames) {
  EXPECT_EQ(*trace_events_of("none"), 0U);
  EXPECT_EQ(*trace_events_of(""), 0U);
  EXPECT_EQ(*trace_events_of("all"), (uint64_t{1} << kTraceEvents.size()) - 1);
  EXPECT_EQ(*trace_events_of("fault_begin,map"),
            1U | uint64_t{1} << static_cast<unsigned>(TraceEvent::map));
  for (const char* bad : {"x", "map,", ",map", "map,,pin", "map, pin", "all,map", "none,map"}) {
    EXPECT_EQ(trace_events_of(bad).code(), Errc::kNotFound) << bad;
  }
}

TEST(Trace, RefusesCapacitiesThatAreNone) {
  for (const size_t n : {size_t{0}, size_t{4}, size_t{12}, size_t{1} << 25}) {
    EXPECT_EQ(TraceRing::create(n).code(), Errc::kInvalid) << n;
  }
}

TEST(Trace, ReadsWhatWasRecordedOldestFirst) {
  TraceRing ring = ring_of(8);
  std::vector<TraceRecord> out(16);
  uint64_t next = 99;
  EXPECT_EQ(ring.read(0, out, next), 0U);
  EXPECT_EQ(next, 0U);
  ring.record(Tick(10), TraceEvent::fault_begin, 1, 2, 3, 4, 5);
  ring.record(Tick(20), TraceEvent::fault_end, 6);
  ASSERT_EQ(ring.read(0, out, next), 2U);
  EXPECT_EQ(next, 2U);
  EXPECT_EQ(out[0].ticket, 0U);
  EXPECT_EQ(out[0].tick, Tick(10));
  EXPECT_EQ(out[0].event, TraceEvent::fault_begin);
  EXPECT_EQ(out[0].args, (std::array<uint64_t, kTraceArgs>{1, 2, 3, 4, 5}));
  EXPECT_EQ(out[1].event, TraceEvent::fault_end);
  EXPECT_EQ(out[1].args, (std::array<uint64_t, kTraceArgs>{6, 0, 0, 0, 0}));
}

TEST(Trace, OverwritesTheOldest) {
  TraceRing ring = ring_of(8);
  for (uint64_t i = 0; i < 21; ++i) {
    ring.record(Tick(i), TraceEvent::map, i);
  }
  std::vector<TraceRecord> out(16);
  uint64_t next = 0;
  ASSERT_EQ(ring.read(0, out, next), 8U);
  EXPECT_EQ(next, 21U);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(out[i].ticket, 13 + i);
    EXPECT_EQ(out[i].args[0], 13 + i);
  }
  EXPECT_EQ(ring.recorded(), 21U);
  EXPECT_EQ(ring.lost(), 0U);
}

TEST(Trace, IsReadInPieces) {
  TraceRing ring = ring_of(16);
  for (uint64_t i = 0; i < 10; ++i) {
    ring.record(Tick(i), TraceEvent::unmap, i);
  }
  std::vector<TraceRecord> out(4);
  uint64_t next = 0;
  std::vector<uint64_t> seen;
  for (size_t n = ring.read(next, out, next); n != 0; n = ring.read(next, out, next)) {
    for (size_t i = 0; i < n; ++i) {
      seen.push_back(out[i].args[0]);
    }
  }
  EXPECT_EQ(seen, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(next, 10U);
}

TEST(Trace, RecordsOnlyWhatIsEnabled) {
  TraceRing ring = ring_of(8);
  EXPECT_TRUE(ring.enabled(TraceEvent::swap_in));
  ring.enable(TraceEvent::swap_in, false);
  EXPECT_FALSE(ring.enabled(TraceEvent::swap_in));
  EXPECT_TRUE(ring.enabled(TraceEvent::swap_out));
  ring.record(Tick(1), TraceEvent::swap_in);
  ring.record(Tick(2), TraceEvent::swap_out);
  EXPECT_EQ(ring.recorded(), 1U);
  ring.enable(TraceEvent::swap_in, true);
  ring.record(Tick(3), TraceEvent::swap_in);
  EXPECT_EQ(ring.recorded(), 2U);
}

TEST(Trace, MovesWithItsContent) {
  TraceRing ring = ring_of(8);
  ring.enable(TraceEvent::pin, false);
  ring.record(Tick(1), TraceEvent::swap_out, 7);
  TraceRing moved(std::move(ring));
  std::vector<TraceRecord> out(8);
  uint64_t next = 0;
  ASSERT_EQ(moved.read(0, out, next), 1U);
  EXPECT_EQ(out[0].args[0], 7U);
  EXPECT_FALSE(moved.enabled(TraceEvent::pin));
}

// Writers put the same number into every field; a record whose fields differ was torn. The ring is
// small, so that writers meet in the same slot and the reader meets writers all the time.
TEST(Trace, ReadersNeverSeeATornRecord) {
  TraceRing ring = ring_of(8);
  constexpr uint64_t kWriters = 3;
  constexpr uint64_t kRounds = 30000;
  std::atomic<uint64_t> running{kWriters};
  std::vector<std::thread> writers;
  for (uint64_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&ring, &running, w] {
      for (uint64_t i = 0; i < kRounds; ++i) {
        const uint64_t v = w * kRounds + i;
        ring.record(Tick(v), TraceEvent::zero_fill, v, v, v, v, v);
      }
      running.fetch_sub(1);
    });
  }
  uint64_t whole = 0;
  uint64_t torn = 0;
  uint64_t last = 0;
  bool ascending = true;
  std::vector<TraceRecord> out(8);
  uint64_t next = 0;
  bool more = true;
  while (more) {
    more = running.load() != 0;  // one more round after the last writer
    const size_t n = ring.read(next, out, next);
    for (size_t i = 0; i < n; ++i) {
      const TraceRecord& r = out[i];
      bool same = r.event == TraceEvent::zero_fill;
      for (const uint64_t a : r.args) {
        same = same && a == r.tick.value();
      }
      torn += same ? 0 : 1;
      whole += same ? 1 : 0;
      ascending = ascending && (whole == 1 || r.ticket > last);
      last = r.ticket;
    }
  }
  for (std::thread& t : writers) {
    t.join();
  }
  EXPECT_EQ(torn, 0U);
  EXPECT_TRUE(ascending);
  EXPECT_EQ(ring.recorded(), kWriters * kRounds);
  // Nothing is being written any more: every slot of the last round is whole or was given up.
  const size_t left = ring.read(0, out, next);
  EXPECT_LE(left, 8U);
  EXPECT_GE(left + ring.lost(), 8U);
}

}  // namespace
}  // namespace kvmm
