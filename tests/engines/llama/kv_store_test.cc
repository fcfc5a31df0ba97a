// SPDX-License-Identifier: Apache-2.0
#include "tools/engines/llama/kv_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace kvmm::llama {
namespace {

TensorShape shape(const std::string& name, std::uint64_t lanes, std::uint64_t tokens,
                  std::uint64_t token_bytes) {
  return {name, lanes * tokens * token_bytes, lanes, tokens * token_bytes, tokens, token_bytes, 1};
}

TEST(PlanePageSize, DividesTheStride) {
  EXPECT_EQ(plane_page_size(0, 16 << 20), 2u << 20);
  EXPECT_EQ(plane_page_size(0, 512 << 10), 512u << 10);
  EXPECT_EQ(plane_page_size(64 << 10, 512 << 10), 64u << 10);
  EXPECT_EQ(plane_page_size(64 << 10, 272 * 1024), 16u << 10);  // q8_0, 1,024 tokens
  EXPECT_EQ(plane_page_size(0, 272 * 256), 4u << 10);
  EXPECT_EQ(plane_page_size(0, 100), 4u << 10) << "no page is smaller";
}

TEST(IsKvList, WantsCacheTensorsWithTheSameLanes) {
  EXPECT_TRUE(is_kv_list({shape("cache_k_l0", 4, 256, 512), shape("cache_v_l0", 4, 256, 512)}));
  EXPECT_FALSE(is_kv_list({}));
  EXPECT_FALSE(is_kv_list({shape("blk.0.weight", 4, 256, 512)}));
  EXPECT_FALSE(is_kv_list({shape("cache_k_l0", 4, 256, 512), shape("cache_v_l0", 2, 256, 512)}));
  TensorShape padded = shape("cache_k_l0", 4, 256, 512);
  padded.bytes += 1;
  EXPECT_FALSE(is_kv_list({padded}));
  padded = shape("cache_k_l0", 4, 256, 512);
  padded.lanes = 0;
  EXPECT_FALSE(is_kv_list({padded}));
}

// A runtime with 16 MiB and no swap; skipped where kvmm cannot run.
class KvStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    kvmm_runtime_options options{};
    options.size = sizeof(options);
    options.name = "kv-store-test";
    options.dram_bytes = 16 << 20;
    options.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_VOLATILE;
    const kvmm_status status = kvmm_runtime_open(&options, &runtime_);
    if (status == KVMM_EPERMISSION || status == KVMM_ENOTSUPPORTED) {
      GTEST_SKIP() << kvmm_last_error();
    }
    ASSERT_EQ(status, KVMM_OK) << kvmm_last_error();
  }
  void TearDown() override {
    if (runtime_ != nullptr) {
      EXPECT_EQ(kvmm_runtime_close(runtime_), KVMM_OK) << kvmm_last_error();
    }
  }
  std::unique_ptr<Allocation> allocate(KvStore& store, const std::vector<TensorShape>& shapes) {
    std::unique_ptr<Allocation> allocation;
    EXPECT_EQ(store.allocate(shapes, &allocation), KVMM_OK) << store.error();
    return allocation;
  }

  kvmm_runtime* runtime_ = nullptr;
};

TEST_F(KvStoreTest, TwoListsOfAModelShareSessions) {
  KvStore store(runtime_, Config{});
  auto full =
      allocate(store, {shape("cache_k_l5", 3, 4096, 512), shape("cache_v_l5", 3, 4096, 512)});
  auto ring = allocate(store, {shape("cache_k_l0", 3, 1024, 512)});
  ASSERT_NE(full, nullptr);
  ASSERT_NE(ring, nullptr);
  EXPECT_EQ(full->arena, ring->arena);
  EXPECT_EQ(store.live(), 2u);
  for (std::uint32_t slot = 0; slot < 3; ++slot) {
    EXPECT_NE(KvStore::session_id(*full, slot), 0u);
    EXPECT_EQ(KvStore::session_id(*full, slot), KvStore::session_id(*ring, slot));
  }
  EXPECT_EQ(KvStore::session_id(*full, 3), 0u);
  for (const auto& list : {full.get(), ring.get()}) {
    for (const Placement& placement : list->placements) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(placement.address) % (2u << 20), 0u);
    }
  }
  EXPECT_EQ(store.release(std::move(full)), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(store.release(std::move(ring)), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(store.live(), 0u);
}

TEST_F(KvStoreTest, ASecondModelGetsAnArenaOfItsOwn) {
  Config config;
  config.model_id.emplace();
  KvStore store(runtime_, config);
  auto first = allocate(store, {shape("cache_k_l0", 2, 1024, 512)});
  auto second = allocate(store, {shape("cache_k_l0", 2, 1024, 512)});
  auto other_lanes = allocate(store, {shape("cache_k_l1", 4, 1024, 512)});
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  ASSERT_NE(other_lanes, nullptr);
  EXPECT_NE(first->arena, second->arena);
  EXPECT_NE(second->arena, other_lanes->arena);
  for (auto* list : {&first, &second, &other_lanes}) {
    EXPECT_EQ(store.release(std::move(*list)), KVMM_OK) << kvmm_last_error();
  }
}

TEST_F(KvStoreTest, BytesStayAndClearMakesZeros) {
  KvStore store(runtime_, Config{});
  auto list =
      allocate(store, {shape("cache_k_l0", 2, 1024, 512), shape("cache_v_l0", 2, 1024, 512)});
  ASSERT_NE(list, nullptr);
  std::byte* k = list->placements[0].address;
  std::byte* v = list->placements[1].address;
  EXPECT_EQ(k[700000], std::byte{0}) << "never written is zero";
  std::memset(k, 1, list->placements[0].shape.bytes);
  std::memset(v, 2, list->placements[1].shape.bytes);
  EXPECT_EQ(k[700000], std::byte{1});
  ASSERT_EQ(KvStore::clear(*list, k + 1000, 5000), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(k[999], std::byte{1});
  EXPECT_EQ(k[1000], std::byte{0});
  EXPECT_EQ(k[5999], std::byte{0});
  EXPECT_EQ(k[6000], std::byte{1});
  ASSERT_EQ(KvStore::clear(*list, list->base, list->length), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(k[6000], std::byte{0});
  EXPECT_EQ(v[100], std::byte{0});
  EXPECT_EQ(store.release(std::move(list)), KVMM_OK) << kvmm_last_error();
}

// What llama.cpp does first of all with the whole cache, and again when all chats are forgotten.
TEST_F(KvStoreTest, ClearingCostsNoMemoryAndNoFault) {
  KvStore store(runtime_, Config{});
  auto list = allocate(store, {shape("cache_k_l0", 2, 1024, 512)});
  ASSERT_NE(list, nullptr);
  const auto number = [&](const char* path) {
    std::array<char, 64> text{};
    EXPECT_EQ(kvmm_attr_get(runtime_, path, text.data(), text.size()), KVMM_OK)
        << kvmm_last_error();
    return std::string(text.data());
  };
  const auto faults = [&] {
    std::array<char, 8192> text{};
    EXPECT_EQ(kvmm_attr_get(runtime_, "vmstat", text.data(), text.size()), KVMM_OK)
        << kvmm_last_error();
    const std::string all(text.data());
    const std::size_t at = all.find("faults_zero ");
    EXPECT_NE(at, std::string::npos);
    return all.substr(at, all.find('\n', at) - at);
  };
  EXPECT_EQ(faults(), "faults_zero 0");
  ASSERT_EQ(KvStore::clear(*list, list->base, list->length), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(faults(), "faults_zero 0") << "nothing was there, nothing was touched";
  EXPECT_EQ(number("tiers/dram/used"), "0");
  std::memset(list->placements[0].address, 1, list->placements[0].shape.bytes);
  EXPECT_NE(number("tiers/dram/used"), "0");
  const std::string before = faults();
  EXPECT_NE(before, "faults_zero 0");
  ASSERT_EQ(KvStore::clear(*list, list->base, list->length), KVMM_OK) << kvmm_last_error();
  EXPECT_EQ(number("tiers/dram/used"), "0") << "cleared pages are given up, not written with zeros";
  EXPECT_EQ(faults(), before);
  EXPECT_EQ(store.release(std::move(list)), KVMM_OK) << kvmm_last_error();
}

TEST_F(KvStoreTest, AStrideThatIsNoPageMultipleKeepsLanesApart) {
  KvStore store(runtime_, Config{});
  auto list = allocate(store, {shape("cache_k_l0", 3, 256, 34)});  // 8,704 bytes a lane
  ASSERT_NE(list, nullptr);
  std::byte* base = list->placements[0].address;
  for (int lane = 0; lane < 3; ++lane) {
    std::memset(base + lane * 8704, lane + 1, 8704);
  }
  for (int lane = 0; lane < 3; ++lane) {
    EXPECT_EQ(base[lane * 8704], std::byte(lane + 1));
    EXPECT_EQ(base[lane * 8704 + 8703], std::byte(lane + 1));
  }
  EXPECT_EQ(store.release(std::move(list)), KVMM_OK) << kvmm_last_error();
}

TEST_F(KvStoreTest, AnImpossibleListSaysWhyAndLeavesNothing) {
  KvStore store(runtime_, Config{});
  TensorShape wrong = shape("cache_k_l0", 2, 1024, 512);
  wrong.token_stride = wrong.lane_stride + 1;  // a token larger than its lane
  std::unique_ptr<Allocation> list;
  EXPECT_EQ(store.allocate({wrong}, &list), KVMM_EINVALID);
  EXPECT_EQ(list, nullptr);
  EXPECT_NE(store.error(), "");
  EXPECT_EQ(store.live(), 0u);
  auto good = allocate(store, {shape("cache_k_l0", 2, 1024, 512)});
  ASSERT_NE(good, nullptr);
  EXPECT_EQ(store.release(std::move(good)), KVMM_OK) << kvmm_last_error();
}

}  // namespace
}  // namespace kvmm::llama
