// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/control/protocol.h"
#include "tools/kvctl/trace_wire.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kReplyMax = 16 * kControlReplyBytes;
constexpr int kPiecesMax = 100'000;  // of one list or text

Error garbage() {
  return Error(Errc::kCorrupt, "what answers there does not speak the control protocol");
}

std::string text_of(const Json& from, const char* name) {
  const auto it = from.find(name);
  return it != from.end() && it->is_string() ? it->get<std::string>() : std::string();
}

bool flag_of(const Json& from, const char* name) {
  const auto it = from.find(name);
  return it != from.end() && it->is_boolean() && it->get<bool>();
}

Errc code_of(const Json& error) {
  const auto it = error.find("number");
  const int64_t n = it != error.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  const bool known = n > 0 && n <= static_cast<int64_t>(Errc::kDeviceGone);
  return known ? static_cast<Errc>(n) : Errc::kInvalid;
}

Item item_of(const Json& from) {
  Item item;
  item.path = text_of(from, "path");
  item.mode = text_of(from, "mode");
  item.type = text_of(from, "type");
  item.configurable = flag_of(from, "configurable");
  if (const auto it = from.find("value"); it != from.end() && it->is_string()) {
    item.value = it->get<std::string>();
  }
  if (const auto it = from.find("number"); it != from.end() && it->is_number_unsigned()) {
    item.number = it->get<uint64_t>();
  }
  if (const auto it = from.find("error"); it != from.end() && it->is_object()) {
    item.error = text_of(*it, "text");
  }
  return item;
}

}  // namespace

struct Client::Wire {
  static Json request(const char* op) { return Json{{"kvmm", kControlVersion}, {"op", op}}; }

  // The reply's object, once it is known to be one that says ok.
  static Result<Json> ask(Client& client, const Json& request, int timeout_ms) {
    const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    const Result<std::string> reply = client.exchange(line, timeout_ms);
    if (!reply) {
      return reply.error();
    }
    Json json = Json::parse(*reply, nullptr, false);
    if (!json.is_object() || !json.contains("kvmm")) {
      return garbage();
    }
    if (json["kvmm"] != kControlVersion) {
      return Error(Errc::kVersion, "the runtime speaks another version of the control protocol");
    }
    if (flag_of(json, "ok")) {
      return json;
    }
    const auto error = json.find("error");
    if (error == json.end() || !error->is_object()) {
      return garbage();
    }
    return Error(code_of(*error), text_of(*error, "text"));
  }

  // Asks until there is no `next`; `take` gets each element of the array `name`.
  template <class Take>
  static Result<void> ask_all(Client& client, Json request, const char* name, const Take& take) {
    for (int piece = 0; piece < kPiecesMax; ++piece) {
      const Result<Json> reply = ask(client, request, client.timeout_ms_);
      if (!reply) {
        return reply.error();
      }
      const auto all = reply->find(name);
      if (all == reply->end() || !all->is_array()) {
        return garbage();
      }
      for (const Json& one : *all) {
        if (!one.is_object()) {
          return garbage();
        }
        take(one);
      }
      if (!reply->contains("next")) {
        return {};
      }
      request["after"] = text_of(*reply, "next");
    }
    return garbage();
  }
};

Result<Client> Client::connect(const std::string& path, int timeout_ms) {
  Result<OwnedFd> fd = connect_control_socket(path, timeout_ms);
  if (!fd) {
    return std::move(fd).error();
  }
  return Client(std::move(*fd), path, timeout_ms);
}

Result<std::string> Client::exchange(const std::string& line, int timeout_ms) {
  if (!fd_) {
    return Error(Errc::kDeviceGone, path_ + ": this connection has been given up");
  }
  // A runtime that refuses a client hangs up at once: then sending fails and the reason is there.
  bool sent = true;
  for (size_t at = 0; at < line.size() && sent;) {
    const ssize_t n = send(fd_.get(), line.data() + at, line.size() - at, MSG_NOSIGNAL);
    sent = n > 0;
    at += sent ? static_cast<size_t>(n) : 0;
  }
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  char piece[64 * 1024];
  while (true) {
    if (const size_t newline = buffer_.find('\n'); newline != std::string::npos) {
      std::string reply = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return reply;
    }
    if (buffer_.size() > kReplyMax) {
      return garbage();
    }
    int wait = -1;
    if (timeout_ms >= 0) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      wait = static_cast<int>(std::max<int64_t>(left, 0));
    }
    pollfd fd{fd_.get(), POLLIN, 0};
    const int ready = poll(&fd, 1, wait);
    if (ready < 0 && errno == EINTR) {
      continue;
    }
    if (ready == 0) {
      fd_.reset();  // a late reply would be taken for the next request's
      return Error(Errc::kBusy, path_ + ": the runtime does not answer");
    }
    const ssize_t n = recv(fd_.get(), piece, sizeof piece, MSG_DONTWAIT);
    if (n <= 0) {
      return Error(Errc::kDeviceGone, path_ + ": the runtime has closed the connection");
    }
    buffer_.append(piece, static_cast<size_t>(n));
  }
}

Result<Hello> Client::hello() {
  const Result<Json> reply = Wire::ask(*this, Wire::request("hello"), timeout_ms_);
  if (!reply) {
    return reply.error();
  }
  const auto pid = reply->find("pid");
  if (pid == reply->end() || !pid->is_number_integer()) {
    return garbage();
  }
  return Hello{pid->get<int64_t>(), text_of(*reply, "name"), text_of(*reply, "version")};
}

Result<std::vector<Entry>> Client::list(const std::string& path) {
  Json request = Wire::request("ls");
  request["path"] = path;
  std::vector<Entry> all;
  const Result<void> done = Wire::ask_all(*this, std::move(request), "entries", [&](const Json& e) {
    all.push_back({text_of(e, "name"), flag_of(e, "dir"), text_of(e, "mode"), text_of(e, "type")});
  });
  if (!done) {
    return done.error();
  }
  return all;
}

Result<Item> Client::get(const std::string& path) {
  Json request = Wire::request("get");
  request["path"] = path;
  std::string value;
  for (int piece = 0; piece < kPiecesMax; ++piece) {
    Result<Json> reply = Wire::ask(*this, request, timeout_ms_);
    if (!reply) {
      return std::move(reply).error();
    }
    Item item = item_of(*reply);
    if (!item.value) {
      return garbage();
    }
    value += *item.value;
    const auto next = reply->find("next");
    if (next == reply->end()) {
      item.path = path;
      item.value = std::move(value);
      return item;
    }
    if (!next->is_number_unsigned() || item.value->empty()) {
      return garbage();
    }
    request["offset"] = *next;
  }
  return garbage();
}

Result<void> Client::set(const std::string& path, const std::string& value) {
  Json request = Wire::request("set");
  request["path"] = path;
  request["value"] = value;
  const Result<Json> reply = Wire::ask(*this, request, timeout_ms_);
  if (!reply) {
    return reply.error();
  }
  return {};
}

Result<void> Client::check(const std::string& path, const std::string& value) {
  Json request = Wire::request("set");
  request["path"] = path;
  request["value"] = value;
  request["check"] = true;
  const Result<Json> reply = Wire::ask(*this, request, timeout_ms_);
  return reply ? Result<void>() : Result<void>(reply.error());
}

Result<Stat> Client::stat(const std::string& path) {
  Json request = Wire::request("stat");
  request["path"] = path;
  const Result<Json> reply = Wire::ask(*this, request, timeout_ms_);
  if (!reply) {
    return reply.error();
  }
  const auto dir = reply->find("dir");
  if (dir == reply->end() || !dir->is_boolean()) {
    return garbage();
  }
  return Stat{dir->get<bool>(),
              text_of(*reply, "mode"),
              text_of(*reply, "type"),
              text_of(*reply, "unit"),
              text_of(*reply, "range"),
              text_of(*reply, "default"),
              text_of(*reply, "stability"),
              text_of(*reply, "help"),
              flag_of(*reply, "configurable")};
}

bool Client::alive() const {
  pollfd fd{fd_.get(), POLLIN | POLLRDHUP, 0};
  return fd_ && buffer_.empty() && poll(&fd, 1, 0) == 0;
}

Result<std::vector<Item>> Client::walk(const std::string& path) {
  Json request = Wire::request("walk");
  request["path"] = path;
  std::vector<Item> all;
  const Result<void> done = Wire::ask_all(*this, std::move(request), "items",
                                          [&](const Json& i) { all.push_back(item_of(i)); });
  if (!done) {
    return done.error();
  }
  return all;
}

Result<TraceReply> Client::trace(std::optional<uint64_t> offset,
                                 const std::map<std::string, std::string>& filter) {
  Json request = Wire::request("trace");
  request["args"] = filter;
  if (offset) {
    request["offset"] = *offset;
  }
  const Result<Json> reply = Wire::ask(*this, request, timeout_ms_);
  if (!reply) {
    return reply.error();
  }
  TraceReply out;
  const auto number = [&](const char* name, uint64_t* to) {
    const auto it = reply->find(name);
    const bool good = it != reply->end() && it->is_number_unsigned();
    *to = good ? it->get<uint64_t>() : 0;
    return good;
  };
  const auto records = reply->find("records");
  if (!number("next", &out.next) || !number("lost", &out.lost) || records == reply->end() ||
      !records->is_array()) {
    return garbage();
  }
  for (const Json& record : *records) {
    Result<TraceRow> row = trace_row_of(record);
    if (!row) {
      return garbage();
    }
    out.rows.push_back(std::move(*row));
  }
  if (const auto schema = reply->find("schema"); schema != reply->end()) {
    Result<std::vector<TraceEventSchema>> all = trace_schema_of(*schema);
    if (!all) {
      return garbage();
    }
    out.schema = std::move(*all);
  }
  return out;
}

Result<std::string> Client::call(const std::string& name,
                                 const std::map<std::string, std::string>& arguments) {
  Json request = Wire::request("call");
  request["name"] = name;
  request["args"] = arguments;
  const Result<Json> reply = Wire::ask(*this, request, -1);
  if (!reply) {
    return reply.error();
  }
  return text_of(*reply, "value");
}

}  // namespace kvmm::ctl
