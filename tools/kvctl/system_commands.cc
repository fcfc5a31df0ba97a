// SPDX-License-Identifier: Apache-2.0
//
// ps, tiers, swap, swapon, swapoff: runtimes, and where they keep pages.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTierNumbers[] = {"capacity",      "used",          "free",
                                        "watermark_min", "watermark_low", "watermark_high"};

// It may be negative, so a runtime gives it as text.
Json priority_of(const std::string& text) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size() ? Json(n) : Json(text);
}

// The runtime has another working directory, and compares paths as texts.
std::string path_for_runtime(const std::string& given, std::error_code* error) {
  namespace fs = std::filesystem;
  const fs::path path = fs::absolute(given, *error);
  if (*error || path.native() == path.lexically_normal().native()) {
    return path.string();
  }
  const fs::path folder = fs::weakly_canonical(path.parent_path(), *error);  // "..", links
  return (folder / path.filename()).string();
}

// What swapoff is to call the area that is meant: its path as the runtime knows it, which an engine
// may have given relative to a directory of its own.
Result<std::string> area_meant(Client& client, const std::string& given, std::string path) {
  const Result<Snapshot> now = take_snapshot(client, false);
  if (!now) {
    return now.error();
  }
  std::string found;
  for (const auto& [name, attributes] : now->swap) {
    const std::string known = attributes.text("path");
    if (known == path) {
      return path;
    }
    if (known == given || name == given) {
      found = known;
    }
  }
  return found.empty() ? path : found;  // the runtime says what is wrong with it
}

int call_swap(const Context& context, const std::string& action,
              std::map<std::string, std::string> arguments) {
  const std::string& given = context.options.path;
  std::error_code error;
  std::string path = path_for_runtime(given, &error);
  if (given.empty() || error) {
    return context.fail(kExitUsage,
                        given.empty() ? "a path is needed" : given + ": " + error.message());
  }
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  if (action == "swapoff") {
    Result<std::string> meant = area_meant(runtime->client, given, path);
    if (!meant) {
      return context.fail(meant.error());
    }
    path = std::move(*meant);
  }
  arguments["path"] = path;
  const Result<std::string> done = runtime->client.call(action, arguments);
  if (!done) {
    return context.fail(done.error());
  }
  if (context.options.json) {
    Json json;
    json["ok"] = true;
    json["path"] = path;
    json["text"] = *done;
    return context.print(json);
  }
  return done->empty() ? kExitOk : context.print(harmless(*done) + "\n");
}

}  // namespace

int run_ps(const Context& context) {
  Table table({">PID", "NAME", "VERSION", ">UPTIME", ">SESSIONS", ">MEMORY", ">SWAP", "SOCKET"});
  Json json = Json::array();
  std::vector<std::string> silent;
  std::vector<Runtime> shown;
  if (context.options.runtime.empty()) {
    shown = context.runtimes(&silent);
  } else {
    int status = 0;
    std::optional<Runtime> only = context.choose(&status);
    if (!only) {
      return status;
    }
    shown.push_back(std::move(*only));
  }
  for (Runtime& runtime : shown) {
    const Result<Snapshot> now = take_snapshot(runtime.client, false);
    if (!now) {
      if (now.code() != Errc::kDeviceGone) {
        silent.push_back(now.error().message());
      }
      continue;
    }
    table.add({std::to_string(runtime.hello.pid), runtime.hello.name, runtime.hello.version,
               human_duration(now->uptime_ns), std::to_string(now->sessions_count),
               human_bytes(now->tiers_used()), human_bytes(now->swap_used()),
               runtime.client.path()});
    json.push_back({{"pid", runtime.hello.pid},
                    {"name", runtime.hello.name},
                    {"version", runtime.hello.version},
                    {"uptime_ns", now->uptime_ns},
                    {"sessions", now->sessions_count},
                    {"memory_bytes", now->tiers_used()},
                    {"swap_bytes", now->swap_used()},
                    {"socket", runtime.client.path()}});
  }
  std::string text = table.text();
  for (const std::string& one : silent) {
    text += harmless(one) + "\n";
    if (context.options.json) {  // an array has no place for those that do not answer
      std::fprintf(stderr, "kvctl: %s\n", harmless(one).c_str());
    }
  }
  return context.options.json ? context.print(json) : context.print(text);
}

int run_tiers(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const Result<Snapshot> now = take_snapshot(runtime->client, false);
  if (!now) {
    return context.fail(now.error());
  }
  Table tiers(
      {"TIER", "KIND", ">CAPACITY", ">USED", ">FREE", ">MIN", ">LOW", ">HIGH", "DEMOTE TO"});
  Table swap({"SWAP", ">SIZE", ">USED", ">PRIORITY", ">ERRORS", "PATH"});
  Json json;
  json["tiers"] = Json::array();
  json["swap"] = Json::array();
  for (const auto& [name, attributes] : now->tiers) {
    std::vector<std::string> cells = {name, attributes.text("kind")};
    Json one = {{"name", name}, {"kind", attributes.text("kind")}};
    for (const char* number : kTierNumbers) {
      cells.push_back(human_bytes(attributes.number(number)));
      one[number] = attributes.number(number);
    }
    cells.push_back(attributes.text("demote_to"));
    one["demote_to"] = attributes.text("demote_to");
    tiers.add(std::move(cells));
    json["tiers"].push_back(std::move(one));
  }
  for (const auto& [name, attributes] : now->swap) {
    swap.add({name, human_bytes(attributes.number("size")), human_bytes(attributes.number("used")),
              attributes.text("priority"), attributes.text("errors"), attributes.text("path")});
    json["swap"].push_back({{"name", name},
                            {"size", attributes.number("size")},
                            {"used", attributes.number("used")},
                            {"priority", priority_of(attributes.text("priority"))},
                            {"errors", attributes.number("errors")},
                            {"path", attributes.text("path")}});
  }
  if (context.options.json) {
    return context.print(json);
  }
  return context.print(tiers.text() + (swap.empty() ? "" : "\n" + swap.text()));
}

// As swapon --show, and how the devices do: latencies are those of reads.
int run_swap(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const Result<Snapshot> now = take_snapshot(runtime->client, false);
  if (!now) {
    return context.fail(now.error());
  }
  Table table({"SWAP", "DRIVER", ">SIZE", ">GROWN", ">USED", ">PRIORITY", "HEALTH", ">ERRORS",
               ">LOST", ">READ P50", ">P99", "PATH"});
  Json json = Json::array();
  for (const auto& [name, a] : now->swap) {
    table.add({name, a.text("driver"), human_bytes(a.number("size")),
               human_bytes(a.number("grown")), human_bytes(a.number("used")), a.text("priority"),
               a.text("health"), a.text("errors"), a.text("lost"),
               human_latency(a.number("read_p50")), human_latency(a.number("read_p99")),
               a.text("path")});
    Json one = {{"name", name},
                {"path", a.text("path")},
                {"driver", a.text("driver")},
                {"priority", priority_of(a.text("priority"))},
                {"health", a.text("health")},
                {"discard", a.text("discard") == "on"}};
    for (const char* number : {"size", "grown", "used", "retired", "errors", "lost", "latency",
                               "read_p50", "read_p99", "write_p50", "write_p99"}) {
      one[number] = a.number(number);
    }
    json.push_back(std::move(one));
  }
  if (context.options.json) {
    return context.print(json);
  }
  return context.print(table.empty() ? "no swap areas; add one with kvctl swapon PATH\n"
                                     : table.text());
}

int run_swapon(const Context& context) {
  std::map<std::string, std::string> arguments;
  if (!context.options.bytes.empty()) {
    arguments["bytes"] = context.options.bytes;
  }
  if (context.options.priority) {
    arguments["priority"] = std::to_string(*context.options.priority);
  }
  if (!context.options.discard.empty()) {
    arguments["discard"] = context.options.discard;
  }
  if (!context.options.driver.empty()) {
    const std::string& driver = context.options.driver;
    std::error_code error;
    arguments["driver"] =
        driver.find('/') == std::string::npos ? driver : path_for_runtime(driver, &error);
    if (error) {
      return context.fail(kExitUsage, driver + ": " + error.message());
    }
  }
  if (!context.options.driver_options.empty()) {
    arguments["driver_options"] = context.options.driver_options;
  }
  return call_swap(context, "swapon", std::move(arguments));
}

int run_swapoff(const Context& context) {
  return call_swap(context, "swapoff", {});
}

}  // namespace kvmm::ctl
