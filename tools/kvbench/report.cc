// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/kvbench/machine.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string target_text(const FigureDef& f) {
  return fmt::format("{} {}{}", f.at_most ? "<=" : ">=", f.target, f.by_interval ? " (95 %)" : "");
}

std::string number(double v) {
  return fmt::format("{:.4g}", v);
}

}  // namespace

std::string list_text() {
  std::string out;
  for (const Benchmark& b : benchmarks()) {
    out += fmt::format("{:<10} {}\n", b.name, b.what);
    for (const FigureDef& f : b.figures) {
      out += fmt::format("  {:<26} {:<6} {:<14} {}\n", f.name, f.unit, target_text(f), f.what);
    }
  }
  return out;
}

std::string list_json() {
  Json all = Json::array();
  for (const Benchmark& b : benchmarks()) {
    Json figures = Json::array();
    for (const FigureDef& f : b.figures) {
      figures.push_back(
          {{"figure", f.name}, {"unit", f.unit}, {"target", target_text(f)}, {"what", f.what}});
    }
    all.push_back({{"name", b.name}, {"what", b.what}, {"figures", figures}});
  }
  return all.dump(2) + "\n";
}

std::string table_text(const std::vector<Measured>& figures) {
  std::string out = fmt::format("{:<26} {:>9} {:>19} {:>6}  {:<6} {:<14} {}\n", "figure", "value",
                                "95 % interval", "n", "unit", "target", "met");
  for (const Measured& m : figures) {
    out += fmt::format("{:<26} {:>9} {:>19} {:>6}  {:<6} {:<14} {}\n", m.figure->name,
                       number(m.value), number(m.low) + " .. " + number(m.high), m.n,
                       m.figure->unit, target_text(*m.figure), m.met() ? "yes" : "no");
  }
  out += "\n";
  for (const Measured& m : figures) {
    out += fmt::format("{}: {}\n", m.figure->name, m.method);
  }
  return out + fmt::format("\nmachine: {}\ncommit:  {}\n", machine_text(), commit_text());
}

std::string table_json(const std::vector<Measured>& figures) {
  Json all = Json::array();
  for (const Measured& m : figures) {
    all.push_back({{"figure", m.figure->name},
                   {"value", m.value},
                   {"low", m.low},
                   {"high", m.high},
                   {"n", m.n},
                   {"unit", m.figure->unit},
                   {"target", target_text(*m.figure)},
                   {"met", m.met()},
                   {"method", m.method},
                   {"machine", machine_text()},
                   {"commit", commit_text()}});
  }
  return all.dump(2) + "\n";
}

}  // namespace kvmm::bench
