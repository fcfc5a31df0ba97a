// SPDX-License-Identifier: Apache-2.0
#include "tools/kvctl/doctor.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

using Json = nlohmann::json;
using kvmm::ctl::Check;
using kvmm::ctl::Health;
using kvmm::ctl::Machine;

const Check* find(const std::vector<Check>& all, const std::string& name) {
  for (const Check& c : all) {
    if (c.name == name) {
      return &c;
    }
  }
  return nullptr;
}

// ------------------------------------------------------------------ a machine that is made up

class DoctorChecks : public ApiTest {
 protected:
  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = machine_.root + path;
    std::filesystem::create_directories(whole.parent_path());
    write_file(whole.string(), text + "\n");
  }
  using Checks = void (*)(const Machine&, std::vector<Check>*);
  void expect(Checks checks, const std::string& name, Health health, const std::string& mend) {
    std::vector<Check> all;
    checks(machine_, &all);
    const Check* const c = find(all, name);
    ASSERT_NE(c, nullptr) << name;
    EXPECT_EQ(c->health, health) << name << ": " << c->found;
    EXPECT_NE(c->mend.find(mend), std::string::npos) << c->mend;
    for (const Check& one : all) {  // what is not as it should be says what mends it
      EXPECT_EQ(one.mend.empty(), one.health == Health::kOk || one.health == Health::kNone)
          << one.name << ": " << one.mend;
    }
  }
  Machine machine_{std::filesystem::absolute(folder_.path()).string(), folder_.path()};
};

TEST_F(DoctorChecks, Limits) {
  using kvmm::ctl::check_limits;
  expect(check_limits, "max-map-count", Health::kNone, "");
  put("/proc/sys/vm/max_map_count", "65530");
  put("/proc/sys/vm/overcommit_memory", "0");
  expect(check_limits, "max-map-count", Health::kOk, "");
  expect(check_limits, "overcommit", Health::kOk, "");
  put("/proc/sys/vm/max_map_count", "1000");
  put("/proc/sys/vm/overcommit_memory", "2");
  expect(check_limits, "max-map-count", Health::kWarn, "sysctl -w vm.max_map_count=262144");
  expect(check_limits, "overcommit", Health::kWarn, "sysctl -w vm.overcommit_memory=0");
}

TEST_F(DoctorChecks, Nodes) {
  using kvmm::ctl::check_processors;
  expect(check_processors, "numa", Health::kNone, "");
  put("/sys/devices/system/node/node0/cpulist", "0-1");
  put("/proc/sys/kernel/numa_balancing", "1");
  expect(check_processors, "numa", Health::kOk, "");
  put("/sys/devices/system/node/node1/cpulist", "");
  expect(check_processors, "numa", Health::kWarn, "sysctl -w kernel.numa_balancing=0");
  std::vector<Check> all;
  check_processors(machine_, &all);
  EXPECT_EQ(find(all, "numa")->found.rfind("2 nodes, 1 without CPUs", 0), 0u);
  put("/proc/sys/kernel/numa_balancing", "0");
  expect(check_processors, "numa", Health::kOk, "");
}

TEST_F(DoctorChecks, HugePages) {
  using kvmm::ctl::check_kernel;
  expect(check_kernel, "huge-pages", Health::kNone, "");
  put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
  expect(check_kernel, "huge-pages", Health::kOk, "");
  put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
  expect(check_kernel, "huge-pages", Health::kWarn, "echo madvise");
}

TEST_F(DoctorChecks, Disk) {
  using kvmm::ctl::check_disk;
  expect(check_disk, "direct-io", Health::kOk, "");
  machine_.folder = "/nonexistent";
  expect(check_disk, "disk", Health::kBad, "--path DIR");
  machine_.folder = "/proc";
  expect(check_disk, "direct-io", Health::kBad, "--path DIR");
}

// ------------------------------------------------------------------ the program itself

// Runs `kvctl doctor --json` in a child after `before`; its verdicts, by name.
struct Report {
  int exit = -1;
  bool ok = false;
  std::map<std::string, std::string> verdicts, mends;
};

Report doctor_after(const std::function<void()>& before, std::vector<std::string> more = {}) {
  const int program = open(KVCTL_BINARY, O_RDONLY);  // its folder may be closed to nobody
  const Ended e = in_child([&] {
    before();
    std::vector<std::string> words = {"kvctl", "--json", "doctor"};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& w : words) {
      argv.push_back(w.data());
    }
    argv.push_back(nullptr);
    fexecve(program, argv.data(), environ);
  });
  close(program);
  Report r;
  r.exit = e.exit;
  const Json json = Json::parse(e.out, nullptr, false);
  if (json.is_discarded()) {
    ADD_FAILURE() << e.out;
    return r;
  }
  r.ok = json.at("ok").get<bool>();
  for (const Json& c : json.at("checks")) {
    const std::string name = c.at("name").get<std::string>();
    r.verdicts[name] = c.at("verdict").get<std::string>();
    r.mends[name] = c.at("mend").get<std::string>();
  }
  return r;
}

class Doctor : public ApiTest {};

TEST_F(Doctor, NothingIsBadWhereTheTestsRun) {
  const Report r = doctor_after([] {});
  EXPECT_EQ(r.exit, 0);
  EXPECT_TRUE(r.ok);
  for (const auto& [name, verdict] : r.verdicts) {
    EXPECT_NE(verdict, "bad") << name;
  }
  EXPECT_GE(r.verdicts.size(), 18u);
}

TEST_F(Doctor, IoUringThatCanBeMadeAndNotEntered) {
  for (const long call : {long{SYS_io_uring_setup}, long{SYS_io_uring_enter}}) {
    const Report r = doctor_after([call] { ASSERT_TRUE(forbid({{call, EPERM}})); });
    EXPECT_EQ(r.exit, 1);
    EXPECT_FALSE(r.ok);
    EXPECT_EQ(r.verdicts.at("uring-enters"), "bad");
    EXPECT_NE(r.mends.at("uring-enters").find("io_uring"), std::string::npos);
    EXPECT_EQ(r.verdicts.at("userfaultfd"), "ok");
  }
}

TEST_F(Doctor, NoUserfaultfd) {
  for (const int error : {EPERM, ENOSYS}) {
    const Report r = doctor_after([error] {
      ASSERT_TRUE(forbid({{SYS_userfaultfd, error}, {SYS_ioctl, EPERM, 1, 0xaa00}}));
    });
    EXPECT_EQ(r.exit, 1);
    EXPECT_EQ(r.verdicts.at("userfaultfd"), "bad");
    EXPECT_NE(r.mends.at("userfaultfd").find("seccomp"), std::string::npos);
    EXPECT_EQ(r.verdicts.at("move-carries"), "none");  // not tried, and not another red line
    EXPECT_EQ(r.verdicts.at("uring-enters"), "ok");
  }
}

TEST_F(Doctor, AnotherUser) {
  const Report r = doctor_after([] { ASSERT_TRUE(become_nobody()); }, {"--path", "/tmp"});
  const bool everybody = read_file("/proc/sys/vm/unprivileged_userfaultfd").substr(0, 1) == "1" ||
                         r.verdicts.at("userfaultfd") == "ok";
  EXPECT_EQ(r.exit, everybody ? 0 : 1);
  if (!everybody) {
    EXPECT_EQ(r.verdicts.at("userfaultfd"), "bad");
    EXPECT_NE(r.mends.at("userfaultfd").find("sysctl -w vm.unprivileged_userfaultfd=1"),
              std::string::npos);
  }
}

TEST_F(Doctor, FewDescriptorsAndNoSuchFolder) {
  const Report few = doctor_after([] {
    const rlimit r{64, 64};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &r), 0);
  });
  EXPECT_EQ(few.exit, 0);  // it works
  EXPECT_EQ(few.verdicts.at("open-files"), "warn");
  EXPECT_EQ(few.mends.at("open-files"), "ulimit -n 4096");
  const Report nowhere = doctor_after([] {}, {"--path", "/nonexistent"});
  EXPECT_EQ(nowhere.exit, 1);
  EXPECT_EQ(nowhere.verdicts.at("disk"), "bad");
}

}  // namespace
}  // namespace kvmm_api
