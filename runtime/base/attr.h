// SPDX-License-Identifier: Apache-2.0
//
// The attribute tree: everything about a runtime that can be looked at or changed while it runs.
//
//   ""  (root)
//    +- version                       leaf: an AttrDef, a getter, a setter
//    +- tiers
//    |   +- dram                      a group of leaves, added and removed as one (AttrDir)
//    |       +- capacity
//    |       +- watermark_low
//    +- sessions                      a provider: its directories are made up when somebody looks
//        +- 7
//            +- advice
//
//   AttrDir dir = *tree.add("tiers/dram", {attr_counter(kUsed, used_), attr_atomic(kLow, low_)});
//   tree.set("tiers/dram/watermark_low", "64MiB");   ...   dir.remove();
//
// Invariants
//   1. A path has at most one leaf; a group appears and vanishes as a whole.
//   2. Once `AttrDir::remove()` has returned, no callback of that group runs or will run: what the
//      callbacks refer to may be destroyed.
//   3. No lock of the tree is held while a getter, a setter or a provider is called.
//   4. A refused `set` has not called the setter.
//
// Thread safety: every function may be called by any thread. Callbacks are called by many threads
// at once. The fault path must not call anything here and holds no lock that is taken here; getters
// read atomics, or post a question to whoever owns the state and wait for the answer, with a limit.
// A thread that answers such questions must not call `remove()` (it would wait for a reader that
// waits for it): it calls `retire()` and lets another thread remove, or refuses the question.
//
// Ownership: the tree owns callbacks, not what they refer to. `AttrDef`s have static storage.
// An AttrDir may outlive its tree.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/attr_value.h"
#include "runtime/base/result.h"

namespace kvmm {

using AttrGetter = std::function<Result<AttrValue>()>;
using AttrSetter = std::function<Result<void>(const AttrValue&)>;

struct AttrLeaf {
  const AttrDef* def;
  AttrGetter get = {};  // needed unless the mode is wo
  AttrSetter set = {};  // needed unless the mode is ro
};

// The usual leaves. The referenced object outlives the AttrDir.
AttrLeaf attr_counter(const AttrDef& def, const std::atomic<uint64_t>& value);  // ro
AttrLeaf attr_atomic(const AttrDef& def, std::atomic<uint64_t>& value);         // rw, relaxed
AttrLeaf attr_fixed(const AttrDef& def, AttrValue value);                       // ro, never changes
AttrLeaf attr_text(const AttrDef& def, std::function<Result<std::string>()> get);

// Directories that come and go too often to be registered one by one. Called by any thread, also
// several at once; `entry` may have gone meanwhile: answer kNotFound.
class AttrProvider {
 public:
  virtual ~AttrProvider() = default;
  // Names of the directories there are now, in any order.
  virtual std::vector<std::string> entries() = 0;
  virtual bool contains(std::string_view entry) = 0;
  virtual Result<AttrValue> get(std::string_view entry, const AttrDef& def) = 0;
  // `value` has passed the definition's type and range.
  virtual Result<void> set(std::string_view entry, const AttrDef& def, const AttrValue& value) = 0;
};

// What add() and add_provider() hand out: while it lives, the group is in the tree.
class AttrDir {
 public:
  AttrDir() = default;
  ~AttrDir() { remove(); }
  AttrDir(AttrDir&& other) noexcept = default;
  AttrDir& operator=(AttrDir&& other) noexcept;

  // Takes the group out of the tree and waits until the last callback has returned. Idempotent.
  // REQUIRES: not called from one of the group's own callbacks (stops the process).
  void remove();
  // Takes it out of the tree and does not wait. Whether no callback is running any more.
  bool retire();

 private:
  friend class AttrTree;
  struct Impl;
  explicit AttrDir(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

struct AttrEntry {
  std::string name;
  const AttrDef* def = nullptr;  // null: a directory
};

struct AttrItem {
  std::string path;
  const AttrDef* def;
  Result<AttrValue> value;  // kPermission for write-only ones, kAgain for texts (see walk)
};

class AttrTree {
 public:
  AttrTree();
  ~AttrTree();
  AttrTree(const AttrTree&) = delete;
  AttrTree& operator=(const AttrTree&) = delete;

  // Makes definitions known before anything of them exists: `swap/<dev>/size` with no device yet.
  // add() and add_provider() declare what they add. kInvalid: see AttrDef::validate; kExists:
  // another definition has that pattern.
  Result<void> declare(std::span<const AttrDef* const> defs);

  // Adds leaves below `directory` ("" is the root); their patterns must match. Several groups may
  // share a directory. Errors: kInvalid (a pattern, a component of `directory`, a callback that the
  // mode needs), kExists (a path is taken); nothing is added then.
  Result<AttrDir> add(std::string directory, std::vector<AttrLeaf> leaves);
  // `parent` is "sessions" for definitions "sessions/<id>/...". `provider` outlives the AttrDir.
  // Errors: as add(); kExists also if `parent` has a provider.
  Result<AttrDir> add_provider(std::string parent, std::vector<const AttrDef*> defs,
                               AttrProvider& provider);

  // What is directly below `path`, in the order of compare_names. kNotFound (with the nearest name
  // there is), kInvalid (it is a leaf).
  Result<std::vector<AttrEntry>> list(std::string_view path) const;
  // The definition that stands at `path`; null: a directory. kNotFound, with the nearest name.
  Result<const AttrDef*> stat(std::string_view path) const;
  // The definition of the attribute at `path`. kNotFound, with the nearest name.
  Result<const AttrDef*> find(std::string_view path) const;
  // kNotFound, kPermission (write-only), or what the getter said.
  Result<AttrValue> read(std::string_view path) const;
  Result<std::string> get(std::string_view path) const;
  // kNotFound, kPermission (read-only), kInvalid, kRange, or what the setter said; the text starts
  // with the path. The old value stays after any error.
  Result<void> set(std::string_view path, std::string_view text) const;
  // Whether set() would call the setter: the same errors, but for what the setter says.
  Result<void> check_set(std::string_view path, std::string_view text) const;

  // Calls `visit` for every leaf at or below `prefix`, in order, until it returns false. Only paths
  // that sort behind `after` (if not empty): a reader who was cut off goes on where it was. What
  // appears or vanishes meanwhile is seen or not. Texts are read only if `texts`: they may be
  // large. kNotFound: nothing is at `prefix`.
  Result<void> walk(std::string_view prefix, std::string_view after, bool texts,
                    const std::function<bool(const AttrItem&)>& visit) const;

  // Every definition declared so far, ordered by pattern.
  std::vector<const AttrDef*> defs() const;

 private:
  friend class AttrDir;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kvmm
