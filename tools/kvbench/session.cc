// SPDX-License-Identifier: Apache-2.0
//
// A whole idle session, swapped out to the last byte, comes back by touches from front to back:
// beside Linux swap with the same bytes and the same room, and beside plain reads of the same file.
//
//   round i   kvmm, plain, Linux, Linux with MADV_WILLNEED   (i even)
//             the same backwards                             (i odd)
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <optional>

#include "tools/kvbench/linux_swap.h"
#include "tools/kvbench/scratch.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr unsigned kDepth = 4;

constexpr std::array<FigureDef, 4> kFigures = {{
    {"session.resume_vs_linuxswap", "ratio", Bound::kAtLeast, 3,
     "bandwidth, a whole evicted session touched in order, by Linux swap of the same bytes"},
    {"session.resume_vs_linuxswap_willneed", "ratio", Bound::kNone, 0,
     "the same, Linux told MADV_WILLNEED before the touches"},
    {"session.resume_vs_plain", "ratio", Bound::kAtLeast, 0.9,
     "the same, by plain reads in order of depth 4"},
    {"session.resume_vs_plain_kept", "ratio", Bound::kNone, 0,
     "the same, by plain reads each into 2 MiB pages of its own"},
}};

// Seconds of each side, a round after the other.
struct Sides {
  std::vector<double> kvmm, plain, kept, linux_swap, willneed;
};

double resume(TestBed& bed, const std::vector<uint64_t>& order) {
  bed.evict();
  const uint64_t before = bed.stats().swap_in_bytes;
  const Pass pass = bed.touch(order, 1);
  const uint64_t in = bed.stats().swap_in_bytes - before;
  if (in != order.size() * bed.page_size()) {
    throw Failure(kExitFailed, fmt::format("{} bytes were read for {} pages touched: something "
                                           "else was measured",
                                           in, order.size()));
  }
  bed.verify(order);
  bed.evict();  // so that nothing of ours goes on while others are measured
  return pass.seconds;
}

std::vector<double> ratios(const std::vector<double>& theirs, const std::vector<double>& ours) {
  std::vector<double> all;
  for (size_t i = 0; i < ours.size(); ++i) {
    all.push_back(theirs[i] / ours[i]);
  }
  return all;
}

std::vector<Measured> run(const Options& options) {
  require_disk(options.dir);
  const uint64_t pages = options.quick ? 16 : 128;
  const uint64_t rounds = options.quick ? 6 : 30;
  const uint64_t bytes = pages * 2 * kMiB;
  const auto wanted = [&](size_t i) { return kFigures[i].wanted(options); };
  std::optional<LinuxSwap> linux_swap;  // first: it forks
  if (wanted(0) || wanted(1)) {
    say_progress("Linux swap: a swap file and a memory cgroup");
    linux_swap.emplace(options.dir, bytes);
  }
  const bool beside_linux = linux_swap && linux_swap->missing().empty();
  say_progress(fmt::format("a session of {} MiB is swapped out", bytes / kMiB));
  TestBed bed(options, {.page_size = 2 * kMiB, .pages = pages, .depth = kDepth});
  bed.fill();
  bed.evict();  // the first way out writes, all later ones need not
  say_progress(fmt::format("it comes back: {} rounds", rounds));
  std::vector<uint64_t> order(pages);
  std::iota(order.begin(), order.end(), uint64_t{0});
  Sides sides;
  for (uint64_t i = 0; i <= rounds; ++i) {
    double kvmm = 0;
    double plain = 0;
    double kept = 0;
    double by_linux = 0;
    double willneed = 0;
    std::vector<std::function<void()>> turns = {[&] { kvmm = resume(bed, order); }};
    if (wanted(2)) {
      turns.emplace_back([&] { plain = bed.read_plainly(order, kDepth).seconds; });
    }
    if (wanted(3)) {
      turns.emplace_back([&] { kept = bed.read_and_keep(order, kDepth).seconds; });
    }
    if (beside_linux && wanted(0)) {
      turns.emplace_back([&] { by_linux = linux_swap->resume(false); });
    }
    if (beside_linux && wanted(1)) {
      turns.emplace_back([&] { willneed = linux_swap->resume(true); });
    }
    if (i % 2 == 1) {
      std::reverse(turns.begin(), turns.end());
    }
    for (const auto& turn : turns) {
      turn();
    }
    if (i != 0) {  // the first round warms up
      sides.kvmm.push_back(kvmm);
      sides.plain.push_back(plain);
      sides.kept.push_back(kept);
      sides.linux_swap.push_back(by_linux);
      sides.willneed.push_back(willneed);
    }
    if (i % 10 == 0 && i != 0) {
      say_progress(fmt::format("{} of {} rounds", i, rounds));
    }
  }
  const auto mibs = [&](const std::vector<double>& seconds) {
    return static_cast<double>(bytes) / kMiB / quantile(seconds, 0.5);
  };
  std::vector<Measured> all;
  const auto add = [&](size_t figure, const std::vector<double>& theirs, const std::string& what) {
    const Estimate e = median_of(ratios(theirs, sides.kvmm));
    all.push_back({&kFigures[figure], e.value, e.low, e.high, e.n,
                   fmt::format("median of bandwidth ratios of {} interleaved rounds, {} MiB in "
                               "pages of 2 MiB, all evicted, 1 thread touches each page in order, "
                               "defaults{}; {}; {:.0f} against {:.0f} MiB/s",
                               rounds, bytes / kMiB, attributes_text(options), what,
                               mibs(sides.kvmm), mibs(theirs))});
  };
  for (size_t i = 0; i < kFigures.size(); ++i) {
    if (!wanted(i)) {
      continue;
    }
    if (i < 2 && !beside_linux) {
      all.push_back(absent_figure(kFigures[i], linux_swap->missing()));
    } else if (i == 0) {
      add(i, sides.linux_swap,
          "Linux: each 4 KiB page touched in order, " + linux_swap->settings());
    } else if (i == 1) {
      add(i, sides.willneed,
          "Linux: MADV_WILLNEED over all of it, then each 4 KiB page touched in order, " +
              linux_swap->settings());
    } else if (i == 2) {
      add(i, sides.plain,
          "plain: O_DIRECT io_uring of depth 4 from the same swap file, into the same few buffers "
          "again and again");
    } else {
      add(i, sides.kept,
          "plain: O_DIRECT io_uring of depth 4 from the same swap file, each into memory of its "
          "own");
    }
  }
  return all;
}

}  // namespace

Benchmark session_benchmark() {
  return {"session", "a whole session comes back, beside Linux swap and plain reads", kFigures,
          run};
}

}  // namespace kvmm::bench
