// SPDX-License-Identifier: Apache-2.0
#include "drivers/options.h"

#include <gtest/gtest.h>

namespace kvmm {
namespace {

Options parse(const std::string& text) {
  auto o = Options::parse("disk", text, {"depth", "size", "flag", "rule"});
  EXPECT_TRUE(o.ok()) << o.error().message();
  return *o;
}

TEST(Options, ReadsNumbersBytesAndFlags) {
  const Options o = parse("depth=8,size=3M,flag=1,rule=a,rule=b");
  EXPECT_EQ(*o.number("depth", 1, 1, 10), 8u);
  EXPECT_EQ(*o.bytes("size", Bytes(0)), mib(3));
  EXPECT_TRUE(*o.flag("flag", false));
  EXPECT_EQ(o.all("rule"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(*parse("").number("depth", 7, 1, 10), 7u);
  EXPECT_EQ(*parse("depth=2,depth=3").number("depth", 1, 1, 10), 3u) << "the last counts";
}

TEST(Options, BytesHaveSuffixes) {
  EXPECT_EQ(parse("size=4096").bytes("size", Bytes(0))->value(), 4096u);
  EXPECT_EQ(parse("size=64K").bytes("size", Bytes(0))->value(), 64 * kKiB);
  EXPECT_EQ(parse("size=2G").bytes("size", Bytes(0))->value(), 2 * kGiB);
  EXPECT_EQ(parse("size=1T").bytes("size", Bytes(0))->value(), 1024 * kGiB);
}

TEST(Options, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"dpeth=8", "depth", "=8", ",", "depth=1,,size=2", " depth=8"}) {
    auto o = Options::parse("disk", text, {"depth", "size"});
    ASSERT_EQ(o.code(), Errc::kInvalid) << text;
    EXPECT_NE(o.error().detail.find("depth, size"), std::string::npos) << "says what there is";
  }
}

TEST(Options, RefusesBadValuesWithTheReason) {
  for (const char* text : {"depth=", "depth=x", "depth=-1", "depth=1.5", "depth=0", "depth=11",
                           "depth=99999999999999999999999", "depth= 3", "depth=0x3"}) {
    auto v = parse(text).number("depth", 1, 1, 10);
    ASSERT_EQ(v.code(), Errc::kInvalid) << text;
    EXPECT_NE(v.error().detail.find("from 1 to 10"), std::string::npos);
  }
  for (const char* text : {"size=", "size=K", "size=1k", "size=1KB", "size=-1",
                           "size=9223372036854775808", "size=9007199254740992T"}) {
    EXPECT_EQ(parse(text).bytes("size", Bytes(0)).code(), Errc::kInvalid) << text;
  }
  EXPECT_EQ(parse("flag=yes").flag("flag", false).code(), Errc::kInvalid);
}

}  // namespace
}  // namespace kvmm
