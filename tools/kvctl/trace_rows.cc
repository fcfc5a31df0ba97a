// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/trace_rows.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/base/trace.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::json;
using OutJson = nlohmann::ordered_json;

constexpr size_t kNameMax = 64;
constexpr size_t kArgsMax = 16;
constexpr size_t kEventsMax = 1024;

Error corrupt(const std::string& what) {
  return Error(Errc::kCorrupt, what);
}

bool is_name(const Json& j) {
  return j.is_string() && !j.get_ref<const std::string&>().empty() &&
         j.get_ref<const std::string&>().size() <= kNameMax;
}

std::string page_text(uint64_t page) {
  return fmt::format("{}/{}", page >> 32, page & UINT32_MAX);
}

std::string value_text(std::string_view name, uint64_t value) {
  if (name == "page") {
    return page_text(value);
  }
  if (name == "address" || name == "frame" || name == "slot" || name == "checksum" ||
      name == "found") {
    return fmt::format("{:#x}", value);
  }
  if (name == "errc") {
    return errc_text_of(value);
  }
  if (name == "kind" && value < std::size(kFaultKinds)) {
    return kFaultKinds[value];
  }
  return std::to_string(value);
}

}  // namespace

std::string errc_text_of(uint64_t code) {
  return code <= static_cast<uint64_t>(Errc::kDeviceGone) ? errc_name(static_cast<Errc>(code))
                                                          : std::to_string(code);
}

Result<TraceRow> trace_row_of(const Json& from) {
  if (!from.is_array() || from.size() < 3 || from.size() > 3 + kArgsMax) {
    return corrupt("an event is an array: number, tick, name, arguments");
  }
  TraceRow row;
  for (size_t i = 0; i < from.size(); ++i) {
    if (i == 2 ? !is_name(from[i]) : !from[i].is_number_unsigned()) {
      return corrupt(i == 2 ? "an event's name must be a short text"
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

Result<std::vector<TraceEventSchema>> trace_schema_of(const Json& from) {
  if (!from.is_array() || from.size() > kEventsMax) {
    return corrupt("'schema' must be a list of events");
  }
  std::vector<TraceEventSchema> all;
  for (const Json& event : from) {
    if (!event.is_object() || !event.contains("name") || !is_name(event["name"]) ||
        !event.contains("args") || !event["args"].is_array() || event["args"].size() > kArgsMax) {
      return corrupt("'schema': an event has a 'name' and 'args'");
    }
    TraceEventSchema one{event["name"].get<std::string>(), {}};
    for (const Json& arg : event["args"]) {
      if (!is_name(arg)) {
        return corrupt("'schema': the arguments of " + harmless(one.name) + " must be names");
      }
      one.args.push_back(arg.get<std::string>());
    }
    all.push_back(std::move(one));
  }
  return all;
}

TraceSchema::TraceSchema(std::vector<TraceEventSchema> events) : events_(std::move(events)) {
  for (size_t i = 0; i < events_.size(); ++i) {
    by_name_.emplace(events_[i].name, i);
  }
}

const TraceEventSchema* TraceSchema::find(const std::string& event) const {
  const auto it = by_name_.find(event);
  return it == by_name_.end() ? nullptr : &events_[it->second];
}

bool TraceSchema::argument(const TraceRow& row, std::string_view name, uint64_t* value) const {
  const TraceEventSchema* const event = find(row.event);
  for (size_t i = 0; event != nullptr && i < event->args.size() && i < row.args.size(); ++i) {
    if (event->args[i] == name) {
      *value = row.args[i];
      return true;
    }
  }
  return false;
}

Result<void> TraceSchema::check(const TraceRow& row) const {
  const TraceEventSchema* const event = find(row.event);
  if (event == nullptr) {
    return corrupt("there is no event '" + harmless(row.event) + "' in the schema");
  }
  if (event->args.size() != row.args.size()) {
    return corrupt(fmt::format("{} has {} arguments, not {}", harmless(row.event),
                               event->args.size(), row.args.size()));
  }
  return {};
}

std::string TraceSchema::arguments_text(const TraceRow& row) const {
  const TraceEventSchema* const event = find(row.event);
  std::string text;
  for (size_t i = 0; event != nullptr && i < event->args.size() && i < row.args.size(); ++i) {
    const std::string& name = event->args[i];
    if (name != "session") {
      text += fmt::format("{}{} {}", text.empty() ? "" : "  ", harmless(name),
                          value_text(name, row.args[i]));
    }
  }
  return text;
}

std::string TraceSchema::text(const TraceRow& row) const {
  uint64_t session = 0;
  const std::string whose =
      argument(row, "session", &session) ? fmt::format("session {}  ", session) : std::string();
  return fmt::format("{:>8}.{:09}  {:<14} {}{}\n", row.tick / 1'000'000'000,
                     row.tick % 1'000'000'000, harmless(row.event), whose, arguments_text(row));
}

void TraceSchema::add_arguments(const TraceRow& row, OutJson* to) const {
  const TraceEventSchema* const event = find(row.event);
  for (size_t i = 0; event != nullptr && i < event->args.size() && i < row.args.size(); ++i) {
    const std::string& name = event->args[i];
    if (name == "page") {
      (*to)["plane"] = row.args[i] >> 32;
      (*to)["page"] = row.args[i] & UINT32_MAX;
    } else if (name == "errc" || name == "kind") {
      (*to)[name] = value_text(name, row.args[i]);
    } else if (name == "write" || name == "zeroed") {
      (*to)[name] = row.args[i] != 0;
    } else {
      (*to)[name] = row.args[i];
    }
  }
}

OutJson TraceSchema::json(const TraceRow& row) const {
  OutJson out;
  out["number"] = row.number;
  out["tick_ns"] = row.tick;
  out["event"] = row.event;
  add_arguments(row, &out);
  return out;
}

}  // namespace kvmm::ctl
