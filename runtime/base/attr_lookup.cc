// SPDX-License-Identifier: Apache-2.0
//
// Where a path leads: leaves, directories, providers; listing, walking and the nearest name.
#include <algorithm>
#include <map>
#include <optional>

#include "runtime/base/attr_state.h"

namespace kvmm {
namespace {

struct NameLess {
  bool operator()(const std::string& a, const std::string& b) const {
    return compare_names(a, b) < 0;
  }
};

bool is_below(std::string_view path, std::string_view directory) {
  return path.size() > directory.size() && path.substr(0, directory.size()) == directory &&
         path[directory.size()] == '/';
}

}  // namespace

int compare_paths(std::string_view a, std::string_view b) {
  const std::vector<std::string_view> left = split_path(a);
  const std::vector<std::string_view> right = split_path(b);
  for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
    if (const int order = compare_names(left[i], right[i]); order != 0) {
      return order;
    }
  }
  return left.size() == right.size() ? 0 : left.size() < right.size() ? -1 : 1;
}

AttrTree::State::Group AttrTree::State::provider_of(std::string_view parent) const {
  const MutexLock lock(mutex);
  const auto it = providers.find(parent);
  return it == providers.end() ? nullptr : it->second;
}

std::optional<AttrTree::State::Target> AttrTree::State::resolve(std::string_view path) const {
  {
    const MutexLock lock(mutex);
    if (const auto it = leaves.find(path); it != leaves.end()) {
      return Target{it->second.leaf->def, it->second.group, it->second.leaf, {}};
    }
  }
  // parent/entry/name of a provider.
  if (path.starts_with('/')) {
    return std::nullopt;
  }
  const std::string_view directory = parent_path(path);
  const std::string_view entry = last_component(directory);
  const Group group = provider_of(parent_path(directory));
  if (group == nullptr || !is_path_component(entry)) {
    return std::nullopt;
  }
  for (const AttrDef* def : group->defs) {
    if (def->name() == last_component(path)) {
      const Inside inside(group);
      if (!inside || !group->provider->contains(entry)) {
        return std::nullopt;
      }
      return Target{def, group, nullptr, std::string(entry)};
    }
  }
  return std::nullopt;
}

bool AttrTree::State::is_directory(std::string_view path) const {
  if (path.empty()) {
    return true;
  }
  {
    const MutexLock lock(mutex);
    if (directories.contains(path)) {
      return true;
    }
  }
  const std::string_view parent = parent_path(path);
  const std::string_view entry = last_component(path);
  const Group group = provider_of(parent);
  if (group == nullptr || !is_path_component(entry)) {
    return false;
  }
  const Inside inside(group);
  return inside && group->provider->contains(entry);
}

std::vector<AttrEntry> AttrTree::State::children(std::string_view path) const {
  std::map<std::string, const AttrDef*, NameLess> found;
  const size_t skip = path.empty() ? 0 : path.size() + 1;
  {
    const MutexLock lock(mutex);
    const std::string first = path.empty() ? std::string() : std::string(path) + '/';
    for (auto it = directories.lower_bound(first);
         it != directories.end() && (path.empty() || is_below(it->first, path));) {
      const std::string child(it->first.substr(skip, it->first.find('/', skip) - skip));
      found.try_emplace(child, nullptr);
      it = directories.lower_bound(join_path(path, child) + kPastSubtree);
    }
    for (auto it = leaves.lower_bound(first);
         it != leaves.end() && (path.empty() || is_below(it->first, path));) {
      const size_t slash = it->first.find('/', skip);
      if (slash == std::string::npos) {
        found.try_emplace(it->first.substr(skip), it->second.leaf->def);
        ++it;
      } else {
        it = leaves.lower_bound(it->first.substr(0, slash) + kPastSubtree);
      }
    }
  }
  if (const Group group = provider_of(path)) {
    if (const Inside inside(group); inside) {
      for (std::string& entry : group->provider->entries()) {
        if (is_path_component(entry)) {
          found.try_emplace(std::move(entry), nullptr);
        }
      }
    }
  }
  const std::string_view parent = parent_path(path);
  const std::string_view entry = last_component(path);
  if (const Group group = path.empty() ? nullptr : provider_of(parent)) {
    if (const Inside inside(group); inside && group->provider->contains(entry)) {
      for (const AttrDef* def : group->defs) {
        found.try_emplace(std::string(def->name()), def);
      }
    }
  }
  std::vector<AttrEntry> entries;
  entries.reserve(found.size());
  for (const auto& [name, def] : found) {
    entries.push_back({name, def});
  }
  return entries;
}

Error AttrTree::State::not_found(std::string_view path) const {
  // Descends as far as the path exists, then looks for a neighbour of the first unknown name.
  std::string known;
  for (const std::string_view part : split_path(path.substr(0, kAttrStringMax))) {
    const std::string next = join_path(known, part);
    if (is_directory(next)) {
      known = next;
      continue;
    }
    std::vector<std::string> names;
    for (const AttrEntry& entry : children(known)) {
      if (compare_names(entry.name, part) == 0) {
        return Error(Errc::kNotFound,
                     join_path(known, part) + ": is an attribute, not a directory");
      }
      names.push_back(entry.name);
    }
    const std::string near = nearest_name(part, names);
    std::string text = "no attribute or directory '";
    text += is_path_component(part) ? std::string(part) : std::string("?");
    text += known.empty() ? "'" : "' in " + known;
    if (!near.empty()) {
      text += "; did you mean '" + join_path(known, near) + "'?";
    }
    return Error(Errc::kNotFound, text);
  }
  return Error(Errc::kNotFound, std::string(path) + ": is a directory");
}

Result<AttrValue> AttrTree::State::read(const Target& target) const {
  if (target.def->mode == AttrMode::kWriteOnly) {
    return Error(Errc::kPermission, "is write-only");
  }
  const Inside inside(target.group);
  if (!inside) {
    return Error(Errc::kNotFound, "has just been removed");
  }
  return target.leaf != nullptr ? target.leaf->get()
                                : target.group->provider->get(target.entry, *target.def);
}

bool AttrTree::State::visit_leaf(const std::string& path, bool texts,
                                 const std::function<bool(const AttrItem&)>& visit) const {
  const std::optional<Target> target = resolve(path);
  if (!target) {
    return true;  // vanished since it was listed
  }
  if (target->def->type == AttrType::kText && !texts) {
    return visit({path, target->def, Error(Errc::kAgain, "a text: read it on its own")});
  }
  Result<AttrValue> value = read(*target);
  if (!value && value.code() == Errc::kNotFound) {
    return true;
  }
  return visit({path, target->def, std::move(value)});
}

bool AttrTree::State::walk(const std::string& path, std::string_view after, bool texts,
                           const std::function<bool(const AttrItem&)>& visit) const {
  for (const AttrEntry& entry : children(path)) {
    const std::string child = join_path(path, entry.name);
    if (!after.empty() && compare_paths(child, after) <= 0 && !is_below(after, child)) {
      continue;
    }
    const bool more =
        entry.def == nullptr ? walk(child, after, texts, visit) : visit_leaf(child, texts, visit);
    if (!more) {
      return false;
    }
  }
  return true;
}

}  // namespace kvmm
