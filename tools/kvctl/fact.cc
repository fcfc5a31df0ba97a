// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/fact.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace kvmm::facts {
namespace {

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): a signal handler's way out
sigjmp_buf g_out;

void jump(int number) {
  siglongjmp(g_out, number);
}

int handshake(int fd, uint64_t features, uint64_t* offered) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  const int error = ::ioctl(fd, UFFDIO_API, &api) == 0 ? 0 : errno;
  *offered = api.features;
  return error;
}

int open_uffd(int flags) {
  const long fd = ::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
  if (fd >= 0 || errno != EPERM) {
    return static_cast<int>(fd);
  }
  const Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (!device.ok()) {
    errno = EPERM;
    return -1;
  }
  return ::ioctl(device.get(), _IO(0xAA, 0x00), O_CLOEXEC | O_NONBLOCK | flags);
}

}  // namespace

Finding holds(std::string text) {
  return {Verdict::kHolds, std::move(text)};
}
Finding other(std::string text) {
  return {Verdict::kOther, std::move(text)};
}
Finding cannot_tell(std::string text) {
  return {Verdict::kCannotTell, std::move(text)};
}

std::string errno_text(int error) {
  const char* const name = ::strerrorname_np(error);
  return error == 0 ? "success" : name == nullptr ? "errno " + std::to_string(error) : name;
}

Memory::Memory(size_t length, int fd, bool huge) : length_(length) {
  void* const all = ::mmap(nullptr, length + kHuge, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) {
    return;
  }
  const auto start = reinterpret_cast<uint64_t>(all);
  const uint64_t aligned = (start + kHuge - 1) & ~(kHuge - 1);
  const auto place = [](uint64_t a) { return reinterpret_cast<void*>(a); };
  if (aligned != start) {
    ::munmap(all, aligned - start);
  }
  if (const uint64_t tail = start + kHuge - aligned; tail != 0) {
    ::munmap(place(aligned + length), tail);
  }
  const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
  void* const got = ::mmap(place(aligned), length, PROT_READ | PROT_WRITE, kind | MAP_FIXED, fd, 0);
  if (got == MAP_FAILED) {
    ::munmap(place(aligned), length);
    return;
  }
  base_ = static_cast<unsigned char*>(got);
  advise(huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}
Memory::~Memory() {
  if (base_ != nullptr) {
    ::munmap(base_, length_);
  }
}
int Memory::advise(int advice) const {
  return ::madvise(base_, length_, advice) == 0 ? 0 : errno;
}

Fd::~Fd() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

// The kernel lets a descriptor be told once: what it offers is asked with another.
Uffd::Uffd(uint64_t features, int flags) : fd_(open_uffd(flags)) {
  if (!fd_.ok()) {
    error_ = errno;
    return;
  }
  const Fd asked(open_uffd(flags));
  if (!asked.ok() || handshake(asked.get(), 0, &offered_) != 0) {
    error_ = errno;
    return;
  }
  uint64_t enabled = 0;
  error_ = (offered_ & features) == features ? handshake(fd_.get(), features, &enabled) : ENOSYS;
}
Finding Uffd::refused() const {
  return cannot_tell(error_ == ENOSYS ? "this kernel's userfaultfd lacks it"
                                      : "userfaultfd: " + errno_text(error_));
}
int Uffd::register_range(const Memory& m, uint64_t mode) const {
  uffdio_register r{};
  r.range = {m.at(), m.size()};
  r.mode = mode;
  return ::ioctl(fd_.get(), UFFDIO_REGISTER, &r) == 0 ? 0 : errno;
}
int Uffd::move(uint64_t dst, uint64_t src, size_t length, int64_t* moved) const {
  UffdMove m{dst, src, length, 0, 0};
  int error = 0;
  for (int i = 0; i < 1000; ++i) {  // EAGAIN: the kernel was disturbed, nothing more
    error = ::ioctl(fd_.get(), kUffdMove, &m) == 0 ? 0 : errno;
    if (error != EAGAIN || m.move > 0) {
      break;
    }
    m.move = 0;
  }
  if (moved != nullptr) {
    *moved = m.move;
  }
  return error;
}
int Uffd::poison(uint64_t start, size_t length) const {
  UffdPoison p{{start, length}, 0, 0};
  return ::ioctl(fd_.get(), kUffdPoison, &p) == 0 ? 0 : errno;
}
int Uffd::zeropage(uint64_t start, size_t length) const {
  uffdio_zeropage z{};
  z.range = {start, length};
  return ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &z) == 0 ? 0 : errno;
}
int Uffd::map_shared(uint64_t start, size_t length) const {
  uffdio_continue c{};
  c.range = {start, length};
  return ::ioctl(fd_.get(), UFFDIO_CONTINUE, &c) == 0 ? 0 : errno;
}

bool present(uint64_t address) {
  const Fd map(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uint64_t entry = 0;
  const auto at = static_cast<off_t>(address / kPage * sizeof entry);
  return ::pread(map.get(), &entry, sizeof entry, at) == sizeof entry && (entry >> 63) != 0;
}

bool mapped_as_huge(uint64_t address) {
  struct Region {
    uint64_t start, end, categories;
  } region{};
  struct Scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any,
        result;
  } scan{};
  constexpr uint64_t kIsHuge = uint64_t{1} << 6;
  scan.size = sizeof scan;
  scan.start = address;
  scan.end = address + kHuge;
  scan.vec = reinterpret_cast<uint64_t>(&region);
  scan.vec_len = 1;
  scan.mask = scan.result = kIsHuge;
  const Fd map(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  return ::ioctl(map.get(), _IOWR('f', 16, Scan), &scan) == 1 && region.end - region.start == kHuge;
}

int signal_of_read(uint64_t address) {
  struct sigaction act {};
  struct sigaction bus {};
  struct sigaction segv {};
  act.sa_handler = jump;
  sigemptyset(&act.sa_mask);
  ::sigaction(SIGBUS, &act, &bus);
  ::sigaction(SIGSEGV, &act, &segv);
  const int number = sigsetjmp(g_out, 1);
  if (number == 0) {
    [[maybe_unused]] const unsigned char byte =
        *reinterpret_cast<const volatile unsigned char*>(address);
  }
  ::sigaction(SIGBUS, &bus, nullptr);
  ::sigaction(SIGSEGV, &segv, nullptr);
  return number;
}

}  // namespace kvmm::facts
