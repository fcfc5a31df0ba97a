// SPDX-License-Identifier: Apache-2.0
//
// OpenMetrics text (version 1.0.0) of runtimes, made from their attributes.
//
//   # TYPE kvmm_tier_used_bytes gauge
//   # UNIT kvmm_tier_used_bytes bytes
//   # HELP kvmm_tier_used_bytes Frames that hold pages.
//   kvmm_tier_used_bytes{runtime="llama-server",process="4242-0",tier="dram"} 201326592
//   # EOF
//
// Names and labels: docs/operating/metrics.md. A counter of `vmstat` that is not known here is
// exported all the same, as kvmm_NAME_total.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/kvctl/context.h"

namespace kvmm::ctl {

inline constexpr const char* kMetricsType =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

class Metrics {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  // `name` without _total, _info or _bucket; its unit is its ending. Counters never fall. The
  // first help text of a name stays.
  void counter(const std::string& name, const char* help, const Labels& labels, uint64_t value);
  void gauge(const std::string& name, const char* help, const Labels& labels, uint64_t value);
  void gauge_seconds(const std::string& name, const char* help, const Labels& labels, uint64_t ns);
  void info(const std::string& name, const char* help, const Labels& labels);
  // `line`: what follows the name in a line of the attribute `latency`. Passes over garbage.
  void histogram(const std::string& name, const char* help, const Labels& labels,
                 std::string_view line);

  // What is known of the runtimes together.
  void totals(uint64_t answered, uint64_t silent);

  // Sorted by name; ends with "# EOF".
  std::string text() const;

 private:
  struct Family {
    const char* type;
    std::string help;
    std::string samples;
  };
  Family& family(const std::string& name, const char* type, const char* help);
  std::map<std::string, Family> families_;
};

// Everything about one runtime. Errors: those of the client.
Result<void> collect(Runtime& runtime, Metrics* metrics);

// Of all runtimes that answer, or the one that is meant (-p). Those that go meanwhile are left out.
Metrics collect_all(const Context& context);

// Serves `collect_all` over HTTP on a loopback address until told to end. The exit status.
int serve_metrics(const Context& context);

}  // namespace kvmm::ctl
