// SPDX-License-Identifier: Apache-2.0
//
// The other end of the control protocol: one connection to one runtime.
//
//   Result<Client> client = Client::connect(path, 5000);
//   Result<Item> used = client->get("tiers/dram/used");
//
// What a runtime sends is checked here, once: after these functions everything has its type. A
// reply that is no protocol is kCorrupt, a connection that ends is kDeviceGone, one that does not
// answer in time is kBusy, and given up; everything else is the runtime's own refusal.
//
// Thread safety: none; one thread a client.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/control/endpoint.h"

namespace kvmm::ctl {

struct Hello {
  int64_t pid = 0;
  std::string name;
  std::string version;
};

struct Entry {
  std::string name;
  bool directory = false;
  std::string mode;  // "" for directories
  std::string type;
};

struct Item {
  std::string path;
  std::string mode;
  std::string type;
  bool configurable = false;
  std::optional<std::string> value;  // none: write-only, or a text that walk() leaves out
  std::optional<uint64_t> number;    // bytes, nanoseconds, counts
  std::string error;                 // why there is no value
};

// What stands at a path, without its value.
struct Stat {
  bool directory = false;
  std::string mode, type, unit, range, fallback, stability, help;  // "" for directories
  bool configurable = false;
};

// What a trace event is called, and what its arguments are.
struct TraceEventSchema {
  std::string name;
  std::vector<std::string> args;
};

struct TraceRow {
  uint64_t number = 0;
  uint64_t tick = 0;  // ns
  std::string event;
  std::vector<uint64_t> args;
};

struct TraceReply {
  std::vector<TraceRow> rows;
  uint64_t next = 0;
  uint64_t lost = 0;                     // of those asked for
  std::vector<TraceEventSchema> schema;  // if no offset was given
};

class Client {
 public:
  // `timeout_ms` bounds connecting and each reply but those of call().
  static Result<Client> connect(const std::string& path, int timeout_ms);

  const std::string& path() const { return path_; }
  // Whether the connection stands, and nothing comes from it unasked.
  bool alive() const;
  Result<Hello> hello();
  Result<std::vector<Entry>> list(const std::string& path);
  // The whole value, however many replies it takes.
  Result<Item> get(const std::string& path);
  Result<void> set(const std::string& path, const std::string& value);
  // Whether name, mode, type and range would let `value` pass; changes nothing.
  Result<void> check(const std::string& path, const std::string& value);
  Result<Stat> stat(const std::string& path);
  // Every attribute at or below `path`, without texts.
  Result<std::vector<Item>> walk(const std::string& path);
  // Events from number `offset` on; none: nothing but where to begin, and the schema. `filter`:
  // "events", "session".
  Result<TraceReply> trace(std::optional<uint64_t> offset,
                           const std::map<std::string, std::string>& filter);
  // Waits as long as it takes.
  Result<std::string> call(const std::string& name,
                           const std::map<std::string, std::string>& arguments);

 private:
  Client(OwnedFd fd, std::string path, int timeout_ms)
      : fd_(std::move(fd)), path_(std::move(path)), timeout_ms_(timeout_ms) {}
  struct Wire;  // JSON stays in client.cc
  Result<std::string> exchange(const std::string& line, int timeout_ms);

  OwnedFd fd_;
  std::string path_;
  int timeout_ms_;
  std::string buffer_;  // bytes behind the last reply
};

}  // namespace kvmm::ctl
