// SPDX-License-Identifier: Apache-2.0
#include "runtime/attributes.h"

#include <fmt/format.h>

#include "kvmm/kvmm.h"
#include "runtime/attribute_providers.h"
#include "runtime/report.h"
#include "runtime/runtime.h"

namespace kvmm {
namespace {

constexpr AttrMode kRw = AttrMode::kReadWrite;

// ---- root
constexpr AttrDef kVersion{
    .pattern = "version", .type = AttrType::kString, .help = "version of the library"};
constexpr AttrDef kName{.pattern = "name",
                        .type = AttrType::kString,
                        .help = "name of the runtime, as kvctl ps shows it"};
constexpr AttrDef kUptime{
    .pattern = "uptime", .type = AttrType::kDuration, .help = "time since the runtime was opened"};
constexpr AttrDef kVmstat{.pattern = "vmstat",
                          .type = AttrType::kText,
                          .help = "counters of the memory manager, a line each: name and value"};
constexpr AttrDef kMeminfo{.pattern = "meminfo",
                           .type = AttrType::kText,
                           .help = "memory and swap in use, a line each: name and bytes"};
constexpr AttrDef kLocks{
    .pattern = "locks",
    .type = AttrType::kText,
    .help = "locks taken by the thread that answers this, a line each: name and count",
    .stability = AttrStability::kDebug};
// ---- tiers
constexpr AttrDef kCapacity{.pattern = "tiers/<tier>/capacity",
                            .type = AttrType::kBytes,
                            .min = 2 * kMiB,
                            .max = 64 * 1024 * kGiB,
                            .fallback = "(1 GiB, or a quarter of the node if that is less)",
                            .help = "memory that the tier owns; set when the runtime opens",
                            .config = AttrConfig::kAtStart};
constexpr AttrDef kTierUsed{
    .pattern = "tiers/<tier>/used", .type = AttrType::kBytes, .help = "frames that hold pages"};
constexpr AttrDef kTierFree{
    .pattern = "tiers/<tier>/free", .type = AttrType::kBytes, .help = "frames that hold nothing"};
constexpr AttrDef kTierKind{.pattern = "tiers/<tier>/kind",
                            .type = AttrType::kString,
                            .help = "kind of frames: movable, shareable or dma"};
constexpr AttrDef kTierRanges{
    .pattern = "tiers/<tier>/ranges",
    .type = AttrType::kText,
    .help = "address ranges of the frame pool, a line each: start-end in hex"};
constexpr AttrDef kDemoteTo{.pattern = "tiers/<tier>/demote_to",
                            .type = AttrType::kString,
                            .help = "where its pages go when it is short, in this order"};
constexpr AttrDef kNode{
    .pattern = "tiers/<tier>/node", .type = AttrType::kU64, .help = "NUMA node of its memory"};
constexpr AttrDef kMemory{.pattern = "tiers/<tier>/memory",
                          .type = AttrType::kString,
                          .help = "kind of memory: dram, hbm, cxl, persistent or other"};
constexpr AttrDef kRank{.pattern = "tiers/<tier>/rank",
                        .type = AttrType::kU64,
                        .help = "0 is fastest; tiers of one rank are siblings"};
constexpr AttrDef kDistance{.pattern = "tiers/<tier>/distance",
                            .type = AttrType::kString,
                            .help = "from the CPUs of each node, as node:distance; 10 is local"};
constexpr AttrDef kBandwidth{.pattern = "tiers/<tier>/bandwidth",
                             .type = AttrType::kU64,
                             .unit = "MiB/s",
                             .help = "from the nearest CPUs, as the firmware says; 0: unknown"};
constexpr AttrDef kLatency{.pattern = "tiers/<tier>/latency",
                           .type = AttrType::kU64,
                           .unit = "nanoseconds",
                           .help = "from the nearest CPUs, as the firmware says; 0: unknown"};
constexpr AttrDef kPromoted{.pattern = "tiers/<tier>/promoted",
                            .type = AttrType::kU64,
                            .unit = "pages",
                            .help = "pages that went from it to a nearer tier"};
constexpr AttrDef kDemoted{.pattern = "tiers/<tier>/demoted",
                           .type = AttrType::kU64,
                           .unit = "pages",
                           .help = "pages that went from it to a farther tier"};
constexpr AttrDef kMin{.pattern = "tiers/<tier>/watermark_min",
                       .mode = kRw,
                       .type = AttrType::kBytes,
                       .fallback = "(1/128 of capacity)",
                       .help = "below this only faults and write-back get frames"};
constexpr AttrDef kLow{.pattern = "tiers/<tier>/watermark_low",
                       .mode = kRw,
                       .type = AttrType::kBytes,
                       .fallback = "(1/32 of capacity)",
                       .help = "below this reclaim works"};
constexpr AttrDef kHigh{.pattern = "tiers/<tier>/watermark_high",
                        .mode = kRw,
                        .type = AttrType::kBytes,
                        .fallback = "(1/16 of capacity)",
                        .help = "above this reclaim rests"};
// ---- sched
constexpr AttrDef kReadahead{.pattern = "sched/readahead_max",
                             .mode = kRw,
                             .type = AttrType::kBytes,
                             .max = 64 * kMiB,
                             .fallback = "1MiB",
                             .help = "bytes read ahead of a major fault in the same plane"};
constexpr AttrDef kFaultAround{.pattern = "sched/fault_around",
                               .mode = kRw,
                               .type = AttrType::kBytes,
                               .max = 4 * kMiB,
                               .fallback = "512KiB",
                               .help = "bytes of resident pages mapped along with a minor fault"};
constexpr AttrDef kResume{
    .pattern = "sched/resume_prefetch",
    .mode = kRw,
    .type = AttrType::kBool,
    .fallback = "on",
    .help = "the first major fault of a session that is mostly out brings all of it"};
constexpr AttrDef kWindow{.pattern = "sched/prefetch_window",
                          .mode = kRw,
                          .type = AttrType::kBytes,
                          .min = 64 * kKiB,
                          .max = kGiB,
                          .fallback = "8MiB",
                          .help = "bytes of prefetch in flight at once"};
constexpr AttrDef kWriteAhead{
    .pattern = "sched/writeback_ahead",
    .mode = kRw,
    .type = AttrType::kBytes,
    .max = 64 * kGiB,
    .fallback = "0",
    .help = "bytes of idle sessions' pages written before their frames are needed"};
constexpr AttrDef kSpin{.pattern = "sched/spin",
                        .mode = kRw,
                        .type = AttrType::kU64,
                        .unit = "microseconds",
                        .max = 1'000'000,
                        .fallback = "50",
                        .help = "time the core thread looks for the next fault before it sleeps"};
constexpr AttrDef kProbeWait{
    .pattern = "sched/probe_wait",
    .mode = kRw,
    .type = AttrType::kU64,
    .unit = "microseconds",
    .max = 600'000'000,
    .fallback = "200000",
    .help = "a session that leaves its probe page alone for this long counts as idle"};
constexpr AttrDef kIoChunk{
    .pattern = "sched/io_chunk",
    .mode = kRw,
    .type = AttrType::kBytes,
    .min = 64 * kKiB,
    .max = 2 * kMiB,
    .fallback = "2MiB",
    .help = "bytes of one I/O of a larger page; checksums overlap the next one"};
constexpr AttrDef kZeroAhead{.pattern = "sched/zero_ahead",
                             .mode = kRw,
                             .type = AttrType::kU64,
                             .unit = "frames",
                             .max = 1024,
                             .fallback = "4",
                             .help = "frames of each size in use that are zeroed ahead of need"};
constexpr AttrDef kWriteTries{.pattern = "sched/write_tries",
                              .mode = kRw,
                              .type = AttrType::kU64,
                              .unit = "tries",
                              .min = 1,
                              .max = 100,
                              .fallback = "3",
                              .help = "tries of a page's write before it is kept resident"};
constexpr AttrDef kReclaimWindow{.pattern = "sched/reclaim_window",
                                 .mode = kRw,
                                 .type = AttrType::kBytes,
                                 .min = 4 * kKiB,
                                 .max = kGiB,
                                 .fallback = "8MiB",
                                 .help = "bytes that reclaim may have in flight"};
constexpr AttrDef kSwapSlow{.pattern = "sched/swap_slow",
                            .mode = kRw,
                            .type = AttrType::kU64,
                            .unit = "microseconds",
                            .min = 1,
                            .max = 600'000'000,
                            .fallback = "100000",
                            .help = "average latency from which on a swap area is slow"};
constexpr AttrDef kSwapFail{.pattern = "sched/swap_fail",
                            .mode = kRw,
                            .type = AttrType::kU64,
                            .unit = "microseconds",
                            .min = 1000,
                            .max = 600'000'000,
                            .fallback = "10000000",
                            .help = "average latency or silence from which on a swap area fails"};
constexpr AttrDef kSwapFailErrors{
    .pattern = "sched/swap_fail_errors",
    .mode = kRw,
    .type = AttrType::kU64,
    .unit = "errors",
    .min = 1,
    .max = 1'000'000,
    .fallback = "16",
    .help = "errors, less a 64th for each success, from which on a swap area fails"};

constexpr AttrDef kDemoteRate{
    .pattern = "sched/demote_rate",
    .mode = kRw,
    .type = AttrType::kBytes,
    .max = 1024 * kGiB,
    .fallback = "1GiB",
    .help = "bytes a second that go down a tier; 0: only swap makes room"};
constexpr AttrDef kPromoteRate{.pattern = "sched/promote_rate",
                               .mode = kRw,
                               .type = AttrType::kBytes,
                               .max = 1024 * kGiB,
                               .fallback = "256MiB",
                               .help = "bytes a second that come up a tier; 0: none"};
constexpr AttrDef kHintWait{
    .pattern = "sched/hint_wait",
    .mode = kRw,
    .type = AttrType::kU64,
    .unit = "microseconds",
    .min = 1000,
    .max = 600'000'000,
    .fallback = "1000000",
    .help = "time between two looks at whether far pages of running sessions are used"};

constexpr const AttrDef* kAll[] = {
    &kVersion,    &kName,          &kUptime,     &kVmstat,         &kMeminfo,
    &kCapacity,   &kTierUsed,      &kTierFree,   &kTierKind,       &kTierRanges,
    &kDemoteTo,   &kNode,          &kMemory,     &kRank,           &kDistance,
    &kBandwidth,  &kLatency,       &kPromoted,   &kDemoted,        &kMin,
    &kLow,        &kHigh,          &kReadahead,  &kFaultAround,    &kResume,
    &kWindow,     &kWriteAhead,    &kProbeWait,  &kIoChunk,        &kZeroAhead,
    &kWriteTries, &kReclaimWindow, &kDemoteRate, &kPromoteRate,    &kHintWait,
    &kLocks,      &kSwapSlow,      &kSwapFail,   &kSwapFailErrors, &kSpin};

// "dram1 slow swap"
std::string demotion_order(const TierTable& tiers, const Tier& tier) {
  std::string text;
  for (const TierId id : tier.demotes_to()) {
    text += tiers.tier(id).name() + " ";
  }
  return text + "swap";
}

std::string distances_text(const TierTable& tiers, const Tier& tier) {
  std::string text;
  for (const NodeId from : tiers.distances().from()) {
    text += fmt::format("{}{}:{}", text.empty() ? "" : " ", from.value(),
                        tiers.distances().between(from, tier.node()));
  }
  return text;
}

}  // namespace

RuntimeAttributes::RuntimeAttributes(Runtime& runtime) : runtime_(runtime) {}
RuntimeAttributes::~RuntimeAttributes() {
  dirs_.clear();
}

std::string RuntimeAttributes::version() {
  return fmt::format("{}.{}.{}", KVMM_VERSION_MAJOR, KVMM_VERSION_MINOR, KVMM_VERSION_PATCH);
}

Result<void> RuntimeAttributes::declare() {
  if (auto ok = runtime_.attributes().declare(kAll); !ok) {
    return ok;
  }
  if (auto ok = declare_observe(); !ok) {
    return ok;
  }
  for (const auto& defs : {Arenas::defs(), Sessions::defs(), Swap::defs()}) {
    if (auto ok = runtime_.attributes().declare(defs); !ok) {
      return ok;
    }
  }
  return {};
}

Result<void> RuntimeAttributes::take_start_values(Config& file, RuntimeConfig& config) {
  auto taken = file.take(kCapacity);
  if (!taken) {
    return taken.error();
  }
  for (const Config::Taken& t : *taken) {
    config.tier_capacities.push_back({t.path, t.where, Bytes(t.value.number)});
  }
  return {};
}

Result<void> RuntimeAttributes::add(std::string directory, std::vector<AttrLeaf> leaves) {
  auto dir = runtime_.attributes().add(std::move(directory), std::move(leaves));
  if (!dir) {
    return dir.error();
  }
  dirs_.push_back(std::move(*dir));
  return {};
}

Result<void> RuntimeAttributes::publish() {
  for (auto step : {&RuntimeAttributes::publish_root, &RuntimeAttributes::publish_tiers,
                    &RuntimeAttributes::publish_sched, &RuntimeAttributes::publish_observe}) {
    if (auto ok = (this->*step)(); !ok) {
      return ok;
    }
  }
  arenas_ = std::make_unique<Arenas>(runtime_);
  sessions_ = std::make_unique<Sessions>(runtime_);
  swap_ = std::make_unique<Swap>(runtime_);
  AttrTree& tree = runtime_.attributes();
  for (auto make : {+[](AttrTree&t, RuntimeAttributes&a) {
                      return t.add_provider("arenas", Arenas::defs(), *a.arenas_);
                    },
                    +[](AttrTree&t, RuntimeAttributes&a) {
                      return t.add_provider("sessions", Sessions::defs(), *a.sessions_);
                    },
                    +[](AttrTree&t, RuntimeAttributes&a) {
                      return t.add_provider("swap", Swap::defs(), *a.swap_);
                    }}) {
    auto dir = make(tree, *this);
    if (!dir) {
      return dir.error();
    }
    dirs_.push_back(std::move(*dir));
  }
  return {};
}

Result<void> RuntimeAttributes::publish_root() {
  Runtime& r = runtime_;
  return add(
      "",
      {attr_fixed(kVersion, AttrValue::of(version())),
       attr_fixed(kName, AttrValue::of(r.config().name)),
       {&kUptime,
        [&r]() -> Result<AttrValue> {
          return AttrValue::of((r.core().now() - r.opened_).value());
        }},
       attr_text(kVmstat, [&r]() -> Result<std::string> { return stats_text(r.core().stats()); }),
       attr_text(kMeminfo,
                 [&r]() -> Result<std::string> {
                   uint64_t v[7] = {};
                   r.core().query([&](Mm& mm) {
                     const Zonelist& p = mm.zones();
                     v[0] = p.capacity().value();
                     v[1] = p.used_bytes().value();
                     v[2] = p.free_bytes().value();
                     v[3] = p.zeroed_bytes().value();
                     v[4] = mm.swap().capacity().value();
                     v[5] = mm.swap().used_bytes().value();
                     for (AddressSpace& s : mm.spaces()) {
                       v[6] += s.stats.bytes_discarded.load(std::memory_order_relaxed);
                     }
                   });
                   return fmt::format(
                       "dram_total {}\ndram_used {}\ndram_free {}\ndram_zeroed {}\nswap_total {}\n"
                       "swap_used {}\ngone {}\n",
                       v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
                 }),
       attr_text(kLocks, []() -> Result<std::string> { return locks_text(); })});
}

Result<void> RuntimeAttributes::publish_tiers() {
  for (const auto& tier : runtime_.tiers().tiers()) {
    if (auto ok = publish_tier(*tier); !ok) {
      return ok;
    }
  }
  return {};
}

Result<void> RuntimeAttributes::publish_tier(Tier& tier) {
  Runtime& r = runtime_;
  auto pool_bytes = [&r, &tier](auto fn) {
    return [&r, &tier, fn]() -> Result<AttrValue> {
      uint64_t v = 0;
      r.core().query([&](Mm&) { v = fn(tier); });
      return AttrValue::of(v);
    };
  };
  auto watermark = [&](const AttrDef& def, Bytes Watermarks::*which) {
    return AttrLeaf{&def, pool_bytes([which](Tier& t) { return (t.watermarks().*which).value(); }),
                    [&r, &tier, which](const AttrValue& v) -> Result<void> {
                      Result<void> result;
                      r.core().query([&](Mm&) {
                        Watermarks w = tier.watermarks();
                        w.*which = Bytes(v.number);
                        result = tier.set_watermarks(w);
                      });
                      if (!result) {
                        return Error(Errc::kRange, "must be: min <= low <= high <= capacity");
                      }
                      return {};
                    }};
  };
  return add(
      "tiers/" + tier.name(),
      {attr_fixed(kCapacity, AttrValue::of(tier.pool().capacity().value())),
       {&kTierUsed, pool_bytes([](Tier& t) { return t.pool().used_bytes().value(); })},
       {&kTierFree, pool_bytes([](Tier& t) { return t.pool().free_bytes().value(); })},
       attr_fixed(kTierKind, AttrValue::of(std::string(frame_kind_name(tier.kind())))),
       attr_fixed(kDemoteTo, AttrValue::of(demotion_order(r.tiers(), tier))),
       attr_fixed(kNode, AttrValue::of(uint64_t{tier.node().value()})),
       attr_fixed(kMemory, AttrValue::of(std::string(memory_kind_name(tier.description().memory)))),
       attr_fixed(kRank, AttrValue::of(uint64_t{tier.rank()})),
       attr_fixed(kDistance, AttrValue::of(distances_text(r.tiers(), tier))),
       attr_fixed(kBandwidth, AttrValue::of(tier.description().bandwidth)),
       attr_fixed(kLatency, AttrValue::of(tier.description().latency)),
       {&kPromoted, pool_bytes([](Tier& t) { return t.stats().promoted; })},
       {&kDemoted, pool_bytes([](Tier& t) { return t.stats().demoted; })},
       attr_text(kTierRanges,
                 [&tier]() -> Result<std::string> {
                   const FrameArea& a = tier.pool().area();
                   if (a.count == 0) {
                     return std::string();
                   }
                   return fmt::format("{:x}-{:x}\n", a.base.value(), a.frame(a.count).value());
                 }),
       watermark(kMin, &Watermarks::min),
       watermark(kLow, &Watermarks::low),
       watermark(kHigh, &Watermarks::high)});
}

Result<void> RuntimeAttributes::publish_sched() {
  MmConfig& c = runtime_.core().config();
  return add(
      "sched",
      {attr_atomic(kReadahead, c.readahead_max), attr_atomic(kFaultAround, c.fault_around),
       attr_atomic(kResume, c.resume_prefetch), attr_atomic(kWindow, c.prefetch_window),
       attr_atomic(kWriteAhead, c.writeback_ahead), attr_atomic(kProbeWait, c.probe_wait_us),
       attr_atomic(kSpin, c.spin_us), attr_atomic(kIoChunk, c.io_chunk),
       attr_atomic(kZeroAhead, c.zero_ahead), attr_atomic(kWriteTries, c.write_tries),
       attr_atomic(kReclaimWindow, c.reclaim_window), attr_atomic(kSwapSlow, c.swap_slow_us),
       attr_atomic(kSwapFail, c.swap_fail_us), attr_atomic(kSwapFailErrors, c.swap_fail_errors),
       attr_atomic(kDemoteRate, c.demote_rate), attr_atomic(kPromoteRate, c.promote_rate),
       attr_atomic(kHintWait, c.hint_wait_us)});
}

std::map<std::string, ControlAction> RuntimeAttributes::actions() {
  Runtime& r = runtime_;
  auto text = [](const ControlArgs& args, const char* key) {
    const auto it = args.find(key);
    return it == args.end() ? std::string() : it->second;
  };
  return {
      {"swapon",
       [&r, text](const ControlArgs& args) -> Result<std::string> {
         static constexpr AttrDef kSize{
             .pattern = "size", .type = AttrType::kBytes, .help = "size"};
         const std::string path = text(args, "path");
         if (path.empty() || path.front() != '/') {
           return Error(Errc::kInvalid, "swapon needs an absolute path");
         }
         uint64_t size = 0;
         if (const std::string bytes = text(args, "bytes"); !bytes.empty()) {
           auto v = parse_value(kSize, bytes);
           if (!v) {
             return v.error();
           }
           size = v->number;
         }
         int32_t priority = 0;
         if (const std::string p = text(args, "priority"); !p.empty()) {
           char* end = nullptr;
           const long n = std::strtol(p.c_str(), &end, 10);
           if (*end != '\0' || n < -32768 || n > 32767) {
             return Error(Errc::kInvalid, "priority must be -32768..32767");
           }
           priority = static_cast<int32_t>(n);
         }
         const std::string discard = text(args, "discard");
         if (!discard.empty() && discard != "on" && discard != "off") {
           return Error(Errc::kInvalid, "discard must be on or off");
         }
         const SwapDriver driver{text(args, "driver"), text(args, "driver_options")};
         if (auto ok = r.swapon(path, Bytes(size), priority, driver, discard != "off"); !ok) {
           return ok.error();
         }
         return path + " is a swap area now";
       }},
      {"swapoff",
       [&r, text](const ControlArgs& args) -> Result<std::string> {
         const std::string path = text(args, "path");
         const auto lost = r.swapoff(path);
         if (!lost) {
           return lost.error();
         }
         return path + " is no swap area any more" +
                (*lost == 0 ? std::string()
                            : fmt::format("; {} pages could not be read, and are to be computed "
                                          "again",
                                          *lost));
       }},
  };
}

}  // namespace kvmm
