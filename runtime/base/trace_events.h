// SPDX-License-Identifier: Apache-2.0
//
// The one list of trace events: enum, names and the meaning of their arguments. `kvctl trace`
// prints what stands here.
//
//   X(name, first argument, second, third, fourth, fifth)      "" : not used
//
// Words: `session` its id, `page` the index of the page in its object, `vpn` the page in its VMA,
// `pfn` the frame, `area` the number of a swap area, `errc` an Errc, `ns` nanoseconds. Events may
// be added anywhere: their numbers never leave the process.
#pragma once

// clang-format off
#define KVMM_TRACE_EVENTS(X)                                                                       \
  /* faults */                                                                                     \
  X(fault_begin,    "session", "address", "write", "thread", "")                                   \
  X(fault_end,      "session", "address", "errc", "ns", "")                                        \
  X(spurious,       "session", "address", "", "", "")                                              \
  X(minor,          "session", "vpn", "page", "pfn", "")                                           \
  X(major,          "session", "vpn", "page", "pfn", "slot")                                       \
  X(zero_fill,      "session", "vpn", "page", "pfn", "")                                           \
  /* mappings */                                                                                   \
  X(map,            "session", "vpn", "pfn", "errc", "")                                           \
  X(unmap,          "session", "vpn", "pfn", "errc", "")                                           \
  X(poison,         "session", "vpn", "page", "errc", "")                                          \
  X(pin,            "session", "begin", "end", "answer", "")                                       \
  X(unpin,          "session", "begin", "end", "", "")                                             \
  /* pages */                                                                                      \
  X(seal,           "session", "page", "generation", "", "")                                       \
  X(seal_violation, "session", "page", "expected", "found", "")                                    \
  X(verify_fail,    "session", "page", "slot", "expected", "found")                                \
  X(discard,        "session", "page", "", "", "")                                                 \
  X(recompute,      "session", "begin", "end", "", "")                                             \
  /* reclaim and swap */                                                                           \
  X(reclaim,        "tier", "wanted", "freed", "scanned", "")                                      \
  X(direct_reclaim, "tier", "wanted", "freed", "scanned", "")                                      \
  X(isolate,        "session", "page", "pfn", "", "")                                              \
  X(refault,        "session", "page", "pfn", "ns", "")                                            \
  X(clean_drop,     "session", "page", "pfn", "slot", "")                                          \
  X(swap_out,       "session", "page", "pfn", "slot", "errc")                                      \
  X(swap_in,        "session", "page", "pfn", "slot", "errc")                                      \
  X(prefetch,       "session", "begin", "end", "", "")                                             \
  X(swapon,         "area", "bytes", "priority", "errc", "")                                       \
  X(swapoff,        "area", "moved", "errc", "", "")                                               \
  X(io_error,       "area", "offset", "bytes", "os_error", "")                                     \
  /* objects */                                                                                    \
  X(session_open,   "session", "arena", "lane", "", "")                                            \
  X(session_close,  "session", "arena", "lane", "", "")                                            \
  X(attr_set,       "id", "old", "new", "errc", "")
// clang-format on
