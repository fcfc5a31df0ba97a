// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/side_process.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <sstream>

#include "tools/kvbench/benchmark.h"
#include "tools/kvctl/client.h"

namespace kvmm::bench {
namespace {

constexpr int kReplyMs = 10'000;

struct Order {
  enum What : uint32_t { kRead, kBurn, kStop } what;
  double share;
  std::array<char, 256> socket;
};

struct Answer {
  Side side;
  std::array<char, 256> error;  // "": none
};

double seconds_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

template <class T>
bool take(int fd, T* message, int flags = 0) {
  ssize_t n = 0;
  do {
    n = recv(fd, message, sizeof(*message), flags);
  } while (n < 0 && errno == EINTR);
  if (n == 0) {
    _exit(0);  // kvbench has gone
  }
  return n == static_cast<ssize_t>(sizeof(*message));
}

template <class T>
bool give(int fd, const T& message) {
  return send(fd, &message, sizeof(message), MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(message));
}

bool stopped(int talk) {
  Order order{};
  return take(talk, &order, MSG_DONTWAIT);
}

// Sum of the locks that an engine's fault waits for, taken so far by the thread that answers.
Result<uint64_t> fault_path_locks(ctl::Client& client) {
  const Result<ctl::Item> item = client.get("locks");
  if (!item) {
    return item.error();
  }
  std::istringstream lines(*item->value);
  uint64_t sum = 0;
  std::string name;
  for (uint64_t count = 0; lines >> name >> count;) {
    sum += name == "core" || name == "device" || name == "workers" ? count : 0;
  }
  return sum;
}

Result<void> read_until_stopped(int talk, const std::string& socket, Side* side) {
  Result<ctl::Client> client = ctl::Client::connect(socket, kReplyMs);
  if (!client) {
    return client.error();
  }
  const Result<uint64_t> before = fault_path_locks(*client);
  if (!before) {
    return before.error();
  }
  do {
    const Result<std::vector<ctl::Item>> all = client->walk("");
    if (!all) {
      return all.error();
    }
    side->items = all->size();
    for (const ctl::Item& item : *all) {
      // A walk leaves texts out. What has gone meanwhile is no error.
      if (!item.value && item.mode != "wo") {
        (void)client->get(item.path);
      }
    }
    if (side->walks++ == 0) {
      give(talk, Answer{});  // it is going on
    }
  } while (!stopped(talk));
  const Result<uint64_t> after = fault_path_locks(*client);
  if (!after) {
    return after.error();
  }
  side->locks = *after - *before;
  return {};
}

void burn_until_stopped(int talk, double share) {
  give(talk, Answer{});
  const double begin = seconds_of(CLOCK_MONOTONIC);
  const double cpu_begin = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
  while (!stopped(talk)) {
    const double wall = seconds_of(CLOCK_MONOTONIC) - begin;
    if (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_begin > share * wall) {
      constexpr timespec kRest{0, 50'000};
      nanosleep(&kRest, nullptr);
    }
  }
}

[[noreturn]] void serve(int talk, int core) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(0, sizeof(one), &one);
  for (Order order{}; take(talk, &order);) {
    const double begin = seconds_of(CLOCK_MONOTONIC);
    const double cpu_begin = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    Answer answer{};
    if (order.what == Order::kBurn) {
      burn_until_stopped(talk, order.share);
    } else if (auto ok = read_until_stopped(talk, order.socket.data(), &answer.side); !ok) {
      ok.error().detail.copy(answer.error.data(), answer.error.size() - 1);
      answer.error[0] = answer.error[0] == '\0' ? '?' : answer.error[0];
    }
    answer.side.seconds = seconds_of(CLOCK_MONOTONIC) - begin;
    answer.side.cpu_us = (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_begin) * 1e6;
    give(talk, answer);
  }
  _exit(0);
}

void require_going(int talk) {
  Answer answer{};
  const ssize_t n = recv(talk, &answer, sizeof(answer), 0);
  if (n != static_cast<ssize_t>(sizeof(answer)) || answer.error[0] != '\0') {
    throw Failure(kExitFailed,
                  fmt::format("the process beside the engine: {}",
                              n > 0 ? std::string(answer.error.data()) : "it has ended"));
  }
}

}  // namespace

SideProcess::SideProcess(int core) {
  std::array<int, 2> talk{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk.data()) != 0) {
    throw Failure(kExitFailed, fmt::format("a socket: {}", std::strerror(errno)));
  }
  pid_ = fork();
  if (pid_ == 0) {
    close(talk[1]);
    serve(talk[0], core);
  }
  close(talk[0]);
  talk_ = talk[1];
  if (pid_ < 0) {
    throw Failure(kExitFailed, fmt::format("fork: {}", std::strerror(errno)));
  }
}

SideProcess::~SideProcess() {
  close(talk_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

void SideProcess::read(const std::string& socket) {
  Order order{Order::kRead, 0, {}};
  if (socket.copy(order.socket.data(), order.socket.size() - 1) != socket.size()) {
    throw Failure(kExitFailed, socket + ": a path too long for a socket");
  }
  give(talk_, order);
  require_going(talk_);
}

void SideProcess::burn(double share) {
  give(talk_, Order{Order::kBurn, std::clamp(share, 0.0, 1.0), {}});
  require_going(talk_);
}

Side SideProcess::stop() {
  give(talk_, Order{Order::kStop, 0, {}});
  Answer answer{};
  const ssize_t n = recv(talk_, &answer, sizeof(answer), 0);
  if (n != static_cast<ssize_t>(sizeof(answer)) || answer.error[0] != '\0') {
    throw Failure(kExitFailed,
                  fmt::format("the process beside the engine: {}",
                              n > 0 ? std::string(answer.error.data()) : "it has ended"));
  }
  return answer.side;
}

}  // namespace kvmm::bench
