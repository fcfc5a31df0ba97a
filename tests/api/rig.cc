// SPDX-License-Identifier: Apache-2.0
#include "tests/api/rig.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace kvmm_api {
namespace {

constexpr char kWatchdogText[] = "watchdog: the test hangs\n";

void watchdog(int) {
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, kWatchdogText, sizeof kWatchdogText - 1);
  _exit(124);
}

size_t count_entries(const char* folder) {
  const std::filesystem::directory_iterator all(folder);
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

sigjmp_buf g_touch;
void touched(int signal) {
  siglongjmp(g_touch, signal);
}

unsigned char value_at(uint64_t offset, uint32_t lane, uint32_t seed) {
  const uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t{lane} << 32 | seed) * 0xff51u;
  return static_cast<unsigned char>(x >> 29);
}

}  // namespace

// ----------------------------------------------------------------------------- files, processes

Folder::Folder(const std::string& parent) {
  std::string name = parent + "/kvmm_api_test.XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    ADD_FAILURE() << name << ": " << std::strerror(errno);
  }
  path_ = std::filesystem::absolute(name).lexically_normal().string();
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  EXPECT_TRUE(out.flush().good()) << path;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Ended in_child(const std::function<void()>& body, unsigned limit_s) {
  Ended ended;
  const auto failures = [] {  // of this test so far; successes are not recorded
    return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
  };
  const int before = failures();
  std::fflush(nullptr);
  FILE* out = std::tmpfile();
  if (out == nullptr) {
    ADD_FAILURE() << "tmpfile: " << std::strerror(errno);
    return ended;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGALRM, SIG_DFL);
    alarm(limit_s);
    dup2(fileno(out), STDOUT_FILENO);
    dup2(fileno(out), STDERR_FILENO);
    body();
    std::fflush(nullptr);
    _exit(failures() == before ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  ended.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ended.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  std::rewind(out);
  for (int c = std::fgetc(out); c != EOF; c = std::fgetc(out)) {
    ended.out += static_cast<char>(c);
  }
  std::fclose(out);
  return ended;
}

::testing::AssertionResult forbid(const std::vector<Forbid>& rules) {
  std::vector<sock_filter> code;
  const auto load = [&](size_t offset) {
    code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  };
  for (const Forbid& r : rules) {
    const bool by_argument = r.argument >= 0;
    load(offsetof(seccomp_data, nr));
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(r.call), 0,
                            static_cast<uint8_t>(by_argument ? 3 : 1)));
    if (by_argument) {  // the low half comes first: little-endian, as all our machines are
      load(offsetof(seccomp_data, args) + 8 * static_cast<size_t>(r.argument));
      code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r.value, 0, 1));
    }
    code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(r.error)));
  }
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    return testing::AssertionFailure() << "seccomp: " << std::strerror(errno);
  }
  return testing::AssertionSuccess();
}

::testing::AssertionResult become_nobody() {
  constexpr uid_t kNobody = 65534;
  if (geteuid() == 0 && (setgid(kNobody) != 0 || setuid(kNobody) != 0)) {
    return testing::AssertionFailure() << "setuid: " << std::strerror(errno);
  }
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // as after an exec: its /proc/self is its own
  return testing::AssertionSuccess();
}

::testing::AssertionResult refused(kvmm_status got, kvmm_status expected,
                                   const std::vector<std::string>& texts) {
  const std::string said = kvmm_last_error();
  if (got != expected) {
    return testing::AssertionFailure()
           << kvmm_status_name(got) << " instead of " << kvmm_status_name(expected) << ": " << said;
  }
  for (const std::string& t : texts) {
    if (said.find(t) == std::string::npos) {
      return testing::AssertionFailure() << "'" << said << "' does not say '" << t << "'";
    }
  }
  return testing::AssertionSuccess();
}

int signal_of_touch(const void* address) {
  struct sigaction action {};
  action.sa_handler = touched;
  struct sigaction bus {};
  struct sigaction segv {};
  sigaction(SIGBUS, &action, &bus);
  sigaction(SIGSEGV, &action, &segv);
  const int signal = sigsetjmp(g_touch, 1);
  if (signal == 0) {
    [[maybe_unused]] const unsigned char seen =
        *static_cast<const volatile unsigned char*>(address);
  }
  sigaction(SIGBUS, &bus, nullptr);
  sigaction(SIGSEGV, &segv, nullptr);
  return signal;
}

size_t open_descriptors() {
  return count_entries("/proc/self/fd") - 1;  // less the one that counts
}

::testing::AssertionResult threads_become(size_t n) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  size_t now = count_entries("/proc/self/task");
  while (now != n && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
    now = count_entries("/proc/self/task");
  }
  return now == n ? testing::AssertionSuccess() : testing::AssertionFailure() << now << " threads";
}

// ----------------------------------------------------------------------------------------- World

kvmm_runtime_options runtime_options(const Options& setup) {
  kvmm_runtime_options o = kvmmpp::init<kvmm_runtime_options>();
  o.name = "api-test";
  o.config_dir = setup.config_dir.empty() ? nullptr : setup.config_dir.c_str();
  o.dram_bytes = setup.dram;
  o.swap_path = setup.swap.empty() ? nullptr : setup.swap.c_str();
  o.swap_bytes = setup.swap_bytes;
  o.frames = setup.frames;
  o.flags = setup.flags;
  return o;
}

World::~World() {
  if (runtime_ != nullptr) {  // else what kvmm_last_error() says of the refusal stays
    EXPECT_KVMM_OK(close());
  }
}

kvmm_status World::open(const Options& setup) {
  setup_ = setup;
  const kvmm_runtime_options o = runtime_options(setup_);
  if (const kvmm_status s = kvmm_runtime_open(&o, &runtime_); s != KVMM_OK) {
    return s;
  }
  kvmm_arena_options a = kvmmpp::init<kvmm_arena_options>();
  a.name = "arena";
  a.model_id = setup_.model;
  a.layout = "f16";
  a.lanes = setup_.lanes;
  a.engine =
      (setup_.flags & KVMM_RUNTIME_PIN_ONLY) != 0 ? KVMM_ENGINE_PINNING : KVMM_ENGINE_FAULTING;
  if (const kvmm_status s = kvmm_arena_create(runtime_, &a, &arena_); s != KVMM_OK) {
    return s;
  }
  kvmm_plane_options p = kvmmpp::init<kvmm_plane_options>();
  p.name = "k_l0";
  p.lane_stride = setup_.lane_bytes;
  p.token_stride = setup_.token;
  p.page_size = setup_.page;
  void* base = nullptr;
  if (const kvmm_status s = kvmm_arena_reserve(arena_, setup_.lanes * setup_.lane_bytes, &base);
      s != KVMM_OK) {
    return s;
  }
  plane_ = static_cast<unsigned char*>(base);
  p.base = base;
  sessions_.resize(setup_.lanes);
  return kvmm_arena_add_plane(arena_, &p, nullptr);
}

kvmm_session* World::session(uint32_t lane) {
  kvmm_session*& s = sessions_.at(lane);
  if (s == nullptr) {
    const std::string name = "chat-" + std::to_string(lane);
    kvmm_session_options o = kvmmpp::init<kvmm_session_options>();
    o.name = name.c_str();
    o.lane = lane + 1;
    o.kind = setup_.token == 0 ? KVMM_SESSION_RAW : KVMM_SESSION_STRUCTURED;
    EXPECT_KVMM_OK(kvmm_session_open(arena_, &o, &s));
  }
  return s;
}

kvmm_status World::close_session(uint32_t lane) {
  const kvmm_status s = kvmm_session_close(sessions_.at(lane));
  if (s == KVMM_OK) {
    sessions_[lane] = nullptr;
  }
  return s;
}

kvmm_status World::close() {
  for (uint32_t lane = 0; lane < sessions_.size(); ++lane) {
    if (const kvmm_status s = close_session(lane); s != KVMM_OK) {
      return s;
    }
  }
  if (const kvmm_status s = kvmm_arena_destroy(arena_); s != KVMM_OK) {
    return s;
  }
  arena_ = nullptr;
  const kvmm_status s = kvmm_runtime_close(runtime_);
  runtime_ = s == KVMM_OK ? nullptr : runtime_;
  return s;
}

void World::fill(uint32_t lane, uint32_t seed) {
  for (uint64_t i = 0; i < setup_.lane_bytes; i += 8) {
    base(lane)[i] = value_at(i, lane, seed);
  }
}

::testing::AssertionResult World::holds(uint32_t lane, uint32_t seed) const {
  for (uint64_t i = 0; i < setup_.lane_bytes; i += 8) {
    if (base(lane)[i] != value_at(i, lane, seed)) {
      return testing::AssertionFailure() << "lane " << lane << " byte " << i << " is wrong";
    }
  }
  return testing::AssertionSuccess();
}

::testing::AssertionResult World::send_out(uint32_t lane) {
  kvmm_session* s = session(lane);
  if (const kvmm_status r = kvmm_advise(s, KVMM_ADVISE_EVICT); r != KVMM_OK) {
    return testing::AssertionFailure() << kvmm_last_error();
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (stat(lane).bytes_resident != 0) {
    if (std::chrono::steady_clock::now() > end) {
      return testing::AssertionFailure() << stat(lane).bytes_resident << " bytes stay resident";
    }
    std::this_thread::yield();  // the core works; it says nothing when it is done
  }
  return testing::AssertionSuccess();
}

kvmm_session_stat World::stat(uint32_t lane) {
  kvmm_session_stat s = kvmmpp::init<kvmm_session_stat>();
  EXPECT_KVMM_OK(kvmm_session_stats(session(lane), &s));
  return s;
}

uint64_t World::counter(const std::string& name) const {
  char text[4096] = "";
  EXPECT_KVMM_OK(kvmm_attr_get(runtime_, "vmstat", text, sizeof text));
  std::istringstream lines(text);
  std::string key;
  uint64_t value = 0;
  while (lines >> key >> value) {
    if (key == name) {
      return value;
    }
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}

std::string World::attribute(const std::string& path) const {
  char text[4096] = "";
  return kvmm_attr_get(runtime_, path.c_str(), text, sizeof text) == KVMM_OK ? text : "";
}

// --------------------------------------------------------------------------------------- ApiTest

ApiTest::ApiTest() {
  signal(SIGALRM, watchdog);
  alarm(kLimitS);
}

ApiTest::~ApiTest() {
  alarm(0);
}

}  // namespace kvmm_api
