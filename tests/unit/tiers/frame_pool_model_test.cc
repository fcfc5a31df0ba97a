// SPDX-License-Identifier: Apache-2.0
//
// Random operations on a frame pool against a table of who holds each unit and whose bytes are in
// it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "tests/unit/tiers/memory_devices.h"
#include "tiers/frame_pool.h"

namespace kvmm {
namespace {

// Blocks of 4 KiB with pages from 256 bytes: 16 to a block.
constexpr Bytes kBlock = Bytes(4096);
constexpr Bytes kSmall = Bytes(256);

FramePoolConfig config_of(uint64_t blocks, bool comes_zeroed) {
  FramePoolConfig c;
  c.block_size = kBlock;
  c.page_size_min = kSmall;
  c.capacity = kBlock * blocks;
  c.comes_zeroed = comes_zeroed;
  return c;
}

// What the test believes about every unit of 256 bytes: who has it, and whose bytes are in it.
struct Unit {
  bool held = false;
  std::set<uint32_t> bytes_of;  // empty: zeros
};

class PoolModel {
 public:
  PoolModel(FramePool& pool, uint64_t blocks, uint64_t seed) : pool_(pool), rng_(seed) {
    units_.resize(blocks * 16);
  }

  void step() {
    switch (random(8)) {
      case 0:
      case 1:
      case 2:
        return allocate();
      case 3:
      case 4:
        return free_one();
      case 5:
        return take(random(4) == 0);
      case 6:
        return finish_one();
      default:
        return (random(40) == 0) ? free_all() : allocate();
    }
  }
  void free_all() {
    while (!held_.empty()) {
      free_one();
    }
    while (!working_.empty()) {
      finish_one();
    }
  }

 private:
  uint32_t random(uint32_t n) { return static_cast<uint32_t>(rng_() % n); }
  std::span<Unit> units(const Frame& f) {
    return std::span(units_).subspan((f.addr.value() - (uint64_t{1} << 40)) / 256,
                                     f.size() / kSmall);
  }
  uint64_t held_units() const {
    return static_cast<uint64_t>(
        std::count_if(units_.begin(), units_.end(), [](const Unit& u) { return u.held; }));
  }
  bool any_block_free() const {
    for (size_t b = 0; b < units_.size(); b += 16) {
      if (std::none_of(units_.begin() + static_cast<ptrdiff_t>(b),
                       units_.begin() + static_cast<ptrdiff_t>(b + 16),
                       [](const Unit& u) { return u.held; })) {
        return true;
      }
    }
    return false;
  }
  void hold(Frame& f) {
    for (Unit& u : units(f)) {
      ASSERT_FALSE(u.held) << "two holders of one frame";
      u.held = true;
    }
  }
  void release(Frame& f) {
    for (Unit& u : units(f)) {
      u.held = false;
    }
  }

  void allocate() {
    const Bytes size(uint64_t{256} << random(5));
    const bool want_zeroed = random(2) == 0;
    const uint32_t tenant = 1 + random(20);  // more than there are buckets
    Frame* f = pool_.allocate(size, want_zeroed, tenant);
    if (f == nullptr) {
      ASSERT_FALSE(want_zeroed && any_block_free()) << "a free block fits every size";
      return;
    }
    ASSERT_EQ(f->size(), size);
    ASSERT_EQ(f->addr.value() % size.value(), 0U);
    hold(*f);
    for (Unit& u : units(*f)) {
      if (f->zeroed) {
        ASSERT_TRUE(u.bytes_of.empty()) << "zeroed, it says";
      } else if (!want_zeroed) {
        u.bytes_of.erase(tenant);
        ASSERT_TRUE(u.bytes_of.empty()) << "bytes of another tenant";
      }
    }
    if (want_zeroed && !f->zeroed) {
      if (random(8) == 0) {  // cancelled before it was scrubbed
        release(*f);
        pool_.free(*f, false);
        return;
      }
      for (Unit& u : units(*f)) {
        u.bytes_of.clear();
      }
      pool_.scrubbed(*f, tenant);
    }
    held_.emplace_back(f, tenant);
  }
  void free_one() {
    if (held_.empty()) {
      return;
    }
    std::swap(held_[random(static_cast<uint32_t>(held_.size()))], held_.back());
    const auto [f, tenant] = held_.back();
    held_.pop_back();
    bool zeros = true;
    if (random(4) != 0) {
      for (Unit& u : units(*f)) {
        u.bytes_of.insert(tenant);
      }
    }
    for (Unit& u : units(*f)) {
      zeros = zeros && u.bytes_of.empty();
    }
    release(*f);
    pool_.free(*f, zeros);
  }
  void take(bool rebuild) {
    Frame* f =
        rebuild ? pool_.take_to_rebuild() : pool_.take_to_zero(Bytes(uint64_t{256} << random(5)));
    if (f != nullptr) {
      hold(*f);
      working_.push_back(f);
    }
  }
  void finish_one() {
    if (working_.empty()) {
      return;
    }
    std::swap(working_[random(static_cast<uint32_t>(working_.size()))], working_.back());
    Frame* f = working_.back();
    working_.pop_back();
    const bool ok = random(5) != 0;
    release(*f);
    for (Unit& u : units(*f)) {
      if (ok) {
        u.bytes_of.clear();
      }
    }
    pool_.put_back(*f, ok);
  }

 public:
  void compare() {
    pool_.check_invariants();
    ASSERT_EQ(pool_.used_bytes().value() + pool_.working_bytes().value(), held_units() * 256);
    ASSERT_EQ(pool_.free_bytes() + pool_.used_bytes(), pool_.capacity());
  }

 private:
  FramePool& pool_;
  std::mt19937_64 rng_;
  std::vector<Unit> units_;
  std::vector<std::pair<Frame*, uint32_t>> held_;
  std::vector<Frame*> working_;
};

class FramePoolModel : public ::testing::TestWithParam<uint64_t> {};

TEST_P(FramePoolModel, NoFrameTwiceAndNoBytesOfOthers) {
  const uint64_t seed = GetParam();
  SCOPED_TRACE("seed " + std::to_string(seed));
  AddressMmu mmu;
  const uint64_t blocks = 1 + seed % 7;
  auto pool = FramePool::create(mmu, config_of(blocks, seed % 2 == 0));
  ASSERT_TRUE(pool.ok());
  PoolModel model(**pool, blocks, seed);
  for (int i = 0; i < 4000; ++i) {
    model.step();
    model.compare();
    if (::testing::Test::HasFatalFailure()) {
      FAIL() << "at step " << i;
    }
  }
  model.free_all();
  model.compare();
  EXPECT_EQ((*pool)->free_blocks(), blocks) << "everything coalesced";
}

INSTANTIATE_TEST_SUITE_P(Seeds, FramePoolModel, ::testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace kvmm
