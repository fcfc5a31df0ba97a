// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/top_model.h"

#include <algorithm>

#include "runtime/base/attr_value.h"

namespace kvmm::ctl {
namespace {

uint64_t value_of(const Counters& counters, const std::string& name) {
  const auto it = counters.find(name);
  return it == counters.end() ? 0 : it->second;
}

uint64_t value_of(const Snapshot& snapshot, const Directory& session, const std::string& counter) {
  const auto it = snapshot.session_stats.find(session.name);
  return it == snapshot.session_stats.end() ? 0 : value_of(it->second, counter);
}

}  // namespace

void TopModel::add(Snapshot snapshot) {
  if (!now_.vmstat.empty() || now_.uptime_ns != 0) {
    before_ = std::move(now_);
  }
  now_ = std::move(snapshot);
  for (const Directory& tier : now_.tiers) {
    push("tiers/" + tier.name, tier.attributes.number("used"));
  }
  for (const Directory& area : now_.swap) {
    push("swap/" + area.name, area.attributes.number("used"));
  }
  if (has_rates()) {
    for (const auto& [name, value] : now_.vmstat) {
      push(name, rate(name));
    }
  }
}

void TopModel::push(const std::string& name, uint64_t value) {
  std::vector<uint64_t>& values = series_[name];
  if (values.size() == kHistory) {
    values.erase(values.begin());
  }
  values.push_back(value);
}

uint64_t TopModel::per_second(uint64_t from, uint64_t to) const {
  const uint64_t ms = (now_.uptime_ns - std::min(now_.uptime_ns, before_->uptime_ns)) / 1'000'000;
  return ms == 0 || to < from
             ? 0
             : static_cast<uint64_t>(static_cast<unsigned __int128>(to - from) * 1000 / ms);
}

uint64_t TopModel::rate(const std::string& counter) const {
  return has_rates()
             ? per_second(value_of(before_->vmstat, counter), value_of(now_.vmstat, counter))
             : 0;
}

uint64_t TopModel::rate(const Directory& session, const std::string& counter) const {
  if (!has_rates()) {
    return 0;
  }
  // One that was opened meanwhile began at zero.
  return per_second(value_of(*before_, session, counter), value_of(now_, session, counter));
}

uint64_t TopModel::shown(const std::string& counter) const {
  return has_rates() ? rate(counter) : value_of(now_.vmstat, counter);
}

uint64_t TopModel::shown(const Directory& session, const std::string& counter) const {
  return has_rates() ? rate(session, counter) : value_of(now_, session, counter);
}

const std::vector<uint64_t>& TopModel::series(const std::string& name) const {
  static const std::vector<uint64_t> none;
  const auto it = series_.find(name);
  return it == series_.end() ? none : it->second;
}

uint64_t TopModel::peak(const std::string& name) const {
  const std::vector<uint64_t>& values = series(name);
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

uint64_t faults_shown(const TopModel& model, const Directory& session) {
  return model.shown(session, "faults_zero") + model.shown(session, "faults_minor") +
         model.shown(session, "faults_major");
}

void TopModel::sort(SortBy by, bool reverse) {
  const auto weight = [&](const Directory& d) -> uint64_t {
    switch (by) {
      case SortBy::kResident:
        return d.attributes.number("bytes_resident");
      case SortBy::kSwapped:
        return d.attributes.number("bytes_swapped");
      case SortBy::kFaults:
        return faults_shown(*this, d);
      case SortBy::kMajor:
        return shown(d, "faults_major");
      case SortBy::kIn:
        return shown(d, "swap_in_bytes");
      case SortBy::kOut:
        return shown(d, "swap_out_bytes");
      case SortBy::kName:
      case SortBy::kId:
        return 0;
    }
    return 0;
  };
  struct Row {
    uint64_t weight;
    std::string name;
    Directory session;
  };
  std::vector<Row> rows;
  for (Directory& session : now_.sessions) {
    const std::string name = by == SortBy::kName ? session.attributes.text("name") : session.name;
    rows.push_back({weight(session), name, std::move(session)});
  }
  // Largest first, and by name or number where that is the same.
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.weight != b.weight ? a.weight > b.weight : compare_names(a.name, b.name) < 0;
  });
  if (reverse) {
    std::reverse(rows.begin(), rows.end());
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    now_.sessions[i] = std::move(rows[i].session);
  }
}

}  // namespace kvmm::ctl
