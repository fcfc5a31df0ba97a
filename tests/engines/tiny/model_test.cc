// SPDX-License-Identifier: Apache-2.0
//
// The test engine tested: its model computed by a second path, and its checker shown to catch.
#include "tools/engines/tiny/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tools/engines/tiny/kv_store.h"
#include "tools/engines/tiny/sequence.h"

namespace tiny {
namespace {

// The model again, layer by layer over the whole sequence, in 64 bits, with the K/V of a layer as
// two matrices: no cache, no views, nothing of forward() but the weights and the two integer
// functions.
class FullRecompute {
 public:
  explicit FullRecompute(const Model& model) : model_(model) {}

  Logits last_logits(const std::vector<int32_t>& tokens) const {
    const size_t n = tokens.size();
    Matrix x(n, Vector(kWidth));
    for (size_t t = 0; t < n; ++t) {
      for (uint32_t i = 0; i < kWidth; ++i) {
        const size_t at = static_cast<size_t>(tokens[t]) * kWidth + i;
        x[t][i] = model_.weights().embed[at] * 32 + position_term(model_.seed(), t, i);
      }
    }
    for (const Weights::Layer& layer : model_.weights().layers) {
      add(&x, times(attention(normalised(x), layer), layer.out, 9));
      Matrix hidden = times(normalised(x), layer.feed_up, 9);
      for (Vector& row : hidden) {
        for (int64_t& v : row)
          v = std::max<int64_t>(0, v);
      }
      add(&x, times(clamped(hidden), layer.feed_down, 9));
    }
    const Matrix out = times(normalised(x), model_.weights().embed, 0);
    Logits logits;
    for (uint32_t j = 0; j < kVocabulary; ++j)
      logits[j] = static_cast<int32_t>(out.back()[j]);
    return logits;
  }

 private:
  using Vector = std::vector<int64_t>;
  using Matrix = std::vector<Vector>;

  static Matrix clamped(Matrix m) {
    for (Vector& row : m) {
      for (int64_t& v : row)
        v = std::min<int64_t>(32767, std::max<int64_t>(-32768, v));
    }
    return m;
  }
  static Matrix normalised(const Matrix& m) {
    Matrix out = m;
    for (Vector& row : out) {
      uint64_t sum = 0;
      for (int64_t v : row)
        sum += static_cast<uint64_t>(v * v);
      const int64_t rms = std::max<int64_t>(1, isqrt(sum / row.size()));
      for (int64_t& v : row)
        v = v * 1024 / rms;
    }
    return clamped(out);
  }
  static Matrix times(const Matrix& m, const std::vector<int8_t>& w, int shift) {
    const size_t in = m[0].size();
    Matrix out(m.size(), Vector(w.size() / in));
    for (size_t t = 0; t < m.size(); ++t) {
      for (size_t k = 0; k < w.size(); ++k)
        out[t][k / in] += m[t][k % in] * w[k];
      for (int64_t& v : out[t])
        v >>= shift;
    }
    return out;
  }
  static void add(Matrix* a, const Matrix& b) {
    for (size_t t = 0; t < b.size(); ++t) {
      for (size_t i = 0; i < b[t].size(); ++i)
        (*a)[t][i] += b[t][i];
    }
  }
  static Matrix attention(const Matrix& in, const Weights::Layer& layer) {
    const Matrix q = clamped(times(in, layer.query, 9));
    const Matrix k = clamped(times(in, layer.key, 9));
    const Matrix v = clamped(times(in, layer.value, 9));
    Matrix out(in.size(), Vector(kWidth));
    for (size_t now = 0; now < in.size(); ++now) {
      for (uint32_t j = 0; j < kWidth; ++j) {
        const uint32_t head = j / kHeadSize;
        const uint32_t kv_head = head * kKvHeads / kHeads;
        Vector scores;
        for (size_t t = 0; t <= now; ++t) {
          int64_t sum = 0;
          for (uint32_t i = 0; i < kHeadSize; ++i) {
            sum += q[now][head * kHeadSize + i] * k[t][kv_head * kHeadSize + i];
          }
          scores.push_back(sum >> 14);
        }
        const int64_t best = *std::max_element(scores.begin(), scores.end());
        int64_t total = 0;
        for (size_t t = 0; t <= now; ++t) {
          const int64_t weight = exp2_q16(static_cast<int32_t>(scores[t] - best));
          total += weight;
          out[now][j] += weight * v[t][kv_head * kHeadSize + j % kHeadSize];
        }
        out[now][j] /= total;
      }
    }
    return out;
  }

  const Model& model_;
};

Workload small_work() {
  Workload work;
  work.seed = 11;
  work.sessions = 2;
  work.prompt_tokens = 9;
  work.tokens = 28;
  work.chunk_tokens = 4;
  return work;
}

TEST(TinyArithmetic, SquareRootIsExact) {
  std::mt19937_64 random(20240601);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t x = random() >> (random() % 64);
    const unsigned __int128 root = isqrt(x);
    ASSERT_LE(root * root, x);
    ASSERT_GT((root + 1) * (root + 1), x);
  }
}

TEST(TinyArithmetic, PowersOfTwoAreWithinTwo) {
  EXPECT_EQ(exp2_q16(0), 65536u);
  EXPECT_EQ(exp2_q16(-256), 32768u);
  EXPECT_EQ(exp2_q16(-16 * 256), 0u);
  EXPECT_EQ(exp2_q16(INT32_MIN), 0u);
  for (int32_t bits = -16 * 256 + 1; bits <= 0; ++bits) {
    ASSERT_NEAR(exp2_q16(bits), 65536.0 * std::exp2(bits / 256.0), 2.0) << bits;
    if (bits < 0) {
      ASSERT_LE(exp2_q16(bits), exp2_q16(bits + 1)) << bits;
    }
  }
}

TEST(TinyModel, CachedDecodeEqualsFullRecompute) {
  const Workload work = small_work();
  const Model model(work.seed);
  const FullRecompute full(model);
  std::vector<Sequence> again;
  for (uint32_t i = 0; i < work.sessions; ++i) {
    Sequence seq = make_sequence(work, i);
    while (seq.tokens.size() < work.tokens) {
      const Logits logits = full.last_logits(seq.tokens);
      seq.tokens.push_back(draw(logits));
      seq.hash = mix64(seq.hash ^ digest(logits)) + static_cast<uint64_t>(seq.tokens.back());
    }
    again.push_back(seq);
  }
  const std::vector<Sequence> cached = run_reference(model, work);
  for (uint32_t i = 0; i < work.sessions; ++i) {
    EXPECT_EQ(cached[i].tokens, again[i].tokens) << "sequence " << i;
    EXPECT_EQ(cached[i].hash, again[i].hash) << "sequence " << i;
  }
  EXPECT_EQ(run_hash(cached), run_hash(again));
}

// The number itself, so that another compiler, machine or optimisation is held against this one.
TEST(TinyModel, HashIsTheSameEverywhere) {
  const Workload work = small_work();
  EXPECT_EQ(run_hash(run_reference(Model(work.seed), work)), 180979105866621363u);
}

TEST(TinyModel, ChunksDoNotChangeTheNumbersButSeedsDo) {
  Workload work = small_work();
  const Model model(work.seed);
  const uint64_t hash = run_hash(run_reference(model, work));
  for (uint64_t chunk : {1u, 3u, 9u, 64u}) {
    work.chunk_tokens = chunk;
    EXPECT_EQ(run_hash(run_reference(model, work)), hash) << "chunk " << chunk;
  }
  work.seed = 12;
  EXPECT_NE(run_hash(run_reference(Model(work.seed), work)), hash);
}

TEST(TinyModel, GeneratedTokensDoNotLoop) {
  Workload work = small_work();
  work.sessions = 1;
  work.tokens = 200;
  const Sequence seq = run_reference(Model(work.seed), work)[0];
  std::vector<bool> seen(kVocabulary, false);
  for (int32_t token : seq.tokens)
    seen[static_cast<size_t>(token)] = true;
  EXPECT_GT(std::count(seen.begin(), seen.end(), true), 100);
}

// One bit of one row changes what is generated from there on: equal tokens do prove equal K/V.
TEST(TinyModel, OneWrongBitChangesTheTokens) {
  const Workload work = small_work();
  const Model model(work.seed);
  const Sequence want = run_reference(model, work)[0];
  for (uint32_t plane = 0; plane < kPlanes; ++plane) {
    PlainView kv;
    Sequence seq = make_sequence(work, 0);
    while (const uint64_t n = next_step(work, seq, 12)) {
      ASSERT_EQ(advance(model, n, kv, &seq), Access::kOk);
    }
    // Bit 9 of a value of about 1000: well above what the shifts round away.
    (*kv.at(plane, 10))[40] = static_cast<int16_t>((*kv.at(plane, 10))[40] ^ 512);
    while (const uint64_t n = next_step(work, seq, work.tokens)) {
      ASSERT_EQ(advance(model, n, kv, &seq), Access::kOk);
    }
    EXPECT_NE(seq.hash, want.hash) << plane_name(plane);
  }
}

TEST(TinyModel, ReplayBringsLostRowsBack) {
  const Workload work = small_work();
  const Model model(work.seed);
  PlainView kv;
  Sequence seq = make_sequence(work, 0);
  while (const uint64_t n = next_step(work, seq, work.tokens)) {
    ASSERT_EQ(advance(model, n, kv, &seq), Access::kOk);
  }
  PlainView damaged = kv;
  for (uint32_t plane = 0; plane < kPlanes; ++plane) {
    for (uint64_t t = 5; t < 17; ++t)
      damaged.at(plane, t)->fill(0);
  }
  ASSERT_EQ(replay(model, 5, 17, damaged, seq), Access::kOk);
  for (uint32_t plane = 0; plane < kPlanes; ++plane) {
    for (uint64_t t = 0; t < seq.written; ++t) {
      ASSERT_EQ(*damaged.at(plane, t), *kv.at(plane, t)) << plane_name(plane) << " token " << t;
    }
  }
}

TEST(TinyModel, StopsWhereContentIsGone) {
  const Workload work = small_work();
  const Model model(work.seed);
  PlainView empty;
  Sequence seq = make_sequence(work, 0);
  seq.written = 3;  // its rows were never written to this view
  const Sequence before = seq;
  EXPECT_EQ(advance(model, 1, empty, &seq), Access::kGone);
  EXPECT_EQ(seq.written, before.written);
  EXPECT_EQ(seq.tokens, before.tokens);
  EXPECT_EQ(seq.hash, before.hash);
}

TEST(CheckedView, NamesTheWrongValue) {
  const Workload work = small_work();
  const Model model(work.seed);
  PlainView kv;
  CheckedView checked(7, kv);
  Sequence seq = make_sequence(work, 0);
  ASSERT_EQ(advance(model, 9, checked, &seq), Access::kOk);
  EXPECT_FALSE(checked.mismatch());
  EXPECT_EQ(checked.reads_checked(), uint64_t{kPlanes} * (9 * 8 / 2));
  const int16_t right = (*kv.at(v_plane(2), 4))[31];
  (*kv.at(v_plane(2), 4))[31] = static_cast<int16_t>(right + 1);
  EXPECT_EQ(advance(model, 1, checked, &seq), Access::kWrong);
  ASSERT_TRUE(checked.mismatch());
  EXPECT_EQ(checked.mismatch()->session, 7u);
  EXPECT_EQ(checked.mismatch()->plane, v_plane(2));
  EXPECT_EQ(checked.mismatch()->token, 4u);
  EXPECT_FALSE(checked.mismatch()->on_write);
  EXPECT_EQ(checked.mismatch()->describe(), "session 7: v_l2 token 4: read " +
                                                std::to_string(right + 1) + ", should be " +
                                                std::to_string(right) + " (value 31)");
  // It stays wrong: no later access is answered as if nothing had been.
  Row row;
  EXPECT_EQ(checked.read(0, 0, &row), Access::kWrong);
}

TEST(CheckedView, CatchesAnotherValueOnRecompute) {
  PlainView kv;
  CheckedView checked(0, kv);
  Row row{};
  row[3] = 5;
  ASSERT_EQ(checked.write(1, 0, row), Access::kOk);
  EXPECT_EQ(checked.write(1, 0, row), Access::kOk);
  Row other = row;
  other[3] = 6;
  EXPECT_EQ(checked.write(1, 0, other), Access::kWrong);
  ASSERT_TRUE(checked.mismatch());
  EXPECT_TRUE(checked.mismatch()->on_write);
  EXPECT_EQ(*kv.at(1, 0), row);
}

TEST(CheckedView, ReadingWhatWasNeverWrittenIsWrong) {
  PlainView kv;
  ASSERT_EQ(kv.write(0, 0, Row{}), Access::kOk);
  CheckedView checked(0, kv);
  Row row;
  EXPECT_EQ(checked.read(0, 0, &row), Access::kWrong);
}

}  // namespace
}  // namespace tiny
