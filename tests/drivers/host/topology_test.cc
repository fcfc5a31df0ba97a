// SPDX-License-Identifier: Apache-2.0
#include "drivers/topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace kvmm::test {
namespace {

// A machine of one package a node and one core a package; `far` adds a node without CPUs, `gpus`
// two NVIDIA cards and one of another maker behind the first package.
std::string machine_xml(int packages, bool far, bool gpus) {
  int gp = 1;
  const auto ids = [&gp](const std::string& cpus, const std::string& nodes) {
    return " cpuset=\"" + cpus + "\" complete_cpuset=\"" + cpus + "\" nodeset=\"" + nodes +
           "\" complete_nodeset=\"" + nodes + "\" gp_index=\"" + std::to_string(gp++) + "\"";
  };
  const auto hex = [](unsigned v) {
    char text[16];
    snprintf(text, sizeof(text), "0x%08x", v);
    return std::string(text);
  };
  const unsigned nodes = static_cast<unsigned>(packages) + (far ? 1 : 0);
  const std::string all_cpus = hex((1U << packages) - 1), all_nodes = hex((1U << nodes) - 1);
  std::string xml =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
      "<topology version=\"2.0\">\n<object type=\"Machine\" os_index=\"0\" allowed_cpuset=\"" +
      all_cpus + "\" allowed_nodeset=\"" + all_nodes + "\"" + ids(all_cpus, all_nodes) + ">\n";
  if (far) {
    xml += "<object type=\"NUMANode\" os_index=\"" + std::to_string(packages) + "\"" +
           ids("0x0", hex(1U << packages)) + " local_memory=\"274877906944\"/>\n";
  }
  for (int p = 0; p < packages; ++p) {
    const std::string cpu = hex(1U << p), index = "\" os_index=\"" + std::to_string(p) + "\"";
    xml += "<object type=\"Package" + index + ids(cpu, cpu) + ">\n";
    xml += "<object type=\"NUMANode" + index + ids(cpu, cpu) + " local_memory=\"" +
           std::to_string(137438953472ULL + static_cast<unsigned long long>(p)) + "\"/>\n";
    xml += "<object type=\"Core" + index + ids(cpu, cpu) + "><object type=\"PU" + index +
           ids(cpu, cpu) + "/></object>\n";
    if (gpus && p == packages - 1) {
      const auto gp_index = [&gp] { return " gp_index=\"" + std::to_string(gp++) + "\""; };
      const auto pci = [&](const std::string& id, const std::string& type) {
        return "<object type=\"PCIDev\"" + gp_index() + " pci_busid=\"" + id + "\" pci_type=\"" +
               type + "\" pci_link_speed=\"0.000000\">";
      };
      xml += "<object type=\"Bridge\"" + gp_index() +
             " bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[00-ff]\">\n";
      xml += pci("0000:5e:00.0", "0302 [10de:2330] [10de:16c1] a1") + "</object>\n";
      xml += pci("0000:3b:00.0", "0302 [10de:2330] [10de:16c1] a1") + "<object type=\"OSDev\"" +
             gp_index() + " name=\"cuda0\" osdev_type=\"5\">" +
             "<info name=\"CUDAGlobalMemorySize\" value=\"83886080\"/></object></object>\n";
      xml += pci("0000:86:00.0", "0300 [1002:74a1] [1002:74a1] 00") + "</object>\n";
      xml += pci("0000:90:00.0", "0108 [144d:a80a] [144d:a801] 00") + "</object>\n";
      xml += "</object>\n";
    }
    xml += "</object>\n";
  }
  return xml + "</object>\n</topology>\n";
}

std::vector<DeviceInfo> devices_of(const std::string& xml) {
  Result<std::vector<DeviceInfo>> r = enumerate_devices({"", xml});
  EXPECT_TRUE(r.ok()) << r.error().message() << "\n" << xml;
  return r.ok() ? *r : std::vector<DeviceInfo>{};
}

TEST(Topology, ThisMachineHasANodeWithCpusAndMemory) {
  const Result<std::vector<DeviceInfo>> r = enumerate_devices();
  ASSERT_TRUE(r.ok()) << r.error().message();
  ASSERT_FALSE(r->empty());
  EXPECT_EQ((*r)[0].name, "node" + std::to_string((*r)[0].node.value()));
  EXPECT_EQ((*r)[0].bus, "numa");
  EXPECT_EQ((*r)[0].cls, DeviceClass::kMemory);
  EXPECT_GT((*r)[0].capacity, mib(64));
  bool cpus = false;
  for (const DeviceInfo& d : *r) {
    cpus = cpus || (d.bus == "numa" && d.has_cpus);
  }
  EXPECT_TRUE(cpus);
}

TEST(Topology, OneNode) {
  const std::vector<DeviceInfo> d = devices_of(machine_xml(1, false, false));
  ASSERT_EQ(d.size(), 1U);
  EXPECT_EQ(d[0].name, "node0");
  EXPECT_EQ(d[0].capacity, gib(128));
  EXPECT_TRUE(d[0].has_cpus);
}

TEST(Topology, TwoNodesInTheOrderOfTheirNumbers) {
  const std::vector<DeviceInfo> d = devices_of(machine_xml(2, false, false));
  ASSERT_EQ(d.size(), 2U);
  EXPECT_EQ(d[0].name, "node0");
  EXPECT_EQ(d[1].name, "node1");
  EXPECT_EQ(d[1].node, NodeId(1));
  EXPECT_EQ(d[1].capacity, Bytes(gib(128).value() + 1));
}

TEST(Topology, NodeWithoutCpusIsSeenAsSuch) {
  const std::vector<DeviceInfo> d = devices_of(machine_xml(1, true, false));
  ASSERT_EQ(d.size(), 2U);
  EXPECT_TRUE(d[0].has_cpus);
  EXPECT_FALSE(d[1].has_cpus);
  EXPECT_EQ(d[1].name, "node1");
  EXPECT_EQ(d[1].capacity, gib(256));
  const std::vector<DeviceInfo> three = devices_of(machine_xml(2, true, false));
  ASSERT_EQ(three.size(), 3U);
  EXPECT_TRUE(three[0].has_cpus);
  EXPECT_TRUE(three[1].has_cpus);
  EXPECT_FALSE(three[2].has_cpus);
}

TEST(Topology, GpusByBusIdWithTheNearestNode) {
  const std::vector<DeviceInfo> d = devices_of(machine_xml(2, false, true));
  ASSERT_EQ(d.size(), 5U) << "two nodes, three display devices, and no disk";
  EXPECT_EQ(d[2].name, "gpu0");
  EXPECT_EQ(d[2].path, "0000:3b:00.0");
  EXPECT_EQ(d[2].bus, "cuda");
  EXPECT_EQ(d[2].node, NodeId(1));
  EXPECT_EQ(d[2].capacity, gib(80));
  EXPECT_EQ(d[3].path, "0000:5e:00.0");
  EXPECT_EQ(d[3].capacity, Bytes(0)) << "unknown";
  EXPECT_EQ(d[4].name, "gpu2");
  EXPECT_EQ(d[4].bus, "pci");
}

TEST(Topology, MalformedXmlIsATypedError) {
  const std::string good = machine_xml(2, true, true);
  EXPECT_EQ(enumerate_devices({"", "not a topology"}).code(), Errc::kInvalid);
  EXPECT_EQ(enumerate_devices({"", "<topology"}).code(), Errc::kInvalid);
  EXPECT_EQ(enumerate_devices({"", "<topology version=\"2.0\"></topology>"}).code(),
            Errc::kInvalid);
  EXPECT_EQ(enumerate_devices({"", good.substr(0, good.size() / 2)}).code(), Errc::kInvalid);
  EXPECT_EQ(enumerate_devices({"", std::string("\0<topology", 10)}).code(), Errc::kInvalid);
}

TEST(Topology, NodeNumberTooLargeIsRefused) {
  std::string xml = machine_xml(1, false, false);
  const std::string from = "\"NUMANode\" os_index=\"0\"";
  const size_t at = xml.find(from);
  ASSERT_NE(at, std::string::npos);
  xml.replace(at, from.size(), "\"NUMANode\" os_index=\"70000\"");
  EXPECT_EQ(enumerate_devices({"", xml}).code(), Errc::kInvalid);
}

TEST(Topology, XmlComesFromAFileToo) {
  char path[] = "/tmp/kvmm_topology_XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  const std::string xml = machine_xml(2, false, false);
  ASSERT_EQ(write(fd, xml.data(), xml.size()), static_cast<ssize_t>(xml.size()));
  close(fd);
  const Result<std::vector<DeviceInfo>> r = enumerate_devices({path, ""});
  EXPECT_TRUE(r.ok() && r->size() == 2);
  EXPECT_EQ(enumerate_devices({path, xml}).code(), Errc::kInvalid) << "one source or the other";
  unlink(path);
  EXPECT_EQ(enumerate_devices({path, ""}).code(), Errc::kNotFound);
  EXPECT_EQ(enumerate_devices({"/tmp", ""}).code(), Errc::kIo) << "a directory";
}

}  // namespace
}  // namespace kvmm::test
