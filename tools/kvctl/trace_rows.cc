// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/trace_rows.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/base/trace.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using OutJson = nlohmann::ordered_json;

Error corrupt(const std::string& what) {
  return Error(Errc::kCorrupt, what);
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
