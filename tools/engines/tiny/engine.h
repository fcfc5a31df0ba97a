// SPDX-License-Identifier: Apache-2.0
//
// Runs several sequences in turn with their K/V in kvmm memory, as either kind of engine.
//
//   faulting   one sequence after another takes a step: touch, and if SIGBUS says that content is
//   gone,
//              compute it again and repeat the step.
//   pinning    a batch takes a step: pin what they read and what they will write, launch those that
//   are
//              ready on the stream, wait for those that come, unpin behind a fence while the stream
//              still runs. Lost content is computed again between batches.
//
//   a step     rows of tokens [written, written + n) are written past the end, then kvmm_append(n)
//   recompute  kvmm_recompute_ranges -> begin -> replay the tokens of each range in ascending order
//   ->
//              end. Replaying token t reads the rows of [0, t), so the lowest range goes first; if
//              those turn out to be lost as well, their ranges join the list and go before.
//
// Invariants
//   1. A sequence's `written` equals kvmm_tokens of its session between steps.
//   2. Nothing is read or written outside pins in pinning mode.
//   3. A step that failed half way is repeated as a whole; it writes the same values again.
//
// Thread safety: one thread drives an Engine; the pinning one works on the
// store's stream.
#pragma once

#include <optional>
#include <vector>

#include "kvmm/kvmm.hpp"
#include "tools/engines/tiny/kv_store.h"
#include "tools/engines/tiny/kvmm_store.h"
#include "tools/engines/tiny/sequence.h"

namespace tiny {

struct EngineOptions {
  Workload work;
  uint32_t batch = 4;        // pinning: sequences in one batch
  uint64_t evict_every = 0;  // steps of a sequence after which all its pages are sent out; 0: never
  bool check = true;         // compare every row read with the one written
};

// What happened beside the tokens.
struct EngineCounts {
  uint64_t steps = 0;
  uint64_t evictions = 0;   // kvmm_advise(EVICT) calls
  uint64_t recomputes = 0;  // ranges
  uint64_t recomputed_tokens = 0;
  uint64_t batches = 0;        // pinned batches
  uint64_t ready_at_once = 0;  // of their sequences, ready in the first answer
  uint64_t ready_later = 0;
  uint64_t ran_before_others = 0;  // launched while another of the batch was still coming
  uint64_t batches_cut = 0;        // did not fit into DRAM together
};

class Engine {
 public:
  // `model` and `store` must outlive the engine; `options.work.sessions` as the store's.
  Engine(const Model& model, KvmmStore& store, const EngineOptions& options);

  // Runs every sequence up to `target` tokens. May be called again with a larger target. Errors:
  // ECORRUPT (a checked value was wrong; see mismatch()), ENOMEMORY (one sequence alone does not
  // fit), ERECOMPUTE (content was lost again and again), and what kvmm.h says of the calls used.
  kvmmpp::Status run(uint64_t target);

  const std::vector<Sequence>& sequences() const { return sequences_; }
  const EngineCounts& counts() const { return counts_; }
  // The first wrong value, once run() has answered ECORRUPT.
  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  uint64_t reads_checked() const;

 private:
  // One sequence of a pinned batch.
  struct Member {
    uint32_t index = 0;
    uint64_t n = 0;          // tokens of this step
    size_t first_range = 0;  // in the pin: `ranges` of them
    size_t ranges = 0;
    bool launched = false;
    Access result = Access::kOk;  // written by the stream, read after waiting for it
  };

  KvView& view(uint32_t index);
  kvmmpp::Status wrong(uint32_t index);
  kvmmpp::Status finish_step(uint32_t index, uint64_t n);
  kvmmpp::Status evict_if_due(uint32_t index);
  kvmmpp::Status run_faulting(uint64_t target);
  kvmmpp::Status run_pinning(uint64_t target);
  kvmmpp::Status run_batch(std::vector<Member>& members, std::vector<uint32_t>* lost);
  // Brings back what recompute_ranges names, until it names nothing.
  kvmmpp::Status recover(uint32_t index);
  Access recompute(uint32_t index, kvmm_range range, kvmmpp::Status* why);
  Access pin_for_recompute(uint32_t index, kvmm_range range, std::vector<kvmmpp::Pin>* pins,
                           kvmmpp::Status* why);

  const Model& model_;
  KvmmStore& store_;
  const EngineOptions options_;
  std::vector<Sequence> sequences_;
  std::vector<CheckedView> checked_;
  std::vector<uint64_t> steps_;  // of each sequence
  std::optional<Mismatch> mismatch_;
  EngineCounts counts_;
  uint32_t batch_limit_;
};

}  // namespace tiny
