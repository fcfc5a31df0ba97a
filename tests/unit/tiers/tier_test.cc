// SPDX-License-Identifier: Apache-2.0
#include "tiers/tier.h"

#include <gtest/gtest.h>

#include "tests/unit/tiers/memory_devices.h"

namespace kvmm {
namespace {

MemoryNode node_of(const std::string& name, const std::string& bus, uint16_t node, Bytes capacity,
                   bool has_cpus = true) {
  MemoryNode n;
  n.info.name = name;
  n.info.bus = bus;
  n.info.node = NodeId(node);
  n.info.capacity = capacity;
  n.has_cpus = has_cpus;
  n.accelerator = bus == "gpu";
  return n;
}

std::vector<std::string> names(std::span<const TierDescription> tiers) {
  std::vector<std::string> out;
  for (const TierDescription& t : tiers) {
    out.push_back(t.name);
  }
  return out;
}

TierDescription description(const std::string& name, uint32_t rank, uint16_t node, MmuOps* mmu) {
  TierDescription d;
  d.name = name;
  d.rank = rank;
  d.node = NodeId(node);
  d.capacity = mib(8) + Bytes(4096);
  d.mmu = mmu;
  return d;
}

TEST(DescribeTiers, OneNode) {
  const std::array nodes = {node_of("node0", "numa", 0, gib(4))};
  const auto tiers = describe_tiers(nodes);
  ASSERT_EQ(tiers.size(), 1U);
  EXPECT_EQ(tiers[0].name, "dram");
  EXPECT_EQ(tiers[0].device, "node0");
  EXPECT_EQ(tiers[0].capacity, gib(4));
  EXPECT_TRUE(tiers[0].comes_zeroed);
}

TEST(DescribeTiers, NodesWithoutCpusAreSlowerAndGpusFaster) {
  const std::array nodes = {
      node_of("node2", "numa", 2, gib(64), false), node_of("node0", "numa", 0, gib(8)),
      node_of("node1", "numa", 1, gib(8)),         node_of("gpu0", "gpu", 1, gib(80)),
      node_of("node3", "numa", 3, Bytes(0)),  // no memory
  };
  const auto tiers = describe_tiers(nodes);
  EXPECT_EQ(names(tiers), (std::vector<std::string>{"hbm", "dram0", "dram1", "slow"}));
  EXPECT_LT(tiers[0].rank, tiers[1].rank);
  EXPECT_EQ(tiers[1].rank, tiers[2].rank);
  EXPECT_LT(tiers[2].rank, tiers[3].rank);
  EXPECT_EQ(tiers[0].page_size_min, kPageSizeMax);
  EXPECT_FALSE(tiers[0].comes_zeroed);
}

TEST(DescribeTiers, SeveralGpusAreNamedApartAndDisksLeftOut) {
  std::vector<MemoryNode> nodes = {node_of("gpu0", "gpu", 0, gib(80)),
                                   node_of("gpu1", "gpu", 0, gib(80)),
                                   node_of("swap0", "file", 0, gib(80))};
  nodes[2].info.cls = DeviceClass::kBlock;
  EXPECT_EQ(names(describe_tiers(nodes)), (std::vector<std::string>{"hbm-gpu0", "hbm-gpu1"}));
}

TEST(TierTable, DemotionGoesDownAndStaysNear) {
  AddressMmu mmu;
  const std::array d = {description("hbm0", 0, 0, &mmu), description("hbm1", 0, 1, &mmu),
                        description("dram0", 1, 0, &mmu), description("dram1", 1, 1, &mmu),
                        description("slow2", 2, 2, &mmu)};
  auto made = TierTable::create(d);
  ASSERT_TRUE(made.ok()) << made.error().message();
  TierTable& t = **made;
  ASSERT_EQ(t.size(), 5U);
  const auto order = [&](uint16_t from) {
    std::string text;
    for (const TierId id : t.tier(TierId(from)).demotes_to()) {
      text += t.tier(id).name() + " ";
    }
    return text;
  };
  EXPECT_EQ(order(0), "hbm1 dram0 dram1 slow2 ");
  EXPECT_EQ(order(1), "hbm0 dram1 dram0 slow2 ") << "the GPU's own node first";
  EXPECT_EQ(order(2), "dram1 slow2 ");
  EXPECT_EQ(order(3), "dram0 slow2 ");
  EXPECT_EQ(order(4), "");
  EXPECT_EQ(&t.fastest(), t.find("hbm0"));
  EXPECT_EQ(t.find("nvme"), nullptr);
  EXPECT_EQ(t.find("dram1")->pool().capacity(), mib(8)) << "whole blocks";
  Frame* f = t.find("dram1")->pool().allocate(kPageSizeMin, true, 1);
  EXPECT_EQ(&t.pool_of(*f), &t.find("dram1")->pool());
}

TEST(TierTable, RefusesWhatCannotBe) {
  AddressMmu mmu;
  const auto refused = [&](auto change) {
    std::vector<TierDescription> d = {description("a", 0, 0, &mmu), description("b", 1, 0, &mmu)};
    change(d);
    const auto t = TierTable::create(d);
    EXPECT_EQ(mmu.areas, 0) << "what was made before the error is given back";
    return t.code();
  };
  EXPECT_EQ(refused([](auto& d) { d.clear(); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) { d[1].name = "a"; }), Errc::kExists);
  EXPECT_EQ(refused([](auto& d) { d[1].name = ""; }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) { d[1].mmu = nullptr; }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) { d[0].rank = 2; }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) { d[1].capacity = mib(1); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) { d[1].block_size = Bytes(0); }), Errc::kInvalid);
  EXPECT_EQ(refused([](auto& d) {
              d[1].watermarks = Watermarks{mib(2), mib(1), mib(3)};
            }),
            Errc::kInvalid);
  mmu.fail = Errc::kLimit;
  std::vector<TierDescription> d = {description("a", 0, 0, &mmu)};
  const auto t = TierTable::create(d);
  EXPECT_EQ(t.code(), Errc::kLimit);
  EXPECT_NE(t.error().detail.find("tier a"), std::string::npos);
}

TEST(Tier, WatermarksFollowThePool) {
  AddressMmu mmu;
  std::vector<TierDescription> d = {description("a", 0, 0, &mmu)};
  d[0].watermarks = Watermarks{mib(2), mib(4), mib(6)};
  auto made = TierTable::create(d);
  ASSERT_TRUE(made.ok());
  Tier& tier = (*made)->fastest();
  EXPECT_TRUE(tier.above_high());
  FramePool& pool = tier.pool();
  (void)pool.allocate(kPageSizeMax, true, 1);
  EXPECT_TRUE(tier.above_high());
  (void)pool.allocate(kPageSizeMax, true, 1);
  EXPECT_FALSE(tier.above_high());
  EXPECT_FALSE(tier.below_low());
  (void)pool.allocate(kPageSizeMax, true, 1);
  EXPECT_TRUE(tier.below_low());
  EXPECT_FALSE(tier.below_min());
  (void)pool.allocate(kPageSizeMin, true, 1);
  EXPECT_TRUE(tier.below_min());
  EXPECT_EQ(tier.set_watermarks(Watermarks{mib(1), mib(2), mib(9)}).code(), Errc::kInvalid);
  EXPECT_EQ(tier.watermarks().high, mib(6)) << "the old ones stay";
  ASSERT_TRUE(tier.set_watermarks(Watermarks{Bytes(0), Bytes(0), mib(1)}).ok());
  EXPECT_TRUE(tier.above_high());
}

}  // namespace
}  // namespace kvmm
