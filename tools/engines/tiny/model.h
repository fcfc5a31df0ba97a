// SPDX-License-Identifier: Apache-2.0
//
// A small transformer in integer arithmetic: its numbers are the same on every machine and
// compiler.
//
//   token id + position --> embed --> 4 x [ norm, attention over all earlier K/V, norm,
//   feed-forward ]
//                                      \__ writes K and V of this token through KvView
//                       --> norm --> logits --> next token
//
// Why integers: a test that compares tokens across page-outs must not depend on a compiler's
// freedom to fuse or reorder floating-point operations. Why a model at all, and not a pattern in
// memory: here each K/V value depends on all earlier ones, as in a real engine, so it can only be
// had back by reading it or by computing it again.
//
//   quantity            type, scale
//   weights             int8, uniform in [-64, 64), from the seed
//   normalised vectors  int16, root mean square 1024
//   K and V             int16, kRowValues of them a token, layer and side: kRowBytes = 128
//   scores              1/256 bits: attention weight = 2^(score - max)
//
// Invariants
//   1. forward() reads only rows of positions < `position`, and writes all rows of `position`,
//   layer by
//      layer: row of layer l is written after the rows of layers < l were read.
//   2. The logits depend on nothing but the seed, the token ids and the positions up to this one.
//
// Thread safety: a Model is constant after construction; any number of threads may call forward().
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace tiny {

inline constexpr uint32_t kLayers = 4;
inline constexpr uint32_t kHeads = 4;
inline constexpr uint32_t kKvHeads = 2;  // grouped: heads 0,1 read KV head 0, heads 2,3 KV head 1
inline constexpr uint32_t kHeadSize = 32;
inline constexpr uint32_t kWidth = kHeads * kHeadSize;
inline constexpr uint32_t kFeed = 256;
inline constexpr uint32_t kVocabulary = 256;
inline constexpr uint32_t kRowValues = kKvHeads * kHeadSize;
inline constexpr uint32_t kRowBytes = kRowValues * sizeof(int16_t);
inline constexpr uint32_t kPlanes = 2 * kLayers;  // k_l0 v_l0 k_l1 v_l1 ...
inline constexpr uint32_t kBytesPerToken = kPlanes * kRowBytes;
static_assert((kRowBytes & (kRowBytes - 1)) == 0, "a token must not straddle two pages");

using Row = std::array<int16_t, kRowValues>;
using Logits = std::array<int32_t, kVocabulary>;

constexpr uint32_t k_plane(uint32_t layer) {
  return 2 * layer;
}
constexpr uint32_t v_plane(uint32_t layer) {
  return 2 * layer + 1;
}

// What came of touching one row of K or V.
enum class Access {
  kOk,
  kGone,   // the content is lost: the rows have to be computed again
  kWrong,  // a checking store saw another value than was written: stop
};

// The K/V rows of one sequence, wherever they lie. `token` counts from 0.
class KvView {
 public:
  virtual ~KvView() = default;
  // Copies one row out. On failure `*row` is unspecified.
  virtual Access read(uint32_t plane, uint64_t token, Row* row) = 0;
  // Stores one row. Writing a row again with the value it has is allowed.
  virtual Access write(uint32_t plane, uint64_t token, const Row& row) = 0;
};

// All weights, [out][in]. Public so that a test can compute the model by another path.
struct Weights {
  struct Layer {
    std::vector<int8_t> query;      // [kWidth][kWidth]
    std::vector<int8_t> key;        // [kRowValues][kWidth]
    std::vector<int8_t> value;      // [kRowValues][kWidth]
    std::vector<int8_t> out;        // [kWidth][kWidth]
    std::vector<int8_t> feed_up;    // [kFeed][kWidth]
    std::vector<int8_t> feed_down;  // [kWidth][kFeed]
  };
  std::vector<int8_t> embed;  // [kVocabulary][kWidth], also the output head
  std::array<Layer, kLayers> layers;
};

class Model {
 public:
  explicit Model(uint64_t seed);

  // Runs one token. REQUIRES: 0 <= id < kVocabulary; rows of all positions < `position` are
  // written. `logits` may be null (the token is only wanted for its K/V). On anything but kOk the
  // rows of `position` may be written in part and `logits` is unspecified; running it again is
  // allowed.
  Access forward(int32_t id, uint64_t position, KvView& kv, Logits* logits) const;

  const Weights& weights() const { return weights_; }
  uint64_t seed() const { return seed_; }

 private:
  uint64_t seed_;
  Weights weights_;
};

// ---- the arithmetic, for forward() and for tests

// A well mixed 64-bit value of `x` (the finaliser of SplitMix64).
uint64_t mix64(uint64_t x);
// floor(sqrt(x)).
uint32_t isqrt(uint64_t x);
// 65536 * 2^(bits256 / 256), rounded down, within 2 of the true value. REQUIRES: bits256 <= 0.
uint32_t exp2_q16(int32_t bits256);
// What is added to the embedding at `position`, dimension `i`; in [-2048, 2048).
int32_t position_term(uint64_t seed, uint64_t position, uint32_t i);

// A digest of logits; equal digests mean equal logits for our purposes (64 bits).
uint64_t digest(const Logits& logits);
// The next token. Not the largest logit: a greedy model of this size falls into loops which survive
// wrong K/V. A draw by the digest changes with any bit of any logit.
int32_t draw(const Logits& logits);

}  // namespace tiny
