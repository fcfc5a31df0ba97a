// SPDX-License-Identifier: Apache-2.0
//
// The test engine over kvmm memory: whatever happens to its pages, it generates what the reference
// does.
#include "tools/engines/tiny/engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>

namespace tiny {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A swap file of this test's own, gone afterwards.
class SwapFile {
 public:
  SwapFile()
      : path_(testing::TempDir() + "kvmm-tiny-" + std::to_string(::getpid()) + "-" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    for (char& c : path_)
      c = c == '/' && &c > path_.data() + testing::TempDir().size() ? '_' : c;
    ::unlink(path_.c_str());
  }
  ~SwapFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

  // Offset of the 4 KiB that hold `rows` (32 of them), or -1.
  off_t find(const std::vector<Row>& rows) const {
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat st {};
    ::fstat(fd, &st);
    std::vector<char> page(4096);
    off_t found = -1;
    for (off_t at = 0; found < 0 && at + 4096 <= st.st_size; at += 4096) {
      const ssize_t n = ::pread(fd, page.data(), page.size(), at);
      if (n == 4096 && std::memcmp(page.data(), rows.data(), 4096) == 0)
        found = at;
    }
    ::close(fd);
    return found;
  }
  // Reads or writes 4 KiB behind the runtime's back.
  std::vector<char> read(off_t at) const {
    std::vector<char> page(4096);
    const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, page.data(), page.size(), at), 4096);
    ::close(fd);
    return page;
  }
  void write(off_t at, const std::vector<char>& page) const {
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(::pwrite(fd, page.data(), page.size(), at), 4096);
    EXPECT_EQ(::fsync(fd), 0);
    ::close(fd);
  }
  void flip(off_t at, size_t byte) const {
    std::vector<char> page = read(at);
    page[byte] = static_cast<char>(page[byte] ^ 1);
    write(at, page);
  }

 private:
  std::string path_;
};

Workload medium_work() {
  Workload work;
  work.seed = 5;
  work.sessions = 6;
  work.prompt_tokens = 100;
  work.tokens = 420;
  work.chunk_tokens = 16;
  return work;
}

// Computed once a program: the runs below share two workloads.
uint64_t reference_hash(const Workload& work) {
  static std::map<std::pair<uint64_t, uint64_t>, uint64_t> known;
  uint64_t& hash = known[{work.sessions, work.tokens}];
  if (hash == 0)
    hash = run_hash(run_reference(Model(work.seed), work));
  return hash;
}

class TinyEngine : public testing::TestWithParam<EngineKind> {
 protected:
  // Opens the store or skips where the machine refuses; in CI a refusal is a failure.
  std::unique_ptr<KvmmStore> open(KvmmStoreOptions options) {
    auto store = KvmmStore::open(options);
    if (store)
      return *std::move(store);
    const kvmm_status code = store.status().code();
    refused_ =
        (code == KVMM_EPERMISSION || code == KVMM_ENOTSUPPORTED) && std::getenv("CI") == nullptr;
    why_ = store.status().message();
    return nullptr;
  }
  KvmmStoreOptions store_options(const Workload& work) const {
    KvmmStoreOptions options;
    options.kind = GetParam();
    options.seed = work.seed;
    options.sessions = work.sessions;
    options.lane_tokens = work.tokens + work.chunk_tokens;
    options.dram_bytes = 32 * kMiB;
    options.swap_bytes = 64 * kMiB;
    return options;
  }

  bool refused_ = false;
  std::string why_;
};

#define OPEN_OR_SKIP(store, options)                \
  std::unique_ptr<KvmmStore> store = open(options); \
  if (store == nullptr && refused_) {               \
    GTEST_SKIP() << why_;                           \
  }                                                 \
  ASSERT_NE(store, nullptr) << why_

#define ASSERT_OK(status_expression)                    \
  do {                                                  \
    const kvmmpp::Status status_ = (status_expression); \
    ASSERT_TRUE(status_.ok()) << status_.message();     \
  } while (false)

// Everything of session `i` on disk and no frame held.
void send_out(KvmmStore& store, uint32_t i) {
  auto synced = store.session(i).sync();
  ASSERT_TRUE(synced.ok()) << synced.status().message();
  ASSERT_OK(store.session(i).advise(KVMM_ADVISE_EVICT));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    auto stat = store.session(i).stats();
    ASSERT_TRUE(stat.ok());
    if (stat->bytes_resident == 0)
      return;
    ASSERT_LT(std::chrono::steady_clock::now(), deadline)
        << stat->bytes_resident << " bytes of session " << i << " stay resident";
    std::this_thread::yield();
  }
}

// The rows of one 4 KiB page of a sequence, from the reference.
std::vector<Row> page_rows(const Model& model, const Workload& work, uint32_t index, uint32_t plane,
                           uint64_t first_token) {
  PlainView kv;
  Sequence seq = make_sequence(work, index);
  while (seq.written < first_token + 32) {
    const uint64_t n = next_step(work, seq, work.tokens);
    if (n == 0 || advance(model, n, kv, &seq) != Access::kOk)
      break;
  }
  std::vector<Row> rows;
  for (uint64_t t = first_token; t < first_token + 32; ++t)
    rows.push_back(*kv.at(plane, t));
  return rows;
}

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
  EXPECT_EQ(stats->seal_violations, 0u);
  ASSERT_OK(store->close());
}

// Six sessions of 1,000 tokens are 6 MiB; 2 MiB are there.
TEST_P(TinyEngine, EqualsReferenceInAThirdOfTheMemory) {
  Workload work = medium_work();
  work.tokens = 1000;
  work.prompt_tokens = 900;
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
  EXPECT_GT(stats->swap_out_bytes, 3 * kMiB);
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

// Pages on disk are damaged while no frame holds them: the engine is told, computes them again, and
// goes on as if nothing had been. Damaged are one page alone, and in one session pages of two
// planes of which the later ranges need the earlier.
TEST_P(TinyEngine, RecomputesDamagedPages) {
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
TEST_P(TinyEngine, RecomputesExchangedPages) {
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
TEST_P(TinyEngine, RecomputesADamagedOpenPage) {
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
                         testing::Values(EngineKind::kFaulting, EngineKind::kPinning),
                         [](const auto& kind) {
                           return kind.param == EngineKind::kPinning ? "pinning" : "faulting";
                         });

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
  work.sessions = 2;
  work.prompt_tokens = 2500;
  work.tokens = 3000;  // 3,000 KiB
  const Model model(work.seed);
  const SwapFile swap;
  KvmmStoreOptions options = store_options(work);
  options.swap_path = swap.path();
  options.dram_bytes = 2 * kMiB;
  OPEN_OR_SKIP(store, options);
  Engine engine(model, *store, {work, 2, 0, false});
  const kvmmpp::Status status = engine.run(work.tokens);
  EXPECT_EQ(status.code(), KVMM_ENOMEMORY) << status.message();
  EXPECT_GT(engine.sequences()[0].written, 500u);
  EXPECT_LT(engine.sequences()[0].written, 2048u);
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

INSTANTIATE_TEST_SUITE_P(Kinds, TinyPinning, testing::Values(EngineKind::kPinning),
                         [](const auto&) { return "pinning"; });

}  // namespace
}  // namespace tiny
