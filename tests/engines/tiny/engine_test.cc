// SPDX-License-Identifier: Apache-2.0
//
// The test engine over kvmm memory: whatever happens to its pages, it generates what the reference
// does.
#include <gtest/gtest.h>

#include "tests/engines/tiny/engine_fixture.h"

namespace tiny {
namespace {

TEST_P(TinyEngine, EqualsReferenceWithoutSwap) {
  const Workload work = medium_work();
  const Model model(work.seed);
  OPEN_OR_SKIP(store, store_options(work));
  Engine engine(model, *store, {work, 4, 0, true});
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  EXPECT_GT(engine.reads_checked(), 0u);
  EXPECT_EQ(engine.counts().recomputes, 0u);
  for (uint32_t i = 0; i < work.sessions; ++i) {
    EXPECT_EQ(store->session(i).tokens(), engine.sequences()[i].written);
  }
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->swap_out_bytes, 0u);
  EXPECT_GE(stats->bytes_resident, work.sessions * (work.tokens - 1) * kBytesPerToken);
  ASSERT_OK(store->close());
}

TEST_P(TinyEngine, EqualsReferenceThroughEvictions) {
  const Workload work = medium_work();
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 4, 10, true});
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  EXPECT_GT(engine.counts().evictions, 0u);
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_GT(stats->swap_in_bytes, work.sessions * work.tokens * kBytesPerToken);
  EXPECT_EQ(stats->wrong_pages, 0u);
  ASSERT_OK(store->close());
}

// Six sessions of 705 tokens are 4 MiB; 2 MiB are there, which is room for a batch of two, not of
// three.
TEST_P(TinyEngine, EqualsReferenceInHalfTheMemory) {
  Workload work = medium_work();
  work.tokens = 705;
  work.prompt_tokens = 700;
  work.chunk_tokens = 100;
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  options.dram_bytes = 2 * kMiB;
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 3, 0, true});
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_LE(stats->bytes_resident, options.dram_bytes);
  EXPECT_GT(stats->swap_out_bytes, 2 * kMiB);
  EXPECT_EQ(engine.counts().batches_cut > 0, GetParam() == EngineKind::kPinning);
  EXPECT_GT(stats->swap_in_bytes, 0u);
  EXPECT_EQ(stats->wrong_pages, 0u);
  ASSERT_OK(store->close());
}

TEST_P(TinyEngine, EqualsReferenceWithOtherPageSizes) {
  Workload work = medium_work();
  work.sessions = 2;
  const Model model(work.seed);
  for (const uint64_t page_size : {16u << 10, 64u << 10}) {
    const SwapFile swap;
    KvmmStoreOptions options = store_options(work);
    options.swap_path = swap.path();
    options.page_size = page_size;
    OPEN_OR_SKIP(store, options);
    Engine engine(model, *store, {work, 2, 25, true});
    ASSERT_OK(engine.run(work.tokens));
    EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work)) << page_size;
    ASSERT_OK(store->close());
  }
}

TEST_P(TinyEngine, EqualsReferenceOnShareableFrames) {
  Workload work = medium_work();
  work.sessions = 2;
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  options.frames = "shareable";
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 2, 10, true});
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  ASSERT_OK(store->close());
}

// Negative controls: a value changed in memory behind everybody's back is caught by the checker,
// with its place; and without the checker the generated tokens show it.
TEST_P(TinyEngine, CheckerNamesAChangedValue) {
  Workload work = medium_work();
  work.sessions = 2;
  const Model model(work.seed);
  OPEN_OR_SKIP(store, store_options(work));
  Engine engine(model, *store, {work, 2, 0, true});
  ASSERT_OK(engine.run(150));
  store->view(1).address(k_plane(1), 140)[6] ^= 1;  // token 140 lies in the open page
  const kvmmpp::Status status = engine.run(work.tokens);
  EXPECT_EQ(status.code(), KVMM_ECORRUPT);
  ASSERT_TRUE(engine.mismatch());
  EXPECT_EQ(engine.mismatch()->session, 1u);
  EXPECT_EQ(engine.mismatch()->plane, k_plane(1));
  EXPECT_EQ(engine.mismatch()->token, 140u);
  EXPECT_NE(status.detail().find("session 1: k_l1 token 140"), std::string::npos);
}

TEST_P(TinyEngine, TokensShowAChangedValue) {
  Workload work = medium_work();
  work.sessions = 2;
  const Model model(work.seed);
  OPEN_OR_SKIP(store, store_options(work));
  Engine engine(model, *store, {work, 2, 0, false});
  ASSERT_OK(engine.run(150));
  store->view(1).address(v_plane(1), 140)[7] ^= 2;  // bit 9 of value 3
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_NE(run_hash(engine.sequences()), reference_hash(work));
}

INSTANTIATE_TEST_SUITE_P(Kinds, TinyEngine,
                         testing::Values(EngineKind::kFaulting, EngineKind::kPinning), kind_name);

class TinyPinning : public TinyEngine {};

// A runtime that never asks for userfaultfd serves a pinning engine all the same.
TEST_P(TinyPinning, EqualsReferenceWithoutUserfaultfd) {
  const Workload work = medium_work();
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  options.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_PIN_ONLY;
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 4, 10, true});
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  ASSERT_OK(store->close());
}

// A batch larger than the tier is cut into smaller ones; one sequence that alone is larger is a
// typed refusal.
TEST_P(TinyPinning, OneSequenceLargerThanTheTierIsRefused) {
  Workload work = medium_work();
  work.sessions = 1;
  work.prompt_tokens = 2500;
  work.chunk_tokens = 64;
  work.tokens = 2600;  // 2,600 KiB
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  options.dram_bytes = 2 * kMiB;
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 2, 0, false});
  const kvmmpp::Status status = engine.run(work.tokens);
  EXPECT_EQ(status.code(), KVMM_ENOMEMORY) << status.message();
  EXPECT_GT(engine.sequences()[0].written, 1024u);
  EXPECT_LE(engine.sequences()[0].written, 2048u);
  EXPECT_GT(engine.counts().batches_cut, 0u);
}

// A pin that is still open keeps its session open; the session closes once it is gone.
TEST_P(TinyPinning, SessionWithAPinStaysOpen) {
  Workload work = medium_work();
  work.sessions = 1;
  OPEN_OR_SKIP(store, store_options(work));
  const kvmm_pin_range range = {store->session(0).get(), KVMM_ALL_PLANES, 1, 0, 16};
  auto pin = kvmmpp::Pin::batch(store->runtime(), &range, 1);
  ASSERT_TRUE(pin.ok()) << pin.status().message();
  EXPECT_EQ(store->session(0).close().code(), KVMM_EBUSY);
  EXPECT_TRUE(static_cast<bool>(store->session(0)));
  ASSERT_OK(pin->unpin());
  ASSERT_OK(store->close());
}

INSTANTIATE_TEST_SUITE_P(Kinds, TinyPinning, testing::Values(EngineKind::kPinning), kind_name);

}  // namespace
}  // namespace tiny
