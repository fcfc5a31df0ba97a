// SPDX-License-Identifier: Apache-2.0
//
// The texts under sessions/<id>, read and checked: maps, smaps, pagemap (docs/abi/sessions.md).
//
// Engines name planes, blanks included, so a line's numbers are taken from its end. Names that are
// not known are kept: a newer runtime may have more. A text that is not understood is kCorrupt.
//
// Thread safety: values and functions without state.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tools/kvctl/client.h"

namespace kvmm::ctl {

struct Session {
  std::string id;
  std::string name;
};

// The sessions that `wanted` means: all if "", the one of that id, or those of that name.
// Errors: kNotFound (no such session), those of the client.
Result<std::vector<Session>> sessions_of(Client& client, const std::string& wanted);

using Counts = std::vector<std::pair<std::string, uint64_t>>;

struct VmaText {
  uint64_t start = 0;
  uint64_t end = 0;
  std::string perms;
  uint64_t page_size = 0;
  std::string plane;
  std::string object;
  Counts counts;  // maps: pages; smaps: bytes; in the runtime's order

  // 0 if there is none.
  uint64_t count(const std::string& name) const;
};

Result<std::vector<VmaText>> parse_maps(const std::string& path, const std::string& text);
Result<std::vector<VmaText>> parse_smaps(const std::string& path, const std::string& text);

struct Plane {
  std::string name;
  uint64_t page_size = 0;
  uint64_t pages = 0;
  std::string map;  // a character a page; what is missing at the end was never written
};

Result<std::vector<Plane>> parse_pagemap(const std::string& path, const std::string& text);

// What the characters of a page map mean.
struct PageMark {
  char mark;
  const char* name;    // in JSON
  const char* text;    // in the legend
  const char* colour;  // SGR
};
inline constexpr std::array<PageMark, 8> kPageMarks = {
    {{'.', "empty", "never written", "90"},
     {'R', "resident", "resident", "32"},
     {'r', "inactive", "resident, unmapped", "36"},
     {'S', "swapped", "swapped", "34"},
     {'<', "reading", "being read", "1;33"},
     {'>', "writing", "being written", "1;35"},
     {'X', "gone", "gone", "1;31"},
     {'P', "pinned", "pinned", "1;32"}}};

// Pages of that mark.
uint64_t count_of(const Plane& plane, char mark);

}  // namespace kvmm::ctl
