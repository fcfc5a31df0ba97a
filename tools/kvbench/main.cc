// SPDX-License-Identifier: Apache-2.0
//
// kvbench: measures kvmm. The command line and nothing else.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/machine.h"
#include "tools/kvbench/report.h"

namespace kvmm::bench {
namespace {

constexpr const char* kExamples = R"(
Examples:
  kvbench --list                         benchmarks, their figures and targets
  kvbench fault --quick                  does it work here? a few seconds
  kvbench swapin --dir /mnt/nvme         page-in from that disk beside plain reads from it
  kvbench swapin --figure swapin.64k.ratio --set sched/io_chunk=64KiB
                                         one figure, with another tuning
  kvbench swapin --json > swapin.json    for tools: value, interval, n, method, machine, commit
  kvbench all --dir /mnt/nvme --json     every figure, one after another: about half an hour
  kvbench peers --install --dir /mnt/p   other systems, into /mnt/p: 6 GB; then the same without
                                         --install measures beside them

Figures are only as good as the machine is idle. Files are made in --dir and are gone when kvbench
ends, however it ends. `engine` runs the real llama.cpp; it downloads nothing: tools/engines/llama/
fetch.py does, once. `session` takes a swap file into use and makes a memory cgroup if it is root, and
takes both away again.

A figure is met if its whole 95 % interval is; "open" if that reaches over the target (JSON: null).

Exit status: 0 measured, whether targets are met or not; 1 failed; 2 wrong command line; 77 this
machine or user cannot run it (the message says what would allow it).)";

int print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    std::fprintf(stderr, "kvbench: cannot write the output\n");
    return kExitFailed;
  }
  return kExitOk;
}

int usage_error(const std::string& text) {
  std::fprintf(stderr, "kvbench: %s; kvbench --help\n", text.c_str());
  return kExitUsage;
}

// One benchmark that cannot be run, or fails, does not take the others' half hour with it.
int run_all(const Options& options, std::vector<Measured>* all) {
  int status = kExitOk;
  for (const Benchmark& benchmark : benchmarks()) {
    say_progress(std::string("benchmark ") + benchmark.name);
    try {
      const auto figures = benchmark.run(options);
      all->insert(all->end(), figures.begin(), figures.end());
    } catch (const Failure& e) {
      for (const FigureDef& figure : benchmark.figures) {
        all->push_back(absent_figure(figure, e.what()));
      }
      status = e.status() == kExitImpossible ? status : e.status();
    }
  }
  return status;
}

int run(int argc, char** argv) {
  CLI::App app{"Measures what kvmm costs and gives, beside what it is compared with.", "kvbench"};
  Options options;
  options.dir = "/var/tmp";
  std::string name;
  std::vector<std::string> settings;
  bool json = false;
  bool list = false;
  app.footer(kExamples);
  app.set_version_flag("--version", "kvbench " KVBENCH_VERSION);
  app.add_option("NAME", name, "The benchmark, or `all`; --list names them");
  app.add_flag("--list", list, "List all benchmarks and figures");
  app.add_flag("--json", json, "Print JSON");
  app.add_option("--dir", options.dir, "Where files are made: a directory on the disk to measure")
      ->capture_default_str();
  app.add_option("--figure", options.figure, "Measure only this one of the benchmark's figures");
  app.add_option("--set", settings, "PATH=VALUE: an attribute for what is measured; repeatable")
      ->allow_extra_args(false);
  app.add_flag("--install", options.install, "`peers` only: install them into --dir");
  app.add_flag("--quick", options.quick, "Few samples: shows that it works, not how fast it is");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // --help, --version
      app.exit(e);
      return print("");
    }
    return usage_error(e.what());
  }
  if (list) {
    return name.empty() ? print(json ? list_json() : list_text())
                        : usage_error("--list takes no name");
  }
  if (name.empty()) {
    return usage_error("which benchmark? kvbench --list names them");
  }
  const bool every = name == "all";
  const Benchmark* const benchmark = find_benchmark(name);
  if (benchmark == nullptr && !every) {
    return usage_error("there is no benchmark '" + name + "'; kvbench --list names them");
  }
  if (!options.figure.empty() &&
      (every || std::none_of(benchmark->figures.begin(), benchmark->figures.end(),
                             [&](const FigureDef& f) { return options.figure == f.name; }))) {
    return usage_error("benchmark '" + name + "' has no figure '" + options.figure +
                       "'; kvbench --list names them");
  }
  if (options.install && name != "peers") {
    return usage_error("--install is for `peers`");
  }
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return usage_error("--set takes PATH=VALUE, not '" + setting + "'");
    }
    options.attributes.emplace_back(setting.substr(0, equals), setting.substr(equals + 1));
  }
  if (load_per_core() > 1) {
    say_progress("the machine is busy: figures will be worse than they are");
  }
  std::vector<Measured> figures;
  int status = kExitOk;
  if (every) {
    status = run_all(options, &figures);
  } else {
    figures = benchmark->run(options);
  }
  if (options.install) {
    return kExitOk;
  }
  const int printed = print(json ? table_json(figures) : table_text(figures));
  return printed != kExitOk ? printed : status;
}

}  // namespace
}  // namespace kvmm::bench

int main(int argc, char** argv) {
  try {
    return kvmm::bench::run(argc, argv);
  } catch (const kvmm::bench::Failure& e) {
    std::fprintf(stderr, "kvbench: %s\n", e.what());
    return e.status();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kvbench: %s\n", e.what());
    return kvmm::bench::kExitFailed;
  }
}
