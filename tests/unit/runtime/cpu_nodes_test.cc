// SPDX-License-Identifier: Apache-2.0
#include "runtime/cpu_nodes.h"

#include <gtest/gtest.h>
#include <numa.h>
#include <sched.h>
#include <unistd.h>

#include "drivers/topology.h"

namespace kvmm {
namespace {

std::vector<DeviceInfo> two_nodes() {
  std::vector<DeviceInfo> d(3);
  d[0].node = NodeId(0);
  d[0].cpus = {0, 2};
  d[1].node = NodeId(3);
  d[1].cpus = {1, 5};
  d[2].node = NodeId(4);  // memory without CPUs
  return d;
}

TEST(CpuNodes, EachCpuHasItsNode) {
  const auto devices = two_nodes();
  const CpuNodes nodes(devices);
  EXPECT_TRUE(nodes.several());
  EXPECT_EQ(nodes.of_cpu(2), NodeId(0));
  EXPECT_EQ(nodes.of_cpu(5), NodeId(3));
  EXPECT_EQ(nodes.of_cpu(3), std::nullopt);
  EXPECT_EQ(nodes.of_cpu(4096), std::nullopt);
  const CpuNodes one(std::span<const DeviceInfo>(devices).first(1));
  EXPECT_FALSE(one.several());
}

TEST(CpuNodes, TheCpuInALineOfProc) {
  std::string fields = "S";
  for (int field = 4; field < 39; ++field) {
    fields += " " + std::to_string(field);
  }
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 (worker) " + fields + " 6 0 0"), 6u);
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 (a) b) c) " + fields + " 11\n"), 11u) << "a name of any kind";
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 (worker) " + fields), std::nullopt) << "cut short";
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 (worker) " + fields + " x 0"), std::nullopt);
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 (worker) " + fields + " -1 0"), std::nullopt);
  EXPECT_EQ(CpuNodes::cpu_of_stat("17 worker"), std::nullopt);
  EXPECT_EQ(CpuNodes::cpu_of_stat(""), std::nullopt);
}

TEST(CpuNodes, ThisThreadIsWhereTheSystemSaysItIs) {
  const auto devices = enumerate_devices();
  ASSERT_TRUE(devices.ok()) << devices.error().message();
  const CpuNodes nodes(*devices);
  // On one CPU, so that the answer stays right while it is compared.
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  const int cpu = sched_getcpu();
  ASSERT_GE(cpu, 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(cpu), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(sched_getcpu(), cpu);
  const auto here = nodes.here();
  const auto seen = nodes.of_thread(static_cast<uint32_t>(gettid()));
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  ASSERT_TRUE(here.has_value());
  EXPECT_EQ(here, seen);
  if (numa_available() >= 0) {
    EXPECT_EQ(here->value(), numa_node_of_cpu(cpu)) << "libnuma agrees";
  }
  // Free to run on several nodes, or on all CPUs of one: it is still somewhere.
  EXPECT_TRUE(nodes.of_thread(static_cast<uint32_t>(gettid())).has_value());
  EXPECT_EQ(nodes.of_thread(UINT32_MAX >> 1), std::nullopt) << "no such thread";
}

}  // namespace
}  // namespace kvmm
