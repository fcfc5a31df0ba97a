// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the C API share: a runtime with one arena, children in which a right is taken
// away or a process dies, and a watchdog.
//
//   ApiTest --- World      runtime -> arena -> plane -> sessions, through kvmm.h alone
//         \---- in_child   body in a forked child; the test sees how it ended and what it printed
//
// A test that waits for ever is ended by the watchdog, and fails. A child is forked only while no
// runtime is open in the parent, except where the fork itself is what is tested.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kvmm/kvmm.hpp"

namespace kvmm_api {

constexpr uint64_t kKi = 1024;
constexpr uint64_t kMi = 1024 * kKi;

// A folder that goes away with everything in it. The working folder by default: /tmp may be no
// disk.
class Folder {
 public:
  explicit Folder(const std::string& parent = ".");
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_file(const std::string& path, const std::string& bytes);
std::string read_file(const std::string& path);

// How a child ended.
struct Ended {
  int exit = -1;    // status, or -1
  int signal = 0;   // that killed it, or 0
  std::string out;  // its stdout and stderr
};

// Runs `body` in a forked child that is killed (SIGALRM) after `limit_s`. It exits with 0 if no
// EXPECT or ASSERT failed in it, else with 1.
Ended in_child(const std::function<void()>& body, unsigned limit_s = 30);

// EXPECT that all went well in the child.
#define EXPECT_CHILD_OK(ended)                                                                    \
  do {                                                                                            \
    const ::kvmm_api::Ended e_ = (ended);                                                         \
    EXPECT_TRUE(e_.exit == 0) << "exit " << e_.exit << " signal " << e_.signal << "\n" << e_.out; \
  } while (false)

// From now on and for ever, a system call of this process is answered with an error.
struct Forbid {
  long call;
  int error;
  int argument = -1;   // only if this argument ...
  uint32_t value = 0;  // ... has this value (its low half)
};
::testing::AssertionResult forbid(const std::vector<Forbid>& rules);

// From now on the process is user and group nobody, without any capability.
::testing::AssertionResult become_nobody();

// The status, and that kvmm_last_error() names each of the texts.
::testing::AssertionResult refused(kvmm_status got, kvmm_status expected,
                                   const std::vector<std::string>& texts);
#define EXPECT_REFUSED(call, status, ...) \
  EXPECT_TRUE(::kvmm_api::refused((call), (status), std::vector<std::string>{__VA_ARGS__}))
#define EXPECT_KVMM_OK(call) EXPECT_EQ((call), KVMM_OK) << kvmm_last_error()
#define ASSERT_KVMM_OK(call) ASSERT_EQ((call), KVMM_OK) << kvmm_last_error()

// The signal (SIGBUS, SIGSEGV) that reading one byte at `address` ends in, or 0.
int signal_of_touch(const void* address);

size_t open_descriptors();
// A thread that was joined, and a worker of the kernel's io_uring, may be listed a moment longer.
::testing::AssertionResult threads_become(size_t n);

struct Options {
  uint64_t dram = 4 * kMi;
  std::string swap;  // "": none
  uint64_t swap_bytes = 64 * kMi;
  std::string config_dir;
  const char* frames = nullptr;
  uint32_t flags = KVMM_RUNTIME_NO_CONTROL;
  const uint8_t* model = nullptr;
  uint32_t lanes = 4;
  uint64_t lane_bytes = 2 * kMi;
  uint64_t page = 64 * kKi;
  uint64_t token = 0;  // bytes; not 0: sessions are structured
};

// A runtime with one arena of one plane. Closes what is open, in order; an error there fails the
// test.
class World {
 public:
  World() = default;
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Of the first call that fails.
  kvmm_status open(const Options& setup);
  // Lane `lane`'s session, opened when it is asked for. Null (and a failure) on an error.
  kvmm_session* session(uint32_t lane);
  kvmm_status close_session(uint32_t lane);
  kvmm_status close();  // everything

  unsigned char* base(uint32_t lane) const { return plane_ + lane * setup_.lane_bytes; }
  uint64_t lane_bytes() const { return setup_.lane_bytes; }
  // A lane's content: every eighth byte depends on its place and the seed.
  void fill(uint32_t lane, uint32_t seed);
  ::testing::AssertionResult holds(uint32_t lane, uint32_t seed) const;

  // Evicts the session and waits until no byte of it is resident.
  ::testing::AssertionResult send_out(uint32_t lane);
  kvmm_session_stat stat(uint32_t lane);
  uint64_t counter(const std::string& name) const;  // of vmstat
  // An attribute's value as text, "" if it is not there.
  std::string attribute(const std::string& path) const;

  kvmm_runtime* runtime() const { return runtime_; }
  kvmm_arena* arena() const { return arena_; }

 private:
  Options setup_;
  kvmm_runtime* runtime_ = nullptr;
  kvmm_arena* arena_ = nullptr;
  unsigned char* plane_ = nullptr;
  std::vector<kvmm_session*> sessions_;
};

kvmm_runtime_options runtime_options(const Options& setup);

class ApiTest : public ::testing::Test {
 protected:
  static constexpr unsigned kLimitS = 90;
  ApiTest();
  ~ApiTest() override;
  Folder folder_;
};

}  // namespace kvmm_api
