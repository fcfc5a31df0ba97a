// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/cpu_time.h"

#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace kvmm::bench {

CpuTime& CpuTime::operator+=(const CpuTime& other) {
  total_us += other.total_us;
  core_us += other.core_us;
  data_us += other.data_us;
  control_us += other.control_us;
  return *this;
}

CpuTime CpuTime::operator-(const CpuTime& earlier) const {
  return {total_us - earlier.total_us, core_us - earlier.core_us, data_us - earlier.data_us,
          control_us - earlier.control_us};
}

std::string CpuTime::text(uint64_t count) const {
  const auto n = static_cast<double>(count);
  return fmt::format("{:.1f} us (core {:.1f}, data {:.1f})", total_us / n, core_us / n,
                     data_us / n);
}

CpuTime cpu_time() {
  CpuTime now;
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  now.total_us = static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
  std::error_code ignored;  // a thread that ends meanwhile
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::string name;
    double ns = 0;  // schedstat: nanoseconds on a CPU come first
    std::ifstream(task.path() / "comm") >> name;
    std::ifstream(task.path() / "schedstat") >> ns;
    now.core_us += name == "kvmm-core" ? ns / 1e3 : 0;
    now.data_us += name == "kvmm-data" ? ns / 1e3 : 0;
    now.control_us += name == "kvmm-ctl" ? ns / 1e3 : 0;
  }
  return now;
}

}  // namespace kvmm::bench
