// SPDX-License-Identifier: Apache-2.0
//
// One line of a config file: what `kvctl get -r` prints and the config directory reads.
//
//   tiers/dram/watermark_low = 64MiB      # a comment after a blank and '#'
//   arenas/0/name = "a name # with a hash"
//   # tiers/dram/used = 12MiB             what cannot be set stands in comments
//
// A value that begins with '"' ends at the next '"'; inside, \" \\ \n \t \r and \xHH stand for
// themselves. Any other value ends before a blank that a '#' follows, or at the line's end.
//
// Thread safety: functions without state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace kvmm {

struct ConfigLine {
  std::string path;
  std::string value;
};

// Nothing for a blank line or a comment. kInvalid: no '=', no path, an open quote, something behind
// the closing quote, control characters.
Result<std::optional<ConfigLine>> parse_config_line(std::string_view line);

// "path = value" without a newline; parse_config_line gives both back, whatever bytes they have.
std::string format_config_line(std::string_view path, std::string_view value);

}  // namespace kvmm
