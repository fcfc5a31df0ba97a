// SPDX-License-Identifier: Apache-2.0
//
// Where sockets are made: directories that are refused, names, and stale sockets.
#include "runtime/control/endpoint.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/control/temp_dir.h"

namespace kvmm {
namespace {

using test::TempDir;

mode_t mode_of(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}

bool exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

// A socket file nobody listens on: its maker has closed it.
void leave_dead_socket(const std::string& path) {
  const OwnedFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}

TEST(ControlDirectories, InTheirOrder) {
  using Paths = std::vector<std::string>;
  EXPECT_EQ(control_directories(0, ""), (Paths{"/run/kvmm", "/tmp/kvmm-0"}));
  EXPECT_EQ(control_directories(1000, "/run/user/1000"),
            (Paths{"/run/user/1000/kvmm", "/tmp/kvmm-1000"}));
  EXPECT_EQ(control_directories(1000, "relative"), (Paths{"/tmp/kvmm-1000"}));
}

TEST(ControlDirectory, IsMadePrivate) {
  const TempDir dir;
  const mode_t before = umask(0);
  ASSERT_TRUE(prepare_control_directory(dir.file("new")).ok());
  umask(before);
  EXPECT_EQ(mode_of(dir.file("new")), 0700u);
  chmod(dir.file("new").c_str(), 0777);
  ASSERT_TRUE(prepare_control_directory(dir.file("new")).ok());
  EXPECT_EQ(mode_of(dir.file("new")), 0700u);
}

TEST(ControlDirectory, RefusesWhatOthersCouldHavePrepared) {
  const TempDir dir;
  EXPECT_EQ(prepare_control_directory(dir.file("no/parent")).code(), Errc::kNotFound);
  dir.write("file", "");
  EXPECT_EQ(prepare_control_directory(dir.file("file")).code(), Errc::kPermission);
  ASSERT_EQ(mkdir(dir.file("real").c_str(), 0700), 0);
  ASSERT_EQ(symlink("real", dir.file("link").c_str()), 0);
  EXPECT_EQ(prepare_control_directory(dir.file("link")).code(), Errc::kPermission);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(dir.file("real").c_str(), 12345, 12345), 0);
    const Result<void> r = prepare_control_directory(dir.file("real"));
    ASSERT_EQ(r.code(), Errc::kPermission);
    EXPECT_NE(r.error().detail.find("belongs to uid 12345"), std::string::npos);
  }
}

TEST(ControlSocketFile, HasTheFirstFreeNumberAndMode0600) {
  const TempDir dir;
  const std::string stem = dir.path() + "/" + std::to_string(getpid()) + "-";
  const mode_t before = umask(0);
  const auto a = make_control_socket(dir.path());
  const auto b = make_control_socket(dir.path());
  umask(before);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->path, stem + "0.sock");
  EXPECT_EQ(b->path, stem + "1.sock");
  EXPECT_EQ(mode_of(a->path), 0600u);
  const auto names = list_control_sockets(dir.path());
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[1].n, 1u);
  EXPECT_TRUE(connect_control_socket(b->path, 100).ok());
  remove_control_socket(a->path);
  EXPECT_FALSE(exists(a->path));
}

TEST(ControlSocketFile, TooLongAPathIsALimit) {
  const TempDir dir;
  const std::string deep = dir.file(std::string(100, 'd'));
  EXPECT_EQ(make_control_socket(deep).code(), Errc::kLimit);
  EXPECT_EQ(connect_control_socket(deep + "/1-0.sock", 100).code(), Errc::kLimit);
}

TEST(StaleSockets, GoAwayAndNothingElseDoes) {
  const TempDir dir;
  leave_dead_socket(dir.file("4194000-0.sock"));
  leave_dead_socket(dir.file("other.sock"));
  dir.write("77-0.sock", "no socket");
  const auto alive = make_control_socket(dir.path());
  ASSERT_TRUE(alive.ok());
  EXPECT_FALSE(exists(dir.file("4194000-0.sock")));
  EXPECT_TRUE(exists(dir.file("other.sock")));
  EXPECT_TRUE(exists(dir.file("77-0.sock")));
  const auto next = make_control_socket(dir.path());
  ASSERT_TRUE(next.ok());
  EXPECT_TRUE(exists(alive->path));
  EXPECT_EQ(connect_control_socket(dir.file("77-0.sock"), 100).code(), Errc::kDeviceGone);
  EXPECT_EQ(connect_control_socket(dir.file("nothing"), 100).code(), Errc::kDeviceGone);
}

TEST(StaleSockets, AForkedChildDoesNotKeepADeadRuntimesSocketAlive) {
  const TempDir dir;
  int path_pipe[2];  // the maker tells its child's pid
  int hold_pipe[2];  // closed at the end: the grandchild leaves
  ASSERT_EQ(pipe(path_pipe), 0);
  ASSERT_EQ(pipe(hold_pipe), 0);
  const pid_t maker = fork();
  if (maker == 0) {
    const auto socket = make_control_socket(dir.path());
    const pid_t holder = fork();  // inherits the listening descriptor
    if (holder == 0) {
      close(hold_pipe[1]);
      close(path_pipe[1]);
      char c;
      [[maybe_unused]] const ssize_t n = read(hold_pipe[0], &c, 1);
      _exit(0);
    }
    const char ok = socket.ok() ? 'y' : 'n';
    [[maybe_unused]] const ssize_t n = write(path_pipe[1], &ok, 1);
    _exit(0);
  }
  char ok = 0;
  ASSERT_EQ(read(path_pipe[0], &ok, 1), 1);
  ASSERT_EQ(ok, 'y');
  ASSERT_EQ(waitpid(maker, nullptr, 0), maker);
  const std::string path = dir.file(std::to_string(maker) + "-0.sock");
  ASSERT_TRUE(connect_control_socket(path, 100).ok());  // the child's descriptor still listens
  EXPECT_EQ(remove_stale_sockets(dir.path()), 1);
  EXPECT_FALSE(exists(path));
  for (const int fd : {path_pipe[0], path_pipe[1], hold_pipe[0], hold_pipe[1]}) {
    close(fd);
  }
}

TEST(StaleSockets, AHeldLockIsATypedError) {
  const TempDir dir;
  const OwnedFd lock(open(dir.file("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  EXPECT_EQ(make_control_socket(dir.path()).code(), Errc::kBusy);
  ASSERT_EQ(flock(lock.get(), LOCK_UN), 0);
  EXPECT_TRUE(make_control_socket(dir.path()).ok());
}

}  // namespace
}  // namespace kvmm
