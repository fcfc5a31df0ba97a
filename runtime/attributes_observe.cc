// SPDX-License-Identifier: Apache-2.0
//
// Attributes for those who look: how long faults and swap I/O take, and what the trace records.
#include <fmt/format.h>

#include "runtime/attributes.h"
#include "runtime/report.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr AttrDef kLatency{
    .pattern = "latency",
    .type = AttrType::kText,
    .help = "times since the start, a line each: name, count, sum, max, buckets as le:count"};
constexpr AttrDef kEvents{.pattern = "trace/events",
                          .mode = AttrMode::kReadWrite,
                          .type = AttrType::kString,
                          .fallback = "all",
                          .help = "what is recorded: all, none, or names with commas between"};
constexpr AttrDef kCapacity{.pattern = "trace/capacity",
                            .type = AttrType::kU64,
                            .unit = "events",
                            .help = "how many of the newest events are kept"};
constexpr AttrDef kRecorded{.pattern = "trace/recorded",
                            .type = AttrType::kU64,
                            .unit = "events",
                            .help = "events recorded since the start"};
constexpr AttrDef kLost{.pattern = "trace/lost",
                        .type = AttrType::kU64,
                        .unit = "events",
                        .help = "of these, given up because their place was being written"};

constexpr const AttrDef* kAll[] = {&kLatency, &kEvents, &kCapacity, &kRecorded, &kLost};

std::string events_text(const TraceRing& ring) {
  std::string on;
  size_t n = 0;
  for (size_t i = 0; i < kTraceEvents.size(); ++i) {
    if (ring.enabled(static_cast<TraceEvent>(i))) {
      on += (n++ == 0 ? "" : ",") + std::string(kTraceEvents[i].name);
    }
  }
  return n == kTraceEvents.size() ? "all" : n == 0 ? "none" : on;
}

}  // namespace

Result<void> RuntimeAttributes::declare_observe() {
  return runtime_.attributes().declare(kAll);
}

Result<void> RuntimeAttributes::publish_observe() {
  Runtime& r = runtime_;
  TraceRing& ring = *r.trace_;
  const auto count = [](const AttrDef& def, const std::function<uint64_t()>& get) {
    return AttrLeaf{&def, [get]() -> Result<AttrValue> { return AttrValue::of(get()); }};
  };
  if (auto ok = add("", {attr_text(kLatency,
                                   [&r]() -> Result<std::string> {
                                     return latency_text(r.core().stats());
                                   })});
      !ok) {
    return ok;
  }
  return add("trace", {{&kEvents,
                        [&ring]() -> Result<AttrValue> { return AttrValue::of(events_text(ring)); },
                        [&ring](const AttrValue& v) -> Result<void> {
                          const Result<uint64_t> mask = trace_events_of(v.text);
                          if (!mask) {
                            return mask.error();
                          }
                          for (size_t i = 0; i < kTraceEvents.size(); ++i) {
                            ring.enable(static_cast<TraceEvent>(i), (*mask >> i & 1) != 0);
                          }
                          return {};
                        }},
                       count(kCapacity, [&ring] { return uint64_t{ring.capacity()}; }),
                       count(kRecorded, [&ring] { return ring.recorded(); }),
                       count(kLost, [&ring] { return ring.lost(); })});
}

}  // namespace kvmm
