// SPDX-License-Identifier: Apache-2.0
//
// What top knows: the last snapshot, what changed a second since the one before, and how that went.
//
//   model.add(snapshot);  ...  model.add(snapshot);
//   model.rate("faults_major")            a second, of the whole runtime
//   model.rate(session, "swap_in_bytes")  of one session
//   model.series("faults_major")          the rates of the last kHistory pictures, oldest first
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {

enum class SortBy { kResident, kSwapped, kFaults, kMajor, kIn, kOut, kName, kId };

class TopModel {
 public:
  static constexpr size_t kHistory = 240;  // pictures

  void add(Snapshot snapshot);

  const Snapshot& now() const { return now_; }
  // False: there is one picture only, and nothing to compare it with.
  bool has_rates() const { return before_.has_value(); }
  // Per second; 0 without rates, or if it went backwards (a counter that was reset).
  uint64_t rate(const std::string& counter) const;
  uint64_t rate(const Directory& session, const std::string& counter) const;
  // Of a counter the rate, without rates the total since the start.
  uint64_t shown(const std::string& counter) const;
  uint64_t shown(const Directory& session, const std::string& counter) const;

  // Names: counters of vmstat; "tiers/dram", "swap/swap0" (bytes used). Empty: none.
  const std::vector<uint64_t>& series(const std::string& name) const;
  // The highest of it.
  uint64_t peak(const std::string& name) const;

  void sort(SortBy by, bool reverse);

 private:
  uint64_t per_second(uint64_t from, uint64_t to) const;
  void push(const std::string& name, uint64_t value);

  Snapshot now_;
  std::optional<Snapshot> before_;
  std::map<std::string, std::vector<uint64_t>> series_;
};

// Faults of all kinds.
uint64_t faults_shown(const TopModel& model, const Directory& session);

}  // namespace kvmm::ctl
