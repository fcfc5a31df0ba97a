// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/mount/connections.h"

namespace kvmm::ctl {

Result<Client> Connections::take() {
  {
    const std::lock_guard lock(mutex_);
    while (!idle_.empty()) {
      Client client = std::move(idle_.back());
      idle_.pop_back();
      if (client.alive()) {
        return client;
      }
    }
  }
  return Client::connect(socket_, timeout_ms_);
}

void Connections::give_back(Client client) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(client));
}

}  // namespace kvmm::ctl
