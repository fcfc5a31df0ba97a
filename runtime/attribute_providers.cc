// SPDX-License-Identifier: Apache-2.0
#include "runtime/attribute_providers.h"

#include <fmt/format.h>

#include <charconv>

#include "runtime/report.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr AttrMode kRw = AttrMode::kReadWrite;

bool parse_id(std::string_view text, uint64_t* id) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), *id);
  return failed == std::errc() && end == text.data() + text.size();
}

std::vector<std::string> as_text(const std::vector<uint64_t>& ids) {
  std::vector<std::string> out;
  for (const uint64_t id : ids) {
    out.push_back(std::to_string(id));
  }
  return out;
}

bool has(const std::vector<std::string>& all, std::string_view one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

#define KVMM_DEF(var, path, t, text)                   \
  constexpr AttrDef var {                              \
    .pattern = path, .type = AttrType::t, .help = text \
  }

// ---- arenas
KVMM_DEF(kArenaName, "arenas/<id>/name", kString, "name given by the engine");
KVMM_DEF(kModel, "arenas/<id>/model", kString,
         "model_id in hex; a random one ends with the process");
KVMM_DEF(kLayout, "arenas/<id>/layout", kString, "layout given by the engine");
KVMM_DEF(kPlacement, "arenas/<id>/placement", kString, "strided or contiguous");
KVMM_DEF(kLanes, "arenas/<id>/lanes", kU64, "sessions that fit at once");
KVMM_DEF(kPlanes, "arenas/<id>/planes", kText,
         "planes, a line each: name, base, lane stride, token stride, page size");
KVMM_DEF(kRanges, "arenas/<id>/ranges", kText, "address ranges, a line each: start-end in hex");
// ---- sessions
constexpr const char* kAdvices[] = {"normal", "running", "idle", "evict", "durable"};
KVMM_DEF(kSessionName, "sessions/<id>/name", kString, "name given by the engine");
KVMM_DEF(kTenant, "sessions/<id>/tenant", kString, "tenant that is charged");
KVMM_DEF(kSessionArena, "sessions/<id>/arena", kU64, "arena that it is in");
KVMM_DEF(kLane, "sessions/<id>/lane", kU64, "lane of the arena");
KVMM_DEF(kKind, "sessions/<id>/kind", kString, "structured or raw");
KVMM_DEF(kState, "sessions/<id>/state", kString, "open, or closing while its pages are dropped");
constexpr AttrDef kAdvice{.pattern = "sessions/<id>/advice",
                          .mode = kRw,
                          .type = AttrType::kEnum,
                          .choices = kAdvices,
                          .fallback = "normal",
                          .help = "how reclaim treats it; evict: all its frames out now, then idle",
                          .config = AttrConfig::kNever};
KVMM_DEF(kTokens, "sessions/<id>/tokens", kU64, "tokens appended; raw: 0");
KVMM_DEF(kResident, "sessions/<id>/bytes_resident", kBytes, "pages that have a frame");
KVMM_DEF(kSwapped, "sessions/<id>/bytes_swapped", kBytes, "pages that are only in a swap area");
KVMM_DEF(kGone, "sessions/<id>/bytes_discarded", kBytes, "pages whose content is gone");
KVMM_DEF(kMaps, "sessions/<id>/maps", kText,
         "a line each VMA: range, rights, page size, plane, object, pages by place");
KVMM_DEF(kSmaps, "sessions/<id>/smaps", kText, "per VMA its range, then bytes by what they are");
KVMM_DEF(kPagemap, "sessions/<id>/pagemap", kText, "one character a page");
KVMM_DEF(kStat, "sessions/<id>/stat", kText, "counters, a line each: name and value");
// ---- swap
KVMM_DEF(kPath, "swap/<dev>/path", kString, "file or block device");
KVMM_DEF(kDriver, "swap/<dev>/driver", kString, "driver that reads and writes it");
KVMM_DEF(kSize, "swap/<dev>/size", kBytes, "bytes for pages");
KVMM_DEF(kUsed, "swap/<dev>/used", kBytes, "bytes of slots in use");
KVMM_DEF(kPriority, "swap/<dev>/priority", kString, "areas of higher priority are used first");
KVMM_DEF(kErrors, "swap/<dev>/errors", kU64, "pages' reads and writes, and flushes, that failed");
KVMM_DEF(kGrown, "swap/<dev>/grown", kBytes, "bytes for pages that take place on the device now");
KVMM_DEF(kRetired, "swap/<dev>/retired", kBytes, "bytes of slots that failed and are not used");
KVMM_DEF(kLost, "swap/<dev>/lost", kU64, "pages that were only here and could not be read");
KVMM_DEF(kHealth, "swap/<dev>/health", kString, "ok, slow, failing, draining or gone");
constexpr AttrDef kDiscard{.pattern = "swap/<dev>/discard",
                           .mode = kRw,
                           .type = AttrType::kBool,
                           .fallback = "on",
                           .help = "whether freed extents are given back to the device",
                           .config = AttrConfig::kNever};
KVMM_DEF(kReadP50, "swap/<dev>/read_p50", kDuration, "median of its reads");
KVMM_DEF(kReadP99, "swap/<dev>/read_p99", kDuration, "99th percentile of its reads");
KVMM_DEF(kWriteP50, "swap/<dev>/write_p50", kDuration, "median of its writes");
KVMM_DEF(kWriteP99, "swap/<dev>/write_p99", kDuration, "99th percentile of its writes");
KVMM_DEF(kLatency, "swap/<dev>/latency", kDuration, "average that its health is judged by");
#undef KVMM_DEF

}  // namespace

// ------------------------------------------------------------------------------------ arenas

std::vector<const AttrDef*> RuntimeAttributes::Arenas::defs() {
  return {&kArenaName, &kModel, &kLayout, &kPlacement, &kLanes, &kPlanes, &kRanges};
}
std::vector<std::string> RuntimeAttributes::Arenas::entries() {
  return as_text(runtime_.arena_ids());
}
bool RuntimeAttributes::Arenas::contains(std::string_view entry) {
  return has(entries(), entry);
}

Result<AttrValue> RuntimeAttributes::Arenas::get(std::string_view entry, const AttrDef& def) {
  uint64_t id = 0;
  if (!parse_id(entry, &id)) {
    return Errc::kNotFound;
  }
  return runtime_.with_arena(id, [&](const Arena& a) -> Result<AttrValue> {
    if (&def == &kArenaName) {
      return AttrValue::of(a.spec.name);
    }
    if (&def == &kModel) {
      std::string hex;
      for (const uint8_t b : a.spec.model_id) {
        hex += fmt::format("{:02x}", b);
      }
      return AttrValue::of(a.spec.model_is_random ? "random:" + hex : hex);
    }
    if (&def == &kLayout) {
      return AttrValue::of(a.spec.layout);
    }
    if (&def == &kPlacement) {
      return AttrValue::of(
          std::string(a.spec.placement == Placement::kStrided ? "strided" : "contiguous"));
    }
    if (&def == &kLanes) {
      return AttrValue::of(a.spec.lanes);
    }
    std::string text;
    if (&def == &kPlanes) {
      for (const PlaneSpec& p : a.planes) {
        text += fmt::format("{} {:x} {} {} {}\n", p.name, p.base.value(), p.lane_stride.value(),
                            p.token_stride.value(), p.page_size.value());
      }
    } else {
      for (const AddressRange& r : a.ranges) {
        text += fmt::format("{:x}-{:x}\n", r.start.value(), r.end().value());
      }
    }
    return AttrValue::of(text);
  });
}

Result<void> RuntimeAttributes::Arenas::set(std::string_view, const AttrDef&, const AttrValue&) {
  return Errc::kPermission;
}

// ------------------------------------------------------------------------------------ sessions

std::vector<const AttrDef*> RuntimeAttributes::Sessions::defs() {
  return {&kSessionName, &kTenant,  &kSessionArena, &kLane, &kKind,  &kState,   &kAdvice, &kTokens,
          &kResident,    &kSwapped, &kGone,         &kMaps, &kSmaps, &kPagemap, &kStat};
}
std::vector<std::string> RuntimeAttributes::Sessions::entries() {
  return as_text(runtime_.session_ids());
}
bool RuntimeAttributes::Sessions::contains(std::string_view entry) {
  return has(entries(), entry);
}

Result<AttrValue> RuntimeAttributes::Sessions::get(std::string_view entry, const AttrDef& def) {
  uint64_t id = 0;
  if (!parse_id(entry, &id)) {
    return Errc::kNotFound;
  }
  auto text = [](Result<std::string> r) -> Result<AttrValue> {
    if (!r) {
      return r.error();
    }
    return AttrValue::of(std::move(*r));
  };
  if (&def == &kMaps) {
    return text(maps_text(runtime_.core(), id));
  }
  if (&def == &kSmaps) {
    return text(smaps_text(runtime_.core(), runtime_.tiers(), id));
  }
  if (&def == &kPagemap) {
    return text(pagemap_text(runtime_.core(), id));
  }
  if (&def == &kStat) {
    return text(session_stat_text(runtime_.core(), id));
  }
  return runtime_.with_session(id, [&](AddressSpace& s) -> Result<AttrValue> {
    if (&def == &kSessionName) {
      return AttrValue::of(s.spec().name);
    }
    if (&def == &kTenant) {
      return AttrValue::of(s.spec().tenant);
    }
    if (&def == &kSessionArena) {
      return AttrValue::of(s.arena().spec.id);
    }
    if (&def == &kLane) {
      return AttrValue::of(s.spec().lane);
    }
    if (&def == &kKind) {
      return AttrValue::of(std::string(s.raw() ? "raw" : "structured"));
    }
    if (&def == &kTokens) {
      return AttrValue::of(s.stats.tokens.load(std::memory_order_relaxed));
    }
    if (&def == &kResident) {
      return AttrValue::of(s.stats.bytes_resident.load(std::memory_order_relaxed));
    }
    if (&def == &kSwapped) {
      return AttrValue::of(s.stats.bytes_swapped.load(std::memory_order_relaxed));
    }
    if (&def == &kGone) {
      return AttrValue::of(s.stats.bytes_discarded.load(std::memory_order_relaxed));
    }
    bool closing = false;
    Advice advice = Advice::kNormal;
    runtime_.core().query([&](Mm&) {
      closing = s.closing;
      advice = s.advice;
    });
    if (&def == &kState) {
      return AttrValue::of(std::string(closing ? "closing" : "open"));
    }
    switch (advice) {
      case Advice::kNormal:
        return AttrValue::of(uint64_t{0});
      case Advice::kRunning:
        return AttrValue::of(uint64_t{1});
      case Advice::kIdle:
        return AttrValue::of(uint64_t{2});
      case Advice::kDurable:
        return AttrValue::of(uint64_t{4});
    }
    return Errc::kInvalid;
  });
}

Result<void> RuntimeAttributes::Sessions::set(std::string_view entry, const AttrDef& def,
                                              const AttrValue& value) {
  uint64_t id = 0;
  if (&def != &kAdvice || !parse_id(entry, &id)) {
    return Errc::kPermission;
  }
  auto done = runtime_.with_session(id, [&](AddressSpace& s) -> Result<AttrValue> {
    runtime_.core().query([&](Mm& mm) {
      switch (value.number) {
        case 1:
          return mm.advise(s, Advice::kRunning);
        case 2:
          return mm.advise(s, Advice::kIdle);
        case 3:
          mm.advise(s, Advice::kIdle);
          return mm.evict(s);
        case 4:
          return mm.advise(s, Advice::kDurable);
        default:
          return mm.advise(s, Advice::kNormal);
      }
    });
    return AttrValue();
  });
  return done ? Result<void>() : Result<void>(done.error());
}

// ------------------------------------------------------------------------------------ swap

std::vector<const AttrDef*> RuntimeAttributes::Swap::defs() {
  return {&kPath,    &kDriver, &kSize, &kGrown,   &kUsed,    &kRetired,  &kPriority, &kHealth,
          &kDiscard, &kErrors, &kLost, &kReadP50, &kReadP99, &kWriteP50, &kWriteP99, &kLatency};
}
std::vector<std::string> RuntimeAttributes::Swap::entries() {
  return runtime_.swap_names();
}
bool RuntimeAttributes::Swap::contains(std::string_view entry) {
  return has(entries(), entry);
}

namespace {

const char* health_name(Mm& mm, const SwapArea& a) {
  switch (a.health().verdict()) {
    case SwapHealth::Verdict::kGone:
      return "gone";
    case SwapHealth::Verdict::kFailing:
      return "failing";
    case SwapHealth::Verdict::kSlow:
      return mm.draining(a) ? "draining" : "slow";
    case SwapHealth::Verdict::kOk:
      break;
  }
  return mm.draining(a) ? "draining" : "ok";
}

const std::pair<const AttrDef*, uint64_t (*)(const SwapArea&)> kSwapNumbers[] = {
    {&kSize, [](const SwapArea& a) { return a.capacity().value(); }},
    {&kGrown, [](const SwapArea& a) { return a.grown_bytes().value(); }},
    {&kUsed, [](const SwapArea& a) { return a.used_bytes().value(); }},
    {&kRetired, [](const SwapArea& a) { return a.retired_bytes().value(); }},
    {&kDiscard, [](const SwapArea& a) { return uint64_t{a.discards()}; }},
    {&kErrors, [](const SwapArea& a) { return a.stats().io_errors; }},
    {&kLost, [](const SwapArea& a) { return a.stats().lost_pages; }},
    {&kLatency, [](const SwapArea& a) { return a.health().average_ns(); }},
};

struct Percentile {
  const AttrDef* def;
  const Histogram& (SwapHealth::*of)() const;
  uint32_t per_mille;
};
const Percentile kSwapPercentiles[] = {{&kReadP50, &SwapHealth::read_ns, 500},
                                       {&kReadP99, &SwapHealth::read_ns, 990},
                                       {&kWriteP50, &SwapHealth::write_ns, 500},
                                       {&kWriteP99, &SwapHealth::write_ns, 990}};

}  // namespace

Result<AttrValue> RuntimeAttributes::Swap::get(std::string_view entry, const AttrDef& def) {
  bool found = false;
  uint64_t number = 0;
  bool is_number = false;
  HistogramSnapshot latency;
  const Percentile* percentile = nullptr;
  char text[512] = "";
  const auto say = [&](std::string_view s) { text[s.copy(text, sizeof text - 1)] = '\0'; };
  runtime_.core().query([&](Mm& mm) {
    const SwapArea* a = mm.swap().find(entry);
    if (a == nullptr) {
      return;
    }
    found = true;
    for (const auto& [of, get] : kSwapNumbers) {
      if (of == &def) {
        is_number = true;
        number = get(*a);
      }
    }
    for (const Percentile& p : kSwapPercentiles) {
      if (p.def == &def) {
        percentile = &p;
        latency = (a->health().*p.of)().snapshot();
      }
    }
    if (&def == &kPath) {
      say(a->config().path);
    } else if (&def == &kDriver) {
      say(a->block().info().name);
    } else if (&def == &kHealth) {
      say(health_name(mm, *a));
    } else if (&def == &kPriority) {
      char* const end = std::to_chars(text, text + sizeof text - 1, a->config().priority).ptr;
      *end = '\0';
    }
  });
  if (!found) {
    return Errc::kNotFound;
  }
  if (percentile != nullptr) {
    return AttrValue::of(latency.percentile(percentile->per_mille));
  }
  return is_number ? AttrValue::of(number) : AttrValue::of(std::string(text));
}

Result<void> RuntimeAttributes::Swap::set(std::string_view entry, const AttrDef& def,
                                          const AttrValue& value) {
  if (&def != &kDiscard) {
    return Errc::kPermission;
  }
  Result<void> done = Errc::kNotFound;
  runtime_.core().query([&](Mm& mm) {
    if (SwapArea* a = mm.swap().find(entry)) {
      a->set_discard(value.number != 0);
      done = value.number == 0 || a->discards() ? Errc::kOk : Errc::kNotSupported;
    }
  });
  if (done.code() == Errc::kNotSupported) {
    return Error(Errc::kNotSupported, "the device has no discard, and its file system no holes");
  }
  return done;
}

}  // namespace kvmm
