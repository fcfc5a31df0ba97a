// SPDX-License-Identifier: Apache-2.0
#include "runtime/control/config.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>

#include "runtime/control/config_line.h"
#include "runtime/control/endpoint.h"

namespace kvmm {
namespace {

Error at(const std::string& where, Error error) {
  error.detail =
      where + ": " + (error.detail.empty() ? std::string(errc_text(error.code)) : error.detail);
  return error;
}

Errc errc_of(int os_error) {
  switch (os_error) {
    case ENOENT:
    case ENOTDIR:
      return Errc::kNotFound;
    case EACCES:
    case EPERM:
      return Errc::kPermission;
    case EMFILE:
    case ENFILE:
      return Errc::kLimit;
    default:
      return Errc::kIo;
  }
}

Error unreadable(const std::string& what, int os_error) {
  const Errc code = errc_of(os_error);
  return Error(code, what + (code == Errc::kLimit ? "; raise ulimit -n" : ""), os_error);
}

Result<std::string> read_all(const std::string& path) {
  // Non-blocking: a FIFO named x.conf must not hang the engine's start.
  const OwnedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0) {
    const int error = errno;
    return unreadable(path + ": cannot be read", error);
  }
  if (!S_ISREG(st.st_mode)) {
    return Error(Errc::kInvalid, path + ": is not a regular file");
  }
  std::string text;
  char buffer[16 * 1024];
  while (true) {
    const ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n == 0) {
      return text;
    }
    if (n < 0) {
      return Error(Errc::kIo, path + ": cannot be read", errno);
    }
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kConfigFileMax) {
      return Error(Errc::kLimit, path + ": is larger than 1 MiB");
    }
  }
}

}  // namespace

std::pair<std::string, bool> config_directory(const char* named) {
  if (named != nullptr && *named != '\0') {
    return {named, true};
  }
  const char* variable = std::getenv("KVMM_CONFIG");
  if (variable != nullptr && *variable != '\0') {
    return {variable, true};
  }
  return {kConfigDefaultDirectory, false};
}

Result<void> Config::read_file(const std::string& path) {
  const Result<std::string> text = read_all(path);
  if (!text) {
    return text.error();
  }
  size_t number = 0;
  for (size_t from = 0; from < text->size();) {
    const size_t end = std::min(text->find('\n', from), text->size());
    const std::string where = path + ":" + std::to_string(++number);
    Result<std::optional<ConfigLine>> line =
        parse_config_line(std::string_view(*text).substr(from, end - from));
    from = end + 1;
    if (!line) {
      return at(where, std::move(line).error());
    }
    if (!*line) {
      continue;
    }
    lines_.push_back({std::move((*line)->path), std::move((*line)->value), where});
  }
  return {};
}

Result<Config> Config::load(const std::string& directory, bool chosen) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
  if (dir == nullptr) {
    const int error = errno;
    if (error == ENOENT && !chosen) {
      return Config();
    }
    return unreadable(directory + ": the config directory cannot be read", error);
  }
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* const entry = readdir(dir.get());
    if (entry == nullptr) {
      break;
    }
    const std::string_view name = entry->d_name;
    if (name.ends_with(".conf") && name.front() != '.') {
      names.emplace_back(name);
    }
  }
  if (errno != 0) {
    return Error(Errc::kIo, directory + ": the config directory cannot be read", errno);
  }
  std::sort(names.begin(), names.end());
  Config config;
  for (const std::string& name : names) {
    if (Result<void> ok = config.read_file(directory + "/" + name); !ok) {
      return std::move(ok).error();
    }
  }
  // The last line of a path wins.
  std::set<std::string> seen;
  for (auto it = config.lines_.rbegin(); it != config.lines_.rend(); ++it) {
    if (!seen.insert(it->path).second) {
      it->path.clear();
    }
  }
  std::erase_if(config.lines_, [](const Line& line) { return line.path.empty(); });
  return config;
}

Result<std::vector<Config::Taken>> Config::take(const AttrDef& def) {
  std::vector<Taken> taken;
  for (const Line& line : lines_) {
    if (!path_matches(def.pattern, line.path)) {
      continue;
    }
    if (!def.configurable()) {
      return at(line.where,
                Error(Errc::kPermission, line.path + ": cannot stand in a config file"));
    }
    Result<AttrValue> value = parse_value(def, line.value);
    if (!value) {
      Error error = std::move(value).error();
      error.detail = line.path + ": " + error.detail;
      return at(line.where, std::move(error));
    }
    taken.push_back({line.path, std::move(*value), line.where});
  }
  std::erase_if(lines_, [&](const Line& line) { return path_matches(def.pattern, line.path); });
  std::sort(taken.begin(), taken.end(),
            [](const Taken& a, const Taken& b) { return compare_names(a.path, b.path) < 0; });
  return taken;
}

namespace {

Result<void> apply_line(const AttrTree& tree, const Config::Line& line) {
  const Result<const AttrDef*> def = tree.find(line.path);
  if (def && !(*def)->configurable()) {
    const bool fixed = (*def)->mode == AttrMode::kReadOnly;
    const char* const why = fixed ? ": is read-only" : ": cannot stand in a config file";
    return at(line.where, Error(Errc::kPermission, line.path + why));
  }
  if (Result<void> ok = tree.set(line.path, line.value); !ok) {
    return at(line.where, std::move(ok).error());
  }
  return {};
}

}  // namespace

Result<void> Config::apply(const AttrTree& tree) {
  std::vector<Line> left = std::exchange(lines_, {});
  while (!left.empty()) {
    std::vector<Line> refused;
    std::optional<Error> first;
    for (Line& line : left) {
      Result<void> ok = apply_line(tree, line);
      if (ok) {
        continue;
      }
      if (ok.code() != Errc::kRange) {
        return ok;
      }
      if (!first) {
        first = std::move(ok).error();
      }
      refused.push_back(std::move(line));
    }
    if (refused.size() == left.size()) {
      return *first;
    }
    left = std::move(refused);
  }
  return {};
}

}  // namespace kvmm
