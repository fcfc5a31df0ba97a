// SPDX-License-Identifier: Apache-2.0
//
// The config directory: the attributes a runtime starts with.
//
//   /etc/kvmm/10-tiers.conf      tiers/dram/capacity = 64GiB
//   /etc/kvmm/20-swap.conf       swap/nvme0/path = /var/lib/kvmm/swap
//
//   Config::load(dir)            every *.conf, in byte order of names; the last line of a path wins
//     -> take(def)               what the runtime must know before its tiers and devices exist
//     -> apply(tree)             everything else, as if `kvctl set` had been called
//
// Invariants
//   1. No line is silently without effect: each is taken, applied, replaced by a later one, or an
//   error.
//   2. An error names file and line.
//   3. Exactly what `kvctl get -r` prints can be read.
//
// Thread safety: a value; one thread at a time.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/base/attr.h"
#include "runtime/base/result.h"

namespace kvmm {

inline constexpr const char* kConfigDefaultDirectory = "/etc/kvmm";
inline constexpr size_t kConfigFileMax = 1024 * 1024;  // bytes

// `named` (an option), else $KVMM_CONFIG, else kConfigDefaultDirectory. Second: whether somebody
// chose it, so that its absence is an error.
std::pair<std::string, bool> config_directory(const char* named);

class Config {
 public:
  struct Line {
    std::string path;
    std::string value;
    std::string where;  // "/etc/kvmm/10-tiers.conf:3"
  };
  struct Taken {
    std::string path;
    AttrValue value;
    std::string where;
  };

  Config() = default;

  // Reads `directory`. If it does not exist: nothing if not `chosen`, else kNotFound. Other errors:
  // kPermission and kIo (cannot be read), kInvalid (a line's form), kLimit (file too large).
  static Result<Config> load(const std::string& directory, bool chosen);

  // Takes all lines that `def` describes, of different paths if its pattern has placeholders, in
  // the order of compare_names. They are not applied later. Errors: those of parse_value, and
  // kPermission if `def` is not configurable.
  Result<std::vector<Taken>> take(const AttrDef& def);

  // Sets what has not been taken. A value that is out of range may wait for another line (a low
  // watermark for the high one), so such lines are tried again as long as that helps: the order of
  // the lines does not matter. Stops at the first other error: kNotFound (unknown name, with the
  // nearest; or one of a thing that does not exist at start), kPermission (read-only), kInvalid,
  // kRange, or what the setter said.
  Result<void> apply(const AttrTree& tree);

  // Lines not taken yet; none after apply().
  const std::vector<Line>& lines() const { return lines_; }

 private:
  Result<void> read_file(const std::string& path);

  std::vector<Line> lines_;  // at most one of a path
};

}  // namespace kvmm
