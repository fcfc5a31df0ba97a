// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the engine over kvmm share: a swap file to look into, the workload and its
// reference, and a fixture that opens a store, or skips where the machine refuses.
#pragma once

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
#include <utility>
#include <vector>

#include "tools/engines/tiny/engine.h"

namespace tiny {

inline constexpr uint64_t kMiB = 1 << 20;

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

inline Workload medium_work() {
  Workload work;
  work.seed = 5;
  work.sessions = 6;
  work.prompt_tokens = 100;
  work.tokens = 420;
  work.chunk_tokens = 16;
  return work;
}

// Computed once a program: the runs below share two workloads.
inline uint64_t reference_hash(const Workload& work) {
  static std::map<std::pair<uint64_t, uint64_t>, uint64_t> known;
  uint64_t& hash = known[{work.sessions, work.tokens}];
  if (hash == 0)
    hash = run_hash(run_reference(Model(work.seed), work));
  return hash;
}

class TinyEngine : public testing::TestWithParam<EngineKind> {
 protected:
  // Opens the store or skips where the machine refuses; in CI a refusal is a failure.
  std::unique_ptr<KvmmStore> open(const KvmmStoreOptions& options) {
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
inline void send_out(KvmmStore& store, uint32_t i) {
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

// Pins 32 tokens of one plane and waits until they are there.
inline kvmmpp::Pin pin_ready(KvmmStore& store, uint32_t session, uint32_t plane, uint32_t write,
                             uint64_t first_token) {
  const kvmm_pin_range range = {store.session(session).get(), plane, write, first_token,
                                first_token + 32};
  auto pin = kvmmpp::Pin::batch(store.runtime(), &range, 1);
  EXPECT_TRUE(pin.ok()) << pin.status().message();
  if (!pin)
    return kvmmpp::Pin();
  while (pin->answers()[0] == KVMM_PIN_COMING) {
    std::this_thread::yield();
    EXPECT_TRUE(pin->poll().ok());
  }
  EXPECT_EQ(pin->answers()[0], static_cast<uint32_t>(KVMM_PIN_READY));
  return *std::move(pin);
}

// The rows of one 4 KiB page of a sequence, from the reference.
inline std::vector<Row> page_rows(const Model& model, const Workload& work, uint32_t index,
                                  uint32_t plane, uint64_t first_token) {
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

inline std::string kind_name(const testing::TestParamInfo<EngineKind>& kind) {
  return kind.param == EngineKind::kPinning ? "pinning" : "faulting";
}

}  // namespace tiny
