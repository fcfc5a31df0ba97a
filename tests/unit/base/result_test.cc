// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>
#include <string>

namespace kvmm {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) {
    return Error(Errc::kInvalid, "an odd number");
  }
  return n / 2;
}

TEST(Result, HoldsAValueOrAnError) {
  Result<int> good = half(8);
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(static_cast<bool>(good));
  EXPECT_EQ(*good, 4);
  EXPECT_EQ(good.code(), Errc::kOk);

  Result<int> bad = half(7);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.code(), Errc::kInvalid);
  EXPECT_EQ(bad.error().detail, "an odd number");
}

TEST(Result, MovesValuesThatCannotBeCopied) {
  Result<std::unique_ptr<int>> r(std::make_unique<int>(5));
  ASSERT_TRUE(r);
  EXPECT_EQ(**r, 5);
  std::unique_ptr<int> p = *std::move(r);
  EXPECT_EQ(*p, 5);
  Result<std::string> s(std::string("abc"));
  EXPECT_EQ(s->size(), 3U);
}

TEST(Result, VoidIsGoodUnlessToldOtherwise) {
  Result<void> good;
  EXPECT_TRUE(good);
  EXPECT_EQ(good.code(), Errc::kOk);
  Result<void> bad = Errc::kIo;
  EXPECT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::kIo);
  EXPECT_TRUE(Result<void>(Errc::kOk));
}

TEST(Result, MessagesHaveNameTextAndErrno) {
  EXPECT_EQ(Error(Errc::kCorrupt).text(), "the bytes do not match their checksum");
  EXPECT_EQ(Error(Errc::kNoSpace, "swap0 is full").text(), "swap0 is full");
  EXPECT_EQ(Error(Errc::kCorrupt).message(), "corrupt: the bytes do not match their checksum");
  EXPECT_EQ(Error(Errc::kIo, EIO).message(),
            "io: the device reported an error (errno 5: Input/output error)");
  EXPECT_EQ(Error(Errc::kNoSpace, "swap0 is full", ENOSPC).message(),
            "no_space: swap0 is full (errno 28: No space left on device)");
}

TEST(Result, EveryCodeHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int32_t i = 0; i <= static_cast<int32_t>(Errc::kDeviceGone); ++i) {
    EXPECT_TRUE(names.insert(errc_name(static_cast<Errc>(i))).second) << i;
    EXPECT_STRNE(errc_text(static_cast<Errc>(i)), "unknown error") << i;
  }
  EXPECT_STREQ(errc_name(static_cast<Errc>(1000)), "unknown");
  EXPECT_STREQ(errc_name(static_cast<Errc>(-1)), "unknown");
}

}  // namespace
}  // namespace kvmm
