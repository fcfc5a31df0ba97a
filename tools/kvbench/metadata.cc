// SPDX-License-Identifier: Apache-2.0
//
// What managing memory costs in memory. Pages go the real way (touched, written, swapped out) to a
// device that forgets them, so that a terabyte needs no disk; nothing is read back.
//
//   counted      resident memory of this process but for the frames, and its page tables (VmPTE),
//                less what there was before the runtime was opened
//   managed      pages in swap times their size
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tools/kvbench/api_call.h"
#include "tools/kvbench/scratch.h"
#include "tools/kvbench/suites.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;
constexpr uint64_t kTiB = uint64_t{1} << 40;
constexpr uint32_t kSessions = 64;
constexpr auto kEvictMax = std::chrono::seconds(120);
constexpr auto kPoll = std::chrono::microseconds(200);

constexpr std::array<FigureDef, 2> kFigures = {{
    {"metadata.2m.ratio", "ratio", Bound::kAtMost, 0.0001,
     "bytes of metadata and page tables a byte managed, 1 TiB in pages of 2 MiB"},
    {"metadata.64k.ratio", "ratio", Bound::kAtMost, 0.003,
     "the same in pages of 64 KiB, as many as go through in two minutes"},
}};

struct Range {
  uint64_t start, end;
};

uint64_t status_kib(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) == 0) {
      return std::strtoull(line.c_str() + key.size(), nullptr, 10);
    }
  }
  return 0;
}

struct Memory {
  uint64_t resident = 0;
  uint64_t tables = 0;
  std::vector<uint64_t> parts;  // resident bytes of each mapping, largest first
  uint64_t bytes() const { return resident + tables; }
};

// Of this process, without what lies in `left_out`.
Memory memory_now(const std::vector<Range>& left_out) {
  Memory m;
  m.tables = status_kib("VmPTE:") * 1024;
  std::ifstream maps("/proc/self/smaps");
  bool counted = false;
  for (std::string line; std::getline(maps, line);) {
    uint64_t start = 0;
    uint64_t end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      counted = std::none_of(left_out.begin(), left_out.end(),
                             [&](const Range& r) { return start < r.end && r.start < end; });
    } else if (counted && line.rfind("Rss:", 0) == 0) {
      m.parts.push_back(std::strtoull(line.c_str() + 4, nullptr, 10) * 1024);
      m.resident += m.parts.back();
    }
  }
  std::sort(m.parts.rbegin(), m.parts.rend());
  return m;
}

// A runtime with a plane of many sessions over a device that forgets.
class Managed {
 public:
  Managed(const Options& options, uint64_t page_size, uint64_t bytes)
      : page_size_(page_size), lane_(bytes / kSessions) {
    try {
      open(options, bytes);
    } catch (...) {
      close();
      throw;
    }
  }
  ~Managed() { close(); }
  Managed(const Managed&) = delete;
  Managed& operator=(const Managed&) = delete;

  // Frames and what is managed with them.
  std::vector<Range> left_out() const {
    std::vector<Range> all = frames_;
    const auto start = reinterpret_cast<uint64_t>(base_);
    all.push_back({start, start + lane_ * kSessions});
    return all;
  }

  // Writes `pages` pages of session `s` from page `first` on, and has them swapped out.
  void go_through(uint32_t s, uint64_t first, uint64_t pages) {
    for (uint64_t i = first; i < first + pages; ++i) {
      *reinterpret_cast<volatile uint64_t*>(base_ + s * lane_ + i * page_size_) = i + 1;
    }
    require(kvmm_advise(sessions_[s], KVMM_ADVISE_EVICT), "evicting a session");
  }
  void wait_until_out(uint32_t s) const {
    const Clock::time_point deadline = Clock::now() + kEvictMax;
    while (stat_of(s).bytes_resident != 0) {
      if (Clock::now() > deadline) {
        throw Failure(kExitFailed, "a session cannot be evicted");
      }
      std::this_thread::sleep_for(kPoll);
    }
  }
  uint64_t swapped() const {
    uint64_t sum = 0;
    for (uint32_t s = 0; s < kSessions; ++s) {
      sum += stat_of(s).bytes_swapped;
    }
    return sum;
  }

 private:
  void open(const Options& options, uint64_t bytes) {
    const ScratchDir scratch(options.dir, 0);
    const std::string no_config = scratch.file("");
    auto r = sized<kvmm_runtime_options>();
    r.name = "kvbench";
    r.config_dir = no_config.c_str();
    r.dram_bytes = kGiB;
    r.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_VOLATILE;
    require(kvmm_runtime_open(&r, &runtime_), "opening a runtime");
    find_frames();
    require(kvmm_swapon(runtime_, "null:kvbench", bytes + bytes / 16 + kGiB, 0),
            "a swap area that forgets");
    for (const auto& [path, value] : options.attributes) {
      require(kvmm_attr_set(runtime_, path.c_str(), value.c_str()), path.c_str());
    }
    auto a = sized<kvmm_arena_options>();
    a.name = "kvbench";
    a.layout = "kvbench";
    a.lanes = kSessions;
    a.lane_tokens = lane_ / page_size_;
    require(kvmm_arena_create(runtime_, &a, &arena_), "making an arena");
    auto p = sized<kvmm_plane_options>();
    p.name = "pages";
    p.lane_stride = lane_;
    p.token_stride = page_size_;
    p.page_size = page_size_;
    uint32_t plane = 0;
    require(kvmm_arena_add_plane(arena_, &p, &plane), "adding a plane");
    for (uint32_t i = 0; i < kSessions; ++i) {
      auto s = sized<kvmm_session_options>();
      s.kind = KVMM_SESSION_RAW;
      s.lane = i + 1;  // lane i
      kvmm_session* session = nullptr;
      require(kvmm_session_open(arena_, &s, &session), "opening a session");
      sessions_.push_back(session);
    }
    void* base = nullptr;
    require(kvmm_session_address(sessions_[0], plane, &base), "asking for its address");
    base_ = static_cast<char*>(base);
  }

  void close() {
    if (runtime_ != nullptr) {
      kvmm_runtime_close(runtime_);
    }
  }

  void find_frames() {
    std::vector<std::string> names = {"dram"};
    for (int node = 0; node < 64; ++node) {
      names.push_back(fmt::format("dram{}", node));
    }
    for (const std::string& name : names) {
      std::array<char, 4096> text{};
      if (kvmm_attr_get(runtime_, ("tiers/" + name + "/ranges").c_str(), text.data(),
                        text.size()) != KVMM_OK) {
        continue;
      }
      std::istringstream lines(text.data());
      for (std::string line; std::getline(lines, line);) {
        Range range{};
        if (std::sscanf(line.c_str(), "%lx-%lx", &range.start, &range.end) == 2) {
          frames_.push_back(range);
        }
      }
    }
    if (frames_.empty()) {
      throw Failure(kExitFailed, "the runtime does not say where its frames are");
    }
  }

  kvmm_session_stat stat_of(uint32_t s) const {
    auto stat = sized<kvmm_session_stat>();
    require(kvmm_session_stats(sessions_[s], &stat), "reading a session's counters");
    return stat;
  }

  uint64_t page_size_;
  uint64_t lane_;  // bytes of a session
  kvmm_runtime* runtime_ = nullptr;
  kvmm_arena* arena_ = nullptr;
  std::vector<kvmm_session*> sessions_;
  std::vector<Range> frames_;
  char* base_ = nullptr;
};

Measured measure(const FigureDef& figure, const Options& options, uint64_t page_size,
                 uint64_t bytes, std::chrono::seconds longest) {
  constexpr uint64_t kBatch = 128 * kMiB;
  constexpr uint32_t kAhead = 2;  // batches on their way out while the next is written
  say_progress(fmt::format("{} GiB in pages of {} KiB", bytes / kGiB, page_size >> 10));
  const Memory before = memory_now({});
  Managed managed(options, page_size, bytes);
  const Memory empty = memory_now(managed.left_out());
  const uint64_t batches = bytes / kBatch;
  const uint64_t pages = kBatch / page_size;
  const Clock::time_point begin = Clock::now();
  Clock::time_point said = begin;
  uint64_t done = 0;
  for (; done < batches && Clock::now() - begin < longest; ++done) {
    if (done >= kAhead) {
      managed.wait_until_out(static_cast<uint32_t>((done - kAhead) % kSessions));
    }
    managed.go_through(static_cast<uint32_t>(done % kSessions), done / kSessions * pages, pages);
    if (Clock::now() - said > std::chrono::seconds(10)) {
      said = Clock::now();
      say_progress(fmt::format("{} of {} GiB", done * kBatch / kGiB, bytes / kGiB));
    }
  }
  for (uint32_t s = 0; s < kSessions; ++s) {
    managed.wait_until_out(s);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const uint64_t swapped = managed.swapped();
  if (swapped != done * kBatch) {
    throw Failure(kExitFailed, fmt::format("{} of {} MiB were swapped out: something else was "
                                           "measured",
                                           swapped / kMiB, done * kBatch / kMiB));
  }
  const Memory after = memory_now(managed.left_out());
  const auto used = static_cast<double>(after.bytes() - before.bytes());
  const double ratio = used / static_cast<double>(swapped);
  const auto mib = [](uint64_t b) { return static_cast<double>(b) / kMiB; };
  std::string parts;
  for (size_t i = 0; i < std::min<size_t>(after.parts.size(), 4); ++i) {
    parts += fmt::format("{}{:.1f}", i == 0 ? "" : ", ", mib(after.parts[i]));
  }
  const auto growth = static_cast<double>(after.bytes() - empty.bytes());
  return {&figure,
          ratio,
          ratio,
          ratio,
          swapped / page_size,
          fmt::format("{} GiB of {} written, swapped out to a null device in {:.0f} s; {:.1f} MiB "
                      "beyond the process before it and the frames, {:.1f} of it before the first "
                      "page; {:.0f} bytes a page after that (it grows by the page); page tables "
                      "{:.1f} MiB, largest mappings {} MiB{}",
                      swapped / kGiB, bytes / kGiB, seconds, used / kMiB,
                      mib(empty.bytes() - before.bytes()),
                      growth * static_cast<double>(page_size) / static_cast<double>(swapped),
                      mib(after.tables - before.tables), parts, attributes_text(options))};
}

std::vector<Measured> run(const Options& options) {
  // A terabyte in pages of 2 MiB is 524,288 of them and has to be whole; in pages of 64 KiB it is
  // 16 million, of which as many go through as time allows.
  constexpr auto kWhole = std::chrono::seconds(600);
  constexpr auto kEnough = std::chrono::seconds(150);
  std::vector<Measured> all;
  const bool q = options.quick;
  if (kFigures[0].wanted(options)) {
    all.push_back(measure(kFigures[0], options, 2 * kMiB, q ? 16 * kGiB : kTiB, kWhole));
  }
  if (kFigures[1].wanted(options)) {
    all.push_back(measure(kFigures[1], options, 64 << 10, q ? 8 * kGiB : kTiB, kEnough));
  }
  return all;
}

}  // namespace

Benchmark metadata_benchmark() {
  return {"metadata", "bytes of metadata a byte managed, to a device that forgets", kFigures, run};
}

}  // namespace kvmm::bench
