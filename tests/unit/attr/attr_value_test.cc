// SPDX-License-Identifier: Apache-2.0
//
// Values of attributes: what is read, what is refused and why, and that writing and reading agree.
#include "runtime/base/attr_value.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

namespace kvmm {
namespace {

constexpr std::array<const char*, 3> kModes = {"normal", "running", "idle"};

constexpr AttrDef def_of(AttrType type) {
  AttrDef def = {.pattern = "a/b", .mode = AttrMode::kReadWrite, .type = type, .help = "test"};
  if (type == AttrType::kEnum) {
    def.choices = kModes;
  }
  return def;
}

uint64_t number(AttrType type, const char* text) {
  const Result<AttrValue> v = parse_value(def_of(type), text);
  EXPECT_TRUE(v.ok()) << text << ": " << (v.ok() ? "" : v.error().message());
  return v ? v->number : ~0ull;
}

Error refused(const AttrDef& def, std::string_view text) {
  const Result<AttrValue> v = parse_value(def, text);
  EXPECT_FALSE(v.ok()) << text;
  return v ? Error(Errc::kExists) : v.error();
}

TEST(AttrValue, ReadsBytes) {
  EXPECT_EQ(number(AttrType::kBytes, "0"), 0u);
  EXPECT_EQ(number(AttrType::kBytes, "4096"), 4096u);
  EXPECT_EQ(number(AttrType::kBytes, "4096B"), 4096u);
  EXPECT_EQ(number(AttrType::kBytes, "64K"), 65536u);
  EXPECT_EQ(number(AttrType::kBytes, "64k"), 65536u);
  EXPECT_EQ(number(AttrType::kBytes, "64 KiB"), 65536u);
  EXPECT_EQ(number(AttrType::kBytes, " 2MiB\n"), 2097152u);
  EXPECT_EQ(number(AttrType::kBytes, "1.5G"), 1610612736u);
  EXPECT_EQ(number(AttrType::kBytes, "0.5K"), 512u);
  EXPECT_EQ(number(AttrType::kBytes, "16T"), 16ull << 40);
  EXPECT_EQ(number(AttrType::kBytes, "18446744073709551615"), UINT64_MAX);
}

TEST(AttrValue, RefusesBytes) {
  const AttrDef def = def_of(AttrType::kBytes);
  for (const char* text : {"", "K", "-1", "+1", "1KB", "1MB", "1e3", "0x10", "1 2", "1.", ".5",
                           "1..5", "64K64", "lots", "1.3B", "0.0001K"}) {
    EXPECT_EQ(refused(def, text).code, Errc::kInvalid) << text;
  }
  EXPECT_EQ(refused(def, "18446744073709551616").code, Errc::kRange);
  EXPECT_EQ(refused(def, "16777216T").code, Errc::kRange);
  EXPECT_NE(refused(def, "64KB").detail.find("'KB'"), std::string::npos);
  EXPECT_NE(refused(def, "64KB").detail.find("KiB"), std::string::npos);
}

TEST(AttrValue, ReadsAndRefusesDurations) {
  EXPECT_EQ(number(AttrType::kDuration, "0"), 0u);
  EXPECT_EQ(number(AttrType::kDuration, "150us"), 150000u);
  EXPECT_EQ(number(AttrType::kDuration, "1.5ms"), 1500000u);
  EXPECT_EQ(number(AttrType::kDuration, "0.000000001s"), 1u);
  EXPECT_EQ(number(AttrType::kDuration, "2min"), 120000000000u);
  EXPECT_EQ(number(AttrType::kDuration, "1h"), 3600000000000u);
  const AttrDef def = def_of(AttrType::kDuration);
  for (const char* text : {"150", "", "us", "1m", "1 d", "0.5ns", "1.0000000001s", "-1s"}) {
    EXPECT_EQ(refused(def, text).code, Errc::kInvalid) << text;
  }
  EXPECT_EQ(refused(def, "99999999999h").code, Errc::kRange);
}

TEST(AttrValue, ReadsAndRefusesTheOtherTypes) {
  EXPECT_EQ(number(AttrType::kU64, "17"), 17u);
  for (const char* text : {"", "17 pages", "1.5", "0x11", "K", "1K"}) {
    EXPECT_EQ(refused(def_of(AttrType::kU64), text).code, Errc::kInvalid) << text;
  }
  for (const char* text : {"on", "true", "yes", "1", " on\n"}) {
    EXPECT_EQ(number(AttrType::kBool, text), 1u);
  }
  for (const char* text : {"off", "false", "no", "0"}) {
    EXPECT_EQ(number(AttrType::kBool, text), 0u);
  }
  EXPECT_EQ(refused(def_of(AttrType::kBool), "ON").code, Errc::kInvalid);
  EXPECT_EQ(refused(def_of(AttrType::kBool), "2").code, Errc::kInvalid);
  EXPECT_EQ(number(AttrType::kEnum, "idle"), 2u);
  const Error e = refused(def_of(AttrType::kEnum), "idel");
  EXPECT_EQ(e.code, Errc::kInvalid);
  EXPECT_NE(e.detail.find("normal|running|idle"), std::string::npos);
}

TEST(AttrValue, RefusesStringsThatWouldBreakALine) {
  const AttrDef string = def_of(AttrType::kString);
  const AttrDef text = def_of(AttrType::kText);
  EXPECT_EQ(parse_value(string, " a b ")->text, " a b ");
  EXPECT_EQ(parse_value(text, "a\nb\tc\n")->text, "a\nb\tc\n");
  EXPECT_EQ(refused(string, "a\nb").code, Errc::kInvalid);
  EXPECT_EQ(refused(string, std::string_view("a\0b", 3)).code, Errc::kInvalid);
  EXPECT_EQ(refused(text, "a\x1b[2J").code, Errc::kInvalid);
  EXPECT_TRUE(parse_value(string, std::string(kAttrStringMax, 'x')).ok());
  EXPECT_EQ(refused(string, std::string(kAttrStringMax + 1, 'x')).code, Errc::kRange);
  EXPECT_EQ(refused(text, std::string(kAttrTextMax + 1, 'x')).code, Errc::kRange);
}

TEST(AttrValue, NamesTheRangeThatWasMissed) {
  AttrDef def = def_of(AttrType::kBytes);
  def.min = 4096;
  def.max = 2 << 20;
  EXPECT_EQ(parse_value(def, "4K")->number, 4096u);
  EXPECT_EQ(parse_value(def, "2M")->number, 2u << 20);
  for (const char* text : {"4095", "2097153"}) {
    const Error e = refused(def, text);
    EXPECT_EQ(e.code, Errc::kRange);
    EXPECT_NE(e.detail.find("4KiB..2MiB"), std::string::npos) << e.detail;
  }
  EXPECT_EQ(range_text(def_of(AttrType::kBytes)), "any");
  def.max = kAttrNoMax;
  EXPECT_EQ(range_text(def), "4KiB..");
}

TEST(AttrValue, EchoesBadTextHarmlessly) {
  const Error e = refused(def_of(AttrType::kU64), "\x1b[2J" + std::string(500, 'x'));
  EXPECT_EQ(e.detail.find('\x1b'), std::string::npos);
  EXPECT_LT(e.detail.size(), 200u);
}

TEST(AttrValue, WrittenValuesReadBack) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const AttrType type : {AttrType::kU64, AttrType::kBytes, AttrType::kDuration}) {
    const AttrDef def = def_of(type);
    for (int i = 0; i < 20000; ++i) {
      // All magnitudes, many of them multiples of a unit.
      uint64_t v = random() >> (random() % 64);
      if (i % 3 == 0) {
        v = (v & 0xffff) << (10 * (random() % 4));
      } else if (i % 3 == 1) {
        v = (v & 0xffff) * 1000 * (random() % 2 == 0 ? 1 : 1000000);
      }
      const std::string text = format_value(def, AttrValue::of(v));
      const Result<AttrValue> back = parse_value(def, text);
      ASSERT_TRUE(back.ok()) << text << ": " << back.error().message();
      ASSERT_EQ(back->number, v) << text;
    }
  }
  EXPECT_EQ(format_bytes(65536), "64KiB");
  EXPECT_EQ(format_bytes(65537), "65537");
  EXPECT_EQ(format_bytes(0), "0");
  EXPECT_EQ(format_duration(150000), "150us");
  EXPECT_EQ(format_duration(90000000000), "90s");
  EXPECT_EQ(format_duration(1), "1ns");
}

TEST(AttrValue, AnyBytesAreAValueOrAnError) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::string_view kAlphabet =
      "0123456789.KMGTiBusnmh -\n\0\xff"
      "onf";
  for (int i = 0; i < 50000; ++i) {
    std::string text;
    for (uint64_t n = random() % 12; n-- > 0;) {
      text += kAlphabet[random() % kAlphabet.size()];
    }
    const AttrDef def = def_of(static_cast<AttrType>(random() % 7));
    const Result<AttrValue> v = parse_value(def, text);
    if (!v) {
      ASSERT_TRUE(v.code() == Errc::kInvalid || v.code() == Errc::kRange);
      ASSERT_FALSE(v.error().detail.empty());
    } else {
      ASSERT_EQ(*parse_value(def, format_value(def, *v)), *v) << text;
    }
  }
}

TEST(AttrDef, ValidationFindsEachMistake) {
  const auto code = [](AttrDef def) { return def.validate().code(); };
  const AttrDef good = def_of(AttrType::kBytes);
  EXPECT_EQ(code(good), Errc::kOk);
  AttrDef d = good;
  for (const char* pattern : {"", "/a", "a/", "a//b", "a/../b", "a/<x>", "a/<>/b", "a b"}) {
    d.pattern = pattern;
    EXPECT_EQ(code(d), Errc::kInvalid) << pattern;
  }
  d = good;
  d.help = "";
  EXPECT_EQ(code(d), Errc::kInvalid);
  d = good;
  d.min = 2;
  d.max = 1;
  EXPECT_EQ(code(d), Errc::kInvalid);
  d = good;
  d.choices = kModes;
  EXPECT_EQ(code(d), Errc::kInvalid);
  d = def_of(AttrType::kEnum);
  d.choices = {};
  EXPECT_EQ(code(d), Errc::kInvalid);
  d = good;
  d.fallback = "64KB";
  EXPECT_EQ(code(d), Errc::kInvalid);
  d.fallback = "(a quarter of the node)";
  EXPECT_EQ(code(d), Errc::kOk);
}

TEST(AttrDef, KnowsWhatMayStandInAConfigFile) {
  AttrDef d = def_of(AttrType::kU64);
  EXPECT_TRUE(d.configurable());
  d.config = AttrConfig::kNever;
  EXPECT_FALSE(d.configurable());
  d.mode = AttrMode::kReadOnly;
  d.config = AttrConfig::kByMode;
  EXPECT_FALSE(d.configurable());
  d.config = AttrConfig::kAtStart;
  EXPECT_TRUE(d.configurable());
}

TEST(AttrPath, MatchesPatterns) {
  EXPECT_TRUE(path_matches("tiers/<tier>/used", "tiers/dram.0/used"));
  EXPECT_FALSE(path_matches("tiers/<tier>/used", "tiers/dram/free"));
  EXPECT_FALSE(path_matches("tiers/<tier>/used", "tiers/used"));
  EXPECT_FALSE(path_matches("tiers/<tier>/used", "tiers//used"));
  EXPECT_FALSE(path_matches("tiers/<tier>/used", "tiers/a/b/used"));
  EXPECT_FALSE(path_matches("tiers/<tier>/used", "tiers/dram/used/"));
  EXPECT_FALSE(is_path_component(std::string_view("a\0b", 3)));
  EXPECT_FALSE(is_path_component(std::string(256, 'a')));
}

TEST(AttrPath, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> names = {"watermark_low", "watermark_high", "used"};
  EXPECT_EQ(nearest_name("watermark_lo", names), "watermark_low");
  EXPECT_EQ(nearest_name("watermark_hgih", names), "watermark_high");
  EXPECT_EQ(nearest_name("usde", names), "used");
  EXPECT_EQ(nearest_name("zzzzzzz", names), "");
  EXPECT_EQ(nearest_name(std::string(100000, 'u'), names), "");
}

TEST(AttrPath, OrdersNumbersByValue) {
  EXPECT_LT(compare_names("2", "10"), 0);
  EXPECT_LT(compare_names("node2x", "node10"), 0);
  EXPECT_GT(compare_names("b", "a10"), 0);
  EXPECT_EQ(compare_names("dram0", "dram0"), 0);
  EXPECT_NE(compare_names("01", "1"), 0);
  EXPECT_LT(compare_names("0", "00"), 0);
  EXPECT_LT(compare_names("a", "ab"), 0);
  EXPECT_LT(compare_names("99999999999999999999998", "99999999999999999999999"), 0);
}

}  // namespace
}  // namespace kvmm
