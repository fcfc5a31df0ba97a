// SPDX-License-Identifier: Apache-2.0
//
// metrics: OpenMetrics text once on standard output, or served to a scraper on this machine.
#include <CLI/CLI.hpp>

#include "tools/kvctl/metrics.h"

namespace kvmm::ctl {

void declare_metrics(CLI::App& command, Options& options) {
  command.add_option("--listen", options.listen,
                     "Serve them over HTTP at this loopback address, 127.0.0.1:PORT or [::1]:PORT");
}

int run_metrics(const Context& context) {
  if (!context.options.listen.empty()) {
    return serve_metrics(context);
  }
  if (context.options.json) {
    return context.fail(kExitUsage,
                        "metrics have one format, OpenMetrics text; `kvctl --json top --once` and "
                        "`kvctl --json get -r` print JSON");
  }
  if (context.options.runtime.empty()) {
    return context.print(collect_all(context).text());
  }
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  Metrics metrics;
  if (const Result<void> done = collect(*runtime, &metrics); !done) {
    return context.fail(done.error());
  }
  metrics.totals(1, 0);
  return context.print(metrics.text());
}

}  // namespace kvmm::ctl
