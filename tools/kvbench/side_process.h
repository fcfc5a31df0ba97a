// SPDX-License-Identifier: Apache-2.0
//
// A process that takes CPU time beside an engine, on one core: it reads the whole attribute tree of
// a runtime over its socket in a loop, or burns as much as that took and does nothing.
//
//   kvbench --read(socket)/burn(share)--> side process    ... the engine faults ...
//           --stop-->                     side process --Side (walks, CPU time, locks)--> kvbench
//
// It ends when kvbench does.
//
// Thread safety: none. Make it before any thread is started: it forks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace kvmm::bench {

struct Side {
  uint64_t walks = 0;  // of the whole tree
  uint64_t items = 0;  // attributes of the last one
  double cpu_us = 0;   // of the side process
  double seconds = 0;  // from the order to the stop
  uint64_t locks = 0;  // of the fault path, taken meanwhile by the thread that answered it
};

class SideProcess {
 public:
  // Runs on `core` only. Throws Failure.
  explicit SideProcess(int core);
  ~SideProcess();
  SideProcess(const SideProcess&) = delete;
  SideProcess& operator=(const SideProcess&) = delete;

  // Returns when it has read the tree once.
  void read(const std::string& socket);
  // `share` of the core's time, 0 to 1.
  void burn(double share);
  // Ends what it does. Throws Failure: it could not do it.
  Side stop();

 private:
  pid_t pid_ = -1;
  int talk_ = -1;
};

}  // namespace kvmm::bench
