// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/suites.h"

namespace kvmm::bench {

std::span<const Benchmark> benchmarks() {
  static const std::array<Benchmark, 3> kAll = {fault_benchmark(), swapin_benchmark(),
                                                engine_benchmark()};
  return kAll;
}

const Benchmark* find_benchmark(const std::string& name) {
  for (const Benchmark& b : benchmarks()) {
    if (name == b.name) {
      return &b;
    }
  }
  return nullptr;
}

void say_progress(const std::string& what) {
  std::fprintf(stderr, "kvbench: %s\n", what.c_str());
}

std::string attributes_text(const Options& options) {
  std::string out;
  for (const auto& [path, value] : options.attributes) {
    out += "; set " + path + "=" + value;
  }
  return out;
}

}  // namespace kvmm::bench
