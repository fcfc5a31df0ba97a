// SPDX-License-Identifier: Apache-2.0
//
// Page-in at 2 MiB beside what other systems have for it, all on the same disk in the same run:
//
//   round i   kvmm, vLLM's SSD tier, LMCache's disk backend, NIXL, Mooncake   (backwards where odd)
//
// Each has the same number of pages and reads the same random ones, four at once, cold (O_DIRECT),
// and each page that comes is checked. What lies in memory is listed and not compared.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>

#include "tools/kvbench/peer_process.h"
#include "tools/kvbench/scratch.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"
#include "tools/kvbench/test_bed.h"

namespace kvmm::bench {
namespace {

constexpr uint64_t kPage = 2 << 20;
constexpr unsigned kDepth = 4;

constexpr std::array<FigureDef, 5> kFigures = {{
    {"peers.best_ratio", "ratio", Bound::kAtLeast, 1,
     "bandwidth, cold random 2 MiB pages, 4 at once, by the fastest disk tier below in the same "
     "run"},
    {"peers.vllm.ratio", "ratio", Bound::kNone, 0, "by vLLM's SSD tier"},
    {"peers.lmcache.ratio", "ratio", Bound::kNone, 0, "by LMCache's local disk backend"},
    {"peers.nixl.ratio", "ratio", Bound::kNone, 0, "by NIXL's POSIX plug-in"},
    {"peers.mooncake.ratio", "ratio", Bound::kNone, 0,
     "by Mooncake's store, which reads from memory: listed, not compared"},
}};

// In the order of the figures after the first.
constexpr std::array<PeerKind, 4> kPeers = {{{"vllm", "vllm_fs.py", "torch"},
                                             {"lmcache", "lmcache_disk.py", "torch"},
                                             {"nixl", "nixl_posix.py", "nixl"},
                                             {"mooncake", "mooncake_store.py", "mooncake"}}};

std::vector<double> ratios(const std::vector<double>& theirs, const std::vector<double>& ours) {
  std::vector<double> all;
  for (size_t i = 0; i < ours.size(); ++i) {
    all.push_back(theirs[i] / ours[i]);
  }
  return all;
}

std::vector<Measured> run(const Options& options) {
  if (options.install) {
    install_peers(options.dir);
    return {};
  }
  require_disk(options.dir);
  const uint64_t pages = options.quick ? 32 : 192;
  const uint64_t read = options.quick ? 16 : 64;
  const uint64_t rounds = options.quick ? 6 : 40;
  { const ScratchDir writable(options.dir, 8 * pages * kPage); }  // said now and not after a minute
  std::vector<std::unique_ptr<PeerProcess>> peers;
  for (const PeerKind& kind : kPeers) {  // first: they fork
    say_progress(fmt::format("{}: storing {} pages", kind.name, pages));
    peers.push_back(std::make_unique<PeerProcess>(kind, options.dir, pages, kDepth));
    if (!peers.back()->missing().empty()) {
      say_progress(fmt::format("{} is absent: {}", kind.name, peers.back()->missing()));
    }
  }
  say_progress(fmt::format("{} rounds of {} MiB", rounds, read * kPage >> 20));
  TestBed bed(options, {.page_size = kPage, .pages = pages, .depth = kDepth});
  bed.set_one_page_a_fault();
  bed.fill();
  bed.evict();
  std::vector<double> ours;
  std::vector<std::vector<double>> theirs(peers.size());
  for (uint64_t i = 0; i <= rounds; ++i) {
    const std::vector<uint64_t> order = random_pages(pages, read, i);
    double mine = 0;
    std::vector<double> seconds(peers.size());
    std::vector<std::function<void()>> turns = {[&] {
      bed.evict();
      const uint64_t before = bed.stats().faults_major;
      mine = bed.touch(order, kDepth).seconds;
      if (bed.stats().faults_major - before != read) {
        throw Failure(kExitFailed, "other faults than major ones were measured");
      }
      bed.verify(order);
      bed.evict();  // so that nothing of ours goes on while others are measured
    }};
    for (size_t p = 0; p < peers.size(); ++p) {
      if (peers[p]->missing().empty()) {
        turns.emplace_back([&, p] { seconds[p] = peers[p]->read(order); });
      }
    }
    if (i % 2 == 1) {
      std::reverse(turns.begin(), turns.end());
    }
    for (const auto& turn : turns) {
      turn();
    }
    if (i != 0) {  // the first round warms up
      ours.push_back(mine);
      for (size_t p = 0; p < peers.size(); ++p) {
        theirs[p].push_back(seconds[p]);
      }
    }
  }
  const auto mibs = [&](const std::vector<double>& s) {
    return static_cast<double>(read * kPage) / (1 << 20) / quantile(s, 0.5);
  };
  const auto measured = [&](const FigureDef& figure, size_t p) -> Measured {
    const Estimate e = median_of(ratios(theirs[p], ours));
    return {&figure,
            e.value,
            e.low,
            e.high,
            e.n,
            fmt::format("median of bandwidth ratios of {} interleaved rounds, {} of {} pages of 2 "
                        "MiB a round, random, {} at once, kvmm: faults of {} threads{}; {}; {:.0f} "
                        "against {:.0f} MiB/s",
                        rounds, read, pages, kDepth, kDepth, attributes_text(options),
                        peers[p]->version(), mibs(ours), mibs(theirs[p]))};
  };
  size_t best = peers.size();
  for (size_t p = 0; p < peers.size(); ++p) {
    if (peers[p]->missing().empty() && !peers[p]->of_memory() &&
        (best == peers.size() || quantile(theirs[p], 0.5) < quantile(theirs[best], 0.5))) {
      best = p;
    }
  }
  std::vector<Measured> all;
  if (kFigures[0].wanted(options)) {
    all.push_back(
        best == peers.size()
            ? absent_figure(kFigures[0], fmt::format("no peer with a disk tier is there; kvbench "
                                                     "peers --install --dir {}",
                                                     options.dir))
            : measured(kFigures[0], best));
  }
  for (size_t p = 0; p < peers.size(); ++p) {
    const FigureDef& figure = kFigures[p + 1];
    if (figure.wanted(options)) {
      all.push_back(peers[p]->missing().empty() ? measured(figure, p)
                                                : absent_figure(figure, peers[p]->missing()));
    }
  }
  return all;
}

}  // namespace

Benchmark peers_benchmark() {
  return {"peers", "page-in beside the disk tiers of other systems, which it can install", kFigures,
          run};
}

}  // namespace kvmm::bench
