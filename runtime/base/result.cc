// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/result.h"

#include <array>
#include <cstring>

namespace kvmm {
namespace {

struct Names {
  const char* name;
  const char* text;
};

constexpr std::array<Names, 23> kNames = {{
    {"ok", "success"},
    {"invalid", "an argument is outside its documented range"},
    {"not_found", "there is no such object"},
    {"exists", "it exists already"},
    {"again", "nothing was done; try again after the next completion"},
    {"busy", "it is pinned, in use, or held by I/O"},
    {"no_memory", "no page frame is free and none may be reclaimed"},
    {"no_space", "the swap areas or the disk are full"},
    {"io", "the device reported an error"},
    {"corrupt", "the bytes do not match their checksum"},
    {"stale", "the bytes are intact but of another generation, page or owner"},
    {"model_mismatch", "the bytes are KV of another model or layout"},
    {"recompute", "the content is gone and must be computed again"},
    {"not_supported", "this device, kernel or build cannot do it"},
    {"permission", "the system refuses it"},
    {"range", "outside the session, arena or device"},
    {"sealed", "a sealed page cannot be written"},
    {"seal_violation", "a sealed page was written after it was sealed"},
    {"closed", "it has been closed"},
    {"cancelled", "given up on request"},
    {"version", "another format, ABI or API version"},
    {"limit", "a configured limit or one of the system is reached"},
    {"device_gone", "the device does not answer any more"},
}};

const Names& names_of(Errc code) noexcept {
  static constexpr Names kUnknown{"unknown", "unknown error"};
  const auto i = static_cast<size_t>(code);
  return i < kNames.size() ? kNames[i] : kUnknown;
}

}  // namespace

const char* errc_name(Errc code) noexcept {
  return names_of(code).name;
}
const char* errc_text(Errc code) noexcept {
  return names_of(code).text;
}

std::string Error::text() const {
  std::string s = detail.empty() ? errc_text(code) : detail;
  if (os_error != 0) {
    s += " (errno " + std::to_string(os_error) + ": " + std::strerror(os_error) + ")";
  }
  return s;
}

std::string Error::message() const {
  return errc_name(code) + (": " + text());
}

}  // namespace kvmm
