// SPDX-License-Identifier: Apache-2.0
//
// Threads of ours in somebody else's process: they block every signal, so that no handler of the
// engine runs on them and no signal meant for it is taken by them.
#pragma once

#include <signal.h>

namespace kvmm {

// While it lives, threads started by this thread are born with all signals blocked.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t old_{};
};

}  // namespace kvmm
