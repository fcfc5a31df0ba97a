// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/model.h"

#include <algorithm>
#include <bit>

namespace tiny {
namespace {

using Wide = std::array<int32_t, kWidth>;    // the residual stream
using Narrow = std::array<int16_t, kWidth>;  // a normalised vector

// Shifts that keep a product of random weights (standard deviation 37) and normalised values (1024)
// at about 1024 again: 37 * sqrt(128) * 1024 >> 9 = 837, and one bit more for 256 inputs.
constexpr int kWidthShift = 9;
constexpr int kFeedShift = 9;
// A dot product of two head vectors has a standard deviation of about sqrt(32) * 837^2 = 4 million;
// the score's is then about one bit, which lets far tokens count without drowning near ones.
constexpr int kScoreShift = 14;
// Logits enter the draw as they are; the embedding enters the stream at about the scale of a
// layer's output.
constexpr int32_t kEmbedScale = 32;

void fill(std::vector<int8_t>& weights, size_t n, uint64_t& state) {
  weights.resize(n);
  for (int8_t& w : weights) {
    state += 0x9e3779b97f4a7c15u;
    w = static_cast<int8_t>(static_cast<int32_t>(mix64(state) & 127) - 64);
  }
}

int16_t saturate(int64_t x) {
  return static_cast<int16_t>(std::clamp<int64_t>(x, INT16_MIN, INT16_MAX));
}

// Scales `x` to a root mean square of 1024.
void normalise(const Wide& x, Narrow* out) {
  uint64_t squares = 0;
  for (int32_t value : x)
    squares += static_cast<uint64_t>(int64_t{value} * value);
  const int64_t rms = std::max<int64_t>(1, isqrt(squares / kWidth));
  for (uint32_t i = 0; i < kWidth; ++i)
    (*out)[i] = saturate(int64_t{x[i]} * 1024 / rms);
}

// One output: weights of row `j` times `in`, shifted. The sum fits: 256 * 64 * 32768 < 2^31.
template <size_t N>
int32_t dot(const std::vector<int8_t>& weights, size_t j, const std::array<int16_t, N>& in,
            int shift) {
  const int8_t* row = weights.data() + j * N;
  int32_t sum = 0;
  for (size_t i = 0; i < N; ++i)
    sum += int32_t{row[i]} * in[i];
  return sum >> shift;
}

}  // namespace

uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint32_t isqrt(uint64_t x) {
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit != 0; bit >>= 1) {
    if ((root + bit) * (root + bit) <= x)
      root += bit;
  }
  return static_cast<uint32_t>(root);
}

uint32_t exp2_q16(int32_t bits256) {
  if (bits256 <= -16 * 256)
    return 0;
  // 2^(1/2), 2^(1/4), ... 2^(1/256) in Q31: the fraction is a product of those whose bit is set.
  static constexpr std::array<uint64_t, 8> kRoots = {3037000500u, 2553802834u, 2341847524u,
                                                     2242560872u, 2194507417u, 2170868212u,
                                                     2159144272u, 2153306067u};
  const uint32_t fraction = static_cast<uint32_t>(bits256) & 255;
  const int whole = -((bits256 - static_cast<int32_t>(fraction)) / 256);  // 0..16
  uint64_t value = uint64_t{1} << 31;
  for (uint32_t i = 0; i < 8; ++i) {
    if (fraction & (128u >> i))
      value = value * kRoots[i] >> 31;
  }
  return static_cast<uint32_t>(value >> (15 + whole));
}

int32_t position_term(uint64_t seed, uint64_t position, uint32_t i) {
  return static_cast<int32_t>(mix64(mix64(seed ^ (position << 20)) + i) & 4095) - 2048;
}

uint64_t digest(const Logits& logits) {
  uint64_t state = 0x6b766d6d;
  for (int32_t logit : logits)
    state = mix64(state ^ static_cast<uint32_t>(logit)) + 1;
  return state;
}

int32_t draw(const Logits& logits) {
  return static_cast<int32_t>(digest(logits) % kVocabulary);
}

Model::Model(uint64_t seed) : seed_(seed) {
  uint64_t state = mix64(seed + 1);
  fill(weights_.embed, size_t{kVocabulary} * kWidth, state);
  for (Weights::Layer& layer : weights_.layers) {
    fill(layer.query, size_t{kWidth} * kWidth, state);
    fill(layer.key, size_t{kRowValues} * kWidth, state);
    fill(layer.value, size_t{kRowValues} * kWidth, state);
    fill(layer.out, size_t{kWidth} * kWidth, state);
    fill(layer.feed_up, size_t{kFeed} * kWidth, state);
    fill(layer.feed_down, size_t{kWidth} * kFeed, state);
  }
}

Access Model::forward(int32_t id, uint64_t position, KvView& kv, Logits* logits) const {
  Wide x;
  for (uint32_t i = 0; i < kWidth; ++i) {
    x[i] = weights_.embed[static_cast<size_t>(id) * kWidth + i] * kEmbedScale +
           position_term(seed_, position, i);
  }
  Narrow in;
  std::vector<std::array<int32_t, kHeads>> scores(position + 1);
  for (uint32_t l = 0; l < kLayers; ++l) {
    const Weights::Layer& layer = weights_.layers[l];
    normalise(x, &in);
    Row key, value;
    for (uint32_t j = 0; j < kRowValues; ++j) {
      key[j] = saturate(dot(layer.key, j, in, kWidthShift));
      value[j] = saturate(dot(layer.value, j, in, kWidthShift));
    }
    if (Access a = kv.write(k_plane(l), position, key); a != Access::kOk)
      return a;
    if (Access a = kv.write(v_plane(l), position, value); a != Access::kOk)
      return a;
    Narrow query;
    for (uint32_t j = 0; j < kWidth; ++j)
      query[j] = saturate(dot(layer.query, j, in, kWidthShift));

    // Scores of all positions up to this one; this one's row is still at hand.
    std::array<int32_t, kHeads> best;
    best.fill(INT32_MIN);
    for (uint64_t t = 0; t <= position; ++t) {
      Row row = key;
      if (t < position) {
        if (Access a = kv.read(k_plane(l), t, &row); a != Access::kOk)
          return a;
      }
      for (uint32_t h = 0; h < kHeads; ++h) {
        const uint32_t from = h / (kHeads / kKvHeads) * kHeadSize;
        int64_t sum = 0;
        for (uint32_t i = 0; i < kHeadSize; ++i) {
          sum += int32_t{query[h * kHeadSize + i]} * row[from + i];
        }
        scores[t][h] = static_cast<int32_t>(sum >> kScoreShift);
        best[h] = std::max(best[h], scores[t][h]);
      }
    }
    std::array<int64_t, kWidth> mixed{};
    std::array<int64_t, kHeads> total{};
    for (uint64_t t = 0; t <= position; ++t) {
      Row row = value;
      if (t < position) {
        if (Access a = kv.read(v_plane(l), t, &row); a != Access::kOk)
          return a;
      }
      for (uint32_t h = 0; h < kHeads; ++h) {
        const uint32_t from = h / (kHeads / kKvHeads) * kHeadSize;
        const int64_t weight = exp2_q16(scores[t][h] - best[h]);
        total[h] += weight;
        for (uint32_t i = 0; i < kHeadSize; ++i)
          mixed[h * kHeadSize + i] += weight * row[from + i];
      }
    }
    for (uint32_t j = 0; j < kWidth; ++j)
      in[j] = saturate(mixed[j] / total[j / kHeadSize]);
    for (uint32_t j = 0; j < kWidth; ++j)
      x[j] += dot(layer.out, j, in, kWidthShift);

    normalise(x, &in);
    std::array<int16_t, kFeed> hidden;
    for (uint32_t j = 0; j < kFeed; ++j) {
      hidden[j] = saturate(std::max(0, dot(layer.feed_up, j, in, kWidthShift)));
    }
    for (uint32_t j = 0; j < kWidth; ++j)
      x[j] += dot(layer.feed_down, j, hidden, kFeedShift);
  }
  if (logits != nullptr) {
    normalise(x, &in);
    for (uint32_t j = 0; j < kVocabulary; ++j)
      (*logits)[j] = dot(weights_.embed, j, in, 0);
  }
  return Access::kOk;
}

}  // namespace tiny
