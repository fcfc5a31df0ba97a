// SPDX-License-Identifier: Apache-2.0
#include "drivers/topology.h"

#include <hwloc.h>
#include <hwloc/distances.h>
#include <hwloc/memattrs.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>

namespace kvmm {
namespace {

constexpr uint16_t kNvidia = 0x10de;
constexpr uint16_t kDisplayClass = 0x03;  // the upper byte of a PCI class: VGA, 3D, display
constexpr size_t kXmlMax = size_t{64} << 20;

using Topology = std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)>;

Result<std::string> read_file(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  if (file == nullptr) {
    const int os_error = errno;
    const Errc code = os_error == ENOENT   ? Errc::kNotFound
                      : os_error == EACCES ? Errc::kPermission
                                           : Errc::kIo;
    return Error(code, "topology " + path, os_error);
  }
  std::string text;
  char piece[4096];
  for (size_t n = 0; (n = fread(piece, 1, sizeof(piece), file.get())) > 0;) {
    text.append(piece, n);
    if (text.size() > kXmlMax) {
      return Error(Errc::kInvalid, "topology " + path + ": larger than 64 MiB");
    }
  }
  if (ferror(file.get()) != 0) {
    return Error(Errc::kIo, "reading topology " + path, EIO);
  }
  return text;
}

// hwloc takes the text with its final NUL, and warns on stderr about some of what it refuses; so
// what is plainly no topology never reaches it.
Result<Topology> load(const std::string* xml) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    return Errc::kNoMemory;
  }
  Topology topology(raw, hwloc_topology_destroy);
  const auto malformed = [] {
    return Error(Errc::kInvalid, "the topology is no hwloc XML (made by `lstopo --of xml FILE`)");
  };
  if (xml != nullptr) {
    if (xml->find("<topology") == std::string::npos ||
        xml->size() >= static_cast<size_t>(std::numeric_limits<int>::max()) ||
        hwloc_topology_set_xmlbuffer(raw, xml->c_str(), static_cast<int>(xml->size() + 1)) != 0) {
      return malformed();
    }
  }
  // Components that would start a GPU runtime or a display connection inside the engine's process,
  // for facts that the PCI bus has already; and "pci", which leaks through libpciaccess: without it
  // hwloc reads the same from sysfs. A name unknown to this hwloc is no error worth failing for.
  for (const char* component : {"opencl", "gl", "cuda", "nvml", "rsmi", "levelzero", "pci"}) {
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, component);
  }
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  if (hwloc_topology_load(raw) != 0) {
    return xml != nullptr ? malformed() : Error(Errc::kIo, "hwloc cannot read the machine", errno);
  }
  return topology;
}

MemoryKind kind_of(hwloc_obj_t node, bool has_cpus) {
  // hwloc 2.9 names these; other releases and other systems name some of them.
  const std::string_view subtype = node->subtype == nullptr ? "" : node->subtype;
  if (subtype == "HBM" || subtype == "MCDRAM") {
    return MemoryKind::kHbm;
  }
  if (subtype == "NVM" || subtype == "CXL-NVM") {
    return MemoryKind::kPersistent;
  }
  if (subtype.starts_with("CXL")) {
    return MemoryKind::kCxl;
  }
  return has_cpus || subtype == "DRAM" ? MemoryKind::kDram : MemoryKind::kOther;
}

// The value of an attribute for `node`, seen from the CPUs where it is best; 0: unknown.
uint64_t best_value(hwloc_topology_t topology, hwloc_memattr_id_t attribute, hwloc_obj_t node) {
  hwloc_location from{};
  hwloc_uint64_t value = 0;
  return hwloc_memattr_get_best_initiator(topology, attribute, node, 0, &from, &value) == 0 ? value
                                                                                            : 0;
}

// The value seen from the CPUs of another node; 0: unknown.
uint64_t value_from(hwloc_topology_t topology, hwloc_memattr_id_t attribute, hwloc_obj_t from,
                    hwloc_obj_t node) {
  hwloc_location where{};
  where.type = HWLOC_LOCATION_TYPE_CPUSET;
  where.location.cpuset = from->cpuset;
  hwloc_uint64_t value = 0;
  return hwloc_memattr_get_value(topology, attribute, node, &where, 0, &value) == 0 ? value : 0;
}

uint32_t as_distance(uint64_t value) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(value, 1, std::numeric_limits<int32_t>::max()));
}

// From every node with CPUs to every node, by the latencies that the firmware gives (HMAT) if it
// gives all of a row, in units of a tenth of the local one; else by a matrix (SLIT).
void find_distances(hwloc_topology_t topology, const std::vector<hwloc_obj_t>& nodes,
                    std::vector<DeviceInfo>& out) {
  hwloc_distances_s* matrix = nullptr;
  unsigned count = 1;
  if (hwloc_distances_get_by_type(topology, HWLOC_OBJ_NUMANODE, &count, &matrix,
                                  HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) != 0 ||
      count == 0) {
    matrix = nullptr;
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!out[i].has_cpus) {
      continue;
    }
    const uint64_t local = value_from(topology, HWLOC_MEMATTR_ID_LATENCY, nodes[i], nodes[i]);
    std::vector<DeviceInfo::Distance> row;
    for (size_t k = 0; k < nodes.size() && local != 0; ++k) {
      if (const uint64_t ns = value_from(topology, HWLOC_MEMATTR_ID_LATENCY, nodes[i], nodes[k])) {
        row.push_back({out[k].node, as_distance(ns < UINT64_MAX / 10 ? ns * 10 / local : ns)});
      }
    }
    if (row.size() != nodes.size()) {
      row.clear();
      for (size_t k = 0; k < nodes.size() && matrix != nullptr; ++k) {
        hwloc_uint64_t there = 0;
        hwloc_uint64_t back = 0;
        if (hwloc_distances_obj_pair_values(matrix, nodes[i], nodes[k], &there, &back) == 0) {
          row.push_back({out[k].node, as_distance(there)});
        }
      }
    }
    out[i].distances = std::move(row);
  }
  if (matrix != nullptr) {
    hwloc_distances_release(topology, matrix);
  }
}

// hwloc gives a node without CPUs the CPUs of what it hangs on, so that its own cpuset does not
// tell. But a CPU has one node: going from the most local to the least, lowest number first, each
// node has the CPUs that no node before it had, and one that gets none has none.
void find_nodes_without_cpus(const std::vector<hwloc_obj_t>& nodes, std::vector<DeviceInfo>& out) {
  std::vector<size_t> order(nodes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&nodes](size_t a, size_t b) {
    const int wa = hwloc_bitmap_weight(nodes[a]->cpuset);
    const int wb = hwloc_bitmap_weight(nodes[b]->cpuset);
    return wa != wb ? wa < wb : nodes[a]->os_index < nodes[b]->os_index;
  });
  const std::unique_ptr<hwloc_bitmap_s, decltype(&hwloc_bitmap_free)> taken(hwloc_bitmap_alloc(),
                                                                            hwloc_bitmap_free);
  for (const size_t i : order) {
    out[i].has_cpus = hwloc_bitmap_isincluded(nodes[i]->cpuset, taken.get()) == 0;
    for (int cpu = hwloc_bitmap_first(nodes[i]->cpuset); cpu >= 0;
         cpu = hwloc_bitmap_next(nodes[i]->cpuset, cpu)) {
      if (hwloc_bitmap_isset(taken.get(), static_cast<unsigned>(cpu)) == 0) {
        out[i].cpus.push_back(static_cast<uint32_t>(cpu));
      }
    }
    hwloc_bitmap_or(taken.get(), taken.get(), nodes[i]->cpuset);
  }
}

Result<void> add_nodes(hwloc_topology_t topology, std::vector<DeviceInfo>& out) {
  std::vector<hwloc_obj_t> nodes;
  for (hwloc_obj_t o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, nullptr);
       o != nullptr; o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, o)) {
    if (o->os_index > std::numeric_limits<uint16_t>::max()) {
      return Error(Errc::kInvalid, "NUMA node number " + std::to_string(o->os_index));
    }
    DeviceInfo d;
    d.name = "node" + std::to_string(o->os_index);
    d.bus = "numa";
    d.node = NodeId(static_cast<uint16_t>(o->os_index));
    d.capacity = Bytes(o->attr->numanode.local_memory);
    nodes.push_back(o);
    out.push_back(std::move(d));
  }
  find_nodes_without_cpus(nodes, out);
  for (size_t i = 0; i < nodes.size(); ++i) {
    out[i].memory = kind_of(nodes[i], out[i].has_cpus);
    out[i].bandwidth = best_value(topology, HWLOC_MEMATTR_ID_BANDWIDTH, nodes[i]);
    out[i].latency = best_value(topology, HWLOC_MEMATTR_ID_LATENCY, nodes[i]);
  }
  find_distances(topology, nodes, out);
  std::sort(out.begin(), out.end(),
            [](const DeviceInfo& a, const DeviceInfo& b) { return a.node < b.node; });
  return {};
}

// Bytes of the card's own memory, if an operating system device below it says so; else 0.
Bytes gpu_memory(hwloc_obj_t pci) {
  for (hwloc_obj_t child = pci->io_first_child; child != nullptr; child = child->next_sibling) {
    const char* kib_text = hwloc_obj_get_info_by_name(child, "CUDAGlobalMemorySize");
    if (kib_text != nullptr) {
      const unsigned long long n = strtoull(kib_text, nullptr, 10);
      return n < (1ULL << 40) ? kib(n) : Bytes(0);
    }
  }
  return Bytes(0);
}

void add_gpus(hwloc_topology_t topology, std::vector<DeviceInfo>& out) {
  const size_t nodes = out.size();
  for (hwloc_obj_t o = hwloc_get_next_pcidev(topology, nullptr); o != nullptr;
       o = hwloc_get_next_pcidev(topology, o)) {
    const auto& pci = o->attr->pcidev;
    if (pci.class_id >> 8 != kDisplayClass) {
      continue;
    }
    DeviceInfo d;
    d.bus = pci.vendor_id == kNvidia ? "cuda" : "pci";
    char bus_id[32];
    snprintf(bus_id, sizeof(bus_id), "%04x:%02x:%02x.%01x", pci.domain, pci.bus, pci.dev, pci.func);
    d.path = bus_id;
    const hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(topology, o);
    const int first =
        near != nullptr && near->nodeset != nullptr ? hwloc_bitmap_first(near->nodeset) : -1;
    d.node = NodeId(static_cast<uint16_t>(std::clamp(first, 0, 65535)));
    d.capacity = gpu_memory(o);
    out.push_back(std::move(d));
  }
  std::sort(out.begin() + static_cast<std::ptrdiff_t>(nodes), out.end(),
            [](const DeviceInfo& a, const DeviceInfo& b) { return a.path < b.path; });
  for (size_t i = nodes; i < out.size(); ++i) {
    out[i].name = "gpu" + std::to_string(i - nodes);
  }
}

}  // namespace

Result<std::vector<DeviceInfo>> enumerate_devices(const TopologySource& source) {
  if (!source.xml_path.empty() && !source.xml_text.empty()) {
    return Error(Errc::kInvalid, "a topology comes from a file or from a text, not from both");
  }
  Result<std::string> text =
      source.xml_path.empty() ? Result<std::string>(source.xml_text) : read_file(source.xml_path);
  if (!text) {
    return std::move(text).error();
  }
  const bool machine = source.xml_path.empty() && source.xml_text.empty();
  Result<Topology> topology = load(machine ? nullptr : &*text);
  if (!topology) {
    return std::move(topology).error();
  }
  std::vector<DeviceInfo> devices;
  if (Result<void> r = add_nodes(topology->get(), devices); !r) {
    return std::move(r).error();
  }
  add_gpus(topology->get(), devices);
  return devices;
}

}  // namespace kvmm
