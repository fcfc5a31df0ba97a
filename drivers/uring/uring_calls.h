// SPDX-License-Identifier: Apache-2.0
//
// The system calls of the uring driver, as a table, so that a test can make each of them fail.
//
//   UringCalls calls = uring_system_calls();
//   calls.ring_init = [](unsigned, io_uring*, io_uring_params*) { return -EPERM; };
//   auto driver = make_uring_driver(calls);       // every bind now meets a refused io_uring
//
// Functions that are not in the table (fstat, ioctl, read of an eventfd) fail only for reasons that
// the driver checks with `check()`.
//
// Thread safety: the functions are system calls; the table is a value.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdint>

struct io_uring;
struct io_uring_params;

namespace kvmm {

// All but the ring_ functions answer as libc does (-1 and errno), those as liburing does (-errno).
struct UringCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  int (*flock)(int fd, int operation);
  // statx(fd, "", AT_EMPTY_PATH, mask, out).
  int (*statx)(int fd, unsigned mask, struct statx* out);
  int (*ftruncate)(int fd, off_t length);
  int (*fallocate)(int fd, int mode, off_t offset, off_t length);
  int (*eventfd)(unsigned initial, int flags);
  int (*ring_init)(unsigned entries, io_uring* ring, io_uring_params* params);
  int (*ring_eventfd)(io_uring* ring, int fd);
  int (*ring_submit)(io_uring* ring);  // not only at set-up: tests of -EAGAIN and of a dead ring
};

UringCalls uring_system_calls();

}  // namespace kvmm
