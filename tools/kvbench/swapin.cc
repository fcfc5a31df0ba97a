// SPDX-License-Identifier: Apache-2.0
//
// Cold pages in through real faults, beside plain reads of the same pages' worth from a file of the
// same size on the same file system. The two take turns within one run: a disk and a machine that
// are shared change by the second, a pair of neighbours much less.
//
//   pair i     ours: evict all, touch random pages     theirs: read random pages      (i even)
//              theirs, ours                                                           (i odd)
#include <fmt/format.h>

#include <array>
#include <numeric>

#include "tools/kvbench/scratch.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

constexpr std::array<FigureDef, 5> kFigures = {{
    {"swapin.2m.ratio", "ratio", false, 0.95,
     "bandwidth, cold random 2 MiB pages from 4 threads, by plain reads of depth 4"},
    {"swapin.2m.latency_ratio", "ratio", true, 1.25,
     "median latency, 1 thread, by plain reads of depth 1"},
    {"swapin.2m.p99_ratio", "ratio", true, 1.25,
     "99th percentile of latency, 4 threads, by plain reads of depth 4"},
    {"swapin.64k.ratio", "ratio", false, 0.85,
     "bandwidth, cold random 64 KiB pages from 16 threads, by plain reads of depth 16"},
    {"session.resume_vs_plain", "ratio", false, 0.9,
     "bandwidth, a whole evicted session touched in order, by plain reads in order of depth 4"},
}};

struct Shape {
  const char* what;
  uint64_t page_size;
  uint64_t pages;    // of the session
  uint64_t touched;  // of these, in one pass
  unsigned depth;    // threads of ours, reads in flight of theirs
  uint64_t pairs;
  bool resume;  // in order and with everything that brings pages ahead
};

struct Pairs {
  std::vector<Pass> ours, theirs;
};

Pairs run_pairs(const Options& options, const Shape& shape) {
  say_progress(fmt::format("{}: {} pairs of {} MiB", shape.what, shape.pairs,
                           shape.touched * shape.page_size >> 20));
  TestBed bed({.dir = options.dir, .page_size = shape.page_size, .pages = shape.pages});
  PlainFile plain(options.dir, shape.pages * shape.page_size, shape.page_size, shape.depth);
  if (!shape.resume) {
    bed.set_one_page_a_fault();
  }
  bed.fill();
  Pairs pairs;
  // The first pair warms up: the session's first way out writes, all later ones need not.
  for (uint64_t i = 0; i <= shape.pairs; ++i) {
    auto order = random_pages(shape.pages, shape.touched, i);
    if (shape.resume) {
      std::iota(order.begin(), order.end(), uint64_t{0});
    }
    Pass ours;
    Pass theirs;
    const auto measure_ours = [&] {
      bed.evict();
      const kvmm_session_stat before = bed.stats();
      ours = bed.touch(order, shape.resume ? 1 : shape.depth);
      const uint64_t in = bed.stats().swap_in_bytes - before.swap_in_bytes;
      if (in != shape.touched * shape.page_size) {
        throw Failure(kExitFailed,
                      fmt::format("{} bytes were read for {} touched: something else was measured",
                                  in, shape.touched * shape.page_size));
      }
      bed.evict();  // so that nothing of ours goes on while theirs reads
    };
    if (i % 2 == 0) {
      measure_ours();
    }
    theirs = plain.read(order, shape.page_size, shape.depth);
    if (i % 2 == 1) {
      measure_ours();
    }
    if (i != 0) {
      pairs.ours.push_back(std::move(ours));
      pairs.theirs.push_back(std::move(theirs));
    }
  }
  return pairs;
}

std::string method(const Shape& shape, const Pairs& pairs, const char* how) {
  std::vector<double> ours;
  std::vector<double> theirs;
  const double mib = static_cast<double>(shape.touched * shape.page_size) / (1 << 20);
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ours.push_back(mib / pairs.ours[i].seconds);
    theirs.push_back(mib / pairs.theirs[i].seconds);
  }
  return fmt::format(
      "{} of {} interleaved pairs, {} of {} pages of {} KiB a pass, {}; plain: O_DIRECT io_uring; "
      "{:.0f} against {:.0f} MiB/s (medians)",
      how, shape.pairs, shape.touched, shape.pages, shape.page_size >> 10,
      shape.resume ? "1 thread in order, default readahead and resume_prefetch"
                   : fmt::format("{} thread(s) random, readahead_max=0 fault_around=0 "
                                 "resume_prefetch=off",
                                 shape.depth),
      quantile(ours, 0.5), quantile(theirs, 0.5));
}

Measured bandwidth(const FigureDef& figure, const Shape& shape, const Pairs& pairs) {
  std::vector<double> ratios;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ratios.push_back(pairs.theirs[i].seconds / pairs.ours[i].seconds);
  }
  const Estimate e = median_of(ratios);
  return {&figure, e.value, e.low, e.high, e.n, method(shape, pairs, "median of bandwidth ratios")};
}

Measured median_latency(const FigureDef& figure, const Shape& shape, const Pairs& pairs) {
  std::vector<double> ratios;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    ratios.push_back(quantile(pairs.ours[i].latency_us, 0.5) /
                     quantile(pairs.theirs[i].latency_us, 0.5));
  }
  const Estimate e = median_of(ratios);
  return {&figure, e.value, e.low,
          e.high,  e.n,     method(shape, pairs, "median of ratios of median latencies")};
}

Measured p99(const FigureDef& figure, const Shape& shape, const Pairs& pairs) {
  std::vector<PassPair> passes;
  for (size_t i = 0; i < pairs.ours.size(); ++i) {
    passes.push_back({pairs.ours[i].latency_us, pairs.theirs[i].latency_us});
  }
  const Estimate e = quantile_ratio(passes, 0.99);
  return {&figure,
          e.value,
          e.low,
          e.high,
          e.n,
          method(shape, pairs, "p99 of all touches by p99 of all reads, bootstrap over pairs")};
}

std::vector<Measured> run(const Options& options) {
  require_disk(options.dir);
  const bool q = options.quick;
  const uint64_t pairs = q ? 6 : 30;
  const Shape four{"2 MiB, 4 threads", 2 << 20, q ? 32u : 128u, q ? 16u : 64u, 4, pairs, false};
  const Shape one{"2 MiB, 1 thread", 2 << 20, q ? 32u : 128u, q ? 8u : 32u, 1, pairs, false};
  const Shape small{
      "64 KiB, 16 threads", 64 << 10, q ? 512u : 2048u, q ? 256u : 1024u, 16, pairs, false};
  const Shape resume{"resume", 2 << 20, q ? 32u : 128u, q ? 32u : 128u, 4, pairs, true};
  std::vector<Measured> all;
  const Pairs of_four = run_pairs(options, four);
  all.push_back(bandwidth(kFigures[0], four, of_four));
  all.push_back(median_latency(kFigures[1], one, run_pairs(options, one)));
  all.push_back(p99(kFigures[2], four, of_four));
  all.push_back(bandwidth(kFigures[3], small, run_pairs(options, small)));
  all.push_back(bandwidth(kFigures[4], resume, run_pairs(options, resume)));
  return all;
}

}  // namespace

Benchmark swapin_benchmark() {
  return {"swapin", "page-in through faults, beside plain reads from the same disk", kFigures, run};
}

}  // namespace kvmm::bench
