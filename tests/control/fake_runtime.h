// SPDX-License-Identifier: Apache-2.0
//
// A runtime without memory: the attribute tree that kvctl expects, with made-up, constant values
// and sessions that a test opens and closes.
//
//   tiers/dram     256 MiB, 192 MiB used         swap/swap0   1 GiB, 320 MiB used
//   sessions/1     "chat one", running           sessions/12  "chat \x1b[31mred", idle
//
// Thread safety: all functions; the tree's callbacks lock the one mutex.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/attr.h"
#include "runtime/control/protocol.h"

namespace kvmm::test {

class FakeRuntime : public AttrProvider {
 public:
  FakeRuntime();

  AttrTree& tree() { return tree_; }
  std::map<std::string, ControlAction> actions();
  // Two nodes and memory behind a link, as tiers beside `dram`.
  void add_nodes();
  void open_session(const std::string& id, const std::string& name);
  void close_session(const std::string& id);
  // What an action was called with last: "swapon path=/x".
  std::string last_action() const;
  // Replaces the text of every session's pagemap.
  void set_pagemap(std::string text);
  // The setter of sched/readahead_max refuses what is larger, though it is in its range.
  void refuse_above(uint64_t bytes) { readahead_max_ = bytes; }
  // ... what is larger than tiers/dram/watermark_low.
  void refuse_above_low() { readahead_max_ = 0; }
  // Whether reading sched/readahead_max waits, and with it the control thread.
  void stall(bool on) {
    stalled_.store(on);
    stalled_.notify_all();
  }
  // How often a value was set.
  uint64_t sets() const { return sets_.load(); }
  void set_smaps(std::string text);
  uint64_t watermark_low() const { return low_.load(); }

  std::vector<std::string> entries() override;
  bool contains(std::string_view entry) override;
  Result<AttrValue> get(std::string_view entry, const AttrDef& def) override;
  Result<void> set(std::string_view entry, const AttrDef& def, const AttrValue& value) override;

 private:
  struct Session {
    std::string name;
    uint64_t advice = 0;
  };

  AttrTree tree_;
  std::atomic<uint64_t> low_{16ull << 20};
  std::atomic<uint64_t> readahead_{2ull << 20};
  std::atomic<uint64_t> readahead_max_{UINT64_MAX};  // 0: watermark_low
  std::atomic<uint64_t> sets_{0};
  std::atomic<bool> stalled_{false};

  mutable std::mutex mutex_;
  // guarded by mutex_
  std::map<std::string, Session> sessions_;
  std::string last_action_;
  std::string pagemap_;
  std::string smaps_;

  std::vector<AttrDir> dirs_;  // last member: callbacks end before what they refer to
};

}  // namespace kvmm::test
