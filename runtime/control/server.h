// SPDX-License-Identifier: Apache-2.0
//
// The control socket of one runtime: a Unix socket that answers the control protocol.
//
//   kvctl ---- <pid>-<n>.sock ---> [ control thread: epoll ] ---> AttrTree getters and setters
//                                            |    ^
//                                            v    | eventfd
//                                  [ action thread ]  swapon, swapoff: may take minutes
//
// Invariants
//   1. Memory is bounded: clients_max clients, each with at most one line of kControlLineMax bytes
//      coming in and one reply going out; nothing is read from a client that has a reply to take.
//   2. No client can make another one wait: sockets do not block, a client that takes no byte of
//   its
//      reply for stall_ms is dropped, and when all places are taken the one that has been silent
//      longest, for at least idle_ms, gives up its place; else the newcomer is told so.
//   3. Only the owner of the process and root are served (SO_PEERCRED), whatever the file's mode.
//   4. Both threads block all signals: the engine's handlers never run on them.
//
// Thread safety: start() and the destructor belong to one thread; everything else is inside.
// In a forked child the object does nothing: its destructor touches neither socket nor thread.
// Ownership: the tree, and what the actions refer to, outlive the server.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/base/attr.h"
#include "runtime/base/result.h"
#include "runtime/control/protocol.h"

namespace kvmm {

struct ControlOptions {
  std::string directory = {};  // "": the first of control_directories() that can be had
  std::string name = {};       // of the runtime, shown by kvctl ps
  std::string version = {};    // of the library
  std::map<std::string, ControlAction> actions = {};  // "swapon", "swapoff"
  const TraceRing* trace = nullptr;                   // outlives the server; null: no op `trace`
  int clients_max = 16;
  int stall_ms = 10'000;
  int idle_ms = 60'000;
  // Who is at the other end; tests put another user there. False: cannot be told, refused.
  std::function<bool(int fd, ucred* peer)> peer_of = {};

  // kInvalid: a limit that is not positive.
  Result<void> validate() const;
};

class ControlServer {
 public:
  // Makes the socket and starts to answer. Errors: those of make_control_socket (of the last
  // directory tried), kInvalid, kNoMemory (no thread, no descriptor).
  static Result<std::unique_ptr<ControlServer>> start(const AttrTree& tree, ControlOptions options);
  // Removes the socket, drops the clients, waits for a running action. Callbacks have ended then.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Of the socket.
  const std::string& path() const;

 private:
  class Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvmm
