// SPDX-License-Identifier: Apache-2.0
//
// The control protocol, without any socket: one line in, one line out.
//
//   request   {"kvmm":1,"op":"get","path":"tiers/dram/used"}
//   reply     {"kvmm":1,"ok":true,"path":"tiers/dram/used","value":"64MiB","number":67108864}
//   refusal   {"kvmm":1,"ok":false,"error":{"code":"not_found","number":2,"text":"..."}}
//
//   op     takes                 gives
//   hello  -                     pid, name, version, actions, (info is another name for it)
//   ls     path, [after]         entries: [{name, dir} or {name, mode, type}], [next]
//   get    path, [offset]        value, [number], [unit], and for cut texts [next], size
//   set    path, value, [check]  -; check: only whether name and value would be taken
//   stat   path                  dir, or what `defs` gives of the attribute there
//   walk   path, [after]         items: [{path, mode, type, configurable, value, [number],
//   [error]}],
//                                [next]
//   defs   [after]               defs: [{pattern, mode, type, unit, range, default, help,
//                                configurable, stability}], [next]
//   call   name, args            value; actions are registered by the runtime (swapon, swapoff)
//   trace  [offset], [args]      records: [[number, tick, event, arguments...]], next, lost,
//                                [schema]
//
// Every reply is bounded: what does not fit in about kReplyBytes is cut, and `next` is what to send
// as `after` (a name) or `offset` (a byte) for the rest. Texts are cut at line ends. Like /proc,
// what is read in pieces is not one instant.
//
// Invariants
//   1. `version first`: the first member of every reply is "kvmm"; a request of another version is
//      refused with kVersion whatever else is in it.
//   2. Whatever bytes come in, one valid JSON line of UTF-8 goes out.
//
// Thread safety: functions without state.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "runtime/base/attr.h"
#include "runtime/base/result.h"

namespace kvmm {

class TraceRing;

inline constexpr int kControlVersion = 1;
inline constexpr size_t kControlLineMax = 64 * 1024;      // bytes of a request, newline included
inline constexpr size_t kControlReplyBytes = 256 * 1024;  // content of a reply before it is cut

// Arguments of an action as texts ("bytes" -> "16GiB").
using ControlArgs = std::map<std::string, std::string>;
// May take as long as it needs: actions run on a thread of their own, one at a time.
using ControlAction = std::function<Result<std::string>(const ControlArgs&)>;

// What the replies are made from. Constant while the server runs.
struct ControlContext {
  const AttrTree* tree = nullptr;
  const TraceRing* trace = nullptr;  // may be null: kNotSupported
  std::map<std::string, ControlAction> actions = {};
  std::string name = {};     // of the runtime
  std::string version = {};  // of the library
  int pid = 0;
};

enum class ControlOp : uint8_t { kHello, kList, kGet, kSet, kStat, kWalk, kDefs, kCall, kTrace };

struct ControlRequest {
  ControlOp op = ControlOp::kHello;
  std::string path;
  std::string value;
  std::string after;
  uint64_t offset = 0;
  bool check = false;
  bool has_offset = false;
  std::string name;
  ControlArgs args;
};

// `line` without its newline. Errors: kInvalid (not JSON, not an object, unknown op, a member of
// the wrong type or missing), kVersion.
Result<ControlRequest> parse_request(std::string_view line);
// The reply, newline included. Runs getters, setters or the action.
std::string answer_request(const ControlContext& context, const ControlRequest& request);
std::string error_reply(const Error& error);

}  // namespace kvmm
