// SPDX-License-Identifier: Apache-2.0
//
// save, restore: a tuning as a file, which a config directory takes too.
//
//   save     every attribute that can be written and may stand in a config file, a line each
//   restore  1  read all lines, and have the runtime check each: name, mode, type, range
//            2  set each, in any order that works: a value may wait for another one
//            3  if one is refused all the same, set back what was set, newest first
//
// So a restore is all or nothing, as far as nobody else changes the same attributes meanwhile.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/control/config_line.h"
#include "tools/kvctl/context.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFileMax = 1024 * 1024;  // bytes, as for a config file

Error os_error(const std::string& what, int number) {
  return Error(number == EACCES || number == EPERM ? Errc::kPermission
               : number == ENOENT                  ? Errc::kNotFound
               : number == ENOSPC                  ? Errc::kNoSpace
                                                   : Errc::kIo,
               what, number);
}

// ------------------------------------------------------------------------------------ save

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// The file is the old one or the new one, never half of it.
Result<void> replace_file(const std::string& path, const std::string& text) {
  struct stat st {};
  if (stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    const OwnedFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));  // /dev/stdout, a FIFO
    return fd && write_all(fd.get(), text) ? Result<void>()
                                           : os_error(path + ": cannot be written", errno);
  }
  std::string temporary = path + ".XXXXXX";
  const OwnedFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) {
    return os_error(path + ": no file can be made there", errno);
  }
  const mode_t mask = umask(0);
  umask(mask);
  const bool done = write_all(fd.get(), text) && fchmod(fd.get(), 0644 & ~mask) == 0 &&
                    fsync(fd.get()) == 0 && rename(temporary.c_str(), path.c_str()) == 0;
  if (!done) {
    const int error = errno;
    unlink(temporary.c_str());
    return os_error(path + ": cannot be written", error);
  }
  return {};
}

bool is_tuning(const Item& item) {
  return item.configurable && item.mode == "rw" && item.value.has_value();
}

// ------------------------------------------------------------------------------------ restore

struct Line {
  size_t number = 0;  // from 1
  std::string path = {};
  std::string value = {};
  std::string before = {};  // the runtime's value
  enum class State { kWaiting, kSame, kSet, kRefused, kUndone, kStuck } state = State::kWaiting;
  std::string why = {};
};

const char* state_name(Line::State state) {
  switch (state) {
    case Line::State::kWaiting:
      return "not set";
    case Line::State::kSame:
      return "same";
    case Line::State::kSet:
      return "set";
    case Line::State::kRefused:
      return "refused";
    case Line::State::kUndone:
      return "set back";
    case Line::State::kStuck:
      return "could not be set back";
  }
  return "?";
}

Result<std::string> read_file(const std::string& path) {
  const bool standard = path == "-";
  const OwnedFd own(standard ? -1 : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!standard && !own) {
    return os_error(path + ": cannot be read", errno);
  }
  const int fd = standard ? STDIN_FILENO : own.get();
  std::string text;
  std::array<char, 16 * 1024> piece{};
  while (true) {
    const ssize_t n = read(fd, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return os_error(path + ": cannot be read", errno);
    }
    if (n == 0) {
      return text;
    }
    text.append(piece.data(), static_cast<size_t>(n));
    if (text.size() > kFileMax) {
      return Error(Errc::kLimit, path + ": is larger than 1 MiB");
    }
  }
}

// As in a config directory the last line of a path wins, so an earlier one is left out.
std::vector<Line> parse_lines(const std::string& text) {
  std::vector<Line> lines;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    ++number;
    const auto parsed = parse_config_line(std::string_view(text).substr(at, end - at));
    at = end + 1;
    if (!parsed) {
      lines.push_back(
          {.number = number, .state = Line::State::kRefused, .why = parsed.error().text()});
    } else if (*parsed) {
      std::erase_if(lines, [&](const Line& line) { return line.path == (*parsed)->path; });
      lines.push_back({.number = number, .path = (*parsed)->path, .value = (*parsed)->value});
    }
  }
  return lines;
}

bool any_refused(const std::vector<Line>& lines) {
  return std::any_of(lines.begin(), lines.end(),
                     [](const Line& line) { return line.state == Line::State::kRefused; });
}

// Step 1. Errors: only those of the connection.
Result<void> check_lines(Client& client, std::vector<Line>& lines) {
  for (Line& line : lines) {
    if (line.state != Line::State::kWaiting) {
      continue;
    }
    Result<void> ok = client.check(line.path, line.value);
    if (ok.code() == Errc::kDeviceGone) {
      return ok;
    }
    if (!ok) {
      line.state = Line::State::kRefused;
      line.why = ok.error().text();
      continue;
    }
    const Result<Item> now = client.get(line.path);
    if (now) {
      line.before = *now->value;
    } else if (now.code() != Errc::kPermission) {  // write-only: there is nothing to go back to
      return now.error();
    }
  }
  return {};
}

// Steps 2 and 3.
Result<void> apply_lines(Client& client, std::vector<Line>& lines) {
  std::vector<Line*> set;
  for (bool moved = true; moved;) {
    moved = false;
    for (Line& line : lines) {
      if (line.state != Line::State::kWaiting) {
        continue;
      }
      Result<void> ok = client.set(line.path, line.value);
      if (ok.code() == Errc::kDeviceGone) {
        return ok;
      }
      line.why = ok ? "" : ok.error().text();
      if (ok) {
        const Result<Item> now = client.get(line.path);
        line.state = now && *now->value == line.before ? Line::State::kSame : Line::State::kSet;
        set.push_back(&line);
        moved = true;
      } else if (ok.code() != Errc::kRange) {
        line.state = Line::State::kRefused;
      }
    }
  }
  bool all = true;
  for (Line& line : lines) {
    if (line.state == Line::State::kWaiting) {  // out of range whatever else is set
      line.state = Line::State::kRefused;
    }
    all = all && line.state != Line::State::kRefused;
  }
  // Back, as often as that helps: the order in which it was possible may not be the one back.
  for (bool moved = !all; moved;) {
    moved = false;
    for (auto it = set.rbegin(); it != set.rend(); ++it) {
      if ((*it)->state == Line::State::kSet || (*it)->state == Line::State::kStuck) {
        const bool ok = client.set((*it)->path, (*it)->before).ok();
        (*it)->state = ok ? Line::State::kUndone : Line::State::kStuck;
        moved = moved || ok;
      }
    }
  }
  return {};
}

int report(const Context& context, const std::string& file, const std::vector<Line>& lines) {
  const bool refused = any_refused(lines);
  Json json = {{"ok", !refused}, {"checked_only", context.options.check}};
  json["lines"] = Json::array();
  std::string text;
  std::string errors;
  for (const Line& line : lines) {
    const char* const state = context.options.check && line.state == Line::State::kWaiting
                                  ? "good"
                                  : state_name(line.state);
    Json one = {{"line", line.number}, {"path", line.path}, {"value", line.value}};
    one["state"] = state;
    if (!line.why.empty()) {
      one["text"] = line.why;
    }
    json["lines"].push_back(std::move(one));
    if (line.state == Line::State::kRefused) {
      errors += fmt::format("{}:{}: {}\n", file, line.number, line.why);
    } else {
      text += harmless(fmt::format("{:<8} {}", state, format_config_line(line.path, line.value))) +
              "\n";
    }
  }
  if (!refused) {
    return context.options.json ? context.print(json) : context.print(text);
  }
  // A command that fails prints its error alone; what each line came to is in the JSON.
  if (context.options.json) {
    context.print(json);
  }
  const bool stuck = std::any_of(lines.begin(), lines.end(), [](const Line& line) {
    return line.state == Line::State::kStuck;
  });
  errors += stuck ? "some lines could not be set back:\n" + text : "nothing was changed";
  return context.complain(errors);
}

}  // namespace

int run_save(const Context& context) {
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  const Result<std::vector<Item>> items = runtime->client.walk("");
  if (!items) {
    return context.fail(items.error());
  }
  std::string text = fmt::format("# {}, kvmm {}: kvctl save\n", harmless(runtime->hello.name),
                                 harmless(runtime->hello.version));
  Json json = Json::object();
  for (const Item& item : *items) {
    if (is_tuning(item)) {
      text += harmless(format_config_line(item.path, *item.value)) + "\n";
      json[item.path] = *item.value;
    } else if (item.configurable && item.value) {  // read when a runtime opens, fixed then
      text += "# " + harmless(format_config_line(item.path, *item.value)) + "\n";
    }
  }
  const std::string& file = context.options.path;
  if (file.empty() || file == "-") {
    return context.options.json ? context.print(json) : context.print(text);
  }
  if (const Result<void> ok = replace_file(file, text); !ok) {
    return context.fail(ok.error());
  }
  return context.options.json
             ? context.print(Json{{"ok", true}, {"file", file}, {"attributes", json.size()}})
             : kExitOk;
}

int run_restore(const Context& context) {
  const std::string& file = context.options.path;
  const Result<std::string> text = read_file(file);
  if (!text) {
    return context.fail(text.error());
  }
  int status = 0;
  std::optional<Runtime> runtime = context.choose(&status);
  if (!runtime) {
    return status;
  }
  std::vector<Line> lines = parse_lines(*text);
  Result<void> ok = check_lines(runtime->client, lines);
  if (ok && !any_refused(lines) && !context.options.check) {
    ok = apply_lines(runtime->client, lines);
  }
  return ok ? report(context, file, lines) : context.fail(ok.error());
}

}  // namespace kvmm::ctl
