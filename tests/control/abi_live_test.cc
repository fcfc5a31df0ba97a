// SPDX-License-Identifier: Apache-2.0
//
// docs/abi against the tree of a runtime that is open: every attribute is documented, every
// document's attribute exists, and modes, types, units, ranges and defaults agree.
#include <gtest/gtest.h>
#include <kvmm/kvmm.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/attr_value.h"
#include "runtime/control/endpoint.h"
#include "tests/control/abi_docs.h"
#include "tests/control/temp_dir.h"
#include "tools/kvctl/client.h"

namespace kvmm {
namespace {

using Json = nlohmann::json;
using test::AbiEntries;

// One runtime with an arena, a session and a swap area, so that every directory has an entry.
struct LiveTest : ::testing::Test {
  test::TempDir dir;
  kvmm_runtime* runtime = nullptr;
  kvmm_arena* arena = nullptr;
  kvmm_session* session = nullptr;
  std::string socket;

  void SetUp() override {
    ASSERT_EQ(setenv("XDG_RUNTIME_DIR", dir.path().c_str(), 1), 0);
    ASSERT_EQ(mkdir(dir.file("conf").c_str(), 0700), 0);
    const std::string conf = dir.file("conf");
    const std::string swap = dir.file("swap");
    kvmm_runtime_options options{};
    options.size = sizeof options;
    options.name = "abi-test";
    options.config_dir = conf.c_str();
    options.dram_bytes = 16 << 20;
    options.swap_path = swap.c_str();
    options.swap_bytes = 16 << 20;
    options.flags = KVMM_RUNTIME_PIN_ONLY | KVMM_RUNTIME_VOLATILE;
    ASSERT_EQ(kvmm_runtime_open(&options, &runtime), KVMM_OK) << kvmm_last_error();
    kvmm_arena_options arena_options{};
    arena_options.size = sizeof arena_options;
    arena_options.name = "arena";
    arena_options.lanes = 2;
    arena_options.lane_tokens = 1024;
    arena_options.engine = KVMM_ENGINE_PINNING;
    ASSERT_EQ(kvmm_arena_create(runtime, &arena_options, &arena), KVMM_OK) << kvmm_last_error();
    kvmm_plane_options plane{};
    plane.size = sizeof plane;
    plane.name = "k_l0";
    plane.token_stride = 256;
    uint32_t number = 0;
    ASSERT_EQ(kvmm_arena_add_plane(arena, &plane, &number), KVMM_OK) << kvmm_last_error();
    kvmm_session_options session_options{};
    session_options.size = sizeof session_options;
    session_options.name = "chat";
    ASSERT_EQ(kvmm_session_open(arena, &session_options, &session), KVMM_OK) << kvmm_last_error();
    for (const std::string& directory : control_directories()) {
      for (const ControlName& name : list_control_sockets(directory)) {
        if (name.pid == getpid()) {
          socket = name.path;
        }
      }
    }
    ASSERT_FALSE(socket.empty());
  }
  void TearDown() override {
    if (session != nullptr) {
      EXPECT_EQ(kvmm_session_close(session), KVMM_OK);
    }
    if (arena != nullptr) {
      EXPECT_EQ(kvmm_arena_destroy(arena), KVMM_OK);
    }
    if (runtime != nullptr) {
      EXPECT_EQ(kvmm_runtime_close(runtime), KVMM_OK);
    }
  }
  std::string ask(const Json& request) const {
    const Result<OwnedFd> fd = connect_control_socket(socket, 5000);
    EXPECT_TRUE(fd.ok());
    const std::string line = request.dump() + "\n";
    EXPECT_EQ(write(fd->get(), line.data(), line.size()), static_cast<ssize_t>(line.size()));
    std::string reply;
    char piece[4096];
    while (reply.find('\n') == std::string::npos) {
      const ssize_t n = ::read(fd->get(), piece, sizeof piece);
      if (n <= 0) {
        ADD_FAILURE() << "no reply";
        break;
      }
      reply.append(piece, static_cast<size_t>(n));
    }
    return reply;
  }
  AbiEntries live() const {
    AbiEntries entries;
    std::string after;
    do {
      after = test::parse_defs(ask({{"kvmm", 1}, {"op", "defs"}, {"after", after}}), entries);
    } while (!after.empty());
    return entries;
  }
};

TEST_F(LiveTest, DocumentsAndTreeAgree) {
  std::vector<std::string> complaints;
  const AbiEntries docs = test::read_docs(ABI_DOCS_DIR, complaints);
  for (std::string& one : test::compare(docs, live())) {
    complaints.push_back(std::move(one));
  }
  auto client = ctl::Client::connect(socket, 5000);
  ASSERT_TRUE(client.ok());
  const std::string id = std::to_string(kvmm_session_id(session));
  for (const auto& [pattern, path] : std::vector<std::pair<std::string, std::string>>{
           {"vmstat", "vmstat"},
           {"meminfo", "meminfo"},
           {"latency", "latency"},
           {"sessions/<id>/stat", "sessions/" + id + "/stat"}}) {
    const Result<ctl::Item> text = client->get(path);
    ASSERT_TRUE(text.ok()) << text.error().message();
    if (docs.contains(pattern)) {
      for (std::string& one : test::compare_keys(docs.at(pattern), *text->value)) {
        complaints.push_back(std::move(one));
      }
    }
  }
  std::string all;
  for (const std::string& one : complaints) {
    all += "docs/abi/" + one + "\n";
  }
  EXPECT_EQ(all, "");
}

TEST_F(LiveTest, ReadingEverythingTakesNoLockOfTheFaultPath) {
  auto client = ctl::Client::connect(socket, 5000);
  ASSERT_TRUE(client.ok());
  const Result<std::vector<ctl::Item>> items = client->walk("");
  ASSERT_TRUE(items.ok()) << items.error().message();
  for (const ctl::Item& item : *items) {
    if (item.type == "text") {  // a walk leaves them out
      EXPECT_TRUE(client->get(item.path).ok()) << item.path;
    }
  }
  const Result<ctl::Item> locks = client->get("locks");
  ASSERT_TRUE(locks.ok()) << locks.error().message();
  const std::string& text = *locks->value;
  for (const char* lock : {"core", "device", "workers"}) {
    EXPECT_NE(text.find(std::string("\n") + lock + " 0\n"), std::string::npos) << text;
  }
  EXPECT_EQ(text.find("attributes 0\n"), std::string::npos) << "it counts nothing: " << text;
}

TEST_F(LiveTest, EveryDefinitionHasALeafAndEveryLeafAValue) {
  const AbiEntries entries = live();
  std::set<std::string> seen;
  auto client = ctl::Client::connect(socket, 5000);
  ASSERT_TRUE(client.ok());
  const Result<std::vector<ctl::Item>> items = client->walk("");
  ASSERT_TRUE(items.ok()) << items.error().message();
  for (const ctl::Item& item : *items) {
    EXPECT_EQ(item.error, "") << item.path;
    const auto it = std::find_if(entries.begin(), entries.end(),
                                 [&](const auto& e) { return path_matches(e.first, item.path); });
    ASSERT_NE(it, entries.end()) << item.path;
    seen.insert(it->first);
    // The C API reads the same.
    char value[8192];
    EXPECT_EQ(kvmm_attr_get(runtime, item.path.c_str(), value, sizeof value), KVMM_OK) << item.path;
    if (item.mode == "ro") {
      EXPECT_EQ(kvmm_attr_set(runtime, item.path.c_str(), value), KVMM_EPERMISSION) << item.path;
    }
  }
  for (const auto& [pattern, entry] : entries) {
    EXPECT_TRUE(seen.contains(pattern)) << pattern;
  }
}

TEST_F(LiveTest, EveryWritableValueReadsBackAndRefusesNonsense) {
  auto client = ctl::Client::connect(socket, 5000);
  ASSERT_TRUE(client.ok());
  const Result<std::vector<ctl::Item>> items = client->walk("");
  ASSERT_TRUE(items.ok());
  int writable = 0;
  for (const ctl::Item& item : *items) {
    if (item.mode != "rw") {
      continue;
    }
    ++writable;
    ASSERT_TRUE(item.value.has_value()) << item.path;
    const Result<void> same = client->set(item.path, *item.value);
    EXPECT_TRUE(same.ok()) << item.path << ": " << (same ? "" : same.error().message());
    const Result<void> nonsense = client->set(item.path, "\x01 nonsense");
    EXPECT_EQ(nonsense.code(), Errc::kInvalid) << item.path;
    EXPECT_EQ(*client->get(item.path)->value, *item.value) << item.path;
  }
  EXPECT_GT(writable, 5);
}

}  // namespace
}  // namespace kvmm
