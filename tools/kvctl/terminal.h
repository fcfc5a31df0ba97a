// SPDX-License-Identifier: Apache-2.0
//
// The terminal of a picture that changes: keys as they are typed, signals as descriptors, a screen
// of its own, and everything put back at the end.
//
// Thread safety: none; one at a time.
#pragma once

#include <termios.h>

#include <chrono>
#include <csignal>
#include <string>

#include "runtime/control/endpoint.h"

namespace kvmm::ctl {

// What happened while a picture stood. Printable keys are their character.
enum Key : int {
  kKeyTime = 0,   // it is time for the next picture
  kKeyEnd = 256,  // a signal says that it is time to end, or the terminal is gone
  kKeyRedraw,     // another size, or back from the background
  kKeyUp,
  kKeyDown,
  kKeyPageUp,
  kKeyPageDown,
  kKeyOther,
};

class Terminal {
 public:
  // `draws`: takes the screen, if there is a terminal to draw on and to type at.
  explicit Terminal(bool draws);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool live() const { return live_; }
  // One key or kKeyTime when `end` has come. Without a terminal only signals and time.
  int wait_until(std::chrono::steady_clock::time_point end);

 private:
  void enter();
  void leave() const;
  int take_signal();
  int take_key();

  bool live_;
  termios before_{};
  sigset_t signals_before_{};
  OwnedFd signals_;
  std::string typed_;  // bytes not taken yet
};

}  // namespace kvmm::ctl
