// SPDX-License-Identifier: Apache-2.0
//
// Completion: what `kvctl __complete` offers, and that the scripts of bash and zsh hand it on.
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "tests/control/kvctl_fixture.h"

namespace kvmm {
namespace {

using test::KvctlTest;
using Words = std::vector<std::string>;

std::string quoted(const std::string& word) {
  return "'" + word + "'";
}

std::string output_of(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  std::string out;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) {
    out += static_cast<char>(c);
  }
  pclose(pipe);
  return out;
}

class CompleteTest : public KvctlTest {
 protected:
  CompleteTest() { start("fake"); }

  // The first line, and what stands before the tab in the others.
  Words complete(const Words& words) {
    std::string command = quoted(KVCTL_BINARY) + " __complete --dir " + dir.path();
    for (const std::string& word : words) {
      command += " " + quoted(word);
    }
    std::istringstream in(output_of(command + " 2>&1"));
    Words out;
    for (std::string line; std::getline(in, line);) {
      out.push_back(line.substr(0, line.find('\t')));
    }
    return out;
  }
};

TEST_F(CompleteTest, OffersWhatMayFollow) {
  const struct {
    Words words;
    Words offered;
  } kCases[] = {
      {{"page"}, {"words", "pagemap"}},
      {{"s"}, {"words", "smaps", "swap", "set", "save", "swapon", "swapoff"}},
      {{"ls", "ti"}, {"words", "tiers/"}},
      {{"ls", "tiers/"}, {"words", "tiers/dram/"}},
      {{"get", "tiers/dram/w"}, {"words", "tiers/dram/watermark_low"}},
      {{"get", "version", "upt"}, {"words", "uptime"}},
      {{"get", "none/x"}, {"words"}},
      {{"set", "tiers/dram/"}, {"words", "tiers/dram/watermark_low"}},
      {{"set", "sessions/1/advice", ""},
       {"words", "normal", "running", "idle", "evict", "durable"}},
      {{"set", "sessions/1/advice", "i"}, {"words", "idle"}},
      {{"set", "sched/readahead_max", ""}, {"words", "2MiB"}},
      {{"set", "none", ""}, {"words"}},
      {{"set", "a", "b", ""}, {"words"}},
      {{"maps", ""}, {"words", "1", "12"}},
      {{"smaps", "--rollup", "12"}, {"words", "12"}},
      {{"pagemap", "1", "--plane", ""}, {"words", "k", "v"}},
      {{"pagemap", "1", "--plane=v"}, {"words", "--plane=v"}},
      {{"pagemap", "1", "--plane", "=", "v"}, {"words", "v"}},  // as bash has it
      {{"pagemap", "--wi"}, {"words", "--width"}},
      {{"pagemap", "--color", "a"}, {"words", "auto", "always"}},
      {{"top", "--sort", "n"}, {"words", "name"}},
      {{"top", "-n", "s"}, {"words"}},
      {{"swapoff", ""}, {"words", "swap0"}},
      {{"swapon", ""}, {"files"}},
      {{"save", "x"}, {"files"}},
      {{"restore", ""}, {"files"}},
      {{"mount", ""}, {"dirs"}},
      {{"--dir", ""}, {"dirs"}},
      {{"-p", "fa"}, {"words", "fake"}},
      {{"--runtime=fa"}, {"words", "--runtime=fake"}},
      {{"-p", "fake", "ls", "up"}, {"words", "uptime"}},
      {{"-p", "other", "ls", "up"}, {"words"}},
      {{"ls", "up", "-p", "fake", ""}, {"words"}},
      {{"ls", "--", "up"}, {"words", "uptime"}},
      {{"fly", ""}, {"words"}},
      {{"ps", ""}, {"words"}},
      {{"\x1b[2J"}, {"words"}},
  };
  for (const auto& c : kCases) {
    std::string line;
    for (const std::string& word : c.words) {
      line += word + " ";
    }
    EXPECT_EQ(complete(c.words), c.offered) << line;
  }
  const Words commands = complete({""});
  EXPECT_GT(commands.size(), 15u);
  EXPECT_NE(std::find(commands.begin(), commands.end(), "umount"), commands.end());
  const Words options = complete({"top", "--"});
  for (const char* option : {"--once", "--json", "--help", "--timeout"}) {
    EXPECT_EQ(std::count(options.begin(), options.end(), option), 1) << option;
  }
}

TEST_F(CompleteTest, WithoutARuntimeThereIsSilence) {
  servers.clear();
  EXPECT_EQ(complete({"get", "tiers/"}), Words{"words"});
  EXPECT_EQ(complete({"maps", ""}), Words{"words"});
  EXPECT_EQ(complete({}), complete({}));
  servers.clear();
  start("one");
  start("two");
  EXPECT_EQ(complete({"get", "ti"}), Words{"words"});  // which of them?
  EXPECT_EQ(complete({"-p", "two", "get", "ti"}), (Words{"words", "tiers/"}));
}

TEST_F(CompleteTest, BashTakesIt) {
  const std::string setup =
      "compopt() { echo compopt \"$@\"; }; . " COMPLETION_DIR "/kvctl.bash; complete -p kvctl; ";
  const auto bash = [&](const std::string& words) {
    return output_of("bash --norc -c '" + setup + "COMP_WORDS=(" KVCTL_BINARY " --dir " +
                     dir.path() + " " + words +
                     "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _kvctl; "
                     "printf \"%s\\n\" \"${COMPREPLY[@]}\"' 2>&1");
  };
  const std::string declared = "complete -F _kvctl kvctl\n";
  EXPECT_EQ(bash("ls ti"), declared + "compopt -o nospace\ntiers/\n");
  EXPECT_EQ(bash("get tiers/dram/w"), declared + "tiers/dram/watermark_low\n");
  EXPECT_EQ(bash("maps \"\""), declared + "1\n12\n");
  EXPECT_EQ(bash("pagemap 1 --plane = v"), declared + "v\n");
  dir.write("some file", "x");
  EXPECT_EQ(bash("restore " + dir.path() + "/some"),
            declared + "compopt -o filenames\n" + dir.path() + "/some file\n");
}

TEST_F(CompleteTest, ZshTakesIt) {
  if (std::system("command -v zsh >/dev/null") != 0) {
    GTEST_SKIP() << "zsh is not installed";
  }
  // Inside a completion these are zsh's own; here they say what they are given.
  const std::string setup =
      "compadd() { print -r -- compadd \"$@\" }; "
      "_describe() { print -r -- describe \"${(@P)2}\" }; _files() { print -r -- files \"$@\" }; ";
  const auto zsh = [&](const std::string& words) {
    return output_of("zsh -f -c '" + setup + "words=(" KVCTL_BINARY " --dir " + dir.path() + " " +
                     words + "); CURRENT=$#words; . " COMPLETION_DIR "/_kvctl' 2>&1");
  };
  EXPECT_EQ(zsh("ls ti"), "compadd -S  -- tiers/\n");
  EXPECT_EQ(zsh("get tiers/dram/w"), "describe tiers/dram/watermark_low:rw bytes\n");
  EXPECT_EQ(zsh("maps 12"), "describe 12:chat ?[31mred\n");
  EXPECT_EQ(zsh("pagemap 1 --plane=v"), "describe --plane=v:3 pages\n");
  EXPECT_EQ(zsh("restore \"\""), "files\n");
  EXPECT_EQ(zsh("mount \"\""), "files -/\n");
}

}  // namespace
}  // namespace kvmm
