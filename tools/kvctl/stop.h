// SPDX-License-Identifier: Apache-2.0
//
// Ctrl-C and its relatives as a descriptor to wait for, so that a command that runs until it is
// told to end does so between two steps and says its last words.
//
// Thread safety: none; kvctl has one thread.
#pragma once

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "runtime/control/endpoint.h"

namespace kvmm::ctl {

// SIGINT, SIGTERM and SIGHUP are blocked from its construction to its end.
class Stop {
 public:
  Stop() {
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      sigaddset(&wanted, signal);
    }
    sigprocmask(SIG_BLOCK, &wanted, &before_);
    fd_ = OwnedFd(signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~Stop() {
    signalfd_siginfo came;
    while (read(fd_.get(), &came, sizeof came) > 0) {  // else it would end us after all
    }
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  Stop(const Stop&) = delete;
  Stop& operator=(const Stop&) = delete;

  // True: it is time to end.
  bool wait(int ms) const {
    pollfd fd{fd_.get(), POLLIN, 0};
    return poll(&fd, 1, ms) > 0;
  }
  bool came() const { return wait(0); }
  int fd() const { return fd_.get(); }

 private:
  sigset_t before_{};
  OwnedFd fd_;
};

}  // namespace kvmm::ctl
