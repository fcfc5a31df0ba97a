// SPDX-License-Identifier: Apache-2.0
//
// kvmm-tiny: runs the test engine and prints a hash of all it generated. Equal options give equal
// hashes in every mode, however often pages went out and came back.
//
// Exit status: 0; 1 a K/V value, or with --verify the hash, was wrong; 2 anything else that failed;
// 77 the system does not allow what the mode needs.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "tools/engines/tiny/engine.h"

namespace {

using tiny::EngineKind;

struct Arguments {
  std::string mode = "faulting";
  tiny::EngineOptions engine;
  tiny::KvmmStoreOptions store;
  bool no_check = false;
  bool verify = false;
  bool json = false;
  bool pin_only = false;
  bool no_control = false;
};

void declare(CLI::App& app, Arguments* a) {
  tiny::Workload& work = a->engine.work;
  app.add_option("--mode", a->mode, "faulting, pinning, or reference (plain memory)")
      ->check(CLI::IsMember({"faulting", "pinning", "reference"}))
      ->capture_default_str();
  app.add_option("--sessions", work.sessions, "Sequences that run in turn")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--tokens", work.tokens, "Tokens of each sequence, prompt included")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--prompt", work.prompt_tokens, "Of these, tokens of prompt; default: a quarter")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--chunk", work.chunk_tokens, "Prompt tokens of one step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--batch", a->engine.batch, "Pinning: sequences of one batch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--evict-every", a->engine.evict_every,
                 "Send a sequence's pages out after every N of its steps; 0: never");
  app.add_option("--seed", work.seed, "Of weights and prompts")->capture_default_str();
  app.add_option("--dram", a->store.dram_bytes, "DRAM tier, bytes or with K, M, G")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--swap", a->store.swap_path, "Swap file or block device");
  app.add_option("--swap-size", a->store.swap_bytes, "Size the swap file may grow to")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--page-size", a->store.page_size, "Bytes, a power of two from 4 KiB to 2 MiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--frames", a->store.frames, "Kind of page frames")
      ->check(CLI::IsMember({"movable", "shareable"}));
  app.add_flag("--no-check", a->no_check, "Do not compare every K/V value read");
  app.add_flag("--verify", a->verify, "Run the reference too and compare the hashes");
  app.add_flag("--pin-only", a->pin_only, "Never ask for userfaultfd (mode pinning)");
  app.add_flag("--no-control", a->no_control, "No control socket for kvctl");
  app.add_flag("--json", a->json, "One JSON object on standard output");
}

// What the options have against each other, or "".
std::string conflict(const Arguments& a) {
  const tiny::Workload& work = a.engine.work;
  if (work.prompt_tokens >= work.tokens)
    return "--prompt must be smaller than --tokens";
  const uint64_t page = a.store.page_size;
  if (page < 4096 || page > (2u << 20) || (page & (page - 1)) != 0) {
    return "--page-size must be a power of two from 4 KiB to 2 MiB";
  }
  if (a.engine.evict_every != 0 && a.store.swap_path.empty() && a.mode != "reference") {
    return "--evict-every needs --swap: there is nowhere to send pages";
  }
  if (a.pin_only && a.mode != "pinning")
    return "--pin-only needs --mode pinning";
  return "";
}

nlohmann::json stats_json(const kvmm_session_stat& stat) {
  return {{"bytes_resident", stat.bytes_resident},   {"bytes_swapped", stat.bytes_swapped},
          {"bytes_discarded", stat.bytes_discarded}, {"faults_zero", stat.faults_zero},
          {"faults_minor", stat.faults_minor},       {"faults_major", stat.faults_major},
          {"swap_in_bytes", stat.swap_in_bytes},     {"swap_out_bytes", stat.swap_out_bytes},
          {"clean_drops", stat.clean_drops},         {"wrong_pages", stat.wrong_pages},
          {"seal_violations", stat.seal_violations}, {"pages_poisoned", stat.pages_poisoned}};
}

nlohmann::json counts_json(const tiny::EngineCounts& counts) {
  return {{"steps", counts.steps},
          {"evictions", counts.evictions},
          {"recomputes", counts.recomputes},
          {"recomputed_tokens", counts.recomputed_tokens},
          {"batches", counts.batches},
          {"ready_at_once", counts.ready_at_once},
          {"ready_later", counts.ready_later},
          {"ran_before_others", counts.ran_before_others},
          {"batches_cut", counts.batches_cut}};
}

int report_failure(const kvmmpp::Status& status, bool wrong_value) {
  fmt::print(stderr, "kvmm-tiny: {}\n", status.message());
  if (wrong_value)
    return 1;
  return status.code() == KVMM_EPERMISSION ? 77 : 2;
}

// Runs over kvmm; adds to `report`. The exit status, and the hash in `hash`.
int run_kvmm(const Arguments& a, const tiny::Model& model, nlohmann::json* report, uint64_t* hash) {
  auto store = tiny::KvmmStore::open(a.store);
  if (!store)
    return report_failure(store.status(), false);
  tiny::Engine engine(model, **store, a.engine);
  const kvmmpp::Status status = engine.run(a.engine.work.tokens);
  auto stats = (*store)->stats();
  if (!status.ok())
    return report_failure(status, engine.mismatch().has_value());
  if (!stats)
    return report_failure(stats.status(), false);
  *hash = tiny::run_hash(engine.sequences());
  (*report)["reads_checked"] = engine.reads_checked();
  (*report)["counts"] = counts_json(engine.counts());
  (*report)["stats"] = stats_json(*stats);
  const kvmmpp::Status closed = (*store)->close();
  return closed.ok() ? 0 : report_failure(closed, false);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A small deterministic transformer whose K/V lives in kvmm memory", "kvmm-tiny");
  Arguments a;
  declare(app, &a);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (app.count("--prompt") == 0) {
    a.engine.work.prompt_tokens = std::max<uint64_t>(1, a.engine.work.tokens / 4);
  }
  if (const std::string text = conflict(a); !text.empty()) {
    fmt::print(stderr, "kvmm-tiny: {}\n", text);
    return 2;
  }
  const tiny::Workload& work = a.engine.work;
  a.engine.check = !a.no_check;
  a.store.kind = a.mode == "pinning" ? EngineKind::kPinning : EngineKind::kFaulting;
  a.store.seed = work.seed;
  a.store.sessions = work.sessions;
  a.store.lane_tokens = work.tokens + work.chunk_tokens;
  a.store.flags =
      (a.no_control ? KVMM_RUNTIME_NO_CONTROL : 0u) | (a.pin_only ? KVMM_RUNTIME_PIN_ONLY : 0u);

  const tiny::Model model(work.seed);
  const auto start = std::chrono::steady_clock::now();
  nlohmann::json report;
  uint64_t hash = 0;
  if (a.mode == "reference") {
    hash = tiny::run_hash(tiny::run_reference(model, work));
  } else if (const int rc = run_kvmm(a, model, &report, &hash); rc != 0) {
    return rc;
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  bool verified = true;
  if (a.verify) {
    const uint64_t want = tiny::run_hash(tiny::run_reference(model, work));
    verified = want == hash;
    report["verified"] = verified;
    if (!verified)
      fmt::print(stderr, "kvmm-tiny: hash {:016x}, reference {:016x}\n", hash, want);
  }
  report["mode"] = a.mode;
  report["seed"] = work.seed;
  report["sessions"] = work.sessions;
  report["tokens"] = work.tokens;
  report["kv_bytes"] = work.sessions * work.tokens * tiny::kBytesPerToken;
  report["seconds"] = seconds.count();
  report["hash"] = fmt::format("{:016x}", hash);
  if (a.json) {
    fmt::print("{}\n", report.dump(2));
  } else {
    fmt::print("{} mode, {} sequences of {} tokens, {:.1f} s: hash {:016x}\n", a.mode,
               work.sessions, work.tokens, seconds.count(), hash);
    if (report.contains("stats")) {
      const auto& stats = report["stats"];
      fmt::print(
          "swapped in {} bytes, out {} bytes; recomputed {} tokens; wrong pages {} (none mapped)\n",
          stats["swap_in_bytes"].get<uint64_t>(), stats["swap_out_bytes"].get<uint64_t>(),
          report["counts"]["recomputed_tokens"].get<uint64_t>(),
          stats["wrong_pages"].get<uint64_t>());
    }
  }
  return verified ? 0 : 1;
}
