// SPDX-License-Identifier: Apache-2.0
//
// The checker of docs/abi is checked: each kind of difference is found.
#include "tests/control/abi_docs.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvmm::test {
namespace {

constexpr const char* kGood =
    "# title\n\n| `stray` | row |\n\n## `a/<x>/b`\n\n"
    "| mode | type | unit | range | default | config | stability |\n|---|---|---|---|---|---|---|\n"
    "| rw | u64 | pages | 1..9 | 4 | yes | testing |\n\n**What.** It.\n\n| name | meaning "
    "|\n|---|---|\n"
    "| `one` | 1 |\n| `<` | 2 |\n\n**Effect.** It.\n\n**Errors.** none.\n";

AbiEntries live() {
  AbiEntries entries;
  parse_defs(
      R"({"defs":[{"pattern":"a/<x>/b","mode":"rw","type":"u64","unit":"pages","range":"1..9",
                "default":"4","configurable":true,"stability":"testing","help":"t"}]})",
      entries);
  return entries;
}

std::vector<std::string> complaints_of(const std::string& what, const std::string& with) {
  std::string text = kGood;
  if (!what.empty()) {
    text.replace(text.find(what), what.size(), with);
  }
  AbiEntries docs;
  std::vector<std::string> complaints;
  parse_docs("x.md", text, docs, complaints);
  for (std::string& one : compare(docs, live())) {
    complaints.push_back(std::move(one));
  }
  return complaints;
}

TEST(AbiDocs, AgreementHasNoComplaint) {
  EXPECT_TRUE(complaints_of("", "").empty());
}

TEST(AbiDocs, EachDifferenceIsFound) {
  for (const auto& [what, with] :
       std::vector<std::pair<const char*, const char*>>{{"| rw |", "| ro |"},
                                                        {"| u64 |", "| bytes |"},
                                                        {"pages", "page"},
                                                        {"1..9", "1..8"},
                                                        {"| 4 |", "| 5 |"},
                                                        {"| yes |", "| no |"},
                                                        {"testing", "stable"},
                                                        {"**What.**", "What."},
                                                        {"**Effect.**", "Effect."},
                                                        {"**Errors.**", "Errors"},
                                                        {"| mode |", "| Mode |"}}) {
    EXPECT_EQ(complaints_of(what, with).size(), 1u) << what;
  }
  EXPECT_EQ(complaints_of("a/<x>/b", "a/<x>/c").size(), 2u);  // one unknown, one missing
  const std::string twice = std::string(kGood) + kGood;
  AbiEntries docs;
  std::vector<std::string> complaints;
  parse_docs("x.md", twice, docs, complaints);
  EXPECT_EQ(complaints.size(), 1u);
}

TEST(AbiDocs, KeysOfTextsAreHeldToo) {
  AbiEntries docs;
  std::vector<std::string> none;
  parse_docs("x.md", kGood, docs, none);
  const AbiEntry& entry = docs.at("a/<x>/b");
  EXPECT_EQ(entry.keys, (std::set<std::string>{"<", "one"}));
  EXPECT_TRUE(compare_keys(entry, "one 5\n< 7\n").empty());
  EXPECT_EQ(compare_keys(entry, "one 5\n").size(), 1u);
  EXPECT_EQ(compare_keys(entry, "one 5\n< 7\nthree 1\n").size(), 1u);
}

TEST(AbiDocs, TheDocumentsAreWellFormed) {
  std::vector<std::string> complaints;
  const AbiEntries docs = read_docs(ABI_DOCS_DIR, complaints);
  EXPECT_GE(docs.size(), 45u);
  for (const auto& [pattern, entry] : docs) {
    EXPECT_EQ(std::count(entry.row.begin(), entry.row.end(), '|'), 6) << entry.where;
  }
  EXPECT_EQ(complaints, std::vector<std::string>());
}

}  // namespace
}  // namespace kvmm::test
