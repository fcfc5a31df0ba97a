// SPDX-License-Identifier: Apache-2.0
//
// What a swap area looks like on disk. The picture with every field is docs/formats/swap.md.
//
//   0          4 KiB              index_offset + units * 64      data_offset
//   +----------+------------------------------------+-- - - -----+--------+--------+-- - -
//   |superblock| header of unit 0 | unit 1 | ...    |  (padding) | unit 0 | unit 1 |
//   +----------+------------------------------------+-- - - -----+--------+--------+-- - -
//
// Nothing of ours lies inside the data: a page of 2 MiB is 2 MiB of it, aligned. The header of a
// slot stands at the index of the slot's first unit.
//
// Invariants
//   1. Magic, byte order marker and checksum lie at the same place and mean the same in every
//      version, so that damage and another version are told apart.
//   2. The check of a header depends on the area's uuid, its epoch and the header's place: a header
//      of another area, from before the area was opened anew, or at the wrong place does not pass.
//   3. What comes from disk is hostile: nothing is used before it has been checked.
//
// Thread safety: pure functions and values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "vmm/identity.h"

namespace kvmm {

inline constexpr uint32_t kSwapFormatVersion = 1;
inline constexpr Bytes kSuperblockSize = kib(4);
inline constexpr Bytes kIndexSectorSize = kib(4);  // unit of index write-back
inline constexpr uint32_t kSlotHeaderSize = 64;
inline constexpr uint32_t kHeadersPerSector = 64;
inline constexpr uint32_t kUnitsPerExtentMax = 512;

enum class SwapCodec : uint8_t { kNone = 0 };
enum class ChecksumKind : uint8_t { kNone = 0, kXxh3Pieces = 1 };  // vmm/identity.h

// ------------------------------------------------------------------------------------- slot header

// One header of the index. Little-endian, as in memory; a default one is all zeros: no page.
struct SlotHeader {
  static constexpr uint16_t kMagic = 0x534b;  // "KS"

  uint16_t magic = 0;  // 0: nothing is recorded here
  uint8_t format = 0;  // kSwapFormatVersion
  SwapCodec codec = SwapCodec::kNone;
  ChecksumKind checksum_kind = ChecksumKind::kNone;
  uint8_t page_shift = 0;  // log2 of the page's size
  uint16_t reserved = 0;
  uint32_t stored_bytes = 0;  // in the data area; the page's size unless a codec made it smaller
  uint32_t check = 0;         // of the other 60 bytes, see header_check
  PageIdentity identity;
  uint64_t checksum = 0;  // of the page, over its content and identity

  bool empty() const { return magic == 0; }
};
static_assert(sizeof(SlotHeader) == kSlotHeaderSize, "64 bytes on disk");
static_assert(offsetof(SlotHeader, identity) == 16 && offsetof(SlotHeader, checksum) == 56);

// `seed` is Superblock::header_seed() of the area, `unit` the header's place in the index.
uint32_t header_check(const SlotHeader& header, uint64_t seed, uint64_t unit);
// Errors: kNotFound (all zeros), kVersion (another format, codec or checksum, intact), kCorrupt.
Result<void> check_header(const SlotHeader& header, uint64_t seed, uint64_t unit);

// ------------------------------------------------------------------------------------- geometry

struct SwapGeometry {
  Bytes unit;    // smallest slot: 4 KiB; a power of two
  Bytes extent;  // given to one size class at a time: 2 MiB; unit * (1..512), a power of two
  uint64_t index_offset = 0;
  uint64_t data_offset = 0;
  uint64_t units = 0;  // a multiple of extent / unit

  Bytes data_bytes() const { return unit * units; }
  uint64_t end() const { return data_offset + data_bytes().value(); }
  uint64_t index_sectors() const { return (units + kHeadersPerSector - 1) / kHeadersPerSector; }
  // Errors: kCorrupt (it does not hang together).
  Result<void> validate() const;
  bool operator==(const SwapGeometry&) const = default;
};

// As many extents as fit into `capacity`. Errors: kInvalid (unit or extent; or not even one fits).
Result<SwapGeometry> lay_out(Bytes capacity, Bytes unit, Bytes extent);

// ------------------------------------------------------------------------------------- superblock

using AreaUuid = std::array<uint8_t, 16>;

struct Superblock {
  AreaUuid uuid{};
  ModelId model_id{};  // zeros: content of any model, of no use after exit
  uint64_t epoch = 0;  // counts openings: older headers do not pass their check
  SwapGeometry geometry;

  uint64_t header_seed() const;
};

using SuperblockBytes = std::span<std::byte, kSuperblockSize.value()>;
using ConstSuperblockBytes = std::span<const std::byte, kSuperblockSize.value()>;

void encode_superblock(const Superblock& superblock, SuperblockBytes out);
// Errors: kInvalid (no magic: not ours), kVersion (other version, other byte order), kCorrupt.
Result<Superblock> decode_superblock(ConstSuperblockBytes in);

bool is_zero(std::span<const std::byte> bytes);
inline bool is_zero(const ModelId& id) {
  return is_zero(std::as_bytes(std::span(id)));
}

}  // namespace kvmm
