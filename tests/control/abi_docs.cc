// SPDX-License-Identifier: Apache-2.0
#include "tests/control/abi_docs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace kvmm::test {
namespace {

constexpr const char* kHead = "| mode | type | unit | range | default | config | stability |";

// "`x`" -> "x"; "" if it is not that.
std::string unquote(const std::string& text) {
  const size_t from = text.find('`');
  const size_t to = text.rfind('`');
  return from == std::string::npos || from == to ? "" : text.substr(from + 1, to - from - 1);
}

std::string replace_all(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
  return text;
}

}  // namespace

void parse_docs(const std::string& file, const std::string& text, AbiEntries& entries,
                std::vector<std::string>& complaints) {
  std::istringstream in(text);
  AbiEntry* entry = nullptr;
  int number = 0;
  std::string before[2];
  for (std::string line; std::getline(in, line); before[0] = before[1], before[1] = line) {
    const std::string where = file + ":" + std::to_string(++number);
    if (line.starts_with("## ") || line.starts_with("# ")) {
      const std::string pattern = line.starts_with("## `") ? unquote(line) : "";
      entry = nullptr;
      if (!pattern.empty()) {
        const auto [it, added] = entries.try_emplace(pattern);
        if (!added) {
          complaints.push_back(where + ": " + pattern + " is documented twice, also at " +
                               it->second.where);
        }
        entry = &it->second;
        entry->pattern = pattern;
        entry->where = where;
      }
    } else if (entry != nullptr && before[0] == kHead && line.size() > 4) {
      entry->row = line.substr(2, line.size() - 4);
      entry->writable = entry->row.starts_with("rw") || entry->row.starts_with("wo");
    } else if (entry != nullptr && line.starts_with("| `")) {
      entry->keys.insert(unquote(line.substr(0, line.find(" | "))));
    } else if (entry != nullptr && line.starts_with("**")) {
      entry->parts.insert(line.substr(2, line.find('.') - 2));
    }
  }
}

AbiEntries read_docs(const std::string& directory, std::vector<std::string>& complaints) {
  AbiEntries entries;
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    if (file.path().extension() == ".md") {
      files.push_back(file.path());
    }
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    parse_docs(file.filename().string(), text.str(), entries, complaints);
  }
  return entries;
}

std::string parse_defs(const std::string& reply, AbiEntries& entries) {
  const nlohmann::json json = nlohmann::json::parse(reply);
  for (const auto& def : json.at("defs")) {
    const auto text = [&](const char* name) {
      const std::string value = def.at(name);
      return value.empty() ? std::string("-") : value;
    };
    AbiEntry entry;
    entry.pattern = def.at("pattern");
    entry.writable = def.at("mode") != "ro";
    entry.row = text("mode") + " | " + text("type") + " | " + text("unit") + " | " +
                replace_all(text("range"), "|", ", ") + " | " + text("default") + " | " +
                (def.at("configurable").get<bool>() ? "yes" : "no") + " | " + text("stability");
    entries[entry.pattern] = entry;
  }
  return json.value("next", "");
}

std::vector<std::string> compare(const AbiEntries& docs, const AbiEntries& live) {
  std::vector<std::string> complaints;
  for (const auto& [pattern, entry] : live) {
    const auto it = docs.find(pattern);
    if (it == docs.end()) {
      complaints.push_back(pattern + ": is not documented; its row: | " + entry.row + " |");
      continue;
    }
    if (it->second.row != entry.row) {
      complaints.push_back(it->second.where + ": " + pattern + ": the row should be: | " +
                           entry.row + " | and is: | " + it->second.row + " |");
    }
  }
  for (const auto& [pattern, entry] : docs) {
    if (!live.contains(pattern)) {
      complaints.push_back(entry.where + ": " + pattern + ": there is no such attribute");
    }
    for (const char* part : {"What", "Effect", "Errors"}) {
      const bool needed = std::string(part) != "Effect" || entry.writable;
      if (needed && !entry.parts.contains(part)) {
        complaints.push_back(entry.where + ": " + pattern + ": has no paragraph **" + part + ".**");
      }
    }
  }
  return complaints;
}

std::vector<std::string> compare_keys(const AbiEntry& entry, const std::string& live_text) {
  std::vector<std::string> complaints;
  std::set<std::string> live;
  std::istringstream in(live_text);
  for (std::string line; std::getline(in, line);) {
    live.insert(line.substr(0, line.find(' ')));
  }
  for (const std::string& key : live) {
    if (!entry.keys.contains(key)) {
      complaints.push_back(entry.where + ": " + entry.pattern + ": `" + key +
                           "` is not documented");
    }
  }
  for (const std::string& key : entry.keys) {
    if (!live.contains(key)) {
      complaints.push_back(entry.where + ": " + entry.pattern + ": there is no `" + key + "`");
    }
  }
  return complaints;
}

}  // namespace kvmm::test
