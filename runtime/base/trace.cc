// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/trace.h"

#include <bit>
#include <string>
#include <utility>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

constexpr size_t kCapacityMin = 8;
constexpr size_t kCapacityMax = size_t{1} << 24;

constexpr uint64_t being_written(uint64_t ticket) {
  return 2 * ticket + 1;
}
constexpr uint64_t whole(uint64_t ticket) {
  return 2 * ticket + 2;
}

}  // namespace

Result<TraceEvent> trace_event_of(std::string_view name) {
  for (size_t i = 0; i < kTraceEvents.size(); ++i) {
    if (name == kTraceEvents[i].name) {
      return static_cast<TraceEvent>(i);
    }
  }
  std::string known;
  for (const TraceEventInfo& event : kTraceEvents) {
    known += std::string(known.empty() ? "" : ", ") + event.name;
  }
  return Error(Errc::kNotFound, "no trace event '" + std::string(name) + "'; there are: " + known);
}

Result<uint64_t> trace_events_of(std::string_view names) {
  if (names == "all") {
    return UINT64_MAX >> (64 - kTraceEvents.size());
  }
  uint64_t mask = 0;
  while (!names.empty() && names != "none") {
    const std::string_view name = names.substr(0, names.find(','));
    const Result<TraceEvent> event = trace_event_of(name);
    if (!event) {
      return event.error();
    }
    mask |= uint64_t{1} << static_cast<unsigned>(*event);
    names.remove_prefix(name.size());
    if (!names.empty()) {
      names.remove_prefix(1);  // a comma: another name follows
      if (names.empty()) {
        return Error(Errc::kNotFound, "a trace event's name is missing behind the last comma");
      }
    }
  }
  return mask;
}

Result<TraceRing> TraceRing::create(size_t capacity) {
  if (!std::has_single_bit(capacity) || capacity < kCapacityMin || capacity > kCapacityMax) {
    return Error(Errc::kInvalid, "a trace ring has a power of two from 8 to 2^24 records, not " +
                                     std::to_string(capacity));
  }
  Result<LazyArray<Slot>> slots = LazyArray<Slot>::create(capacity);
  if (!slots) {
    return slots.error();
  }
  return TraceRing(*std::move(slots));
}

TraceRing::TraceRing(TraceRing&& o) noexcept
    : slots_(std::move(o.slots_)),
      next_(o.next_.load(std::memory_order_relaxed)),
      enabled_(o.enabled_.load(std::memory_order_relaxed)),
      lost_(o.lost_.load(std::memory_order_relaxed)) {}

void TraceRing::record(Tick tick, TraceEvent event, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                       uint64_t e) noexcept {
  check(static_cast<size_t>(event) < kTraceEvents.size(), "an event of the list", event,
        kTraceEvents.size());
  if (!enabled(event)) {
    return;
  }
  const uint64_t ticket = next_.fetch_add(1, std::memory_order_relaxed);
  Slot& slot = slots_[ticket & (slots_.size() - 1)];
  uint64_t word = slot.word.load(std::memory_order_relaxed);
  const bool writable = (word & 1) == 0 && word < being_written(ticket);
  // Acquire: this writer's stores come after those of the writer before it.
  if (!writable ||
      !slot.word.compare_exchange_strong(word, being_written(ticket), std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
    lost_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  slot.tick.store(tick.value(), std::memory_order_release);
  slot.event.store(static_cast<uint64_t>(event), std::memory_order_release);
  const std::array<uint64_t, kTraceArgs> args = {a, b, c, d, e};
  for (size_t i = 0; i < kTraceArgs; ++i) {
    slot.args[i].store(args[i], std::memory_order_release);
  }
  slot.word.store(whole(ticket), std::memory_order_release);
}

size_t TraceRing::read(uint64_t from, std::span<TraceRecord> out, uint64_t& next) const noexcept {
  const uint64_t end = next_.load(std::memory_order_acquire);
  const uint64_t oldest = end > slots_.size() ? end - slots_.size() : 0;
  uint64_t ticket = from > oldest ? from : oldest;
  size_t n = 0;
  for (; ticket < end && n < out.size(); ++ticket) {
    const Slot& slot = slots_[ticket & (slots_.size() - 1)];
    const uint64_t word = slot.word.load(std::memory_order_acquire);
    if (word != whole(ticket)) {
      if (word < whole(ticket) && end - ticket <= kTraceUnsettled) {
        break;
      }
      continue;
    }
    TraceRecord& r = out[n];
    r.ticket = ticket;
    r.tick = Tick(slot.tick.load(std::memory_order_acquire));
    r.event = static_cast<TraceEvent>(slot.event.load(std::memory_order_acquire));
    for (size_t i = 0; i < kTraceArgs; ++i) {
      r.args[i] = slot.args[i].load(std::memory_order_acquire);
    }
    // A writer that came in between left its odd word, or a later even one.
    if (slot.word.load(std::memory_order_relaxed) == whole(ticket)) {
      ++n;
    }
  }
  next = ticket;
  return n;
}

void TraceRing::enable(TraceEvent event, bool on) noexcept {
  if (on) {
    enabled_.fetch_or(bit(event), std::memory_order_relaxed);
  } else {
    enabled_.fetch_and(~bit(event), std::memory_order_relaxed);
  }
}

}  // namespace kvmm
