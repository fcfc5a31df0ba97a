// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/attr.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "runtime/base/check.h"

namespace kvmm {
namespace {

struct NameLess {
  bool operator()(const std::string& a, const std::string& b) const {
    return compare_names(a, b) < 0;
  }
};

// Order of the maps: '/' before every character of a name, so that a directory's subtree follows it
// and lies together ("a", "a/b", "a-b").
struct PathLess {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                        [](char x, char y) { return rank(x) < rank(y); });
  }
  static int rank(char c) { return c == '/' ? 1 : static_cast<unsigned char>(c); }
};
// Behind every path of the subtree, before every other path.
constexpr char kPastSubtree = '\x02';

std::string join(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty()) {
    path += '/';
  }
  path += name;
  return path;
}

// Order of walk(): component by component, so that a directory's leaves stay together.
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

bool is_below(std::string_view path, std::string_view directory) {
  return path.size() > directory.size() && path.substr(0, directory.size()) == directory &&
         path[directory.size()] == '/';
}

Error with_path(Error error, std::string_view path) {
  error.detail =
      std::string(path) + ": " + (error.detail.empty() ? errc_text(error.code) : error.detail);
  return error;
}

}  // namespace

// One group's gate: callbacks run inside, remove() closes it and waits until it is empty.
struct AttrDir::Impl {
  std::weak_ptr<AttrTree::State> tree;
  std::vector<std::string> paths;  // leaves of add()
  std::string directory;           // of add(): counted in State::directories; or the parent
  AttrProvider* provider = nullptr;
  std::vector<const AttrDef*> defs;  // of a provider

  std::mutex mutex;
  std::condition_variable empty;
  std::vector<std::thread::id> inside;  // guarded by mutex; one entry per running callback
  bool closed = false;                  // guarded by mutex

  bool enter() {
    const std::lock_guard lock(mutex);
    if (closed) {
      return false;
    }
    inside.push_back(std::this_thread::get_id());
    return true;
  }
  void leave() {
    const std::lock_guard lock(mutex);
    inside.erase(std::find(inside.begin(), inside.end(), std::this_thread::get_id()));
    if (inside.empty()) {
      empty.notify_all();
    }
  }
};

struct AttrTree::State {
  using Group = std::shared_ptr<AttrDir::Impl>;
  struct Leaf {
    std::shared_ptr<const AttrLeaf> leaf;
    Group group;
  };
  // What a path leads to: a leaf's callbacks, or a provider's entry and definition.
  struct Target {
    const AttrDef* def;
    Group group;
    std::shared_ptr<const AttrLeaf> leaf;  // null: group->provider
    std::string entry;
  };
  // Runs callbacks of one group; false if the group has been removed.
  class Inside {
   public:
    explicit Inside(const Group& group) : group_(group->enter() ? group.get() : nullptr) {}
    ~Inside() {
      if (group_ != nullptr) {
        group_->leave();
      }
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    explicit operator bool() const { return group_ != nullptr; }

   private:
    AttrDir::Impl* group_;
  };

  mutable std::mutex mutex;  // of the maps; never held while a callback runs
  std::map<std::string, Leaf, PathLess> leaves;
  std::map<std::string, int, PathLess> directories;  // explicit ones and their ancestors: users
  std::map<std::string, Group, PathLess> providers;  // by parent
  std::map<std::string, const AttrDef*, std::less<>> defs;

  // REQUIRES: mutex is held.
  Result<void> declare_locked(const AttrDef& def);
  void count_directory(std::string_view directory, int by);

  // The parts below take the mutex themselves.
  Group provider_of(std::string_view parent) const;
  std::optional<Target> resolve(std::string_view path) const;
  bool is_directory(std::string_view path) const;
  std::vector<AttrEntry> children(std::string_view path) const;
  Error not_found(std::string_view path) const;
  Result<AttrValue> read(const Target& target) const;
  bool walk(const std::string& path, std::string_view after, bool texts,
            const std::function<bool(const AttrItem&)>& visit) const;
  bool visit_leaf(const std::string& path, bool texts,
                  const std::function<bool(const AttrItem&)>& visit) const;
};

Result<void> AttrTree::State::declare_locked(const AttrDef& def) {
  if (Result<void> ok = def.validate(); !ok) {
    return ok;
  }
  const auto [it, added] = defs.try_emplace(def.pattern, &def);
  if (!added && it->second != &def) {
    return Error(Errc::kExists, std::string(def.pattern) + ": declared twice");
  }
  return {};
}

void AttrTree::State::count_directory(std::string_view directory, int by) {
  while (!directory.empty()) {
    const auto it = directories.try_emplace(std::string(directory), 0).first;
    it->second += by;
    check(it->second >= 0, "an attribute directory's users");
    if (it->second == 0) {
      directories.erase(it);
    }
    const size_t slash = directory.rfind('/');
    directory = slash == std::string_view::npos ? std::string_view() : directory.substr(0, slash);
  }
}

AttrTree::State::Group AttrTree::State::provider_of(std::string_view parent) const {
  const std::lock_guard lock(mutex);
  const auto it = providers.find(parent);
  return it == providers.end() ? nullptr : it->second;
}

std::optional<AttrTree::State::Target> AttrTree::State::resolve(std::string_view path) const {
  {
    const std::lock_guard lock(mutex);
    if (const auto it = leaves.find(path); it != leaves.end()) {
      return Target{it->second.leaf->def, it->second.group, it->second.leaf, {}};
    }
  }
  // parent/entry/name of a provider.
  const size_t name_at = path.rfind('/');
  if (name_at == std::string_view::npos || name_at == 0) {
    return std::nullopt;
  }
  const size_t entry_at = path.rfind('/', name_at - 1);
  const std::string_view parent =
      entry_at == std::string_view::npos ? std::string_view() : path.substr(0, entry_at);
  const size_t entry_from = entry_at == std::string_view::npos ? 0 : entry_at + 1;
  const std::string_view entry = path.substr(entry_from, name_at - entry_from);
  const Group group = provider_of(parent);
  if (group == nullptr || !is_path_component(entry)) {
    return std::nullopt;
  }
  for (const AttrDef* def : group->defs) {
    if (def->name() == path.substr(name_at + 1)) {
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
    const std::lock_guard lock(mutex);
    if (directories.contains(path)) {
      return true;
    }
  }
  const size_t slash = path.rfind('/');
  const std::string_view parent =
      slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  const std::string_view entry = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
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
    const std::lock_guard lock(mutex);
    const std::string first = path.empty() ? std::string() : std::string(path) + '/';
    for (auto it = directories.lower_bound(first);
         it != directories.end() && (path.empty() || is_below(it->first, path));) {
      const std::string child(it->first.substr(skip, it->first.find('/', skip) - skip));
      found.try_emplace(child, nullptr);
      it = directories.lower_bound(join(path, child) + kPastSubtree);
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
  const size_t slash = path.rfind('/');
  const std::string_view parent =
      slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
  const std::string_view entry = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
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
    const std::string next = join(known, part);
    if (is_directory(next)) {
      known = next;
      continue;
    }
    std::vector<std::string> names;
    for (const AttrEntry& entry : children(known)) {
      if (compare_names(entry.name, part) == 0) {
        return Error(Errc::kNotFound, join(known, part) + ": is an attribute, not a directory");
      }
      names.push_back(entry.name);
    }
    const std::string near = nearest_name(part, names);
    std::string text = "no attribute or directory '";
    text += is_path_component(part) ? std::string(part) : std::string("?");
    text += known.empty() ? "'" : "' in " + known;
    if (!near.empty()) {
      text += "; did you mean '" + join(known, near) + "'?";
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
    const std::string child = join(path, entry.name);
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

AttrDir& AttrDir::operator=(AttrDir&& other) noexcept {
  if (this != &other) {
    remove();
    impl_ = std::move(other.impl_);
  }
  return *this;
}

bool AttrDir::retire() {
  if (impl_ == nullptr) {
    return true;
  }
  if (const std::shared_ptr<AttrTree::State> state = impl_->tree.lock()) {
    const std::lock_guard lock(state->mutex);
    if (impl_->provider != nullptr) {
      state->providers.erase(impl_->directory);
    }
    for (const std::string& path : impl_->paths) {
      state->leaves.erase(path);
    }
    state->count_directory(impl_->directory, -1);
    impl_->tree.reset();
  }
  const std::lock_guard lock(impl_->mutex);
  impl_->closed = true;
  return impl_->inside.empty();
}

void AttrDir::remove() {
  if (impl_ == nullptr) {
    return;
  }
  retire();
  {
    std::unique_lock lock(impl_->mutex);
    const auto self = std::this_thread::get_id();
    check(std::find(impl_->inside.begin(), impl_->inside.end(), self) == impl_->inside.end(),
          "an attribute directory is not removed by its own callback");
    impl_->empty.wait(lock, [&] { return impl_->inside.empty(); });
  }
  impl_.reset();
}

AttrTree::AttrTree() : state_(std::make_shared<State>()) {}
AttrTree::~AttrTree() = default;

Result<void> AttrTree::declare(std::span<const AttrDef* const> defs) {
  const std::lock_guard lock(state_->mutex);
  for (const AttrDef* def : defs) {
    if (Result<void> ok = state_->declare_locked(*def); !ok) {
      return ok;
    }
  }
  return {};
}

Result<AttrDir> AttrTree::add(std::string directory, std::vector<AttrLeaf> leaves) {
  for (const std::string_view part : split_path(directory)) {
    if (!is_path_component(part)) {
      return Error(Errc::kInvalid, "'" + directory + "': not a path of attributes");
    }
  }
  auto impl = std::make_shared<AttrDir::Impl>();
  impl->tree = state_;
  impl->directory = std::move(directory);
  const std::lock_guard lock(state_->mutex);
  for (const AttrLeaf& leaf : leaves) {
    if (Result<void> ok = state_->declare_locked(*leaf.def); !ok) {
      return std::move(ok).error();
    }
    const std::string path = join(impl->directory, leaf.def->name());
    if (!path_matches(leaf.def->pattern, path)) {
      return Error(Errc::kInvalid, path + ": does not match " + leaf.def->pattern);
    }
    if ((leaf.def->mode != AttrMode::kWriteOnly && !leaf.get) ||
        (leaf.def->mode != AttrMode::kReadOnly && !leaf.set)) {
      return Error(Errc::kInvalid, path + ": its mode needs a getter or a setter it has not");
    }
    const bool twice = std::find(impl->paths.begin(), impl->paths.end(), path) != impl->paths.end();
    if (twice || state_->leaves.contains(path) || state_->directories.contains(path)) {
      return Error(Errc::kExists, path + ": is there already");
    }
    impl->paths.push_back(path);
  }
  for (size_t i = 0; i < leaves.size(); ++i) {
    state_->leaves[impl->paths[i]] = {std::make_shared<const AttrLeaf>(std::move(leaves[i])), impl};
  }
  state_->count_directory(impl->directory, +1);
  return AttrDir(std::move(impl));
}

Result<AttrDir> AttrTree::add_provider(std::string parent, std::vector<const AttrDef*> defs,
                                       AttrProvider& provider) {
  auto impl = std::make_shared<AttrDir::Impl>();
  impl->tree = state_;
  impl->directory = std::move(parent);
  impl->provider = &provider;
  impl->defs = std::move(defs);
  const std::lock_guard lock(state_->mutex);
  for (const AttrDef* def : impl->defs) {
    if (Result<void> ok = state_->declare_locked(*def); !ok) {
      return std::move(ok).error();
    }
    const std::string path = join(join(impl->directory, "x"), def->name());
    if (!path_matches(def->pattern, path)) {
      return Error(Errc::kInvalid, path + ": does not match " + def->pattern);
    }
  }
  if (!state_->providers.try_emplace(impl->directory, impl).second) {
    return Error(Errc::kExists, impl->directory + ": has a provider already");
  }
  state_->count_directory(impl->directory, +1);
  return AttrDir(std::move(impl));
}

Result<std::vector<AttrEntry>> AttrTree::list(std::string_view path) const {
  if (!state_->is_directory(path)) {
    if (state_->resolve(path)) {
      return Error(Errc::kInvalid, std::string(path) + ": is an attribute, not a directory");
    }
    return state_->not_found(path);
  }
  return state_->children(path);
}

Result<const AttrDef*> AttrTree::find(std::string_view path) const {
  const std::optional<State::Target> target = state_->resolve(path);
  if (!target) {
    return state_->not_found(path);
  }
  return target->def;
}

Result<AttrValue> AttrTree::read(std::string_view path) const {
  const std::optional<State::Target> target = state_->resolve(path);
  if (!target) {
    return state_->not_found(path);
  }
  Result<AttrValue> value = state_->read(*target);
  if (!value) {
    return with_path(std::move(value).error(), path);
  }
  return value;
}

Result<std::string> AttrTree::get(std::string_view path) const {
  const Result<const AttrDef*> def = find(path);
  if (!def) {
    return def.error();
  }
  const Result<AttrValue> value = read(path);
  if (!value) {
    return value.error();
  }
  return format_value(**def, *value);
}

Result<void> AttrTree::set(std::string_view path, std::string_view text) const {
  const std::optional<State::Target> target = state_->resolve(path);
  if (!target) {
    return state_->not_found(path);
  }
  if (target->def->mode == AttrMode::kReadOnly) {
    return with_path(Error(Errc::kPermission, "is read-only"), path);
  }
  const Result<AttrValue> value = parse_value(*target->def, text);
  if (!value) {
    return with_path(value.error(), path);
  }
  Result<void> done = [&]() -> Result<void> {
    const State::Inside inside(target->group);
    if (!inside) {
      return Error(Errc::kNotFound, "has just been removed");
    }
    return target->leaf != nullptr
               ? target->leaf->set(*value)
               : target->group->provider->set(target->entry, *target->def, *value);
  }();
  if (!done) {
    return with_path(std::move(done).error(), path);
  }
  return done;
}

Result<void> AttrTree::walk(std::string_view prefix, std::string_view after, bool texts,
                            const std::function<bool(const AttrItem&)>& visit) const {
  const std::string path(prefix);
  if (state_->is_directory(path)) {
    state_->walk(path, after, texts, visit);
    return {};
  }
  if (!state_->resolve(path)) {
    return state_->not_found(path);
  }
  if (after.empty() || compare_paths(path, after) > 0) {
    state_->visit_leaf(path, texts, visit);
  }
  return {};
}

std::vector<const AttrDef*> AttrTree::defs() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<const AttrDef*> all;
  all.reserve(state_->defs.size());
  for (const auto& [pattern, def] : state_->defs) {
    all.push_back(def);
  }
  return all;
}

AttrLeaf attr_counter(const AttrDef& def, const std::atomic<uint64_t>& value) {
  return {&def, [&value]() -> Result<AttrValue> {
            return AttrValue::of(value.load(std::memory_order_relaxed));
          }};
}

AttrLeaf attr_atomic(const AttrDef& def, std::atomic<uint64_t>& value) {
  AttrLeaf leaf = attr_counter(def, value);
  leaf.set = [&value](const AttrValue& v) -> Result<void> {
    value.store(v.number, std::memory_order_relaxed);
    return {};
  };
  return leaf;
}

AttrLeaf attr_fixed(const AttrDef& def, AttrValue value) {
  return {&def, [v = std::move(value)]() -> Result<AttrValue> { return v; }};
}

AttrLeaf attr_text(const AttrDef& def, std::function<Result<std::string>()> get) {
  return {&def, [get = std::move(get)]() -> Result<AttrValue> {
            Result<std::string> text = get();
            if (!text) {
              return std::move(text).error();
            }
            return AttrValue::of(std::move(*text));
          }};
}

}  // namespace kvmm
