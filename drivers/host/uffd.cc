// SPDX-License-Identifier: Apache-2.0
#include "drivers/host/uffd.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "drivers/host/uapi.h"

namespace kvmm {
namespace {

constexpr int kOpenFlags = O_CLOEXEC | O_NONBLOCK;  // and never UFFD_USER_MODE_ONLY
constexpr const char* kDevicePath = "/dev/userfaultfd";

Error refused(int os_error) {
  return Error(Errc::kPermission,
               "userfaultfd is not allowed here. Any one of these allows it: run as root or with "
               "CAP_SYS_PTRACE; `sysctl vm.unprivileged_userfaultfd=1`; give this user read and "
               "write access to /dev/userfaultfd (in a container also pass the device in). Without "
               "it, frames=pinonly serves engines that pin",
               os_error);
}

// A raw descriptor, by the system call or by the device.
Result<int> open_descriptor(const SystemCalls& calls) {
  const int fd = calls.userfaultfd(kOpenFlags);
  if (fd >= 0) {
    return fd;
  }
  const int call_error = errno;
  if (call_error != EPERM && call_error != ENOSYS) {
    const Errc code = errc_of_errno(call_error);
    return Error(code, code == Errc::kLimit ? "userfaultfd(2); raise ulimit -n" : "userfaultfd(2)",
                 call_error);
  }
  const int device = calls.open(kDevicePath, O_RDWR | O_CLOEXEC);
  if (device < 0) {
    const int device_error = errno;
    if (device_error == EMFILE || device_error == ENFILE) {
      return Error(Errc::kLimit, "opening /dev/userfaultfd; raise ulimit -n", device_error);
    }
    if (call_error == ENOSYS && device_error == ENOENT) {
      return Error(Errc::kNotSupported,
                   "this kernel is built without userfaultfd (CONFIG_USERFAULTFD); frames=pinonly "
                   "serves engines that pin",
                   call_error);
    }
    return refused(device_error == ENOENT ? call_error : device_error);
  }
  const int made = calls.ioctl(device, uapi::kUserfaultfdNew,
                               reinterpret_cast<void*>(static_cast<uintptr_t>(kOpenFlags)));
  const int made_error = errno;
  calls.close(device);
  if (made < 0) {
    return made_error == EPERM ? refused(made_error)
                               : Error(errc_of_errno(made_error), kDevicePath, made_error);
  }
  return made;
}

// The handshake: enables `features`, answers with what the kernel has.
Result<uint64_t> handshake(const SystemCalls& calls, int fd, uint64_t features) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  if (calls.ioctl(fd, UFFDIO_API, &api) != 0) {
    const int os_error = errno;
    return Error(errc_of_errno(os_error), "UFFDIO_API", os_error);
  }
  return static_cast<uint64_t>(api.features);
}

std::string missing_text(uint64_t missing) {
  if ((missing & uapi::kFeatureMove) != 0) {
    return "this kernel has no UFFDIO_MOVE (Linux 6.8 and later have it), which movable frames "
           "need; shareable frames work without it: frames=shareable";
  }
  if ((missing & uapi::kFeaturePoison) != 0) {
    // Without it a touch of a page that is lost would wait for ever.
    return "this kernel has no UFFDIO_POISON (Linux 6.6 and later have it), the answer to a touch "
           "of a page that is lost; frames=pinonly serves engines that pin";
  }
  return "this kernel's userfaultfd lacks minor faults on shared memory (Linux 5.14 and later "
         "have them), which shareable frames need; frames=pinonly serves engines that pin";
}

// Bytes that an ioctl reports: its out field is a count, or a negative error, or untouched.
UffdStep step_of(int rc, int64_t reported, uint64_t length) {
  if (rc == 0) {
    return {length, 0};
  }
  const uint64_t done = reported > 0 ? std::min(static_cast<uint64_t>(reported), length) : 0;
  return {done, errno};
}

}  // namespace

Result<Uffd> Uffd::open(const SystemCalls& calls, uint64_t required, uint64_t optional) {
  Result<int> asked = open_descriptor(calls);
  if (!asked) {
    return std::move(asked).error();
  }
  const Result<uint64_t> offered = handshake(calls, *asked, 0);
  calls.close(*asked);
  if (!offered) {
    return offered.error();
  }
  if (const uint64_t missing = required & ~*offered; missing != 0) {
    return Error(Errc::kNotSupported, missing_text(missing));
  }
  Result<int> fd = open_descriptor(calls);
  if (!fd) {
    return std::move(fd).error();
  }
  const uint64_t wanted = required | (optional & *offered);
  Uffd uffd(calls, *fd, wanted);
  if (const Result<uint64_t> enabled = handshake(calls, *fd, wanted); !enabled) {
    return enabled.error();
  }
  return uffd;
}

Uffd::~Uffd() {
  if (fd_ >= 0) {
    calls_->close(fd_);
  }
}

Result<void> Uffd::register_range(AddressRange range, uint64_t mode) const {
  uffdio_register r{};
  r.range = {range.start.value(), range.length.value()};
  r.mode = mode;
  if (calls_->ioctl(fd_, UFFDIO_REGISTER, &r) != 0) {
    const int os_error = errno;
    return Error(errc_of_errno(os_error), "UFFDIO_REGISTER", os_error);
  }
  return {};
}

UffdStep Uffd::move(uint64_t dst, uint64_t src, uint64_t length, bool wake) const {
  uapi::UffdMove m{};
  m.dst = dst;
  m.src = src;
  m.len = length;
  m.mode = wake ? 0 : uapi::kModeDontWake;
  const int rc = calls_->ioctl(fd_, uapi::kUffdMove, &m);
  return step_of(rc, m.move, length);
}

UffdStep Uffd::copy(uint64_t dst, const void* from, uint64_t length) const {
  uffdio_copy c{};
  c.dst = dst;
  c.src = reinterpret_cast<uint64_t>(from);
  c.len = length;
  const int rc = calls_->ioctl(fd_, UFFDIO_COPY, &c);
  return step_of(rc, c.copy, length);
}

UffdStep Uffd::continue_range(uint64_t start, uint64_t length) const {
  uffdio_continue c{};
  c.range = {start, length};
  const int rc = calls_->ioctl(fd_, UFFDIO_CONTINUE, &c);
  return step_of(rc, c.mapped, length);
}

UffdStep Uffd::poison(uint64_t start, uint64_t length) const {
  uapi::UffdPoison p{};
  p.range = {start, length};
  const int rc = calls_->ioctl(fd_, uapi::kUffdPoison, &p);
  return step_of(rc, p.updated, length);
}

size_t Uffd::read_faults(std::span<FaultEvent> out) const {
  std::array<uffd_msg, 16> messages;
  size_t n = 0;
  while (n < out.size()) {
    const size_t room = std::min(messages.size(), out.size() - n);
    const ssize_t got = calls_->read(fd_, messages.data(), room * sizeof(uffd_msg));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;  // EAGAIN: none waits
    }
    for (size_t i = 0; i < static_cast<size_t>(got) / sizeof(uffd_msg); ++i) {
      const uffd_msg& m = messages[i];
      if (m.event != UFFD_EVENT_PAGEFAULT) {
        continue;
      }
      FaultEvent& e = out[n++];
      e.va = VirtAddr(round_down(m.arg.pagefault.address, kPageSizeMin.value()));
      e.write = (m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
      e.thread = has(uapi::kFeatureThreadId) ? m.arg.pagefault.feat.ptid : 0;
    }
    if (static_cast<size_t>(got) < room * sizeof(uffd_msg)) {
      break;  // that was all: a second read would only say so
    }
  }
  return n;
}

void Uffd::wake(AddressRange range) const {
  uffdio_range r = {range.start.value(), range.length.value()};
  calls_->ioctl(fd_, UFFDIO_WAKE, &r);  // fails only for arguments that `reserve` rules out
}

}  // namespace kvmm
