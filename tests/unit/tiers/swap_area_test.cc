// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_area.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/unit/tiers/memory_devices.h"
#include "tests/unit/tiers/small_areas.h"

namespace kvmm {
namespace {

class SwapAreaTest : public ::testing::Test {
 protected:
  void make(uint64_t extents) {
    disk_ = std::make_unique<MemoryDisk>(capacity_for(extents));
    auto a = SwapArea::open(*disk_, config_of());
    ASSERT_TRUE(a.ok()) << a.error().message();
    area_ = std::move(*a);
    ASSERT_EQ(area_->capacity(), kExtent * extents);
  }
  SlotId get(Bytes size) {
    auto s = area_->allocate(size);
    return s ? *s : SlotId();
  }
  void TearDown() override {
    if (area_) {
      area_->check_invariants();
    }
  }
  // Writes all dirty index sectors to the disk. Returns how many.
  int write_index() {
    int n = 0;
    IndexWrite w;
    while (area_->take_dirty_index(std::span(&w, 1)) == 1) {
      std::memcpy(disk_->bytes.data() + w.offset, w.data, w.length.value());
      area_->index_written(w, true);
      ++n;
    }
    return n;
  }
  SlotHeader on_disk(SlotId s) const {
    SlotHeader h;
    std::memcpy(&h, disk_->bytes.data() + 4096 + s.unit() * 64, 64);
    return h;
  }
  std::unique_ptr<MemoryDisk> disk_;
  std::unique_ptr<SwapArea> area_;
  const PageIdentity id_{11, 12, 13, 14, 15, 16};
};

TEST(SlotId, PacksAreaAndUnit) {
  const SlotId s = SlotId::make(255, (uint64_t{1} << 56) - 1);
  EXPECT_EQ(s.area(), 255U);
  EXPECT_EQ(s.unit(), (uint64_t{1} << 56) - 1);
  EXPECT_TRUE(SlotId().none());
  EXPECT_FALSE(SlotId::make(1, 0).none());
}

TEST_F(SwapAreaTest, SlotsFillExtentsInOrder) {
  make(2);
  const SlotId a = get(kib(1));
  const SlotId b = get(kib(1));
  const SlotId c = get(kib(8));
  const uint64_t data = area_->superblock().geometry.data_offset;
  EXPECT_EQ(area_->offset_of(a).value(), data);
  EXPECT_EQ(area_->offset_of(b).value(), data + 1024);
  EXPECT_EQ(area_->offset_of(c).value(), data + 8192);
  EXPECT_EQ(area_->size_of(b), kib(1));
  EXPECT_EQ(area_->used_bytes(), kib(10));
  const SlotClassStats s = area_->class_stats(kib(1));
  EXPECT_EQ(s.extents, 1U);
  EXPECT_EQ(s.used, 2U);
  EXPECT_EQ(s.free, 6U);
  EXPECT_EQ(get(kUnit), SlotId()) << "no extent is left for another size";
  EXPECT_FALSE(get(kib(1)).none());
}

TEST_F(SwapAreaTest, SizesOutsideTheClassesAreInvalid) {
  make(2);
  for (const uint64_t n : {0U, 256U, 513U, 1000U, 16384U}) {
    EXPECT_EQ(area_->allocate(Bytes(n)).code(), Errc::kInvalid) << n;
  }
  EXPECT_EQ(area_->class_stats(Bytes(1000)).used, 0U);
}

TEST_F(SwapAreaTest, FullAndDrainingAreNoSpace) {
  make(3);
  std::vector<SlotId> all;
  for (SlotId s = get(kUnit); !s.none(); s = get(kUnit)) {
    all.push_back(s);
  }
  EXPECT_EQ(all.size(), 48U);
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kNoSpace);
  EXPECT_EQ(area_->stats().full, 2U);
  EXPECT_EQ(area_->used_bytes(), area_->capacity());
  area_->free(all[20]);
  area_->set_accepting(false);
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kNoSpace);
  area_->set_accepting(true);
  EXPECT_EQ(get(kUnit), all[20]);
}

TEST_F(SwapAreaTest, DeviceFullUntilAWrittenSlotIsFreed) {
  make(3);
  const SlotId written = get(kUnit);
  area_->record(written, id_, 1, kUnit);
  const SlotId failed = get(kUnit);
  area_->note_no_space();
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kNoSpace);
  area_->free(failed);
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kNoSpace) << "its place was never on the disk";
  area_->free(written);
  EXPECT_EQ(get(kUnit), written);
  area_->note_no_space();
  area_->set_accepting(true);
  EXPECT_TRUE(area_->allocate(kUnit).ok());
}

TEST_F(SwapAreaTest, RecordAndVerify) {
  make(2);
  const SlotId s = get(kib(2));
  EXPECT_EQ(area_->verify(s, id_, 99).code(), Errc::kStale) << "nothing is recorded yet";
  area_->record(s, id_, 99, Bytes(1500));
  EXPECT_TRUE(area_->verify(s, id_, 99).ok());
  const SlotHeader& h = area_->header(s);
  EXPECT_EQ(h.stored_bytes, 1500U);
  EXPECT_EQ(h.page_shift, 11);
  EXPECT_EQ(h.identity, id_);
  const auto with = [&](auto change, uint64_t checksum = 99) {
    PageIdentity other = id_;
    change(other);
    return area_->verify(s, other, checksum).code();
  };
  EXPECT_EQ(with([](auto& i) { ++i.model; }), Errc::kModelMismatch);
  EXPECT_EQ(with([](auto& i) { ++i.layout; }), Errc::kModelMismatch);
  EXPECT_EQ(with([](auto& i) { ++i.owner; }), Errc::kStale);
  EXPECT_EQ(with([](auto& i) { ++i.object; }), Errc::kStale);
  EXPECT_EQ(with([](auto& i) { ++i.page; }), Errc::kStale);
  EXPECT_EQ(with([](auto& i) { ++i.generation; }), Errc::kStale);
  EXPECT_EQ(with([](auto&) {}, 98), Errc::kCorrupt);
  EXPECT_EQ(area_->stats().wrong_model, 2U);
  EXPECT_EQ(area_->stats().stale, 5U);
  EXPECT_EQ(area_->stats().corrupt, 1U);
  const_cast<SlotHeader&>(h).identity.page ^= 1;  // memory that rots
  EXPECT_EQ(area_->verify(s, id_, 99).code(), Errc::kCorrupt);
}

TEST_F(SwapAreaTest, FreedSlotForgetsItsPage) {
  make(2);
  const SlotId s = get(kUnit);
  area_->record(s, id_, 99, kUnit);
  area_->free(s);
  EXPECT_FALSE(area_->is_used(s));
  const SlotId again = get(kUnit);
  ASSERT_EQ(again, s);
  EXPECT_EQ(area_->verify(s, id_, 99).code(), Errc::kStale);
}

TEST_F(SwapAreaTest, IndexReachesTheDisk) {
  make(2);
  EXPECT_TRUE(area_->index_clean());
  const SlotId a = get(kUnit);
  const SlotId b = get(kExtent);
  area_->record(a, id_, 99, kUnit);
  area_->record(b, PageIdentity{1, 2, 3, 4, 5, 6}, 77, kExtent);
  EXPECT_FALSE(area_->index_clean());
  EXPECT_EQ(write_index(), 1) << "both headers are in one sector";
  EXPECT_TRUE(area_->index_clean());
  const uint64_t seed = area_->superblock().header_seed();
  EXPECT_TRUE(check_header(on_disk(a), seed, a.unit()).ok());
  EXPECT_EQ(on_disk(b).identity.object, 4U);
  area_->free(a);
  EXPECT_EQ(write_index(), 1);
  EXPECT_EQ(check_header(on_disk(a), seed, a.unit()).code(), Errc::kNotFound);
  // What the next opening finds is of an older epoch.
  area_.reset();
  auto reopened = SwapArea::open(*disk_, config_of());
  ASSERT_TRUE(reopened.ok());
  const uint64_t seed2 = (*reopened)->superblock().header_seed();
  EXPECT_EQ(check_header(on_disk(b), seed2, b.unit()).code(), Errc::kCorrupt);
}

TEST_F(SwapAreaTest, SectorInFlightIsWrittenAgainAfterwards) {
  make(2);
  const SlotId a = get(kUnit);
  const SlotId b = get(kUnit);
  area_->record(a, id_, 1, kUnit);
  std::array<IndexWrite, 4> w;
  ASSERT_EQ(area_->take_dirty_index(w), 1U);
  EXPECT_EQ(w[0].offset, 4096U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w[0].data) % 4096, 0U);
  std::array<std::byte, 4096> taken;
  std::memcpy(taken.data(), w[0].data, 4096);
  area_->record(b, id_, 2, kUnit);
  EXPECT_EQ(std::memcmp(taken.data(), w[0].data, 4096), 0) << "what is in flight stays put";
  std::array<IndexWrite, 4> none;
  EXPECT_EQ(area_->take_dirty_index(none), 0U) << "one write of a sector at a time";
  area_->index_written(w[0], true);
  EXPECT_FALSE(area_->index_clean());
  ASSERT_EQ(area_->take_dirty_index(w), 1U);
  area_->index_written(w[0], false);
  EXPECT_FALSE(area_->index_clean()) << "the write failed";
  EXPECT_EQ(write_index(), 1);
  EXPECT_EQ(on_disk(b).checksum, 2U);
}

TEST_F(SwapAreaTest, IndexBuffersAreTheLimit) {
  make(40);  // ten sectors of headers
  std::vector<SlotId> slots;
  for (int i = 0; i < 40; ++i) {
    slots.push_back(get(kExtent));
    area_->record(slots.back(), id_, 5, kExtent);
  }
  std::array<IndexWrite, 16> w;
  ASSERT_EQ(area_->take_dirty_index(w), 3U);
  EXPECT_EQ(area_->take_dirty_index(std::span(w).subspan(3)), 0U);
  std::set<uint64_t> offsets;
  for (int i = 0; i < 3; ++i) {
    offsets.insert(w[static_cast<size_t>(i)].offset);
    area_->index_written(w[static_cast<size_t>(i)], true);
  }
  EXPECT_EQ(offsets, (std::set<uint64_t>{4096, 8192, 12288})) << "first dirty, first written";
  EXPECT_EQ(write_index(), 7);
}

TEST_F(SwapAreaTest, DiscardedExtentsAreHeldBack) {
  make(3);
  const SlotId a = get(kExtent);
  const SlotId b = get(kExtent);
  const SlotId c = get(kExtent);
  area_->free(a);
  area_->free(c);
  std::array<Discard, 4> d;
  ASSERT_EQ(area_->take_discards(std::span(d).first(1)), 1U);
  EXPECT_EQ(d[0].offset, area_->superblock().geometry.data_offset) << "oldest first";
  EXPECT_EQ(d[0].length, kExtent);
  EXPECT_TRUE(area_->io_in_flight());
  EXPECT_EQ(get(kExtent), c);
  EXPECT_EQ(area_->allocate(kExtent).code(), Errc::kAgain) << "it comes back in a moment";
  EXPECT_TRUE(area_->room_coming());
  EXPECT_EQ(area_->grown_bytes(), kExtent * 3);
  area_->check_invariants();
  area_->discarded(d[0]);
  EXPECT_EQ(area_->grown_bytes(), kExtent * 2);
  EXPECT_EQ(area_->take_discards(d), 0U) << "nothing is discarded twice";
  EXPECT_EQ(get(kExtent), a);
  EXPECT_EQ(area_->grown_bytes(), kExtent * 3);
  area_->free(b);
}

TEST_F(SwapAreaTest, NeighboursAreDiscardedInOneRequest) {
  make(6);
  std::vector<SlotId> slots;
  for (int i = 0; i < 6; ++i) {
    slots.push_back(get(kExtent));
  }
  for (const size_t i : {4U, 2U, 3U, 0U}) {
    area_->free(slots[i]);
  }
  std::array<Discard, 4> d;
  ASSERT_EQ(area_->take_discards(d), 2U);
  EXPECT_EQ(d[0].extent, 2U) << "the oldest, with its neighbours";
  EXPECT_EQ(d[0].count, 3U);
  EXPECT_EQ(d[0].length, kExtent * 3);
  EXPECT_EQ(d[1].extent, 0U);
  EXPECT_EQ(d[1].count, 1U);
  area_->check_invariants();
  area_->discarded(d[1]);
  area_->discarded(d[0], Errc::kNotSupported);
  EXPECT_FALSE(area_->discards()) << "it learns";
  EXPECT_EQ(area_->stats().discarded_bytes, kExtent.value());
}

TEST_F(SwapAreaTest, DiscardCanBeSwitchedOff) {
  make(2);
  area_->free(get(kExtent));
  std::array<Discard, 4> d;
  area_->set_discard(false);
  EXPECT_FALSE(area_->has_discards());
  EXPECT_EQ(area_->take_discards(d), 0U);
  area_->set_discard(true);
  EXPECT_EQ(area_->take_discards(d), 1U);
  area_->discarded(d[0]);
}

TEST_F(SwapAreaTest, ARetiredSlotIsNeverGivenOutAgain) {
  make(2);
  std::vector<SlotId> all;
  for (SlotId s = get(kib(2)); !s.none(); s = get(kib(2))) {
    all.push_back(s);
  }
  ASSERT_EQ(all.size(), 8U);
  area_->record(all[1], id_, 99, kib(2));
  area_->retire(all[1]);
  EXPECT_FALSE(area_->is_used(all[1]));
  EXPECT_EQ(area_->retired_bytes(), kib(2));
  EXPECT_EQ(area_->used_bytes(), kib(14));
  EXPECT_EQ(area_->class_stats(kib(2)).retired, 1U);
  EXPECT_EQ(area_->next_used_slot(all[0]), all[2]);
  area_->check_invariants();
  for (const SlotId s : all) {
    if (s != all[1]) {
      area_->free(s);
    }
  }
  area_->check_invariants();
  // Its extent keeps its class, the other one fits any size.
  EXPECT_FALSE(get(kExtent).none());
  EXPECT_TRUE(get(kExtent).none());
  std::set<SlotId> again;
  for (SlotId s = get(kib(2)); !s.none(); s = get(kib(2))) {
    EXPECT_NE(s, all[1]);
    again.insert(s);
  }
  EXPECT_EQ(again.size(), 3U);
  area_->retire(*again.begin());
  EXPECT_EQ(area_->retired_bytes(), kib(4));
  EXPECT_EQ(area_->free_bytes(), Bytes(0));
}

// ---- growth

class SwapGrowth : public SwapAreaTest {
 protected:
  void open(uint64_t extents) {
    disk_ = std::make_unique<MemoryDisk>(0);
    disk_->grows = true;
    disk_->grows_to = Bytes(capacity_for(extents));
    SwapAreaConfig c = config_of();
    c.size = disk_->grows_to;
    auto a = SwapArea::open(*disk_, c);
    ASSERT_TRUE(a.ok()) << a.error().message();
    area_ = std::move(*a);
  }
};

TEST_F(SwapGrowth, AnAreaBeginsSmallAndTakesPlaceBeforeItIsNeeded) {
  open(16);
  EXPECT_EQ(area_->capacity(), kExtent * 16) << "what it may grow to";
  EXPECT_EQ(area_->grown_bytes(), Bytes(0));
  EXPECT_EQ(disk_->bytes.size(), area_->superblock().geometry.data_offset);
  EXPECT_EQ(area_->free_bytes(), kExtent * 16);
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kAgain);
  Growth g;
  ASSERT_TRUE(area_->take_growth(Tick(0), &g));
  EXPECT_EQ(g.offset, disk_->bytes.size());
  EXPECT_EQ(g.length, kExtent * 4);
  EXPECT_FALSE(area_->take_growth(Tick(0), &g)) << "one at a time";
  EXPECT_TRUE(area_->io_in_flight());
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kAgain);
  area_->grew(g, Errc::kOk, Tick(0));
  EXPECT_EQ(area_->grown_bytes(), kExtent * 4);
  EXPECT_FALSE(area_->take_growth(Tick(0), &g)) << "there is enough";
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(get(kExtent).none());
  }
  ASSERT_TRUE(area_->take_growth(Tick(0), &g)) << "little is left";
  area_->check_invariants();
  area_->grew(g, Errc::kOk, Tick(0));
  EXPECT_EQ(area_->grown_bytes(), kExtent * 8);
}

TEST_F(SwapGrowth, AFullDiskIsAskedForLessAndThenLeftInPeace) {
  open(16);
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kAgain);
  Growth g;
  for (const uint32_t count : {4U, 2U, 1U}) {
    ASSERT_TRUE(area_->take_growth(millis(5), &g)) << count;
    EXPECT_EQ(g.count, count);
    area_->grew(g, Errc::kNoSpace, millis(5));
  }
  EXPECT_FALSE(area_->take_growth(millis(6), &g));
  EXPECT_EQ(area_->allocate(kUnit).code(), Errc::kNoSpace) << "nobody waits for it";
  EXPECT_EQ(area_->free_bytes(), Bytes(0));
  EXPECT_EQ(area_->growth_due(), millis(1005));
  ASSERT_TRUE(area_->take_growth(millis(1005), &g)) << "somebody may have made room";
  EXPECT_EQ(g.count, 1U);
  area_->grew(g, Errc::kOk, millis(1006));
  EXPECT_FALSE(get(kExtent).none());
  area_->check_invariants();
}

TEST_F(SwapGrowth, ItEndsAtItsSize) {
  open(5);
  Growth g;
  std::vector<SlotId> all;
  for (int i = 0; i < 20; ++i) {
    const SlotId s = get(kExtent);
    if (!s.none()) {
      all.push_back(s);
    }
    if (area_->take_growth(Tick(0), &g)) {
      area_->grew(g, Errc::kOk, Tick(0));
    }
  }
  EXPECT_EQ(all.size(), 5U);
  EXPECT_EQ(area_->grown_bytes(), area_->capacity());
  EXPECT_EQ(area_->allocate(kExtent).code(), Errc::kNoSpace);
  EXPECT_EQ(area_->growth_due(), Tick(0));
}

TEST_F(SwapAreaTest, NoDiscardsForDevicesWithout) {
  disk_ = std::make_unique<MemoryDisk>(capacity_for(2));
  disk_->discards = false;
  auto a = SwapArea::open(*disk_, config_of());
  ASSERT_TRUE(a.ok());
  area_ = std::move(*a);
  area_->free(get(kExtent));
  std::array<Discard, 4> d;
  EXPECT_EQ(area_->take_discards(d), 0U);
}

TEST_F(SwapAreaTest, DrainVisitsEverySlotAndMayFreeIt) {
  make(5);
  std::set<SlotId> held;
  for (int i = 0; i < 20; ++i) {
    held.insert(get(kUnit));
    if (i % 4 == 0) {
      held.insert(get(kib(2)));
    }
  }
  held.insert(get(kExtent));
  std::set<SlotId> seen;
  area_->for_each_used_slot([&](SlotId s) {
    EXPECT_TRUE(seen.insert(s).second);
    area_->free(s);
  });
  EXPECT_EQ(seen, held);
  EXPECT_EQ(area_->used_bytes(), Bytes(0));
  EXPECT_TRUE(area_->next_used_slot().none());
}

using SwapAreaDeathTest = SwapAreaTest;

TEST_F(SwapAreaDeathTest, MisuseStops) {
  make(2);
  const SlotId s = get(kib(1));
  EXPECT_DEATH(area_->free(SlotId::make(2, s.unit())), "used slot");
  EXPECT_DEATH(area_->free(SlotId::make(1, s.unit() + 1)), "used slot");
  EXPECT_DEATH(area_->free(SlotId::make(1, 999999)), "used slot");
  EXPECT_DEATH(area_->record(s, id_, 1, Bytes(0)), "fit their slot");
  EXPECT_DEATH(area_->record(s, id_, 1, Bytes(1025)), "fit their slot");
  EXPECT_DEATH(area_->index_written(IndexWrite{}, true), "was taken");
  EXPECT_DEATH(area_->discarded(Discard{}), "was taken");
  area_->free(s);
  EXPECT_DEATH(area_->free(s), "used slot");
  EXPECT_DEATH((void)area_->offset_of(s), "used slot");
}

}  // namespace
}  // namespace kvmm
