// SPDX-License-Identifier: Apache-2.0
//
// Random operations on a swap area against a map from slots to what was recorded in them.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "tests/unit/tiers/memory_devices.h"
#include "tests/unit/tiers/small_areas.h"

namespace kvmm {
namespace {

class SwapAreaModel : public ::testing::TestWithParam<uint64_t> {};

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
  Bytes retired;
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
          ASSERT_EQ(s.code(), discards.empty() ? Errc::kNoSpace : Errc::kAgain);
          for (uint64_t e = 0; e < extents; ++e) {
            bool free = true;
            for (uint64_t u = e * 16; u < e * 16 + 16; ++u) {
              free = free && !unit_taken[u];
            }
            for (const Discard& d : discards) {
              free = free && (e < d.extent || e >= d.extent + d.count);
            }
            ASSERT_FALSE(free) << "extent " << e << " fits any size";
          }
          break;
        }
        mark(*s, size, true);
        held[*s].size = size;
        for (const Discard& d : discards) {
          const uint64_t e = s->unit() / 16;
          ASSERT_TRUE(e < d.extent || e >= d.extent + d.count) << "given out while discarded";
        }
        break;
      }
      case 3:
      case 4:
        if (!held.empty()) {
          const auto it = any();
          if (random(40) == 0) {  // its units are never free again
            retired += it->second.size;
            area.retire(it->first);
          } else {
            mark(it->first, it->second.size, false);
            area.free(it->first);
          }
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
    ASSERT_EQ(area.retired_bytes(), retired);
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

}  // namespace
}  // namespace kvmm
