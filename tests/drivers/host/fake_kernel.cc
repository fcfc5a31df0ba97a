// SPDX-License-Identifier: Apache-2.0
#include "tests/drivers/host/fake_kernel.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "drivers/host/uapi.h"

namespace kvmm::test {
namespace {

FakeKernel* current = nullptr;

template <class Hook, class Real, class... Args>
auto ask(Hook& hook, Real real, Args... args) {
  if (hook) {
    if (auto answer = hook(args...); answer) {
      return *answer;
    }
  }
  return real();
}

uint64_t number(void* p) {
  return reinterpret_cast<uint64_t>(p);
}

}  // namespace

FakeKernel::FakeKernel() : calls_(real_system_calls()) {
  EXPECT_EQ(current, nullptr);
  current = this;
  calls_.userfaultfd = [](int flags) {
    return ask(
        current->on_userfaultfd, [=] { return real_system_calls().userfaultfd(flags); }, flags);
  };
  calls_.open = [](const char* path, int flags) {
    return ask(
        current->on_open, [=] { return real_system_calls().open(path, flags); }, path);
  };
  calls_.ioctl = [](int fd, unsigned long request, void* argument) {
    return ask(
        current->on_ioctl, [=] { return real_system_calls().ioctl(fd, request, argument); }, fd,
        request, argument);
  };
  calls_.read = [](int fd, void* buffer, size_t length) {
    return ask(
        current->on_read, [=] { return real_system_calls().read(fd, buffer, length); }, fd, buffer,
        length);
  };
  calls_.mmap = [](void* address, size_t length, int prot, int flags, int fd, off_t offset) {
    return ask(
        current->on_mmap,
        [=] { return real_system_calls().mmap(address, length, prot, flags, fd, offset); }, length,
        flags);
  };
  calls_.madvise = [](void* address, size_t length, int advice) {
    return ask(
        current->on_madvise, [=] { return real_system_calls().madvise(address, length, advice); },
        number(address), length, advice);
  };
  calls_.mprotect = [](void* address, size_t length, int prot) {
    return ask(
        current->on_mprotect, [=] { return real_system_calls().mprotect(address, length, prot); },
        number(address), length, prot);
  };
  calls_.bind_node = [](void* address, size_t length, unsigned node) {
    return ask(
        current->on_bind_node, [=] { return real_system_calls().bind_node(address, length, node); },
        number(address), length, node);
  };
  calls_.memfd_create = [](const char* name, unsigned flags) {
    return ask(current->on_memfd_create,
               [=] { return real_system_calls().memfd_create(name, flags); });
  };
  calls_.ftruncate = [](int fd, off_t length) {
    return ask(current->on_ftruncate, [=] { return real_system_calls().ftruncate(fd, length); });
  };
  calls_.fallocate = [](int fd, int mode, off_t offset, off_t length) {
    return ask(
        current->on_fallocate,
        [=] { return real_system_calls().fallocate(fd, mode, offset, length); }, mode);
  };
}

FakeKernel::~FakeKernel() {
  current = nullptr;
}

void FakeKernel::hide_features(uint64_t features) {
  on_ioctl = [features](int fd, unsigned long request, void* argument) -> std::optional<int> {
    if (request != UFFDIO_API) {
      return {};
    }
    auto* api = static_cast<uffdio_api*>(argument);
    if ((api->features & features) != 0) {
      errno = EINVAL;
      return -1;
    }
    const int rc = real_system_calls().ioctl(fd, request, argument);
    api->features &= ~features;
    return rc;
  };
}

Holdings Holdings::now() {
  size_t descriptors = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++descriptors;
  }
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return {descriptors, pages * 4096};
}

}  // namespace kvmm::test
