// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_format.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <vector>

namespace kvmm {
namespace {

using Sector = std::array<std::byte, 4096>;

Superblock example() {
  Superblock s;
  for (size_t i = 0; i < s.uuid.size(); ++i) {
    s.uuid[i] = static_cast<uint8_t>(i + 1);
  }
  s.model_id.fill(0x5a);
  s.epoch = 7;
  s.geometry = *lay_out(mib(64), kPageSizeMin, kPageSizeMax);
  return s;
}

Sector encoded(const Superblock& s) {
  Sector bytes;
  encode_superblock(s, bytes);
  return bytes;
}

// Puts a value at an offset and makes the checksum right again: what a hostile writer can do.
template <class T>
Sector forged(size_t offset, T value) {
  Sector bytes = encoded(example());
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  std::memset(bytes.data() + 16, 0, 8);
  const uint64_t sum = XXH3_64bits(bytes.data(), bytes.size());
  std::memcpy(bytes.data() + 16, &sum, 8);
  return bytes;
}

SlotHeader header_example(uint64_t seed, uint64_t unit) {
  SlotHeader h;
  h.magic = SlotHeader::kMagic;
  h.format = kSwapFormatVersion;
  h.checksum_kind = ChecksumKind::kXxh3Pieces;
  h.page_shift = 16;
  h.stored_bytes = 65536;
  h.identity = PageIdentity{1, 2, 3, 4, 5, 6};
  h.checksum = 0x0123456789abcdef;
  h.check = header_check(h, seed, unit);
  return h;
}

TEST(SwapFormat, SuperblockRoundTrip) {
  const Superblock s = example();
  const auto back = decode_superblock(encoded(s));
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->uuid, s.uuid);
  EXPECT_EQ(back->model_id, s.model_id);
  EXPECT_EQ(back->epoch, 7U);
  EXPECT_EQ(back->geometry, s.geometry);
}

TEST(SwapFormat, FieldsLieWhereTheDocumentSays) {
  const Sector b = encoded(example());
  EXPECT_EQ(std::memcmp(b.data(), "KVMMSWAP", 8), 0);
  const auto at = [&](size_t offset, auto type) {
    std::memcpy(&type, b.data() + offset, sizeof type);
    return type;
  };
  EXPECT_EQ(at(8, uint32_t{}), 0x01020304U);
  EXPECT_EQ(at(12, uint32_t{}), 1U);
  EXPECT_EQ(b[24], std::byte{1});     // uuid
  EXPECT_EQ(b[40], std::byte{0x5a});  // model_id
  EXPECT_EQ(at(72, uint64_t{}), 0U);  // not volatile
  EXPECT_EQ(at(80, uint64_t{}), 7U);
  EXPECT_EQ(at(88, uint64_t{}), 4096U);
  EXPECT_EQ(at(96, uint64_t{}), 2 * kMiB);
  EXPECT_EQ(at(104, uint64_t{}), 31U * 512);
  EXPECT_EQ(at(112, uint32_t{}), 4096U);
  EXPECT_EQ(at(116, uint32_t{}), 2 * kMiB);
  EXPECT_EQ(at(120, uint32_t{}), 64U);
  EXPECT_TRUE(is_zero(std::span(b).subspan(124)));
}

TEST(SwapFormat, EveryFlippedBitOfTheSuperblockIsSeen) {
  const Sector good = encoded(example());
  for (size_t byte = 0; byte < 4096; byte += byte < 160 ? 1 : 61) {
    for (int bit = 0; bit < 8; ++bit) {
      Sector bad = good;
      bad[byte] ^= static_cast<std::byte>(1 << bit);
      const auto r = decode_superblock(bad);
      ASSERT_EQ(r.code(), byte < 8 ? Errc::kInvalid : Errc::kCorrupt) << byte << " bit " << bit;
    }
  }
}

TEST(SwapFormat, IntactButNotForUs) {
  EXPECT_EQ(decode_superblock(Sector{}).code(), Errc::kInvalid);
  EXPECT_EQ(decode_superblock(forged<uint32_t>(12, 2)).code(), Errc::kVersion);
  EXPECT_EQ(decode_superblock(forged<uint32_t>(12, 0)).code(), Errc::kVersion);
  EXPECT_EQ(decode_superblock(forged<uint32_t>(8, 0x04030201)).code(), Errc::kVersion);
  EXPECT_EQ(decode_superblock(forged<uint32_t>(8, 0)).code(), Errc::kCorrupt);
}

TEST(SwapFormat, SizesThatWouldLeadAstrayAreRefused) {
  EXPECT_TRUE(decode_superblock(forged<uint64_t>(80, UINT64_MAX)).ok()) << "any epoch will do";
  const std::vector<Sector> bad = {
      forged<uint64_t>(72, 1),                   // volatile with a model
      forged<uint64_t>(72, 2),                   // an unknown flag
      forged<uint64_t>(88, 0),                   // index over the superblock
      forged<uint64_t>(88, 8192),                //
      forged<uint64_t>(96, 4096),                // data over the index
      forged<uint64_t>(96, UINT64_MAX),          //
      forged<uint64_t>(104, 0),                  // no units
      forged<uint64_t>(104, 1),                  // not whole extents
      forged<uint64_t>(104, uint64_t{1} << 60),  // overflows
      forged<uint64_t>(104, UINT64_MAX - 511),   //
      forged<uint32_t>(112, 0),                  // units of no size
      forged<uint32_t>(112, 32),                 //
      forged<uint32_t>(112, 4095),               //
      forged<uint32_t>(116, 0),                  //
      forged<uint32_t>(116, 2048),               // extent below a unit
      forged<uint32_t>(116, 1U << 31),           // too many units
      forged<uint32_t>(120, 128),                //
      forged<uint32_t>(124, 1),                  //
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(decode_superblock(bad[i]).code(), Errc::kCorrupt) << "case " << i;
  }
}

TEST(SwapFormat, LayoutFitsAndIsNotWasteful) {
  for (const uint64_t unit : {uint64_t{256}, uint64_t{4096}}) {
    const uint64_t extent = unit * 16;
    for (uint64_t capacity = 0; capacity < 40 * extent; capacity += 512) {
      const auto g = lay_out(Bytes(capacity), Bytes(unit), Bytes(extent));
      if (!g) {
        ASSERT_EQ(g.code(), Errc::kInvalid);
        ASSERT_LT(capacity, 8192 + 2 * extent);
        continue;
      }
      ASSERT_TRUE(g->validate().ok());
      ASSERT_LE(g->end(), capacity);
      ASSERT_GE(g->data_offset, 4096 + g->units * 64);
      ASSERT_EQ(g->data_offset % extent, 0U);
      SwapGeometry more = *g;
      more.units += extent / unit;
      more.data_offset =
          round_up(4096 + round_up(more.units * 64, 4096), std::max<uint64_t>(extent, 4096));
      ASSERT_TRUE(more.validate().ok());
      ASSERT_GT(more.end(), capacity) << "one more extent would have fitted";
    }
  }
}

TEST(SwapFormat, LayoutOfAbsurdSizes) {
  EXPECT_EQ(lay_out(mib(64), Bytes(0), mib(2)).code(), Errc::kInvalid);
  EXPECT_EQ(lay_out(mib(64), kib(4), Bytes(0)).code(), Errc::kInvalid);
  EXPECT_EQ(lay_out(mib(64), kib(4), kib(2)).code(), Errc::kInvalid);
  EXPECT_EQ(lay_out(mib(64), kib(4), mib(4)).code(), Errc::kInvalid);
  EXPECT_EQ(lay_out(mib(64), Bytes(5000), mib(2)).code(), Errc::kInvalid);
  const auto huge = lay_out(Bytes(UINT64_MAX), kib(4), mib(2));
  ASSERT_TRUE(huge.ok());
  EXPECT_TRUE(huge->validate().ok());
}

TEST(SwapFormat, HeaderRoundTripThroughBytes) {
  const SlotHeader h = header_example(11, 32);
  std::array<std::byte, 64> bytes;
  std::memcpy(bytes.data(), &h, 64);
  SlotHeader back;
  std::memcpy(&back, bytes.data(), 64);
  EXPECT_TRUE(check_header(back, 11, 32).ok());
  EXPECT_EQ(back.identity, (PageIdentity{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(back.checksum, 0x0123456789abcdefU);
}

TEST(SwapFormat, EveryFlippedBitOfAHeaderIsSeen) {
  const SlotHeader good = header_example(11, 32);
  for (size_t bit = 0; bit < 512; ++bit) {
    std::array<unsigned char, 64> bytes;
    std::memcpy(bytes.data(), &good, 64);
    bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ (1U << (bit % 8)));
    SlotHeader bad;
    std::memcpy(&bad, bytes.data(), 64);
    ASSERT_EQ(check_header(bad, 11, 32).code(), Errc::kCorrupt) << "bit " << bit;
  }
}

TEST(SwapFormat, HeaderBelongsToItsAreaAndPlace) {
  const SlotHeader h = header_example(11, 32);
  EXPECT_EQ(check_header(h, 12, 32).code(), Errc::kCorrupt);
  EXPECT_EQ(check_header(h, 11, 33).code(), Errc::kCorrupt);
  EXPECT_EQ(check_header(SlotHeader{}, 11, 32).code(), Errc::kNotFound);
  Superblock a = example();
  Superblock b = a;
  ++b.epoch;
  EXPECT_NE(a.header_seed(), b.header_seed());
  b = a;
  b.uuid[15] ^= 1;
  EXPECT_NE(a.header_seed(), b.header_seed());
}

TEST(SwapFormat, IntactHeaderOfAnotherFormat) {
  const auto with = [](auto change) {
    SlotHeader h = header_example(1, 0);
    change(h);
    h.check = header_check(h, 1, 0);
    return check_header(h, 1, 0).code();
  };
  EXPECT_EQ(with([](SlotHeader& h) { h.format = 2; }), Errc::kVersion);
  EXPECT_EQ(with([](SlotHeader& h) { h.codec = static_cast<SwapCodec>(1); }), Errc::kVersion);
  EXPECT_EQ(with([](SlotHeader& h) { h.checksum_kind = ChecksumKind::kNone; }), Errc::kVersion);
  EXPECT_EQ(with([](SlotHeader& h) { h.magic = 1; }), Errc::kCorrupt);
}

}  // namespace
}  // namespace kvmm
