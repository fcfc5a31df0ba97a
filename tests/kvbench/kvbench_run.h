// SPDX-License-Identifier: Apache-2.0
//
// kvbench from outside: a program that is run, what it prints, and what it must look like.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
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
#include <vector>

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
  std::set<std::string> want = {"figure", "value", "low",    "high",    "n",     "unit",
                                "target", "met",   "method", "machine", "commit"};
  std::set<std::string> have;
  for (const auto& [key, value] : f.items()) {
    have.insert(key);
  }
  const bool absent = f.contains("absent");
  if (absent) {
    want.insert("absent");
  }
  ASSERT_EQ(have, want);
  EXPECT_EQ(f["figure"], def.name);
  EXPECT_EQ(f["unit"], def.unit);
  EXPECT_FALSE(f["commit"].get<std::string>().empty());
  EXPECT_NE(f["machine"].get<std::string>().find("Linux"), std::string::npos) << f["machine"];
  if (absent) {
    EXPECT_FALSE(f["absent"].get<std::string>().empty());
    EXPECT_TRUE(f["value"].is_null() && f["met"].is_null()) << f;
    return;
  }
  EXPECT_TRUE(f["value"].is_number());
  EXPECT_TRUE(f["n"].is_number_unsigned());
  EXPECT_GT(f["n"], 0);
  EXPECT_LE(f["low"], f["value"]);
  EXPECT_LE(f["value"], f["high"]);
  EXPECT_FALSE(f["method"].get<std::string>().empty());
  const bool low = def.bound == Bound::kAtMost ? f["low"] <= def.target : f["low"] >= def.target;
  const bool high = def.bound == Bound::kAtMost ? f["high"] <= def.target : f["high"] >= def.target;
  const Json met = def.bound == Bound::kNone || low != high ? Json(nullptr) : Json(low);
  EXPECT_EQ(f["met"], met) << f;
  EXPECT_EQ(f["target"].get<std::string>().substr(0, 2), def.bound == Bound::kNone     ? "-"
                                                         : def.bound == Bound::kAtMost ? "<="
                                                                                       : ">=");
}

// Only resuming an engine can come out below zero, where two first tokens differ by more than it.
inline void expect_none_negative(const Outcome& o) {
  for (const Json& f : Json::parse(o.out)) {
    if (!f.contains("absent")) {
      EXPECT_GE(f["low"], 0) << f;
    }
  }
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

// Processes that end although nobody waits for them.
inline void expect_ended(const std::vector<int>& handles) {
  for (const int handle : handles) {
    ASSERT_GE(handle, 0);
    pollfd ended{handle, POLLIN, 0};
    constexpr int kPatienceMs = 20000;
    EXPECT_EQ(poll(&ended, 1, kPatienceMs), 1) << "a process goes on";
    close(handle);
  }
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
  // Handles of the processes it has now.
  std::vector<int> children() const {
    const std::string task = std::to_string(pid_);
    std::ifstream file("/proc/" + task + "/task/" + task + "/children");
    std::vector<int> handles;
    for (pid_t child = 0; file >> child;) {
      handles.push_back(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
    }
    return handles;
  }
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
