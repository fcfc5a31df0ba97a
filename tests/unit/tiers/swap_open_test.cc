// SPDX-License-Identifier: Apache-2.0
//
// Opening areas: what is taken, what is refused, and that a refusal writes nothing.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>

#include "tests/unit/tiers/memory_devices.h"
#include "tiers/swap_area.h"

namespace kvmm {
namespace {

constexpr uint64_t kCapacity = 256 * kKiB;

SwapAreaConfig config_of() {
  SwapAreaConfig c;
  c.name = "swap0";
  c.path = "/var/lib/kvmm/swap0";
  c.unit = Bytes(512);
  c.extent = kib(8);
  c.uuid.fill(7);
  return c;
}

ModelId model(uint8_t b) {
  ModelId m;
  m.fill(b);
  return m;
}

Superblock on(const MemoryDisk& disk) {
  std::array<std::byte, 4096> bytes;
  std::memcpy(bytes.data(), disk.bytes.data(), 4096);
  auto s = decode_superblock(bytes);
  EXPECT_TRUE(s.ok());
  return s ? *s : Superblock{};
}

// Opening must fail with `code` and leave every byte as it was.
void expect_refused(MemoryDisk& disk, const SwapAreaConfig& config, Errc code) {
  const std::vector<std::byte> before = disk.bytes;
  const auto area = SwapArea::open(disk, config);
  EXPECT_EQ(area.code(), code) << (area.ok() ? "" : area.error().message());
  EXPECT_EQ(disk.bytes, before);
  EXPECT_EQ(disk.writes, 0);
}

TEST(SwapOpen, ZerosAreFormatted) {
  MemoryDisk disk(kCapacity);
  const auto area = SwapArea::open(disk, config_of());
  ASSERT_TRUE(area.ok()) << area.error().message();
  EXPECT_EQ(disk.writes, 1);
  EXPECT_EQ(disk.flushes, 1);
  const Superblock s = on(disk);
  EXPECT_EQ(s.uuid, config_of().uuid);
  EXPECT_EQ(s.epoch, 1U);
  EXPECT_LE(s.geometry.end(), kCapacity);
  EXPECT_EQ((*area)->capacity(), s.geometry.data_bytes());
  EXPECT_GT((*area)->capacity(), kib(200));
  (*area)->check_invariants();
}

TEST(SwapOpen, EveryOpeningIsAnEpoch) {
  MemoryDisk disk(kCapacity);
  SwapAreaConfig c = config_of();
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  c.uuid.fill(9);
  const auto area = SwapArea::open(disk, c);
  ASSERT_TRUE(area.ok());
  EXPECT_EQ(on(disk).epoch, 2U);
  EXPECT_EQ(on(disk).uuid, config_of().uuid) << "the area keeps its own";
  EXPECT_EQ((*area)->used_bytes(), Bytes(0));
}

TEST(SwapOpen, WaitsForALateDevice) {
  MemoryDisk disk(kCapacity);
  disk.late = true;
  disk.refuse_submits = 3;
  SwapAreaConfig c = config_of();
  int waits = 0;
  c.wait = [&] { ++waits; };
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  EXPECT_GE(waits, 3);
  EXPECT_GT(disk.polls, disk.reads);
}

TEST(SwapOpen, ForeignContentIsNeverOverwritten) {
  // At the start, in the first sectors, where file systems begin late, and at the very end.
  for (const uint64_t at :
       {uint64_t{0}, uint64_t{1080}, uint64_t{4096}, 65600 * uint64_t{1}, kCapacity - 1}) {
    MemoryDisk disk(kCapacity);
    disk.bytes[at] = std::byte{0x53};
    expect_refused(disk, config_of(), Errc::kInvalid);
    const auto area = SwapArea::open(disk, config_of());
    EXPECT_NE(area.error().detail.find("use a new file"), std::string::npos)
        << area.error().message();
  }
}

TEST(SwapOpen, TailOfALargeDeviceIsLookedAt) {
  MemoryDisk disk(4 * kMiB);
  disk.bytes[4 * kMiB - 65536] = std::byte{1};  // an old RAID superblock
  expect_refused(disk, config_of(), Errc::kInvalid);
}

TEST(SwapOpen, ForceFormatsForeignContent) {
  MemoryDisk disk(kCapacity);
  std::fill(disk.bytes.begin(), disk.bytes.end(), std::byte{0x42});
  SwapAreaConfig c = config_of();
  c.force_format = true;
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  EXPECT_EQ(on(disk).epoch, 1U);
}

TEST(SwapOpen, DamagedSuperblockIsCorrupt) {
  MemoryDisk disk(kCapacity);
  ASSERT_TRUE(SwapArea::open(disk, config_of()).ok());
  disk.writes = 0;
  for (const size_t at :
       {size_t{8}, size_t{12}, size_t{16}, size_t{24}, size_t{80}, size_t{100}, size_t{4095}}) {
    disk.bytes[at] ^= std::byte{0x10};
    expect_refused(disk, config_of(), Errc::kCorrupt);
    disk.bytes[at] ^= std::byte{0x10};
  }
  disk.bytes[0] ^= std::byte{1};
  expect_refused(disk, config_of(), Errc::kInvalid);  // not ours any more, and not empty
  SwapAreaConfig c = config_of();
  c.force_format = true;
  EXPECT_TRUE(SwapArea::open(disk, c).ok());
}

TEST(SwapOpen, AnotherVersionIsRefused) {
  MemoryDisk disk(kCapacity);
  ASSERT_TRUE(SwapArea::open(disk, config_of()).ok());
  disk.writes = 0;
  disk.bytes[12] = std::byte{9};
  std::memset(disk.bytes.data() + 16, 0, 8);
  const uint64_t sum = XXH3_64bits(disk.bytes.data(), 4096);
  std::memcpy(disk.bytes.data() + 16, &sum, 8);
  expect_refused(disk, config_of(), Errc::kVersion);
}

TEST(SwapOpen, ModelsDoNotMix) {
  MemoryDisk disk(kCapacity);
  SwapAreaConfig c = config_of();
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  c.model_id = model(1);
  ASSERT_TRUE(SwapArea::open(disk, c).ok()) << "an area of no model is dedicated now";
  EXPECT_EQ(on(disk).model_id, model(1));
  c.model_id = model(2);
  disk.writes = 0;
  expect_refused(disk, c, Errc::kModelMismatch);
  c.model_id = ModelId{};
  auto area = SwapArea::open(disk, c);
  ASSERT_TRUE(area.ok());
  EXPECT_EQ((*area)->model_id(), model(1)) << "it stays dedicated";
  c.model_id = model(2);
  c.force_format = true;
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  EXPECT_EQ(on(disk).model_id, model(2));
}

TEST(SwapOpen, DeviceErrorsAreTyped) {
  MemoryDisk disk(kCapacity);
  disk.os_error = 5;
  disk.fail_read = Errc::kIo;
  auto r = SwapArea::open(disk, config_of());
  EXPECT_EQ(r.code(), Errc::kIo);
  EXPECT_EQ(r.error().os_error, 5);
  disk.fail_read = Errc::kOk;
  disk.fail_write = Errc::kNoSpace;
  EXPECT_EQ(SwapArea::open(disk, config_of()).code(), Errc::kNoSpace);
  disk.fail_write = Errc::kOk;
  disk.fail_flush = Errc::kDeviceGone;
  EXPECT_EQ(SwapArea::open(disk, config_of()).code(), Errc::kDeviceGone);
}

TEST(SwapOpen, EmptyFileGrowsToItsSize) {
  MemoryDisk disk(0);
  SwapAreaConfig c = config_of();
  expect_refused(disk, c, Errc::kInvalid);
  c.size = Bytes(kCapacity);
  expect_refused(disk, c, Errc::kNotSupported);
  disk.grows = true;
  ASSERT_TRUE(SwapArea::open(disk, c).ok());
  EXPECT_EQ(disk.bytes.size(), kCapacity);
}

TEST(SwapOpen, SizeLimitsOrGrows) {
  MemoryDisk disk(kCapacity);
  SwapAreaConfig c = config_of();
  c.size = Bytes(kCapacity / 2);
  auto area = SwapArea::open(disk, c);
  ASSERT_TRUE(area.ok());
  EXPECT_LE((*area)->superblock().geometry.end(), kCapacity / 2);
  c.size = Bytes(kCapacity * 2);
  disk.writes = 0;
  expect_refused(disk, c, Errc::kInvalid);
  disk.grows = true;
  area = SwapArea::open(disk, c);
  ASSERT_TRUE(area.ok());
  EXPECT_GT((*area)->capacity(), Bytes(kCapacity));
}

TEST(SwapOpen, ForeignContentIsNotEvenGrown) {
  MemoryDisk disk(kCapacity);
  disk.bytes[9] = std::byte{1};
  disk.grows = true;
  SwapAreaConfig c = config_of();
  c.size = Bytes(kCapacity * 2);
  expect_refused(disk, c, Errc::kInvalid);
}

TEST(SwapOpen, ConfigIsChecked) {
  const auto refused = [](auto change) {
    MemoryDisk disk(kCapacity);
    SwapAreaConfig c = config_of();
    change(c, disk);
    expect_refused(disk, c, Errc::kInvalid);
  };
  refused([](auto& c, auto&) { c.name = ""; });
  refused([](auto& c, auto&) { c.index_buffers = 0; });
  refused([](auto& c, auto&) { c.index_buffers = 100000; });
  refused([](auto& c, auto&) { c.unit = Bytes(0); });
  refused([](auto& c, auto&) { c.extent = Bytes(3000); });
  refused([](auto& c, auto&) { c.unit = Bytes(256); });  // the disk wants 512
  refused([](auto& c, auto&) { c.extent = kib(256); });  // not one fits
  refused([](auto&, auto& d) { d.length_max = Bytes(512); });
  refused([](auto&, auto& d) { d.bytes.resize(2048); });
  MemoryDisk coarse(kCapacity, 8192);
  expect_refused(coarse, config_of(), Errc::kInvalid);
}

}  // namespace
}  // namespace kvmm
