// SPDX-License-Identifier: Apache-2.0
//
// Cold pages in through real faults, beside plain reads of the same file. The two take turns within
// one run: a disk and a machine that are shared change by the second, neighbours much less.
//
//   pair i     ours: evict all, touch random pages; theirs: read as many others; kept  (i even)
//              kept, theirs, ours                                                      (i odd)
//
// `theirs` reads into few buffers, which stay in the processor's caches where the disk is a virtual
// one; `kept` into memory that holds all of it, of the kind that frames of that size are made of.
//
// Pages of a pair are different ones wherever the session has enough of them, so that neither side
// finds in a cache below us what the other has just read.
#include <fmt/format.h>

#include <array>

#include "tools/kvbench/cpu_time.h"
#include "tools/kvbench/scratch.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

constexpr std::array<FigureDef, 6> kFigures = {{
    {"swapin.2m.ratio", "ratio", Bound::kAtLeast, 0.95,
     "bandwidth, cold random 2 MiB pages from 4 threads, by plain reads of depth 4"},
    {"swapin.2m.latency_ratio", "ratio", Bound::kAtMost, 1.25,
     "median latency, 1 thread, by plain reads of depth 1"},
    {"swapin.2m.p99_ratio", "ratio", Bound::kAtMost, 1.25,
     "99th percentile of latency, 4 threads, by plain reads of depth 4"},
    {"swapin.64k.ratio", "ratio", Bound::kAtLeast, 0.85,
     "bandwidth, cold random 64 KiB pages from 16 threads, by plain reads of depth 16"},
    {"swapin.2m.ratio_kept", "ratio", Bound::kNone, 0,
     "as 2m.ratio, by plain reads each into 2 MiB pages of its own, as whoever keeps them must"},
    {"swapin.64k.ratio_kept", "ratio", Bound::kNone, 0,
     "as 64k.ratio, by plain reads each into 4 KiB pages of its own, as frames of 64 KiB are"},
}};

struct Shape {
  const char* what;
  uint64_t page_size;
  uint64_t pages;    // of the session
  uint64_t touched;  // of these, in one pass
  unsigned depth;    // threads of ours, reads in flight of theirs
  uint64_t pairs;
};

struct Pairs {
  std::vector<Pass> ours, theirs, kept;
  CpuTime our_cpu, their_cpu;  // of all passes
};

// Every byte that was touched came from the disk in this pass, and by as many faults as it should.
void require_cold(const Shape& shape, const kvmm_session_stat& before,
                  const kvmm_session_stat& after) {
  const uint64_t in = after.swap_in_bytes - before.swap_in_bytes;
  const uint64_t faults = after.faults_major - before.faults_major;
  if (in != shape.touched * shape.page_size || faults != shape.touched) {
    throw Failure(kExitFailed,
                  fmt::format("{} major faults read {} bytes for {} pages touched: something else "
                              "was measured",
                              faults, in, shape.touched));
  }
}

Pairs run_pairs(const Options& options, const Shape& shape) {
  say_progress(fmt::format("{}: {} pairs of {} MiB", shape.what, shape.pairs,
                           shape.touched * shape.page_size >> 20));
  TestBed bed(options, {.page_size = shape.page_size, .pages = shape.pages, .depth = shape.depth});
  bed.set_one_page_a_fault();
  bed.fill();
  bed.evict();  // the first way out writes, all later ones need not
  Pairs pairs;
  for (uint64_t i = 0; i <= shape.pairs; ++i) {
    const std::vector<uint64_t> all = random_pages(shape.pages, 3 * shape.touched, i);
    const auto part = [&](uint64_t n) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(n * shape.touched);
      return std::vector<uint64_t>(first, first + static_cast<std::ptrdiff_t>(shape.touched));
    };
    const std::vector<uint64_t> mine = part(0);
    Pass ours;
    Pass theirs;
    Pass kept;
    CpuTime our_cpu;
    CpuTime their_cpu;
    const auto measure_ours = [&] {
      bed.evict();
      const kvmm_session_stat before = bed.stats();
      const CpuTime start = cpu_time();
      ours = bed.touch(mine, shape.depth);
      our_cpu = cpu_time() - start;
      require_cold(shape, before, bed.stats());
      bed.verify(mine);
      bed.evict();  // so that nothing of ours goes on while theirs reads
    };
    const auto measure_theirs = [&] {
      const CpuTime start = cpu_time();
      theirs = bed.read_plainly(part(1), shape.depth);
      their_cpu = cpu_time() - start;
    };
    // Ours and theirs are neighbours, in turns first.
    if (i % 2 == 0) {
      measure_ours();
      measure_theirs();
      kept = bed.read_and_keep(part(2), shape.depth);
    } else {
      kept = bed.read_and_keep(part(2), shape.depth);
      measure_theirs();
      measure_ours();
    }
    if (i != 0) {  // the first pair warms up
      pairs.our_cpu += our_cpu;
      pairs.their_cpu += their_cpu;
      pairs.ours.push_back(std::move(ours));
      pairs.theirs.push_back(std::move(theirs));
      pairs.kept.push_back(std::move(kept));
    }
  }
  return pairs;
}

std::string method(const Options& options, const Shape& shape, const Pairs& pairs, const char* how,
                   bool keep = false) {
  const std::vector<Pass>& plain = keep ? pairs.kept : pairs.theirs;
  std::vector<double> ours;
  std::vector<double> theirs;
  std::vector<double> our_us;
  std::vector<double> their_us;
  const double mib = static_cast<double>(shape.touched * shape.page_size) / (1 << 20);
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ours.push_back(mib / pairs.ours[i].seconds);
    theirs.push_back(mib / plain[i].seconds);
    our_us.push_back(quantile(pairs.ours[i].latency_us, 0.5));
    their_us.push_back(quantile(plain[i].latency_us, 0.5));
  }
  const uint64_t touched = shape.touched * pairs.ours.size();
  return fmt::format(
      "{} of {} interleaved pairs, {} of {} pages of {} KiB a pass, {} threads, random, "
      "readahead_max=0 fault_around=0 resume_prefetch=off{}; plain: O_DIRECT io_uring "
      "from the same swap file{}; {:.0f} against {:.0f} MiB/s, medians of latency {:.0f} and "
      "{:.0f} "
      "us; CPU time a page {} and {:.1f} us",
      how, shape.pairs, shape.touched, shape.pages, shape.page_size >> 10, shape.depth,
      attributes_text(options),
      keep ? ", each into memory of its own" : ", into the same few buffers again and again",
      quantile(ours, 0.5), quantile(theirs, 0.5), quantile(our_us, 0.5), quantile(their_us, 0.5),
      pairs.our_cpu.text(touched), pairs.their_cpu.total_us / static_cast<double>(touched));
}

Measured bandwidth(const FigureDef& figure, const Options& options, const Shape& shape,
                   const Pairs& pairs, bool keep = false) {
  const std::vector<Pass>& plain = keep ? pairs.kept : pairs.theirs;
  std::vector<double> ratios;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ratios.push_back(plain[i].seconds / pairs.ours[i].seconds);
  }
  const Estimate e = median_of(ratios);
  return {&figure, e.value, e.low,
          e.high,  e.n,     method(options, shape, pairs, "median of bandwidth ratios", keep)};
}

Measured median_latency(const FigureDef& figure, const Options& options, const Shape& shape,
                        const Pairs& pairs) {
  std::vector<double> ratios;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ratios.push_back(quantile(pairs.ours[i].latency_us, 0.5) /
                     quantile(pairs.theirs[i].latency_us, 0.5));
  }
  const Estimate e = median_of(ratios);
  return {&figure, e.value, e.low,
          e.high,  e.n,     method(options, shape, pairs, "median of ratios of median latencies")};
}

Measured p99(const FigureDef& figure, const Options& options, const Shape& shape,
             const Pairs& pairs) {
  std::vector<PassPair> passes;
  std::vector<double> ours;
  std::vector<double> theirs;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    passes.push_back({pairs.ours[i].latency_us, pairs.theirs[i].latency_us});
    ours.insert(ours.end(), passes[i].ours.begin(), passes[i].ours.end());
    theirs.insert(theirs.end(), passes[i].theirs.begin(), passes[i].theirs.end());
  }
  const Estimate e = quantile_ratio(passes, 0.99);
  return {
      &figure,
      e.value,
      e.low,
      e.high,
      e.n,
      method(options, shape, pairs,
             "p99 of all touches by p99 of all reads, bootstrap over pairs") +
          fmt::format("; p99 {:.0f} and {:.0f} us", quantile(ours, 0.99), quantile(theirs, 0.99))};
}

std::vector<Measured> run(const Options& options) {
  require_disk(options.dir);
  const bool q = options.quick;
  const uint64_t pairs = q ? 6 : 40;
  const Shape four{"2 MiB, 4 threads", 2 << 20, q ? 48u : 192u, q ? 16u : 64u, 4, pairs};
  const Shape one{"2 MiB, 1 thread", 2 << 20, q ? 32u : 128u, q ? 8u : 32u, 1, pairs};
  const Shape small{"64 KiB, 16 threads", 64 << 10, q ? 768u : 3072u, q ? 256u : 1024u, 16, pairs};
  const auto wanted = [&](size_t i) { return kFigures[i].wanted(options); };
  std::vector<Measured> all;
  Pairs of_four;
  if (wanted(0) || wanted(2) || wanted(4)) {
    of_four = run_pairs(options, four);
  }
  if (wanted(0)) {
    all.push_back(bandwidth(kFigures[0], options, four, of_four));
  }
  if (wanted(1)) {
    all.push_back(median_latency(kFigures[1], options, one, run_pairs(options, one)));
  }
  if (wanted(2)) {
    all.push_back(p99(kFigures[2], options, four, of_four));
  }
  Pairs of_small;
  if (wanted(3) || wanted(5)) {
    of_small = run_pairs(options, small);
  }
  if (wanted(3)) {
    all.push_back(bandwidth(kFigures[3], options, small, of_small));
  }
  if (wanted(4)) {
    all.push_back(bandwidth(kFigures[4], options, four, of_four, true));
  }
  if (wanted(5)) {
    all.push_back(bandwidth(kFigures[5], options, small, of_small, true));
  }
  return all;
}

}  // namespace

Benchmark swapin_benchmark() {
  return {"swapin", "page-in through faults, beside plain reads from the same disk", kFigures, run};
}

}  // namespace kvmm::bench
