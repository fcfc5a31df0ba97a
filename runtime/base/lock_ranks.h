// SPDX-License-Identifier: Apache-2.0
//
// The one list of locks. It gives the enum `LockRank`, the texts of the recorder's messages and the
// table in docs/locking.md (a test holds the page against this list).
//
// A thread takes locks in ascending order of their numbers. Numbers leave gaps, so that a lock can
// be put between two others without touching the rest. A new lock needs a line here first: what it
// protects, and what is never done while holding it. Few locks are better than many.
//
//   X(enumerator, number, name, what it protects, what is never done while holding it)
#pragma once

// clang-format off
#define KVMM_LOCK_RANKS(X)                                                                         \
  X(kControlServer, 10, "control_server",                                                          \
    "the clients of the control socket and their buffers",                                         \
    "read or write a socket; call a client's handler that waits")                                  \
  X(kApi, 20, "api",                                                                               \
    "the object registries of the C API: which runtimes, arenas, sessions and pins exist",         \
    "wait for a fault, for I/O or for a fence; open or close a device")                            \
  X(kAttributes, 25, "attributes",                                                                 \
    "the attribute tree: which attributes exist, and who is inside one of their functions",        \
    "call an attribute's read or write function")                                                  \
  X(kCore, 30, "core",                                                                             \
    "everything in vmm/, tiers/ and sched/: page tables, frames, swap slots, fault and reclaim state",\
    "touch page bytes; make a system call that waits; allocate on the fault path")                 \
  X(kDevice, 35, "device",                                                                         \
    "the tables of one device that its data workers or its own threads read too",                  \
    "make a system call that waits; push a completion")                                            \
  X(kWorkers, 40, "workers",                                                                       \
    "the queue of the data workers (checksum, zero, scrub, copy)",                                 \
    "work on page bytes; push a completion")                                                       \
  X(kLog, 50, "log",                                                                               \
    "the rate limits and the line buffer of the log",                                              \
    "take any other lock; call back into kvmm")
// clang-format on
