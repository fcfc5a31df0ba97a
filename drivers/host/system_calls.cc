// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/system_calls.h"

#include <fcntl.h>
#include <numaif.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace kvmm {
namespace {

int real_userfaultfd(int flags) {
  return static_cast<int>(syscall(SYS_userfaultfd, flags));
}
int real_open(const char* path, int flags) {
  return ::open(path, flags);
}
int real_ioctl(int fd, unsigned long request, void* argument) {
  return ::ioctl(fd, request, argument);
}

int real_bind_node(void* address, size_t length, unsigned node) {
  constexpr unsigned kBitsPerWord = 8 * sizeof(unsigned long);
  std::array<unsigned long, 1024 / kBitsPerWord> mask{};
  if (node >= mask.size() * kBitsPerWord) {
    errno = EINVAL;
    return -1;
  }
  mask[node / kBitsPerWord] = 1UL << (node % kBitsPerWord);
  // The kernel reads one bit less than it is told.
  return static_cast<int>(
      mbind(address, length, MPOL_BIND, mask.data(), mask.size() * kBitsPerWord + 1, 0));
}

}  // namespace

const SystemCalls& real_system_calls() noexcept {
  static const SystemCalls calls = {
      .userfaultfd = real_userfaultfd,
      .open = real_open,
      .close = ::close,
      .ioctl = real_ioctl,
      .read = ::read,
      .mmap = ::mmap,
      .munmap = ::munmap,
      .madvise = ::madvise,
      .mprotect = ::mprotect,
      .bind_node = real_bind_node,
      .memfd_create = ::memfd_create,
      .ftruncate = ::ftruncate,
      .fallocate = ::fallocate,
  };
  return calls;
}

Errc errc_of_errno(int os_error) noexcept {
  switch (os_error) {
    case 0:
      return Errc::kOk;
    case ENOMEM:
      return Errc::kNoMemory;
    case EPERM:
    case EACCES:
      return Errc::kPermission;
    case ENOENT:
      return Errc::kNotFound;
    case EEXIST:
      return Errc::kExists;
    case EBUSY:
    case EAGAIN:
      return Errc::kBusy;
    case EINVAL:
      return Errc::kInvalid;
    case ENOSPC:
      return Errc::kNoSpace;
    case EMFILE:
    case ENFILE:
      return Errc::kLimit;
    case ENOSYS:
    case ENOTTY:
    case ENODEV:
    case EOPNOTSUPP:
      return Errc::kNotSupported;
    default:
      return Errc::kIo;
  }
}

}  // namespace kvmm
