// SPDX-License-Identifier: Apache-2.0
//
// What kvmm's swapping is compared with: the kernel's. The same bytes in anonymous memory of a
// process whose memory cgroup leaves it a quarter more, pushed out to a swap file of our own on the
// same file system, and touched again front to back.
//
//   kvbench --+-- keeper   swapon, cgroup; waits for kvbench's end, then takes both away again
//             +-- toucher  in the cgroup: holds the memory, is told "out", "touch", "willneed"
//
// The keeper is a process of its own, in a session of its own, so that the swap file goes however
// kvbench ends: Ctrl-C, a failure, kill -9.
//
// Thread safety: none. Make it before any thread is started: it forks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace kvmm::bench {

class LinuxSwap {
 public:
  // Never throws for what this machine or user cannot do: see missing(). Throws Failure: `dir` is
  // full or cannot be written.
  LinuxSwap(const std::string& dir, uint64_t bytes);
  ~LinuxSwap();
  LinuxSwap(const LinuxSwap&) = delete;
  LinuxSwap& operator=(const LinuxSwap&) = delete;

  // Why it cannot be measured here (no root, swapon refused, ...); "": it can.
  const std::string& missing() const { return missing_; }

  // Everything out, then touched once a page, front to back; with `willneed` told to the kernel
  // first (MADV_WILLNEED over all of it, in the time measured). Seconds. REQUIRES: nothing is
  // missing. Throws Failure: it did not go out whole, or other bytes came back.
  double resume(bool willneed);

  // For the method of a figure: cgroup version, readahead, huge pages, zswap.
  std::string settings() const;

 private:
  void end();

  pid_t keeper_ = -1;
  int lifeline_ = -1;  // closed: the keeper takes everything away
  int talk_ = -1;      // to the toucher
  std::string missing_;
  int cgroup_version_ = 0;
};

}  // namespace kvmm::bench
