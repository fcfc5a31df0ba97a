// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/attr.h"

#include <algorithm>
#include <utility>

#include "runtime/base/attr_state.h"
#include "runtime/base/check.h"

namespace kvmm {
namespace {

Error with_path(Error error, std::string_view path) {
  error.detail =
      std::string(path) + ": " + (error.detail.empty() ? errc_text(error.code) : error.detail);
  return error;
}

}  // namespace

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

bool AttrDir::Impl::enter() {
  const MutexLock lock(mutex);
  if (closed) {
    return false;
  }
  inside.push_back(std::this_thread::get_id());
  return true;
}

void AttrDir::Impl::leave() {
  const MutexLock lock(mutex);
  inside.erase(std::find(inside.begin(), inside.end(), std::this_thread::get_id()));
  if (inside.empty()) {
    empty.notify_all();
  }
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
    const MutexLock lock(state->mutex);
    if (impl_->provider != nullptr) {
      state->providers.erase(impl_->directory);
    }
    for (const std::string& path : impl_->paths) {
      state->leaves.erase(path);
    }
    state->count_directory(impl_->directory, -1);
    impl_->tree.reset();
  }
  const MutexLock lock(impl_->mutex);
  impl_->closed = true;
  return impl_->inside.empty();
}

void AttrDir::remove() {
  if (impl_ == nullptr) {
    return;
  }
  retire();
  {
    const MutexLock lock(impl_->mutex);
    const auto self = std::this_thread::get_id();
    check(std::find(impl_->inside.begin(), impl_->inside.end(), self) == impl_->inside.end(),
          "an attribute directory is not removed by its own callback");
    while (!impl_->inside.empty()) {
      impl_->empty.wait(impl_->mutex);
    }
  }
  impl_.reset();
}

AttrTree::AttrTree() : state_(std::make_shared<State>()) {}
AttrTree::~AttrTree() = default;

Result<void> AttrTree::declare(std::span<const AttrDef* const> defs) {
  const MutexLock lock(state_->mutex);
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
  const MutexLock lock(state_->mutex);
  for (const AttrLeaf& leaf : leaves) {
    if (Result<void> ok = state_->declare_locked(*leaf.def); !ok) {
      return std::move(ok).error();
    }
    const std::string path = join_path(impl->directory, leaf.def->name());
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
  const MutexLock lock(state_->mutex);
  for (const AttrDef* def : impl->defs) {
    if (Result<void> ok = state_->declare_locked(*def); !ok) {
      return std::move(ok).error();
    }
    const std::string path = join_path(join_path(impl->directory, "x"), def->name());
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
  const Result<State::Accepted> accepted = state_->accept(path, text);
  if (!accepted) {
    return accepted.error();
  }
  const State::Target& target = accepted->target;
  Result<void> done = [&]() -> Result<void> {
    const State::Inside inside(target.group);
    if (!inside) {
      return Error(Errc::kNotFound, "has just been removed");
    }
    return target.leaf != nullptr
               ? target.leaf->set(accepted->value)
               : target.group->provider->set(target.entry, *target.def, accepted->value);
  }();
  if (!done) {
    return with_path(std::move(done).error(), path);
  }
  return done;
}

Result<void> AttrTree::check_set(std::string_view path, std::string_view text) const {
  const Result<State::Accepted> accepted = state_->accept(path, text);
  return accepted ? Result<void>() : Result<void>(accepted.error());
}

Result<AttrTree::State::Accepted> AttrTree::State::accept(std::string_view path,
                                                          std::string_view text) const {
  std::optional<Target> target = resolve(path);
  if (!target) {
    return not_found(path);
  }
  if (target->def->mode == AttrMode::kReadOnly) {
    return with_path(Error(Errc::kPermission, "is read-only"), path);
  }
  Result<AttrValue> value = parse_value(*target->def, text);
  if (!value) {
    return with_path(std::move(value).error(), path);
  }
  return Accepted{std::move(*target), std::move(*value)};
}

Result<const AttrDef*> AttrTree::stat(std::string_view path) const {
  if (state_->is_directory(path)) {
    return nullptr;
  }
  return find(path);
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
  const MutexLock lock(state_->mutex);
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
