// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/session_texts.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

namespace kvmm::ctl {
namespace {

Error malformed(const std::string& path) {
  return Error(Errc::kCorrupt, path + ": the runtime's text is not understood");
}

std::optional<uint64_t> number_of(std::string_view text, int base = 10) {
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return n;
}

// The number in "name=123".
std::optional<uint64_t> field_of(std::string_view word, std::string_view name) {
  if (!word.starts_with(name) || word.size() <= name.size() || word[name.size()] != '=') {
    return std::nullopt;
  }
  return number_of(word.substr(name.size() + 1));
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) {
    words.push_back(std::move(word));
  }
  return words;
}

// "start-end perms page_size plane object" and `counts` words behind it: three words, then the
// plane's name (blanks included), then the object.
std::optional<VmaText> parse_head(const std::vector<std::string>& words, size_t end) {
  constexpr size_t kBefore = 3;
  if (end < kBefore + 2) {
    return std::nullopt;
  }
  const std::string_view range = words[0];
  const size_t dash = range.find('-');
  const auto from = number_of(range.substr(0, dash), 16);
  const auto to =
      dash == std::string_view::npos ? std::nullopt : number_of(range.substr(dash + 1), 16);
  const auto page_size = number_of(words[2]);
  if (!from || !to || !page_size || *page_size == 0) {
    return std::nullopt;
  }
  std::string plane = words[kBefore];
  for (size_t i = kBefore + 1; i + 1 < end; ++i) {
    plane += " " + words[i];
  }
  return VmaText{*from, *to, words[1], *page_size, plane, words[end - 1], {}};
}

// "plane NAME page_size=65536 pages=150"
std::optional<Plane> parse_plane(const std::string& line) {
  constexpr std::string_view kHead = "plane ";
  const size_t last = line.rfind(' ');
  const size_t before = last == std::string::npos || last == 0 ? last : line.rfind(' ', last - 1);
  if (!line.starts_with(kHead) || before == std::string::npos || before < kHead.size()) {
    return std::nullopt;
  }
  const std::string_view text = line;
  const auto size = field_of(text.substr(before + 1, last - before - 1), "page_size");
  const auto pages = field_of(text.substr(last + 1), "pages");
  if (!size || !pages) {
    return std::nullopt;
  }
  return Plane{line.substr(kHead.size(), before - kHead.size()), *size, *pages, {}};
}

bool is_mark(char c) {
  return std::any_of(kPageMarks.begin(), kPageMarks.end(),
                     [c](const PageMark& m) { return m.mark == c; });
}

}  // namespace

Result<std::vector<Session>> sessions_of(Client& client, const std::string& wanted) {
  const Result<std::vector<Entry>> entries = client.list("sessions");
  if (!entries) {
    return entries.error();
  }
  std::vector<Session> all;
  for (const Entry& entry : *entries) {
    const bool by_id = entry.name == wanted;
    const Result<Item> name = client.get("sessions/" + entry.name + "/name");
    if (!name) {
      if (name.code() == Errc::kNotFound) {
        continue;  // closed meanwhile
      }
      return name.error();
    }
    if (wanted.empty() || by_id || *name->value == wanted) {
      all.push_back({entry.name, *name->value});
    }
    if (by_id) {
      return std::vector<Session>{all.back()};
    }
  }
  if (all.empty() && !wanted.empty()) {
    return Error(Errc::kNotFound, "there is no session '" + wanted + "'; kvctl ls sessions");
  }
  return all;
}

uint64_t VmaText::count(const std::string& name) const {
  const auto it = std::find_if(counts.begin(), counts.end(),
                               [&](const auto& count) { return count.first == name; });
  return it == counts.end() ? 0 : it->second;
}

Result<std::vector<VmaText>> parse_maps(const std::string& path, const std::string& text) {
  std::vector<VmaText> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> words = words_of(line);
    size_t counts = words.size();
    while (counts > 0 && words[counts - 1].find('=') != std::string::npos) {
      --counts;
    }
    std::optional<VmaText> vma = parse_head(words, counts);
    if (!vma || counts == words.size()) {
      return malformed(path);
    }
    for (size_t i = counts; i < words.size(); ++i) {
      const std::string name = words[i].substr(0, words[i].find('='));
      const auto count = field_of(words[i], name);
      if (!count) {
        return malformed(path);
      }
      vma->counts.emplace_back(name, *count);
    }
    all.push_back(std::move(*vma));
  }
  return all;
}

Result<std::vector<VmaText>> parse_smaps(const std::string& path, const std::string& text) {
  std::vector<VmaText> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> words = words_of(line);
    if (words.size() == 2 && !all.empty()) {
      const auto bytes = number_of(words[1]);
      if (!bytes) {
        return malformed(path);
      }
      all.back().counts.emplace_back(words[0], *bytes);
    } else if (std::optional<VmaText> vma = parse_head(words, words.size())) {
      all.push_back(std::move(*vma));
    } else {
      return malformed(path);
    }
  }
  return all;
}

Result<std::vector<Plane>> parse_pagemap(const std::string& path, const std::string& text) {
  std::vector<Plane> planes;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (std::optional<Plane> plane = parse_plane(line)) {
      planes.push_back(std::move(*plane));
    } else if (planes.empty() || !std::all_of(line.begin(), line.end(), is_mark)) {
      return malformed(path);
    } else {
      planes.back().map += line;
    }
  }
  for (const Plane& plane : planes) {
    // Shorter: what follows was never written.
    if (plane.map.size() > plane.pages) {
      return malformed(path);
    }
  }
  return planes;
}

uint64_t count_of(const Plane& plane, char mark) {
  const auto shown = static_cast<uint64_t>(std::count(plane.map.begin(), plane.map.end(), mark));
  return mark == '.' ? shown + plane.pages - plane.map.size() : shown;
}

}  // namespace kvmm::ctl
