// SPDX-License-Identifier: Apache-2.0
//
// maps, smaps, pagemap: where the pages of sessions are.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"
#include "tools/kvctl/session_texts.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPlainWidth = 64;  // pages on a line where there is no terminal
constexpr size_t kOffsetWidth = 9;  // before the pages of a line
constexpr size_t kSqueezeFrom = 3;  // so many equal lines become two
constexpr size_t kNameWidth = 14;   // of a count

std::string head_of(const Session& session) {
  return fmt::format("session {} {}\n", session.id, harmless(session.name));
}

// Reads the text `name` of each session that is meant, and prints what `show` makes of them.
// `show` adds to the text and to the session's JSON object, or says what is wrong.
using Show = std::function<Result<void>(const std::string& path, const std::string& text,
                                        std::string& out, Json& json)>;

int show_sessions(const Context& context, const char* name, const Show& show,
                  const std::function<Result<void>()>& finish = {}) {
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
    const std::string path = "sessions/" + session.id + "/" + name;
    const Result<Item> item = runtime->client.get(path);
    if (!item) {
      if (item.code() == Errc::kNotFound && context.options.session.empty()) {
        continue;  // closed meanwhile
      }
      return context.fail(item.error());
    }
    Json one = {{"session", session.id}, {"name", session.name}};
    text += head_of(session);
    if (const Result<void> ok = show(path, *item->value, text, one); !ok) {
      return context.fail(ok.error());
    }
    json.push_back(std::move(one));
  }
  if (const Result<void> ok = finish ? finish() : Result<void>(); !ok) {
    return context.fail(ok.error());
  }
  return context.options.json ? context.print(json) : context.print(text);
}

Json to_json(const VmaText& vma) {
  Json json = {{"start", vma.start},         {"end", vma.end},     {"perms", vma.perms},
               {"page_size", vma.page_size}, {"plane", vma.plane}, {"object", vma.object}};
  for (const auto& [name, count] : vma.counts) {
    json[name] = count;
  }
  return json;
}

std::string counts_text(const Counts& counts, uint64_t page_size) {
  std::string text;
  for (const auto& [name, bytes] : counts) {
    text += fmt::format("  {:<{}} {:>6}", harmless(name) + ":", kNameWidth, human_bytes(bytes));
    text += page_size == 0 ? "\n" : fmt::format("  {:>9} pages\n", bytes / page_size);
  }
  return text;
}

// The counts of all VMAs together, in the order in which they were seen first.
Counts sum_of(const std::vector<VmaText>& vmas) {
  Counts sum;
  for (const VmaText& vma : vmas) {
    for (const auto& [name, bytes] : vma.counts) {
      const auto it = std::find_if(sum.begin(), sum.end(),
                                   [&, n = &name](const auto& s) { return s.first == *n; });
      if (it == sum.end()) {
        sum.emplace_back(name, bytes);
      } else {
        it->second += bytes;
      }
    }
  }
  return sum;
}

// ------------------------------------------------------------------------------------ pagemap

class Picture {
 public:
  Picture(size_t width, bool colour, bool every_line)
      : width_(width), colour_(colour), every_line_(every_line) {}

  // Lines of pages; equal ones that follow one another are drawn once and counted.
  std::string draw(const Plane& plane) const {
    std::string text = fmt::format("plane {}: {} pages of {}\n", harmless(plane.name), plane.pages,
                                   human_bytes(plane.page_size));
    const std::string_view map = plane.map;
    for (size_t at = 0; at < map.size();) {
      const std::string_view line = map.substr(at, width_);
      size_t equal = 1;
      while (map.substr(std::min(at + equal * width_, map.size()), width_) == line) {
        ++equal;
      }
      text += fmt::format("{:>8} {}\n", at, coloured(line));
      if (equal < kSqueezeFrom || every_line_) {
        at += line.size();
        continue;
      }
      text += fmt::format("{:>8} {} more lines like this\n", "*", equal - 1);
      at += equal * width_;
    }
    if (map.size() < plane.pages) {
      text += fmt::format("{:>8} {} more, never written\n", map.size(), plane.pages - map.size());
    }
    return text;
  }

  std::string legend(const std::vector<Plane>& planes) const {
    std::string text;
    for (const PageMark& m : kPageMarks) {
      uint64_t pages = 0;
      uint64_t bytes = 0;
      for (const Plane& plane : planes) {
        const uint64_t n = count_of(plane, m.mark);
        pages += n;
        bytes += n * plane.page_size;
      }
      if (pages != 0) {
        text += fmt::format("  {} {}: {} ({})\n", coloured(std::string(1, m.mark)), m.text, pages,
                            human_bytes(bytes));
      }
    }
    return text;
  }

 private:
  // Runs of one mark get one colour.
  std::string coloured(std::string_view marks) const {
    if (!colour_) {
      return std::string(marks);
    }
    std::string text;
    for (size_t at = 0; at < marks.size();) {
      const size_t end = std::min(marks.find_first_not_of(marks[at], at), marks.size());
      const auto* const m = std::find_if(kPageMarks.begin(), kPageMarks.end(),
                                         [&](const PageMark& p) { return p.mark == marks[at]; });
      text += fmt::format("\x1b[{}m{}\x1b[0m", m == kPageMarks.end() ? "0" : m->colour,
                          marks.substr(at, end - at));
      at = end;
    }
    return text;
  }

  const size_t width_;
  const bool colour_;
  const bool every_line_;
};

// As many pages as fit, a multiple of 8.
size_t width_of(const Options& options) {
  if (options.width != 0) {
    return options.width;
  }
  const std::optional<TerminalSize> terminal = terminal_size();
  if (!terminal) {
    return kPlainWidth;
  }
  const size_t room = terminal->columns - std::min(terminal->columns, kOffsetWidth);
  return std::max<size_t>(room / 8 * 8, 8);
}

Json to_json(const Plane& plane) {
  Json json = {{"plane", plane.name}, {"page_size", plane.page_size}, {"pages", plane.pages}};
  for (const PageMark& m : kPageMarks) {
    json[m.name] = count_of(plane, m.mark);
  }
  json["map"] = plane.map;
  return json;
}

}  // namespace

int run_maps(const Context& context) {
  return show_sessions(context, "maps",
                       [](const std::string& path, const std::string& text, std::string& out,
                          Json& json) -> Result<void> {
                         const Result<std::vector<VmaText>> vmas = parse_maps(path, text);
                         if (!vmas) {
                           return vmas.error();
                         }
                         json["vmas"] = Json::array();
                         for (const VmaText& vma : *vmas) {
                           json["vmas"].push_back(to_json(vma));
                         }
                         out += harmless(text, true);
                         return {};
                       });
}

int run_smaps(const Context& context) {
  const bool rollup = context.options.rollup;
  return show_sessions(context, "smaps",
                       [rollup](const std::string& path, const std::string& text, std::string& out,
                                Json& json) -> Result<void> {
                         const Result<std::vector<VmaText>> vmas = parse_smaps(path, text);
                         if (!vmas) {
                           return vmas.error();
                         }
                         const Counts sum = sum_of(*vmas);
                         json["total"] = Json::object();
                         for (const auto& [name, bytes] : sum) {
                           json["total"][name] = bytes;
                         }
                         if (rollup) {
                           out += counts_text(sum, 0);
                           return {};
                         }
                         json["vmas"] = Json::array();
                         for (const VmaText& vma : *vmas) {
                           out += fmt::format("{:x}-{:x} {} {} {} {}\n", vma.start, vma.end,
                                              harmless(vma.perms), human_bytes(vma.page_size),
                                              harmless(vma.object), harmless(vma.plane));
                           out += counts_text(vma.counts, vma.page_size);
                           json["vmas"].push_back(to_json(vma));
                         }
                         return {};
                       });
}

int run_pagemap(const Context& context) {
  const Options& options = context.options;
  const Picture picture(width_of(options), colour_wanted(options.colour), options.every_line);
  bool plane_seen = options.plane.empty();
  return show_sessions(
      context, "pagemap",
      [&](const std::string& path, const std::string& text, std::string& out,
          Json& json) -> Result<void> {
        Result<std::vector<Plane>> planes = parse_pagemap(path, text);
        if (!planes) {
          return planes.error();
        }
        if (!options.plane.empty()) {
          std::erase_if(*planes, [&](const Plane& p) { return p.name != options.plane; });
          plane_seen = plane_seen || !planes->empty();
        }
        json["planes"] = Json::array();
        for (const Plane& plane : *planes) {
          json["planes"].push_back(to_json(plane));
          out += picture.draw(plane);
        }
        out += picture.legend(*planes);
        return {};
      },
      [&]() -> Result<void> {
        return plane_seen ? Result<void>()
                          : Error(Errc::kNotFound,
                                  "there is no plane '" + options.plane + "'; kvctl maps");
      });
}

}  // namespace kvmm::ctl
