// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/check.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace kvmm {
namespace {

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): the process stops as a whole
std::atomic<CheckHook> g_hook{nullptr};

[[noreturn]] void stop(const char* what, const char* line, int length) noexcept {
  // One write: an engine's other threads may be printing as well.
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, line, static_cast<size_t>(length));
  if (CheckHook hook = g_hook.load()) {
    hook(what);
  }
  std::abort();
}

}  // namespace

void set_check_hook(CheckHook hook) noexcept {
  g_hook.store(hook);
}

void check_failed(const char* what, Where where) noexcept {
  char line[512];
  const int n = std::snprintf(line, sizeof line, "kvmm: check failed: %s at %s:%d\n", what,
                              where.file, where.line);
  stop(what, line, n < static_cast<int>(sizeof line) ? n : static_cast<int>(sizeof line) - 1);
}

void check_failed(const char* what, uint64_t a, uint64_t b, Where where) noexcept {
  char line[512];
  const int n =
      std::snprintf(line, sizeof line,
                    "kvmm: check failed: %s: %llu (0x%llx) against %llu (0x%llx) at "
                    "%s:%d\n",
                    what, static_cast<unsigned long long>(a), static_cast<unsigned long long>(a),
                    static_cast<unsigned long long>(b), static_cast<unsigned long long>(b),
                    where.file, where.line);
  stop(what, line, n < static_cast<int>(sizeof line) ? n : static_cast<int>(sizeof line) - 1);
}

}  // namespace kvmm
