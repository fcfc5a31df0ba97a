// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/snapshot.h"

#include <sstream>

namespace kvmm::ctl {
namespace {

// Whether the runtime simply has no such attribute.
bool is_missing(const Error& error) {
  return error.code == Errc::kNotFound;
}

// "tiers/dram/used" -> directory "dram", attribute "used". The order of walk() keeps a directory's
// attributes together.
Result<std::vector<Directory>> read_directories(Client& client, const std::string& parent) {
  const Result<std::vector<Item>> items = client.walk(parent);
  std::vector<Directory> all;
  if (!items) {
    return is_missing(items.error()) ? Result<std::vector<Directory>>(all) : items.error();
  }
  for (const Item& item : *items) {
    const size_t from = parent.size() + 1;
    const size_t slash = item.path.find('/', from);
    if (item.path.size() <= from || slash == std::string::npos) {
      continue;
    }
    const std::string name = item.path.substr(from, slash - from);
    if (all.empty() || all.back().name != name) {
      all.push_back({name, {}});
    }
    all.back().attributes.put(item.path.substr(slash + 1), item);
  }
  return all;
}

uint64_t sum_used(const std::vector<Directory>& directories) {
  uint64_t sum = 0;
  for (const Directory& directory : directories) {
    sum += directory.attributes.number("used");
  }
  return sum;
}

}  // namespace

Counters parse_counters(const std::string& text) {
  Counters counters;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    uint64_t value = 0;
    if (words >> name >> value) {
      counters[name] = value;
    }
  }
  return counters;
}

uint64_t Attributes::number(const std::string& name) const {
  const auto it = items_.find(name);
  return it == items_.end() ? 0 : it->second.number.value_or(0);
}

std::string Attributes::text(const std::string& name) const {
  const auto it = items_.find(name);
  return it == items_.end() ? "" : it->second.value.value_or("");
}

uint64_t Snapshot::tiers_used() const {
  return sum_used(tiers);
}
uint64_t Snapshot::swap_used() const {
  return sum_used(swap);
}

Result<Snapshot> take_snapshot(Client& client, bool with_sessions) {
  Snapshot snapshot;
  const Result<Item> uptime = client.get("uptime");
  if (uptime) {
    snapshot.uptime_ns = uptime->number.value_or(0);
  } else if (!is_missing(uptime.error())) {
    return uptime.error();
  }
  const Result<Item> vmstat = client.get("vmstat");
  if (vmstat) {
    snapshot.vmstat = parse_counters(*vmstat->value);
  } else if (!is_missing(vmstat.error())) {
    return vmstat.error();
  }
  struct Part {
    const char* path;
    std::vector<Directory>* to;
  };
  std::vector<Part> parts = {{"tiers", &snapshot.tiers}, {"swap", &snapshot.swap}};
  if (with_sessions) {
    parts.push_back({"sessions", &snapshot.sessions});
  }
  for (const Part& part : parts) {
    Result<std::vector<Directory>> directories = read_directories(client, part.path);
    if (!directories) {
      return std::move(directories).error();
    }
    *part.to = std::move(*directories);
  }
  for (const Directory& session : snapshot.sessions) {
    const Result<Item> stat = client.get("sessions/" + session.name + "/stat");
    if (stat) {
      snapshot.session_stats[session.name] = parse_counters(*stat->value);
    } else if (!is_missing(stat.error())) {
      return stat.error();
    }
  }
  snapshot.sessions_count = snapshot.sessions.size();
  if (!with_sessions) {
    const Result<std::vector<Entry>> sessions = client.list("sessions");
    if (!sessions && !is_missing(sessions.error())) {
      return sessions.error();
    }
    snapshot.sessions_count = sessions ? sessions->size() : 0;
  }
  return snapshot;
}

}  // namespace kvmm::ctl
