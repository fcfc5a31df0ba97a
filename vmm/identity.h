// SPDX-License-Identifier: Apache-2.0
//
// Who a page is, and the checksum that only this page with these bytes has.
//
//   bytes --64 KiB pieces--> XXH3-64 each --+
//                                           +--> XXH3-64 = the page's checksum
//   model, layout, owner, object, page, generation --+
//
// Because the identity is part of the checksum, intact bytes of another page, another session,
// another model or an older generation fail verification like flipped bits do. Pieces are digested
// one by one, so that checksums overlap the I/O and can be taken on a GPU.
//
// Thread safety: pure functions and values.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "runtime/base/units.h"

namespace kvmm {

using ModelId = std::array<uint8_t, 32>;

struct PageIdentity {
  uint64_t model = 0;       // digest of the 32-byte model_id
  uint64_t layout = 0;      // fingerprint of the layout
  uint64_t owner = 0;       // session, or prefix key of a shared object
  uint64_t object = 0;      // never reused within a runtime
  uint32_t page = 0;        // index in the object
  uint32_t generation = 0;  // rewrites of this page; never reused within the object
  bool operator==(const PageIdentity&) const = default;
};
static_assert(sizeof(PageIdentity) == 40, "hashed as bytes: no padding");

// Pieces in a page of this size: at least one.
constexpr uint32_t piece_count(Bytes page_size) {
  const uint64_t n = page_size / kPieceSize;
  return n == 0 ? 1 : static_cast<uint32_t>(n);
}
inline constexpr uint32_t kMaxPieces = piece_count(kPageSizeMax);

// The page's checksum from the digests of its pieces.
uint64_t page_checksum(std::span<const uint64_t> piece_digests, const PageIdentity& id);

// Digest of one piece: what DataOp::kChecksum computes. For tests and offline tools.
uint64_t piece_digest(std::span<const std::byte> piece);

uint64_t model_digest(const ModelId& model);
uint64_t text_fingerprint(std::span<const char> text);

}  // namespace kvmm
