// SPDX-License-Identifier: Apache-2.0
#include "vmm/identity.h"

#include <xxhash.h>

namespace kvmm {

uint64_t page_checksum(std::span<const uint64_t> piece_digests, const PageIdentity& id) {
  // Digests and identity in one buffer: 32 * 8 + 40 bytes at most.
  std::array<uint64_t, kMaxPieces + sizeof(PageIdentity) / 8> words;
  size_t n = 0;
  for (const uint64_t d : piece_digests.first(std::min<size_t>(piece_digests.size(), kMaxPieces))) {
    words[n++] = d;
  }
  words[n++] = id.model;
  words[n++] = id.layout;
  words[n++] = id.owner;
  words[n++] = id.object;
  words[n++] = (uint64_t{id.page} << 32) | id.generation;
  return XXH3_64bits(words.data(), n * sizeof(uint64_t));
}

uint64_t piece_digest(std::span<const std::byte> piece) {
  return XXH3_64bits(piece.data(), piece.size());
}

uint64_t model_digest(const ModelId& model) {
  return XXH3_64bits(model.data(), model.size());
}

uint64_t text_fingerprint(std::span<const char> text) {
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace kvmm
