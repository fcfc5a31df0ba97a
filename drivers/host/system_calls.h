// SPDX-License-Identifier: Apache-2.0
//
// The one seam where the host driver meets the kernel: a table of function pointers.
//
//   HostMoveMmu, HostShareMmu, Uffd, Pagemap --> SystemCalls --> kernel
//                                                           `--> a test that plays EPERM, a kernel
//                                                                without MOVE, EBUSY, short moves
//
// Each entry has the contract of the system call of its name: -1 (or MAP_FAILED) and errno.
//
// Thread safety: the table is constant; the calls are as thread-safe as the kernel's.
#pragma once

#include <sys/types.h>

#include <cstddef>

#include "runtime/base/result.h"

namespace kvmm {

struct SystemCalls {
  int (*userfaultfd)(int flags);
  int (*open)(const char* path, int flags);
  int (*close)(int fd);
  int (*ioctl)(int fd, unsigned long request, void* argument);
  ssize_t (*read)(int fd, void* buffer, size_t length);
  void* (*mmap)(void* address, size_t length, int prot, int flags, int fd, off_t offset);
  int (*munmap)(void* address, size_t length);
  int (*madvise)(void* address, size_t length, int advice);
  int (*mprotect)(void* address, size_t length, int prot);
  // Binds to the one node `node` (MPOL_BIND).
  int (*bind_node)(void* address, size_t length, unsigned node);
  int (*memfd_create)(const char* name, unsigned flags);
  int (*ftruncate)(int fd, off_t length);
  int (*fallocate)(int fd, int mode, off_t offset, off_t length);
};

// The kernel's own.
const SystemCalls& real_system_calls() noexcept;

// What an errno of these calls means to our callers. 0 is kOk; what has no closer word is kIo.
Errc errc_of_errno(int os_error) noexcept;

}  // namespace kvmm
