// SPDX-License-Identifier: Apache-2.0
//
// A driver that cannot be loaded, or does what no driver may: a typed error that names its file,
// or, where there is no answer any more, the end of the process with a line that does.
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

std::string module_of(const std::string& kind) {
  return std::string(KVMM_BAD_DRIVERS) + "/libbad_driver_" + kind + ".so";
}

class OutOfTree : public ApiTest {
 protected:
  OutOfTree() {
    Options setup;
    setup.flags |= KVMM_RUNTIME_PIN_ONLY;  // no fault is needed here, so no right is either
    const kvmm_runtime_options options = runtime_options(setup);
    EXPECT_KVMM_OK(kvmm_runtime_open(&options, &runtime_));
  }
  ~OutOfTree() override { EXPECT_KVMM_OK(kvmm_runtime_close(runtime_)); }

  kvmm_status swapon(const std::string& driver, const std::string& options = "") {
    kvmm_swap_options o = kvmmpp::init<kvmm_swap_options>();
    o.path = "anything";
    o.bytes = 64 * kMi;
    o.driver = driver.c_str();
    o.driver_options = options.c_str();
    return kvmm_swapon_with(runtime_, &o);
  }
  kvmm_status does(const std::string& what) {
    return swapon(module_of("by_options"), "does=" + what);
  }
  kvmm_runtime* runtime_ = nullptr;
};

TEST_F(OutOfTree, AFileThatIsNoDriver) {
  EXPECT_REFUSED(swapon("/nonexistent/driver.so"), KVMM_ENOTFOUND, "/nonexistent/driver.so");
  EXPECT_REFUSED(swapon("./"), KVMM_EINVALID, "not a file");
  const std::string text = folder_.file("text.so");
  write_file(text, "not a shared object");
  ASSERT_EQ(chmod(text.c_str(), 0644), 0);
  EXPECT_REFUSED(swapon(text), KVMM_ENOTSUPPORTED, text);
  EXPECT_REFUSED(swapon(module_of("no_symbol")), KVMM_EINVALID, "no_symbol", "kvmm_driver_module");
}

TEST_F(OutOfTree, AFileThatOthersMayWrite) {
  const std::string mine = folder_.file("driver.so");
  std::filesystem::copy_file(module_of("by_options"), mine);
  for (const mode_t mode : {0775u, 0757u}) {
    ASSERT_EQ(chmod(mine.c_str(), mode), 0);
    EXPECT_REFUSED(swapon(mine), KVMM_EPERMISSION, mine, "chmod go-w");
  }
  ASSERT_EQ(chmod(mine.c_str(), 0755), 0);
  EXPECT_KVMM_OK(swapon(mine));
}

TEST_F(OutOfTree, MadeForAnotherKvmm) {
  EXPECT_REFUSED(swapon(module_of("other_abi")), KVMM_EVERSION,
                 "driver interface 2, and this is 1");
  EXPECT_REFUSED(swapon(module_of("other_layout")), KVMM_EVERSION, "other shapes");
}

TEST_F(OutOfTree, AFactoryThatFails) {
  EXPECT_REFUSED(swapon(module_of("factory_throws")), KVMM_ENOTSUPPORTED, "the factory burns");
  EXPECT_REFUSED(swapon(module_of("no_driver")), KVMM_ENOTSUPPORTED, "made no driver");
}

TEST_F(OutOfTree, ABindThatFails) {
  EXPECT_REFUSED(does("throw-from-bind"), KVMM_ENOTSUPPORTED, "by_options", "bind burns");
  EXPECT_REFUSED(does("throw-a-number"), KVMM_ENOTSUPPORTED, "no std::exception");
  EXPECT_REFUSED(does("throw-no-memory"), KVMM_ENOMEMORY, "by_options");
  EXPECT_REFUSED(does("bind-nothing"), KVMM_ENOTSUPPORTED, "without BlockOps");
  EXPECT_REFUSED(does("no-block"), KVMM_ENOTSUPPORTED, "without BlockOps");
  EXPECT_REFUSED(does("refuse"), KVMM_EDEVICEGONE, "the cable is out");
  EXPECT_REFUSED(swapon(module_of("by_options"), "speed=9"), KVMM_EINVALID, "speed=9", "does");
}

TEST_F(OutOfTree, ADeviceThatTheLayersAboveCannotUse) {
  for (const char* what :
       {"no-name", "odd-capacity", "odd-alignment", "short-requests", "no-depth"}) {
    EXPECT_REFUSED(does(what), KVMM_ENOTSUPPORTED, "BlockInfo");
  }
  EXPECT_REFUSED(does("no-space"), KVMM_ENOSPACE, "anything");
}

TEST_F(OutOfTree, RefusedOnesLeaveNothingAndTheNextIsTaken) {
  EXPECT_REFUSED(does("throw-from-bind"), KVMM_ENOTSUPPORTED, "bind burns");
  char names[256];
  EXPECT_EQ(kvmm_attr_get(runtime_, "swap/swap0/driver", names, sizeof names), KVMM_ENOTFOUND);
  EXPECT_KVMM_OK(does("nothing"));
  EXPECT_KVMM_OK(kvmm_attr_get(runtime_, "swap/swap1/driver", names, sizeof names));
  EXPECT_STREQ(names, "bad");
  EXPECT_KVMM_OK(kvmm_swapoff(runtime_, "anything"));
}

TEST_F(OutOfTree, NamesAndOptionsOfOurOwnDrivers) {
  EXPECT_REFUSED(swapon("floppy"), KVMM_ENOTFOUND, "floppy", "uring");
  EXPECT_REFUSED(swapon("uring", "depth=0"), KVMM_EINVALID, "depth=0");
  EXPECT_REFUSED(swapon(std::string(300, 'x')), KVMM_EINVALID, "255");
  kvmm_swap_options o = kvmmpp::init<kvmm_swap_options>();
  EXPECT_REFUSED(kvmm_swapon_with(runtime_, &o), KVMM_EINVALID, "path");
  o.size = 3;
  EXPECT_REFUSED(kvmm_swapon_with(runtime_, &o), KVMM_EINVALID, "KVMM_INIT");
  EXPECT_REFUSED(kvmm_swapon_with(runtime_, nullptr), KVMM_EINVALID, "KVMM_INIT");
}

TEST_F(OutOfTree, NamedWhenTheRuntimeOpens) {
  EXPECT_CHILD_OK(in_child([&] {
    Options setup;
    setup.flags |= KVMM_RUNTIME_PIN_ONLY;
    kvmm_runtime_options options = runtime_options(setup);
    const std::string driver = module_of("by_options");
    kvmm_runtime* runtime = nullptr;
    options.swap_path = "anything";
    options.swap_driver = driver.c_str();
    options.swap_driver_options = "does=refuse";
    EXPECT_REFUSED(kvmm_runtime_open(&options, &runtime), KVMM_EDEVICEGONE, "the cable is out");
    options.swap_driver_options = nullptr;
    ASSERT_KVMM_OK(kvmm_runtime_open(&options, &runtime));
    EXPECT_KVMM_OK(kvmm_runtime_close(runtime));
  }));
}

TEST(OutOfTreeDeath, WhatADeviceThrowsStopsTheProcess) {
  for (const auto& [what, text] : {std::pair("throw-from-submit", "submit: submit burns"),
                                   std::pair("take-too-many", "requests that it was offered")}) {
    const Ended e = in_child([w = std::string(what)] {
      Options setup;
      setup.flags |= KVMM_RUNTIME_PIN_ONLY;
      kvmm_runtime_options options = runtime_options(setup);
      const std::string driver = module_of("by_options");
      const std::string does = "does=" + w;
      options.swap_path = "anything";
      options.swap_driver = driver.c_str();
      options.swap_driver_options = does.c_str();
      kvmm_runtime* runtime = nullptr;
      (void)kvmm_runtime_open(&options, &runtime);
    });
    EXPECT_EQ(e.signal, SIGABRT) << e.out;
    EXPECT_NE(e.out.find(text), std::string::npos) << e.out;
  }
}

}  // namespace
}  // namespace kvmm_api
