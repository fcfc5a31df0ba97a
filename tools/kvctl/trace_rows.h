// SPDX-License-Identifier: Apache-2.0
//
// Trace events as kvctl has them: from JSON, and as text and JSON for people and programs.
//
//   [17, 5012345, "map", 3, 17, 139, 0]     as they come over the socket and stand in a file
//        5.012345678  map           session 3  page 0/17  frame 0x8b
//
// An argument is printed by its word in the schema (runtime/base/trace_events.h).
//
// Thread safety: values and functions without state.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/kvctl/client.h"

namespace kvmm::ctl {

class TraceSchema {
 public:
  TraceSchema() = default;
  explicit TraceSchema(std::vector<TraceEventSchema> events);

  const std::vector<TraceEventSchema>& events() const { return events_; }
  // Null: no such event.
  const TraceEventSchema* find(const std::string& event) const;
  // Of the argument called `name`; false: the event has none.
  bool argument(const TraceRow& row, std::string_view name, uint64_t* value) const;

  // Errors: kCorrupt: the event is not known, or has another number of arguments.
  Result<void> check(const TraceRow& row) const;
  std::string text(const TraceRow& row) const;
  // "page 0/17 frame 0x8b" without the session.
  std::string arguments_text(const TraceRow& row) const;
  nlohmann::ordered_json json(const TraceRow& row) const;
  // Adds the arguments of the row.
  void add_arguments(const TraceRow& row, nlohmann::ordered_json* to) const;

 private:
  std::vector<TraceEventSchema> events_;
  std::map<std::string, size_t> by_name_;
};

// "ok", "io", ...; what is no status is printed as its number.
std::string errc_text_of(uint64_t code);

}  // namespace kvmm::ctl
