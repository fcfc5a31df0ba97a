// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/sequence.h"

#include <algorithm>

#include "tools/engines/tiny/kv_store.h"

namespace tiny {

Sequence make_sequence(const Workload& work, uint32_t index) {
  Sequence seq;
  seq.index = index;
  seq.hash = mix64(work.seed ^ index);
  for (uint64_t t = 0; t < work.prompt_tokens; ++t) {
    const uint64_t word = mix64(mix64(work.seed + 17) ^ (uint64_t{index} << 32) ^ t);
    seq.tokens.push_back(static_cast<int32_t>(word % kVocabulary));
  }
  return seq;
}

uint64_t next_step(const Workload& work, const Sequence& seq, uint64_t target) {
  const uint64_t waiting = seq.tokens.size() - seq.written;
  if (seq.tokens.size() >= target && seq.written + 1 >= seq.tokens.size())
    return 0;
  return std::min(waiting, work.chunk_tokens);
}

Access advance(const Model& model, uint64_t n, KvView& kv, Sequence* seq) {
  Logits logits;
  const bool draws = seq->written + n == seq->tokens.size();
  for (uint64_t t = seq->written; t < seq->written + n; ++t) {
    const bool last = draws && t + 1 == seq->tokens.size();
    const Access a = model.forward(seq->tokens[t], t, kv, last ? &logits : nullptr);
    if (a != Access::kOk)
      return a;
  }
  seq->written += n;
  if (draws) {
    seq->tokens.push_back(draw(logits));
    seq->hash = mix64(seq->hash ^ digest(logits)) + static_cast<uint64_t>(seq->tokens.back());
  }
  return Access::kOk;
}

Access replay(const Model& model, uint64_t begin, uint64_t end, KvView& kv, const Sequence& seq) {
  for (uint64_t t = begin; t < end; ++t) {
    if (Access a = model.forward(seq.tokens[t], t, kv, nullptr); a != Access::kOk)
      return a;
  }
  return Access::kOk;
}

uint64_t run_hash(const std::vector<Sequence>& sequences) {
  uint64_t hash = 0;
  for (const Sequence& seq : sequences)
    hash = mix64(hash ^ seq.hash) + seq.tokens.size();
  return hash;
}

std::vector<Sequence> run_reference(const Model& model, const Workload& work) {
  std::vector<Sequence> sequences;
  for (uint32_t i = 0; i < work.sessions; ++i) {
    PlainView kv;
    Sequence seq = make_sequence(work, i);
    while (const uint64_t n = next_step(work, seq, work.tokens)) {
      if (advance(model, n, kv, &seq) != Access::kOk)
        break;
    }
    sequences.push_back(std::move(seq));
  }
  return sequences;
}

}  // namespace tiny
