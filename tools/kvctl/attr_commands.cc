// SPDX-License-Identifier: Apache-2.0
//
// ls, get, set: the attribute tree as it is.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/control/config_line.h"
#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

// Leading and trailing slashes are what shells complete and people type.
std::string clean(std::string path) {
  path.erase(0, std::min(path.find_first_not_of('/'), path.size()));
  while (path.ends_with('/')) {
    path.pop_back();
  }
  return path;
}

Json to_json(const Item& item) {
  Json json;
  json["path"] = item.path;
  if (!item.mode.empty()) {
    json["mode"] = item.mode;
  }
  json["type"] = item.type;
  json["value"] = item.value ? Json(*item.value) : Json();
  if (item.number) {
    json["number"] = *item.number;
  }
  if (!item.error.empty()) {
    json["error"] = item.error;
  }
  return json;
}

// A line that the config directory can read, or a comment for what it cannot set.
std::string config_text(const Item& item) {
  if (item.value) {
    const std::string line = format_config_line(item.path, *item.value);
    return harmless(item.configurable ? line : "# " + line) + "\n";
  }
  const std::string why = !item.error.empty() ? item.error
                          : item.mode == "wo" ? "write-only"
                                              : "a text: kvctl get " + item.path;
  return harmless("# " + item.path + ": " + why) + "\n";
}

int get_recursive(const Context& context, Client& client) {
  std::vector<std::string> paths = context.options.paths;
  if (paths.empty()) {
    paths.emplace_back();
  }
  std::string text;
  Json json = Json::array();
  for (const std::string& path : paths) {
    const Result<std::vector<Item>> items = client.walk(clean(path));
    if (!items) {
      return context.fail(items.error());
    }
    for (const Item& item : *items) {
      text += config_text(item);
      json.push_back(to_json(item));
    }
  }
  return context.options.json ? context.print(json) : context.print(text);
}

}  // namespace

int run_ls(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const Result<std::vector<Entry>> entries = runtime->client.list(clean(context.options.path));
  if (!entries) {
    return context.fail(entries.error());
  }
  std::string text;
  Table table({"MODE", "TYPE", "NAME"});
  Json json = Json::array();
  for (const Entry& entry : *entries) {
    const std::string name = harmless(entry.name) + (entry.directory ? "/" : "");
    text += name + "\n";
    table.add({entry.mode, entry.directory ? "dir" : entry.type, name});
    Json one;
    one["name"] = entry.name;
    one["dir"] = entry.directory;
    if (!entry.directory) {
      one["mode"] = entry.mode;
      one["type"] = entry.type;
    }
    json.push_back(std::move(one));
  }
  if (context.options.json) {
    return context.print(json);
  }
  return context.print(context.options.details ? table.text() : text);
}

int run_get(const Context& context) {
  if (!context.options.recursive && context.options.paths.empty()) {
    return context.fail(kExitUsage, "get needs a path, or -r");
  }
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  if (context.options.recursive) {
    return get_recursive(context, runtime->client);
  }
  std::string text;
  Json json = Json::array();
  for (const std::string& path : context.options.paths) {
    const Result<Item> item = runtime->client.get(clean(path));
    if (!item) {
      return context.fail(item.error());
    }
    text += harmless(*item->value, true);
    text += text.ends_with('\n') ? "" : "\n";
    json.push_back(to_json(*item));
  }
  if (context.options.json) {
    return context.print(json.size() == 1 ? json[0] : json);
  }
  return context.print(text);
}

int run_set(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const std::string path = clean(context.options.path);
  if (const Result<void> done = runtime->client.set(path, context.options.value); !done) {
    return context.fail(done.error());
  }
  if (!context.options.json) {
    return kExitOk;
  }
  Json json;
  json["path"] = path;
  json["ok"] = true;
  return context.print(json);
}

}  // namespace kvmm::ctl
