// SPDX-License-Identifier: Apache-2.0
//
// What a fault costs that needs no disk: the touch of a page whose bytes are in memory (minor), and
// of a page that was never written (zero). One thread, one page at a time, nothing mapped along.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<FigureDef, 2> kFigures = {{
    {"fault.minor.64k.us", "us", true, 25, "touch of a resident 64 KiB page that is not mapped"},
    {"fault.zero.2m.us", "us", true, 60, "first touch of a 2 MiB page, a zeroed frame is ready"},
}};

void require_count(const char* what, uint64_t counted, uint64_t expected) {
  if (counted != expected) {
    throw Failure(kExitFailed, fmt::format("{} {} were counted for {} touches: something else was "
                                           "measured; is the machine short of memory?",
                                           counted, what, expected));
  }
}

Measured minor_64k(const Options& options) {
  say_progress("minor faults, 64 KiB");
  const uint64_t rounds = options.quick ? 2 : 8;
  TestBed bed({.dir = options.dir, .page_size = 64 << 10, .pages = options.quick ? 256u : 1024u});
  bed.set_one_page_a_fault();
  bed.fill();
  std::vector<double> us;
  for (uint64_t r = 0; r < rounds; ++r) {
    bed.sync();
    const uint64_t before = bed.stats().faults_minor;
    const Pass pass = bed.touch(random_pages(bed.pages(), bed.pages(), r), 1);
    require_count("minor faults", bed.stats().faults_minor - before, bed.pages());
    us.insert(us.end(), pass.latency_us.begin(), pass.latency_us.end());
  }
  const Estimate e = median_of(us);
  return {&kFigures[0],
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("median of single touches, 1 thread, random order, {} rounds over {} pages "
                      "that kvmm_sync left unmapped; fault_around=0; p99 {:.1f} us",
                      rounds, bed.pages(), quantile(us, 0.99))};
}

Measured zero_2m(const Options& options) {
  say_progress("zero faults, 2 MiB");
  const uint64_t rounds = options.quick ? 3 : 16;
  const uint64_t batch = 32;
  // Zeroing goes on while nobody faults; nothing outside says when it is done. 2 MiB take less
  // than a millisecond of one core, so this is ten times what a batch needs.
  const auto settle = std::chrono::milliseconds(320);
  TestBed bed({.dir = options.dir, .page_size = 2 << 20, .pages = 1 + batch});
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
  }
  const Estimate e = median_of(us);
  return {&kFigures[1],
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("median of single writes, 1 thread, {} rounds over {} cleared pages, {} ms "
                      "of rest before each; zero_ahead=64; p99 {:.1f} us",
                      rounds, batch, settle.count(), quantile(us, 0.99))};
}

std::vector<Measured> run(const Options& options) {
  return {minor_64k(options), zero_2m(options)};
}

}  // namespace

Benchmark fault_benchmark() {
  return {"fault", "what a fault costs that needs no disk", kFigures, run};
}

}  // namespace kvmm::bench
