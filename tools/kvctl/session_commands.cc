// SPDX-License-Identifier: Apache-2.0
//
// maps, pagemap: where the pages of sessions are.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

struct Legend {
  char mark;
  const char* name;
  const char* text;
};
constexpr std::array<Legend, 8> kLegend = {{{'.', "empty", "never written"},
                                            {'R', "resident", "resident"},
                                            {'r', "inactive", "resident, unmapped"},
                                            {'S', "swapped", "swapped"},
                                            {'<', "reading", "being read"},
                                            {'>', "writing", "being written"},
                                            {'X', "gone", "gone"},
                                            {'P', "pinned", "pinned"}}};

struct Session {
  std::string id;
  std::string name;
};

struct Plane {
  std::string name;
  uint64_t page_size = 0;
  uint64_t pages = 0;
  std::string map;
};

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

// The sessions that --session means: all, the one of that id, or those of that name.
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

// "plane NAME page_size=65536 pages=150": engines name planes, blanks included, so the numbers are
// taken from the end.
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
  return std::any_of(kLegend.begin(), kLegend.end(), [c](const Legend& l) { return l.mark == c; });
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

std::string draw(const Plane& plane, size_t width) {
  std::string text = fmt::format("plane {}: {} pages of {}\n", harmless(plane.name), plane.pages,
                                 human_bytes(plane.page_size));
  for (size_t at = 0; at < plane.map.size(); at += width) {
    text += fmt::format("{:>8} {}\n", at, plane.map.substr(at, width));
  }
  if (plane.map.size() < plane.pages) {
    text += fmt::format("{:>8} {} more, never written\n", plane.map.size(),
                        plane.pages - plane.map.size());
  }
  return text;
}

std::string legend_of(const std::vector<Plane>& planes) {
  std::string text;
  for (const Legend& l : kLegend) {
    uint64_t n = 0;
    for (const Plane& plane : planes) {
      n += count_of(plane, l.mark);
    }
    if (n != 0) {
      text += fmt::format("  {} {}: {}\n", l.mark, l.text, n);
    }
  }
  return text;
}

Json to_json(const Session& session, const std::vector<Plane>& planes) {
  Json json;
  json["session"] = session.id;
  json["name"] = session.name;
  json["planes"] = Json::array();
  for (const Plane& plane : planes) {
    Json one;
    one["plane"] = plane.name;
    one["page_size"] = plane.page_size;
    one["pages"] = plane.pages;
    for (const Legend& l : kLegend) {
      one[l.name] = count_of(plane, l.mark);
    }
    one["map"] = plane.map;
    json["planes"].push_back(std::move(one));
  }
  return json;
}

// "start-end perms page_size plane object pages=N resident=N swapped=N ...": three words, then the
// plane's name (blanks included), the object, and counts, of which there may be more one day.
Result<Json> vma_json(const std::string& path, const std::string& line) {
  constexpr size_t kBefore = 3;
  const std::vector<std::string> words = words_of(line);
  size_t counts = words.size();
  while (counts > 0 && words[counts - 1].find('=') != std::string::npos) {
    --counts;
  }
  if (counts < kBefore + 2 || counts == words.size()) {
    return malformed(path);
  }
  const size_t dash = words[0].find('-');
  const auto start = number_of(std::string_view(words[0]).substr(0, dash), 16);
  const auto end = dash == std::string::npos
                       ? std::nullopt
                       : number_of(std::string_view(words[0]).substr(dash + 1), 16);
  const auto page_size = number_of(words[2]);
  if (!start || !end || !page_size) {
    return malformed(path);
  }
  std::string plane = words[kBefore];
  for (size_t i = kBefore + 1; i + 1 < counts; ++i) {
    plane += " " + words[i];
  }
  Json vma = {{"start", *start},         {"end", *end},    {"perms", words[1]},
              {"page_size", *page_size}, {"plane", plane}, {"object", words[counts - 1]}};
  for (size_t i = counts; i < words.size(); ++i) {
    const std::string name = words[i].substr(0, words[i].find('='));
    const auto count = field_of(words[i], name);
    if (!count) {
      return malformed(path);
    }
    vma[name] = *count;
  }
  return vma;
}

std::string head_of(const Session& session) {
  return fmt::format("session {} {}\n", session.id, harmless(session.name));
}

}  // namespace

int run_maps(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const auto sessions = sessions_of(runtime->client, context.options.session);
  if (!sessions) {
    return context.fail(sessions.error());
  }
  std::string text;
  Json json = Json::array();
  for (const Session& session : *sessions) {
    const std::string path = "sessions/" + session.id + "/maps";
    const Result<Item> maps = runtime->client.get(path);
    if (!maps) {
      if (maps.code() == Errc::kNotFound && context.options.session.empty()) {
        continue;
      }
      return context.fail(maps.error());
    }
    Json one;
    one["session"] = session.id;
    one["name"] = session.name;
    one["vmas"] = Json::array();
    std::istringstream in(*maps->value);
    for (std::string line; std::getline(in, line);) {
      Result<Json> vma = vma_json(path, line);
      if (!vma) {
        return context.fail(vma.error());
      }
      one["vmas"].push_back(std::move(*vma));
    }
    json.push_back(std::move(one));
    text += head_of(session) + harmless(*maps->value, true);
  }
  return context.options.json ? context.print(json) : context.print(text);
}

int run_pagemap(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const auto sessions = sessions_of(runtime->client, context.options.session);
  if (!sessions) {
    return context.fail(sessions.error());
  }
  std::string text;
  Json json = Json::array();
  bool plane_seen = context.options.plane.empty();
  for (const Session& session : *sessions) {
    const std::string path = "sessions/" + session.id + "/pagemap";
    const Result<Item> map = runtime->client.get(path);
    if (!map) {
      if (map.code() == Errc::kNotFound && context.options.session.empty()) {
        continue;
      }
      return context.fail(map.error());
    }
    Result<std::vector<Plane>> planes = parse_pagemap(path, *map->value);
    if (!planes) {
      return context.fail(planes.error());
    }
    if (!context.options.plane.empty()) {
      std::erase_if(*planes, [&](const Plane& p) { return p.name != context.options.plane; });
      plane_seen = plane_seen || !planes->empty();
    }
    json.push_back(to_json(session, *planes));
    text += head_of(session);
    for (const Plane& plane : *planes) {
      text += draw(plane, context.options.width);
    }
    text += legend_of(*planes);
  }
  if (!plane_seen) {
    return context.fail(
        Error(Errc::kNotFound, "there is no plane '" + context.options.plane + "'; kvctl maps"));
  }
  return context.options.json ? context.print(json) : context.print(text);
}

}  // namespace kvmm::ctl
