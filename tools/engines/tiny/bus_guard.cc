// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/tiny/bus_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>

#include <cstring>
#include <mutex>

namespace tiny {
namespace {

// Where this thread's running copy returns to on SIGBUS; null outside a copy.
thread_local sigjmp_buf* t_escape = nullptr;
struct sigaction g_before;
std::once_flag g_installed;

void on_sigbus(int number, siginfo_t* info, void* context) {
  if (t_escape != nullptr) {
    // The mask of the interrupted copy, whatever was blocked to run this handler: the next SIGBUS
    // must come through.
    ::pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, nullptr);
    siglongjmp(*t_escape, 1);
  }
  if ((g_before.sa_flags & SA_SIGINFO) != 0 && g_before.sa_sigaction != nullptr) {
    g_before.sa_sigaction(number, info, context);
    return;
  }
  // Default: the touch is repeated on return and ends the process with its own address.
  ::signal(SIGBUS, g_before.sa_handler == SIG_IGN ? SIG_DFL : g_before.sa_handler);
}

}  // namespace

void install_bus_guard() {
  std::call_once(g_installed, [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, &g_before);
  });
}

bool guarded_copy(void* to, const void* from, size_t n) {
  sigjmp_buf escape;
  if (sigsetjmp(escape, 0) != 0) {
    t_escape = nullptr;
    return false;
  }
  t_escape = &escape;
  // The compiler may not move the copy across the two stores: the signal is raised inside it.
  asm volatile("" ::: "memory");
  std::memcpy(to, from, n);
  asm volatile("" ::: "memory");
  t_escape = nullptr;
  return true;
}

}  // namespace tiny
