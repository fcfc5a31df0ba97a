// SPDX-License-Identifier: Apache-2.0
//
// System calls of the engine on pages that are not there. While write(2) copies such a page into a
// pipe it holds the pipe, and waits for our handler: who serves the fault must not wait for that
// pipe. So stdout and stderr, where the runtime prints what it has to say, are that very pipe.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ostream>

#include "tests/stress/stress_world.h"

namespace kvmm_stress {
namespace {

struct Case {
  const char* name;
  uint64_t page;
  const char* frames;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

// Bytes of KV have the high bit, letters of messages have not.
unsigned char kv_byte(uint64_t i, uint64_t round) {
  return static_cast<unsigned char>(0x80 | ((i * 7 + i / 4096 + round * 13) & 0x7f));
}

// Descriptors 1 and 2 are `to` for as long as this lives.
class OutputTo {
 public:
  explicit OutputTo(int to) : out_(dup(1)), err_(dup(2)) {
    dup2(to, 1);
    dup2(to, 2);
  }
  ~OutputTo() {
    dup2(out_, 1);
    dup2(err_, 2);
    ::close(out_);
    ::close(err_);
  }
  OutputTo(const OutputTo&) = delete;
  OutputTo& operator=(const OutputTo&) = delete;

 private:
  int out_, err_;
};

class Pipe : public ::testing::TestWithParam<Case> {};

TEST_P(Pipe, AnEngineWritesMissingPagesToThePipeThatWePrintTo) {
  const Case& c = GetParam();
  StressOptions o;
  o.page = c.page;
  o.frames = c.frames;
  o.dram = 8 * kMi;
  o.lane_bytes = 4 * kMi;
  o.token = c.page / 4;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  w.open(0);
  w.open(1);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  constexpr uint64_t kRounds = 4;
  const uint64_t tokens = o.lane_bytes / o.token;

  std::vector<unsigned char> kv;
  std::string said;
  std::thread reader([&] {
    std::vector<unsigned char> bytes(4096);
    for (ssize_t n = 0; (n = read(ends[0], bytes.data(), bytes.size())) > 0;) {
      for (ssize_t i = 0; i < n; ++i) {
        const unsigned char b = bytes[static_cast<size_t>(i)];
        if (b >= 0x80) {
          kv.push_back(b);
        } else {
          said.push_back(static_cast<char>(b));
        }
      }
    }
  });
  uint64_t written = 0;
  {
    OutputTo output(ends[1]);
    // Lane 1 breaks its promise not to write to sealed pages: each time the runtime says so.
    std::memset(w.base(1), 1, o.lane_bytes);
    EXPECT_EQ(kvmm_append(w.session(1), nullptr, tokens), KVMM_OK);
    w.evict(1);
    for (uint64_t round = 0; round < kRounds; ++round) {
      for (uint64_t i = 0; i < o.lane_bytes; ++i) {
        w.base(0)[i] = kv_byte(i, round);
      }
      w.evict(0);
      for (uint64_t at = 0; at < o.lane_bytes; at += c.page) {
        w.base(1)[at] = static_cast<unsigned char>(2 + round);
      }
      EXPECT_EQ(kvmm_advise(w.session(1), KVMM_ADVISE_EVICT), KVMM_OK);
      for (uint64_t at = 0; at < o.lane_bytes;) {
        const ssize_t n = write(ends[1], w.base(0) + at, o.lane_bytes - at);
        if (n <= 0) {
          ADD_FAILURE() << "write: " << std::strerror(errno);
          break;
        }
        at += static_cast<uint64_t>(n);
        written += static_cast<uint64_t>(n);
      }
    }
  }
  const uint64_t in = w.stat(0).swap_in_bytes;
  const uint64_t violations = w.stat(1).seal_violations;
  // The runtime may be in the middle of a message: only its end closes the pipe for good.
  ::close(ends[1]);
  reader.join();
  ::close(ends[0]);
  ASSERT_EQ(written, kRounds * o.lane_bytes);
  ASSERT_EQ(kv.size(), written);
  uint64_t wrong = 0;
  for (uint64_t i = 0; i < kv.size(); ++i) {
    wrong += kv[i] != kv_byte(i % o.lane_bytes, i / o.lane_bytes) ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GE(in, kRounds * o.lane_bytes * 3 / 4) << "the pages were missing when they were written";
  EXPECT_GT(violations, 0u);
  EXPECT_NE(said.find("kvmm: "), std::string::npos) << "nothing was printed to the pipe";
}

TEST_P(Pipe, TheKernelFillsMissingPagesFromAPipe) {
  const Case& c = GetParam();
  StressOptions o;
  o.page = c.page;
  o.frames = c.frames;
  o.dram = 4 * kMi;
  o.lane_bytes = 8 * kMi;
  StressWorld w(o);
  ASSERT_TRUE(w.ok());
  w.open(0);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  for (uint64_t round = 0; round < 2; ++round) {
    std::thread writer([&] {
      std::vector<unsigned char> bytes(64 * kKi);
      for (uint64_t at = 0; at < o.lane_bytes; at += bytes.size()) {
        for (uint64_t i = 0; i < bytes.size(); ++i) {
          bytes[i] = kv_byte(at + i, round);
        }
        for (uint64_t sent = 0; sent < bytes.size();) {
          const ssize_t n = write(ends[1], bytes.data() + sent, bytes.size() - sent);
          if (n <= 0) {
            ADD_FAILURE() << "write: " << std::strerror(errno);
            return;
          }
          sent += static_cast<uint64_t>(n);
        }
      }
    });
    for (uint64_t at = 0; at < o.lane_bytes;) {
      const ssize_t n = read(ends[0], w.base(0) + at, o.lane_bytes - at);
      if (n <= 0) {
        ADD_FAILURE() << "read: " << std::strerror(errno);
        break;
      }
      at += static_cast<uint64_t>(n);
    }
    writer.join();
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < o.lane_bytes; ++i) {
      wrong += w.base(0)[i] != kv_byte(i, round) ? 1 : 0;
    }
    EXPECT_EQ(wrong, 0u) << "round " << round;
  }
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_GE(w.stat(0).swap_in_bytes, 2 * o.dram);
  EXPECT_GE(w.stat(0).swap_out_bytes, 2 * o.dram);
}

INSTANTIATE_TEST_SUITE_P(Pages, Pipe,
                         ::testing::Values(Case{"movable_4k", 4 * kKi, "movable"},
                                           Case{"movable_2m", 2 * kMi, "movable"},
                                           Case{"shareable_64k", 64 * kKi, "shareable"}),
                         [](const auto& i) { return i.param.name; });

}  // namespace
}  // namespace kvmm_stress
