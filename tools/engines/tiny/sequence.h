// SPDX-License-Identifier: Apache-2.0
//
// A sequence: its tokens, how many of them have K/V, and a hash of all that the model put out for
// it.
//
//   tokens   [ prompt ............ | generated ...... | next ]
//            |<------- written, have K/V ------------>|
//
// The prompt is drawn from the seed. `advance` runs a few tokens; once all tokens have K/V, the
// last logits give one more token. The hash covers each generated token and the digest of the
// logits it was drawn from, so two runs with equal hashes had equal logits at every step.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/engines/tiny/model.h"

namespace tiny {

// What all sequences of a run do, in every mode.
struct Workload {
  uint64_t seed = 1;
  uint32_t sessions = 4;
  uint64_t prompt_tokens = 64;
  uint64_t tokens = 256;       // of each sequence, prompt included
  uint64_t chunk_tokens = 16;  // of prompt run in one step; generation runs one token a step
};

struct Sequence {
  uint32_t index = 0;
  std::vector<int32_t> tokens;
  uint64_t written = 0;
  uint64_t hash = 0;
};

// Sequence `index` with its prompt, nothing run yet.
Sequence make_sequence(const Workload& work, uint32_t index);

// Tokens that the next step runs: a chunk of the prompt, or the one token drawn last. 0: `seq` has
// `target` tokens already.
uint64_t next_step(const Workload& work, const Sequence& seq, uint64_t target);

// Runs the next `n` tokens of `seq`; draws one more token if that were all. On anything but kOk
// `seq` is unchanged and the step may be repeated.
Access advance(const Model& model, uint64_t n, KvView& kv, Sequence* seq);

// Computes the K/V of tokens [begin, end) again. REQUIRES: end <= seq.written.
Access replay(const Model& model, uint64_t begin, uint64_t end, KvView& kv, const Sequence& seq);

// One number for a run, from the sequences in order of index.
uint64_t run_hash(const std::vector<Sequence>& sequences);

// The whole workload over plain memory, one sequence after another.
std::vector<Sequence> run_reference(const Model& model, const Workload& work);

}  // namespace tiny
