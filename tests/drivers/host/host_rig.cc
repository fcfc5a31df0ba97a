// SPDX-License-Identifier: Apache-2.0
#include "tests/drivers/host/host_rig.h"

#include <cstdio>
#include <fstream>
#include <sstream>

namespace kvmm::test {
namespace {

// The line of `key` in the smaps entry of `address`, or "".
std::string smaps_line(uint64_t address, const std::string& key) {
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long start = 0, end = 0;
    char space = 0;
    if (sscanf(line.c_str(), "%lx-%lx%c", &start, &end, &space) == 3 && space == ' ') {
      inside = address >= start && address < end;
    } else if (inside && line.compare(0, key.size() + 1, key + ":") == 0) {
      return line.substr(key.size() + 1);
    }
  }
  return "";
}

}  // namespace

bool machine_has_huge_pages() {
  std::ifstream f("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(f, text);
  return text.find("[always]") != std::string::npos || text.find("[madvise]") != std::string::npos;
}

long smaps_kib(uint64_t address, const std::string& key) {
  const std::string line = smaps_line(address, key);
  return line.empty() ? -1 : std::stol(line);
}

bool smaps_flag(uint64_t address, const std::string& flag) {
  std::istringstream words(smaps_line(address, "VmFlags"));
  for (std::string word; words >> word;) {
    if (word == flag) {
      return true;
    }
  }
  return false;
}

}  // namespace kvmm::test
