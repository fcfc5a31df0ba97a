// SPDX-License-Identifier: Apache-2.0
//
// kvctl mount with a real FUSE mount over a fake runtime: what system calls, shells and nonsense
// meet there, and what becomes of it when the runtime, the mount's process or a reader goes away.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <thread>

#include "runtime/control/endpoint.h"
#include "tests/control/kvctl_fixture.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it so

namespace kvmm {
namespace {

using test::KvctlTest;
using test::Outcome;

constexpr int kWaitMs = 30'000;

class MountTest : public KvctlTest {
 protected:
  void SetUp() override {
    if (access("/dev/fuse", R_OK | W_OK) != 0) {
      GTEST_SKIP() << "/dev/fuse cannot be opened";
    }
    start("fake");
    ASSERT_EQ(mkdir(at().c_str(), 0700), 0);
  }
  void TearDown() override {
    if (foreground_ > 0) {
      kill(foreground_, SIGCONT);
      kill(foreground_, SIGTERM);
      waitpid(foreground_, nullptr, 0);
    }
    if (is_mounted()) {
      EXPECT_EQ(run("umount --lazy " + at()).status, 0);
    }
  }

  std::string at(const std::string& path = "") const {
    return dir.file("mnt") + (path.empty() ? "" : "/" + path);
  }
  void mount() { EXPECT_EQ(good("mount " + at()), ""); }
  bool is_mounted() {
    return !good_json("mount").empty() &&
           test::read_file("/proc/self/mountinfo").find(" " + at() + " ") != std::string::npos;
  }
  // kvctl mount --foreground; true once the file system answers.
  void mount_in_foreground(const std::string& options = "") {
    const std::string directory = dir.path();
    const std::string mnt = at();
    std::vector<std::string> words = {KVCTL_BINARY, "--dir", directory, "--json"};
    if (!options.empty()) {
      words.insert(words.end(), {"--timeout", options});
    }
    words.insert(words.end(), {"mount", "--foreground", mnt});
    std::vector<char*> argv;
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    std::array<int, 2> ready{};
    ASSERT_EQ(pipe2(ready.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready[1], STDOUT_FILENO);
    ASSERT_EQ(posix_spawn(&foreground_, KVCTL_BINARY, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ready[1]);
    pollfd fd{ready[0], POLLIN, 0};
    ASSERT_EQ(poll(&fd, 1, kWaitMs), 1);  // it says ok when it is mounted
    char c = 0;
    EXPECT_EQ(read(ready[0], &c, 1), 1);
    close(ready[0]);
  }
  int end_foreground(int signal) {
    kill(foreground_, signal);
    int status = 0;
    EXPECT_EQ(waitpid(foreground_, &status, 0), foreground_);
    foreground_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // 0, or the errno of the first system call that fails.
  static int read_errno(const std::string& path, std::string* text = nullptr) {
    const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
      return errno;
    }
    std::array<char, 4096> piece{};
    ssize_t n = 0;
    while ((n = ::read(fd.get(), piece.data(), piece.size())) > 0) {
      if (text != nullptr) {
        text->append(piece.data(), static_cast<size_t>(n));
      }
    }
    return n < 0 ? errno : 0;
  }
  std::string text(const std::string& path) {
    std::string out;
    EXPECT_EQ(read_errno(at(path), &out), 0) << path;
    return out;
  }
  int write_errno(const std::string& path, std::string_view value, int flags = O_TRUNC) {
    const OwnedFd fd(open(at(path).c_str(), O_WRONLY | O_CLOEXEC | flags));
    if (!fd) {
      return errno;
    }
    return ::write(fd.get(), value.data(), value.size()) < 0 ? errno : 0;
  }
  std::string xattr(const std::string& path, const char* name) {
    std::array<char, 4096> value{};
    const ssize_t n = getxattr(at(path).c_str(), name, value.data(), value.size());
    return n < 0 ? "" : std::string(value.data(), static_cast<size_t>(n));
  }
  // Through sh, as a user would: what it prints, errors included.
  std::string sh(const std::string& script) {
    const std::string command =
        "cd " + at() + " && { LC_ALL=C sh -c '" + script + "' >" + dir.file("sh") + " 2>&1; }";
    EXPECT_NE(std::system(command.c_str()), -1);
    return test::read_file(dir.file("sh"));
  }

  pid_t foreground_ = 0;
};

TEST_F(MountTest, ShellsFindTheTree) {
  mount();
  EXPECT_EQ(sh("cat tiers/dram/used"), "192MiB\n");
  EXPECT_EQ(sh("ls"), "arenas\nmeminfo\nsched\nsessions\nswap\ntiers\nuptime\nversion\nvmstat\n");
  EXPECT_EQ(sh("ls sessions"), "1\n12\n");
  EXPECT_EQ(sh("echo 8MiB > tiers/dram/watermark_low; cat tiers/dram/watermark_low"), "8MiB\n");
  EXPECT_EQ(runtime.watermark_low(), 8u << 20);
  EXPECT_EQ(sh("printf 9M >> tiers/dram/watermark_low; cat tiers/dram/watermark_low"), "9MiB\n");
  EXPECT_EQ(sh("head -n 1 sessions/1/maps"),
            "7f0000000000-7f0000960000 rw 65536 k private:1 pages=150 resident=146 swapped=2 "
            "gone=1\n");
  EXPECT_EQ(sh("grep -c . vmstat"), "6\n");
  EXPECT_EQ(sh("wc -c < tiers/dram/used"), "7\n");
  EXPECT_EQ(sh("cp tiers/dram/used " + dir.file("copy") + " && cat " + dir.file("copy")),
            "192MiB\n");
  // Every attribute is found once, and can be read.
  const std::string found = sh("find . -type f | sort");
  EXPECT_EQ(std::count(found.begin(), found.end(), '\n'), 45) << found;
  EXPECT_EQ(sh("find . -type f -exec cat {} + >/dev/null"), "");
  EXPECT_EQ(sh("ls -l tiers/dram | cut -c1-10 | sort | uniq -c | tr -s \" \""),
            " 5 -r--r--r--\n 1 -rw-r--r--\n 1 total 0\n");
  EXPECT_EQ(sh("test -d sessions/12 && echo yes"), "yes\n");
}

TEST_F(MountTest, StatSaysWhatAnAttributeIs) {
  mount();
  const struct {
    const char* path;
    mode_t mode;
    off_t size;
  } kCases[] = {{"", S_IFDIR | 0555, 0},
                {"tiers", S_IFDIR | 0555, 0},
                {"sessions/12", S_IFDIR | 0555, 0},
                {"tiers/dram/used", S_IFREG | 0444, 4096},
                {"tiers/dram/watermark_low", S_IFREG | 0644, 4096},
                {"vmstat", S_IFREG | 0444, 0},
                {".last_error", S_IFREG | 0444, 0}};
  for (const auto& c : kCases) {
    struct stat st {};
    ASSERT_EQ(::stat(at(c.path).c_str(), &st), 0) << c.path;
    EXPECT_EQ(st.st_mode, c.mode) << c.path;
    EXPECT_EQ(st.st_size, c.size) << c.path;
    EXPECT_EQ(st.st_uid, geteuid()) << c.path;
  }
  EXPECT_EQ(xattr("tiers/dram/watermark_low", "user.kvmm.range"), "4MiB..256MiB");
  EXPECT_EQ(xattr("tiers/dram/watermark_low", "user.kvmm.type"), "bytes");
  EXPECT_EQ(xattr("sessions/1/advice", "user.kvmm.range"), "normal|running|idle|evict|durable");
  std::array<char, 4096> names{};
  const ssize_t n = listxattr(at("tiers/dram/watermark_low").c_str(), names.data(), names.size());
  ASSERT_GT(n, 0);
  EXPECT_NE(std::string(names.data(), static_cast<size_t>(n)).find("user.kvmm.default"),
            std::string::npos);
  EXPECT_EQ(xattr("tiers/dram/used", "user.other"), "");
}

TEST_F(MountTest, ContentIsFresh) {
  mount();
  const OwnedFd fd(open(at("sched/readahead_max").c_str(), O_RDONLY));
  ASSERT_TRUE(fd);
  std::array<char, 64> value{};
  for (const char* now : {"1MiB", "12345", "3MiB"}) {
    ASSERT_TRUE(runtime.tree().set("sched/readahead_max", now).ok());
    const ssize_t n = pread(fd.get(), value.data(), value.size(), 0);
    ASSERT_GT(n, 0);
    EXPECT_EQ(std::string(value.data(), static_cast<size_t>(n)), std::string(now) + "\n");
    EXPECT_EQ(text("sched/readahead_max"), std::string(now) + "\n");
  }
  // In pieces it stays one text.
  ASSERT_EQ(pread(fd.get(), value.data(), 2, 0), 2);
  ASSERT_TRUE(runtime.tree().set("sched/readahead_max", "7").ok());
  ASSERT_EQ(pread(fd.get(), value.data(), 64, 2), 3);
  EXPECT_EQ(std::string(value.data(), 3), "iB\n");
  // Sessions come and go.
  runtime.open_session("77", "new");
  EXPECT_EQ(text("sessions/77/name"), "new\n");
  const OwnedFd gone(open(at("sessions/77/name").c_str(), O_RDONLY));
  runtime.close_session("77");
  EXPECT_EQ(pread(gone.get(), value.data(), 1, 0), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(read_errno(at("sessions/77/name")), ENOENT);
  // Large texts arrive whole.
  std::string large = "plane k page_size=4096 pages=1000000\n";
  for (int i = 0; i < 10000; ++i) {
    large += std::string(100, "RS.r"[i % 4]) + "\n";
  }
  runtime.set_pagemap(large);
  EXPECT_EQ(text("sessions/1/pagemap"), large);
}

TEST_F(MountTest, ABadValueIsEinvalAndTheReasonCanBeRead) {
  mount();
  EXPECT_EQ(text(".last_error"), "");
  EXPECT_EQ(write_errno("tiers/dram/watermark_low", "8T\n"), EINVAL);
  EXPECT_EQ(text(".last_error"), "tiers/dram/watermark_low: '8T' is outside 4MiB..256MiB\n");
  EXPECT_EQ(xattr("tiers/dram/watermark_low", "user.kvmm.error") + "\n", text(".last_error"));
  for (const std::string& value :
       {std::string("much"), std::string("\n"), std::string("8 MiB x"), std::string("8M\n8M\n"),
        std::string("\xff\xfe\x00\x01", 4), std::string(4000, '9'), std::string(40'000, 'x'),
        std::string("../../etc")}) {
    EXPECT_EQ(write_errno("tiers/dram/watermark_low", value), EINVAL) << value.substr(0, 20);
    EXPECT_NE(text(".last_error"), "");
  }
  EXPECT_EQ(runtime.watermark_low(), 16u << 20);
  EXPECT_EQ(sh("echo 8T > tiers/dram/watermark_low"), "sh: 1: echo: echo: I/O error\n")
      << "dash says no errno";
  // A good one takes the attribute's reason away.
  EXPECT_EQ(write_errno("tiers/dram/watermark_low", "8M"), 0);
  EXPECT_EQ(xattr("tiers/dram/watermark_low", "user.kvmm.error"), "");
  // A value comes in one write.
  const OwnedFd fd(open(at("tiers/dram/watermark_low").c_str(), O_WRONLY));
  EXPECT_EQ(pwrite(fd.get(), "9M", 2, 0), 2);
  EXPECT_EQ(pwrite(fd.get(), "10M", 3, 2), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(runtime.watermark_low(), 9u << 20);
  EXPECT_EQ(ftruncate(fd.get(), 0), 0);
  EXPECT_EQ(ftruncate(fd.get(), 10), -1);
}

TEST_F(MountTest, WhatMayNotBeIsRefused) {
  mount();
  EXPECT_EQ(write_errno("version", "2"), EACCES);
  EXPECT_EQ(write_errno("tiers", "2", 0), EISDIR);
  EXPECT_EQ(write_errno("new", "2", O_CREAT), EPERM);
  EXPECT_EQ(write_errno("none/new", "2", O_CREAT), ENOENT);
  EXPECT_EQ(read_errno(at("version/x")), ENOTDIR);
  EXPECT_EQ(read_errno(at("tiers/dram/usd")), ENOENT);
  EXPECT_EQ(read_errno(at(std::string(300, 'x'))), ENAMETOOLONG);
  EXPECT_EQ(read_errno(at("a b\"\\\n\x01")), ENOENT);
  EXPECT_EQ(mkdir(at("tiers/hbm").c_str(), 0700), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(unlink(at("version").c_str()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(rmdir(at("sessions/1").c_str()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(rename(at("version").c_str(), at("v2").c_str()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(chmod(at("version").c_str(), 0777), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(setxattr(at("version").c_str(), "user.kvmm.range", "x", 1, 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(text("version"), "0.1.0\n");
}

TEST_F(MountTest, ADirectoryThatCannotTakeAMount) {
  EXPECT_NE(run("mount " + dir.file("none")).err.find("no such directory"), std::string::npos);
  dir.write("file", "x");
  EXPECT_NE(run("mount " + dir.file("file")).err.find("is no directory"), std::string::npos);
  EXPECT_NE(run("mount " + dir.path()).err.find("is not empty"), std::string::npos);
  EXPECT_NE(run("umount " + at()).err.find("nothing of kvmm is mounted"), std::string::npos);
  EXPECT_NE(run("umount /proc").err.find("nothing of kvmm is mounted"), std::string::npos);
  EXPECT_EQ(run("umount").status, 2);
  EXPECT_EQ(run("-p none mount " + at()).status, 3);
  mount();
  const Outcome again = run("mount " + at());
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.err.find("mounted there already"), std::string::npos) << again.err;
}

TEST_F(MountTest, MountsAreListedAndEnd) {
  EXPECT_EQ(good_json("--json mount " + at())["directory"], at());
  const auto list = good_json("mount");
  const auto it = std::find_if(list.begin(), list.end(),
                               [&](const auto& one) { return one["directory"] == at(); });
  ASSERT_NE(it, list.end());
  EXPECT_EQ((*it)["state"], "live");
  EXPECT_EQ((*it)["socket"], servers[0]->path());
  {
    const OwnedFd held(open(at("version").c_str(), O_RDONLY));
    const Outcome busy = run("umount " + at());
    EXPECT_EQ(busy.status, 1);
    EXPECT_NE(busy.err.find("is in use"), std::string::npos) << busy.err;
    EXPECT_TRUE(is_mounted());
  }
  // By another name of the directory.
  ASSERT_EQ(symlink(dir.path().c_str(), dir.file("link").c_str()), 0);
  EXPECT_EQ(good("umount " + dir.file("link/mnt/")), "");
  EXPECT_FALSE(is_mounted());
  struct stat st {};
  EXPECT_EQ(::stat(at().c_str(), &st), 0);  // the directory is the old one
}

TEST_F(MountTest, SignalsUnmount) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    mount_in_foreground();
    EXPECT_EQ(text("version"), "0.1.0\n");
    EXPECT_EQ(end_foreground(signal), 0);
    EXPECT_FALSE(is_mounted());
  }
  // Also when it is in use.
  mount_in_foreground();
  const OwnedFd held(open(at("version").c_str(), O_RDONLY));
  EXPECT_EQ(end_foreground(SIGINT), 0);
  EXPECT_FALSE(is_mounted());
  std::array<char, 8> value{};
  EXPECT_EQ(pread(held.get(), value.data(), value.size(), 0), -1);
}

TEST_F(MountTest, ARuntimeThatHasEndedIsEnodevAtOnce) {
  mount();
  const OwnedFd held(open(at("tiers/dram/watermark_low").c_str(), O_RDWR));
  ASSERT_TRUE(held);
  servers.clear();
  std::array<char, 64> value{};
  EXPECT_EQ(pread(held.get(), value.data(), value.size(), 0), -1);
  EXPECT_EQ(errno, ENODEV);
  EXPECT_EQ(pwrite(held.get(), "8M", 2, 0), -1);
  EXPECT_EQ(errno, ENODEV);
  for (const char* path : {"", "version", "tiers", "tiers/dram/used", "none"}) {
    struct stat st {};
    EXPECT_EQ(::stat(at(path).c_str(), &st), -1) << path;
    EXPECT_EQ(errno, ENODEV) << path;
  }
  EXPECT_EQ(opendir(at().c_str()), nullptr);
  EXPECT_EQ(errno, ENODEV);
  const auto list = good_json("mount");
  EXPECT_TRUE(std::any_of(list.begin(), list.end(), [&](const auto& one) {
    return one["directory"] == at() && one["state"] == "ended";
  }));
  EXPECT_EQ(good("umount --lazy " + at()), "");
  EXPECT_FALSE(is_mounted());
}

TEST_F(MountTest, AMountWhoseProcessWasKilledCanBeUnmounted) {
  mount_in_foreground();
  EXPECT_EQ(text("version"), "0.1.0\n");
  kill(foreground_, SIGKILL);
  waitpid(foreground_, nullptr, 0);
  foreground_ = 0;
  EXPECT_EQ(read_errno(at("version")), ENOTCONN);
  EXPECT_NE(run("mount " + at()).err.find("mounted there already"), std::string::npos);
  EXPECT_EQ(good("umount " + at()), "");
  EXPECT_FALSE(is_mounted());
}

TEST_F(MountTest, AReaderThatStallsIsNobodyElsesTrouble) {
  mount();
  runtime.set_pagemap("plane k page_size=4096 pages=1000000\n" + std::string(1'000'000, 'R') +
                      "\n");
  // More of them than the mount has threads, or the runtime places for clients.
  std::vector<OwnedFd> stalled;
  for (int i = 0; i < 40; ++i) {
    stalled.emplace_back(open(at("sessions/1/pagemap").c_str(), O_RDONLY));
    char c = 0;
    ASSERT_EQ(::read(stalled.back().get(), &c, 1), 1);
  }
  EXPECT_EQ(text("version"), "0.1.0\n");
  EXPECT_EQ(write_errno("tiers/dram/watermark_low", "8M"), 0);
  EXPECT_EQ(good("get tiers/dram/watermark_low"), "8MiB\n");
  // The mount's process itself: whoever asks it waits, whoever asks the runtime does not.
  stalled.clear();
  EXPECT_EQ(run("umount " + at()).status, 0);
  mount_in_foreground();
  kill(foreground_, SIGSTOP);
  EXPECT_EQ(good("get tiers/dram/watermark_low"), "8MiB\n");
  good("set tiers/dram/watermark_low 9M");
  kill(foreground_, SIGCONT);
  EXPECT_EQ(text("tiers/dram/watermark_low"), "9MiB\n");
}

// A runtime that is there and says nothing: every access ends.
TEST_F(MountTest, ARuntimeThatDoesNotAnswerIsEbusy) {
  mount_in_foreground("100");
  runtime.stall(true);
  EXPECT_EQ(read_errno(at("sched/readahead_max")), EBUSY);
  runtime.stall(false);
  EXPECT_EQ(text("sched/readahead_max"), "2MiB\n");
}

// Each write is one value: what is there afterwards is one of those that were written, and every
// one that was said to be written was set once.
TEST_F(MountTest, WritersOfOneAttributeDoNotMix) {
  mount();
  constexpr int kWrites = 250;
  std::atomic<int> failed{0};
  std::vector<std::thread> writers;
  for (const char* value : {"1MiB", "2048000", "3MiB", "64KiB"}) {
    writers.emplace_back([&, value] {
      for (int i = 0; i < kWrites; ++i) {
        std::string seen;
        const bool ok = write_errno("sched/readahead_max", value) == 0 &&
                        read_errno(at("sched/readahead_max"), &seen) == 0;
        const bool whole =
            seen == "1MiB\n" || seen == "2000KiB\n" || seen == "3MiB\n" || seen == "64KiB\n";
        failed += ok && whole ? 0 : 1;
      }
    });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  EXPECT_EQ(failed.load(), 0);
  EXPECT_EQ(runtime.sets(), 4u * kWrites);
}

}  // namespace
}  // namespace kvmm
