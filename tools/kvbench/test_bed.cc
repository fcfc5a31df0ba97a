// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/test_bed.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <latch>
#include <numeric>
#include <random>
#include <thread>
#include <unordered_map>

#include "runtime/base/check.h"
#include "tools/kvbench/api_call.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kMiB = 1 << 20;
constexpr auto kEvictMax = std::chrono::seconds(120);
constexpr auto kEvictPoll = std::chrono::microseconds(200);

uint64_t number_of(uint64_t page) {
  return page * 0x9e3779b97f4a7c15u + 1;  // never 0, what a page that was not written reads as
}

uint64_t first_word(const char* page) {
  return *reinterpret_cast<const volatile uint64_t*>(page);
}

// Runs work(0) .. work(threads - 1) at once; the seconds from the first start to the last end.
double seconds_of(unsigned threads, const std::function<void(unsigned)>& work) {
  Clock::time_point begin;
  if (threads == 1) {
    begin = Clock::now();
    work(0);
  } else {
    std::latch ready(threads + 1);
    std::vector<std::jthread> running;
    for (unsigned t = 0; t < threads; ++t) {
      running.emplace_back([&, t] {
        ready.arrive_and_wait();
        work(t);
      });
    }
    ready.arrive_and_wait();
    begin = Clock::now();
    running.clear();  // joins
  }
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Touches a page; false: it has not its number.
bool touch_one(const char* page, uint64_t i, double* us) {
  const Clock::time_point start = Clock::now();
  const uint64_t word = first_word(page);
  *us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  return word == number_of(i);
}

void require_right(uint64_t wrong, uint64_t of) {
  if (wrong != 0) {
    throw Failure(
        kExitFailed,
        fmt::format("{} of {} pages came back with other bytes than were written", wrong, of));
  }
}

}  // namespace

TestBed::TestBed(const Options& options, const Config& config) : config_(config) {
  try {
    open(options);
  } catch (...) {
    release();
    throw;
  }
}

void TestBed::open(const Options& options) {
  const uint64_t bytes = pages() * config_.page_size;
  const uint64_t swap_bytes = bytes + bytes / 4 + 64 * kMiB;
  {
    const ScratchDir scratch(options.dir, swap_bytes);
    const std::string swap = scratch.file("swap");
    kvmm_runtime_options r = sized<kvmm_runtime_options>();
    r.name = "kvbench";
    const std::string no_config = scratch.file("");  // an installed tuning is not measured
    r.config_dir = no_config.c_str();
    // Room beyond the sessions, so that reclaim (its watermarks are a sixteenth) stays asleep.
    r.dram_bytes = bytes + bytes / 4 + 64 * kMiB;
    r.swap_path = swap.c_str();
    r.swap_bytes = swap_bytes;
    r.flags = KVMM_RUNTIME_VOLATILE | (config_.control ? 0 : KVMM_RUNTIME_NO_CONTROL);
    require(kvmm_runtime_open(&r, &runtime_), "opening a runtime");
    plain_ = std::make_unique<PlainReads>(open_direct(swap), config_.page_size, config_.depth);
  }
  for (const auto& [path, value] : options.attributes) {
    set(path.c_str(), value.c_str());
  }
  kvmm_arena_options a = sized<kvmm_arena_options>();
  a.name = "kvbench";
  a.layout = "kvbench";
  a.lanes = config_.sessions;
  a.lane_tokens = config_.pages;
  require(kvmm_arena_create(runtime_, &a, &arena_), "making an arena");
  kvmm_plane_options p = sized<kvmm_plane_options>();
  p.name = "pages";
  p.lane_stride = config_.pages * config_.page_size;
  p.token_stride = config_.page_size;
  p.page_size = config_.page_size;
  uint32_t plane = 0;
  require(kvmm_arena_add_plane(arena_, &p, &plane), "adding a plane");
  for (uint32_t i = 0; i < config_.sessions; ++i) {
    kvmm_session_options s = sized<kvmm_session_options>();
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
  std::mt19937_64 random(2);  // not zeros: a disk may treat them as nothing
  words_.resize(config_.page_size / sizeof(uint64_t));
  std::generate(words_.begin(), words_.end(), random);
  for (uint64_t i = 0; i < pages(); ++i) {
    words_[0] = number_of(i);
    std::memcpy(page(i), words_.data(), config_.page_size);
  }
  places_.clear();
}

void TestBed::sync() {
  for (kvmm_session* const s : sessions_) {
    require(kvmm_sync(s, nullptr), "writing a session out");
  }
}

void TestBed::evict() {
  const Clock::time_point deadline = Clock::now() + kEvictMax;
  for (kvmm_session* const s : sessions_) {
    require(kvmm_advise(s, KVMM_ADVISE_EVICT), "evicting a session");
  }
  while (stats().bytes_resident != 0) {
    if (Clock::now() > deadline) {
      throw Failure(kExitFailed,
                    fmt::format("{} MiB cannot be evicted; is the disk of --dir full or failing?",
                                stats().bytes_resident / kMiB));
    }
    std::this_thread::sleep_for(kEvictPoll);
  }
}

void TestBed::clear_from(uint64_t first) {
  check(config_.sessions == 1, "one session");
  require(kvmm_arena_clear(arena_, page(first), (pages() - first) * config_.page_size),
          "clearing pages");
}

kvmm_session_stat TestBed::stats() const {
  kvmm_session_stat sum = sized<kvmm_session_stat>();
  for (kvmm_session* const session : sessions_) {
    kvmm_session_stat s = sized<kvmm_session_stat>();
    require(kvmm_session_stats(session, &s), "reading a session's counters");
    sum.bytes_resident += s.bytes_resident;
    sum.faults_zero += s.faults_zero;
    sum.faults_minor += s.faults_minor;
    sum.faults_major += s.faults_major;
    sum.swap_in_bytes += s.swap_in_bytes;
    sum.swap_out_bytes += s.swap_out_bytes;
    sum.wrong_pages += s.wrong_pages;
  }
  return sum;
}

Pass TestBed::touch(const std::vector<uint64_t>& order, unsigned threads) {
  Pass pass;
  pass.latency_us.resize(order.size());
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> wrong{0};
  pass.seconds = seconds_of(threads, [&](unsigned) {
    for (size_t i = next++; i < order.size(); i = next++) {
      wrong += touch_one(page(order[i]), order[i], &pass.latency_us[i]) ? 0 : 1;
    }
  });
  require_right(wrong, order.size());
  return pass;
}

Pass TestBed::touch_apart(const std::vector<std::vector<uint64_t>>& orders) {
  std::vector<std::vector<double>> us(orders.size());
  std::atomic<uint64_t> wrong{0};
  Pass pass;
  pass.seconds = seconds_of(static_cast<unsigned>(orders.size()), [&](unsigned t) {
    us[t].resize(orders[t].size());
    for (size_t i = 0; i < orders[t].size(); ++i) {
      wrong += touch_one(page(orders[t][i]), orders[t][i], &us[t][i]) ? 0 : 1;
    }
  });
  for (const std::vector<double>& of_thread : us) {
    pass.latency_us.insert(pass.latency_us.end(), of_thread.begin(), of_thread.end());
  }
  require_right(wrong, pass.latency_us.size());
  return pass;
}

void TestBed::verify(const std::vector<uint64_t>& order) const {
  uint64_t wrong = 0;
  for (const uint64_t i : order) {
    const uint64_t number = number_of(i);
    const bool right = std::memcmp(page(i), &number, sizeof(number)) == 0 &&
                       std::memcmp(page(i) + sizeof(number), words_.data() + 1,
                                   config_.page_size - sizeof(number)) == 0;
    wrong += right ? 0 : 1;
  }
  require_right(wrong, order.size());
  if (stats().wrong_pages != 0) {
    throw Failure(kExitFailed, fmt::format("{} reads failed verification", stats().wrong_pages));
  }
}

Pass TestBed::read_plainly(const std::vector<uint64_t>& order, unsigned depth) {
  return plain_->read(reads_of(order), config_.page_size, depth);
}

Pass TestBed::read_and_keep(const std::vector<uint64_t>& order, unsigned depth) {
  const std::vector<PlainRead> reads = reads_of(order);
  if (keeping_ == nullptr) {
    const int fd = fcntl(plain_->fd(), F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
      throw Failure(kExitFailed, fmt::format("a descriptor: {}", std::strerror(errno)));
    }
    keeping_ = std::make_unique<PlainReads>(
        fd, config_.page_size, config_.depth,
        ReadInto{.places = order.size(), .huge = config_.page_size >= 2 * kMiB});
  }
  return keeping_->read(reads, config_.page_size, depth);
}

std::vector<PlainRead> TestBed::reads_of(const std::vector<uint64_t>& order) {
  if (places_.empty()) {
    locate();
  }
  std::vector<PlainRead> reads;
  for (const uint64_t i : order) {
    reads.push_back(places_[i]);
  }
  return reads;
}

// Where each page lies in the file, known by its number. Slots are aligned to their size.
void TestBed::locate() {
  std::unordered_map<uint64_t, uint64_t> page_of;
  for (uint64_t i = 0; i < pages(); ++i) {
    page_of[number_of(i)] = i;
  }
  constexpr size_t kSector = 4096;
  const std::unique_ptr<void, decltype(&std::free)> sector(std::aligned_alloc(kSector, kSector),
                                                           &std::free);
  places_.assign(pages(), PlainRead{});
  for (const PlainRead& at : data_of(plain_->fd(), config_.page_size)) {
    uint64_t word = 0;
    if (pread(plain_->fd(), sector.get(), kSector, static_cast<off_t>(at.offset)) == kSector) {
      std::memcpy(&word, sector.get(), sizeof(word));
    }
    if (const auto found = page_of.find(word); found != page_of.end()) {
      places_[found->second] = {at.offset, word};
      page_of.erase(found);
    }
  }
  if (!page_of.empty()) {
    throw Failure(kExitFailed, fmt::format("{} of {} pages were not found in the swap file",
                                           page_of.size(), pages()));
  }
}

std::vector<uint64_t> random_pages(uint64_t pages, uint64_t count, uint64_t seed) {
  std::vector<uint64_t> order(pages);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  order.resize(count);
  return order;
}

}  // namespace kvmm::bench
