// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/test_bed.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <numeric>
#include <random>
#include <thread>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kMiB = 1 << 20;
constexpr auto kEvictMax = std::chrono::seconds(120);
constexpr auto kEvictPoll = std::chrono::microseconds(200);

void require(kvmm_status status, const char* what) {
  if (status == KVMM_OK) {
    return;
  }
  const std::string more = kvmm_last_error();
  throw Failure(
      status == KVMM_EPERMISSION || status == KVMM_ENOTSUPPORTED ? kExitImpossible : kExitFailed,
      fmt::format("{}: {}{}{}", what, kvmm_status_text(status), more.empty() ? "" : ": ", more));
}

// KVMM_INIT of C, without a warning about the fields that it leaves 0.
template <class Struct>
Struct sized() {
  Struct s{};
  s.size = sizeof(s);
  return s;
}

uint64_t number_of(uint64_t page) {
  return page * 0x9e3779b97f4a7c15u + 1;  // never 0, what a page that was not written reads as
}

uint64_t first_word(const char* page) {
  return *reinterpret_cast<const volatile uint64_t*>(page);
}

}  // namespace

TestBed::TestBed(const Config& config) : config_(config) {
  const uint64_t bytes = config.pages * config.page_size;
  const uint64_t swap_bytes = bytes + bytes / 4 + 64 * kMiB;
  try {
    {
      const ScratchDir scratch(config.dir, swap_bytes);
      const std::string swap = scratch.file("swap");
      kvmm_runtime_options r = sized<kvmm_runtime_options>();
      r.name = "kvbench";
      const std::string no_config = scratch.file("");  // an installed tuning is not measured
      r.config_dir = no_config.c_str();
      // Room beyond the session, so that reclaim (its watermarks are a sixteenth) stays asleep.
      r.dram_bytes = bytes + bytes / 4 + 64 * kMiB;
      r.swap_path = swap.c_str();
      r.swap_bytes = swap_bytes;
      r.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_VOLATILE;
      require(kvmm_runtime_open(&r, &runtime_), "opening a runtime");
    }
    kvmm_arena_options a = sized<kvmm_arena_options>();
    a.name = "kvbench";
    a.layout = "kvbench";
    a.lanes = 1;
    a.lane_tokens = config.pages;
    require(kvmm_arena_create(runtime_, &a, &arena_), "making an arena");
    kvmm_plane_options p = sized<kvmm_plane_options>();
    p.name = "pages";
    p.lane_stride = bytes;
    p.token_stride = config.page_size;
    p.page_size = config.page_size;
    uint32_t plane = 0;
    require(kvmm_arena_add_plane(arena_, &p, &plane), "adding a plane");
    kvmm_session_options s = sized<kvmm_session_options>();
    s.kind = KVMM_SESSION_RAW;
    require(kvmm_session_open(arena_, &s, &session_), "opening a session");
    void* base = nullptr;
    require(kvmm_session_address(session_, plane, &base), "asking for its address");
    base_ = static_cast<char*>(base);
  } catch (...) {
    release();
    throw;
  }
}

TestBed::~TestBed() {
  release();
}

void TestBed::release() {
  if (runtime_ != nullptr) {
    kvmm_runtime_close(runtime_);  // with everything in it
  }
}

void TestBed::set(const char* path, const char* value) {
  require(kvmm_attr_set(runtime_, path, value), path);
}

void TestBed::set_one_page_a_fault() {
  set("sched/readahead_max", "0");
  set("sched/fault_around", "0");
  set("sched/resume_prefetch", "off");
}

void TestBed::fill() {
  std::mt19937_64 random(2);
  std::vector<uint64_t> words(config_.page_size / sizeof(uint64_t));
  std::generate(words.begin(), words.end(), random);
  for (uint64_t i = 0; i < config_.pages; ++i) {
    words[0] = number_of(i);
    std::copy(words.begin(), words.end(), reinterpret_cast<uint64_t*>(page(i)));
  }
}

void TestBed::sync() {
  require(kvmm_sync(session_, nullptr), "writing the session out");
}

void TestBed::evict() {
  const Clock::time_point deadline = Clock::now() + kEvictMax;
  require(kvmm_advise(session_, KVMM_ADVISE_EVICT), "evicting the session");
  while (stats().bytes_resident != 0) {
    if (Clock::now() > deadline) {
      throw Failure(kExitFailed, fmt::format("{} MiB of the session cannot be evicted; is the disk "
                                             "of --dir full or failing?",
                                             stats().bytes_resident / kMiB));
    }
    std::this_thread::sleep_for(kEvictPoll);
  }
}

void TestBed::clear_from(uint64_t first) {
  require(kvmm_arena_clear(arena_, page(first), (config_.pages - first) * config_.page_size),
          "clearing pages");
}

kvmm_session_stat TestBed::stats() const {
  kvmm_session_stat s = sized<kvmm_session_stat>();
  require(kvmm_session_stats(session_, &s), "reading the session's counters");
  return s;
}

Pass TestBed::touch(const std::vector<uint64_t>& order, unsigned threads) {
  Pass pass;
  pass.latency_us.resize(order.size());
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> wrong{0};
  const auto work = [&] {
    for (size_t i = next++; i < order.size(); i = next++) {
      const Clock::time_point start = Clock::now();
      const uint64_t word = first_word(page(order[i]));
      const Clock::time_point end = Clock::now();
      pass.latency_us[i] = std::chrono::duration<double, std::micro>(end - start).count();
      wrong += word == number_of(order[i]) ? 0 : 1;
    }
  };
  Clock::time_point begin;
  if (threads == 1) {
    begin = Clock::now();
    work();
    pass.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  } else {
    std::latch ready(threads + 1);
    std::vector<std::jthread> running;
    for (unsigned t = 0; t < threads; ++t) {
      running.emplace_back([&] {
        ready.arrive_and_wait();
        work();
      });
    }
    ready.arrive_and_wait();
    begin = Clock::now();
    running.clear();  // joins
    pass.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  if (wrong != 0) {
    throw Failure(kExitFailed,
                  fmt::format("{} of {} pages came back with other bytes than were written",
                              wrong.load(), order.size()));
  }
  return pass;
}

std::vector<uint64_t> random_pages(uint64_t pages, uint64_t count, uint64_t seed) {
  std::vector<uint64_t> order(pages);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  order.resize(count);
  return order;
}

}  // namespace kvmm::bench
