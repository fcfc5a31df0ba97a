// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/units.h"

#include <gtest/gtest.h>

#include <type_traits>

namespace kvmm {
namespace {

// A quantity of one kind is never taken for another.
static_assert(!std::is_convertible_v<Vpn, Pfn>);
static_assert(!std::is_constructible_v<Vpn, Pfn>);
static_assert(!std::is_convertible_v<uint64_t, Bytes>);
static_assert(!std::is_convertible_v<VirtAddr, FrameAddr>);
static_assert(sizeof(Vpn) == 4 && sizeof(Bytes) == 8 && sizeof(TierId) == 2);

TEST(Units, AmountsAddUp) {
  Bytes b = kib(4) + kib(4);
  EXPECT_EQ(b, Bytes(8192));
  b += mib(1);
  b -= kib(8);
  EXPECT_EQ(b, mib(1));
  EXPECT_EQ(kib(64) * 3, kib(192));
  EXPECT_EQ(mib(2) / kib(64), 32U);
  EXPECT_EQ(gib(1).value(), uint64_t{1} << 30);
  EXPECT_LT(micros(999), millis(1));
  EXPECT_EQ(micros(1000), millis(1));
  EXPECT_EQ(millis(1).value(), 1'000'000U);
}

TEST(Units, IncrementCountsOne) {
  Vpn v(7);
  EXPECT_EQ((++v).value(), 8U);
}

TEST(Units, AddressesDifferByBytes) {
  const VirtAddr a(0x1000);
  EXPECT_EQ(a + kib(4), VirtAddr(0x2000));
  EXPECT_EQ(VirtAddr(0x3000) - a, kib(8));
  EXPECT_EQ(FrameAddr(0x3000) - (FrameAddr(0x1000) + kib(4)), kib(4));
}

TEST(Units, PageSizesArePowersOfTwoFromFourKibToTwoMib) {
  EXPECT_FALSE(is_page_size(kib(2)));
  EXPECT_TRUE(is_page_size(kib(4)));
  EXPECT_FALSE(is_page_size(kib(12)));
  EXPECT_TRUE(is_page_size(kib(64)));
  EXPECT_TRUE(is_page_size(mib(2)));
  EXPECT_FALSE(is_page_size(mib(4)));
  EXPECT_FALSE(is_page_size(Bytes(0)));
}

TEST(Units, RoundsToAnyUnit) {
  EXPECT_EQ(round_up(0, 4096), 0U);
  EXPECT_EQ(round_up(1, 4096), 4096U);
  EXPECT_EQ(round_up(4096, 4096), 4096U);
  EXPECT_EQ(round_up(10, 3), 12U);
  EXPECT_EQ(round_down(4097, 4096), 4096U);
  EXPECT_EQ(round_down(4095, 4096), 0U);
}

TEST(Units, RangesAreHalfOpen) {
  const AddressRange r{VirtAddr(100), Bytes(10)};
  EXPECT_EQ(r.end(), VirtAddr(110));
  EXPECT_FALSE(r.contains(VirtAddr(99)));
  EXPECT_TRUE(r.contains(VirtAddr(100)));
  EXPECT_TRUE(r.contains(VirtAddr(109)));
  EXPECT_FALSE(r.contains(VirtAddr(110)));
}

}  // namespace
}  // namespace kvmm
