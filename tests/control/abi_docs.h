// SPDX-License-Identifier: Apache-2.0
//
// docs/abi as data, and the comparison with a live tree.
//
//   docs/abi/*.md --parse_docs--> AbiEntry* --+
//                                             +--> compare --> complaints, none if they agree
//   op "defs"     --parse_defs--> AbiEntry* --+
//
// Thread safety: functions without state.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace kvmm::test {

struct AbiEntry {
  std::string pattern;
  std::string row;              // "rw | bytes | - | any | 64KiB | yes | testing"
  bool writable = false;        // mode rw or wo
  std::set<std::string> keys;   // documents only: `name` rows of the second table
  std::set<std::string> parts;  // documents only: "What", "Effect", "Errors"
  std::string where;            // documents only: file:line
};
using AbiEntries = std::map<std::string, AbiEntry>;

// Reads one document. What is no entry's is passed over; mistakes of form go to `complaints`.
void parse_docs(const std::string& file, const std::string& text, AbiEntries& entries,
                std::vector<std::string>& complaints);
// All .md files of a directory.
AbiEntries read_docs(const std::string& directory, std::vector<std::string>& complaints);
// The array `defs` of the protocol's reply, as JSON text of one reply; adds to `entries`. Returns
// `next`, or "".
std::string parse_defs(const std::string& reply, AbiEntries& entries);

// What differs, a line each, with the row that should stand in the document.
std::vector<std::string> compare(const AbiEntries& docs, const AbiEntries& live);
// Names before the first blank of each line, against the entry's table.
std::vector<std::string> compare_keys(const AbiEntry& entry, const std::string& live_text);

}  // namespace kvmm::test
