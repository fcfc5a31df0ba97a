// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/kvbench/machine.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string target_text(const FigureDef& f) {
  return f.bound == Bound::kNone
             ? "-"
             : fmt::format("{} {}", f.bound == Bound::kAtMost ? "<=" : ">=", f.target);
}

const char* verdict_text(Verdict v) {
  switch (v) {
    case Verdict::kMet:
      return "yes";
    case Verdict::kMissed:
      return "no";
    case Verdict::kOpen:
      return "open";
    case Verdict::kNone:
      break;
  }
  return "-";
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
      out += fmt::format("  {:<33} {:<6} {:<9} {}\n", f.name, f.unit, target_text(f), f.what);
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
  std::string out = fmt::format("{:<33} {:>9} {:>23} {:>6}  {:<6} {:<9} {}\n", "figure", "value",
                                "95 % interval", "n", "unit", "target", "met");
  for (const Measured& m : figures) {
    const bool taken = m.absent.empty();
    out += fmt::format("{:<33} {:>9} {:>23} {:>6}  {:<6} {:<9} {}\n", m.figure->name,
                       taken ? number(m.value) : "-",
                       taken ? number(m.low) + " .. " + number(m.high) : "-", m.n, m.figure->unit,
                       target_text(*m.figure), verdict_text(m.verdict()));
  }
  out += "\nmet: the whole interval meets the target; open: it reaches over the target\n\n";
  for (const Measured& m : figures) {
    out += fmt::format("{}: {}\n", m.figure->name,
                       m.absent.empty() ? m.method : "not taken: " + m.absent);
  }
  return out + fmt::format("\nmachine: {}\ncommit:  {}\n", machine_text(), commit_text());
}

std::string table_json(const std::vector<Measured>& figures) {
  Json all = Json::array();
  for (const Measured& m : figures) {
    const bool taken = m.absent.empty();
    const auto number_of = [taken](double v) { return taken ? Json(v) : Json(nullptr); };
    const Verdict v = m.verdict();
    Json row = {{"figure", m.figure->name},
                {"value", number_of(m.value)},
                {"low", number_of(m.low)},
                {"high", number_of(m.high)},
                {"n", m.n},
                {"unit", m.figure->unit},
                {"target", target_text(*m.figure)},
                // Null: no target, or the interval reaches over it.
                {"met", v == Verdict::kMet      ? Json(true)
                        : v == Verdict::kMissed ? Json(false)
                                                : Json(nullptr)},
                {"method", m.method},
                {"machine", machine_text()},
                {"commit", commit_text()}};
    if (!taken) {
      row["absent"] = m.absent;
    }
    all.push_back(std::move(row));
  }
  return all.dump(2) + "\n";
}

}  // namespace kvmm::bench
