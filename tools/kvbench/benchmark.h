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
  std::string dir;       // where the swap file is made
  bool install = false;  // `peers`: install them into `dir`, measure nothing
  bool quick = false;    // few samples: shows that it works, not how fast it is
  std::string figure;    // only this one; empty: all
  // Attributes that are set for what is measured (path, value); the method of each figure says so.
  std::vector<std::pair<std::string, std::string>> attributes;
};

enum class Bound : uint8_t {
  kAtMost,
  kAtLeast,
  kNone,  // a figure that others are read beside; it has no target
};

// How an interval lies to its target. A value alone would meet it by luck wherever noise is as
// large as what is measured.
enum class Verdict : uint8_t {
  kMet,     // all of it meets the target
  kMissed,  // nothing of it does
  kOpen,    // it reaches over the target: take more samples, or an idle machine
  kNone,    // there is no target
};

struct FigureDef {
  const char* name;
  const char* unit;  // "us", "ratio" or "locks"
  Bound bound;
  double target;
  const char* what;  // one line for --list

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
  std::string absent = {};  // why it could not be taken here; "": it was, and the numbers count

  Verdict verdict() const;
};

// A figure that cannot be taken here while others of its benchmark can.
Measured absent_figure(const FigureDef& figure, const std::string& why);

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
