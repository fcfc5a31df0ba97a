// SPDX-License-Identifier: Apache-2.0
#include "tools/kvbench/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {

pid_t run_child(const std::vector<std::string>& arguments,
                const std::vector<std::pair<std::string, std::string>>& environment,
                const std::array<int, 3>& descriptors, int signal_at_our_end) {
  std::vector<char*> argv;
  for (const std::string& a : arguments) {
    argv.push_back(const_cast<char*>(a.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) {
    if (pid < 0) {
      throw Failure(kExitFailed, fmt::format("fork: {}", std::strerror(errno)));
    }
    return pid;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, signal_at_our_end);
  if (getppid() != parent) {
    _exit(127);  // it ended before the line above
  }
  for (int fd = 0; fd < 3; ++fd) {
    dup2(descriptors[static_cast<size_t>(fd)], fd);
  }
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), 1);
  }
  execvp(argv[0], argv.data());
  _exit(127);
}

int anonymous_file() {
  const int fd = memfd_create("kvbench-log", MFD_CLOEXEC);
  if (fd < 0) {
    throw Failure(kExitFailed, fmt::format("memfd: {}", std::strerror(errno)));
  }
  return fd;
}

std::string text_of(int fd) {
  std::string text;
  std::array<char, 4096> piece;
  for (off_t at = 0;;) {
    const ssize_t n = pread(fd, piece.data(), piece.size(), at);
    if (n <= 0) {
      return text;
    }
    text.append(piece.data(), static_cast<size_t>(n));
    at += n;
  }
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Failure(kExitFailed, fmt::format("pipe: {}", std::strerror(errno)));
  }
  return ends;
}

bool read_line(int fd, std::string* pending, std::string* line) {
  size_t end = 0;
  while ((end = pending->find('\n')) == std::string::npos) {
    std::array<char, 4096> piece;
    const ssize_t n = read(fd, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return false;
    }
    pending->append(piece.data(), static_cast<size_t>(n));
  }
  *line = pending->substr(0, end);
  pending->erase(0, end + 1);
  return true;
}

void write_line(int fd, const std::string& line) {
  const std::string whole = line + "\n";
  for (size_t at = 0; at < whole.size();) {
    const ssize_t n = write(fd, whole.data() + at, whole.size() - at);
    if (n < 0 && errno != EINTR) {
      return;
    }
    at += n > 0 ? static_cast<size_t>(n) : 0;
  }
}

}  // namespace kvmm::bench
