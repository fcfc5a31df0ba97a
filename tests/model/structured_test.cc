// SPDX-License-Identifier: Apache-2.0
//
// Structured sessions against a naive reference: append, seal, truncate, discard, loss and
// recompute, under reclaim.
#include <gtest/gtest.h>

#include <array>
#include <map>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

constexpr uint64_t kTokensAPage = 4;

WorldConfig small(uint64_t seed = 1) {
  WorldConfig c;
  c.seed = seed;
  c.frames = 10;
  c.planes = 2;
  c.lanes = 2;
  c.pages_a_lane = 16;
  c.tokens_a_page = kTokensAPage;
  c.swap = mib(4);
  return c;
}

// What a session ought to be: one value and one content for each page.
struct Reference {
  struct Cell {
    uint64_t value = 0;
    Content content = Content::kEmpty;
    bool gone = false;
  };
  std::map<std::pair<uint32_t, uint32_t>, Cell> cells;  // plane, page
  uint64_t tokens = 0;
};

class Structured : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Structured, PagesAreWhatTheReferenceSays) {
  const uint64_t seed = GetParam();
  SCOPED_TRACE("seed " + std::to_string(seed));
  World w(small(seed));
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  Random random(seed);
  Reference ref;
  uint64_t stamp = 0;
  uint64_t recomputed = 0;
  const uint64_t capacity = s.token_capacity();
  ASSERT_EQ(capacity, 64u);

  // The engine writes every page that holds a byte of [a, b), in every plane.
  auto write_tokens = [&](uint64_t a, uint64_t b) {
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint64_t i = a / kTokensAPage; i * kTokensAPage < b; ++i) {
        const auto page = static_cast<uint32_t>(i);
        ASSERT_EQ(w.write(s, plane, page, ++stamp).access, SimAccess::kDone)
            << "plane " << plane << " page " << page;
        Reference::Cell& c = ref.cells[{plane, page}];
        c.value = stamp;
        c.content = Content::kOpen;
      }
    }
  };
  for (int op = 0; op < 1500; ++op) {
    SCOPED_TRACE("operation " + std::to_string(op));
    const uint64_t what = random.below(100);
    bool any_gone = false;
    for (auto& [key, c] : ref.cells) {
      any_gone = any_gone || c.gone;
    }
    if (what < 35) {
      const uint64_t n = 1 + random.below(6);
      if (ref.tokens + n > capacity) {
        EXPECT_EQ(w.mm->append(s, n).code(), Errc::kRange);
        continue;
      }
      bool gone = false;
      for (auto& [key, c] : ref.cells) {
        gone = gone || (c.gone && (key.second + 1) * kTokensAPage > ref.tokens);
      }
      if (gone) {
        // Pages past the end are dropped; what has tokens is computed again first.
        w.run_job([&](MmJob& j) { return w.mm->truncate(s, ref.tokens, j); });
        for (auto& [key, c] : ref.cells) {
          c = key.second * kTokensAPage >= ref.tokens ? Reference::Cell() : c;
        }
        continue;
      }
      write_tokens(ref.tokens, ref.tokens + n);
      ASSERT_TRUE(w.mm->append(s, n).ok());
      ref.tokens += n;
      // A page that was discarded and is written no more keeps what it was.
      for (auto& [key, c] : ref.cells) {
        const uint64_t end = (key.second + 1) * kTokensAPage;
        if (c.content == Content::kOpen && end <= ref.tokens && end > ref.tokens - n) {
          c.content = Content::kSealed;
        }
      }
    } else if (what < 43) {
      const uint64_t to = random.below(ref.tokens + 1);
      w.run_job([&](MmJob& j) { return w.mm->truncate(s, to, j); });
      ref.tokens = to;
      for (auto& [key, c] : ref.cells) {
        if (key.second * kTokensAPage >= to) {
          c = Reference::Cell();
        } else if ((key.second + 1) * kTokensAPage > to && c.content == Content::kSealed) {
          c.content = Content::kOpen;
        }
      }
      MmJob job;
      EXPECT_EQ(w.mm->truncate(s, to + 1, job).code(), Errc::kRange);
    } else if (what < 48 && ref.tokens != 0) {
      const uint64_t a = random.below(ref.tokens);
      const uint64_t b = a + random.below(ref.tokens - a + 1);
      w.run_job([&](MmJob& j) { return w.mm->discard_tokens(s, a, b, j); });
      for (auto& [key, c] : ref.cells) {
        if (key.second * kTokensAPage >= a && (key.second + 1) * kTokensAPage <= b) {
          c = Reference::Cell();
        }
      }
    } else if (what < 80 && !ref.cells.empty()) {
      auto it = ref.cells.begin();
      std::advance(it, static_cast<ptrdiff_t>(random.below(ref.cells.size())));
      const World::Answer a = w.read(s, it->first.first, it->first.second);
      if (it->second.gone) {
        ASSERT_EQ(a.access, SimAccess::kPoisoned);
      } else {
        ASSERT_EQ(a.access, SimAccess::kDone);
        ASSERT_EQ(a.value, it->second.value)
            << "plane " << it->first.first << " page " << it->first.second;
        if (it->second.content == Content::kEmpty) {
          it->second.content = Content::kOpen;
        }
      }
    } else if (what < 86) {
      w.mm->evict(s);
      w.settle();
    } else if (what < 92) {
      // The medium rots under one swapped page.
      for (auto& [key, c] : ref.cells) {
        Page& p = w.page(s, key.first, key.second);
        if (p.place == Place::kSwapped && random.below(6) == 0) {
          std::array<std::byte, 8> rot;
          w.disk->peek(w.slot_offset(p) + 64, rot);
          rot[0] ^= std::byte{0x10};
          w.disk->poke(w.slot_offset(p) + 64, rot);
          ASSERT_EQ(w.read(s, key.first, key.second).access, SimAccess::kPoisoned);
          c.gone = true;
          break;
        }
      }
    } else if (any_gone) {
      std::map<uint64_t, uint64_t> gone;
      w.mm->for_each_gone(s, [&](uint64_t a, uint64_t b) { gone[a] = std::max(gone[a], b); });
      for (const auto& [a, b] : gone) {
        if (a >= b) {
          continue;  // beyond the last token: nothing to compute
        }
        ASSERT_TRUE(w.mm->recompute_begin(s, a, b).ok());
        const auto page = static_cast<uint32_t>(a / kTokensAPage);
        for (uint32_t plane = 0; plane < 2; ++plane) {
          Reference::Cell& c = ref.cells[{plane, page}];
          if (c.gone) {
            c = Reference::Cell();
            ASSERT_EQ(w.read(s, plane, page).value, 0u) << "zeros, not the bad bytes";
          }
        }
        write_tokens(a, b);  // every plane: that is how tokens are computed
        ASSERT_TRUE(w.mm->recompute_end(s, a, b).ok());
        for (uint32_t plane = 0; plane < 2; ++plane) {
          if ((page + 1) * kTokensAPage <= ref.tokens) {
            ref.cells[{plane, page}].content = Content::kSealed;
          }
        }
        ++recomputed;
      }
    }
    w.check();
    ASSERT_EQ(s.tokens, ref.tokens);
    for (auto& [key, c] : ref.cells) {
      const Page& p = w.page(s, key.first, key.second);
      ASSERT_EQ(p.place == Place::kDiscarded, c.gone)
          << "plane " << key.first << " page " << key.second;
      if (!c.gone) {
        ASSERT_EQ(p.content, c.content) << "plane " << key.first << " page " << key.second;
      }
    }
  }
  EXPECT_GT(recomputed, 3u);
  EXPECT_EQ(s.stats.seal_violations.load(), 0u);
  EXPECT_GT(s.stats.clean_drops.load(), 10u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Structured, ::testing::Values(21, 22, 23, 24));

TEST(Seal, AWriteToASealedPageIsFoundAndItsBytesAreKept) {
  World w(small());
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->append(s, kTokensAPage).ok());
  ASSERT_EQ(w.page(s, 0, 0).content, Content::kSealed);
  w.mm->evict(s);
  w.settle();
  ASSERT_EQ(w.read(s, 0, 0).value, 1u);
  ASSERT_EQ(w.write(s, 0, 0, 2).access, SimAccess::kDone);  // the engine breaks its word
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.seal_violations.load(), 1u);
  EXPECT_EQ(w.mm->stats().seal_violations.load(), 1u);
  MmNotice n;
  ASSERT_TRUE(w.mm->take_notice(&n));
  EXPECT_EQ(n.kind, MmNotice::Kind::kSealViolation);
  EXPECT_EQ(n.space, s.id());
  EXPECT_EQ(w.read(s, 0, 0).value, 2u) << "the new bytes, not the old copy";
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.seal_violations.load(), 1u) << "counted once";
  EXPECT_EQ(w.read(s, 0, 0).value, 2u);
}

TEST(Seal, ATruncatedPageMayBeWrittenAgain) {
  World w(small());
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->append(s, kTokensAPage).ok());
  w.mm->evict(s);
  w.settle();
  w.run_job([&](MmJob& j) { return w.mm->truncate(s, 2, j); });
  ASSERT_EQ(w.read(s, 0, 0).value, 1u) << "its first tokens are still there";
  ASSERT_EQ(w.write(s, 0, 0, 2).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->append(s, 2).ok());
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.seal_violations.load(), 0u);
  EXPECT_EQ(w.read(s, 0, 0).value, 2u);
}

// An open page is written out, comes back, and is written to its end: nobody broke a promise.
TEST(Seal, APageThatWasOutWhileItWasOpenMaySeal) {
  World w(small());
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->append(s, 2).ok());
  w.mm->evict(s);
  w.settle();
  ASSERT_EQ(w.page(s, 0, 0).place, Place::kSwapped);
  ASSERT_EQ(w.write(s, 0, 0, 2).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->append(s, 2).ok());
  ASSERT_EQ(w.page(s, 0, 0).content, Content::kSealed);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.seal_violations.load(), 0u);
  EXPECT_EQ(w.read(s, 0, 0).value, 2u);
}

// What seals while it is in the swap area is held to its promise from then on.
TEST(Seal, AWriteIsFoundToAPageThatWasSealedInTheSwapArea) {
  World w(small());
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  ASSERT_TRUE(w.mm->append(s, kTokensAPage).ok());
  ASSERT_EQ(w.write(s, 0, 0, 2).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(s.stats.seal_violations.load(), 1u);
  EXPECT_EQ(w.read(s, 0, 0).value, 2u);
}

// Recompute of a part of a page that is gone would leave zeros in the rest.
TEST(Recompute, APageThatIsGoneIsComputedAsAWhole) {
  World w(small());
  AddressSpace& s = w.open(0, ObjectKind::kPrivate);
  for (uint32_t i = 0; i < 2; ++i) {
    ASSERT_EQ(w.write(s, 0, i, 1 + i).access, SimAccess::kDone);
    ASSERT_EQ(w.write(s, 1, i, 11 + i).access, SimAccess::kDone);
  }
  ASSERT_TRUE(w.mm->append(s, 2 * kTokensAPage - 1).ok());
  w.mm->evict(s);
  w.settle();
  const std::array<std::byte, 1> rot{std::byte{1}};
  for (uint32_t i = 0; i < 2; ++i) {
    w.disk->poke(w.slot_offset(w.page(s, 0, i)) + 7, rot);
  }
  ASSERT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
  ASSERT_EQ(w.read(s, 0, 1).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->recompute_begin(s, 0, 2).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_begin(s, 1, 7).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_begin(s, 4, 6).code(), Errc::kRange);
  EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned) << "refused: nothing has changed";
  ASSERT_TRUE(w.mm->recompute_begin(s, 4, 7).ok()) << "the session has no eighth token";
  ASSERT_EQ(w.write(s, 0, 1, 22).access, SimAccess::kDone);
  ASSERT_TRUE(w.mm->recompute_end(s, 4, 7).ok());
  EXPECT_EQ(w.page(s, 0, 1).content, Content::kOpen) << "its last token is still to come";
  EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned) << "not yet computed";
  // The other plane is whole. A part of a whole page is no part of the rule, and seals again.
  ASSERT_TRUE(w.mm->recompute_begin(s, 0, 6).ok());
  EXPECT_EQ(w.page(s, 1, 0).content, Content::kOpen);
  EXPECT_EQ(w.read(s, 1, 0).value, 11u);
  EXPECT_EQ(w.read(s, 0, 0).value, 0u);
  ASSERT_TRUE(w.mm->recompute_end(s, 0, 6).ok());
  EXPECT_EQ(w.page(s, 1, 0).content, Content::kSealed);
}

TEST(Calls, WhatMakesNoSenseIsRefused) {
  World w(small());
  AddressSpace& raw = w.open(0);
  AddressSpace& s = w.open(1, ObjectKind::kPrivate);
  MmJob job;
  EXPECT_EQ(w.mm->append(raw, 1).code(), Errc::kInvalid);
  EXPECT_EQ(w.mm->truncate(raw, 0, job).code(), Errc::kInvalid);
  EXPECT_EQ(w.mm->recompute_begin(raw, 0, 1).code(), Errc::kInvalid);
  EXPECT_EQ(w.mm->append(s, UINT64_MAX).code(), Errc::kRange);
  EXPECT_EQ(w.mm->append(s, s.token_capacity() + 1).code(), Errc::kRange);
  ASSERT_TRUE(w.mm->append(s, 8).ok());
  EXPECT_EQ(w.mm->append(s, UINT64_MAX).code(), Errc::kRange);
  EXPECT_EQ(w.mm->truncate(s, 9, job).code(), Errc::kRange);
  EXPECT_EQ(w.mm->discard_tokens(s, 4, 3, job).code(), Errc::kRange);
  EXPECT_EQ(w.mm->discard_tokens(s, 0, 9, job).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_begin(s, 4, 4).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_begin(s, 0, 9).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_end(s, 0, 9).code(), Errc::kRange);
  EXPECT_EQ(w.mm->recompute_begin(s, 0, 8).code(), Errc::kInvalid) << "nothing of it is gone";
  EXPECT_TRUE(job.done());
  EXPECT_EQ(s.tokens, 8u);
}

}  // namespace
}  // namespace kvmm::test
