// SPDX-License-Identifier: Apache-2.0
//
// The real kernel with hooks: a test decides call by call what the driver is told.
//
//   FakeKernel kernel;                          // one at a time
//   kernel.on_ioctl = [](int fd, unsigned long request, void* argument) -> std::optional<int> {
//     if (request != uapi::kUffdMove) return {};  // to the kernel
//     errno = EBUSY; return -1;
//   };
//   HostConfig config; config.calls = kernel.calls();
//
// Thread safety: hooks are set while no driver runs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "drivers/host/system_calls.h"

namespace kvmm::test {

class FakeKernel {
 public:
  FakeKernel();
  ~FakeKernel();
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  const SystemCalls* calls() const { return &calls_; }

  // Each answers as the call would (with errno set), or nothing: then the kernel is asked.
  std::function<std::optional<int>(int flags)> on_userfaultfd;
  std::function<std::optional<int>(const char* path)> on_open;
  std::function<std::optional<int>(int fd, unsigned long request, void* argument)> on_ioctl;
  std::function<std::optional<ssize_t>(int fd, void* buffer, size_t length)> on_read;
  std::function<std::optional<void*>(size_t length, int flags)> on_mmap;
  std::function<std::optional<int>(uint64_t start, size_t length, int advice)> on_madvise;
  std::function<std::optional<int>(uint64_t start, size_t length, int prot)> on_mprotect;
  std::function<std::optional<int>(uint64_t start, size_t length, unsigned node)> on_bind_node;
  std::function<std::optional<int>()> on_memfd_create;
  std::function<std::optional<int>()> on_ftruncate;
  std::function<std::optional<int>(int mode)> on_fallocate;

  // Hides `features` (bits of uapi::kFeature*) of this kernel's userfaultfd.
  void hide_features(uint64_t features);

 private:
  SystemCalls calls_;
};

// What a failed call must give back: open descriptors and bytes of address space.
struct Holdings {
  size_t descriptors;
  uint64_t address_space;
  static Holdings now();
  bool operator==(const Holdings&) const = default;
};

}  // namespace kvmm::test
