// SPDX-License-Identifier: Apache-2.0
//
// Files that nobody has to clean up: they are unlinked as soon as they are open, so that they are
// gone however the program ends (Ctrl-C, a crash, kill -9). Between making and unlinking, signals
// that end the program are held back.
//
//   { ScratchDir scratch(dir); open(scratch.file("swap")); }   // the name is gone, the file is not
//
// Thread safety: one thread, before others are started (the signal mask is the thread's).
#pragma once

#include <csignal>
#include <cstdint>
#include <string>

namespace kvmm::bench {

class ScratchDir {
 public:
  // Throws Failure: `dir` does not exist, cannot be written, or has less than `bytes_needed` free.
  ScratchDir(const std::string& dir, uint64_t bytes_needed);
  ~ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  sigset_t before_;
  std::string path_;
};

// Throws Failure where `dir` is memory: what is read from it says nothing about a disk.
void require_disk(const std::string& dir);

}  // namespace kvmm::bench
