// SPDX-License-Identifier: Apache-2.0
//
// Inside of the attribute tree; included by attr.cc and attr_lookup.cc only.
//
//   State   the maps: which leaf, directory and provider stands where          State::mutex
//   Impl    one group's gate: who is inside its callbacks, is it closed        Impl::mutex
//
// Thread safety: the two kinds of mutex have one rank and are never held together, and neither is
// held while a callback runs.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/base/attr.h"
#include "runtime/base/lock.h"

namespace kvmm {

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
inline constexpr char kPastSubtree = '\x02';

// Order of walk(): component by component, so that a directory's leaves stay together.
int compare_paths(std::string_view a, std::string_view b);
inline std::string join_path(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty()) {
    path += '/';
  }
  path += name;
  return path;
}

inline std::string_view parent_path(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}
inline std::string_view last_component(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

// One group's gate: callbacks run inside, remove() closes it and waits until it is empty.
struct AttrDir::Impl {
  std::weak_ptr<AttrTree::State> tree;
  std::vector<std::string> paths;  // leaves of add()
  std::string directory;           // of add(): counted in State::directories; or the parent
  AttrProvider* provider = nullptr;
  std::vector<const AttrDef*> defs;  // of a provider

  Mutex mutex{LockRank::kAttributes};
  CondVar empty;
  std::vector<std::thread::id> inside KVMM_GUARDED_BY(mutex);  // one entry per running callback
  bool closed KVMM_GUARDED_BY(mutex) = false;

  // False if the group has been removed.
  bool enter();
  void leave();
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
  // What set() may give to the setter.
  struct Accepted {
    Target target;
    AttrValue value;
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

  mutable Mutex mutex{LockRank::kAttributes};
  std::map<std::string, Leaf, PathLess> leaves KVMM_GUARDED_BY(mutex);
  std::map<std::string, int, PathLess> directories
      KVMM_GUARDED_BY(mutex);  // explicit ones and their ancestors: users
  std::map<std::string, Group, PathLess> providers KVMM_GUARDED_BY(mutex);  // by parent
  std::map<std::string, const AttrDef*, std::less<>> defs;

  Result<void> declare_locked(const AttrDef& def) KVMM_REQUIRES(mutex);
  void count_directory(std::string_view directory, int by) KVMM_REQUIRES(mutex);

  // The parts below take the mutex themselves.
  Group provider_of(std::string_view parent) const;
  std::optional<Target> resolve(std::string_view path) const;
  bool is_directory(std::string_view path) const;
  std::vector<AttrEntry> children(std::string_view path) const;
  Error not_found(std::string_view path) const;
  Result<AttrValue> read(const Target& target) const;
  // Errors of set() before its setter is called.
  Result<Accepted> accept(std::string_view path, std::string_view text) const;
  bool walk(const std::string& path, std::string_view after, bool texts,
            const std::function<bool(const AttrItem&)>& visit) const;
  bool visit_leaf(const std::string& path, bool texts,
                  const std::function<bool(const AttrItem&)>& visit) const;
};

}  // namespace kvmm
