// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/protocol.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "runtime/base/trace.h"

namespace kvmm {
namespace {

using Json = nlohmann::ordered_json;
// What comes in: members found by tree, so that ten thousand of them cost no square.
using InJson = nlohmann::json;

constexpr std::array<std::pair<std::string_view, ControlOp>, 10> kOps = {
    {{"hello", ControlOp::kHello},
     {"info", ControlOp::kHello},
     {"ls", ControlOp::kList},
     {"get", ControlOp::kGet},
     {"set", ControlOp::kSet},
     {"stat", ControlOp::kStat},
     {"walk", ControlOp::kWalk},
     {"defs", ControlOp::kDefs},
     {"call", ControlOp::kCall},
     {"trace", ControlOp::kTrace}}};

std::string to_line(const Json& reply) {
  // Session names come from engines: what is no UTF-8 is replaced, never refused.
  return reply.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json ok_reply() {
  Json reply;
  reply["kvmm"] = kControlVersion;
  reply["ok"] = true;
  return reply;
}

Json error_json(const Error& error) {
  Json e;
  e["code"] = errc_name(error.code);
  e["number"] = static_cast<int>(error.code);
  e["text"] = error.detail.empty() ? errc_text(error.code) : error.detail;
  if (error.os_error != 0) {
    e["errno"] = error.os_error;
  }
  return e;
}

Error bad_member(const char* name, const char* type) {
  return Error(Errc::kInvalid, std::string("'") + name + "' must be " + type);
}

// Takes the string member `name`, if there is one.
Result<void> take_text(const InJson& from, const char* name, std::string& to) {
  const auto it = from.find(name);
  if (it == from.end()) {
    return {};
  }
  if (!it->is_string()) {
    return bad_member(name, "a string");
  }
  to = it->get<std::string>();
  return {};
}

Result<void> take_args(const InJson& from, ControlArgs& to) {
  const auto it = from.find("args");
  if (it == from.end()) {
    return {};
  }
  if (!it->is_object()) {
    return bad_member("args", "an object");
  }
  for (const auto& [key, value] : it->items()) {
    if (value.is_string()) {
      to[key] = value.get<std::string>();
    } else if (value.is_number_integer() || value.is_boolean()) {
      to[key] = value.dump();
    } else {
      return bad_member("args", "an object of strings, whole numbers and booleans");
    }
  }
  return {};
}

Json value_json(const AttrDef& def, const AttrValue& value) {
  Json item;
  item["value"] = format_value(def, value);
  if (def.type == AttrType::kU64 || def.type == AttrType::kBytes ||
      def.type == AttrType::kDuration) {
    item["number"] = value.number;  // bytes and nanoseconds, for programs
  }
  return item;
}

Json hello(const ControlContext& context) {
  Json reply = ok_reply();
  reply["pid"] = context.pid;
  reply["name"] = context.name;
  reply["version"] = context.version;
  Json names = Json::array();
  for (const auto& [name, action] : context.actions) {
    names.push_back(name);
  }
  reply["actions"] = std::move(names);
  return reply;
}

Result<Json> list(const ControlContext& context, const ControlRequest& request) {
  const Result<std::vector<AttrEntry>> entries = context.tree->list(request.path);
  if (!entries) {
    return entries.error();
  }
  Json reply = ok_reply();
  Json all = Json::array();
  size_t bytes = 0;
  const std::string* last = nullptr;
  for (const AttrEntry& entry : *entries) {
    if (!request.after.empty() && compare_names(entry.name, request.after) <= 0) {
      continue;
    }
    if (bytes > kControlReplyBytes) {
      reply["next"] = *last;
      break;
    }
    Json item;
    item["name"] = entry.name;
    item["dir"] = entry.def == nullptr;
    if (entry.def != nullptr) {
      item["mode"] = mode_name(entry.def->mode);
      item["type"] = type_name(entry.def->type);
      item["configurable"] = entry.def->configurable();
    }
    bytes += entry.name.size() + 64;
    last = &entry.name;
    all.push_back(std::move(item));
  }
  reply["entries"] = std::move(all);
  return reply;
}

Result<Json> get(const ControlContext& context, const ControlRequest& request) {
  const Result<const AttrDef*> def = context.tree->find(request.path);
  if (!def) {
    return def.error();
  }
  const Result<AttrValue> value = context.tree->read(request.path);
  if (!value) {
    return value.error();
  }
  Json reply = ok_reply();
  reply["path"] = request.path;
  reply["type"] = type_name((*def)->type);
  const std::string& text = value->text;
  const bool whole = request.offset == 0 && text.size() <= kControlReplyBytes;
  if (is_numeric((*def)->type) || whole) {
    reply.update(value_json(**def, *value));
    return reply;
  }
  if (request.offset > text.size()) {
    return Error(Errc::kRange, request.path + ": is shorter than the offset by now");
  }
  std::string piece = text.substr(request.offset, kControlReplyBytes);
  const size_t line_end = piece.rfind('\n');
  if (request.offset + piece.size() < text.size()) {
    if (line_end != std::string::npos) {
      piece.resize(line_end + 1);
    }
    reply["next"] = request.offset + piece.size();
  }
  reply["size"] = text.size();
  reply["value"] = std::move(piece);
  return reply;
}

Result<Json> walk(const ControlContext& context, const ControlRequest& request) {
  Json reply = ok_reply();
  Json items = Json::array();
  size_t bytes = 0;
  std::string last;
  bool cut = false;
  const Result<void> walked =
      context.tree->walk(request.path, request.after, false, [&](const AttrItem& item) {
        if (bytes > kControlReplyBytes) {
          cut = true;
          return false;
        }
        Json out;
        out["path"] = item.path;
        out["mode"] = mode_name(item.def->mode);
        out["type"] = type_name(item.def->type);
        out["configurable"] = item.def->configurable();
        const bool unread =
            item.def->mode == AttrMode::kWriteOnly || item.def->type == AttrType::kText;
        if (item.value) {
          out.update(value_json(*item.def, *item.value));
        } else if (!unread) {
          out["error"] = error_json(item.value.error());
        }
        bytes += item.path.size() + 128 + (item.value ? item.value->text.size() : 0);
        last = item.path;
        items.push_back(std::move(out));
        return true;
      });
  if (!walked) {
    return walked.error();
  }
  reply["items"] = std::move(items);
  if (cut) {
    reply["next"] = last;
  }
  return reply;
}

Json def_json(const AttrDef& def) {
  Json item;
  item["pattern"] = def.pattern;
  item["mode"] = mode_name(def.mode);
  item["type"] = type_name(def.type);
  item["unit"] = def.unit;
  item["range"] = range_text(def);
  item["default"] = def.fallback;
  item["configurable"] = def.configurable();
  item["stability"] = stability_name(def.stability);
  item["help"] = def.help;
  return item;
}

Result<Json> stat(const ControlContext& context, const ControlRequest& request) {
  const Result<const AttrDef*> def = context.tree->stat(request.path);
  if (!def) {
    return def.error();
  }
  Json reply = ok_reply();
  reply["dir"] = *def == nullptr;
  if (*def != nullptr) {
    reply.update(def_json(**def));
  }
  return reply;
}

Json defs(const ControlContext& context, const ControlRequest& request) {
  Json reply = ok_reply();
  Json all = Json::array();
  size_t bytes = 0;
  std::string last;
  for (const AttrDef* def : context.tree->defs()) {
    if (!request.after.empty() && def->pattern <= request.after) {
      continue;
    }
    if (bytes > kControlReplyBytes) {
      reply["next"] = last;
      break;
    }
    last = def->pattern;
    bytes += last.size() + std::char_traits<char>::length(def->help) + 200;
    all.push_back(def_json(*def));
  }
  reply["defs"] = std::move(all);
  return reply;
}

Result<Json> call(const ControlContext& context, const ControlRequest& request) {
  const auto it = context.actions.find(request.name);
  if (it == context.actions.end()) {
    return Error(Errc::kNotFound, "this runtime has no action of that name; hello lists them");
  }
  Result<std::string> value = it->second(request.args);
  if (!value) {
    return std::move(value).error();
  }
  Json reply = ok_reply();
  reply["value"] = std::move(*value);
  return reply;
}

// What of the trace a client wants.
struct TraceFilter {
  uint64_t events = UINT64_MAX;
  bool one_session = false;
  uint64_t session = 0;

  bool wants(const TraceRecord& r) const {
    const bool of_session = trace_event_info(r.event).args[0] == std::string_view("session");
    return (events >> static_cast<unsigned>(r.event) & 1) != 0 &&
           (!one_session || (of_session && r.args[0] == session));
  }
};

Result<TraceFilter> trace_filter(const ControlArgs& args) {
  TraceFilter filter;
  for (const auto& [name, value] : args) {
    if (name == "events") {
      const Result<uint64_t> mask = trace_events_of(value);
      if (!mask) {
        return mask.error();
      }
      filter.events = *mask;
    } else if (name == "session") {
      const auto [end, failed] =
          std::from_chars(value.data(), value.data() + value.size(), filter.session);
      if (failed != std::errc() || end != value.data() + value.size()) {
        return Error(Errc::kInvalid, "'session' must be the number of a session");
      }
      filter.one_session = true;
    } else {
      return Error(Errc::kInvalid, "'args' of a trace are 'events' and 'session'");
    }
  }
  return filter;
}

Json trace_schema() {
  Json schema = Json::array();
  for (const TraceEventInfo& event : kTraceEvents) {
    Json args = Json::array();
    for (const char* arg : event.args) {
      if (*arg != '\0') {
        args.push_back(arg);
      }
    }
    schema.push_back({{"name", event.name}, {"args", std::move(args)}});
  }
  return schema;
}

// The ring is read without a lock and nothing is kept for a client: one that never comes back
// costs nothing, one that comes late is told how many it missed.
Result<Json> trace(const ControlContext& context, const ControlRequest& request) {
  if (context.trace == nullptr) {
    return Error(Errc::kNotSupported, "this runtime records no trace");
  }
  const Result<TraceFilter> filter = trace_filter(request.args);
  if (!filter) {
    return filter.error();
  }
  Json reply = ok_reply();
  Json records = Json::array();
  uint64_t next = request.has_offset ? request.offset : context.trace->recorded();
  uint64_t lost = 0;
  size_t bytes = 0;
  std::array<TraceRecord, 128> piece;
  // Each round but the last takes a whole piece, so a ring that is written faster than it is read
  // ends it too.
  for (size_t done = 0; bytes < kControlReplyBytes && done < context.trace->capacity();) {
    const uint64_t from = next;
    const size_t n = context.trace->read(from, piece, next);
    lost += next - from - n;
    done += n;
    for (const TraceRecord& r : std::span(piece).first(n)) {
      if (!filter->wants(r)) {
        continue;
      }
      const TraceEventInfo& info = trace_event_info(r.event);
      Json one = Json::array({r.ticket, r.tick.value(), info.name});
      for (size_t i = 0; i < kTraceArgs && *info.args[i] != '\0'; ++i) {
        one.push_back(r.args[i]);
      }
      records.push_back(std::move(one));
      bytes += 128;
    }
    if (n == 0) {
      break;
    }
  }
  reply["records"] = std::move(records);
  reply["next"] = next;
  reply["lost"] = lost;
  if (!request.has_offset) {
    reply["schema"] = trace_schema();
  }
  return reply;
}

Result<void> check_members(const ControlRequest& request, const InJson& from) {
  const bool needs_path = request.op == ControlOp::kGet || request.op == ControlOp::kSet;
  if (needs_path && request.path.empty()) {
    return Error(Errc::kInvalid, "'path' is missing");
  }
  if (request.op == ControlOp::kSet && !from.contains("value")) {
    return Error(Errc::kInvalid, "'value' is missing");
  }
  if (request.op == ControlOp::kCall && request.name.empty()) {
    return Error(Errc::kInvalid, "'name' is missing");
  }
  return {};
}

}  // namespace

Result<ControlRequest> parse_request(std::string_view line) {
  const InJson from = InJson::parse(line.begin(), line.end(), nullptr, false);
  if (from.is_discarded() || !from.is_object()) {
    return Error(Errc::kInvalid, "a request is one JSON object on one line");
  }
  const auto version = from.find("kvmm");
  if (version == from.end() || !version->is_number_integer()) {
    return bad_member("kvmm", "the protocol's version, 1");
  }
  if (*version != kControlVersion) {
    return Error(Errc::kVersion, "this runtime speaks version 1 of the control protocol");
  }
  const auto op = from.find("op");
  if (op == from.end() || !op->is_string()) {
    return bad_member("op", "a string");
  }
  const auto known = std::find_if(kOps.begin(), kOps.end(), [&](const auto& o) {
    return o.first == op->get_ref<const std::string&>();
  });
  if (known == kOps.end()) {
    return Error(Errc::kNotSupported,
                 "unknown op; there are hello, ls, get, set, stat, walk, defs, call, trace");
  }
  ControlRequest request;
  request.op = known->second;
  const std::array<std::pair<const char*, std::string*>, 4> texts = {{{"path", &request.path},
                                                                      {"value", &request.value},
                                                                      {"after", &request.after},
                                                                      {"name", &request.name}}};
  for (const auto& [name, to] : texts) {
    if (Result<void> ok = take_text(from, name, *to); !ok) {
      return std::move(ok).error();
    }
  }
  if (const auto it = from.find("offset"); it != from.end()) {
    if (!it->is_number_unsigned()) {
      return bad_member("offset", "a whole number");
    }
    request.offset = it->get<uint64_t>();
    request.has_offset = true;
  }
  if (const auto it = from.find("check"); it != from.end()) {
    if (!it->is_boolean()) {
      return bad_member("check", "true or false");
    }
    request.check = it->get<bool>();
  }
  if (Result<void> ok = take_args(from, request.args); !ok) {
    return std::move(ok).error();
  }
  if (Result<void> ok = check_members(request, from); !ok) {
    return std::move(ok).error();
  }
  return request;
}

std::string answer_request(const ControlContext& context, const ControlRequest& request) {
  const Result<Json> reply = [&]() -> Result<Json> {
    switch (request.op) {
      case ControlOp::kHello:
        return hello(context);
      case ControlOp::kList:
        return list(context, request);
      case ControlOp::kGet:
        return get(context, request);
      case ControlOp::kSet: {
        Result<void> done = request.check ? context.tree->check_set(request.path, request.value)
                                          : context.tree->set(request.path, request.value);
        if (!done) {
          return std::move(done).error();
        }
        return ok_reply();
      }
      case ControlOp::kStat:
        return stat(context, request);
      case ControlOp::kWalk:
        return walk(context, request);
      case ControlOp::kDefs:
        return defs(context, request);
      case ControlOp::kCall:
        return call(context, request);
      case ControlOp::kTrace:
        return trace(context, request);
    }
    return Error(Errc::kNotSupported);
  }();
  return reply ? to_line(*reply) : error_reply(reply.error());
}

std::string error_reply(const Error& error) {
  Json reply;
  reply["kvmm"] = kControlVersion;
  reply["ok"] = false;
  reply["error"] = error_json(error);
  return to_line(reply);
}

}  // namespace kvmm
