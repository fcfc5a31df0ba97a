// SPDX-License-Identifier: Apache-2.0
//
// Config lines and the config directory: each error names file and line, and what `kvctl get -r`
// prints can be read back.
#include "runtime/control/config.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "runtime/control/config_line.h"
#include "tests/control/fake_runtime.h"
#include "tests/control/temp_dir.h"

namespace kvmm {
namespace {

using test::FakeRuntime;
using test::TempDir;

std::string value_of(std::string_view line) {
  const auto r = parse_config_line(line);
  return !r ? std::string("!") + errc_name(r.code()) : !*r ? "-" : (*r)->path + "|" + (*r)->value;
}

TEST(ConfigLine, Reads) {
  EXPECT_EQ(value_of("a/b = 64K"), "a/b|64K");
  EXPECT_EQ(value_of("  a/b=64K\t# why\r"), "a/b|64K");
  EXPECT_EQ(value_of("a = x#y"), "a|x#y");
  EXPECT_EQ(value_of("a = x = y"), "a|x = y");
  EXPECT_EQ(value_of("a ="), "a|");
  EXPECT_EQ(value_of("a = # nothing"), "a|");
  EXPECT_EQ(value_of("a = \" x # \\\"y\\\" \\x1b\\n\" # why"), std::string("a| x # \"y\" \x1b\n"));
  for (const char* nothing : {"", "   ", "# a = b", "\t#"}) {
    EXPECT_EQ(value_of(nothing), "-");
  }
  for (const char* bad : {"a", "= 5", "a = \"x", "a = \"x\" y", "a = \"\\q\"", "a = \"\\x1\"",
                          "a = \"\\", "a = \x1b", "a = \"\\xzz\""}) {
    EXPECT_EQ(value_of(bad), "!invalid") << bad;
  }
}

TEST(ConfigLine, WhateverIsWrittenReadsBack) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::string_view kAlphabet = "a #\"\\=\n\t\r\x01\x7f\xff";
  for (int i = 0; i < 20000; ++i) {
    std::string value;
    for (uint64_t n = random() % 8; n-- > 0;) {
      value += i % 2 == 0 ? kAlphabet[random() % kAlphabet.size()] : static_cast<char>(random());
    }
    const std::string line = format_config_line("a/b", value);
    const auto back = parse_config_line(line);
    ASSERT_TRUE(back.ok() && *back) << line;
    ASSERT_EQ((*back)->value, value) << line;
  }
}

struct ConfigTest : ::testing::Test {
  TempDir dir;
  FakeRuntime runtime;

  // Loads and applies; the error's text without the directory, or "".
  std::string outcome(Errc expected = Errc::kOk) {
    Result<Config> config = Config::load(dir.path(), true);
    const Result<void> applied = config ? config->apply(runtime.tree()) : Result<void>();
    const Error* error = !config ? &config.error() : !applied ? &applied.error() : nullptr;
    EXPECT_EQ(error == nullptr ? Errc::kOk : error->code, expected);
    if (error == nullptr) {
      return "";
    }
    EXPECT_TRUE(error->detail.starts_with(dir.path() + "/")) << error->detail;
    return error->detail.substr(std::min(error->detail.size(), dir.path().size() + 1));
  }
};

TEST_F(ConfigTest, AppliesFilesInOrderAndTheLastLineWins) {
  dir.write("20-b.conf", "tiers/dram/watermark_low = 32M # b");
  dir.write("10-a.conf", "# a\n\ntiers/dram/watermark_low = 8M\nsched/readahead_max = 0\n");
  dir.write("30-c.config", "nonsense");
  dir.write(".hidden.conf", "nonsense");
  EXPECT_EQ(outcome(), "");
  EXPECT_EQ(runtime.watermark_low(), 32u << 20);
  EXPECT_EQ(*runtime.tree().get("sched/readahead_max"), "0");
}

TEST_F(ConfigTest, EachErrorNamesFileAndLine) {
  const struct {
    const char* line;
    Errc code;
    const char* text;
  } kCases[] = {
      {"tiers/dram/watermark_lo = 8M", Errc::kNotFound,
       "no attribute or directory 'watermark_lo' in tiers/dram; did you mean "
       "'tiers/dram/watermark_low'?"},
      {"tiers/dram/watermark_low = 8MB", Errc::kInvalid, "unknown unit 'MB'"},
      {"tiers/dram/watermark_low = 8T", Errc::kRange, "'8T' is outside 4MiB..256MiB"},
      {"tiers/dram/used = 8M", Errc::kPermission, "tiers/dram/used: is read-only"},
      {"sessions/1/advice = idle", Errc::kPermission, "cannot stand in a config file"},
      {"tiers/dram/watermark_low", Errc::kInvalid, "'path = value' is needed"},
      {"version = \"1", Errc::kInvalid, "the quote is not closed"},
  };
  for (const auto& c : kCases) {
    dir.write("x.conf", std::string("# first\n\n") + c.line + "\n");
    const std::string text = outcome(c.code);
    EXPECT_TRUE(text.starts_with("x.conf:3: ")) << text;
    EXPECT_NE(text.find(c.text), std::string::npos) << text;
    EXPECT_EQ(runtime.watermark_low(), 16u << 20);
  }
}

TEST_F(ConfigTest, HostileFilesAreTypedErrors) {
  ASSERT_EQ(mkfifo(dir.file("fifo.conf").c_str(), 0600), 0);
  EXPECT_EQ(outcome(Errc::kInvalid), "fifo.conf: is not a regular file");
  unlink(dir.file("fifo.conf").c_str());
  dir.write("big.conf", std::string(kConfigFileMax + 1, '#'));
  EXPECT_EQ(outcome(Errc::kLimit), "big.conf: is larger than 1 MiB");
  unlink(dir.file("big.conf").c_str());
  dir.write("nul.conf", std::string("a = b\0c", 7));
  EXPECT_EQ(outcome(Errc::kInvalid), "nul.conf:1: control characters are not accepted");
  unlink(dir.file("nul.conf").c_str());
  ASSERT_EQ(symlink("nowhere", dir.file("gone.conf").c_str()), 0);
  EXPECT_EQ(outcome(Errc::kNotFound), "gone.conf: cannot be read");
}

TEST_F(ConfigTest, ManyLinesOfOnePathStayCheap) {
  std::string text;
  for (int i = 0; i < 30000; ++i) {
    text += "sched/readahead_max = " + std::to_string(i) + "\n";
  }
  dir.write("a.conf", text);
  const Result<Config> config = Config::load(dir.path(), true);
  ASSERT_TRUE(config.ok());
  ASSERT_EQ(config->lines().size(), 1u);
  EXPECT_EQ(config->lines()[0].value, "29999");
  EXPECT_TRUE(config->lines()[0].where.ends_with("a.conf:30000"));
}

TEST_F(ConfigTest, LinesThatNeedEachOtherStandInAnyOrder) {
  // low <= high must hold after each step, as watermarks do it.
  static constexpr AttrDef kA = {.pattern = "pair/low", .mode = AttrMode::kReadWrite, .help = "t"};
  static constexpr AttrDef kB = {.pattern = "pair/high", .mode = AttrMode::kReadWrite, .help = "t"};
  uint64_t low = 10;
  uint64_t high = 20;
  const auto leaf = [&](const AttrDef& def, uint64_t& own) {
    return AttrLeaf{&def, [&own]() -> Result<AttrValue> { return AttrValue::of(own); },
                    [&](const AttrValue& v) -> Result<void> {
                      const uint64_t before = std::exchange(own, v.number);
                      if (low > high) {
                        own = before;
                        return Error(Errc::kRange, "low must not be above high");
                      }
                      return {};
                    }};
  };
  const AttrDir dir_of_pair = *runtime.tree().add("pair", {leaf(kA, low), leaf(kB, high)});
  dir.write("a.conf", "pair/low = 30\npair/high = 40\n");
  EXPECT_EQ(outcome(), "");
  EXPECT_EQ(low, 30u);
  dir.write("a.conf", "pair/high = 5\npair/low = 2\n");
  EXPECT_EQ(outcome(), "");
  EXPECT_EQ(high, 5u);
  dir.write("a.conf", "pair/low = 7\npair/high = 6\n");
  EXPECT_EQ(outcome(Errc::kRange), "a.conf:1: pair/low: low must not be above high");
}

TEST_F(ConfigTest, AbsentDirectories) {
  EXPECT_TRUE(Config::load(dir.file("none"), false).ok());
  EXPECT_EQ(Config::load(dir.file("none"), true).code(), Errc::kNotFound);
  dir.write("file", "");
  EXPECT_FALSE(Config::load(dir.file("file"), true).ok());
}

TEST_F(ConfigTest, TakesWhatIsNeededBeforeTheTreeStands) {
  static constexpr AttrDef kCapacity = {.pattern = "tiers/<tier>/capacity",
                                        .type = AttrType::kBytes,
                                        .min = 1,
                                        .help = "t",
                                        .config = AttrConfig::kAtStart};
  static constexpr AttrDef kUsed = {.pattern = "tiers/<tier>/used", .help = "t"};
  dir.write("a.conf",
            "tiers/node10/capacity = 1G\ntiers/node2/capacity = 2G\nsched/readahead_max = 4K\n");
  Config config = *Config::load(dir.path(), true);
  const auto taken = config.take(kCapacity);
  ASSERT_TRUE(taken.ok());
  ASSERT_EQ(taken->size(), 2u);
  EXPECT_EQ((*taken)[0].path, "tiers/node2/capacity");
  EXPECT_EQ((*taken)[0].value.number, 2ull << 30);
  EXPECT_TRUE((*taken)[0].where.ends_with("a.conf:2"));
  EXPECT_TRUE(config.take(kCapacity)->empty());
  EXPECT_TRUE(config.apply(runtime.tree()).ok());
  EXPECT_TRUE(config.lines().empty());

  dir.write("a.conf", "tiers/dram/capacity = 0\n");
  config = *Config::load(dir.path(), true);
  const auto bad = config.take(kCapacity);
  ASSERT_EQ(bad.code(), Errc::kRange);
  EXPECT_NE(bad.error().detail.find("a.conf:1: tiers/dram/capacity: '0' is outside"),
            std::string::npos)
      << bad.error().detail;
  dir.write("a.conf", "tiers/dram/used = 0\n");
  config = *Config::load(dir.path(), true);
  EXPECT_EQ(config.take(kUsed).code(), Errc::kPermission);
}

TEST(ConfigDirectory, OptionThenVariableThenDefault) {
  unsetenv("KVMM_CONFIG");
  EXPECT_EQ(config_directory(nullptr), std::pair(std::string("/etc/kvmm"), false));
  setenv("KVMM_CONFIG", "/v", 1);
  EXPECT_EQ(config_directory(""), std::pair(std::string("/v"), true));
  EXPECT_EQ(config_directory("/o"), std::pair(std::string("/o"), true));
  unsetenv("KVMM_CONFIG");
}

}  // namespace
}  // namespace kvmm
