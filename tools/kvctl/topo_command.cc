// SPDX-License-Identifier: Apache-2.0
//
// topo: where pages lie, from the fastest memory down to swap, and how far it is from each node.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/snapshot.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;
using Distances = std::map<uint64_t, uint64_t>;  // node -> distance

constexpr size_t kBarWidth = 20;

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) {
    words.push_back(word);
  }
  return words;
}

std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(n) : std::nullopt;
}

// "0:10 1:21"; what is nothing of that kind is passed over.
Distances distances_of(const Attributes& tier) {
  Distances all;
  for (const std::string& word : words_of(tier.text("distance"))) {
    const std::string_view pair = word;
    const size_t colon = pair.find(':');
    if (colon == std::string_view::npos) {
      continue;
    }
    const auto node = number_of(pair.substr(0, colon));
    const auto distance = number_of(pair.substr(colon + 1));
    if (node && distance) {
      all[*node] = *distance;
    }
  }
  return all;
}

// "12G of 16G"
std::string fill_text(uint64_t used, uint64_t all) {
  return human_bytes(used) + " of " + human_bytes(all);
}

std::string speed_text(const Attributes& tier) {
  std::string text;
  if (const uint64_t mib = tier.number("bandwidth"); mib != 0) {
    text += human_bytes(mib << 20) + "/s";
  }
  if (const uint64_t ns = tier.number("latency"); ns != 0) {
    text += (text.empty() ? "" : " ") + std::to_string(ns) + "ns";
  }
  return text.empty() ? "-" : text;
}

std::string order_text(const Snapshot& now) {
  Table table(
      {">RANK", "TIER", ">NODE", "MEMORY", "SPEED", "FILL", "", ">UP", ">DOWN", "THEN, OR PATH"});
  for (const Directory& d : now.tiers) {
    const Attributes& a = d.attributes;
    const std::string memory = a.text("memory");
    table.add({std::to_string(a.number("rank")), d.name, std::to_string(a.number("node")),
               memory.empty() ? "-" : memory, speed_text(a),
               bar(a.number("used"), a.number("capacity"), kBarWidth),
               fill_text(a.number("used"), a.number("capacity")),
               std::to_string(a.number("promoted")), std::to_string(a.number("demoted")),
               a.text("demote_to")});
  }
  for (const Directory& d : now.swap) {
    const Attributes& a = d.attributes;
    table.add({"swap", d.name, "-", "priority " + a.text("priority"), "-",
               bar(a.number("used"), a.number("size"), kBarWidth),
               fill_text(a.number("used"), a.number("size")), "-", "-", a.text("path")});
  }
  return table.text();
}

std::string distance_text(const Snapshot& now, const std::set<uint64_t>& nodes) {
  if (nodes.empty()) {
    return "";
  }
  std::vector<std::string> titles = {"DISTANCE FROM"};
  for (const uint64_t node : nodes) {
    titles.push_back(">node" + std::to_string(node));
  }
  Table table(std::move(titles));
  for (const Directory& d : now.tiers) {
    const Distances distances = distances_of(d.attributes);
    std::vector<std::string> cells = {d.name};
    for (const uint64_t node : nodes) {
      const auto it = distances.find(node);
      cells.push_back(it == distances.end() ? "-" : std::to_string(it->second));
    }
    table.add(std::move(cells));
  }
  return "\n" + table.text();
}

Json as_json(const Snapshot& now, const std::set<uint64_t>& nodes) {
  Json json;
  json["nodes"] = nodes;
  json["tiers"] = Json::array();
  json["swap"] = Json::array();
  for (const Directory& d : now.tiers) {
    const Attributes& a = d.attributes;
    Json one = {{"name", d.name}, {"memory", a.text("memory")}};
    for (const char* number : {"rank", "node", "capacity", "used", "free", "bandwidth", "latency",
                               "promoted", "demoted"}) {
      one[number] = a.number(number);
    }
    one["demote_to"] = words_of(a.text("demote_to"));
    one["distance"] = Json::object();
    for (const auto& [node, distance] : distances_of(a)) {
      one["distance"][std::to_string(node)] = distance;
    }
    json["tiers"].push_back(std::move(one));
  }
  for (const Directory& d : now.swap) {
    const Json priority = Json::parse(d.attributes.text("priority"), nullptr, false);
    json["swap"].push_back({{"name", d.name},
                            {"size", d.attributes.number("size")},
                            {"used", d.attributes.number("used")},
                            {"priority", priority.is_number_integer() ? priority : Json(nullptr)},
                            {"path", d.attributes.text("path")}});
  }
  return json;
}

}  // namespace

int run_topo(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  Result<Snapshot> now = take_snapshot(runtime->client, false);
  if (!now) {
    return context.fail(now.error());
  }
  std::stable_sort(now->tiers.begin(), now->tiers.end(),
                   [](const Directory& a, const Directory& b) {
                     return a.attributes.number("rank") < b.attributes.number("rank");
                   });
  std::set<uint64_t> nodes;
  for (const Directory& d : now->tiers) {
    for (const auto& [node, distance] : distances_of(d.attributes)) {
      nodes.insert(node);
    }
  }
  return context.options.json ? context.print(as_json(*now, nodes))
                              : context.print(order_text(*now) + distance_text(*now, nodes));
}

}  // namespace kvmm::ctl
