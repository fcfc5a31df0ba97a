// SPDX-License-Identifier: Apache-2.0
//
// Threads of ours in somebody else's process: they block every signal, so that no handler of the
// engine runs on them and no signal meant for it is taken by them.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

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

// A thread of ours, named `name` (at most 15 bytes). Throws std::runtime_error, whose text says
// what to do, if the system refuses one more: the entry points of the API turn it into a status.
template <class Fn>
std::thread start_thread(const char* name, Fn fn) {
  const SignalsBlocked blocked;
  try {
    return std::thread([name, run = std::move(fn)] {
      pthread_setname_np(pthread_self(), name);
      run();
    });
  } catch (const std::system_error& e) {
    throw std::runtime_error(std::string("the thread ") + name +
                             " cannot be started; raise ulimit -u, or the container's limit of "
                             "processes (" +
                             e.code().message() + ")");
  }
}

}  // namespace kvmm
