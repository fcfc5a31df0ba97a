// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/check.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "runtime/base/units.h"

namespace kvmm {
namespace {

TEST(Check, LetsTheTruthPass) {
  check(true, "truth");
  check(true, "truth with operands", Pfn(1), 2);
}

TEST(CheckDeathTest, StopsWithOperandsAndPlace) {
  EXPECT_DEATH(check(false, "the moon is cheese"),
               "kvmm: check failed: the moon is cheese at .*check_test.cc:[0-9]+");
  EXPECT_DEATH(check(false, "frames agree", Pfn(7), Pfn(255)),
               "frames agree: 7 \\(0x7\\) against 255 \\(0xff\\) at .*check_test.cc");
}

enum class Colour : uint8_t { kRed = 3 };

TEST(Check, TakesOperandsOfAllKinds) {
  EXPECT_EQ(check_operand(Colour::kRed), 3U);
  EXPECT_EQ(check_operand(Bytes(9)), 9U);
  EXPECT_EQ(check_operand(-1), UINT64_MAX);
  const int x = 0;
  EXPECT_EQ(check_operand(&x), reinterpret_cast<uint64_t>(&x));
}

void leave_with_a_code(const char* what) noexcept {
  _exit(what[0] == 'h' ? 42 : 1);
}

TEST(CheckDeathTest, CallsTheHookBeforeItStops) {
  EXPECT_EXIT(
      {
        set_check_hook(&leave_with_a_code);
        check(false, "hook");
      },
      testing::ExitedWithCode(42), "check failed: hook");
}

TEST(CheckDeathTest, CutsALongLine) {
  const std::string longer(2000, 'x');
  EXPECT_DEATH(check(false, longer.c_str()), "check failed: xxxx");
}

}  // namespace
}  // namespace kvmm
