// SPDX-License-Identifier: Apache-2.0
#include "runtime/tier_plan.h"

#include <gtest/gtest.h>

#include <map>

namespace kvmm {
namespace {

DeviceInfo node(uint16_t number, Bytes capacity, bool has_cpus = true) {
  DeviceInfo d;
  d.name = "node" + std::to_string(number);
  d.bus = "numa";
  d.node = NodeId(number);
  d.capacity = capacity;
  d.has_cpus = has_cpus;
  return d;
}

DeviceInfo gpu() {
  DeviceInfo d = node(0, gib(80));
  d.name = "gpu0";
  d.bus = "cuda";
  return d;
}

using Sizes = std::map<std::string, Bytes>;

Sizes sizes(const Result<std::vector<TierDescription>>& plan) {
  Sizes out;
  EXPECT_TRUE(plan.ok()) << plan.error().message();
  for (const TierDescription& d : *plan) {
    out[d.name] = d.capacity;
  }
  return out;
}

TEST(TierPlan, OneNodeIsDram) {
  const std::array devices = {node(0, gib(64)), gpu()};
  EXPECT_EQ(sizes(plan_tiers(devices, mib(31), mib(2), {}, false)), (Sizes{{"dram", mib(32)}}));
  EXPECT_EQ(sizes(plan_tiers(devices, Bytes(0), mib(2), {}, false)), (Sizes{{"dram", gib(1)}}));
  const std::array small = {node(0, gib(2))};
  EXPECT_EQ(sizes(plan_tiers(small, Bytes(0), mib(2), {}, false)), (Sizes{{"dram", mib(512)}}));
}

TEST(TierPlan, NodesWithCpusShareAndOthersWaitToBeNamed) {
  const std::array devices = {node(0, gib(64)), node(1, gib(64)), node(2, gib(512), false)};
  auto plan = plan_tiers(devices, mib(64), mib(2), {}, false);
  EXPECT_EQ(sizes(plan), (Sizes{{"dram0", mib(32)}, {"dram1", mib(32)}}));
  EXPECT_EQ((*plan)[1].node, NodeId(1));

  const std::array lines = {TierCapacity{"tiers/slow/capacity", "a.conf:1", mib(128)}};
  plan = plan_tiers(devices, mib(64), mib(2), lines, false);
  EXPECT_EQ(sizes(plan), (Sizes{{"dram0", mib(32)}, {"dram1", mib(32)}, {"slow", mib(128)}}));
  EXPECT_GT((*plan)[2].rank, (*plan)[1].rank) << "fastest first";
}

TEST(TierPlan, LinesDecideUnlessTheProgramDoes) {
  const std::array devices = {node(0, gib(64)), node(1, gib(64))};
  const std::array lines = {TierCapacity{"tiers/dram1/capacity", "a.conf:1", mib(128)}};
  EXPECT_EQ(sizes(plan_tiers(devices, Bytes(0), mib(2), lines, false)),
            (Sizes{{"dram1", mib(128)}}));
  EXPECT_EQ(sizes(plan_tiers(devices, mib(8), mib(2), lines, false)),
            (Sizes{{"dram0", mib(4)}, {"dram1", mib(4)}}));
}

TEST(TierPlan, FramesOfNoNodeMakeOneTier) {
  const std::array devices = {node(0, gib(64)), node(1, gib(64))};
  EXPECT_EQ(sizes(plan_tiers(devices, mib(64), mib(2), {}, true)), (Sizes{{"dram0", mib(64)}}));
}

TEST(TierPlan, WhatCannotBeIsSaid) {
  const std::array devices = {node(0, gib(64)), node(1, gib(64), false)};
  std::array lines = {TierCapacity{"tiers/dram0/capacity", "a.conf:7", mib(8)}};
  auto plan = plan_tiers(devices, Bytes(0), mib(2), lines, false);
  EXPECT_EQ(plan.code(), Errc::kNotFound);
  EXPECT_EQ(plan.error().detail,
            "a.conf:7: there is no tiers/dram0/capacity; the tiers of this machine: dram, slow");
  lines[0].path = "tiers/dram/capacity";
  lines[0].capacity = Bytes(0);
  EXPECT_EQ(plan_tiers(devices, Bytes(0), mib(2), lines, false).code(), Errc::kInvalid);
  const std::array none = {node(0, Bytes(0)), gpu()};
  EXPECT_EQ(plan_tiers(none, mib(8), mib(2), {}, false).code(), Errc::kNotSupported);
}

}  // namespace
}  // namespace kvmm
