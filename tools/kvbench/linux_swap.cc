// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/linux_swap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/memory_cgroup.h"
#include "tools/kvbench/scratch.h"

namespace kvmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kHuge = 2 << 20;

// Between kvbench and toucher, and from the keeper when it is ready or cannot be.
struct Message {
  enum What : uint32_t { kReady, kMissing, kWrong, kResume, kWillneed, kSeconds } what;
  int32_t cgroup_version;
  double seconds;
  std::array<char, 480> text;
};

Message missing(const std::string& why, Message::What what = Message::kMissing) {
  Message m{what, 0, 0, {}};
  why.copy(m.text.data(), m.text.size() - 1);
  return m;
}

bool send_message(int fd, const Message& m) {
  return send(fd, &m, sizeof(m), MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(m));
}

bool receive_message(int fd, Message* m) {
  ssize_t n = 0;
  do {
    n = recv(fd, m, sizeof(*m), 0);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(sizeof(*m));
}

// The first page of a swap file as mkswap(8) writes it, for pages of 4 KiB.
void write_swap_header(int fd, uint64_t bytes) {
  struct {
    std::array<char, 1024> boot;
    uint32_t version, last_page, bad_pages;
    std::array<char, kPage - 1024 - 3 * 4 - 10> unused;
    std::array<char, 10> magic;
  } header{};
  static_assert(sizeof(header) == kPage);
  header.version = 1;
  header.last_page = static_cast<uint32_t>(bytes / kPage - 1);
  std::memcpy(header.magic.data(), "SWAPSPACE2", header.magic.size());
  if (pwrite(fd, &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header))) {
    throw Failure(kExitFailed, fmt::format("writing a swap file: {}", std::strerror(errno)));
  }
}

uint64_t number_of(uint64_t page) {
  return page * 0x9e3779b97f4a7c15u + 1;
}

// ---- the toucher

class Memory {
 public:
  explicit Memory(uint64_t bytes) : bytes_(bytes) {
    void* const m = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) {
      throw Failure(kExitFailed, fmt::format("memory: {}", std::strerror(errno)));
    }
    start_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(m) + kHuge - 1) / kHuge * kHuge);
    std::mt19937_64 random(3);
    std::vector<uint64_t> page(kPage / sizeof(uint64_t));
    for (uint64_t& word : page) {
      word = random();  // no page of zeros, which the kernel does not write
    }
    for (uint64_t i = 0; i < bytes / kPage; ++i) {
      page[0] = number_of(i);
      std::memcpy(start_ + i * kPage, page.data(), kPage);
    }
  }

  // Nothing of it is in memory, and nothing in the swap cache.
  void push_out(const MemoryCgroup& group) {
    constexpr uint64_t kRest = 8 * kMiB;  // the process itself
    constexpr auto kPatience = std::chrono::seconds(60);
    const Clock::time_point deadline = Clock::now() + kPatience;
    while (Clock::now() < deadline) {
      (void)madvise(start_, bytes_, MADV_PAGEOUT);
      group.reclaim_all();
      if (resident() == 0 && group.usage() < kRest) {
        return;
      }
      constexpr auto kWriteback = std::chrono::milliseconds(1);  // pages stay until it has ended
      std::this_thread::sleep_for(kWriteback);
    }
    throw Failure(kExitFailed, fmt::format("{} of {} KiB stayed in memory, {} KiB are charged",
                                           resident() >> 10, bytes_ >> 10, group.usage() >> 10));
  }

  double touch(bool willneed) {
    uint64_t wrong = 0;
    const Clock::time_point begin = Clock::now();
    if (willneed) {
      (void)madvise(start_, bytes_, MADV_WILLNEED);
    }
    for (uint64_t i = 0; i < bytes_ / kPage; ++i) {
      const auto* const word = reinterpret_cast<const volatile uint64_t*>(start_ + i * kPage);
      wrong += *word == number_of(i) ? 0 : 1;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (wrong != 0) {
      throw Failure(kExitFailed, fmt::format("{} pages came back from Linux swap with other bytes "
                                             "than were written",
                                             wrong));
    }
    return seconds;
  }

 private:
  // Bytes that a touch would find at once; the swap cache counts.
  uint64_t resident() const {
    std::vector<unsigned char> there(bytes_ / kPage);
    if (mincore(start_, bytes_, there.data()) != 0) {
      return bytes_;
    }
    uint64_t pages = 0;
    for (const unsigned char c : there) {
      pages += c & 1u;
    }
    return pages * kPage;
  }

  uint64_t bytes_;
  char* start_ = nullptr;
};

[[noreturn]] void run_toucher(int talk, const MemoryCgroup& group, uint64_t bytes) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  try {
    group.enter();
    Memory memory(bytes);
    send_message(talk, Message{Message::kReady, group.version(), 0, {}});
    for (Message m{}; receive_message(talk, &m);) {
      memory.push_out(group);
      send_message(talk,
                   Message{Message::kSeconds, 0, memory.touch(m.what == Message::kWillneed), {}});
    }
  } catch (const Failure& e) {
    send_message(talk, missing(e.what(), e.status() == kExitImpossible ? Message::kMissing
                                                                       : Message::kWrong));
  }
  _exit(0);
}

// ---- the keeper

// A swap file in use while this lives. It has a name until then: the kernel takes no other.
class SwapFile {
 public:
  SwapFile(const std::string& dir, uint64_t bytes)
      : scratch_(dir, bytes), path_(scratch_.file("linux-swap")) {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd_ < 0) {
      throw Failure(kExitFailed, fmt::format("{}: {}", path_, std::strerror(errno)));
    }
    if (const int error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes)); error != 0) {
      close(fd_);
      throw Failure(kExitFailed, fmt::format("a swap file of {} MiB: {}; name another directory "
                                             "with --dir",
                                             bytes / kMiB, std::strerror(error)));
    }
    write_swap_header(fd_, bytes);
    fsync(fd_);
    // Before other swap areas: what is measured shall not go elsewhere.
    constexpr int kPriority = 32767;
    if (swapon(path_.c_str(), SWAP_FLAG_PREFER | kPriority) != 0) {
      const int error = errno;
      close(fd_);
      throw Failure(kExitImpossible,
                    fmt::format("swapon of a file in {}: {}; it needs root, and a file system that "
                                "takes swap files (not overlayfs)",
                                dir, std::strerror(error)));
    }
  }
  ~SwapFile() {
    swapoff(path_.c_str());
    close(fd_);
  }
  SwapFile(const SwapFile&) = delete;
  SwapFile& operator=(const SwapFile&) = delete;

 private:
  ScratchDir scratch_;
  std::string path_;
  int fd_ = -1;
};

[[noreturn]] void run_keeper(const std::string& dir, uint64_t bytes, int lifeline, int talk) {
  setsid();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    std::signal(signal, SIG_IGN);  // it ends when kvbench has, however that ends
  }
  prctl(PR_SET_NAME, "kvbench-keeper");
  pid_t toucher = -1;
  try {
    const SwapFile swap(dir, bytes + bytes / 4 + 16 * kMiB);
    const MemoryCgroup group(bytes + bytes / 4);
    toucher = fork();
    if (toucher == 0) {
      close(lifeline);
      run_toucher(talk, group, bytes);
    }
    if (toucher < 0) {
      throw Failure(kExitFailed, fmt::format("fork: {}", std::strerror(errno)));
    }
    close(talk);  // the toucher's end is seen by kvbench
    char nothing = 0;
    while (read(lifeline, &nothing, 1) < 0 && errno == EINTR) {
    }
    kill(toucher, SIGKILL);
    while (waitpid(toucher, nullptr, 0) < 0 && errno == EINTR) {
    }
  } catch (const Failure& e) {
    send_message(talk, missing(e.what(), e.status() == kExitImpossible ? Message::kMissing
                                                                       : Message::kWrong));
  }
  _exit(0);
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? line : "not there";
}

// "[always] madvise never": the word in brackets.
std::string chosen(const std::string& line) {
  const size_t from = line.find('[');
  const size_t to = line.find(']');
  return from == std::string::npos || to == std::string::npos
             ? line
             : line.substr(from + 1, to - from - 1);
}

}  // namespace

LinuxSwap::LinuxSwap(const std::string& dir, uint64_t bytes) {
  if (geteuid() != 0) {
    missing_ = "Linux swap needs root (swapon, a memory cgroup)";
    return;
  }
  std::array<int, 2> life{};
  std::array<int, 2> talk{};
  if (pipe2(life.data(), O_CLOEXEC) != 0 ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk.data()) != 0) {
    throw Failure(kExitFailed, fmt::format("a pipe: {}", std::strerror(errno)));
  }
  keeper_ = fork();
  if (keeper_ == 0) {
    close(life[1]);
    close(talk[1]);
    run_keeper(dir, bytes, life[0], talk[0]);
  }
  close(life[0]);
  close(talk[0]);
  lifeline_ = life[1];
  talk_ = talk[1];
  Message m{};
  const bool said = keeper_ > 0 && receive_message(talk_, &m);
  if (said && m.what == Message::kReady) {
    cgroup_version_ = m.cgroup_version;
    return;
  }
  end();
  const std::string why = said ? m.text.data() : "the process that holds the memory has ended";
  if (m.what == Message::kWrong) {
    throw Failure(kExitFailed, why);
  }
  missing_ = why;
}

LinuxSwap::~LinuxSwap() {
  end();
}

void LinuxSwap::end() {
  for (int* const fd : {&lifeline_, &talk_}) {
    if (*fd >= 0) {
      close(*fd);
      *fd = -1;
    }
  }
  if (keeper_ > 0) {
    while (waitpid(keeper_, nullptr, 0) < 0 && errno == EINTR) {
    }
    keeper_ = -1;
  }
}

double LinuxSwap::resume(bool willneed) {
  const Message ask{willneed ? Message::kWillneed : Message::kResume, 0, 0, {}};
  Message m{};
  if (!send_message(talk_, ask) || !receive_message(talk_, &m)) {
    throw Failure(kExitFailed,
                  "the process that Linux swaps has ended; was it killed for want of memory?");
  }
  if (m.what != Message::kSeconds) {
    throw Failure(kExitFailed, std::string("Linux swap: ") + m.text.data());
  }
  return m.seconds;
}

std::string LinuxSwap::settings() const {
  return fmt::format(
      "memory cgroup v{} of a quarter more, swap file on the same file system, page-cluster {}, "
      "transparent huge pages {}, zswap {}",
      cgroup_version_, first_line("/proc/sys/vm/page-cluster"),
      chosen(first_line("/sys/kernel/mm/transparent_hugepage/enabled")),
      first_line("/sys/module/zswap/parameters/enabled"));
}

}  // namespace kvmm::bench
