// SPDX-License-Identifier: Apache-2.0
//
// One object in two address spaces: rmap with more than one VMA. The owner may write, the reader's
// mapping is read-only. No call makes such a mapping yet, so the test makes it as sharing will.
//
//   owner  [ p0 | p1 | p2 | p3 ]   read and write --+
//                                                   +--> the object, charged to the owner
//   reader [ p0 | p1 | p2 | p3 ]   read ------------+
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "tests/model/world.h"

namespace kvmm::test {
namespace {

constexpr uint32_t kPages = 4;

class Shared : public ::testing::Test {
 protected:
  static WorldConfig config() {
    WorldConfig c;
    c.planes = 1;
    c.pages_a_lane = kPages;
    c.shareable = true;
    return c;
  }
  void SetUp() override {
    world_.mm_config.readahead_max = 0;
    world_.mm_config.resume_prefetch = 0;
    world_.mm_config.fault_around = 0;
    for (uint32_t i = 0; i < kPages; ++i) {
      ASSERT_EQ(world_.write(owner_, 0, i, 100 + i).access, SimAccess::kDone);
    }
    ASSERT_TRUE(world_.mm->append(owner_, uint64_t{kPages} * world_.config.tokens_a_page).ok());
    ASSERT_EQ(page(0).content, Content::kSealed);
    // At the addresses of a lane that nobody has.
    const LanePages lane = lane_pages(world_.arena->planes[0], 2);
    view_.start = lane.start;
    view_.page_size = world_.config.page_size;
    view_.pages = kPages;
    view_.prot = Prot::kRead;
    view_.object = owner_.planes()[0].object.get();
    view_.space = &reader_;
    auto ptes = LazyArray<Pte>::create(kPages);
    ASSERT_TRUE(ptes.ok());
    view_.ptes = std::move(*ptes);
    ASSERT_TRUE(world_.map.insert(view_));
    view_.object->vmas().push_back(view_);
  }
  void TearDown() override { drop_view(); }
  // As the reader's end would: nothing of it is mapped by then.
  void drop_view() {
    if (!viewed_) {
      return;
    }
    viewed_ = false;
    world_.mm->evict(owner_);
    world_.settle();
    view_.object->vmas().erase(view_.object->vmas().iterator_to(view_));
    world_.map.erase(view_);
  }

  Page& page(uint32_t i) { return world_.page(owner_, 0, i); }
  SimAccess try_view(uint32_t i, uint32_t thread, uint64_t* value = nullptr) {
    std::array<std::byte, 8> bytes{};
    const VirtAddr at = view_.address_of(i) + Bytes(view_.page_size.value() / 2);
    const SimAccess a = world_.mmu->read(at, bytes, thread);
    if (value != nullptr) {
      std::memcpy(value, bytes.data(), 8);
    }
    return a;
  }
  uint64_t read_view(uint32_t i) {
    uint64_t value = UINT64_MAX;
    for (int tries = 0; tries < 10 && try_view(i, 2, &value) == SimAccess::kFault; ++tries) {
      world_.settle();
    }
    return value;
  }
  bool mapped_by_owner(uint32_t i) {
    return world_.mmu->page_is_mapped(owner_.planes()[0].vma->address_of(i));
  }
  bool mapped_by_reader(uint32_t i) { return world_.mmu->page_is_mapped(view_.address_of(i)); }

  World world_{config()};
  AddressSpace& owner_ = world_.open(0, ObjectKind::kPrivate);
  AddressSpace& reader_ = world_.open(1);
  Vma view_;
  bool viewed_ = true;
};

TEST_F(Shared, BothMapOneFrame) {
  EXPECT_EQ(read_view(1), 101u);
  EXPECT_TRUE(mapped_by_owner(1) && mapped_by_reader(1));
  EXPECT_EQ(world_.read(owner_, 0, 1).value, 101u);
  EXPECT_EQ(world_.mmu->stats().maps, kPages + 1u);
  std::array<std::byte, 8> bytes{};
  EXPECT_EQ(world_.mmu->write(view_.address_of(1), bytes, 2), SimAccess::kDenied);
  world_.check();
}

TEST_F(Shared, BothAreUnmappedBeforeThePageIsWritten) {
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(read_view(i), 100 + i);
  }
  world_.mm->evict(owner_);
  world_.settle();  // a checksum or a write of a frame that is mapped writable stops the process
  for (uint32_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(page(i).place, Place::kSwapped);
    EXPECT_FALSE(mapped_by_owner(i) || mapped_by_reader(i));
    EXPECT_FALSE(view_.pte_of(i).has(Pte::kPresent));
  }
  EXPECT_EQ(world_.mmu->violations(), 0u);
  world_.check();
}

TEST_F(Shared, OnePageInServesBothWaiters) {
  EXPECT_EQ(read_view(2), 102u);
  world_.mm->evict(owner_);
  world_.settle();
  const uint64_t before = world_.mm->stats().swap_in_bytes.load();
  EXPECT_FALSE(world_.start_read(owner_, 0, 2, 1));
  EXPECT_EQ(try_view(2, 2), SimAccess::kFault);
  world_.settle();
  EXPECT_EQ(world_.mmu->waiters(), 0u);
  EXPECT_EQ(world_.mm->stats().swap_in_bytes.load() - before, world_.config.page_size.value());
  EXPECT_TRUE(mapped_by_owner(2) && mapped_by_reader(2));
  EXPECT_EQ(read_view(2), 102u);
  EXPECT_EQ(world_.read(owner_, 0, 2).value, 102u);
  // Each with the protection of its own mapping, although both came at once.
  std::array<std::byte, 8> bytes{};
  EXPECT_EQ(world_.mmu->write(view_.address_of(2), bytes, 2), SimAccess::kDenied);
  world_.check();
}

TEST_F(Shared, ALostPageIsAnErrorInBoth) {
  EXPECT_EQ(read_view(3), 103u);
  world_.mm->evict(owner_);
  world_.settle();
  std::array<std::byte, 1> flipped{std::byte{1}};
  world_.disk->poke(world_.slot_offset(page(3)) + 100, flipped);
  EXPECT_FALSE(world_.start_read(owner_, 0, 3, 1));
  EXPECT_EQ(try_view(3, 2), SimAccess::kFault);
  world_.settle();
  EXPECT_EQ(world_.mmu->waiters(), 0u);
  EXPECT_EQ(world_.read(owner_, 0, 3).access, SimAccess::kPoisoned);
  EXPECT_EQ(try_view(3, 2), SimAccess::kPoisoned);
  EXPECT_EQ(world_.mm->stats().wrong_pages.load(), 1u);
  EXPECT_EQ(world_.mm->stats().poisoned.load(), 2u);
  world_.check();
}

TEST_F(Shared, TheOtherOneStaysWhenOneGoes) {
  EXPECT_EQ(read_view(0), 100u);
  drop_view();
  world_.close(reader_);
  EXPECT_EQ(world_.read(owner_, 0, 0).value, 100u);
  EXPECT_TRUE(mapped_by_owner(0));
  world_.check();
}

}  // namespace
}  // namespace kvmm::test
