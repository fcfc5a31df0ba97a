// SPDX-License-Identifier: Apache-2.0
//
// Each fact is a test: it fails where the kernel does something else, and says which choice of the
// design falls with it. The cost is printed and never held against anything.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <sstream>

#include "drivers/host/uapi.h"
#include "tests/kernel_facts/facts.h"

namespace kvmm::facts {
namespace {

std::vector<Fact> all_facts() {
  std::vector<Fact> all;
  for (const auto& some : {cheap_facts(), move_facts(), memory_facts(), uring_facts()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

// What a person reads of a finding.
std::string line_of(const Fact& fact, const Finding& found) {
  std::string line = std::string(fact.id) + ": " + fact.claim;
  switch (found.verdict) {
    case Verdict::kHolds:
      return line + ": " + found.text;
    case Verdict::kOther:
      return line + ": NOT HERE: " + found.text + ". What falls: " + fact.falls;
    case Verdict::kCannotTell:
      return line + ": cannot be told here: " + found.text;
  }
  return line;
}

class KernelFact : public testing::TestWithParam<Fact> {};

TEST_P(KernelFact, Holds) {
  const auto start = std::chrono::steady_clock::now();
  const Finding found = GetParam().run();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  const std::string line = line_of(GetParam(), found);
  std::printf("%s (%.1f ms)\n", line.c_str(), took.count());
  if (found.verdict == Verdict::kCannotTell) {
    GTEST_SKIP() << line;
  }
  EXPECT_EQ(found.verdict, Verdict::kHolds) << line;
}

INSTANTIATE_TEST_SUITE_P(All, KernelFact, testing::ValuesIn(all_facts()), [](const auto& i) {
  std::string name = i.param.id;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(KernelFacts, OtherBehaviourSaysWhatFalls) {
  const Fact fact{"sky-blue", "the sky is blue", "umbrellas", [] { return other("it is grey"); }};
  EXPECT_EQ(line_of(fact, fact.run()),
            "sky-blue: the sky is blue: NOT HERE: it is grey. What falls: umbrellas");
}

// docs/kernel_facts.md has a row for each fact with its claim, and no row of another.
TEST(KernelFacts, TheDocumentHasThemAll) {
  std::ifstream in(KVMM_SOURCE "/docs/kernel_facts.md");
  std::set<std::string> documented;
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, 3, "| `") == 0) {
      documented.insert(line.substr(0, line.find(" |", 3)));
    }
  }
  std::set<std::string> known;
  for (const Fact& f : all_facts()) {
    EXPECT_TRUE(known.insert("| `" + std::string(f.id) + "`").second) << f.id << " is there twice";
  }
  EXPECT_EQ(documented, known);
}

static_assert(kUffdMove == uapi::kUffdMove && kUffdPoison == uapi::kUffdPoison);
static_assert(kFeatureMove == uapi::kFeatureMove && kFeaturePoison == uapi::kFeaturePoison &&
              kFeatureMinorShmem == uapi::kFeatureMinorShmem);

}  // namespace
}  // namespace kvmm::facts
