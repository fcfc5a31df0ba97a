// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/mount/tree_fs.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

constexpr off_t kValueSize = 4096;       // as sysfs says of its files
constexpr size_t kValueMax = 32 * 1024;  // half of a request, which escapes what it must
constexpr size_t kNameMax = 256;         // of a component, with its '/'
constexpr size_t kErrorsMax = 1024;      // attributes whose refusal is remembered
constexpr std::string_view kXattrPrefix = "user.kvmm.";

// "/tiers/dram" -> "tiers/dram", as the runtime calls it.
std::string inside(std::string_view path) {
  return std::string(path.substr(std::min(path.find_first_not_of('/'), path.size())));
}

bool is_last_error(std::string_view path) {
  return inside(path) == kLastErrorName;
}

Node directory_node() {
  return {true, 0555, 0};
}

Node attribute_node(const std::string& mode, const std::string& type) {
  const mode_t rights = mode == "rw" ? 0644 : mode == "wo" ? 0200 : 0444;
  return {false, rights, type == "text" ? 0 : kValueSize};
}

bool wants_read(int flags) {
  return (flags & O_ACCMODE) != O_WRONLY;
}
bool wants_write(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

}  // namespace

int errno_of(Errc code) noexcept {
  switch (code) {
    case Errc::kOk:
      return 0;
    case Errc::kInvalid:
    case Errc::kRange:
      return EINVAL;
    case Errc::kNotFound:
      return ENOENT;
    case Errc::kExists:
      return EEXIST;
    case Errc::kAgain:
      return EAGAIN;
    case Errc::kBusy:
      return EBUSY;
    case Errc::kNoMemory:
      return ENOMEM;
    case Errc::kNoSpace:
      return ENOSPC;
    case Errc::kPermission:
      return EACCES;
    case Errc::kNotSupported:
      return EOPNOTSUPP;
    case Errc::kLimit:
      return EUSERS;
    case Errc::kVersion:
      return EPROTO;
    case Errc::kDeviceGone:
    case Errc::kClosed:
      return ENODEV;
    default:
      return EIO;
  }
}

TreeFs::TreeFs(std::string socket, int timeout_ms) : connections_(std::move(socket), timeout_ms) {}
TreeFs::~TreeFs() = default;

int TreeFs::stat(std::string_view path, Node* node) {
  if (is_last_error(path)) {
    const std::lock_guard lock(mutex_);
    *node = {false, 0444, static_cast<off_t>(last_error_.size())};
    return 0;
  }
  if (path.size() - path.rfind('/') > kNameMax) {
    return -ENAMETOOLONG;
  }
  const Result<Stat> stat = connections_.ask([&](Client& c) { return c.stat(inside(path)); });
  if (!stat) {
    return -errno_of(stat.code());
  }
  *node = stat->directory ? directory_node() : attribute_node(stat->mode, stat->type);
  return 0;
}

int TreeFs::list(std::string_view path, std::vector<std::pair<std::string, Node>>* entries) {
  const Result<std::vector<Entry>> all =
      connections_.ask([&](Client& c) { return c.list(inside(path)); });
  if (!all) {
    return all.code() == Errc::kInvalid ? -ENOTDIR : -errno_of(all.code());
  }
  if (inside(path).empty()) {
    entries->emplace_back(kLastErrorName, Node{false, 0444, 0});
  }
  for (const Entry& entry : *all) {
    // The runtime's names are components of a path; what is none would confuse a walk.
    if (entry.name.empty() || entry.name.find('/') != std::string::npos || entry.name[0] == '.') {
      return -EIO;
    }
    entries->emplace_back(
        entry.name, entry.directory ? directory_node() : attribute_node(entry.mode, entry.type));
  }
  return 0;
}

int TreeFs::open(std::string_view path, int flags, std::unique_ptr<File>* file) {
  Node node;
  bool is_text = true;
  if (is_last_error(path)) {
    node.rights = 0444;
  } else {
    const Result<Stat> stat = connections_.ask([&](Client& c) { return c.stat(inside(path)); });
    if (!stat) {
      return -errno_of(stat.code());
    }
    if (stat->directory) {
      return -EISDIR;
    }
    node = attribute_node(stat->mode, stat->type);
    is_text = stat->type == "text";
  }
  // The kernel lets root pass, the runtime does not.
  if ((wants_read(flags) && (node.rights & 0400) == 0) ||
      (wants_write(flags) && (node.rights & 0200) == 0)) {
    return -EACCES;
  }
  *file = std::make_unique<File>(inside(path), flags, is_text);
  return 0;
}

int TreeFs::text_of(const std::string& path, std::string* text) {
  if (path == kLastErrorName) {
    const std::lock_guard lock(mutex_);
    *text = last_error_;
    return 0;
  }
  const Result<Item> item = connections_.ask([&](Client& c) { return c.get(path); });
  if (!item) {
    return -errno_of(item.code());
  }
  *text = *item->value;
  if (!text->empty() && !text->ends_with('\n')) {
    *text += '\n';
  }
  return 0;
}

int TreeFs::read(File& file, char* to, size_t size, off_t offset) {
  const std::lock_guard lock(file.mutex_);
  if (offset == 0 || !file.read_) {
    if (const int error = text_of(file.path_, &file.text_); error != 0) {
      return error;
    }
    file.read_ = true;
  }
  const auto at = static_cast<size_t>(offset);
  if (at >= file.text_.size()) {
    return 0;
  }
  return static_cast<int>(file.text_.copy(to, size, at));
}

int TreeFs::refused(const std::string& path, const Error& error) {
  std::string text = harmless(error.text());
  if (text.find(path) == std::string::npos) {
    text = path + ": " + text;
  }
  const std::lock_guard lock(mutex_);
  last_error_ = text + "\n";
  if (errors_.size() >= kErrorsMax && !errors_.contains(path)) {
    errors_.erase(errors_.begin());
  }
  errors_[path] = std::move(text);
  return -errno_of(error.code);
}

int TreeFs::write(File& file, std::string_view value, off_t offset) {
  // With O_APPEND the kernel says where the file is said to end.
  if (offset != 0 && (file.flags_ & O_APPEND) == 0) {
    return refused(file.path_, Error(Errc::kInvalid, "a value is written whole, by one write"));
  }
  if (value.size() > kValueMax) {
    return refused(file.path_, Error(Errc::kInvalid, "the value is longer than 32,768 bytes"));
  }
  std::string text(value);
  if (!file.is_text_ && text.ends_with('\n')) {
    text.pop_back();  // echo's
  }
  const Result<void> done = connections_.ask([&](Client& c) { return c.set(file.path_, text); });
  if (!done) {
    return refused(file.path_, done.error());
  }
  const std::lock_guard lock(mutex_);
  errors_.erase(file.path_);
  return static_cast<int>(value.size());
}

int TreeFs::truncate(std::string_view path, off_t size) {
  if (size != 0) {
    return -EINVAL;
  }
  Node node;
  if (const int error = stat(path, &node); error != 0) {
    return error;
  }
  return node.directory ? -EISDIR : (node.rights & 0200) == 0 ? -EACCES : 0;
}

std::map<std::string, std::string> TreeFs::xattrs_of(const std::string& path, const Stat& stat) {
  std::map<std::string, std::string> all = {{"type", stat.type},   {"unit", stat.unit},
                                            {"range", stat.range}, {"default", stat.fallback},
                                            {"help", stat.help},   {"stability", stat.stability}};
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = errors_.find(path); it != errors_.end()) {
      all["error"] = it->second;
    }
  }
  std::erase_if(all, [](const auto& one) { return one.second.empty(); });
  return all;
}

int TreeFs::xattr(std::string_view path, std::string_view name, std::string* value) {
  if (!name.starts_with(kXattrPrefix)) {
    return -ENODATA;  // security.capability and others: the kernel asks before each write
  }
  if (is_last_error(path)) {
    return -ENODATA;
  }
  const Result<Stat> stat = connections_.ask([&](Client& c) { return c.stat(inside(path)); });
  if (!stat) {
    return -errno_of(stat.code());
  }
  auto all = xattrs_of(inside(path), *stat);
  const auto it = all.find(std::string(name.substr(kXattrPrefix.size())));
  if (it == all.end()) {
    return -ENODATA;
  }
  *value = std::move(it->second);
  return 0;
}

int TreeFs::list_xattrs(std::string_view path, std::vector<std::string>* names) {
  if (is_last_error(path)) {
    return 0;
  }
  const Result<Stat> stat = connections_.ask([&](Client& c) { return c.stat(inside(path)); });
  if (!stat) {
    return -errno_of(stat.code());
  }
  for (const auto& [name, value] : xattrs_of(inside(path), *stat)) {
    names->push_back(std::string(kXattrPrefix) + name);
  }
  return 0;
}

}  // namespace kvmm::ctl
