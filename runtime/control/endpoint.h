// SPDX-License-Identifier: Apache-2.0
//
// Where control sockets are: which directory, which name, and how left-over ones go away.
//
//   root      /run/kvmm                0700   <pid>-<n>.sock  0600
//   a user    $XDG_RUNTIME_DIR/kvmm    0700   lock            held (flock) while a socket is made
//             /tmp/kvmm-<uid>          0700                   or a stale one is removed
//
// The first that can be had is used; readers look into all of them. A directory that exists must
// belong to the caller, be no link and be closed to others, or it is refused: /tmp is everybody's.
//
// Thread safety: functions without state; the lock file orders processes.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace kvmm {

// An open descriptor, closed at the end.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  ~OwnedFd() { reset(); }
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset();

 private:
  int fd_ = -1;
};

// Directories in the order in which a runtime of `uid` tries them. `xdg` is $XDG_RUNTIME_DIR or "".
std::vector<std::string> control_directories(uid_t uid, const std::string& xdg);
// The same for this process, from its effective uid and its environment.
std::vector<std::string> control_directories();

// Makes `path` (mode 0700; its parent must exist) or checks it. Errors: kPermission (another's, a
// link, open to others, cannot be made), kNotFound (no parent), kIo.
Result<void> prepare_control_directory(const std::string& path);

// Binds and listens on `<directory>/<pid>-<n>.sock` with the first free n, mode 0600, and removes
// what dead processes left there. Errors: kPermission, kLimit (path longer than a socket address;
// more than 1,000 runtimes), kBusy (another process has held the lock for 2 s), kIo.
struct ControlSocket {
  OwnedFd fd;  // non-blocking, close-on-exec
  std::string path;
};
Result<ControlSocket> make_control_socket(const std::string& directory);

// Removes the socket and says nothing if it is gone.
void remove_control_socket(const std::string& path);

struct ControlName {
  pid_t pid;
  unsigned n;
  std::string path;
};
// Sockets in `directory`, by pid and n; empty if there is none or it cannot be read. They may be
// dead: connect to find out.
std::vector<ControlName> list_control_sockets(const std::string& directory);

// Connects; `timeout_ms` bounds connect and each later read and write. kDeviceGone: nobody listens.
Result<OwnedFd> connect_control_socket(const std::string& path, int timeout_ms);

// Removes sockets nobody listens on any more; also those a forked child of a dead runtime still
// holds open. REQUIRES: the directory's lock is held. Returns how many went.
int remove_stale_sockets(const std::string& directory);

}  // namespace kvmm
