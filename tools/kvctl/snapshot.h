// SPDX-License-Identifier: Apache-2.0
//
// A runtime at one moment, as ps, tiers and top show it: read from the attribute tree, with what is
// missing left at zero or empty, so that a newer or older runtime can be shown too.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tools/kvctl/client.h"

namespace kvmm::ctl {

// The attributes of one directory: name -> item.
class Attributes {
 public:
  void put(std::string name, Item item) { items_[std::move(name)] = std::move(item); }
  // 0 if there is none.
  uint64_t number(const std::string& name) const;
  // "" if there is none.
  std::string text(const std::string& name) const;

 private:
  std::map<std::string, Item> items_;
};

using Counters = std::map<std::string, uint64_t>;

struct Directory {
  std::string name;
  Attributes attributes;
};

// Lines "name value"; others are passed over.
Counters parse_counters(const std::string& text);

struct Snapshot {
  uint64_t uptime_ns = 0;
  std::vector<Directory> tiers;
  std::vector<Directory> swap;
  std::vector<Directory> sessions;                // only if asked for
  std::map<std::string, Counters> session_stats;  // by id, if asked for
  size_t sessions_count = 0;
  Counters vmstat;

  uint64_t tiers_used() const;
  uint64_t swap_used() const;
};

// Errors: those of the client; a part that the runtime does not have is no error.
Result<Snapshot> take_snapshot(Client& client, bool with_sessions);

}  // namespace kvmm::ctl
