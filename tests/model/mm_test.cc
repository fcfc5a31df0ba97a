// SPDX-License-Identifier: Apache-2.0
//
// The memory manager against a naive reference: random operations, the oracle knows every value,
// all invariants after each step.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <tuple>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

using Key = std::tuple<uint64_t, uint32_t, uint32_t>;  // session, plane, page

struct ModelCase {
  const char* name;
  WorldConfig config;
};

WorldConfig with(uint64_t seed, auto&& change) {
  WorldConfig c;
  c.seed = seed;
  change(c);
  return c;
}

// Two sockets, memory behind a link, and persistent memory.
void four_nodes(WorldConfig& c) {
  c.tiers = {{"dram0", 0, 0, 14}, {"dram1", 0, 1, 14}, {"slow2", 1, 2, 14}, {"slow3", 2, 3, 14}};
  c.distances.set(NodeId(0), NodeId(1), 21);
  c.distances.set(NodeId(1), NodeId(0), 21);
  c.asynchronous_data = true;
  c.lanes = 3;
  c.pages_a_lane = 12;
}

// Somebody's advice, or a thread that runs elsewhere now.
void move_about(World& w, AddressSpace& s, Random& random) {
  constexpr std::array kAdvice = {Advice::kNormal, Advice::kRunning, Advice::kIdle};
  w.mm->advise(s, kAdvice.at(random.below(kAdvice.size())));
  w.mm->called_from(s, NodeId(static_cast<uint16_t>(random.below(2))));
  const auto row = w.mm->zones().row_of(NodeId(static_cast<uint16_t>(random.below(2))));
  w.mm->threads().learnt(1, row, w.clock.now());
}

class Model : public ::testing::TestWithParam<ModelCase> {};

TEST_P(Model, EveryValueReadIsTheLastWritten) {
  const WorldConfig config = GetParam().config;
  RecordProperty("seed", static_cast<int>(config.seed));
  SCOPED_TRACE("seed " + std::to_string(config.seed));
  World w(config);
  Random random(config.seed);
  std::map<Key, uint64_t> reference;  // absent: zeros
  std::vector<AddressSpace*> open;
  uint64_t stamp = 1;
  for (const auto& tier : w.tiers->tiers()) {
    if (w.tiers->size() > 2) {
      ASSERT_TRUE(tier->set_watermarks({kib(4), kib(12), kib(20)}).ok());
      w.mm_config.hint_wait_us = 5'000;
    }
  }
  for (int op = 0; op < 6000; ++op) {
    const uint64_t what = random.below(100);
    if (open.empty() || (what < 3 && open.size() < config.lanes)) {
      uint32_t lane = 0;
      while (
          std::any_of(open.begin(), open.end(), [&](auto* s) { return s->spec().lane == lane; })) {
        ++lane;
      }
      open.push_back(&w.open(lane));
      continue;
    }
    AddressSpace& s = *open[random.below(open.size())];
    const auto plane = static_cast<uint32_t>(random.below(config.planes));
    const auto page = static_cast<uint32_t>(random.below(config.pages_a_lane));
    const Key key{s.id(), plane, page};
    if (what < 45) {
      ASSERT_EQ(w.write(s, plane, page, ++stamp).access, SimAccess::kDone);
      reference[key] = stamp;
    } else if (what < 80) {
      const World::Answer a = w.read(s, plane, page);
      ASSERT_EQ(a.access, SimAccess::kDone);
      const auto it = reference.find(key);
      ASSERT_EQ(a.value, it == reference.end() ? 0 : it->second)
          << "op " << op << " session " << s.id() << " plane " << plane << " page " << page;
    } else if (what < 86) {
      w.mm->evict(s);
      w.step();
    } else if (what < 90) {
      w.mm->prefetch(s, 0, UINT64_MAX, w.clock.now());
      w.step();
    } else if (what < 93) {
      w.run_job([&](MmJob& j) {
        w.mm->clean(s, j);
        return Result<void>();
      });
    } else if (what < 95) {
      Vma& v = *s.planes()[plane].vma;
      w.run_job([&](MmJob& j) { return w.mm->clear_range({v.start, v.page_size * v.pages}, j); });
      for (uint32_t i = 0; i < v.pages; ++i) {
        reference.erase({s.id(), plane, i});
      }
    } else if (what < 96) {
      const uint64_t id = s.id();
      std::erase(open, &s);
      w.close(s);
      std::erase_if(reference, [&](const auto& e) { return std::get<0>(e.first) == id; });
    } else if (what < 98) {
      w.settle();
    } else {
      w.clock.advance(millis(random.below(400)));
      w.step();
      move_about(w, s, random);
    }
    w.check();
  }
  w.settle();
  w.check();
  EXPECT_EQ(w.mmu->waiters(), 0u);
  EXPECT_EQ(w.mmu->violations(), 0u);
  EXPECT_GT(w.mm->stats().faults_major.load(), 100u);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 0u);
  EXPECT_EQ(w.mm->stats().poisoned.load(), 0u);
  EXPECT_EQ(w.mm->stats().migrate_failed.load(), 0u);
  if (w.tiers->size() > 2) {
    EXPECT_GT(w.mm->stats().pages_demoted.load(), 100u);
    EXPECT_GT(w.mm->stats().pages_promoted.load(), 20u);
    EXPECT_GT(w.mm->stats().migrate_cancelled.load(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Worlds, Model,
    ::testing::Values(
        ModelCase{"small", with(11, [](WorldConfig&) {})},
        ModelCase{"tight", with(12, [](WorldConfig& c) { c.frames = 3; })},
        ModelCase{"pieces", with(13,
                                 [](WorldConfig& c) {
                                   c.page_size = kib(128);
                                   c.frames = 6;
                                   c.swap = mib(128);
                                 })},
        ModelCase{"asynchronous", with(14, [](WorldConfig& c) { c.asynchronous_mmu = true; })},
        ModelCase{"two_sizes", with(15,
                                    [](WorldConfig& c) {
                                      c.page_size_2 = kib(32);
                                      c.frames = 40;
                                      c.swap = mib(64);
                                    })},
        ModelCase{"two_sizes_asynchronous", with(16,
                                                 [](WorldConfig& c) {
                                                   c.page_size_2 = kib(16);
                                                   c.frames = 20;
                                                   c.asynchronous_mmu = true;
                                                   c.swap = mib(64);
                                                 })},
        ModelCase{"two_tiers", with(18, [](WorldConfig& c) { c.two_tiers = true; })},
        ModelCase{"four_tiers", with(19, four_nodes)},
        ModelCase{"four_tiers_asynchronous", with(20,
                                                  [](WorldConfig& c) {
                                                    four_nodes(c);
                                                    c.asynchronous_mmu = true;
                                                  })},
        ModelCase{"four_tiers_two_sizes", with(21,
                                               [](WorldConfig& c) {
                                                 four_nodes(c);
                                                 c.page_size_2 = kib(16);
                                                 for (WorldTier& one : c.tiers) {
                                                   one.frames *= 4;
                                                 }
                                                 c.swap = mib(64);
                                               })},
        ModelCase{"fixed_frames", with(17, [](WorldConfig& c) { c.fixed_frames = true; })}),
    [](const auto& i) { return i.param.name; });

// ---- what fails is never mapped

TEST(Integrity, AFlippedBitEndsInAnErrorNotInBytes) {
  World w(WorldConfig{});
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 3, 77).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  Page& p = w.page(s, 0, 3);
  ASSERT_EQ(p.place, Place::kSwapped);
  std::array<std::byte, 1> flipped{std::byte{1}};
  w.disk->poke(w.slot_offset(p) + 100, flipped);
  EXPECT_EQ(w.read(s, 0, 3).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 1u);
  EXPECT_EQ(s.stats.wrong_pages.load(), 1u);
  MmNotice n;
  ASSERT_TRUE(w.mm->take_notice(&n));
  EXPECT_EQ(n.kind, MmNotice::Kind::kWrongPage);
  EXPECT_EQ(n.space, s.id());
  EXPECT_EQ(n.page, 3u);
  w.check();
}

TEST(Integrity, TheIntactPageOfAnotherSessionIsWrongToo) {
  World w(WorldConfig{});
  AddressSpace& a = w.open(0);
  AddressSpace& b = w.open(1);
  ASSERT_EQ(w.write(a, 0, 0, 1).access, SimAccess::kDone);
  ASSERT_EQ(w.write(b, 0, 0, 2).access, SimAccess::kDone);
  w.mm->evict(a);
  w.mm->evict(b);
  w.settle();
  std::vector<std::byte> bytes(4096);
  w.disk->peek(w.slot_offset(w.page(b, 0, 0)), bytes);
  w.disk->poke(w.slot_offset(w.page(a, 0, 0)), bytes);
  EXPECT_EQ(w.read(a, 0, 0).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.read(b, 0, 0).value, 2u);
}

TEST(Integrity, AnOlderGenerationIsWrongToo) {
  World w(WorldConfig{});
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  std::vector<std::byte> old(4096);
  w.disk->peek(w.slot_offset(w.page(s, 0, 0)), old);
  ASSERT_EQ(w.write(s, 0, 0, 2).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  w.disk->poke(w.slot_offset(w.page(s, 0, 0)), old);  // as if the second write had been lost
  EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
}

// Bytes that are equal tell pages apart no more: their identities do.
Errc code_of_the_only_notice(World& w) {
  MmNotice n;
  return w.mm->take_notice(&n) && n.kind == MmNotice::Kind::kWrongPage ? n.code : Errc::kOk;
}

TEST(Integrity, EqualBytesOfAnotherSessionAreWrongByTheChecksumAlone) {
  World w(WorldConfig{});
  AddressSpace& a = w.open(0);
  AddressSpace& b = w.open(1);
  for (AddressSpace* s : {&a, &b}) {
    ASSERT_EQ(w.write(*s, 0, 0, 7).access, SimAccess::kDone);
    w.mm->evict(*s);
  }
  w.settle();
  // As if the table of pages had taken one for the other: slot and expected checksum.
  std::swap(w.page(a, 0, 0).slot, w.page(b, 0, 0).slot);
  std::swap(w.page(a, 0, 0).checksum, w.page(b, 0, 0).checksum);
  EXPECT_EQ(w.read(a, 0, 0).access, SimAccess::kPoisoned);
  EXPECT_EQ(code_of_the_only_notice(w), Errc::kCorrupt) << "before the slot's header is asked";
  EXPECT_EQ(w.read(b, 0, 0).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 2u);
}

TEST(Integrity, TheSlotOfAnotherPageWithEqualBytesIsStale) {
  World w(WorldConfig{});
  AddressSpace& s = w.open(0);
  for (const uint32_t page : {3u, 4u}) {
    ASSERT_EQ(w.write(s, 0, page, 7).access, SimAccess::kDone);
  }
  w.mm->evict(s);
  w.settle();
  std::swap(w.page(s, 0, 3).slot, w.page(s, 0, 4).slot);
  EXPECT_EQ(w.read(s, 0, 3).access, SimAccess::kPoisoned);
  EXPECT_EQ(code_of_the_only_notice(w), Errc::kStale);
}

TEST(Integrity, AHeaderThatDoesNotNameThePageIsAnError) {
  struct Case {
    const char* what;
    void (*spoil)(PageIdentity& id, uint64_t& checksum);
    Errc expected;
  };
  for (const Case& c : {
           Case{"model", [](PageIdentity&i, uint64_t&) { ++i.model; }, Errc::kModelMismatch},
           Case{"layout", [](PageIdentity&i, uint64_t&) { ++i.layout; }, Errc::kModelMismatch},
           Case{"owner", [](PageIdentity&i, uint64_t&) { ++i.owner; }, Errc::kStale},
           Case{"generation", [](PageIdentity&i, uint64_t&) { ++i.generation; }, Errc::kStale},
           Case{"checksum", [](PageIdentity&, uint64_t&sum) { ++sum; }, Errc::kCorrupt},
       }) {
    SCOPED_TRACE(c.what);
    World w(WorldConfig{});
    AddressSpace& s = w.open(0);
    ASSERT_EQ(w.write(s, 0, 0, 7).access, SimAccess::kDone);
    w.mm->evict(s);
    w.settle();
    Page& p = w.page(s, 0, 0);
    PageIdentity id = p.object->identity_of(p);
    uint64_t sum = p.checksum;
    c.spoil(id, sum);
    w.swap.area(SlotId(p.slot)).record(SlotId(p.slot), id, sum, w.config.page_size);
    EXPECT_EQ(w.read(s, 0, 0).access, SimAccess::kPoisoned);
    EXPECT_EQ(code_of_the_only_notice(w), c.expected);
    EXPECT_EQ(w.mm->stats().wrong_pages.load(), 1u);
    w.check();
  }
}

TEST(Integrity, HowAReadIsCutDoesNotChangeTheChecksum) {
  WorldConfig c;
  c.page_size = kib(512);
  c.swap = mib(64);
  World w(c);
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 0, 7).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  w.mm_config.io_chunk = kib(64).value();
  EXPECT_EQ(w.read(s, 0, 0).value, 7u);
  EXPECT_EQ(w.mm->stats().wrong_pages.load(), 0u);
}

TEST(Clean, AnUnchangedPageIsDroppedWithoutAWrite) {
  World w(WorldConfig{});
  AddressSpace& s = w.open(0);
  ASSERT_EQ(w.write(s, 0, 0, 1).access, SimAccess::kDone);
  w.mm->evict(s);
  w.settle();
  const uint64_t written = w.mm->stats().swap_out_bytes.load();
  EXPECT_EQ(w.read(s, 0, 0).value, 1u);
  w.mm->evict(s);
  w.settle();
  EXPECT_EQ(w.mm->stats().swap_out_bytes.load(), written);
  EXPECT_EQ(w.mm->stats().clean_drops.load(), 1u);
}

TEST(Memory, WithoutSwapATouchTooManyIsAnErrorNotAHang) {
  WorldConfig c;
  c.swap = Bytes(0);
  c.frames = 4;
  World w(c);
  AddressSpace& s = w.open(0);
  for (uint32_t i = 0; i < 4; ++i) {
    ASSERT_EQ(w.write(s, 0, i, i + 1).access, SimAccess::kDone);
  }
  EXPECT_EQ(w.write(s, 0, 9, 9).access, SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->stats().no_memory.load(), 1u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, i + 1);
  }
  w.check();
}

TEST(Memory, FullSwapKeepsPagesAndAnswers) {
  WorldConfig c;
  c.swap = mib(4);
  c.frames = 8;
  c.planes = 1;
  c.pages_a_lane = 2048;
  World w(c);
  AddressSpace& s = w.open(0);
  uint32_t written = 0;
  while (w.write(s, 0, written, written + 1).access == SimAccess::kDone) {
    ASSERT_LT(++written, 2000u);
  }
  EXPECT_GT(written, 100u);
  EXPECT_GT(w.mm->stats().swap_full.load(), 0u);
  for (uint32_t i = 0; i < written; ++i) {
    const World::Answer a = w.read(s, 0, i);
    if (a.access == SimAccess::kDone) {
      ASSERT_EQ(a.value, i + 1);
    }
  }
  w.check();
}

TEST(Stray, ATouchOutsideEverySessionIsAnError) {
  World w(WorldConfig{});
  w.open(0);
  std::array<std::byte, 8> bytes{};
  const VirtAddr nobody = w.arena->planes[0].base + w.arena->planes[0].lane_stride * 3;
  EXPECT_EQ(w.mmu->read(nobody, bytes, 7), SimAccess::kFault);
  w.settle();
  EXPECT_EQ(w.mmu->read(nobody, bytes, 7), SimAccess::kPoisoned);
  EXPECT_EQ(w.mm->stats().faults_stray.load(), 1u);
  MmNotice said;
  ASSERT_TRUE(w.mm->take_notice(&said));
  EXPECT_EQ(said.kind, MmNotice::Kind::kStrayTouch);
  EXPECT_EQ(said.va, nobody.value());
  EXPECT_FALSE(w.mm->take_notice(&said)) << "once";
}

TEST(Running, AResidentRunningSessionLosesNoPageToIdleOnes) {
  WorldConfig c;
  c.frames = 40;
  c.lanes = 8;
  c.planes = 1;
  World w(c);
  AddressSpace& running = w.open(0);
  for (uint32_t i = 0; i < 16; ++i) {
    ASSERT_EQ(w.write(running, 0, i, 100 + i).access, SimAccess::kDone);
  }
  std::vector<AddressSpace*> idle;
  for (uint32_t n = 1; n < 8; ++n) {
    idle.push_back(&w.open(n));
  }
  const uint64_t majors = running.stats.faults_major.load();
  for (int round = 0; round < 40; ++round) {
    // The idle ones come one after another; the running one decodes every 25 ms all the while.
    AddressSpace& s = *idle[static_cast<size_t>(round) % idle.size()];
    for (uint32_t i = 0; i < 12; ++i) {
      ASSERT_EQ(w.write(s, 0, i, i).access, SimAccess::kDone);
    }
    for (int token = 0; token < 12; ++token) {
      w.clock.advance(millis(25));
      for (uint32_t i = 0; i < 16; ++i) {
        ASSERT_EQ(w.read(running, 0, i).value, 100 + i);
      }
      w.step();
    }
  }
  EXPECT_EQ(running.stats.faults_major.load(), majors) << "pages of the running session were taken";
  EXPECT_EQ(running.stats.swap_in_bytes.load(), 0u);
  EXPECT_GT(w.mm->stats().reclaimed.load(), 50u);
}

// All others have had faults since the last one of the session that runs: it has none, because it
// is in memory. What it has is the probe that it touches.
TEST(Running, AResidentRunningSessionLosesNoPageToBusierOnes) {
  WorldConfig c;
  c.frames = 40;
  c.lanes = 6;
  c.planes = 1;
  World w(c);
  AddressSpace& running = w.open(0);
  for (uint32_t i = 0; i < 16; ++i) {
    ASSERT_EQ(w.write(running, 0, i, 100 + i).access, SimAccess::kDone);
  }
  std::vector<AddressSpace*> others;
  for (uint32_t n = 1; n < 6; ++n) {
    others.push_back(&w.open(n));
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_EQ(w.write(*others.back(), 0, i, i).access, SimAccess::kDone);
    }
  }
  auto decode = [&] {
    for (uint32_t i = 0; i < 16; ++i) {
      ASSERT_EQ(w.read(running, 0, i).value, 100 + i);
    }
    w.step();
  };
  for (int i = 0; i < 100 && w.mm->stats().probes_hit.load() == 0; ++i) {
    w.clock.advance(millis(10));
    w.step();
    decode();
  }
  ASSERT_GT(w.mm->stats().probes_hit.load(), 0u);
  const uint64_t majors = running.stats.faults_major.load();
  for (int round = 0; round < 200; ++round) {
    AddressSpace& s = *others[static_cast<size_t>(round) % others.size()];
    for (uint32_t i = 0; i < 12; ++i) {
      w.clock.advance(millis(3));
      ASSERT_EQ(w.write(s, 0, i, i).access, SimAccess::kDone);
    }
    decode();
  }
  EXPECT_EQ(running.stats.faults_major.load(), majors) << "pages of the running session were taken";
  EXPECT_GT(w.mm->stats().reclaimed.load(), 500u);
  w.check();
}

}  // namespace
}  // namespace kvmm::test
