// SPDX-License-Identifier: Apache-2.0
//
// `check()`: assertions that stay on in production. A broken invariant stops the process with the
// operands printed, because going on could hand an engine wrong KV.
//
//   check(page.frame == pfn, "page's frame", page.frame, pfn);
//
// It is a function call, not a macro with a branch in place, so that branch coverage of the callers
// counts decisions of the program and not its assertions.
//
// Thread safety: any thread. The failure path writes to stderr only, with one write(2).
#pragma once

#include <cstdint>
#include <type_traits>

namespace kvmm {

// Where a check stands. GCC 12 and Clang 14 both fill these default arguments at the call.
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* f = __builtin_FILE(), int l = __builtin_LINE()) {
    return {f, l};
  }
};

[[noreturn]] void check_failed(const char* what, Where where) noexcept;
[[noreturn]] void check_failed(const char* what, uint64_t a, uint64_t b, Where where) noexcept;

// Called (if set) just before the process stops; tests of the recorder and the flight recorder use
// it.
using CheckHook = void (*)(const char* what) noexcept;
void set_check_hook(CheckHook hook) noexcept;

inline void check(bool ok, const char* what, Where where = Where::here()) {
  if (!ok) [[unlikely]] {
    check_failed(what, where);
  }
}

template <class T>
constexpr uint64_t check_operand(const T& v) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<uint64_t>(v);
  } else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
    return static_cast<uint64_t>(v);
  } else {
    return static_cast<uint64_t>(v.value());
  }
}

template <class A, class B>
inline void check(bool ok, const char* what, const A& a, const B& b, Where where = Where::here()) {
  if (!ok) [[unlikely]] {
    check_failed(what, check_operand(a), check_operand(b), where);
  }
}

}  // namespace kvmm
