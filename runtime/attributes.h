// SPDX-License-Identifier: Apache-2.0
//
// The attributes of a runtime: what is under each path, and the actions of the control socket.
//
// Thread safety: callbacks run on threads of the control plane. They read atomics, post queries to
// the core, or take kApi; the fault path takes none of those.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/attr.h"
#include "runtime/control/config.h"
#include "runtime/control/protocol.h"

namespace kvmm {

class Tier;
class Runtime;
struct RuntimeConfig;

class RuntimeAttributes {
 public:
  explicit RuntimeAttributes(Runtime& runtime);
  ~RuntimeAttributes();

  // Makes every definition known, before anything exists.
  Result<void> declare();
  // Values that are needed to build the runtime. Options of the program win over the file.
  Result<void> take_start_values(Config& file, RuntimeConfig& config);
  // Binds the definitions to the runtime that has been built.
  Result<void> publish();

  std::map<std::string, ControlAction> actions();
  static std::string version();

  class Arenas;
  class Sessions;
  class Swap;

 private:
  Result<void> add(std::string directory, std::vector<AttrLeaf> leaves);
  Result<void> publish_root();
  Result<void> publish_tiers();
  Result<void> publish_tier(Tier& tier);
  Result<void> publish_sched();
  Result<void> declare_observe();  // attributes_observe.cc
  Result<void> publish_observe();

  Runtime& runtime_;
  std::unique_ptr<Arenas> arenas_;
  std::unique_ptr<Sessions> sessions_;
  std::unique_ptr<Swap> swap_;
  std::vector<AttrDir> dirs_;  // last: the callbacks end before what they refer to
};

}  // namespace kvmm
