// SPDX-License-Identifier: Apache-2.0
//
// Trace events out of JSON that nobody has checked yet: a reply of a runtime, or a line of a file.
//
// A header, so that whoever compiles the client alone needs nothing else.
//
// Thread safety: functions without state.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/kvctl/client.h"

namespace kvmm::ctl {

inline constexpr size_t kTraceNameMax = 64;
inline constexpr size_t kTraceRowArgsMax = 16;
inline constexpr size_t kTraceSchemaMax = 1024;

inline bool trace_name_ok(const nlohmann::json& j) {
  return j.is_string() && !j.get_ref<const std::string&>().empty() &&
         j.get_ref<const std::string&>().size() <= kTraceNameMax;
}

// Errors of both: kCorrupt, and the text says what is wrong.
inline Result<TraceRow> trace_row_of(const nlohmann::json& from) {
  if (!from.is_array() || from.size() < 3 || from.size() > 3 + kTraceRowArgsMax) {
    return Error(Errc::kCorrupt, "an event is an array: number, tick, name, arguments");
  }
  TraceRow row;
  for (size_t i = 0; i < from.size(); ++i) {
    if (i == 2 ? !trace_name_ok(from[i]) : !from[i].is_number_unsigned()) {
      return Error(Errc::kCorrupt, i == 2 ? "an event's name must be a short text"
                                          : "an event's numbers must be whole, from 0 to 2^64 - 1");
    }
    if (i > 2) {
      row.args.push_back(from[i].get<uint64_t>());
    }
  }
  row.number = from[0].get<uint64_t>();
  row.tick = from[1].get<uint64_t>();
  row.event = from[2].get<std::string>();
  return row;
}

inline Result<std::vector<TraceEventSchema>> trace_schema_of(const nlohmann::json& from) {
  if (!from.is_array() || from.size() > kTraceSchemaMax) {
    return Error(Errc::kCorrupt, "'schema' must be a list of events");
  }
  std::vector<TraceEventSchema> all;
  for (const nlohmann::json& event : from) {
    if (!event.is_object() || !event.contains("name") || !trace_name_ok(event["name"]) ||
        !event.contains("args") || !event["args"].is_array() ||
        event["args"].size() > kTraceRowArgsMax) {
      return Error(Errc::kCorrupt, "'schema': an event has a 'name' and 'args'");
    }
    TraceEventSchema one{event["name"].get<std::string>(), {}};
    for (const nlohmann::json& arg : event["args"]) {
      if (!trace_name_ok(arg)) {
        return Error(Errc::kCorrupt, "'schema': the arguments of an event must be names");
      }
      one.args.push_back(arg.get<std::string>());
    }
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace kvmm::ctl
