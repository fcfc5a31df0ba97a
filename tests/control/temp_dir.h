// SPDX-License-Identifier: Apache-2.0
//
// A fresh directory of a test, gone afterwards.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/base/check.h"

namespace kvmm::test {

class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/kvmm-test-XXXXXX";
    check(mkdtemp(name) != nullptr, "a temporary directory");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name), std::ios::binary) << text;
  }

 private:
  std::string path_;
};

}  // namespace kvmm::test
