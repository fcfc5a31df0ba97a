// SPDX-License-Identifier: Apache-2.0
//
// A benchmark measures figures. A figure has a definition that never depends on a run (name, unit,
// target) and a value that does.
//
//   Benchmark "swapin" --+-- FigureDef "swapin.2m.ratio"  ratio  >= 0.95  --run--> Measured
//                        +-- ...
//
// What goes wrong is thrown as `Failure`: half a benchmark is of no use, and everything it holds is
// given back by destructors on the way out. Its status is what the program exits with.
//
// Thread safety: none; a benchmark starts the threads that it measures and joins them itself.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kvmm::bench {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;       // something refused or went wrong
inline constexpr int kExitUsage = 2;        // the command line is wrong
inline constexpr int kExitImpossible = 77;  // this machine or user cannot run it

class Failure : public std::runtime_error {
 public:
  Failure(int status, const std::string& text) : std::runtime_error(text), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

struct Options {
  std::string dir;     // where the swap file is made
  bool quick = false;  // few samples: shows that it works, not how fast it is
  std::string figure;  // only this one; empty: all
  // Attributes that are set for what is measured (path, value); the method of each figure says so.
  std::vector<std::pair<std::string, std::string>> attributes;
};

struct FigureDef {
  const char* name;
  const char* unit;  // "us" or "ratio"
  bool at_most;      // the target is an upper bound
  double target;
  const char* what;  // one line for --list
  // The worse end of the interval must meet the target, not the value: where noise can be as large
  // as what is measured, a value alone meets it by luck.
  bool by_interval = false;

  bool wanted(const Options& options) const {
    return options.figure.empty() || options.figure == name;
  }
};

struct Measured {
  const FigureDef* figure;
  double value;
  double low, high;  // 95 % interval of `value`
  uint64_t n;        // samples, or pairs of a ratio
  std::string method;

  bool met() const {
    const double judged = !figure->by_interval ? value : figure->at_most ? high : low;
    return figure->at_most ? judged <= figure->target : judged >= figure->target;
  }
};

struct Benchmark {
  const char* name;
  const char* what;
  std::span<const FigureDef> figures;
  // Measures the figures that `options` wants, in the order of `figures`. Throws Failure.
  std::vector<Measured> (*run)(const Options& options);
};

// All there are, in the order in which they are listed.
std::span<const Benchmark> benchmarks();
// nullptr: there is none of that name.
const Benchmark* find_benchmark(const std::string& name);

// A line to standard error about what is measured now.
void say_progress(const std::string& what);

// For the method of a figure: what was set; "" if nothing.
std::string attributes_text(const Options& options);

}  // namespace kvmm::bench
