// SPDX-License-Identifier: Apache-2.0
//
// Counts of events: added to by any thread, read by the attribute tree.
//
//   Counter faults_major;      ++ on the fault path: one relaxed addition on a cache line of its
//   own Gauge pins_open;           goes up and down; also remembers how high it was
//
// A counter never decides anything: it is read while others add, so two counters read one after the
// other need not add up. What decides lives under the core lock.
//
// Thread safety: any thread, lock-free, wait-free.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/units.h"

namespace kvmm {

// A figure that only grows. It wraps after 2^64.
class alignas(64) Counter {
 public:
  void add(uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  void add(Bytes n) noexcept { add(n.value()); }
  uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};  // atomic because any thread adds
};
static_assert(sizeof(Counter) == 64, "neighbours must not share a cache line");

// A figure that goes up and down. REQUIRES: never below zero.
class alignas(64) Gauge {
 public:
  void add(uint64_t n = 1) noexcept {
    const uint64_t now = value_.fetch_add(n, std::memory_order_relaxed) + n;
    uint64_t seen = highest_.load(std::memory_order_relaxed);
    while (seen < now && !highest_.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
  }
  void sub(uint64_t n = 1) noexcept { value_.fetch_sub(n, std::memory_order_relaxed); }
  uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }
  // The highest value since construction.
  uint64_t highest() const noexcept { return highest_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};    // atomic because any thread adds
  std::atomic<uint64_t> highest_{0};  // atomic because any thread raises it
};
static_assert(sizeof(Gauge) == 64, "neighbours must not share a cache line");

}  // namespace kvmm
