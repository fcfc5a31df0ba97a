// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/terminal.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Clock = std::chrono::steady_clock;

// On and off: another screen, no cursor.
constexpr const char* kEnter = "\x1b[?1049h\x1b[?25l";
constexpr const char* kLeave = "\x1b[?25h\x1b[?1049l";

constexpr std::array<std::pair<std::string_view, Key>, 6> kSequences = {
    {{"\x1b[A", kKeyUp},
     {"\x1b[B", kKeyDown},
     {"\x1bOA", kKeyUp},
     {"\x1bOB", kKeyDown},
     {"\x1b[5~", kKeyPageUp},
     {"\x1b[6~", kKeyPageDown}}};

}  // namespace

Terminal::Terminal(bool draws)
    : live_(draws && isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {
  live_ = live_ && tcgetattr(STDIN_FILENO, &before_) == 0;
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaddset(&wanted, signal);
  }
  if (live_) {
    sigaddset(&wanted, SIGWINCH);
    sigaddset(&wanted, SIGTSTP);
  }
  sigprocmask(SIG_BLOCK, &wanted, &signals_before_);
  signals_ = OwnedFd(signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  enter();
}

Terminal::~Terminal() {
  leave();
  sigprocmask(SIG_SETMASK, &signals_before_, nullptr);
}

void Terminal::enter() {
  if (live_) {
    termios raw = before_;
    raw.c_lflag &= static_cast<tcflag_t>(~(ICANON | ECHO));
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_out(kEnter);
  }
}

void Terminal::leave() const {
  if (live_) {
    write_out(kLeave);
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
}

int Terminal::take_signal() {
  signalfd_siginfo info{};
  if (read(signals_.get(), &info, sizeof info) != sizeof info) {
    return kKeyOther;
  }
  if (info.ssi_signo == SIGWINCH) {
    return kKeyRedraw;
  }
  if (info.ssi_signo == SIGTSTP) {
    leave();
    raise(SIGSTOP);  // until somebody says fg
    enter();
    return kKeyRedraw;
  }
  return kKeyEnd;
}

int Terminal::take_key() {
  for (const auto& [bytes, key] : kSequences) {
    if (typed_.starts_with(bytes)) {
      typed_.erase(0, bytes.size());
      return key;
    }
  }
  const char c = typed_.front();
  if (c == '\x1b') {
    // A sequence that is not known ends with its first letter or '~'.
    const bool long_one = typed_.size() > 1 && (typed_[1] == '[' || typed_[1] == 'O');
    const size_t end = long_one ? typed_.find_first_not_of("0123456789;?", 2) : 0;
    typed_.erase(0, end == std::string::npos ? end : end + 1);
    return kKeyOther;
  }
  typed_.erase(0, 1);
  return static_cast<unsigned char>(c) < 0x80 ? int{c} : int{kKeyOther};
}

int Terminal::wait_until(Clock::time_point end) {
  while (typed_.empty()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) {
      return kKeyTime;
    }
    pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {live_ ? STDIN_FILENO : -1, POLLIN, 0}};
    const int ready = poll(fds, 2, static_cast<int>(std::min<int64_t>(left, 3'600'000)));
    if (ready > 0 && fds[0].revents != 0) {
      return take_signal();
    }
    if (ready > 0 && fds[1].revents != 0) {
      std::array<char, 64> bytes{};
      const ssize_t n = read(STDIN_FILENO, bytes.data(), bytes.size());
      if (n <= 0) {
        return kKeyEnd;
      }
      typed_.assign(bytes.data(), static_cast<size_t>(n));
    }
  }
  return take_key();
}

}  // namespace kvmm::ctl
