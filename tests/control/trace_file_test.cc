// SPDX-License-Identifier: Apache-2.0
//
// Recorded traces are hostile: every cut and every changed byte is read to its end or refused with
// its place. And what is made of events that are good.
#include "tools/kvctl/trace_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/base/trace_events.h"
#include "tests/control/temp_dir.h"
#include "tools/kvctl/trace_faults.h"

namespace kvmm::ctl {
namespace {

using test::TempDir;

const TraceSchema& schema() {
  static const TraceSchema kSchema(
      {{"fault_begin", {"session", "page", "address", "write", "kind"}},
       {"io_done", {"session", "page", "piece", "errc", "write"}},
       {"map", {"session", "page", "frame", "errc"}},
       {"fault_end", {"session", "page", "errc", "ns", "kind"}}});
  return kSchema;
}

struct TraceFileTest : ::testing::Test {
  TempDir dir;
  const std::string path = dir.file("t.trace");

  std::string written() {
    auto writer = TraceWriter::create(path, {.pid = 7, .name = "e\n\"x", .version = ""}, schema());
    EXPECT_TRUE(writer.ok());
    EXPECT_TRUE(writer->event({3, 1000, "fault_begin", {1, 17, 0x7f00, 1, 2}}).ok());
    EXPECT_TRUE(writer->event({4, 1500, "map", {1, 17, UINT64_MAX, 0}}).ok());
    EXPECT_TRUE(writer->lost(5).ok());
    EXPECT_TRUE(writer->event({10, 2500, "fault_end", {1, 17, 0, 1500, 2}}).ok());
    EXPECT_TRUE(writer->end().ok());
    return read();
  }
  std::string read() const {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  void write(const std::string& text) const { std::ofstream(path, std::ios::binary) << text; }

  struct Outcome {
    std::vector<TraceRow> rows;
    uint64_t lost = 0;
    std::string error;
    Errc code = Errc::kOk;
  };
  Outcome take() const {
    Outcome o;
    auto reader = TraceReader::open(path);
    if (!reader) {
      o.error = reader.error().detail;
      o.code = reader.code();
      return o;
    }
    while (true) {
      auto line = reader->next();
      if (!line) {
        o.error = line.error().detail;
        o.code = line.code();
        return o;
      }
      if (!line->has_value()) {
        return o;
      }
      o.lost += (*line)->lost;
      if ((*line)->event) {
        o.rows.push_back(*(*line)->event);
        EXPECT_NE(reader->schema().text(o.rows.back()), "");
      }
    }
  }
  std::string error_of(const std::string& text) const {
    write(text);
    return take().error;
  }
};

TEST_F(TraceFileTest, WhatIsWrittenIsRead) {
  written();
  const Outcome o = take();
  EXPECT_EQ(o.error, "");
  ASSERT_EQ(o.rows.size(), 3u);
  EXPECT_EQ(o.lost, 5u);
  EXPECT_EQ(o.rows[1].number, 4u);
  EXPECT_EQ(o.rows[1].tick, 1500u);
  EXPECT_EQ(o.rows[1].event, "map");
  EXPECT_EQ(o.rows[1].args, (std::vector<uint64_t>{1, 17, UINT64_MAX, 0}));
}

TEST_F(TraceFileTest, EveryCutIsNoticedWithItsPlace) {
  const std::string whole = written();
  for (size_t n = 0; n < whole.size(); ++n) {
    write(whole.substr(0, n));
    const Outcome o = take();
    EXPECT_EQ(o.code, Errc::kCorrupt) << n;
    const auto lines = static_cast<size_t>(
        std::count(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n), '\n'));
    const size_t begin = n == 0 ? 0 : whole.rfind('\n', n - 1) + 1;
    EXPECT_NE(
        o.error.find("line " + std::to_string(lines + 1) + ", byte " + std::to_string(begin) + ":"),
        std::string::npos)
        << n << ": " << o.error;
    EXPECT_NE(o.error.find("cut off"), std::string::npos) << o.error;
  }
}

TEST_F(TraceFileTest, EveryChangedByteIsReadOrRefused) {
  const std::string whole = written();
  int refused = 0;
  for (size_t n = 0; n < whole.size(); ++n) {
    for (const char c : {'\0', '\n', '"', '[', '}', '9', '-', '\x80', '\x7f', 'e'}) {
      std::string changed = whole;
      changed[n] = c;
      write(changed);
      const Outcome o = take();
      refused += o.error.empty() ? 0 : 1;
      EXPECT_TRUE(o.error.empty() || o.error.find(": line ") != std::string::npos) << o.error;
      EXPECT_EQ(o.code == Errc::kOk, o.error.empty());
    }
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()));
}

TEST_F(TraceFileTest, SaysWhatIsWrong) {
  const std::string whole = written();
  const std::string head = whole.substr(0, whole.find('\n') + 1);
  const auto says = [&](const std::string& text, const char* what) {
    const std::string error = error_of(text);
    EXPECT_NE(error.find(what), std::string::npos) << error;
  };
  says("", "cut off");
  says("hello\n", "this is no trace");
  says("{\"kvmm_trace\":2,\"schema\":[]}\n", "version 2");
  says("{\"kvmm_trace\":1}\n", "'schema' must be");
  says("{\"kvmm_trace\":1,\"schema\":[{\"name\":\"\",\"args\":[]}]}\n", "'schema'");
  says(head + "[1,2,\"nothing\"]\n", "line 2, byte ");
  says(head + "[1,2,\"nothing\"]\n", "no event 'nothing'");
  says(head + "[1,2,\"map\",1]\n", "4 arguments, not 1");
  says(head + "[1,2,\"map\",1,2,3,-4]\n", "whole");
  says(head + "[1,2,\"map\",1,2,3,4.5]\n", "whole");
  says(head + "[1,2,\"map\",1,2,3,18446744073709551616]\n", "whole");
  says(head + "[1,2,\"map\",1,2,3,4]\n[1,3,\"map\",1,2,3,4]\n", "line 3");
  says(head + "[1,2,\"map\",1,2,3,4]\n[1,3,\"map\",1,2,3,4]\n", "ascend");
  says(head + "{\"lost\":0}\n", "a gap has");
  says(head + "{\"lost\":18446744073709551615}\n{\"lost\":1}\n", "line 3");
  says(head + "{\"end\":true,\"events\":1,\"lost\":0}\n", "does not count");
  says(head + "{\"end\":true,\"events\":0,\"lost\":0}\nx", "something follows");
  says(head + std::string(300'000, 'x') + "\n", "more than 262144 bytes");
  says(head + std::string(100'000, '[') + "\n", "line 2");
  EXPECT_EQ(error_of(head + "{\"end\":true,\"events\":0,\"lost\":0}\n"), "");
  EXPECT_EQ(TraceReader::open(dir.file("none")).code(), Errc::kIo);
  EXPECT_EQ(TraceReader::open(dir.path()).code(), Errc::kIo);
  EXPECT_EQ(TraceWriter::create(dir.file("no/t"), {}, schema()).code(), Errc::kIo);
}

TEST_F(TraceFileTest, AFullDiskIsAnError) {
  auto writer = TraceWriter::create("/dev/full", {}, schema());
  ASSERT_TRUE(writer.ok());
  Result<void> done;
  for (uint64_t i = 0; i < 10'000 && done; ++i) {
    done = writer->event({i, i, "map", {1, 2, 3, 0}});
  }
  EXPECT_EQ(done ? writer->end().code() : done.code(), Errc::kIo);
}

TEST_F(TraceFileTest, NamesFromOutsideAreHarmlessOnATerminal) {
  const TraceSchema evil(std::vector<TraceEventSchema>{{"a\x1b[31m", {"b\x07"}}});
  const std::string text = evil.text({1, 2, "a\x1b[31m", {3}});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
}

// ------------------------------------------------------------------------------------ faults

TraceRow row(uint64_t tick, const char* event, std::vector<uint64_t> args) {
  return {tick, tick, event, std::move(args)};
}

TEST(FaultLives, PutsTheStepsOfOnePageTogether) {
  FaultLives lives(schema(), std::nullopt);
  const uint64_t page = trace_page(2, 17);
  EXPECT_FALSE(lives.add(row(90, "map", {1, page, 0, 0}))) << "before the touch";
  EXPECT_FALSE(lives.add(row(100, "fault_begin", {1, page, 0x7f0000000000, 1, 2})));
  EXPECT_FALSE(lives.add(row(110, "map", {2, page, 0, 0}))) << "another session";
  EXPECT_FALSE(lives.add(row(300, "io_done", {1, page, 0, 0, 0})));
  EXPECT_FALSE(lives.add(row(1400, "map", {1, page, 0x1000, 0})));
  const std::optional<FaultLife> life = lives.add(row(1500, "fault_end", {1, page, 0, 1400, 2}));
  ASSERT_TRUE(life);
  EXPECT_EQ(
      lives.text(*life),
      "fault of session 1 page 2/17: 1,400 ns\n"
      "           +ns              ns  step\n"
      "             0               0  touch read by the core: write of 0x7f0000000000, major\n"
      "           200             200  piece 0: arrived\n"
      "         1,100           1,300  mapped\n"
      "           100           1,400  woken\n");
  const auto json = lives.json(*life);
  EXPECT_EQ(json["ns"], 1400);
  EXPECT_EQ(json["plane"], 2);
  EXPECT_EQ(json["page"], 17);
  EXPECT_EQ(json["complete"], true);
  EXPECT_EQ(json["steps"][2]["delta_ns"], 1100);
  EXPECT_FALSE(lives.add(row(1600, "fault_end", {1, page, 0, 1400, 2}))) << "it has ended";
}

TEST(FaultLives, TakesOnlyWhatIsWantedAndSaysWhatIsMissing) {
  FaultLives lives(schema(), *parse_fault_wanted("3:1/5"));
  for (const uint64_t page : {trace_page(0, 5), trace_page(1, 6)}) {
    lives.add(row(1, "fault_begin", {3, page, 0, 0, 0}));
    EXPECT_FALSE(lives.add(row(2, "fault_end", {3, page, 0, 1, 0})));
  }
  lives.add(row(1, "fault_begin", {3, trace_page(1, 5), 0, 0, 0}));
  lives.lost();
  const auto life = lives.add(row(2, "fault_end", {3, trace_page(1, 5), 9, 1, 0}));
  ASSERT_TRUE(life);
  EXPECT_FALSE(lives.json(*life)["complete"]);
  EXPECT_NE(lives.text(*life).find("events were lost meanwhile"), std::string::npos);
  EXPECT_NE(lives.text(*life).find("answered with an error"), std::string::npos);
}

TEST(FaultLives, StaysSmallWhateverComes) {
  FaultLives lives(schema(), std::nullopt);
  for (uint64_t i = 0; i < 20'000; ++i) {  // their ends never come
    EXPECT_FALSE(lives.add(row(i, "fault_begin", {1, i, 0, 0, 0})));
  }
  EXPECT_FALSE(lives.add(row(1, "fault_end", {1, 0, 0, 0, 0}))) << "given up for newer ones";
  for (uint64_t i = 0; i < 1000; ++i) {
    lives.add(row(20'000 + i, "io_done", {1, 19'999, 0, 0, 0}));
  }
  const auto life = lives.add(row(30'000, "fault_end", {1, 19'999, 0, 0, 0}));
  ASSERT_TRUE(life);
  EXPECT_EQ(life->steps.size(), 257u);
  EXPECT_EQ(life->steps_left_out, 745u);
}

TEST(FaultLives, ReadsWhoIsMeant) {
  EXPECT_EQ(parse_fault_wanted("3:17")->page, 17u);
  EXPECT_FALSE(parse_fault_wanted("3:17")->plane);
  EXPECT_EQ(*parse_fault_wanted("3:2/17")->plane, 2u);
  for (const char* bad : {"", "3", ":", "3:", ":17", "3:x", "3:1/", "3:/1", "a:1", "3:1/2/3",
                          "3/1:2", "-3:1", "3: 1", "99999999999999999999:1"}) {
    EXPECT_EQ(parse_fault_wanted(bad).code(), Errc::kInvalid) << bad;
  }
}

}  // namespace
}  // namespace kvmm::ctl
