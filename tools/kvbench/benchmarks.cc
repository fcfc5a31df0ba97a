// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/suites.h"

namespace kvmm::bench {

std::span<const Benchmark> benchmarks() {
  static const std::array<Benchmark, 7> kAll = {
      fault_benchmark(),   swapin_benchmark(),   session_benchmark(), engine_benchmark(),
      control_benchmark(), metadata_benchmark(), peers_benchmark()};
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

Verdict Measured::verdict() const {
  if (figure->bound == Bound::kNone || !absent.empty()) {
    return Verdict::kNone;
  }
  const auto meets = [this](double v) {
    return figure->bound == Bound::kAtMost ? v <= figure->target : v >= figure->target;
  };
  return meets(low) && meets(high)   ? Verdict::kMet
         : meets(low) || meets(high) ? Verdict::kOpen
                                     : Verdict::kMissed;
}

Measured absent_figure(const FigureDef& figure, const std::string& why) {
  say_progress(std::string(figure.name) + " is not taken: " + why);
  return {&figure, 0, 0, 0, 0, "", why};
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
