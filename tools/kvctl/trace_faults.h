// SPDX-License-Identifier: Apache-2.0
//
// Lives of faults, put together from trace events: from the touch that the core read to the thread
// that runs on, with what happened to the page in between.
//
//   fault_begin (3, 0/17) ... frame ... read ... io_done ... map ... fault_end (3, 0/17)
//
// Bounded: kOpenMax faults at once, kStepsMax steps of each; what is more is left out and said so.
//
// Thread safety: values.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/kvctl/trace_rows.h"

namespace kvmm::ctl {

// Whose fault: SESSION:PAGE or SESSION:PLANE/PAGE.
struct FaultWanted {
  uint64_t session = 0;
  std::optional<uint64_t> plane;
  uint64_t page = 0;
};
// Errors: kInvalid.
Result<FaultWanted> parse_fault_wanted(const std::string& text);

struct FaultLife {
  uint64_t session = 0;
  uint64_t page = 0;  // with its plane
  std::vector<TraceRow> steps;
  uint64_t steps_left_out = 0;
  bool events_lost = false;  // while it lasted
};

class FaultLives {
 public:
  FaultLives(const TraceSchema& schema, std::optional<FaultWanted> wanted)
      : schema_(schema), wanted_(wanted) {}

  // The life that ends with this event, if one does.
  std::optional<FaultLife> add(const TraceRow& row);
  void lost();

  std::string text(const FaultLife& life) const;
  nlohmann::ordered_json json(const FaultLife& life) const;

 private:
  static constexpr size_t kOpenMax = 4096;
  static constexpr size_t kStepsMax = 256;
  bool is_wanted(uint64_t session, uint64_t page) const;
  std::string step(const TraceRow& row) const;

  const TraceSchema& schema_;
  const std::optional<FaultWanted> wanted_;
  std::map<std::pair<uint64_t, uint64_t>, FaultLife> open_;
};

}  // namespace kvmm::ctl
