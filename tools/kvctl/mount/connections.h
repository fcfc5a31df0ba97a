// SPDX-License-Identifier: Apache-2.0
//
// Connections to one runtime for several threads: each request has one for itself, so that nobody
// waits for somebody else's answer.
//
//   Result<Stat> stat = connections.ask([&](Client& c) { return c.stat("tiers"); });
//
// Invariants
//   1. A connection is used again only after a complete answer: a late one would be taken for the
//      next request's.
//   2. A request is sent once. If the connection was closed while it was idle (the runtime gives
//      places to newcomers), that is seen before and a new one is made.
//
// Thread safety: ask() may be called by any thread. There are as many connections as threads that
// were ever inside at once.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tools/kvctl/client.h"

namespace kvmm::ctl {

class Connections {
 public:
  Connections(std::string socket, int timeout_ms)
      : socket_(std::move(socket)), timeout_ms_(timeout_ms) {}

  // kDeviceGone: the runtime has ended; at once, and at each call until one is there again.
  template <class Fn>
  auto ask(Fn&& fn) -> decltype(fn(std::declval<Client&>())) {
    Result<Client> client = take();
    if (!client) {
      return std::move(client).error();
    }
    auto answer = fn(*client);
    if (client->alive()) {
      give_back(std::move(*client));
    }
    return answer;
  }

 private:
  Result<Client> take();
  void give_back(Client client);

  const std::string socket_;
  const int timeout_ms_;
  std::mutex mutex_;
  std::vector<Client> idle_;  // guarded by mutex_
};

}  // namespace kvmm::ctl
