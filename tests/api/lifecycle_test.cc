// SPDX-License-Identifier: Apache-2.0
//
// Runtimes that come and go: several in one process, and a hundred one after another that leave
// neither a descriptor, nor a thread, nor memory.
#include <cstdio>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Lifecycle : public ApiTest {};

uint64_t address_space_bytes() {
  unsigned long long pages = 0;
  if (FILE* f = std::fopen("/proc/self/statm", "re")) {
    EXPECT_EQ(std::fscanf(f, "%llu", &pages), 1);
    std::fclose(f);
  }
  return pages * 4096;
}

TEST_F(Lifecycle, SeveralRuntimesKnowNothingOfEachOther) {
  ASSERT_EQ(setenv("XDG_RUNTIME_DIR", folder_.path().c_str(), 1), 0);
  World worlds[3];
  for (int i = 0; i < 3; ++i) {
    Options o;
    o.flags = 0;
    o.swap = folder_.file("swap" + std::to_string(i));
    o.frames = i == 1 ? "shareable" : "movable";
    ASSERT_KVMM_OK(worlds[i].open(o));
  }
  for (uint32_t lane = 0; lane < 4; ++lane) {
    for (uint32_t i = 0; i < 3; ++i) {
      ASSERT_NE(worlds[i].session(lane), nullptr);
      worlds[i].fill(lane, 10 + i);
    }
  }
  ASSERT_KVMM_OK(worlds[2].close());
  for (uint32_t lane = 0; lane < 4; ++lane) {
    EXPECT_TRUE(worlds[0].holds(lane, 10));
    EXPECT_TRUE(worlds[1].holds(lane, 11));
  }
}

TEST_F(Lifecycle, AHundredRuntimesLeaveNothing) {
  ASSERT_EQ(setenv("XDG_RUNTIME_DIR", folder_.path().c_str(), 1), 0);
  size_t descriptors = 0;
  uint64_t bytes = 0;
  for (int i = 0; i < 100; ++i) {
    {
      World w;
      Options o;
      o.flags = i % 2 == 0 ? 0 : KVMM_RUNTIME_NO_CONTROL;
      o.swap = folder_.file("swap");
      o.frames = i % 3 == 0 ? "shareable" : "movable";
      ASSERT_KVMM_OK(w.open(o)) << "round " << i;
      ASSERT_NE(w.session(0), nullptr);
      w.base(0)[0] = 1;
      w.base(0)[100 * kKi] = 2;
      if (i % 4 == 0) {
        ASSERT_TRUE(w.send_out(0));
        EXPECT_EQ(w.base(0)[100 * kKi], 2);
      }
    }
    ASSERT_TRUE(threads_become(1)) << "round " << i;
    if (i == 10) {
      descriptors = open_descriptors();
      bytes = address_space_bytes();
    }
  }
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_LE(address_space_bytes(), bytes + 16 * kMi);
}

// A refused opening leaves nothing either, however far it came.
TEST_F(Lifecycle, AHundredRefusedOpeningsLeaveNothing) {
  const std::string foreign = folder_.file("foreign");
  write_file(foreign, std::string(kMi, 'x'));
  size_t descriptors = 0;
  for (int i = 0; i < 100; ++i) {
    {
      World w;
      Options o;
      o.swap = i % 2 == 0 ? foreign : folder_.file("no/where");
      EXPECT_NE(w.open(o), KVMM_OK);
    }
    ASSERT_TRUE(threads_become(1)) << "round " << i;
    descriptors = i == 10 ? open_descriptors() : descriptors;
  }
  EXPECT_EQ(open_descriptors(), descriptors);
}

}  // namespace
}  // namespace kvmm_api
