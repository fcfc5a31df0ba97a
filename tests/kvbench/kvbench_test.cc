// SPDX-License-Identifier: Apache-2.0
//
// kvbench from outside: what it prints, what it refuses, and that it leaves nothing behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/control/temp_dir.h"
#include "tools/kvbench/benchmark.h"

extern char** environ;

namespace kvmm::bench {
namespace {

using Json = nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

struct KvbenchTest : ::testing::Test {
  test::TempDir dir;    // what kvbench prints
  test::TempDir files;  // --dir

  Outcome run(const std::string& arguments) const {
    const std::string command = std::string(KVBENCH_BINARY) + " " + arguments + " </dev/null >" +
                                dir.file("out") + " 2>" + dir.file("err");
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(dir.file("out")),
            read(dir.file("err"))};
  }
  static std::string read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  bool nothing_left() const { return std::filesystem::is_empty(files.path()); }
};

TEST_F(KvbenchTest, ListNamesEveryBenchmarkAndFigure) {
  const Outcome text = run("--list");
  const Outcome json = run("--list --json");
  ASSERT_EQ(text.status, kExitOk) << text.err;
  ASSERT_EQ(json.status, kExitOk) << json.err;
  std::set<std::string> listed;
  for (const Json& b : Json::parse(json.out)) {
    for (const Json& f : b.at("figures")) {
      EXPECT_TRUE(listed.insert(f.at("figure")).second) << f;
    }
  }
  size_t figures = 0;
  ASSERT_FALSE(benchmarks().empty());
  for (const Benchmark& b : benchmarks()) {
    EXPECT_NE(text.out.find(b.name), std::string::npos);
    for (const FigureDef& f : b.figures) {
      EXPECT_NE(text.out.find(f.name), std::string::npos);
      EXPECT_EQ(listed.count(f.name), 1u) << f.name;
      ++figures;
    }
  }
  EXPECT_EQ(listed.size(), figures);
}

TEST_F(KvbenchTest, HelpHasExamples) {
  const Outcome help = run("--help");
  EXPECT_EQ(help.status, kExitOk);
  EXPECT_NE(help.out.find("kvbench swapin --dir"), std::string::npos) << help.out;
}

TEST_F(KvbenchTest, WrongCommandLines) {
  for (const char* arguments : {"", "nosuch", "fault --nosuch", "fault swapin", "fault --list"}) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, kExitUsage) << arguments;
    EXPECT_EQ(o.out, "") << arguments;
    EXPECT_EQ(o.err.rfind("kvbench: ", 0), 0u) << o.err;
  }
  EXPECT_NE(run("nosuch").err.find("'nosuch'"), std::string::npos);
}

TEST_F(KvbenchTest, DirectoriesThatCannotBeUsed) {
  // /proc can be written by nobody, root included.
  for (const std::string& bad : {files.file("absent"), std::string("/proc")}) {
    for (const char* name : {"fault", "swapin"}) {
      const Outcome o = run(std::string(name) + " --quick --dir " + bad);
      EXPECT_EQ(o.status, kExitFailed) << o.err;
      EXPECT_EQ(o.out, "");
      EXPECT_NE(o.err.find(bad), std::string::npos) << o.err;
      EXPECT_NE(o.err.find("--dir"), std::string::npos) << o.err;
    }
  }
}

// One of the keys wrong, missing or more is a different format.
void expect_figure(const Json& f, const FigureDef& def) {
  const std::set<std::string> want = {"figure", "value", "low",    "high",    "n",     "unit",
                                      "target", "met",   "method", "machine", "commit"};
  std::set<std::string> have;
  for (const auto& [key, value] : f.items()) {
    have.insert(key);
  }
  ASSERT_EQ(have, want);
  EXPECT_EQ(f["figure"], def.name);
  EXPECT_EQ(f["unit"], def.unit);
  EXPECT_TRUE(f["value"].is_number());
  EXPECT_TRUE(f["n"].is_number_unsigned());
  EXPECT_GT(f["n"], 0);
  EXPECT_GT(f["low"], 0);
  EXPECT_LE(f["low"], f["value"]);
  EXPECT_LE(f["value"], f["high"]);
  EXPECT_TRUE(f["met"].is_boolean());
  const bool met = def.at_most ? f["value"] <= def.target : f["value"] >= def.target;
  EXPECT_EQ(f["met"], met) << f;
  EXPECT_EQ(f["target"].get<std::string>().substr(0, 2), def.at_most ? "<=" : ">=");
  for (const char* key : {"method", "machine", "commit"}) {
    EXPECT_FALSE(f[key].get<std::string>().empty()) << key;
  }
  EXPECT_NE(f["machine"].get<std::string>().find("Linux"), std::string::npos) << f["machine"];
}

void expect_figures(const Outcome& o, const char* name) {
  ASSERT_EQ(o.status, kExitOk) << o.err;
  const Benchmark* const b = find_benchmark(name);
  ASSERT_NE(b, nullptr);
  const Json all = Json::parse(o.out);
  ASSERT_EQ(all.size(), b->figures.size());
  for (size_t i = 0; i < all.size(); ++i) {
    expect_figure(all[i], b->figures[i]);
  }
}

TEST_F(KvbenchTest, QuickFaultGivesEveryFigure) {
  const Outcome o = run("fault --quick --json --dir " + files.path());
  if (o.status == kExitImpossible) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, "fault");
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, QuickSwapinGivesEveryFigure) {
  const Outcome o = run("swapin --quick --json --dir " + files.path());
  if (o.status == kExitImpossible) {
    GTEST_SKIP() << o.err;
  }
  if (o.status == kExitFailed && o.err.find("is memory") != std::string::npos) {
    GTEST_SKIP() << o.err;
  }
  expect_figures(o, "swapin");
  EXPECT_TRUE(nothing_left());
}

TEST_F(KvbenchTest, CtrlCLeavesNoFiles) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  const std::string path = files.path();
  const char* const arguments[] = {KVBENCH_BINARY, "fault", "--dir", path.c_str(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, KVBENCH_BINARY, &actions, nullptr, const_cast<char**>(arguments),
                        environ),
            0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  // It says what it does before it makes its first file.
  char c = 0;
  std::string line;
  while (line.find("faults") == std::string::npos && ::read(ends[0], &c, 1) == 1) {
    line += c;
  }
  EXPECT_NE(line.find("faults"), std::string::npos) << line;
  EXPECT_EQ(kill(child, SIGINT), 0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  close(ends[0]);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kExitImpossible) {
    GTEST_SKIP() << "kvmm cannot run here";
  }
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  EXPECT_TRUE(nothing_left());
}

}  // namespace
}  // namespace kvmm::bench
