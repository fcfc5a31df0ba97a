// SPDX-License-Identifier: Apache-2.0
//
// kvctl: looks at and tunes running kvmm runtimes. The command line and nothing else; the commands
// are in the files beside.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <functional>

#include "tools/kvctl/complete.h"
#include "tools/kvctl/context.h"

namespace kvmm::ctl {
namespace {

constexpr const char* kExamples = R"(
Examples:
  kvctl ps                                    every runtime of this user
  kvctl top                                   watch the only one; q ends it
  kvctl -p llama-server top -d 0.5            of several, by name, pid or socket
  kvctl ls tiers                              what there is
  kvctl get tiers/dram/used                   one value
  kvctl set tiers/dram/watermark_low 64MiB    change one
  kvctl save /etc/kvmm/50-tuned.conf          keep a tuning
  kvctl restore /etc/kvmm/50-tuned.conf       set it again, all of it or nothing
  kvctl pagemap 3                             where session 3's pages are, one character each
  kvctl mount /mnt/kvmm                       attributes as files, as in /sys
  kvctl swapon /var/lib/kvmm/swap2 --bytes 64G --priority 5
  kvctl trace --session 3                     its events, as they happen
  kvctl trace --fault 3:17                    where the time of one fault went
  kvctl metrics --listen 127.0.0.1:9464       for Prometheus
  kvctl --json tiers | jq '.tiers[0].used'

Exit status: 0 done; 1 refused or failed; 2 wrong command line; 3 no such runtime.)";

// A descriptor below 3 that is closed would be given to the next socket, and output would go there.
bool open_standard_descriptors() {
  bool out_open = true;
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) {
      continue;
    }
    out_open = out_open && fd != STDOUT_FILENO;
    // Reading end only: writing to it fails, as it should.
    if (open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd) {
      return false;
    }
  }
  return out_open;
}

struct CommandLine {
  Options options;
  std::function<int(const Context&)> command;
  CLI::App app{"Looks at and tunes running kvmm runtimes.", "kvctl"};

  CommandLine() {
    app.footer(kExamples);
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", "kvctl " KVCTL_VERSION);
    app.add_flag("--json", options.json, "Print JSON");
    app.add_option("-p,--runtime", options.runtime,
                   "Which runtime: PID, PID-N, NAME or SOCKET (default: the only one)");
    app.add_option("--dir", options.directory, "Look for sockets in this directory only");
    app.add_option("--timeout", options.timeout_ms, "Wait so long for an answer, in ms")
        ->check(CLI::Range(1, 3'600'000))
        ->capture_default_str();
    add_looking();
    add_changing();
    add_mounting();
  }

  CLI::App* add(const char* name, const char* help, int (*run)(const Context&)) {
    CLI::App* const sub = app.add_subcommand(name, help);
    sub->callback([this, run] { command = run; });
    return sub;
  }

  void add_colour(CLI::App* sub) {
    sub->add_option("--color", options.colour, "Colours: auto, always, never")
        ->check(CLI::IsMember({"auto", "always", "never"}))
        ->capture_default_str();
  }

  void add_looking() {
    add("ps", "List runtimes", run_ps);
    CLI::App* const top = add("top", "Watch tiers, rates and sessions", run_top);
    top->add_flag("--once", options.once, "One picture, with totals instead of rates");
    top->add_option("-d,--delay", options.interval_s, "Seconds between pictures")
        ->check(CLI::Range(0.01, 86400.0))
        ->capture_default_str();
    top->add_option("-n,--count", options.frames, "End after so many pictures (0: never)");
    top->add_option("--page", options.page, "What it begins with: sessions, tiers, counters")
        ->check(CLI::IsMember({"sessions", "tiers", "counters"}))
        ->capture_default_str();
    top->add_option("--sort", options.sort,
                    "Sessions by resident, swapped, faults, major, in, out, name, id")
        ->check(
            CLI::IsMember({"resident", "swapped", "faults", "major", "in", "out", "name", "id"}))
        ->capture_default_str();
    top->add_flag("--ascii", options.ascii, "Draw with ASCII only");
    add_colour(top);
    CLI::App* const ls = add("ls", "List attributes and directories", run_ls);
    ls->add_option("PATH", options.path, "A directory (default: the root)");
    ls->add_flag("-l", options.details, "With mode and type");
    CLI::App* const get = add("get", "Print values", run_get);
    get->add_option("PATH", options.paths, "Attributes; with -r also directories");
    get->add_flag("-r", options.recursive,
                  "Everything below, as lines that a config directory can hold");
    CLI::App* const maps = add("maps", "List the VMAs of sessions", run_maps);
    maps->add_option("SESSION", options.session, "Id or name (default: all)");
    CLI::App* const smaps = add("smaps", "Show what the pages of sessions are", run_smaps);
    smaps->add_option("SESSION", options.session, "Id or name (default: all)");
    smaps->add_flag("--rollup", options.rollup, "All VMAs of a session together");
    CLI::App* const pagemap = add("pagemap", "Draw the pages of sessions", run_pagemap);
    pagemap->add_option("SESSION", options.session, "Id or name (default: all)");
    pagemap->add_option("--plane", options.plane, "Only this plane");
    pagemap->add_option("--width", options.width, "Pages on a line (default: what fits, or 64)")
        ->check(CLI::Range(1, 10'000));
    pagemap->add_flag("--all", options.every_line, "Draw equal lines too");
    add_colour(pagemap);
    add("tiers", "Show tiers and swap areas", run_tiers);
    add("swap", "Show swap areas: what they hold, and how their devices do", run_swap);
    declare_trace(*add("trace", "Show events as they happen", run_trace), options.trace);
    declare_metrics(*add("metrics", "Print or serve OpenMetrics", run_metrics), options);
    CLI::App* const doctor =
        add("doctor", "Can this machine run it, and what mends it", run_doctor);
    doctor->add_option("--path", options.path, "Folder for swap files (default: this one)");
    add("topo", "Draw nodes, tiers and where pages go from there", run_topo);
  }

  void add_changing() {
    CLI::App* const set = add("set", "Change a value", run_set);
    set->add_option("PATH", options.path, "An attribute")->required();
    set->add_option("VALUE", options.value, "With its unit: 64MiB, 150us, on")->required();
    CLI::App* const save = add("save", "Keep a tuning, as a config directory takes it", run_save);
    save->add_option("FILE", options.path, "Where (default: standard output)");
    CLI::App* const restore = add("restore", "Set all that a file says, or nothing", run_restore);
    restore->add_option("FILE", options.path, "Lines of `kvctl save`; - is standard input")
        ->required();
    restore->add_flag("--check", options.check, "Only say what would be refused");
    CLI::App* const on = add("swapon", "Add a swap area", run_swapon);
    on->add_option("PATH", options.path, "A file (made if need be) or block device")->required();
    on->add_option("--bytes", options.bytes, "Size it may grow to: 64GiB");
    on->add_option("--priority", options.priority, "Higher is used first; equal ones take turns");
    on->add_option("--discard", options.discard,
                   "Give freed extents back to the device (default: on)")
        ->check(CLI::IsMember({"on", "off"}));
    on->add_option("--driver", options.driver, "Its driver: a name, or a shared object");
    on->add_option("--driver-options", options.driver_options, "The driver's own: KEY=VALUE,...");
    CLI::App* const off = add("swapoff", "Empty a swap area and take it out", run_swapoff);
    off->add_option("PATH", options.path, "Its path, or its name in `tiers`")->required();
  }

  void add_mounting() {
    CLI::App* const mount =
        add("mount", "Show the attributes as files; list such mounts", run_mount);
    mount->add_option("DIR", options.path, "An empty directory (default: list what is mounted)");
    mount->add_flag("-f,--foreground", options.foreground, "Stay; Ctrl-C unmounts");
    CLI::App* const umount = add("umount", "End a mount", run_umount);
    umount->add_option("DIR", options.path, "Its directory")->required();
    umount->add_flag("-l,--lazy", options.lazy, "Also if it is in use; gone when it is not");
  }
};

int run(int argc, char** argv) {
  const bool out_open = open_standard_descriptors();
  CommandLine line;
  if (argc > 1 && argv[1] == std::string_view("__complete")) {  // the shells' completions
    return complete(line.app, {argv + 2, argv + argc});
  }
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // --help, --version
      line.app.exit(e);
      return std::fflush(stdout) == 0 && out_open ? kExitOk : kExitRefused;
    }
    const Context context(line.options);
    const std::vector<std::string> unknown = line.app.remaining();
    const bool no_command = line.app.get_subcommands().empty() && !unknown.empty();
    return context.fail(kExitUsage, (no_command ? "there is no command '" + unknown.front() + "'"
                                                : std::string(e.what())) +
                                        "; kvctl --help");
  }
  return line.command(Context(line.options));
}

}  // namespace
}  // namespace kvmm::ctl

int main(int argc, char** argv) {
  try {
    return kvmm::ctl::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kvctl: %s\n", e.what());
    return kvmm::ctl::kExitRefused;
  }
}
