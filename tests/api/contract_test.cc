// SPDX-License-Identifier: Apache-2.0
//
// What kvmm.h promises of arguments that fit the types and not each other: refused with a text
// before anything is changed, or done as it says.
#include <cstring>

#include "tests/api/rig.h"

namespace kvmm_api {
namespace {

class Contract : public ApiTest {
 protected:
  Options with_swap(uint32_t flags = 0) const {
    Options o;
    o.swap = folder_.file("swap");
    o.flags |= flags;
    return o;
  }
};

size_t count(const std::string& text, const std::string& word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    ++n;
  }
  return n;
}

TEST_F(Contract, ErrorTextsSayNothingTwice) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  // With a detail: that alone. Without: the status's sentence.
  EXPECT_REFUSED(kvmm_append(w.session(0), nullptr, 1), KVMM_EINVALID, "a raw session");
  EXPECT_EQ(std::string(kvmm_last_error()).find("invalid"), std::string::npos) << kvmm_last_error();
  EXPECT_EQ(kvmm_recompute_begin(w.session(0), 0, 1), KVMM_EINVALID);
  EXPECT_STREQ(kvmm_last_error(), kvmm_status_text(KVMM_EINVALID));
  EXPECT_KVMM_OK(kvmm_advise(w.session(0), KVMM_ADVISE_NORMAL));
  EXPECT_STREQ(kvmm_last_error(), "");
  kvmm_pin_range r{w.session(0), 0, 1, 0, KVMM_ALL_TOKENS};
  kvmm_pin* pin = nullptr;
  ASSERT_KVMM_OK(kvmm_pin_batch(w.runtime(), &r, 1, &pin, nullptr));
  const std::string busy = kvmmpp::Status::of(w.close_session(0)).message();
  EXPECT_EQ(count(busy, "busy:"), 1u) << busy;
  EXPECT_EQ(count(busy, "unpin first"), 1u) << busy;
  EXPECT_KVMM_OK(kvmm_unpin(pin, nullptr));
  const kvmmpp::Status bare = kvmmpp::Status::of(kvmm_recompute_begin(w.session(0), 0, 1));
  EXPECT_EQ(bare.message(), std::string("invalid: ") + kvmm_status_text(KVMM_EINVALID));
  // The errno is part of it, once.
  const kvmmpp::Status none =
      kvmmpp::Status::of(kvmm_swapon(w.runtime(), folder_.file("no/x").c_str(), 16 * kMi, 0));
  EXPECT_EQ(none.code(), KVMM_ENOTFOUND);
  EXPECT_EQ(count(none.detail(), "(errno 2: "), 1u) << none.detail();
  EXPECT_EQ(count(none.message(), "not_found:"), 1u) << none.message();
  EXPECT_EQ(kvmmpp::Status().message(), "ok: success");
}

TEST_F(Contract, PrioritiesOfSwapAreas) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap()));
  const std::string more = folder_.file("more");
  for (const int32_t p : {-32769, 32768, INT32_MIN, INT32_MAX}) {
    EXPECT_REFUSED(kvmm_swapon(w.runtime(), more.c_str(), 16 * kMi, p), KVMM_ERANGE, "-32768");
  }
  for (const int32_t p : {-32768, 32767}) {
    EXPECT_KVMM_OK(kvmm_swapon(w.runtime(), more.c_str(), 16 * kMi, p));
    char value[16] = "";
    EXPECT_KVMM_OK(kvmm_attr_get(w.runtime(), p < 0 ? "swap/swap1/priority" : "swap/swap2/priority",
                                 value, sizeof value));
    EXPECT_EQ(std::to_string(p), value);
    EXPECT_KVMM_OK(kvmm_swapoff(w.runtime(), more.c_str()));
  }
}

TEST_F(Contract, FaultingEnginesNeedFaults) {
  World w;
  ASSERT_KVMM_OK(w.open(with_swap(KVMM_RUNTIME_PIN_ONLY)));
  kvmm_arena* a = nullptr;
  EXPECT_REFUSED(kvmm_arena_create(w.runtime(), nullptr, &a), KVMM_ENOTSUPPORTED,
                 "KVMM_RUNTIME_PIN_ONLY", "KVMM_ENGINE_PINNING");
  EXPECT_EQ(a, nullptr);
  kvmm_arena_options o = kvmmpp::init<kvmm_arena_options>();
  o.engine = KVMM_ENGINE_PINNING;
  ASSERT_KVMM_OK(kvmm_arena_create(w.runtime(), &o, &a));
  EXPECT_KVMM_OK(kvmm_arena_destroy(a));
}

}  // namespace
}  // namespace kvmm_api
