// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/machine.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace kvmm::bench {
namespace {

// What stands after ':' in the first line of `path` that begins with `key`; "" if there is none.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (line.rfind(key, 0) == 0 && colon != std::string::npos) {
      const size_t at = line.find_first_not_of(" \t", colon + 1);
      return at == std::string::npos ? "" : line.substr(at);
    }
  }
  return "";
}

}  // namespace

std::string machine_text() {
  std::string cpu = proc_value("/proc/cpuinfo", "model name");
  if (cpu.empty()) {
    cpu = "unknown CPU";
  }
  const std::string kib = proc_value("/proc/meminfo", "MemTotal");
  const std::string memory =
      kib.empty() ? "unknown memory"
                  : fmt::format("{:.1f} GiB", std::strtod(kib.c_str(), nullptr) / (1 << 20));
  utsname name{};
  const std::string kernel =
      uname(&name) == 0 ? fmt::format("{} {}", name.sysname, name.release) : "unknown kernel";
  return fmt::format("{}, {} cores, {}, {}", cpu, sysconf(_SC_NPROCESSORS_ONLN), memory, kernel);
}

double load_per_core() {
  double load = 0;
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return getloadavg(&load, 1) == 1 && cores > 0 ? load / static_cast<double>(cores) : 0;
}

}  // namespace kvmm::bench
