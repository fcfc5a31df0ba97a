// SPDX-License-Identifier: Apache-2.0
//
// The test engine over a swap file that is damaged behind its back: it is told, computes the lost
// tokens again, and generates what the reference does.
#include <gtest/gtest.h>

#include "tests/engines/tiny/engine_fixture.h"

namespace tiny {
namespace {

class TinyDamage : public TinyEngine {};

// Pages on disk are damaged while no frame holds them: the engine is told, computes them again, and
// goes on as if nothing had been. Damaged are one page alone, and in one session pages of two
// planes of which the later ranges need the earlier.
TEST_P(TinyDamage, RecomputesDamagedPages) {
  const Workload work = medium_work();
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 4, 0, true});
  ASSERT_OK(engine.run(200));
  for (uint32_t i = 0; i < work.sessions; ++i)
    ASSERT_NO_FATAL_FAILURE(send_out(*store, i));

  struct Damage {
    uint32_t session, plane;
    uint64_t first_token;
  };
  const Damage damages[] = {
      {0, v_plane(1), 32}, {2, k_plane(3), 128}, {2, k_plane(0), 64}, {2, v_plane(2), 64}};
  for (const Damage& d : damages) {
    const off_t at = swap.find(page_rows(model, work, d.session, d.plane, d.first_token));
    ASSERT_GE(at, 0) << "the page is not on disk as it was written";
    swap.flip(at, 77);
  }
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->wrong_pages, 4u);
  EXPECT_EQ(stats->bytes_discarded, 0u);
  EXPECT_EQ(stats->seal_violations, 0u);
  EXPECT_GE(engine.counts().recomputes, 3u);
  EXPECT_EQ(engine.counts().recomputed_tokens % 32, 0u);
  EXPECT_GE(engine.counts().recomputed_tokens, 96u);

  // What was computed again is content like any other: it goes out and comes back.
  for (uint32_t i = 0; i < work.sessions; ++i)
    ASSERT_NO_FATAL_FAILURE(send_out(*store, i));
  ASSERT_OK(engine.run(work.tokens + 5));
  stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->wrong_pages, 4u);
  ASSERT_OK(store->close());
}

// Two intact pages in each other's place: right checksums, wrong owner.
TEST_P(TinyDamage, RecomputesExchangedPages) {
  const Workload work = medium_work();
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 4, 0, true});
  ASSERT_OK(engine.run(160));
  for (uint32_t i = 0; i < work.sessions; ++i)
    ASSERT_NO_FATAL_FAILURE(send_out(*store, i));
  const off_t a = swap.find(page_rows(model, work, 1, k_plane(2), 96));
  const off_t b = swap.find(page_rows(model, work, 4, k_plane(2), 96));
  ASSERT_GE(a, 0);
  ASSERT_GE(b, 0);
  const std::vector<char> page_a = swap.read(a);
  swap.write(a, swap.read(b));
  swap.write(b, page_a);
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  EXPECT_EQ(engine.counts().recomputed_tokens, 64u);
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->wrong_pages, 2u);
  ASSERT_OK(store->close());
}

// The open page is damaged: it holds the last tokens and room for the next.
TEST_P(TinyDamage, RecomputesADamagedOpenPage) {
  Workload work = medium_work();
  work.sessions = 1;
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 1, 0, true});
  ASSERT_OK(engine.run(150));
  ASSERT_EQ(engine.sequences()[0].written, 149u);
  ASSERT_NO_FATAL_FAILURE(send_out(*store, 0));
  std::vector<Row> rows = page_rows(model, work, 0, v_plane(3), 128);
  for (size_t i = 149 - 128; i < rows.size(); ++i)
    rows[i].fill(0);  // not written yet
  const off_t at = swap.find(rows);
  ASSERT_GE(at, 0);
  swap.flip(at, 5);
  ASSERT_OK(engine.run(work.tokens));
  EXPECT_EQ(run_hash(engine.sequences()), reference_hash(work));
  EXPECT_EQ(engine.counts().recomputes, 1u);
  EXPECT_EQ(engine.counts().recomputed_tokens, 149u - 128u);
  ASSERT_OK(store->close());
}

// A sealed page that is written all the same is counted, and what was written last is kept.
TEST_P(TinyDamage, WritesToSealedPagesAreCounted) {
  Workload work = medium_work();
  work.sessions = 1;
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 1, 0, true});
  ASSERT_OK(engine.run(129));
  ASSERT_NO_FATAL_FAILURE(send_out(*store, 0));
  char* value = store->view(0).address(v_plane(2), 70);
  {
    const kvmmpp::Pin pin = pin_ready(*store, 0, v_plane(2), 0, 64);
    *value = static_cast<char>(*value ^ 1);
  }
  const char changed = [&] {
    const kvmmpp::Pin pin = pin_ready(*store, 0, v_plane(2), 0, 64);
    return *value;
  }();
  ASSERT_NO_FATAL_FAILURE(send_out(*store, 0));
  auto stats = store->stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->seal_violations, 1u);
  {
    const kvmmpp::Pin pin = pin_ready(*store, 0, v_plane(2), 0, 64);
    EXPECT_EQ(*value, changed);
  }
  ASSERT_OK(store->close());
}

INSTANTIATE_TEST_SUITE_P(Kinds, TinyDamage,
                         testing::Values(EngineKind::kFaulting, EngineKind::kPinning), kind_name);

}  // namespace
}  // namespace tiny
