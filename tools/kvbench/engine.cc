// SPDX-License-Identifier: Apache-2.0
//
// The real engine on kvmm beside the same engine as it is. Both answer the same questions; a token
// or a log-probability that differs is a failure and not a figure.
//
//   start, memory   stock, kvmm, stock, kvmm ...: start a server of 32 slots, look, end it
//   resident        both are up, the same chat in both, a turn here and a turn there
//   resume          a turn of the chat with its KV in memory, a turn after all of it was evicted
#include <fmt/format.h>

#include <array>

#include "tools/kvbench/engine_process.h"
#include "tools/kvbench/plain_reads.h"
#include "tools/kvbench/scratch.h"
#include "tools/kvbench/stats.h"
#include "tools/kvbench/suites.h"

namespace kvmm::bench {
namespace {

using Json = nlohmann::json;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDemoTier = 32 * kMiB;
constexpr uint64_t kSwap = 1 << 30;
constexpr unsigned kSlot = 0;

constexpr std::array<FigureDef, 4> kFigures = {{
    {"engine.resident_ratio", "ratio", Bound::kAtLeast, 0.97,
     "tokens a second, KV resident on kvmm, by the stock engine"},
    {"engine.resume_overhead", "ratio", Bound::kAtMost, 1.3,
     "what a first token waits more after eviction, by a plain read of as many bytes"},
    {"engine.start_ratio", "ratio", Bound::kAtMost, 0.15,
     "time to start a server, by the stock engine's"},
    {"engine.rss_ratio", "ratio", Bound::kAtMost, 0.15,
     "memory after the start, by the stock engine's"},
}};

struct Size {
  unsigned lanes, lane_tokens;
  unsigned chat_tokens;
  unsigned turn_tokens;
  uint64_t pairs;
  uint64_t starts;
};

Size size_of(const Options& options) {
  return options.quick ? Size{4, 4096, 700, 8, 6, 1} : Size{32, 32768, 3000, 48, 40, 7};
}

EngineProcess::Config config_of(const Options& options, const Size& size, uint64_t dram_bytes) {
  return {.dir = options.dir,
          .dram_bytes = dram_bytes,
          .swap_bytes = kSwap,
          .lanes = size.lanes,
          .lane_tokens = size.lane_tokens};
}

void apply(EngineProcess& engine, const Options& options) {
  for (const auto& [path, value] : options.attributes) {
    engine.set(path, value);
  }
}

// ---- start and memory

void measure_starts(const Options& options, const EngineFiles& files, std::vector<Measured>* all) {
  const Size size = size_of(options);
  say_progress(fmt::format("starts of a server of {} x {} tokens: {} pairs", size.lanes,
                           size.lane_tokens, size.starts));
  std::vector<double> seconds, memory, stock_s, kvmm_s, stock_mib, kvmm_mib;
  for (uint64_t i = 0; i < size.starts; ++i) {
    for (const bool ours : {i % 2 == 0, i % 2 != 0}) {
      EngineProcess engine(files, config_of(options, size, ours ? kDemoTier : 0));
      // A pool that is not resident yet will be: all of it counts.
      const uint64_t bytes = engine.resident_bytes() + (ours ? kDemoTier : 0);
      (ours ? kvmm_s : stock_s).push_back(engine.start_seconds());
      (ours ? kvmm_mib : stock_mib).push_back(static_cast<double>(bytes) / kMiB);
    }
    seconds.push_back(kvmm_s.back() / stock_s.back());
    memory.push_back(kvmm_mib.back() / stock_mib.back());
  }
  const std::string how =
      fmt::format("median of {} interleaved pairs, {} slots of {} tokens, tier of {} MiB, {}",
                  size.starts, size.lanes, size.lane_tokens, kDemoTier / kMiB, files.name);
  const Estimate s = median_of(seconds);
  const Estimate m = median_of(memory);
  if (kFigures[2].wanted(options)) {
    all->push_back({&kFigures[2], s.value, s.low, s.high, s.n,
                    fmt::format("{}; {:.2f} s against {:.2f} s, plugin load included", how,
                                quantile(kvmm_s, 0.5), quantile(stock_s, 0.5))});
  }
  if (kFigures[3].wanted(options)) {
    all->push_back({&kFigures[3], m.value, m.low, m.high, m.n,
                    fmt::format("{}; VmRSS and the whole tier, {:.0f} MiB against {:.0f} MiB", how,
                                quantile(kvmm_mib, 0.5), quantile(stock_mib, 0.5))});
  }
}

// ---- resident

double tokens_a_second(const Json& reply) {
  const double ms = reply.at("wall_ms").get<double>() - reply.at("first_token_ms").get<double>();
  return static_cast<double>(reply.at("ids").size() - 1) / ms * 1e3;
}

void require_same(const Json& ours, const Json& theirs) {
  if (ours.at("ids") != theirs.at("ids") || ours.at("logprobs") != theirs.at("logprobs")) {
    throw Failure(kExitFailed, "the engine answers otherwise on kvmm than without it");
  }
}

Measured resident(const Options& options, const Size& size, const EngineFiles& files,
                  EngineProcess& ours, Chat& chat, const Json& first, uint64_t session) {
  say_progress("the same chat on the stock engine");
  EngineProcess theirs(files, config_of(options, size, 0));
  Chat same(1, size.chat_tokens);
  require_same(first, same.turn(theirs, kSlot, 1));
  say_progress(fmt::format("decoding: {} pairs of {} tokens", size.pairs, size.turn_tokens));
  const uint64_t read_before = ours.counter(session, "swap_in_bytes");
  std::vector<double> ratios, our_rate, their_rate;
  for (uint64_t i = 0; i <= size.pairs; ++i) {
    Json a, b;
    for (const bool mine : {i % 2 == 0, i % 2 != 0}) {
      (mine ? a : b) = mine ? chat.turn(ours, kSlot, size.turn_tokens)
                            : same.turn(theirs, kSlot, size.turn_tokens);
    }
    require_same(a, b);
    if (i != 0) {  // the first pair warms up
      our_rate.push_back(tokens_a_second(a));
      their_rate.push_back(tokens_a_second(b));
      ratios.push_back(our_rate.back() / their_rate.back());
    }
  }
  if (ours.counter(session, "swap_in_bytes") != read_before) {
    throw Failure(kExitFailed, "the chat did not stay in memory: something else was measured");
  }
  const Estimate e = median_of(ratios);
  return {&kFigures[0],
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("median of {} interleaved pairs of {} tokens after the first, greedy, equal "
                      "to the last log-probability, chat of {} tokens and more, {} slots of {}; "
                      "{:.1f} against {:.1f} tokens/s; {}{}",
                      size.pairs, size.turn_tokens, size.chat_tokens, size.lanes, size.lane_tokens,
                      quantile(our_rate, 0.5), quantile(their_rate, 0.5), files.name,
                      attributes_text(options))};
}

// ---- resume

void evict(EngineProcess& engine, uint64_t session) {
  engine.set(fmt::format("sessions/{}/advice", session), "evict");
  const std::string left = fmt::format("sessions/{}/bytes_resident", session);
  constexpr int kAsked = 100000;
  for (int i = 0; engine.attribute(left) != "0"; ++i) {
    if (i == kAsked) {
      throw Failure(kExitFailed, "the chat cannot be evicted; is the disk of --dir full?");
    }
  }
}

Measured resume(const Options& options, const Size& size, const EngineFiles& files,
                EngineProcess& engine, Chat& chat, uint64_t session) {
  say_progress(fmt::format("first tokens: {} pairs", size.pairs));
  constexpr uint64_t kPiece = 2 << 20;
  constexpr unsigned kDepth = 4;
  PlainReads plain(engine.take_swap_fd(), kPiece, kDepth);
  std::vector<double> ratios, warm, cold, plain_mibs, mib;
  for (uint64_t i = 0; i <= size.pairs; ++i) {
    const double warm_ms = chat.turn(engine, kSlot, 1).at("first_token_ms");
    evict(engine, session);
    const uint64_t before = engine.counter(session, "swap_in_bytes");
    const double cold_ms = chat.turn(engine, kSlot, 1).at("first_token_ms");
    const uint64_t bytes = engine.counter(session, "swap_in_bytes") - before;
    if (bytes == 0) {
      throw Failure(kExitFailed, "nothing was read back: something else was measured");
    }
    std::vector<PlainRead> reads = data_of(plain.fd(), kPiece);
    const Pass pass = plain.read(reads, kPiece, kDepth);
    const double rate = static_cast<double>(reads.size() * kPiece) / pass.seconds;
    if (i != 0) {  // the first pair warms up
      ratios.push_back((cold_ms - warm_ms) / 1e3 / (static_cast<double>(bytes) / rate));
      warm.push_back(warm_ms);
      cold.push_back(cold_ms);
      plain_mibs.push_back(rate / kMiB);
      mib.push_back(static_cast<double>(bytes) / kMiB);
    }
  }
  if (engine.counter(session, "wrong_pages") != 0) {
    throw Failure(kExitFailed, "reads failed verification");
  }
  const Estimate e = median_of(ratios);
  return {&kFigures[1],
          e.value,
          e.low,
          e.high,
          e.n,
          fmt::format("median of {} pairs; first token {:.1f} ms resident, {:.1f} ms after "
                      "eviction, {:.1f} MiB brought back; plain: O_DIRECT io_uring reads of 2 MiB, "
                      "depth 4, from the same swap file in turn, {:.0f} MiB/s; {}{}",
                      size.pairs, quantile(warm, 0.5), quantile(cold, 0.5), quantile(mib, 0.5),
                      quantile(plain_mibs, 0.5), files.name, attributes_text(options))};
}

std::vector<Measured> run(const Options& options) {
  require_disk(options.dir);
  { const ScratchDir writable(options.dir, kSwap); }  // said now and not after a minute
  const Size size = size_of(options);
  say_progress("looking for engine and model");
  const EngineFiles files = find_engine();
  std::vector<Measured> all;
  if (kFigures[0].wanted(options) || kFigures[1].wanted(options)) {
    say_progress(fmt::format("a chat of {} tokens on kvmm", size.chat_tokens));
    EngineProcess ours(files, config_of(options, size, 8 * kDemoTier));
    apply(ours, options);
    const uint64_t session =
        ours.ask({{"op", "planes"}, {"slots", kSlot + 1}}).at("sessions").at(kSlot);
    Chat chat(1, size.chat_tokens);
    const Json first = chat.turn(ours, kSlot, 1);
    if (kFigures[0].wanted(options)) {
      all.push_back(resident(options, size, files, ours, chat, first, session));
    }
    if (kFigures[1].wanted(options)) {
      all.push_back(resume(options, size, files, ours, chat, session));
    }
  }
  if (kFigures[2].wanted(options) || kFigures[3].wanted(options)) {
    measure_starts(options, files, &all);
  }
  return all;
}

}  // namespace

Benchmark engine_benchmark() {
  return {"engine", "llama.cpp on kvmm, beside llama.cpp as it is", kFigures, run};
}

}  // namespace kvmm::bench
