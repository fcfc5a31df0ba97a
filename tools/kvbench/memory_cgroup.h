// SPDX-License-Identifier: Apache-2.0
//
// A memory cgroup of our own, below the one that this process is in. Speaks version 1 and 2; where
// no hierarchy with the memory controller is mounted, one of version 1 is for as long as it lives.
//
//   v2  <mount>/<ours>/kvbench-<pid>/memory.max       memory.reclaim      cgroup.procs
//   v1  <mount>/<ours>/kvbench-<pid>/memory.limit_... memory.force_empty  cgroup.procs
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <string>

namespace kvmm::bench {

class MemoryCgroup {
 public:
  // Throws Failure (77): no rights, no memory controller.
  explicit MemoryCgroup(uint64_t limit);
  // Gone, if no process is in it any more.
  ~MemoryCgroup();
  MemoryCgroup(const MemoryCgroup&) = delete;
  MemoryCgroup& operator=(const MemoryCgroup&) = delete;

  int version() const { return version_; }
  // The calling process is in it from now on. Throws Failure.
  void enter() const;
  // Takes what can be taken from those in it: also what is in the swap cache only.
  void reclaim_all() const;
  uint64_t usage() const;

 private:
  void find(const std::string& mounts, const std::string& own);
  void make(uint64_t limit);
  void release();

  int version_ = 0;
  std::string mounted_;  // by us; "": it was there
  std::string path_;
  bool made_ = false;
};

}  // namespace kvmm::bench
