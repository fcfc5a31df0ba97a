// SPDX-License-Identifier: Apache-2.0
//
// kvctl save and restore: all of a file or nothing of it.
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>

#include "runtime/control/config.h"
#include "tests/control/kvctl_fixture.h"

namespace kvmm {
namespace {

using test::FakeRuntime;
using test::KvctlTest;
using test::Outcome;
using test::read_file;
using test::TempDir;

class TuningTest : public KvctlTest {
 protected:
  TuningTest() { start("fake"); }
  std::string low() { return *runtime.tree().get("tiers/dram/watermark_low"); }
  std::string readahead() { return *runtime.tree().get("sched/readahead_max"); }
  Outcome restore(const std::string& text, const std::string& option = "") {
    dir.write("tuning", text);
    return run("restore " + option + " " + dir.file("tuning"));
  }
};

TEST_F(TuningTest, WhatIsSavedIsWhatCanBeTuned) {
  const std::string text = good("save");
  EXPECT_EQ(text,
            "# fake, kvmm 0.1.0: kvctl save\n"
            "sched/readahead_max = 2MiB\n"
            "tiers/dram/watermark_low = 16MiB\n");
  EXPECT_EQ(good("save -"), text);
  EXPECT_EQ(good("save " + dir.file("t.conf")), "");
  EXPECT_EQ(read_file(dir.file("t.conf")), text);
  EXPECT_EQ(good_json("save")["sched/readahead_max"], "2MiB");
  EXPECT_EQ(good_json("save " + dir.file("t.conf"))["attributes"], 2);
}

TEST_F(TuningTest, ASavedTuningComesBack) {
  good("set tiers/dram/watermark_low 8M");
  good("set sched/readahead_max 12345");
  good("save " + dir.file("t.conf"));
  good("set tiers/dram/watermark_low 9M");
  EXPECT_EQ(good("restore " + dir.file("t.conf")),
            "same     sched/readahead_max = 12345\n"
            "set      tiers/dram/watermark_low = 8MiB\n");
  EXPECT_EQ(low(), "8MiB");
  EXPECT_EQ(readahead(), "12345");

  // The same file in a config directory.
  const TempDir conf;
  conf.write("50-tuned.conf", read_file(dir.file("t.conf")));
  FakeRuntime other;
  Result<Config> config = Config::load(conf.path(), true);
  ASSERT_TRUE(config.ok()) << config.error().message();
  ASSERT_TRUE(config->apply(other.tree()).ok());
  EXPECT_EQ(*other.tree().get("tiers/dram/watermark_low"), "8MiB");
}

TEST_F(TuningTest, OneBadLineChangesNothing) {
  const std::string good_line = "sched/readahead_max = 1M\n";
  const struct {
    const char* line;
    const char* text;
  } kCases[] = {{"tiers/dram/watermark_lo = 8M", "did you mean 'tiers/dram/watermark_low'?"},
                {"tiers/dram/watermark_low = 8T", "is outside 4MiB..256MiB"},
                {"tiers/dram/watermark_low = much", "is not accepted"},
                {"tiers/dram/watermark_low", "="},
                {"version = 2", "is read-only"},
                {"tiers/dram/watermark_low = \"8M", "quot"},
                {"\x01\x02 = 3", ""},
                {"= 3", ""}};
  for (const auto& c : kCases) {
    for (const bool first : {true, false}) {
      const std::string bad = std::string(c.line) + "\n";
      const Outcome o = restore(first ? bad + good_line : good_line + bad);
      EXPECT_EQ(o.status, 1) << c.line;
      EXPECT_EQ(o.out, "") << c.line;
      EXPECT_NE(o.err.find(first ? "tuning:1: " : "tuning:2: "), std::string::npos) << o.err;
      EXPECT_NE(o.err.find(c.text), std::string::npos) << o.err;
      EXPECT_NE(o.err.find("nothing was changed"), std::string::npos) << o.err;
      EXPECT_EQ(readahead(), "2MiB") << c.line;
    }
  }
  // All that is wrong is said at once.
  const Outcome o = restore("a = 1\nb = 2\n" + good_line + "c = 3\n");
  for (const char* line : {"tuning:1:", "tuning:2:", "tuning:4:"}) {
    EXPECT_NE(o.err.find(line), std::string::npos) << o.err;
  }
}

// What the checks let pass and the setter refuses.
TEST_F(TuningTest, WhatTheSetterRefusesIsSetBack) {
  runtime.refuse_above(1 << 20);  // sched/readahead_max
  const std::string text = "tiers/dram/watermark_low = 8M\nsched/readahead_max = 32M\n";
  const Outcome o = restore(text);
  EXPECT_EQ(o.status, 1);
  EXPECT_NE(o.err.find("nothing was changed"), std::string::npos) << o.err;
  EXPECT_EQ(low(), "16MiB");
  EXPECT_EQ(readahead(), "2MiB");
  const nlohmann::json json =
      nlohmann::json::parse(run("--json restore " + dir.file("tuning")).out);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["lines"][0]["state"], "set back");
  EXPECT_EQ(json["lines"][1]["state"], "refused");
}

TEST_F(TuningTest, AValueMayWaitForAnotherLine) {
  runtime.refuse_above_low();  // readahead_max <= watermark_low, as watermarks have it
  const Outcome o = restore("sched/readahead_max = 32M\ntiers/dram/watermark_low = 64M\n");
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(readahead(), "32MiB");
  EXPECT_EQ(low(), "64MiB");
}

TEST_F(TuningTest, ChecksOnly) {
  const Outcome o = restore("sched/readahead_max = 1M\n", "--check");
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(o.out, "good     sched/readahead_max = 1M\n");
  EXPECT_EQ(readahead(), "2MiB");
  EXPECT_EQ(restore("sched/readahead_max = 1Q\n", "--check").status, 1);
}

TEST_F(TuningTest, TheLastLineOfAPathWins) {
  EXPECT_EQ(restore("sched/readahead_max = 9999T\nsched/readahead_max = 1M  # so\n").status, 0);
  EXPECT_EQ(readahead(), "1MiB");
  EXPECT_EQ(restore("").status, 0);
  EXPECT_EQ(restore("# only a comment\n\n").status, 0);
}

TEST_F(TuningTest, FilesThatCannotBe) {
  EXPECT_EQ(run("restore " + dir.file("none")).status, 1);
  EXPECT_EQ(run("restore " + dir.path()).status, 1);
  EXPECT_EQ(run("restore").status, 2);
  dir.write("huge", std::string(2 << 20, '#'));
  EXPECT_NE(run("restore " + dir.file("huge")).err.find("larger than 1 MiB"), std::string::npos);
  EXPECT_EQ(run("save " + dir.file("none/t.conf")).status, 1);
  EXPECT_EQ(run("save /dev/full").status, 1);
  EXPECT_EQ(run("save", ">/dev/full").status, 1);
  // What was there stays if the new one cannot be written; nothing else is left behind.
  ASSERT_EQ(mkdir(dir.file("d").c_str(), 0700), 0);
  good("save " + dir.file("d/t.conf"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.file("d")),
                          std::filesystem::directory_iterator()),
            1);
  struct stat st {};
  ASSERT_EQ(stat(dir.file("d/t.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0644u & ~022u);
  EXPECT_EQ(run("restore -", "<" + dir.file("d/t.conf")).status, 0);
}

TEST_F(TuningTest, ARuntimeThatIsGoneIsSaid) {
  dir.write("tuning", "sched/readahead_max = 1M\n");
  servers.clear();
  EXPECT_EQ(run("restore " + dir.file("tuning")).status, 3);
  EXPECT_EQ(run("save").status, 3);
}

}  // namespace
}  // namespace kvmm
