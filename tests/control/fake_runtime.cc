// SPDX-License-Identifier: Apache-2.0
#include "tests/control/fake_runtime.h"

#include <array>

#include "runtime/base/check.h"
#include "runtime/base/units.h"

namespace kvmm::test {
namespace {

constexpr std::array<const char*, 5> kAdviceNames = {"normal", "running", "idle", "evict",
                                                     "durable"};

constexpr AttrDef ro(const char* pattern, AttrType type, const char* help, const char* unit = "") {
  return {.pattern = pattern, .type = type, .unit = unit, .help = help};
}
constexpr AttrDef rw(const char* pattern, AttrType type, uint64_t min, uint64_t max,
                     const char* fallback, const char* help) {
  return {.pattern = pattern,
          .mode = AttrMode::kReadWrite,
          .type = type,
          .min = min,
          .max = max,
          .fallback = fallback,
          .help = help};
}

constexpr AttrDef kVersion = ro("version", AttrType::kString, "version of the library");
constexpr AttrDef kUptime = ro("uptime", AttrType::kDuration, "time since the runtime was opened");
constexpr AttrDef kVmstat = ro("vmstat", AttrType::kText, "event counters");
constexpr AttrDef kMeminfo = ro("meminfo", AttrType::kText, "sizes in bytes");
constexpr AttrDef kArenaName = ro("arenas/<id>/name", AttrType::kString, "name of the arena");
constexpr AttrDef kCapacity = ro("tiers/<tier>/capacity", AttrType::kBytes, "size of the tier");
constexpr AttrDef kUsed = ro("tiers/<tier>/used", AttrType::kBytes, "bytes in use");
constexpr AttrDef kFree = ro("tiers/<tier>/free", AttrType::kBytes, "bytes not in use");
constexpr AttrDef kLow = rw("tiers/<tier>/watermark_low", AttrType::kBytes, 4 * kMiB, 256 * kMiB,
                            "16MiB", "reclaim starts below this much free memory");
constexpr AttrDef kDemoteTo = ro("tiers/<tier>/demote_to", AttrType::kString, "the next tier");
constexpr AttrDef kKind = ro("tiers/<tier>/kind", AttrType::kString, "kind of memory");
constexpr AttrDef kNode = ro("tiers/<tier>/node", AttrType::kU64, "NUMA node");
constexpr AttrDef kMemory = ro("tiers/<tier>/memory", AttrType::kString, "what it is made of");
constexpr AttrDef kRank = ro("tiers/<tier>/rank", AttrType::kU64, "0 is fastest");
constexpr AttrDef kDistance = ro("tiers/<tier>/distance", AttrType::kString, "from each node");
constexpr AttrDef kBandwidth = ro("tiers/<tier>/bandwidth", AttrType::kU64, "how wide", "MiB/s");
constexpr AttrDef kLatency = ro("tiers/<tier>/latency", AttrType::kU64, "how late", "ns");
constexpr AttrDef kPromoted = ro("tiers/<tier>/promoted", AttrType::kU64, "went up", "pages");
constexpr AttrDef kDemoted = ro("tiers/<tier>/demoted", AttrType::kU64, "went down", "pages");
constexpr AttrDef kPath = ro("swap/<dev>/path", AttrType::kString, "file or device");
constexpr AttrDef kSize = ro("swap/<dev>/size", AttrType::kBytes, "size of the area");
constexpr AttrDef kSwapUsed = ro("swap/<dev>/used", AttrType::kBytes, "bytes in use");
constexpr AttrDef kPriority = ro("swap/<dev>/priority", AttrType::kString, "higher is used first");
constexpr AttrDef kErrors = ro("swap/<dev>/errors", AttrType::kU64, "failed requests", "requests");
constexpr AttrDef kDriver = ro("swap/<dev>/driver", AttrType::kString, "driver of the device");
constexpr AttrDef kGrown = ro("swap/<dev>/grown", AttrType::kBytes, "place it takes");
constexpr AttrDef kHealth = ro("swap/<dev>/health", AttrType::kString, "how it does");
constexpr AttrDef kReadP50 = ro("swap/<dev>/read_p50", AttrType::kDuration, "median of reads");
constexpr AttrDef kReadP99 = ro("swap/<dev>/read_p99", AttrType::kDuration, "slow reads");
constexpr AttrDef kReadahead = rw("sched/readahead_max", AttrType::kBytes, 0, 64 * kMiB, "2MiB",
                                  "most that is read ahead of a fault");
constexpr AttrDef kName = ro("sessions/<id>/name", AttrType::kString, "name of the session");
constexpr AttrDef kTenant = ro("sessions/<id>/tenant", AttrType::kString, "its tenant");
constexpr AttrDef kState = ro("sessions/<id>/state", AttrType::kString, "what it does");
constexpr AttrDef kTokens = ro("sessions/<id>/tokens", AttrType::kU64, "its length", "tokens");
constexpr AttrDef kResident = ro("sessions/<id>/bytes_resident", AttrType::kBytes, "in memory");
constexpr AttrDef kSwapped = ro("sessions/<id>/bytes_swapped", AttrType::kBytes, "on swap");
constexpr AttrDef kMaps = ro("sessions/<id>/maps", AttrType::kText, "its VMAs");
constexpr AttrDef kSmaps = ro("sessions/<id>/smaps", AttrType::kText, "what its pages are");
constexpr AttrDef kPagemap = ro("sessions/<id>/pagemap", AttrType::kText, "its pages");
constexpr AttrDef kStat = ro("sessions/<id>/stat", AttrType::kText, "its counters");
constexpr AttrDef kAdvice = {.pattern = "sessions/<id>/advice",
                             .mode = AttrMode::kReadWrite,
                             .type = AttrType::kEnum,
                             .choices = kAdviceNames,
                             .fallback = "normal",
                             .help = "what is known of its next use",
                             .config = AttrConfig::kNever};

AttrLeaf fixed(const AttrDef& def, uint64_t n) {
  return attr_fixed(def, AttrValue::of(n));
}
AttrLeaf fixed(const AttrDef& def, const char* text) {
  return attr_fixed(def, AttrValue::of(std::string(text)));
}

std::string default_pagemap() {
  std::string k(150, 'R');
  k.replace(10, 5, "rrSS<");
  k.replace(140, 10, "PX>.......");
  return "plane k page_size=65536 pages=150\n" + k.substr(0, 64) + "\n" + k.substr(64) +
         "\nplane v page_size=65536 pages=3\nSSS\n";
}

constexpr const char* kDefaultSmaps =
    "7f0000000000-7f0000960000 rw 65536 k private:1\n"
    "size 9830400\nresident 9175040\nmapped 8978432\nswapped 131072\ndiscarded 65536\n"
    "empty 458752\nclean 8847360\ndirty 327680\nswap_cached 8847360\nsealed 9109504\n"
    "pinned 65536\nreading 65536\nwriting 65536\ntier:dram 9175040\n"
    "7f0001000000-7f0001030000 rw 65536 v x private:2\n"
    "size 196608\nresident 0\nmapped 0\nswapped 196608\ndiscarded 0\nempty 0\nclean 0\n"
    "dirty 0\nswap_cached 0\nsealed 196608\npinned 0\nreading 0\nwriting 0\ntier:dram 0\n";

}  // namespace

FakeRuntime::FakeRuntime() : pagemap_(default_pagemap()), smaps_(kDefaultSmaps) {
  const auto add = [this](const char* directory, std::vector<AttrLeaf> leaves) {
    Result<AttrDir> dir = tree_.add(directory, std::move(leaves));
    check(dir.ok(), "the fake tree");
    dirs_.push_back(std::move(*dir));
  };
  add("", {fixed(kVersion, "0.1.0"), fixed(kUptime, 93'500'000'000),
           fixed(kVmstat,
                 "faults_zero 100\nfaults_minor 20\nfaults_major 7\nswap_in_bytes 1048576\n"
                 "swap_out_bytes 2097152\nwrong_pages 0\n"),
           fixed(kMeminfo, "dram_total 268435456\ndram_free 67108864\n")});
  add("arenas/0", {fixed(kArenaName, "tiny # model")});
  add("tiers/dram",
      {fixed(kCapacity, 256 * kMiB), fixed(kUsed, 192 * kMiB), fixed(kFree, 64 * kMiB),
       attr_atomic(kLow, low_), fixed(kDemoteTo, "swap"), fixed(kKind, "dram")});
  add("swap/swap0",
      {fixed(kPath, "/var/lib/kvmm/swap"), fixed(kSize, 1 * kGiB), fixed(kSwapUsed, 320 * kMiB),
       fixed(kPriority, "5"), fixed(kErrors, uint64_t{0}), fixed(kDriver, "uring"),
       fixed(kGrown, 512 * kMiB), fixed(kHealth, "ok"), fixed(kReadP50, 85'000),
       fixed(kReadP99, 1'234'567)});
  AttrLeaf readahead = attr_atomic(kReadahead, readahead_);
  readahead.get = [this]() -> Result<AttrValue> {
    stalled_.wait(true);
    return AttrValue::of(readahead_.load());
  };
  readahead.set = [this](const AttrValue& value) -> Result<void> {
    const uint64_t most = readahead_max_.load() == 0 ? low_.load() : readahead_max_.load();
    if (value.number > most) {
      return Error(Errc::kRange, "is more than there is room for");
    }
    readahead_.store(value.number);
    ++sets_;
    return {};
  };
  add("sched", {std::move(readahead)});
  Result<AttrDir> sessions =
      tree_.add_provider("sessions",
                         {&kName, &kTenant, &kState, &kAdvice, &kTokens, &kResident, &kSwapped,
                          &kMaps, &kSmaps, &kPagemap, &kStat},
                         *this);
  check(sessions.ok(), "the fake sessions");
  dirs_.push_back(std::move(*sessions));
  open_session("1", "chat one");
  open_session("12", "chat \x1b[31mred");
}

std::map<std::string, ControlAction> FakeRuntime::actions() {
  const auto record = [this](const char* name, const ControlArgs& args) {
    const std::lock_guard lock(mutex_);
    last_action_ = name;
    for (const auto& [key, value] : args) {
      last_action_ += " " + key + "=" + value;
    }
  };
  return {{"swapon",
           [record](const ControlArgs& args) -> Result<std::string> {
             record("swapon", args);
             return std::string("swap1");
           }},
          {"swapoff", [record](const ControlArgs& args) -> Result<std::string> {
             record("swapoff", args);
             if (args.contains("path") && args.at("path") == "/full") {
               return Error(Errc::kNoSpace,
                            "/full: 3 pages do not fit elsewhere; it stays, read-only");
             }
             return std::string();
           }}};
}

void FakeRuntime::add_nodes() {
  const auto add = [this](const char* name, uint64_t node, uint64_t rank, const char* memory,
                          const char* distance, uint64_t used, const char* then) {
    Result<AttrDir> dir = tree_.add(
        std::string("tiers/") + name,
        {fixed(kCapacity, 256 * kMiB), fixed(kUsed, used), fixed(kFree, 256 * kMiB - used),
         fixed(kDemoteTo, then), fixed(kKind, "movable"), fixed(kNode, node),
         fixed(kMemory, memory), fixed(kRank, rank), fixed(kDistance, distance),
         fixed(kBandwidth, uint64_t{rank == 0 ? 200000u : 30000u}),
         fixed(kLatency, uint64_t{rank == 0 ? 90u : 0u}), fixed(kPromoted, node),
         fixed(kDemoted, node * 10)});
    check(dir.ok(), "a tier of the fake tree");
    dirs_.push_back(std::move(*dir));
  };
  // By name, "cxl" comes before the faster ones.
  add("cxl", 2, 1, "cxl", "0:27 1:35 not:a 7 :", 64 * kMiB, "swap");
  add("dram0", 0, 0, "dram", "0:10 1:16", 256 * kMiB, "dram1 cxl swap");
  add("dram1", 1, 0, "dram", "0:16 1:10", 0, "dram0 cxl swap");
}

void FakeRuntime::open_session(const std::string& id, const std::string& name) {
  const std::lock_guard lock(mutex_);
  sessions_[id] = {name, id == "1" ? uint64_t{1} : uint64_t{2}};
}

void FakeRuntime::close_session(const std::string& id) {
  const std::lock_guard lock(mutex_);
  sessions_.erase(id);
}

std::string FakeRuntime::last_action() const {
  const std::lock_guard lock(mutex_);
  return last_action_;
}

void FakeRuntime::set_pagemap(std::string text) {
  const std::lock_guard lock(mutex_);
  pagemap_ = std::move(text);
}

void FakeRuntime::set_smaps(std::string text) {
  const std::lock_guard lock(mutex_);
  smaps_ = std::move(text);
}

std::vector<std::string> FakeRuntime::entries() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> all;
  for (const auto& [id, session] : sessions_) {
    all.push_back(id);
  }
  return all;
}

bool FakeRuntime::contains(std::string_view entry) {
  const std::lock_guard lock(mutex_);
  return sessions_.contains(std::string(entry));
}

Result<AttrValue> FakeRuntime::get(std::string_view entry, const AttrDef& def) {
  const std::lock_guard lock(mutex_);
  const auto it = sessions_.find(std::string(entry));
  if (it == sessions_.end()) {
    return Errc::kNotFound;
  }
  const uint64_t weight = entry == "1" ? 3 : 1;
  const std::map<const AttrDef*, AttrValue> values = {
      {&kName, AttrValue::of(it->second.name)},
      {&kTenant, AttrValue::of(std::string("default"))},
      {&kState, AttrValue::of(std::string(entry == "1" ? "running" : "idle"))},
      {&kAdvice, AttrValue::of(it->second.advice)},
      {&kTokens, AttrValue::of(weight * 500)},
      {&kResident, AttrValue::of(weight * 32 * kMiB)},
      {&kSwapped, AttrValue::of(320 * kMiB / weight / 64 * 64)},
      {&kMaps, AttrValue::of(std::string("7f0000000000-7f0000960000 rw 65536 k private:1 pages=150 "
                                         "resident=146 swapped=2 gone=1\n"
                                         "7f0001000000-7f0001030000 rw 65536 v x private:2 pages=3 "
                                         "resident=0 swapped=3\n"))},
      {&kSmaps, AttrValue::of(smaps_)},
      {&kPagemap, AttrValue::of(pagemap_)},
      {&kStat, AttrValue::of(std::string("faults_major 7\nwrong_pages 0\n"))}};
  return values.at(&def);
}

Result<void> FakeRuntime::set(std::string_view entry, const AttrDef&, const AttrValue& value) {
  const std::lock_guard lock(mutex_);
  const auto it = sessions_.find(std::string(entry));
  if (it == sessions_.end()) {
    return Errc::kNotFound;
  }
  it->second.advice = value.number;
  return {};
}

}  // namespace kvmm::test
