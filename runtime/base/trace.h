// SPDX-License-Identifier: Apache-2.0
//
// The trace ring: the last N events of a runtime, always on, for `kvctl trace` and for the moments
// before a stop.
//
//   tickets  ... 95 96 97 98 | 99 ->            a writer draws a ticket and writes slot ticket % N
//   slot     [ word | tick | event | five arguments ]     64 bytes, one cache line
//   word     0: never written     2t + 1: ticket t is being written     2t + 2: ticket t is whole
//
// Invariants
//   1. A slot is written by one thread at a time: a writer claims it by changing an even word of an
//      older ticket to its own odd word. A writer that finds the slot claimed, or already of a
//      later ticket (it slept for a whole round), gives its event up and counts it as `lost`.
//   2. A reader takes a slot only if the word says "ticket t is whole" before and after the copy:
//      records are whole or absent, never mixed.
//   3. Recording never waits, allocates nothing and makes no system call, so that the fault path
//      and code under any lock may do it.
//
// Thread safety: everything from any thread. Orders: the fields are stored with release and loaded
// with acquire, so that a reader that sees one new field also sees the odd word (H. Boehm, "Can
// seqlocks get along with programming language memory models?", 2012). On x86 these are plain
// moves.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/lazy_array.h"
#include "runtime/base/result.h"
#include "runtime/base/trace_events.h"
#include "runtime/base/units.h"

namespace kvmm {

inline constexpr size_t kTraceArgs = 5;
// More writers than that at once is not expected: an older record that is not whole was given up.
inline constexpr uint64_t kTraceUnsettled = 4;

enum class TraceEvent : uint16_t {
#define KVMM_X(name, a, b, c, d, e) name,
  KVMM_TRACE_EVENTS(KVMM_X)
#undef KVMM_X
};

struct TraceEventInfo {
  const char* name;
  std::array<const char*, kTraceArgs> args;  // "" : not used
};

#define KVMM_X(name, a, b, c, d, e) TraceEventInfo{#name, {a, b, c, d, e}},
inline constexpr std::array kTraceEvents = {KVMM_TRACE_EVENTS(KVMM_X)};
#undef KVMM_X
static_assert(kTraceEvents.size() <= 64, "one bit each in the mask of enabled events");

constexpr const TraceEventInfo& trace_event_info(TraceEvent e) {
  return kTraceEvents[static_cast<size_t>(e)];
}
// The event of that name. Errors: kNotFound.
Result<TraceEvent> trace_event_of(std::string_view name);

// Names with commas between, "all" or "none", as one bit each (1 << number). Errors: kNotFound.
Result<uint64_t> trace_events_of(std::string_view names);

// One event as a reader gets it.
struct TraceRecord {
  uint64_t ticket = 0;  // counts events from 0; a gap is an event that was overwritten or lost
  Tick tick;
  TraceEvent event = TraceEvent::fault_begin;
  std::array<uint64_t, kTraceArgs> args{};
};

class TraceRing {
 public:
  // `capacity`: records kept, a power of two from 8 to 2^24; 64 bytes each, committed on first use.
  // Errors: kInvalid, kNoMemory.
  static Result<TraceRing> create(size_t capacity);
  TraceRing(TraceRing&& o) noexcept;  // REQUIRES: nobody uses `o`
  TraceRing& operator=(TraceRing&&) = delete;

  // Does nothing if the event is not enabled.
  void record(Tick tick, TraceEvent event, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0,
              uint64_t d = 0, uint64_t e = 0) noexcept;

  // Copies whole records with tickets >= `from`, oldest first, as many as fit. Returns how many;
  // `next` receives the ticket to go on from. It stops before a record that is being written right
  // now, if that is one of the newest kTraceUnsettled: the next call has it. Others are passed
  // over.
  size_t read(uint64_t from, std::span<TraceRecord> out, uint64_t& next) const noexcept;

  // All are enabled at first.
  void enable(TraceEvent event, bool on) noexcept;
  bool enabled(TraceEvent event) const noexcept {
    return (enabled_.load(std::memory_order_relaxed) & bit(event)) != 0;
  }

  size_t capacity() const noexcept { return slots_.size(); }
  // Tickets drawn so far.
  uint64_t recorded() const noexcept { return next_.load(std::memory_order_relaxed); }
  // Events given up because their slot was being written (invariant 1).
  uint64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> word;
    std::atomic<uint64_t> tick;
    std::atomic<uint64_t> event;
    std::array<std::atomic<uint64_t>, kTraceArgs> args;
  };
  static_assert(sizeof(Slot) == 64, "one cache line");

  explicit TraceRing(LazyArray<Slot> slots) : slots_(std::move(slots)) {}
  static constexpr uint64_t bit(TraceEvent e) { return uint64_t{1} << static_cast<unsigned>(e); }

  LazyArray<Slot> slots_;  // constant after construction; the slots are atomic
  // Atomic because any thread draws tickets; on a line of its own because all of them do.
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<uint64_t> enabled_{UINT64_MAX};  // written by the control plane
  std::atomic<uint64_t> lost_{0};
};

}  // namespace kvmm
