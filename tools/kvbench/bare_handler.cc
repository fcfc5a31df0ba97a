// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/bare_handler.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/stats.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kHuge = 2 << 20;

// Of the kernel's interface, what the headers of Linux 6.1 lack.
constexpr uint64_t kFeatureMove = uint64_t{1} << 16;
struct UffdMove {
  uint64_t dst, src, len, mode;
  int64_t move;
};
constexpr unsigned long kUffdMove = _IOWR(UFFDIO, 0x05, UffdMove);
constexpr unsigned long kUserfaultfdNew = _IO(0xAA, 0x00);

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Anonymous memory that begins at a multiple of 2 MiB.
class Range {
 public:
  explicit Range(uint64_t bytes, bool huge) : mapped_(bytes + kHuge) {
    memory_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) {
      throw Failure(kExitFailed, fmt::format("memory: {}", std::strerror(errno)));
    }
    start_ = (reinterpret_cast<uint64_t>(memory_) + kHuge - 1) / kHuge * kHuge;
    (void)madvise(memory_, mapped_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }
  ~Range() { munmap(memory_, mapped_); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  uint64_t start() const { return start_; }

 private:
  uint64_t mapped_;
  void* memory_;
  uint64_t start_;
};

// Holds the calling thread on one core; afterwards it may run where it could before.
class OnCore {
 public:
  explicit OnCore(int core) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    pthread_getaffinity_np(pthread_self(), sizeof(before_), &before_);
    pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
  }
  ~OnCore() { pthread_setaffinity_np(pthread_self(), sizeof(before_), &before_); }
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;

 private:
  cpu_set_t before_;
};

// The first two cores this process may use; the second -1 where there is one.
std::array<int, 2> two_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  std::array<int, 2> found = {-1, -1};
  size_t n = 0;
  for (int core = 0; core < CPU_SETSIZE && n < found.size(); ++core) {
    if (CPU_ISSET(core, &allowed)) {
      found[n++] = core;
    }
  }
  return found;
}

int open_userfaultfd() {
  int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) {
    const Descriptor device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    fd = device.get() < 0 ? -1 : ioctl(device.get(), kUserfaultfdNew, O_CLOEXEC | O_NONBLOCK);
  }
  return fd;
}

void require(bool right, const char* what) {
  if (!right) {
    throw Failure(kExitImpossible, fmt::format("{}: {}", what, std::strerror(errno)));
  }
}

}  // namespace

std::vector<double> bare_faults(uint64_t page_size, uint64_t pages, Place place) {
  const std::array<int, 2> cores = two_cores();
  const int handler_core = place == Place::kSameCore ? cores[0] : cores[1];
  if (handler_core < 0) {
    return {};
  }
  const Descriptor uffd(open_userfaultfd());
  require(uffd.get() >= 0, "userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatureMove;
  require(ioctl(uffd.get(), UFFDIO_API, &api) == 0, "userfaultfd with MOVE");
  const Range touched(pages * page_size, page_size == kHuge);
  const Range frames(pages * page_size, page_size == kHuge);
  std::memset(reinterpret_cast<void*>(frames.start()), 1, pages * page_size);
  uffdio_register range{};
  range.range = {touched.start(), pages * page_size};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  require(ioctl(uffd.get(), UFFDIO_REGISTER, &range) == 0, "registering memory");
  const Descriptor stop(eventfd(0, EFD_CLOEXEC));
  require(stop.get() >= 0, "eventfd");

  std::atomic<int> error{0};
  std::jthread handler([&] {
    const OnCore core(handler_core);
    for (uint64_t next = 0;;) {
      std::array<pollfd, 2> fds = {{{uffd.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}}};
      if (poll(fds.data(), fds.size(), -1) < 0 || (fds[1].revents & POLLIN) != 0) {
        return;
      }
      uffd_msg message{};
      if (::read(uffd.get(), &message, sizeof(message)) != sizeof(message)) {
        continue;
      }
      UffdMove move{};
      move.dst = message.arg.pagefault.address / page_size * page_size;
      move.src = frames.start() + next++ * page_size;
      move.len = page_size;
      if (ioctl(uffd.get(), kUffdMove, &move) != 0) {
        // The toucher must go on whatever happens: ordinary zeros for what is left.
        error = errno;
        ioctl(uffd.get(), UFFDIO_UNREGISTER, &range.range);
        return;
      }
    }
  });
  std::vector<double> us;
  {
    const OnCore core(cores[0]);
    for (uint64_t i = 0; i < pages; ++i) {
      const auto* const word =
          reinterpret_cast<const volatile uint64_t*>(touched.start() + i * page_size);
      const Clock::time_point start = Clock::now();
      (void)*word;
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
  }
  const uint64_t one = 1;
  (void)!write(stop.get(), &one, sizeof(one));
  handler.join();
  if (error != 0) {
    errno = error;
    require(false, "UFFDIO_MOVE");
  }
  return us;
}

std::string bare_faults_text(uint64_t page_size, uint64_t pages) {
  const std::vector<double> same = bare_faults(page_size, pages, Place::kSameCore);
  const std::vector<double> other = bare_faults(page_size, pages, Place::kOtherCore);
  std::string out = fmt::format(
      "bare handler (poll, read, UFFDIO_MOVE): {:.1f} us on the "
      "toucher's core",
      quantile(same, 0.5));
  if (!other.empty()) {
    out += fmt::format(", {:.1f} us on another", quantile(other, 0.5));
  }
  return out;
}

}  // namespace kvmm::bench
