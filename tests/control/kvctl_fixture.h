// SPDX-License-Identifier: Apache-2.0
//
// Runs the real kvctl against fake runtimes in this process.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/control/server.h"
#include "tests/control/fake_runtime.h"
#include "tests/control/temp_dir.h"

namespace kvmm::test {

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

std::string replace_all(std::string text, const std::string& what, const std::string& with);
std::string read_file(const std::string& path);

struct KvctlTest : ::testing::Test {
  TempDir dir;
  FakeRuntime runtime;
  std::vector<std::unique_ptr<ControlServer>> servers;

  ControlServer& start(const std::string& name);
  // Runs kvctl through the shell; `--dir` is always given. `before` is put in front: "LC_ALL=C".
  Outcome run(const std::string& arguments, const std::string& redirect = "",
              const std::string& before = "");
  // What it prints; everything else than success fails the test.
  std::string good(const std::string& arguments);
  nlohmann::json good_json(const std::string& arguments);
  // Held against golden/`name`; set KVMM_WRITE_GOLDEN=1 to write it anew.
  void expect_golden(const std::string& name, const std::string& arguments);
};

}  // namespace kvmm::test
