// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_area.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "tests/unit/tiers/memory_devices.h"

namespace kvmm {
namespace {

constexpr Bytes kUnit = Bytes(512);
constexpr Bytes kExtent = kib(8);  // 16 units

SwapAreaConfig config_of(const std::string& name = "swap0", int32_t priority = 0) {
  SwapAreaConfig c;
  c.name = name;
  c.path = "/swap/" + name;
  c.priority = priority;
  c.unit = kUnit;
  c.extent = kExtent;
  c.index_buffers = 3;
  return c;
}

// Room for exactly `extents`: superblock and index take the first 8 KiB up to four extents' worth.
uint64_t capacity_for(uint64_t extents) {
  const uint64_t index = round_up(extents * 16 * 64, 4096);
  return round_up(4096 + index, kExtent.value()) + extents * kExtent.value();
}

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
  for (const uint64_t n : {0, 256, 513, 1000, 16384}) {
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
  make(2);
  const SlotId a = get(kExtent);
  const SlotId b = get(kExtent);
  area_->free(a);
  area_->free(b);
  std::array<Discard, 4> d;
  ASSERT_EQ(area_->take_discards(std::span(d).first(1)), 1U);
  EXPECT_EQ(d[0].offset, area_->superblock().geometry.data_offset) << "oldest first";
  EXPECT_EQ(d[0].length, kExtent);
  EXPECT_TRUE(area_->io_in_flight());
  EXPECT_EQ(get(kExtent), b);
  EXPECT_EQ(area_->allocate(kExtent).code(), Errc::kNoSpace);
  area_->check_invariants();
  area_->discarded(d[0]);
  EXPECT_EQ(area_->take_discards(d), 0U) << "nothing is discarded twice";
  EXPECT_EQ(get(kExtent), a);
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

// ------------------------------------------------------------------------------------- model test

class SwapAreaModel : public ::testing::TestWithParam<uint64_t> {};

// Random operations against a map from slots to what was recorded in them.
TEST_P(SwapAreaModel, SlotsNeverOverlapAndKeepTheirHeaders) {
  const uint64_t seed = GetParam();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto random = [&](uint64_t n) { return rng() % n; };
  const uint64_t extents = 1 + seed % 9;
  MemoryDisk disk(capacity_for(extents));
  auto opened = SwapArea::open(disk, config_of());
  ASSERT_TRUE(opened.ok());
  SwapArea& area = **opened;

  struct Held {
    Bytes size;
    bool recorded = false;
    PageIdentity id;
    uint64_t checksum = 0;
  };
  std::map<SlotId, Held> held;
  std::vector<bool> unit_taken(extents * 16);
  std::vector<Discard> discards;
  std::vector<IndexWrite> writes;
  const auto mark = [&](SlotId s, Bytes size, bool taken) {
    for (uint64_t u = s.unit(); u < s.unit() + size / kUnit; ++u) {
      ASSERT_NE(unit_taken.at(u), taken) << "two slots share unit " << u;
      unit_taken[u] = taken;
    }
  };
  const auto any = [&] {
    auto it = held.begin();
    std::advance(it, static_cast<ptrdiff_t>(random(held.size())));
    return it;
  };
  for (int step = 0; step < 4000; ++step) {
    switch (random(9)) {
      case 0:
      case 1:
      case 2: {
        const Bytes size(kUnit.value() << random(5));
        const auto s = area.allocate(size);
        if (!s) {
          ASSERT_EQ(s.code(), Errc::kNoSpace);
          for (uint64_t e = 0; e < extents; ++e) {
            bool free = true;
            for (uint64_t u = e * 16; u < e * 16 + 16; ++u) {
              free = free && !unit_taken[u];
            }
            for (const Discard& d : discards) {
              free = free && d.extent != e;
            }
            ASSERT_FALSE(free) << "extent " << e << " fits any size";
          }
          break;
        }
        mark(*s, size, true);
        held[*s].size = size;
        for (const Discard& d : discards) {
          ASSERT_NE(s->unit() / 16, d.extent) << "given out while it is discarded";
        }
        break;
      }
      case 3:
      case 4:
        if (!held.empty()) {
          const auto it = any();
          mark(it->first, it->second.size, false);
          area.free(it->first);
          held.erase(it);
        }
        break;
      case 5:
        if (!held.empty()) {
          const auto it = any();
          Held& h = it->second;
          h.id = PageIdentity{rng(), rng(), rng(), rng(), 1, 2};
          h.checksum = rng();
          h.recorded = true;
          area.record(it->first, h.id, h.checksum, h.size);
        }
        break;
      case 6: {
        Discard d;
        if (random(2) == 0 && area.take_discards(std::span(&d, 1)) == 1) {
          discards.push_back(d);
        } else if (!discards.empty()) {
          area.discarded(discards.back());
          discards.pop_back();
        }
        break;
      }
      case 7: {
        IndexWrite w;
        if (area.take_dirty_index(std::span(&w, 1)) == 1) {
          for (const IndexWrite& other : writes) {
            ASSERT_NE(other.sector, w.sector);
            ASSERT_NE(other.data, w.data);
          }
          writes.push_back(w);
        }
        break;
      }
      default:
        if (!writes.empty()) {
          const IndexWrite w = writes.front();
          writes.erase(writes.begin());
          const bool ok = random(4) != 0;
          if (ok) {
            std::memcpy(disk.bytes.data() + w.offset, w.data, w.length.value());
          }
          area.index_written(w, ok);
        }
    }
    area.check_invariants();
    Bytes used;
    SlotId cursor;
    for (const auto& [s, h] : held) {
      used += h.size;
      cursor = area.next_used_slot(cursor);
      ASSERT_EQ(cursor, s);
      ASSERT_EQ(area.size_of(s), h.size);
      ASSERT_EQ(area.verify(s, h.id, h.checksum).code(), h.recorded ? Errc::kOk : Errc::kStale);
    }
    ASSERT_TRUE(area.next_used_slot(cursor).none());
    ASSERT_EQ(area.used_bytes(), used);
    ASSERT_FALSE(HasFatalFailure());
  }
  // Once everything is written, the disk says what memory says.
  for (const IndexWrite& w : writes) {
    area.index_written(w, false);
  }
  IndexWrite w;
  while (area.take_dirty_index(std::span(&w, 1)) == 1) {
    std::memcpy(disk.bytes.data() + w.offset, w.data, w.length.value());
    area.index_written(w, true);
  }
  for (uint64_t u = 0; u < extents * 16; ++u) {
    SlotHeader h;
    std::memcpy(&h, disk.bytes.data() + 4096 + u * 64, 64);
    const auto it = held.find(SlotId::make(1, u));
    const bool expected = it != held.end() && it->second.recorded;
    ASSERT_EQ(check_header(h, area.superblock().header_seed(), u).code(),
              expected ? Errc::kOk : Errc::kNotFound);
    ASSERT_TRUE(!expected || h.identity == it->second.id);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SwapAreaModel, ::testing::Range<uint64_t>(1, 13));

// ------------------------------------------------------------------------------------- swap space

class SwapSpaceTest : public ::testing::Test {
 protected:
  SwapArea* add(const std::string& name, int32_t priority, uint64_t extents = 2) {
    disks_.push_back(std::make_unique<MemoryDisk>(capacity_for(extents)));
    auto a = SwapArea::open(*disks_.back(), config_of(name, priority));
    EXPECT_TRUE(a.ok());
    auto added = space_.add(std::move(*a));
    return added ? *added : nullptr;
  }
  std::vector<std::unique_ptr<MemoryDisk>> disks_;
  SwapSpace space_;
};

TEST_F(SwapSpaceTest, EmptyHasNoSpace) {
  EXPECT_TRUE(space_.empty());
  EXPECT_EQ(space_.allocate(kUnit).code(), Errc::kNoSpace);
  EXPECT_EQ(space_.find("swap0"), nullptr);
}

TEST_F(SwapSpaceTest, HigherPriorityFirstThenTheRest) {
  SwapArea* slow = add("slow", -5);
  SwapArea* fast = add("fast", 10);
  EXPECT_EQ(space_.areas()[0].get(), fast);
  EXPECT_EQ(&space_.area(*space_.allocate(kExtent)), fast);
  EXPECT_EQ(&space_.area(*space_.allocate(kExtent)), fast);
  const auto third = space_.allocate(kExtent);
  EXPECT_EQ(&space_.area(*third), slow);
  EXPECT_TRUE(space_.allocate(kExtent).ok());
  EXPECT_EQ(space_.allocate(kExtent).code(), Errc::kNoSpace);
  EXPECT_EQ(space_.allocate(Bytes(100)).code(), Errc::kInvalid);
  EXPECT_EQ(space_.used_bytes(), space_.capacity());
  space_.free(*third);
  EXPECT_EQ(slow->used_bytes(), kExtent);
}

TEST_F(SwapSpaceTest, EqualPrioritiesTakeTurns) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 1);
  SwapArea* c = add("c", 1);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(space_.allocate(kUnit).ok());
  }
  for (SwapArea* area : {a, b, c}) {
    EXPECT_EQ(area->used_bytes(), kUnit * 10) << area->config().name;
  }
  b->set_accepting(false);
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(space_.allocate(kUnit).ok());
  }
  EXPECT_EQ(b->used_bytes(), kUnit * 10);
  EXPECT_EQ(a->used_bytes() + c->used_bytes(), kUnit * 32);
}

TEST_F(SwapSpaceTest, FoundByPathOrNameAndOnce) {
  SwapArea* a = add("a", 1);
  EXPECT_EQ(space_.find("/swap/a"), a);
  EXPECT_EQ(space_.find("a"), a);
  disks_.push_back(std::make_unique<MemoryDisk>(capacity_for(2)));
  auto twin = SwapArea::open(*disks_.back(), config_of("a"));
  ASSERT_TRUE(twin.ok());
  EXPECT_EQ(space_.add(std::move(*twin)).code(), Errc::kExists);
  EXPECT_EQ(space_.areas().size(), 1U);
}

TEST_F(SwapSpaceTest, RemoveOnlyWhatIsIdle) {
  SwapArea* a = add("a", 1);
  SwapArea* b = add("b", 0);
  const auto s = space_.allocate(kExtent);
  EXPECT_EQ(space_.remove(*a).code(), Errc::kBusy);
  space_.free(*s);
  Discard d;
  ASSERT_EQ(a->take_discards(std::span(&d, 1)), 1U);
  EXPECT_EQ(space_.remove(*a).code(), Errc::kBusy);
  a->discarded(d);
  const uint8_t id = a->id();
  auto out = space_.remove(*a);
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(space_.find("a"), nullptr);
  EXPECT_EQ(space_.remove(**out).code(), Errc::kNotFound);
  EXPECT_EQ(&space_.area(*space_.allocate(kUnit)), b);
  EXPECT_EQ(add("c", 3)->id(), id) << "the number is free again";
}

TEST_F(SwapSpaceTest, TwoHundredFiftyFiveAreas) {
  for (int i = 0; i < 255; ++i) {
    SwapArea* a = add("s" + std::to_string(i), 0, 1);
    ASSERT_NE(a, nullptr);
    ASSERT_EQ(a->id(), i + 1);
  }
  EXPECT_EQ(add("one too many", 0, 1), nullptr);
  std::set<uint8_t> used;
  for (int i = 0; i < 255; ++i) {
    used.insert(space_.allocate(kUnit)->area());
  }
  EXPECT_EQ(used.size(), 255U);
}

}  // namespace
}  // namespace kvmm
