// SPDX-License-Identifier: Apache-2.0
//
// CPU time of this process, and of it that of kvmm's threads: what bounds a figure on
// a machine with few cores.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <cstdint>
#include <string>

namespace kvmm::bench {

struct CpuTime {
  double total_us = 0;    // of all threads, those that have ended too
  double core_us = 0;     // of it, threads named kvmm-core
  double data_us = 0;     // kvmm-data
  double control_us = 0;  // kvmm-ctl

  CpuTime& operator+=(const CpuTime& other);
  CpuTime operator-(const CpuTime& earlier) const;
  // "92 us (core 45, data 6)", each divided by `count`.
  std::string text(uint64_t count) const;
};

CpuTime cpu_time();

}  // namespace kvmm::bench
