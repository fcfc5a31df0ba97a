// SPDX-License-Identifier: Apache-2.0
//
// Machines of one, two and eight nodes, with memory that has no CPUs and without, from files that
// hwloc exports: their tiers, the order of each node, and a whole world on simulated memory that
// fills them in that order.
#include <gtest/gtest.h>

#include "drivers/topology.h"
#include "tests/model/world.h"

namespace kvmm::test {
namespace {

struct Machine {
  std::vector<DeviceInfo> devices;
  std::vector<TierDescription> tiers;
  NodeDistances distances;
};

Machine machine(const std::string& name) {
  Machine m;
  TopologySource source;
  source.xml_path = KVMM_SOURCE_DIR "/tests/topologies/" + name + ".xml";
  auto devices = enumerate_devices(source);
  EXPECT_TRUE(devices.ok()) << name << ": " << devices.error().message();
  std::vector<MemoryNode> nodes;
  for (const DeviceInfo& d : *devices) {
    nodes.push_back({d, d.has_cpus, false});
  }
  m.devices = *devices;
  m.tiers = describe_tiers(nodes);
  m.distances = node_distances(m.devices);
  return m;
}

// A world of these tiers, `frames` in each.
WorldConfig world_of(const Machine& m, uint32_t frames) {
  WorldConfig c;
  c.planes = 1;
  c.lanes = 2;
  c.pages_a_lane = 128;
  c.distances = m.distances;
  for (const TierDescription& t : m.tiers) {
    c.tiers.push_back({t.name, t.rank, t.node.value(), frames});
  }
  return c;
}

std::string ranks(const Machine& m) {
  std::string text;
  for (const TierDescription& t : m.tiers) {
    text += (text.empty() ? "" : " ") + t.name + ":" + std::to_string(t.rank);
  }
  return text;
}

std::string order(World& w, uint16_t node) {
  std::string text;
  for (const Tier* t : w.mm->zones().order(w.mm->zones().row_of(NodeId(node)))) {
    text += (text.empty() ? "" : " ") + t->name();
  }
  return text;
}

std::string demotion(World& w, const char* tier) {
  std::string text;
  for (const TierId id : w.tiers->find(tier)->demotes_to()) {
    text += (text.empty() ? "" : " ") + w.tiers->tier(id).name();
  }
  return text;
}

// Fills a session whose threads run on `node`: the tiers in which its pages came to lie, in order.
std::string filled(World& w, uint16_t node, uint32_t pages) {
  for (const auto& t : w.tiers->tiers()) {
    EXPECT_TRUE(t->set_watermarks({}).ok());
  }
  AddressSpace& s = w.open(0);
  w.mm->called_from(s, NodeId(node));
  std::string text;
  std::string last;
  for (uint32_t i = 0; i < pages; ++i) {
    EXPECT_EQ(w.write(s, 0, i, i + 1).access, SimAccess::kDone);
    const std::string& tier = w.tiers->tier(w.page(s, 0, i).frame->tier).name();
    if (tier != last) {
      text += (text.empty() ? "" : " ") + tier;
      last = tier;
    }
  }
  for (uint32_t i = 0; i < pages; ++i) {
    EXPECT_EQ(w.read(s, 0, i).value, i + 1);
  }
  w.check();
  EXPECT_EQ(w.mm->stats().swap_out_bytes.load(), 0u) << "memory was free";
  return text;
}

TEST(Topologies, OneNode) {
  const Machine m = machine("one");
  ASSERT_EQ(m.devices.size(), 1u);
  EXPECT_EQ(m.devices[0].cpus, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(ranks(m), "dram:0");
  World w(world_of(m, 8));
  EXPECT_EQ(order(w, 0), "dram");
  EXPECT_EQ(demotion(w, "dram"), "");
  EXPECT_EQ(filled(w, 0, 8), "dram");
}

TEST(Topologies, OneNodeWithMemoryBehindALink) {
  const Machine m = machine("one_cxl");
  ASSERT_EQ(m.devices.size(), 2u);
  EXPECT_EQ(m.devices[0].memory, MemoryKind::kDram);
  EXPECT_EQ(m.devices[0].bandwidth, 200000u);
  EXPECT_EQ(m.devices[0].latency, 90u);
  EXPECT_EQ(m.devices[1].memory, MemoryKind::kCxl);
  EXPECT_EQ(m.devices[1].bandwidth, 30000u);
  EXPECT_EQ(m.devices[1].latency, 250u);
  EXPECT_FALSE(m.devices[1].has_cpus);
  EXPECT_TRUE(m.devices[1].cpus.empty());
  EXPECT_EQ(m.distances.between(NodeId(0), NodeId(1)), 27u) << "250 ns against 90, local is 10";
  EXPECT_EQ(ranks(m), "dram:0 slow:1");
  World w(world_of(m, 8));
  EXPECT_EQ(order(w, 0), "dram slow");
  EXPECT_EQ(demotion(w, "dram"), "slow");
  EXPECT_EQ(filled(w, 0, 16), "dram slow");
}

TEST(Topologies, TwoNodesByTheirMatrix) {
  const Machine m = machine("two");
  EXPECT_EQ(m.distances.between(NodeId(0), NodeId(1)), 16u);
  EXPECT_EQ(m.devices[0].latency, 0u) << "no firmware says it";
  EXPECT_EQ(ranks(m), "dram0:0 dram1:0");
  World w(world_of(m, 8));
  EXPECT_EQ(order(w, 0), "dram0 dram1");
  EXPECT_EQ(order(w, 1), "dram1 dram0");
  EXPECT_EQ(order(w, 7), "dram0 dram1") << "of a node that nobody knows: the table's";
  EXPECT_EQ(filled(w, 1, 16), "dram1 dram0") << "a node runs out while another is free";
}

TEST(Topologies, TwoNodesWithEveryKindOfMemory) {
  const Machine m = machine("two_hbm_cxl_nvm");
  ASSERT_EQ(m.devices.size(), 6u);
  EXPECT_EQ(m.devices[1].memory, MemoryKind::kHbm);
  EXPECT_FALSE(m.devices[1].has_cpus) << "the CPUs are its neighbour's";
  EXPECT_EQ(m.devices[5].memory, MemoryKind::kPersistent);
  EXPECT_EQ(ranks(m), "hbm1:0 hbm3:0 dram0:1 dram2:1 slow4:2 slow5:3");
  World w(world_of(m, 4));
  EXPECT_EQ(order(w, 0), "hbm1 hbm3 dram0 dram2 slow4 slow5");
  EXPECT_EQ(order(w, 2), "hbm3 hbm1 dram2 dram0 slow4 slow5");
  EXPECT_EQ(demotion(w, "dram2"), "dram0 slow4 slow5");
  EXPECT_EQ(demotion(w, "slow4"), "slow5");
  EXPECT_EQ(demotion(w, "slow5"), "");
  EXPECT_EQ(filled(w, 2, 24), "hbm3 hbm1 dram2 dram0 slow4 slow5");
}

TEST(Topologies, EightNodes) {
  const Machine m = machine("eight");
  EXPECT_EQ(m.tiers.size(), 8u);
  World w(world_of(m, 4));
  EXPECT_EQ(order(w, 0), "dram0 dram1 dram4 dram5 dram2 dram3 dram6 dram7");
  EXPECT_EQ(order(w, 5), "dram5 dram4 dram0 dram1 dram2 dram3 dram6 dram7");
  EXPECT_EQ(filled(w, 5, 32), "dram5 dram4 dram0 dram1 dram2 dram3 dram6 dram7");
}

TEST(Topologies, EightNodesAndOneFarFromAll) {
  const Machine m = machine("eight_far");
  ASSERT_EQ(m.devices.size(), 9u);
  EXPECT_EQ(m.devices[8].memory, MemoryKind::kOther) << "nothing says what it is";
  EXPECT_EQ(m.tiers.back().name, "slow");
  EXPECT_EQ(m.tiers.back().rank, 1u);
  World w(world_of(m, 4));
  EXPECT_EQ(demotion(w, "dram6"), "dram7 dram2 dram3 dram0 dram1 dram4 dram5 slow");
  EXPECT_EQ(filled(w, 6, 36), "dram6 dram7 dram2 dram3 dram0 dram1 dram4 dram5 slow");
}

}  // namespace
}  // namespace kvmm::test
