// SPDX-License-Identifier: Apache-2.0
//
// What readers of attributes cost an engine that faults. A second process reads the whole tree over
// the socket as fast as it is answered; the engine's fault rate stands beside the same with a
// process that burns as much CPU time on the same core and asks nothing.
//
//   pair i   faults + reader, faults + burner   (i even; the other way round where odd)
//
// The reader's share is its own CPU time and that of the thread that answers it: both are held on
// the last core.
#include <dirent.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/control/endpoint.h"
#include "tools/kvbench/cpu_time.h"
#include "tools/kvbench/side_process.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

constexpr std::array<FigureDef, 2> kFigures = {{
    {"control.fault_slowdown", "ratio", Bound::kAtMost, 1.05,
     "time of minor faults while all attributes are read in a loop, by the same beside a CPU "
     "burner"},
    {"control.reader_locks", "locks", Bound::kAtMost, 0,
     "locks of the fault path taken meanwhile by the thread that answers readers"},
}};

int last_core() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  int last = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    last = CPU_ISSET(core, &allowed) ? core : last;
  }
  return last;
}

// The thread of ours that answers the socket runs on `core` only.
void hold_answering_thread(int core) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::ifstream(task.path() / "comm") >> name;
    if (name == "kvmm-ctl" &&
        sched_setaffinity(std::atoi(task.path().filename().c_str()), sizeof(one), &one) == 0) {
      return;
    }
  }
  throw Failure(kExitFailed, "the runtime has no thread that answers readers");
}

std::string own_socket() {
  for (const std::string& directory : control_directories()) {
    for (const ControlName& name : list_control_sockets(directory)) {
      if (name.pid == getpid()) {
        return name.path;
      }
    }
  }
  throw Failure(kExitFailed, "the runtime made no control socket");
}

std::vector<Measured> run(const Options& options) {
  const uint64_t pairs = options.quick ? 6 : 40;
  const uint64_t pages = options.quick ? 512 : 4096;
  const int core = last_core();
  SideProcess side(core);  // first: it forks
  say_progress(fmt::format("faults beside a reader and beside a burner: {} pairs of {} faults",
                           pairs, pages));
  TestBed bed(options, {.page_size = 64 << 10, .pages = pages, .control = true});
  bed.set_one_page_a_fault();
  bed.fill();
  hold_answering_thread(core);
  const std::string socket = own_socket();
  // Seconds of a pass over all pages.
  const auto pass = [&](uint64_t seed) {
    const uint64_t before = bed.stats().faults_minor;
    const Pass p = bed.touch(random_pages(pages, pages, seed), 1);
    if (bed.stats().faults_minor - before != pages) {
      throw Failure(kExitFailed, "other faults than minor ones were measured");
    }
    return p.seconds;
  };
  double share = 1;
  uint64_t locks = 0;
  uint64_t walks = 0;
  uint64_t items = 0;
  const auto beside_reader = [&](uint64_t seed) {
    bed.sync();
    const CpuTime start = cpu_time();
    side.read(socket);
    const double seconds = pass(seed);
    const Side s = side.stop();
    share = (s.cpu_us + (cpu_time() - start).control_us) / 1e6 / s.seconds;
    locks += s.locks;
    walks += s.walks;
    items = s.items;
    return seconds;
  };
  const auto beside_burner = [&](uint64_t seed) {
    bed.sync();
    side.burn(share);
    const double seconds = pass(seed);
    side.stop();
    return seconds;
  };
  std::vector<double> read_s, burnt_s, ratios, shares;
  beside_reader(0);  // warms up, and says how much to burn
  for (uint64_t i = 1; i <= pairs; ++i) {
    double reader = i % 2 == 0 ? beside_reader(i) : 0;
    const double burner = beside_burner(i);
    reader = i % 2 == 0 ? reader : beside_reader(i);
    read_s.push_back(reader);
    burnt_s.push_back(burner);
    ratios.push_back(reader / burner);
    shares.push_back(share);
  }
  const auto us = [&](const std::vector<double>& seconds) {
    return quantile(seconds, 0.5) * 1e6 / static_cast<double>(pages);
  };
  std::vector<Measured> all;
  if (kFigures[0].wanted(options)) {
    const Estimate e = median_of(ratios);
    all.push_back(
        {&kFigures[0], e.value, e.low, e.high, e.n,
         fmt::format("median of {} interleaved pairs of {} minor faults of 64 KiB, 1 thread; "
                     "{:.1f} us a fault beside a reader of all {} attributes, {:.1f} beside a "
                     "burner of as much CPU time ({:.0f} % of core {}, reader and the thread that "
                     "answers it){}",
                     pairs, pages, us(read_s), items, us(burnt_s), quantile(shares, 0.5) * 100,
                     core, attributes_text(options))});
  }
  if (kFigures[1].wanted(options)) {
    const auto n = static_cast<double>(locks);
    all.push_back({&kFigures[1], n, n, n, walks,
                   fmt::format("core, device and workers locks taken by the thread that answers, "
                               "in {} reads of all {} attributes (attribute locks)",
                               walks, items)});
  }
  return all;
}

}  // namespace

Benchmark control_benchmark() {
  return {"control", "what readers of attributes cost an engine that faults", kFigures, run};
}

}  // namespace kvmm::bench
