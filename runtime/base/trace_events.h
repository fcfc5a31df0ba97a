// SPDX-License-Identifier: Apache-2.0
//
// The one list of trace events: enum, names and the meaning of their arguments. `kvctl trace`
// prints what stands here.
//
//   X(name, first argument, second, third, fourth, fifth)      "" : not used
//
// Words: `session` its id, `page` plane and page index in it (trace_page), `address` of the engine,
// `frame` address of the frame, `slot` a SlotId, `piece` of a page's I/O, from 0, `kind` a
// FaultKind, `errc` an Errc, `ns` nanoseconds. A reader prints an argument by its word. Events may
// be added anywhere: numbers never leave the process, names do.
#pragma once

#include <cstdint>

namespace kvmm {

// What a touch found.
enum class FaultKind : uint8_t { kZero, kMinor, kMajor, kSpurious, kLost };
inline constexpr const char* kFaultKinds[] = {"zero", "minor", "major", "spurious", "lost"};

// A page of a session in one number: `plane` in the upper half, its index in the object below.
constexpr uint64_t trace_page(uint32_t plane, uint32_t index) {
  return uint64_t{plane} << 32 | index;
}

}  // namespace kvmm

// clang-format off
#define KVMM_TRACE_EVENTS(X)                                                                       \
  /* faults, in the order of a life: read by the core ... the thread runs on */                    \
  X(fault_begin,    "session", "page", "address", "write", "kind")                                 \
  X(stray,          "address", "thread", "", "", "")                                               \
  X(frame,          "session", "page", "frame", "zeroed", "")                                      \
  X(read,           "session", "page", "slot", "bytes", "pieces")                                  \
  X(io_submit,      "session", "page", "piece", "bytes", "write")                                  \
  X(io_done,        "session", "page", "piece", "errc", "write")                                   \
  X(checksummed,    "session", "page", "piece", "", "")                                            \
  X(swap_in,        "session", "page", "slot", "errc", "ns")                                       \
  X(zero_fill,      "session", "page", "", "", "")                                                 \
  X(fault_end,      "session", "page", "errc", "ns", "kind")                                       \
  /* mappings */                                                                                   \
  X(map,            "session", "page", "frame", "errc", "")                                        \
  X(unmap,          "session", "page", "frame", "errc", "")                                        \
  X(poison,         "session", "page", "errc", "", "")                                             \
  X(pin,            "session", "bytes", "", "", "")                                                \
  X(unpin,          "session", "", "", "", "")                                                     \
  /* pages */                                                                                      \
  X(seal,           "session", "page", "generation", "", "")                                       \
  X(seal_violation, "session", "page", "checksum", "found", "")                                    \
  X(verify_fail,    "session", "page", "slot", "errc", "")                                         \
  X(discard,        "session", "page", "", "", "")                                                 \
  X(recompute,      "session", "begin", "end", "", "")                                             \
  /* reclaim and swap; `by` the session that waits for the frame, 0: reclaimd */                   \
  X(victim,         "session", "page", "by", "pass", "")                                           \
  X(clean_drop,     "session", "page", "slot", "", "")                                             \
  X(swap_out,       "session", "page", "slot", "errc", "ns")                                       \
  X(prefetch,       "session", "begin", "end", "", "")                                             \
  X(migrate,        "session", "page", "tier", "", "")                                             \
  X(io_error,       "session", "page", "offset", "bytes", "os_error")                              \
  /* objects */                                                                                    \
  X(session_open,   "session", "arena", "lane", "", "")                                            \
  X(session_close,  "session", "arena", "lane", "", "")
// clang-format on
