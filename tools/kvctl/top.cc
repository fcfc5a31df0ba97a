// SPDX-License-Identifier: Apache-2.0
//
// top: a runtime's tiers, rates and sessions, drawn again and again.
//
// On a terminal every picture replaces the one before (home, clear, print), q or Ctrl-C ends it and
// the terminal is as it was. Elsewhere pictures follow one another; with --json one object a line.
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <utility>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr size_t kBarWidth = 20;
constexpr const char* kEventNames[] = {"faults_zero", "faults_minor", "faults_major"};
constexpr const char* kByteNames[] = {"swap_in_bytes", "swap_out_bytes"};

// Signals as descriptors, keys as they are typed, and everything put back at the end.
class Terminal {
 public:
  Terminal() : live_(isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) {
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      sigaddset(&wanted, signal);
    }
    sigprocmask(SIG_BLOCK, &wanted, &signals_before_);
    signals_ = OwnedFd(signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
    if (live_ && tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= static_cast<tcflag_t>(~(ICANON | ECHO));
      raw.c_cc[VMIN] = 0;
      raw.c_cc[VTIME] = 0;
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
      write_out("\x1b[?25l");  // no cursor
    } else {
      live_ = false;
    }
  }
  ~Terminal() {
    if (live_) {
      write_out("\x1b[?25h");
      tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    }
    sigprocmask(SIG_SETMASK, &signals_before_, nullptr);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool live() const { return live_; }
  size_t lines() const {
    winsize size{};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
  }
  // False: it is time to end.
  bool wait_until(Clock::time_point end) const {
    while (true) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      if (left <= 0) {
        return true;
      }
      pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {live_ ? STDIN_FILENO : -1, POLLIN, 0}};
      const int ready = poll(fds, 2, static_cast<int>(std::min<int64_t>(left, 3'600'000)));
      if (ready > 0 && fds[0].revents != 0) {
        return false;
      }
      if (ready > 0 && fds[1].revents != 0) {
        char key = 0;
        const ssize_t n = read(STDIN_FILENO, &key, 1);
        if (n <= 0 || key == 'q' || key == 'Q') {
          return false;
        }
      }
    }
  }

 private:
  bool live_;
  termios before_{};
  sigset_t signals_before_{};
  OwnedFd signals_;
};

uint64_t value_of(const Snapshot& snapshot, const char* name) {
  const auto it = snapshot.vmstat.find(name);
  return it == snapshot.vmstat.end() ? 0 : it->second;
}

// Per second since `before`; 0 if it went backwards (another runtime, a counter that was reset).
uint64_t rate_of(const Snapshot& before, const Snapshot& now, const char* name) {
  const uint64_t a = value_of(before, name);
  const uint64_t b = value_of(now, name);
  const uint64_t ms = (now.uptime_ns - std::min(now.uptime_ns, before.uptime_ns)) / 1'000'000;
  return ms == 0 || b < a
             ? 0
             : static_cast<uint64_t>(static_cast<unsigned __int128>(b - a) * 1000 / ms);
}

std::string short_name(const char* name) {
  std::string text = name;
  for (const char* part : {"faults_", "swap_", "_bytes"}) {
    if (const size_t at = text.find(part); at != std::string::npos) {
      text.erase(at, std::char_traits<char>::length(part));
    }
  }
  return text;
}

std::string draw(const Hello& hello, const Snapshot& now, const Snapshot* before) {
  std::string text =
      fmt::format("{} (pid {})  kvmm {}  up {}  {} sessions\n", harmless(hello.name), hello.pid,
                  harmless(hello.version), human_duration(now.uptime_ns), now.sessions_count);
  const auto line = [&](const Directory& d, const char* whole) {
    const uint64_t used = d.attributes.number("used");
    const uint64_t all = d.attributes.number(whole);
    text += fmt::format("{:<10} {} {:>5} of {}\n", harmless(d.name), bar(used, all, kBarWidth),
                        human_bytes(used), human_bytes(all));
  };
  for (const Directory& tier : now.tiers) {
    line(tier, "capacity");
  }
  for (const Directory& area : now.swap) {
    line(area, "size");
  }
  text += before == nullptr ? "faults    " : "faults/s  ";
  for (const char* name : kEventNames) {
    text += fmt::format(" {} {}", short_name(name),
                        before == nullptr ? value_of(now, name) : rate_of(*before, now, name));
  }
  text += before == nullptr ? "   swap" : "   swap/s";
  for (const char* name : kByteNames) {
    text += fmt::format(
        " {} {}", short_name(name),
        human_bytes(before == nullptr ? value_of(now, name) : rate_of(*before, now, name)));
  }
  text += fmt::format("   wrong pages {}\n\n", value_of(now, "wrong_pages"));
  Table table({">ID", "NAME", "TENANT", "STATE", "ADVICE", ">TOKENS", ">RESIDENT", ">SWAPPED"});
  for (const auto& [id, a] : now.sessions) {
    table.add({id, a.text("name"), a.text("tenant"), a.text("state"), a.text("advice"),
               std::to_string(a.number("tokens")), human_bytes(a.number("bytes_resident")),
               human_bytes(a.number("bytes_swapped"))});
  }
  return text + table.text();
}

Json to_json(const Hello& hello, const Snapshot& now, const Snapshot* before) {
  Json json;
  json["pid"] = hello.pid;
  json["name"] = hello.name;
  json["uptime_ns"] = now.uptime_ns;
  json["tiers"] = Json::array();
  for (const auto& [name, a] : now.tiers) {
    json["tiers"].push_back(
        {{"name", name}, {"capacity", a.number("capacity")}, {"used", a.number("used")}});
  }
  json["swap"] = Json::array();
  for (const auto& [name, a] : now.swap) {
    json["swap"].push_back(
        {{"name", name}, {"size", a.number("size")}, {"used", a.number("used")}});
  }
  json["vmstat"] = now.vmstat;
  json["per_second"] = Json();
  if (before != nullptr) {
    json["per_second"] = Json::object();
    for (const auto& [name, value] : now.vmstat) {
      json["per_second"][name] = rate_of(*before, now, name.c_str());
    }
  }
  json["sessions"] = Json::array();
  for (const auto& [id, a] : now.sessions) {
    json["sessions"].push_back({{"id", id},
                                {"name", a.text("name")},
                                {"tenant", a.text("tenant")},
                                {"state", a.text("state")},
                                {"advice", a.text("advice")},
                                {"tokens", a.number("tokens")},
                                {"bytes_resident", a.number("bytes_resident")},
                                {"bytes_swapped", a.number("bytes_swapped")}});
  }
  return json;
}

// Largest first; what does not fit the screen is cut off.
void sort_sessions(Snapshot& snapshot) {
  std::stable_sort(snapshot.sessions.begin(), snapshot.sessions.end(),
                   [](const Directory& a, const Directory& b) {
                     return a.attributes.number("bytes_resident") >
                            b.attributes.number("bytes_resident");
                   });
}

std::string first_lines(const std::string& text, size_t lines) {
  size_t at = 0;
  while (lines-- > 0 && at < text.size()) {
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return text.substr(0, at);
}

}  // namespace

int run_top(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  std::optional<Snapshot> before;
  const bool json = context.options.json;
  const uint64_t frames = context.options.once ? 1 : context.options.frames;
  const auto interval =
      std::chrono::milliseconds(static_cast<int64_t>(context.options.interval_s * 1000));
  std::optional<Error> error;
  {
    const Terminal terminal;
    const bool live = terminal.live() && !json && frames != 1;
    for (uint64_t i = 0; frames == 0 || i < frames; ++i) {
      const Clock::time_point start = Clock::now();
      Result<Snapshot> now = take_snapshot(runtime->client, true);
      if (!now) {
        error = now.error();
        break;
      }
      sort_sessions(*now);
      const Snapshot* const last = before ? &*before : nullptr;
      std::string text;
      if (json) {
        text = to_json(runtime->hello, *now, last)
                   .dump(-1, ' ', false, Json::error_handler_t::replace) +
               "\n";
      } else if (live) {
        text = "\x1b[H\x1b[J" + first_lines(draw(runtime->hello, *now, last), terminal.lines() - 1);
      } else {
        text = (i == 0 ? "" : "\n") + draw(runtime->hello, *now, last);
      }
      if (status = context.print(text); status != kExitOk) {
        break;
      }
      before = std::move(*now);
      if (i + 1 != frames && !terminal.wait_until(start + interval)) {
        break;
      }
    }
  }
  return error ? context.fail(*error) : status;
}

}  // namespace kvmm::ctl
