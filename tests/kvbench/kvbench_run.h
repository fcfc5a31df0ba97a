// SPDX-License-Identifier: Apache-2.0
//
// kvbench from outside: a program that is run, what it prints, and what it must look like.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

#include "tests/control/temp_dir.h"
#include "tools/kvbench/benchmark.h"

extern char** environ;

namespace kvmm::bench {

using Json = nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

struct KvbenchTest : ::testing::Test {
  test::TempDir dir;    // what kvbench prints
  test::TempDir files;  // --dir

  // `before`: environment, as a shell takes it.
  Outcome run(const std::string& arguments, const std::string& before = "") const {
    const std::string command = before + " " + std::string(KVBENCH_BINARY) + " " + arguments +
                                " </dev/null >" + dir.file("out") + " 2>" + dir.file("err");
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

// One of the keys wrong, missing or more is a different format.
inline void expect_figure(const Json& f, const FigureDef& def) {
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
  EXPECT_LE(f["low"], f["value"]);
  EXPECT_LE(f["value"], f["high"]);
  EXPECT_TRUE(f["met"].is_boolean());
  const Json& judged = !def.by_interval ? f["value"] : def.at_most ? f["high"] : f["low"];
  const bool met = def.at_most ? judged <= def.target : judged >= def.target;
  EXPECT_EQ(f["met"], met) << f;
  EXPECT_EQ(f["target"].get<std::string>().substr(0, 2), def.at_most ? "<=" : ">=");
  for (const char* key : {"method", "machine", "commit"}) {
    EXPECT_FALSE(f[key].get<std::string>().empty()) << key;
  }
  EXPECT_NE(f["machine"].get<std::string>().find("Linux"), std::string::npos) << f["machine"];
}

// A benchmark ran and gave these figures and no other.
inline void expect_figures(const Outcome& o, const std::vector<const FigureDef*>& figures) {
  ASSERT_EQ(o.status, kExitOk) << o.err;
  const Json all = Json::parse(o.out);
  ASSERT_EQ(all.size(), figures.size()) << o.out;
  for (size_t i = 0; i < all.size(); ++i) {
    expect_figure(all[i], *figures[i]);
  }
}

inline std::vector<const FigureDef*> figures_of(const char* name) {
  const Benchmark* const b = find_benchmark(name);
  std::vector<const FigureDef*> all;
  for (const FigureDef& f : b == nullptr ? std::span<const FigureDef>() : b->figures) {
    all.push_back(&f);
  }
  return all;
}

// kvbench running, its standard error read line by line.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments) {
    int ends[2];
    check(pipe(ends) == 0, "a pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    arguments.insert(arguments.begin(), KVBENCH_BINARY);
    std::vector<char*> argv;
    for (std::string& a : arguments) {
      argv.push_back(a.data());
    }
    argv.push_back(nullptr);
    const int result = posix_spawn(&pid_, KVBENCH_BINARY, &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    error_ = ends[0];
    check(result == 0, "kvbench starts");
  }
  ~Running() { close(error_); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // Reads on until `text` has been said. False: it ended before.
  bool says(const std::string& text) {
    char c = 0;
    while (said_.find(text) == std::string::npos) {
      if (::read(error_, &c, 1) != 1) {
        return false;
      }
      said_ += c;
    }
    return true;
  }
  const std::string& said() const { return said_; }
  pid_t pid() const { return pid_; }
  // Sends it a signal and waits for its end; waitpid's status.
  int end_by(int signal) {
    kill(pid_, signal);
    int status = 0;
    check(waitpid(pid_, &status, 0) == pid_, "kvbench ends");
    return status;
  }

 private:
  pid_t pid_ = 0;
  int error_ = -1;
  std::string said_;
};

}  // namespace kvmm::bench
