// SPDX-License-Identifier: Apache-2.0
//
// Another system that brings pages of 2 MiB to memory, driven by a script of ours in its own
// virtual environment (tools/kvbench/peers/).
//
//   kvbench --{"order": [...]}--> script --{"seconds": ...}--> kvbench
//
// It ends, and removes its files, when its standard input ends: when the object goes, and when
// kvbench does.
//
// Thread safety: none. Make it before any thread is started: it forks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kvmm::bench {

struct PeerKind {
  const char* name;         // "nixl"
  const char* script;       // in tools/kvbench/peers/
  const char* environment;  // of packages.txt
};

class PeerProcess {
 public:
  // Starts it and waits until it has stored `pages` pages below `dir`. What this machine lacks is
  // no exception: see missing(). Throws Failure.
  PeerProcess(const PeerKind& kind, const std::string& dir, uint64_t pages, unsigned depth);
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  const PeerKind& kind() const { return kind_; }
  // Why it is not here, with the line that installs it; "": it is.
  const std::string& missing() const { return missing_; }
  const std::string& version() const { return version_; }
  // What it reads lies in memory and not on the disk.
  bool of_memory() const { return of_memory_; }

  // Seconds until these pages were there. Throws Failure: it could not, or other bytes came.
  double read(const std::vector<uint64_t>& order);

 private:
  std::string answer();
  void end();

  PeerKind kind_;
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, log_ = -1;
  std::string pending_;
  std::string missing_, version_;
  bool of_memory_ = false;
};

// Makes the virtual environments in `dir`. Throws Failure.
void install_peers(const std::string& dir);

}  // namespace kvmm::bench
