// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/endpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <tuple>

namespace kvmm {
namespace {

constexpr int kLockPollMs = 10;
constexpr int kLockPolls = 200;         // 2 s
constexpr unsigned kSocketsMax = 1000;  // of one process in one directory
constexpr int kProbeTimeoutMs = 200;
constexpr int kBacklog = 32;

// flock(2) on <directory>/lock. Unlocked by name, not only by close: a child forked meanwhile has
// inherited the descriptor and would keep the lock.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::string& directory) {
    const std::string path = directory + "/lock";
    OwnedFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
      return Error(Errc::kPermission, path + ": cannot be opened", errno);
    }
    for (int i = 0; i < kLockPolls; ++i) {
      if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
        return DirectoryLock(std::move(fd));
      }
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return Error(Errc::kIo, path + ": cannot be locked", errno);
      }
      poll(nullptr, 0, kLockPollMs);
    }
    return Error(Errc::kBusy, path + ": another process has held the lock for 2 s");
  }
  DirectoryLock(DirectoryLock&&) noexcept = default;
  DirectoryLock& operator=(DirectoryLock&&) noexcept = default;
  ~DirectoryLock() {
    if (fd_) {
      flock(fd_.get(), LOCK_UN);
    }
  }

 private:
  explicit DirectoryLock(OwnedFd fd) : fd_(std::move(fd)) {}
  OwnedFd fd_;
};

std::optional<sockaddr_un> socket_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return std::nullopt;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Error too_long(const std::string& path) {
  return Error(Errc::kLimit, path + ": longer than the address of a Unix socket (" +
                                 std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes)");
}

// "<pid>-<n>.sock"
std::optional<std::pair<pid_t, unsigned>> parse_name(std::string_view name) {
  constexpr std::string_view kSuffix = ".sock";
  if (!name.ends_with(kSuffix)) {
    return std::nullopt;
  }
  name.remove_suffix(kSuffix.size());
  pid_t pid = 0;
  unsigned n = 0;
  const char* end = name.data() + name.size();
  const auto [dash, pid_error] = std::from_chars(name.data(), end, pid);
  if (pid_error != std::errc() || pid <= 0 || dash == end || *dash != '-') {
    return std::nullopt;
  }
  const auto [last, n_error] = std::from_chars(dash + 1, end, n);
  if (n_error != std::errc() || last != end) {
    return std::nullopt;
  }
  return std::pair(pid, n);
}

// Whether nobody can answer on it any more. A child that was forked (and not exec'ed) still holds
// its dead parent's listening socket; the credentials of a listening socket are its maker's, 0 if
// that one lives in another pid namespace.
bool is_stale(const std::string& path) {
  const Result<OwnedFd> fd = connect_control_socket(path, kProbeTimeoutMs);
  if (!fd) {
    return fd.code() == Errc::kDeviceGone;
  }
  ucred maker{};
  socklen_t length = sizeof maker;
  if (getsockopt(fd->get(), SOL_SOCKET, SO_PEERCRED, &maker, &length) != 0 || maker.pid <= 0) {
    return false;
  }
  return kill(maker.pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

void OwnedFd::reset() {
  if (fd_ >= 0) {
    close(fd_);
    fd_ = -1;
  }
}

std::vector<std::string> control_directories(uid_t uid, const std::string& xdg) {
  std::vector<std::string> all;
  if (uid == 0) {
    all.emplace_back("/run/kvmm");
  }
  if (!xdg.empty() && xdg.front() == '/') {
    all.push_back(xdg + "/kvmm");
  }
  all.push_back("/tmp/kvmm-" + std::to_string(uid));
  return all;
}

std::vector<std::string> control_directories() {
  const char* xdg = std::getenv("XDG_RUNTIME_DIR");
  return control_directories(geteuid(), xdg == nullptr ? "" : xdg);
}

Result<void> prepare_control_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    const int error = errno;
    return Error(error == ENOENT || error == ENOTDIR ? Errc::kNotFound : Errc::kPermission,
                 path + ": cannot be made", error);
  }
  // Looked at through one descriptor that follows no link: nobody can exchange it in between.
  const OwnedFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0) {
    return Error(Errc::kPermission, path + ": is not a directory of this user", errno);
  }
  if (st.st_uid != geteuid()) {
    return Error(Errc::kPermission, path + ": belongs to uid " + std::to_string(st.st_uid) +
                                        "; remove it, or set XDG_RUNTIME_DIR");
  }
  if ((st.st_mode & 077) != 0 && fchmod(fd.get(), 0700) != 0) {
    return Error(Errc::kPermission, path + ": is open to others; chmod 700 it", errno);
  }
  return {};
}

Result<ControlSocket> make_control_socket(const std::string& directory) {
  if (Result<void> ok = prepare_control_directory(directory); !ok) {
    return std::move(ok).error();
  }
  // bind() and listen() are two steps: the lock keeps others from taking the socket for a dead one.
  const Result<DirectoryLock> lock = DirectoryLock::take(directory);
  if (!lock) {
    return lock.error();
  }
  remove_stale_sockets(directory);
  OwnedFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // On Linux the socket's own mode becomes the file's: it is never open to others, and the
  // process's umask stays untouched.
  if (!fd || fchmod(fd.get(), 0600) != 0) {
    return Error(Errc::kIo, "no Unix socket can be made", errno);
  }
  for (unsigned n = 0; n < kSocketsMax; ++n) {
    std::string path =
        directory + "/" + std::to_string(getpid()) + "-" + std::to_string(n) + ".sock";
    const std::optional<sockaddr_un> address = socket_address(path);
    if (!address) {
      return too_long(path);
    }
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
      if (errno == EADDRINUSE) {
        continue;
      }
      return Error(Errc::kPermission, path + ": cannot be bound", errno);
    }
    if (chmod(path.c_str(), 0600) != 0 || listen(fd.get(), kBacklog) != 0) {
      const int error = errno;
      unlink(path.c_str());
      return Error(Errc::kIo, path + ": cannot listen", error);
    }
    return ControlSocket{std::move(fd), std::move(path)};
  }
  return Error(Errc::kLimit, directory + ": this process has 1,000 control sockets there");
}

void remove_control_socket(const std::string& path) {
  unlink(path.c_str());
}

std::vector<ControlName> list_control_sockets(const std::string& directory) {
  std::vector<ControlName> all;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
  if (dir == nullptr) {
    return all;
  }
  while (const dirent* entry = readdir(dir.get())) {
    if (const auto name = parse_name(entry->d_name)) {
      all.push_back({name->first, name->second, directory + "/" + entry->d_name});
    }
  }
  std::sort(all.begin(), all.end(), [](const ControlName& a, const ControlName& b) {
    return std::tie(a.pid, a.n) < std::tie(b.pid, b.n);
  });
  return all;
}

Result<OwnedFd> connect_control_socket(const std::string& path, int timeout_ms) {
  const std::optional<sockaddr_un> address = socket_address(path);
  if (!address) {
    return too_long(path);
  }
  OwnedFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Error(Errc::kIo, "no Unix socket can be made", errno);
  }
  timeval limit{};
  limit.tv_sec = timeout_ms / 1000;
  limit.tv_usec = static_cast<suseconds_t>(timeout_ms % 1000) * 1000;
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // connect obeys it too
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    switch (const int error = errno) {
      case ECONNREFUSED:
      case ENOENT:
      case ENOTSOCK:
        return Error(Errc::kDeviceGone, path + ": no runtime listens there", error);
      case EAGAIN:
        return Error(Errc::kBusy, path + ": the runtime does not answer", error);
      case EACCES:
      case EPERM:
        return Error(Errc::kPermission, path + ": is another user's", error);
      default:
        return Error(Errc::kIo, path + ": cannot connect", error);
    }
  }
  return fd;
}

int remove_stale_sockets(const std::string& directory) {
  int removed = 0;
  for (const ControlName& name : list_control_sockets(directory)) {
    struct stat st {};
    const bool is_socket = lstat(name.path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode);
    if (is_socket && is_stale(name.path) && unlink(name.path.c_str()) == 0) {
      ++removed;
    }
  }
  return removed;
}

}  // namespace kvmm
