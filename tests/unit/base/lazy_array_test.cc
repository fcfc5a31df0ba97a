// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/lazy_array.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <utility>
#include <vector>

#include "runtime/base/units.h"

namespace kvmm {
namespace {

struct Entry {
  uint64_t a, b;
};

TEST(LazyArray, IsZeroUntilWritten) {
  Result<LazyArray<Entry>> made = LazyArray<Entry>::create(1000);
  ASSERT_TRUE(made);
  LazyArray<Entry> array = *std::move(made);
  EXPECT_EQ(array.size(), 1000U);
  for (size_t i = 0; i < array.size(); ++i) {
    ASSERT_EQ(array[i].a | array[i].b, 0U);
  }
  array[999].b = 5;
  const LazyArray<Entry>& view = array;
  EXPECT_EQ(view[999].b, 5U);
  EXPECT_EQ(view.data() + 999, &view[999]);
}

TEST(LazyArray, CommitsOnlyWhatIsTouched) {
  constexpr size_t kEntries = 64 * kMiB / sizeof(Entry);
  Result<LazyArray<Entry>> made = LazyArray<Entry>::create(kEntries);
  ASSERT_TRUE(made);
  LazyArray<Entry> array = *std::move(made);
  array[kEntries / 2].a = 1;
  // No huge pages may blur the figure: the array is asked page by page.
  std::vector<unsigned char> resident(64 * kMiB / 4096);
  ASSERT_EQ(mincore(array.data(), 64 * kMiB, resident.data()), 0);
  size_t pages = 0;
  for (const unsigned char r : resident) {
    pages += r & 1U;
  }
  EXPECT_GE(pages, 1U);
  EXPECT_LE(pages, 512U);  // one huge page at most
}

TEST(LazyArray, MovesItsMemory) {
  LazyArray<Entry> a = *LazyArray<Entry>::create(10);
  a[3].a = 7;
  LazyArray<Entry> b(std::move(a));
  EXPECT_EQ(b[3].a, 7U);
  LazyArray<Entry> c;
  EXPECT_EQ(c.size(), 0U);
  EXPECT_EQ(c.data(), nullptr);
  c = std::move(b);
  EXPECT_EQ(c.size(), 10U);
  EXPECT_EQ(c[3].a, 7U);
}

TEST(LazyArray, OfNothingIsEmpty) {
  Result<LazyArray<Entry>> none = LazyArray<Entry>::create(0);
  ASSERT_TRUE(none);
  EXPECT_EQ(none->size(), 0U);
}

TEST(LazyArray, SaysWhenThereIsNoRoom) {
  // 2^60 bytes are more than any address space has.
  EXPECT_EQ(LazyArray<Entry>::create(size_t{1} << 56).code(), Errc::kNoMemory);
}

TEST(LazyArrayDeathTest, StopsOutsideItsBounds) {
  LazyArray<Entry> a = *LazyArray<Entry>::create(10);
  EXPECT_DEATH(a[10].a = 1, "index inside the array: 10 .* against 10");
}

}  // namespace
}  // namespace kvmm
