// SPDX-License-Identifier: Apache-2.0
//
// What a fault costs that needs no disk: the touch of a page whose bytes are in memory (minor), and
// of a page that was never written (zero). One thread, one page at a time, nothing mapped along.
//
// Where the kernel happens to put kvmm's thread decides half of it and stays so for a while: so a
// run opens many runtimes one after another, and the value is the median of their medians.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "tools/kvbench/bare_handler.h"
#include "tools/kvbench/cpu_time.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<FigureDef, 3> kFigures = {{
    {"fault.minor.64k.us", "us", Bound::kAtMost, 25,
     "touch of a resident 64 KiB page that is not mapped"},
    {"fault.zero.2m.us", "us", Bound::kAtMost, 60,
     "first touch of a 2 MiB page, a zeroed frame is ready"},
    {"fault.cpu_scaling", "ratio", Bound::kAtMost, 1.15,
     "CPU time of a minor fault over all threads, 2 sessions faulting by 1"},
}};

void require_count(const char* what, uint64_t counted, uint64_t expected) {
  if (counted != expected) {
    throw Failure(kExitFailed, fmt::format("{} {} were counted for {} touches: something else was "
                                           "measured; is the machine short of memory?",
                                           counted, what, expected));
  }
}

Measured of_runs(const FigureDef& figure, const std::vector<double>& medians,
                 const std::vector<double>& all, const std::string& how) {
  const Estimate e = median_of(medians);
  return {&figure,
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("{}; p10 {:.1f}, p90 {:.1f}, p99 {:.1f} us of {} touches", how,
                      quantile(all, 0.1), quantile(all, 0.9), quantile(all, 0.99), all.size())};
}

Measured minor_64k(const Options& options) {
  const uint64_t runs = options.quick ? 2 : 15;
  const uint64_t rounds = 2;
  const uint64_t pages = options.quick ? 256 : 1024;
  say_progress(fmt::format("minor faults, 64 KiB: {} runtimes", runs));
  std::vector<double> all;
  std::vector<double> medians;
  for (uint64_t run = 0; run < runs; ++run) {
    TestBed bed(options, {.page_size = 64 << 10, .pages = pages});
    bed.set_one_page_a_fault();
    bed.fill();
    std::vector<double> us;
    for (uint64_t r = 0; r < rounds; ++r) {
      bed.sync();
      const uint64_t before = bed.stats().faults_minor;
      const auto order = random_pages(pages, pages, run * rounds + r);
      const Pass pass = bed.touch(order, 1);
      require_count("minor faults", bed.stats().faults_minor - before, pages);
      bed.verify(order);
      us.insert(us.end(), pass.latency_us.begin(), pass.latency_us.end());
    }
    medians.push_back(quantile(us, 0.5));
    all.insert(all.end(), us.begin(), us.end());
  }
  return of_runs(
      kFigures[0], medians, all,
      fmt::format("median over {} runtimes of the median of single touches, 1 thread, random "
                  "order, {} rounds over {} pages that kvmm_sync left unmapped; fault_around=0{}; "
                  "{}",
                  runs, rounds, pages, attributes_text(options),
                  bare_faults_text(64 << 10, pages)));
}

Measured zero_2m(const Options& options) {
  const uint64_t runs = options.quick ? 2 : 15;
  const uint64_t rounds = 2;
  const uint64_t batch = 32;
  say_progress(fmt::format("zero faults, 2 MiB: {} runtimes", runs));
  // Zeroing goes on while nobody faults; nothing outside says when it is done. 2 MiB take less
  // than a millisecond of one core, so this is ten times what a batch needs.
  const auto settle = std::chrono::milliseconds(320);
  std::vector<double> all;
  std::vector<double> medians;
  for (uint64_t run = 0; run < runs; ++run) {
    TestBed bed(options, {.page_size = 2 << 20, .pages = 1 + batch});
    bed.set_one_page_a_fault();
    bed.set("sched/zero_ahead", "64");  // a batch and as many again
    bed.fill();  // every frame has been used once: none is as the system gave it
    std::vector<double> us;
    for (uint64_t r = 0; r < rounds; ++r) {
      bed.clear_from(1);  // page 0 stays: frames of a size that nobody uses are not zeroed
      std::this_thread::sleep_for(settle);
      const uint64_t before = bed.stats().faults_zero;
      for (uint64_t i = 1; i <= batch; ++i) {
        auto* const word = reinterpret_cast<volatile uint64_t*>(bed.page(i));
        const Clock::time_point start = Clock::now();
        *word = i;
        us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
      }
      require_count("zero faults", bed.stats().faults_zero - before, batch);
      for (uint64_t i = 1; i <= batch; ++i) {
        const auto* const word = reinterpret_cast<const uint64_t*>(bed.page(i));
        if (word[0] != i || !std::all_of(word + 1, word + bed.page_size() / sizeof(uint64_t),
                                         [](uint64_t w) { return w == 0; })) {
          throw Failure(kExitFailed, "a page that was never written is not all zeros");
        }
      }
    }
    medians.push_back(quantile(us, 0.5));
    all.insert(all.end(), us.begin(), us.end());
  }
  return of_runs(kFigures[1], medians, all,
                 fmt::format("median over {} runtimes of the median of single writes, 1 thread, {} "
                             "rounds over {} cleared pages, {} ms of rest before each; "
                             "zero_ahead=64{}; {}",
                             runs, rounds, batch, settle.count(), attributes_text(options),
                             bare_faults_text(2 << 20, batch)));
}

Measured cpu_scaling(const Options& options) {
  const uint64_t pairs = options.quick ? 6 : 40;
  const uint64_t pages = options.quick ? 256 : 1024;
  say_progress(fmt::format("CPU time of faults: {} pairs", pairs));
  TestBed bed(options, {.page_size = 64 << 10, .pages = pages, .sessions = 2});
  bed.set_one_page_a_fault();
  bed.fill();
  CpuTime cpu_of_one;
  CpuTime cpu_of_two;
  // CPU microseconds a fault costs while the first `sessions` sessions are touched.
  const auto cost = [&](uint64_t sessions, uint64_t seed) {
    std::vector<std::vector<uint64_t>> orders;
    for (uint64_t s = 0; s < sessions; ++s) {
      orders.push_back(random_pages(pages, pages, seed));
      for (uint64_t& page : orders.back()) {
        page += s * pages;
      }
    }
    bed.sync();
    const uint64_t before = bed.stats().faults_minor;
    const CpuTime start = cpu_time();
    bed.touch_apart(orders);
    const CpuTime used = cpu_time() - start;
    require_count("minor faults", bed.stats().faults_minor - before, sessions * pages);
    (sessions == 1 ? cpu_of_one : cpu_of_two) += used;
    return used.total_us / static_cast<double>(sessions * pages);
  };
  std::vector<double> ones;
  std::vector<double> twos;
  std::vector<double> ratios;
  for (uint64_t i = 0; i <= pairs; ++i) {
    double one = i % 2 == 0 ? cost(1, i) : 0;
    const double two = cost(2, i);
    one = i % 2 == 0 ? one : cost(1, i);
    if (i != 0) {  // the first pair warms up
      ones.push_back(one);
      twos.push_back(two);
      ratios.push_back(two / one);
    }
  }
  const Estimate e = median_of(ratios);
  return {&kFigures[2],
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("median of {} interleaved pairs of CPU time of the process, {} minor faults "
                      "of 64 KiB a session, a thread each; medians {:.1f} us a fault with 2, "
                      "{:.1f} with 1; means {} with 2, {} with 1{}",
                      pairs, pages, quantile(twos, 0.5), quantile(ones, 0.5),
                      cpu_of_two.text(2 * pages * (pairs + 1)),
                      cpu_of_one.text(pages * (pairs + 1)), attributes_text(options))};
}

std::vector<Measured> run(const Options& options) {
  std::vector<Measured> all;
  if (kFigures[0].wanted(options)) {
    all.push_back(minor_64k(options));
  }
  if (kFigures[1].wanted(options)) {
    all.push_back(zero_2m(options));
  }
  if (kFigures[2].wanted(options)) {
    all.push_back(cpu_scaling(options));
  }
  return all;
}

}  // namespace

Benchmark fault_benchmark() {
  return {"fault", "what a fault costs that needs no disk", kFigures, run};
}

}  // namespace kvmm::bench
