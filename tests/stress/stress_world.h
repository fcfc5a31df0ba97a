// SPDX-License-Identifier: Apache-2.0
//
// A runtime under pressure, for several engine threads: less memory than the sessions hold, a swap
// file in the working folder, and a reader of attributes that never stops.
//
//   Runtime -> one arena -> one plane -> sessions (lane i at base(i))
//
// A thread that waits for ever is ended by an alarm, and the test fails by it.
//
// Thread safety: `counter`, `stat` and `evict` may be called by any thread; the rest by one.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kvmm/kvmm.h"

namespace kvmm_stress {

constexpr uint64_t kKi = 1024;
constexpr uint64_t kMi = 1024 * kKi;

struct StressOptions {
  uint64_t dram = 8 * kMi;
  uint64_t swap = 256 * kMi;
  const char* frames = "movable";
  uint32_t lanes = 4;
  uint64_t lane_bytes = 8 * kMi;
  uint64_t page = 64 * kKi;
  uint64_t token = 0;  // bytes; not 0: sessions are structured
};

class StressWorld {
 public:
  explicit StressWorld(const StressOptions& options);
  // Closes everything; an error there fails the test.
  ~StressWorld();
  StressWorld(const StressWorld&) = delete;
  StressWorld& operator=(const StressWorld&) = delete;

  // False: a call failed, and the test has been failed.
  bool ok() const { return arena_ != nullptr && base_ != nullptr; }
  void open(uint32_t lane);
  void close(uint32_t lane);
  kvmm_session* session(uint32_t lane) { return sessions_[lane]; }
  unsigned char* base(uint32_t lane) const { return base_ + lane * options_.lane_bytes; }
  kvmm_runtime* runtime() { return runtime_; }

  uint64_t counter(const std::string& name) const;  // of vmstat
  kvmm_session_stat stat(uint32_t lane) const;
  // Sends the session out and waits until no byte of it is resident.
  void evict(uint32_t lane);

 private:
  const StressOptions options_;
  std::string swap_path_;
  kvmm_runtime* runtime_ = nullptr;
  kvmm_arena* arena_ = nullptr;
  unsigned char* base_ = nullptr;
  std::vector<kvmm_session*> sessions_;
};

// Reads what kvctl top, maps and pagemap read, again and again, until it goes out of scope.
class AttributeReader {
 public:
  // `sessions`: ids of sessions that stay open.
  AttributeReader(kvmm_runtime* runtime, const std::vector<uint64_t>& sessions);
  ~AttributeReader();
  uint64_t rounds() const { return rounds_.load(); }

 private:
  void run(const std::vector<std::string>& paths);
  kvmm_runtime* const runtime_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> rounds_{0};
  std::thread thread_;
};

// Steps that a test is bounded by: so many, or until the time is over, whichever comes first.
class Bound {
 public:
  explicit Bound(uint64_t seconds);
  bool over() const;

 private:
  const uint64_t end_ns_;
};

// What a page holds at word `word`, after `writes` writes.
inline uint64_t pattern(uint64_t lane, uint64_t word, uint64_t writes) {
  return ((lane + 1) * 0x9e3779b97f4a7c15u + word) * 0xbf58476d1ce4e5b9u + writes;
}

}  // namespace kvmm_stress
