// SPDX-License-Identifier: Apache-2.0
#include "tests/stress/stress_world.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <sstream>

namespace kvmm_stress {
namespace {

constexpr unsigned kAlarmS = 90;

template <class T>
T init() {
  T t{};
  t.size = sizeof(T);
  return t;
}

#define STRESS_OK(call) EXPECT_EQ((call), KVMM_OK) << #call << ": " << kvmm_last_error()

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace

StressWorld::StressWorld(const StressOptions& options)
    : options_(options),
      swap_path_("stress-" + std::to_string(getpid()) + ".swap"),
      sessions_(options.lanes) {
  alarm(kAlarmS);
  auto r = init<kvmm_runtime_options>();
  r.name = "stress";
  r.config_dir = "";
  r.dram_bytes = options.dram;
  r.swap_path = swap_path_.c_str();
  r.swap_bytes = options.swap;
  r.frames = options.frames;
  r.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_VOLATILE;
  r.data_workers = 2;
  STRESS_OK(kvmm_runtime_open(&r, &runtime_));
  if (runtime_ == nullptr) {
    return;
  }
  auto a = init<kvmm_arena_options>();
  a.lanes = options.lanes;
  STRESS_OK(kvmm_arena_create(runtime_, &a, &arena_));
  if (arena_ == nullptr) {
    return;
  }
  void* range = nullptr;
  STRESS_OK(kvmm_arena_reserve(arena_, options.lanes * options.lane_bytes, &range));
  auto p = init<kvmm_plane_options>();
  p.name = "kv";
  p.base = range;
  p.lane_stride = options.lane_bytes;
  p.token_stride = options.token;
  p.page_size = options.page;
  uint32_t plane = 0;
  const kvmm_status added = kvmm_arena_add_plane(arena_, &p, &plane);
  STRESS_OK(added);
  base_ = added == KVMM_OK ? static_cast<unsigned char*>(range) : nullptr;
}

StressWorld::~StressWorld() {
  for (uint32_t i = 0; i < sessions_.size(); ++i) {
    if (sessions_[i] != nullptr) {
      close(i);
    }
  }
  if (arena_ != nullptr) {
    STRESS_OK(kvmm_arena_destroy(arena_));
  }
  if (runtime_ != nullptr) {
    STRESS_OK(kvmm_runtime_close(runtime_));
  }
  unlink(swap_path_.c_str());
  alarm(0);
}

void StressWorld::open(uint32_t lane) {
  auto s = init<kvmm_session_options>();
  s.lane = static_cast<int64_t>(lane) + 1;
  s.kind = options_.token == 0 ? KVMM_SESSION_RAW : KVMM_SESSION_STRUCTURED;
  STRESS_OK(kvmm_session_open(arena_, &s, &sessions_[lane]));
}

void StressWorld::close(uint32_t lane) {
  STRESS_OK(kvmm_session_close(sessions_[lane]));
  sessions_[lane] = nullptr;
}

uint64_t StressWorld::counter(const std::string& name) const {
  char text[8192] = "";
  STRESS_OK(kvmm_attr_get(runtime_, "vmstat", text, sizeof text));
  std::istringstream lines(text);
  std::string key;
  for (uint64_t value = 0; lines >> key >> value;) {
    if (key == name) {
      return value;
    }
  }
  ADD_FAILURE() << "vmstat has no " << name;
  return 0;
}

kvmm_session_stat StressWorld::stat(uint32_t lane) const {
  auto s = init<kvmm_session_stat>();
  STRESS_OK(kvmm_session_stats(sessions_[lane], &s));
  return s;
}

void StressWorld::evict(uint32_t lane) {
  STRESS_OK(kvmm_advise(sessions_[lane], KVMM_ADVISE_EVICT));
  const Bound bound(30);
  while (stat(lane).bytes_resident != 0) {
    if (bound.over()) {
      ADD_FAILURE() << stat(lane).bytes_resident << " bytes stay resident";
      return;
    }
    std::this_thread::yield();  // the core works; it says nothing when it is done
  }
}

AttributeReader::AttributeReader(kvmm_runtime* runtime, const std::vector<uint64_t>& sessions)
    : runtime_(runtime) {
  std::vector<std::string> paths = {"vmstat", "meminfo", "tiers/dram/used"};
  for (const uint64_t id : sessions) {
    for (const char* leaf : {"maps", "pagemap", "stat"}) {
      paths.push_back("sessions/" + std::to_string(id) + "/" + leaf);
    }
  }
  thread_ = std::thread([this, paths] { run(paths); });
}

AttributeReader::~AttributeReader() {
  stop_ = true;
  thread_.join();
}

void AttributeReader::run(const std::vector<std::string>& paths) {
  std::vector<char> text(256 * kKi);
  while (!stop_) {
    for (const std::string& path : paths) {
      const kvmm_status r = kvmm_attr_get(runtime_, path.c_str(), text.data(), text.size());
      EXPECT_EQ(r, KVMM_OK) << path << ": " << kvmm_last_error();
      EXPECT_NE(text[0], '\0') << path;
    }
    ++rounds_;
  }
}

Bound::Bound(uint64_t seconds) : end_ns_(now_ns() + seconds * 1'000'000'000) {}

bool Bound::over() const {
  return now_ns() >= end_ns_;
}

}  // namespace kvmm_stress
