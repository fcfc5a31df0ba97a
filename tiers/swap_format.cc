// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_format.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

namespace kvmm {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::array<char, 8> kMagic = {'K', 'V', 'M', 'M', 'S', 'W', 'A', 'P'};
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint32_t kByteOrderSwapped = 0x04030201;
constexpr uint64_t kCapacityMax = uint64_t{1} << 55;  // keeps every sum below 2^64

// The superblock as it lies on disk; the rest of the 4 KiB is zeros.
struct DiskSuperblock {
  std::array<char, 8> magic;
  uint32_t byte_order;
  uint32_t version;
  uint64_t checksum;  // XXH3-64 of the 4 KiB with this field zero
  AreaUuid uuid;
  ModelId model_id;
  uint64_t flags;  // 1: volatile (model_id is zeros)
  uint64_t epoch;
  uint64_t index_offset;
  uint64_t data_offset;
  uint64_t units;
  uint32_t unit_bytes;
  uint32_t extent_bytes;
  uint32_t header_bytes;
  uint32_t reserved;
};
static_assert(sizeof(DiskSuperblock) == 128);
static_assert(offsetof(DiskSuperblock, checksum) == 16);
static_assert(offsetof(DiskSuperblock, model_id) == 40);
static_assert(offsetof(DiskSuperblock, unit_bytes) == 112);

constexpr uint64_t kFlagVolatile = 1;

uint64_t superblock_checksum(ConstSuperblockBytes bytes) {
  std::array<std::byte, kSuperblockSize.value()> copy;
  std::copy(bytes.begin(), bytes.end(), copy.begin());
  std::fill_n(copy.begin() + offsetof(DiskSuperblock, checksum), sizeof(uint64_t), std::byte{0});
  return XXH3_64bits(copy.data(), copy.size());
}

bool valid_units(Bytes unit, Bytes extent) {
  return std::has_single_bit(unit.value()) && std::has_single_bit(extent.value()) &&
         unit.value() >= kSlotHeaderSize && extent >= unit && extent / unit <= kUnitsPerExtentMax &&
         extent.value() <= UINT32_MAX;
}

uint64_t data_offset_for(uint64_t units, Bytes extent) {
  const uint64_t index = round_up(units * kSlotHeaderSize, kIndexSectorSize.value());
  return round_up(kSuperblockSize.value() + index,
                  std::max(extent.value(), kIndexSectorSize.value()));
}

}  // namespace

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// ------------------------------------------------------------------------------------- slot header

uint32_t header_check(const SlotHeader& header, uint64_t seed, uint64_t unit) {
  std::array<std::byte, kSlotHeaderSize> bytes;
  std::memcpy(bytes.data(), &header, bytes.size());
  std::memset(bytes.data() + offsetof(SlotHeader, check), 0, sizeof header.check);
  // An odd factor: places that differ have seeds that differ.
  const uint64_t placed = seed + unit * 0x9e3779b97f4a7c15U;
  return static_cast<uint32_t>(XXH3_64bits_withSeed(bytes.data(), bytes.size(), placed));
}

Result<void> check_header(const SlotHeader& header, uint64_t seed, uint64_t unit) {
  if (is_zero(std::as_bytes(std::span(&header, 1)))) {
    return Errc::kNotFound;
  }
  if (header.magic != SlotHeader::kMagic || header.check != header_check(header, seed, unit)) {
    return Errc::kCorrupt;
  }
  if (header.format != kSwapFormatVersion || header.codec != SwapCodec::kNone ||
      header.checksum_kind != ChecksumKind::kXxh3Pieces) {
    return Errc::kVersion;
  }
  return {};
}

// ------------------------------------------------------------------------------------- geometry

Result<void> SwapGeometry::validate() const {
  const bool sound = valid_units(unit, extent) && units != 0 && units % (extent / unit) == 0 &&
                     units <= kCapacityMax / unit.value() && units <= kCapacityMax / 64 &&
                     index_offset == kSuperblockSize.value() &&
                     data_offset == data_offset_for(units, extent);
  if (!sound) {
    return Error(Errc::kCorrupt, "the superblock's sizes and offsets do not fit together");
  }
  return {};
}

Result<SwapGeometry> lay_out(Bytes capacity, Bytes unit, Bytes extent) {
  if (!valid_units(unit, extent)) {
    return Error(Errc::kInvalid,
                 "unit and extent must be powers of two, 1 to 512 units of at least 64 bytes");
  }
  SwapGeometry g;
  g.unit = unit;
  g.extent = extent;
  g.index_offset = kSuperblockSize.value();
  const uint64_t bytes = std::min(capacity.value(), kCapacityMax);
  const uint64_t per_extent = extent / unit;
  // An upper bound without padding, then down to what fits with it: at most a few steps.
  uint64_t extents = bytes / (extent.value() + per_extent * kSlotHeaderSize);
  extents = std::min<uint64_t>(extents, UINT32_MAX - 1);
  while (extents != 0 &&
         data_offset_for(extents * per_extent, extent) + extents * extent.value() > bytes) {
    --extents;
  }
  if (extents == 0) {
    return Error(Errc::kInvalid, "too small for a swap area: " + std::to_string(capacity.value()) +
                                     " bytes hold "
                                     "not one extent of " +
                                     std::to_string(extent.value()) + " and its index");
  }
  g.units = extents * per_extent;
  g.data_offset = data_offset_for(g.units, extent);
  return g;
}

// ------------------------------------------------------------------------------------- superblock

uint64_t Superblock::header_seed() const {
  return XXH3_64bits_withSeed(uuid.data(), uuid.size(), epoch);
}

void encode_superblock(const Superblock& superblock, SuperblockBytes out) {
  DiskSuperblock d{};
  d.magic = kMagic;
  d.byte_order = kByteOrder;
  d.version = kSwapFormatVersion;
  d.uuid = superblock.uuid;
  d.model_id = superblock.model_id;
  d.flags = is_zero(superblock.model_id) ? kFlagVolatile : 0;
  d.epoch = superblock.epoch;
  d.index_offset = superblock.geometry.index_offset;
  d.data_offset = superblock.geometry.data_offset;
  d.units = superblock.geometry.units;
  d.unit_bytes = static_cast<uint32_t>(superblock.geometry.unit.value());
  d.extent_bytes = static_cast<uint32_t>(superblock.geometry.extent.value());
  d.header_bytes = kSlotHeaderSize;
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(out.data(), &d, sizeof d);
  d.checksum = superblock_checksum(out);
  std::memcpy(out.data(), &d, sizeof d);
}

Result<Superblock> decode_superblock(ConstSuperblockBytes in) {
  DiskSuperblock d;
  std::memcpy(&d, in.data(), sizeof d);
  if (d.magic != kMagic) {
    return Error(Errc::kInvalid, "not a swap area");
  }
  if (d.byte_order == kByteOrderSwapped) {
    return Error(Errc::kVersion, "written by a machine of the other byte order");
  }
  if (d.byte_order != kByteOrder || d.checksum != superblock_checksum(in)) {
    return Error(Errc::kCorrupt, "the superblock does not match its checksum");
  }
  if (d.version != kSwapFormatVersion) {
    return Error(Errc::kVersion, "swap format version " + std::to_string(d.version) +
                                     "; this build reads " + std::to_string(kSwapFormatVersion));
  }
  Superblock s;
  s.uuid = d.uuid;
  s.model_id = d.model_id;
  s.epoch = d.epoch;
  s.geometry.unit = Bytes(d.unit_bytes);
  s.geometry.extent = Bytes(d.extent_bytes);
  s.geometry.index_offset = d.index_offset;
  s.geometry.data_offset = d.data_offset;
  s.geometry.units = d.units;
  const bool volatile_model = is_zero(d.model_id);
  if (d.header_bytes != kSlotHeaderSize || d.reserved != 0 ||
      d.flags != (volatile_model ? kFlagVolatile : 0)) {
    return Error(Errc::kCorrupt, "the superblock has fields that this version never writes");
  }
  if (Result<void> sound = s.geometry.validate(); !sound) {
    return sound.error();
  }
  return s;
}

}  // namespace kvmm
