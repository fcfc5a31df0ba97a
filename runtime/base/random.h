// SPDX-License-Identifier: Apache-2.0
//
// Random numbers from a seed: the same seed gives the same numbers on every machine and compiler.
//
//   Random rng(seed);               one per run; the seed is printed, so that a run can be repeated
//   Random mine = rng.split(7);     a stream of its own for a component: what one component draws
//                                   does not change what another one sees
//
// The generator is xoshiro256** 1.0 (Blackman and Vigna, 2018) seeded by SplitMix64, as its authors
// advise. It is no source of secrets: keys of hashes come from the system's random source.
//
// Thread safety: a value; one thread at a time.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "runtime/base/check.h"

namespace kvmm {

// The next number of a SplitMix64 sequence; also a good mixer of one word.
constexpr uint64_t splitmix64(uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

class Random {
 public:
  // Fits std::uniform_random_bit_generator, so that std::shuffle takes one. (The standard
  // distributions differ between libraries: use the functions below.)
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return UINT64_MAX; }

  constexpr explicit Random(uint64_t seed) : seed_(seed) {
    uint64_t state = seed;
    for (uint64_t& word : s_) {
      word = splitmix64(state);  // never all zero: SplitMix64 gives four different words
    }
  }

  constexpr uint64_t seed() const { return seed_; }

  constexpr uint64_t operator()() {
    const uint64_t result = std::rotl(s_[1] * 5, 7) * 9;
    const uint64_t t = s_[1] << 17;
    s_[2] ^= s_[0];
    s_[3] ^= s_[1];
    s_[1] ^= s_[2];
    s_[0] ^= s_[3];
    s_[2] ^= t;
    s_[3] = std::rotl(s_[3], 45);
    return result;
  }

  constexpr uint64_t next() { return (*this)(); }

  // Uniform in [0, n), without bias. REQUIRES: n > 0.
  uint64_t below(uint64_t n) {
    check(n > 0, "a range to draw from", n, n);
    // Draws under 2^64 mod n are thrown away; what is left is a multiple of n.
    const uint64_t threshold = (0 - n) % n;
    uint64_t r = (*this)();
    while (r < threshold) {
      r = (*this)();
    }
    return r % n;
  }

  // Uniform in [low, high]. REQUIRES: low <= high, and not the whole range of the type.
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }

  // True `n` times out of `of`, in the mean. REQUIRES: of > 0.
  bool chance(uint64_t n, uint64_t of) { return below(of) < n; }

  // A generator whose numbers depend on the seed and `stream` only, not on what was drawn so far.
  constexpr Random split(uint64_t stream) const {
    uint64_t a = seed_;
    uint64_t b = stream ^ 0xd1b54a32d192ed03ULL;
    return Random(splitmix64(a) ^ std::rotl(splitmix64(b), 32));
  }

 private:
  uint64_t seed_;
  std::array<uint64_t, 4> s_{};
};

}  // namespace kvmm
