// SPDX-License-Identifier: Apache-2.0
//
// Attributes written as fast as that goes while an engine faults: by the C API, the socket and a
// mount. The fault path does not notice, by count: each touch of a page that is out is one major
// fault, as many as without, none is answered with an error, and the content is what was written.
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "runtime/control/endpoint.h"
#include "tests/api/rig.h"
#include "tools/kvctl/client.h"

namespace kvmm_api {
namespace {

constexpr int kWrites = 3000;  // of each writer
constexpr int kRounds = 20;
constexpr uint64_t kPages = 32;  // of a lane

class AttributeLoad : public ApiTest {
 protected:
  std::string socket() const {
    for (const std::string& directory : kvmm::control_directories()) {
      for (const kvmm::ControlName& name : kvmm::list_control_sockets(directory)) {
        if (name.pid == getpid()) {
          return name.path;
        }
      }
    }
    return "";
  }
  // One lane goes out and comes back page by page; the major faults that took.
  static uint64_t round(World& w, uint32_t seed) {
    EXPECT_TRUE(w.send_out(0));
    const uint64_t before = w.counter("faults_major");
    EXPECT_TRUE(w.holds(0, seed));
    return w.counter("faults_major") - before;
  }
};

TEST_F(AttributeLoad, TheFaultPathDoesNotNotice) {
  World w;
  Options options;
  options.swap = folder_.file("swap");
  options.flags = 0;  // with its socket
  ASSERT_KVMM_OK(w.open(options));
  // Every page by a fault of its own.
  for (const char* off : {"sched/readahead_max", "sched/fault_around"}) {
    ASSERT_KVMM_OK(kvmm_attr_set(w.runtime(), off, "0"));
  }
  ASSERT_KVMM_OK(kvmm_attr_set(w.runtime(), "sched/resume_prefetch", "off"));
  ASSERT_NE(w.session(0), nullptr);
  ASSERT_NE(w.session(1), nullptr);
  w.fill(0, 1);
  w.fill(1, 2);
  ASSERT_EQ(round(w, 1), kPages);

  const std::string path = socket();
  ASSERT_FALSE(path.empty());
  const std::string mount = folder_.file("mnt");
  const std::string kvctl = std::string(KVCTL_BINARY) + " -p " + path;
  const bool mounted = access("/dev/fuse", R_OK | W_OK) == 0;
  if (mounted) {
    ASSERT_EQ(std::system(("mkdir " + mount + " && " + kvctl + " mount " + mount).c_str()), 0);
  }

  std::atomic<int> failed{0};
  std::atomic<int> running{0};
  std::vector<std::thread> writers;
  const auto writer = [&](auto set) {
    ++running;
    writers.emplace_back([&failed, &running, set]() mutable {
      for (int i = 0; i < kWrites; ++i) {
        failed += set(i) ? 0 : 1;
      }
      --running;
    });
  };
  writer([&](int i) {  // a value that the fault path reads
    const char* const value = i % 2 == 0 ? "1" : "2";
    return kvmm_attr_set(w.runtime(), "sched/zero_ahead", value) == KVMM_OK;
  });
  auto client = kvmm::ctl::Client::connect(path, 30'000);
  ASSERT_TRUE(client.ok());
  writer([&](int i) {  // one that is set under the core's lock
    return client->set("tiers/dram/watermark_low", i % 2 == 0 ? "128KiB" : "129KiB").ok();
  });
  auto other = kvmm::ctl::Client::connect(path, 30'000);
  ASSERT_TRUE(other.ok());
  const std::string advice =
      "sessions/" + std::to_string(kvmm_session_id(w.session(1))) + "/advice";
  writer([&](int i) {  // two tools, one attribute
    return other
        ->set(i % 3 == 0 ? "tiers/dram/watermark_low" : advice,
              i % 3 == 0 ? "130KiB" : (i % 2 == 0 ? "running" : "normal"))
        .ok();
  });
  if (mounted) {
    writer([&](int i) {
      std::ofstream file(mount + "/sched/probe_wait");
      file << 200'000 + i % 2 << std::flush;
      return file.good();
    });
  }
  int rounds = 0;
  uint64_t faults = 0;
  while (running != 0 || rounds < kRounds) {
    faults += round(w, 1);
    ++rounds;
  }
  for (std::thread& one : writers) {
    one.join();
  }
  if (mounted) {
    EXPECT_EQ(std::system((kvctl + " umount " + mount).c_str()), 0);
  }
  EXPECT_EQ(failed.load(), 0);
  EXPECT_EQ(faults, kPages * static_cast<uint64_t>(rounds)) << rounds << " rounds";
  for (const char* counter : {"poisoned", "no_memory", "wrong_pages", "faults_stray"}) {
    EXPECT_EQ(w.counter(counter), 0u) << counter;
  }
  EXPECT_TRUE(w.holds(1, 2));
}

}  // namespace
}  // namespace kvmm_api
