// SPDX-License-Identifier: Apache-2.0
//
// kvctl top on a terminal of its own: keys, sizes, signals, and that the terminal is as it was.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "runtime/control/endpoint.h"
#include "tests/control/kvctl_fixture.h"

namespace kvmm {
namespace {

using test::KvctlTest;

constexpr int kWaitMs = 10'000;

size_t columns_of(std::string_view line) {
  return static_cast<size_t>(std::count_if(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

class TopTest : public KvctlTest {
 protected:
  TopTest() { start("fake"); }
  ~TopTest() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  // Starts it on a terminal; a picture an hour, so that what comes is for a key.
  void open_top(unsigned short columns = 80, unsigned short lines = 24,
                const char* delay = "3600") {
    winsize size{lines, columns, 0, 0};
    int fd = -1;
    pid_ = forkpty(&fd, nullptr, nullptr, &size);
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      setenv("TERM", "xterm", 1);
      setenv("LC_ALL", "C.UTF-8", 1);
      unsetenv("NO_COLOR");
      execl(KVCTL_BINARY, KVCTL_BINARY, "--dir", dir.path().c_str(), "top", "-d", delay, nullptr);
      _exit(127);
    }
    terminal_ = OwnedFd(fd);
  }
  void type(const std::string& keys) {
    ASSERT_EQ(write(terminal_.get(), keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // What is drawn until `text` has been seen; a failure if it never is.
  std::string until(const std::string& text) {
    char piece[4096];
    while (drawn_.find(text) == std::string::npos) {
      pollfd fd{terminal_.get(), POLLIN, 0};
      const ssize_t n = poll(&fd, 1, kWaitMs) == 1 ? read(terminal_.get(), piece, sizeof piece) : 0;
      if (n <= 0) {
        ADD_FAILURE() << "'" << text << "' does not come; there is: " << drawn_;
        return "";
      }
      drawn_.append(piece, static_cast<size_t>(n));
    }
    const size_t end = drawn_.find(text) + text.size();
    std::string seen = drawn_.substr(0, end);
    drawn_.erase(0, end);
    return seen;
  }
  // A whole picture that holds `text`.
  std::string picture(const std::string& text) {
    const std::string head = until(text);
    return head.empty() ? "" : head + until("\x1b[J");
  }
  int wait_for_end() {
    std::string rest = std::move(drawn_);
    drawn_.clear();
    char piece[4096];
    ssize_t n = 0;
    while (true) {
      pollfd fd{terminal_.get(), POLLIN, 0};
      if (poll(&fd, 1, kWaitMs) != 1) {
        ADD_FAILURE() << "it does not end";
        kill(pid_, SIGKILL);
      }
      if ((n = read(terminal_.get(), piece, sizeof piece)) <= 0) {  // EIO: the other side is shut
        break;
      }
      rest.append(piece, static_cast<size_t>(n));
    }
    EXPECT_NE(rest.find("\x1b[?25h\x1b[?1049l"), std::string::npos) << "the screen is given back";
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  pid_t pid_ = 0;
  OwnedFd terminal_;
  std::string drawn_;  // and not looked at yet
};

TEST_F(TopTest, KeysChangeWhatIsShown) {
  open_top();
  picture("sessions by RES");
  type("t");
  EXPECT_NE(picture("watermarks").find("swap0"), std::string::npos);
  type("v");
  picture("swap_out_bytes");
  type("\t");
  picture("sessions by RES");
  const std::pair<const char*, const char*> kSorts[] = {
      {"w", "by SWAP"}, {"f", "by FAULTS"}, {"m", "by MAJOR"}, {"i", "by IN"},   {"o", "by OUT"},
      {"n", "by NAME"}, {"d", "by ID"},     {"r", "by RES,"},  {"z", "reversed"}};
  for (const auto& [key, title] : kSorts) {
    type(key);
    picture(title);
  }
  type("h");
  picture("z turns round");
  type("p");
  picture("PAUSED");
  type("\x1b[B\x1b[A\x1b[5~\x1b[6~\x1bOx\x01\xff!");  // scrolling, and nonsense
  type("q");
  EXPECT_EQ(wait_for_end(), 0);
}

TEST_F(TopTest, SortsByWhatItSays) {
  const auto order = [this](const std::string& by) {
    const auto json = good_json("top --once --sort " + by);
    return json["sessions"][0]["id"].get<std::string>();
  };
  EXPECT_EQ(order("resident"), "1");
  EXPECT_EQ(order("swapped"), "12");
  EXPECT_EQ(order("name"), "12");  // "chat \x1b..." before "chat one"
  EXPECT_EQ(order("id"), "1");
  EXPECT_EQ(run("top --sort size").status, 2);
  EXPECT_EQ(run("top --page none").status, 2);
}

TEST_F(TopTest, NoLineIsWiderThanTheTerminal) {
  runtime.open_session("3", std::string(200, 'n'));
  runtime.open_session("4", "\xe6\xbc\xa2\xe5\xad\x97 and more of that, as long as it goes on");
  for (const char* page : {"sessions", "tiers", "counters"}) {
    std::istringstream lines(good("top -n 3 -d 0.01 --page " + std::string(page)));
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(columns_of(line), 80u) << line;
    }
  }
  for (const auto& [columns, lines] :
       {std::pair<unsigned short, unsigned short>{40, 10}, {20, 3}, {1, 1}, {200, 60}}) {
    open_top(columns, lines);
    const std::string first = until("\x1b[J");
    EXPECT_LT(std::count(first.begin(), first.end(), '\n'), lines) << first;
    type("q");
    EXPECT_EQ(wait_for_end(), 0);
  }
}

TEST_F(TopTest, FollowsTheSizeOfItsTerminal) {
  open_top(80, 24);
  picture("sessions by RES");
  winsize wide{24, 130, 0, 0};
  ASSERT_EQ(ioctl(terminal_.get(), TIOCSWINSZ, &wide), 0);
  picture("TENANT");  // what 80 columns have no room for
  type("q");
  EXPECT_EQ(wait_for_end(), 0);
}

TEST_F(TopTest, SignalsEndItAndTheTerminalIsAsItWas) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    open_top();
    termios raw{};
    picture("sessions by RES");
    ASSERT_EQ(tcgetattr(terminal_.get(), &raw), 0);
    EXPECT_EQ(raw.c_lflag & (ICANON | ECHO), 0u);
    kill(pid_, signal);
    EXPECT_EQ(wait_for_end(), 0);
    ASSERT_EQ(tcgetattr(terminal_.get(), &raw), 0);
    EXPECT_EQ(raw.c_lflag & (ICANON | ECHO | ISIG), tcflag_t{ICANON | ECHO | ISIG});
  }
  open_top();
  picture("sessions by RES");
  type("\x03");  // Ctrl-C
  EXPECT_EQ(wait_for_end(), 0);
}

TEST_F(TopTest, EndsWithItsRuntime) {
  open_top(80, 24, "0.01");
  picture("NOW/S");  // rates, from the second picture on
  servers.clear();
  EXPECT_EQ(wait_for_end(), 3);
}

TEST_F(TopTest, JsonHasRatesOfSessions) {
  std::istringstream lines(good("--json top -n 2 -d 0.01"));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  ASSERT_TRUE(std::getline(lines, line));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["sessions"][0]["stat"]["faults_major"], 7);
  EXPECT_EQ(json["sessions"][0]["per_second"]["faults_major"], 0);
  EXPECT_EQ(json["tiers"][0]["watermark_low"], 16 << 20);
  EXPECT_EQ(good("top --once --ascii").find('\xe2'), std::string::npos);
}

}  // namespace
}  // namespace kvmm
