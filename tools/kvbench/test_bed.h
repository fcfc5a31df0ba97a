// SPDX-License-Identifier: Apache-2.0
//
// A kvmm runtime with raw sessions of N pages of one size, and what a benchmark does to them.
//
//   runtime (swap file in --dir, already unlinked) -- arena -- plane --+-- session: page 0 .. N-1
//                     |                                                +-- session: page N .. 2N-1
//                     +-- the same file, opened again for plain reads
//
// Every page begins with a number that only it has, and random bytes follow. A touch looks at the
// number, `verify` at all of it: a page that came back wrong is a failure and not a figure.
//
// Thread safety: none; `touch` starts and joins threads of its own.
#pragma once

#include <kvmm/kvmm.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tools/kvbench/benchmark.h"
#include "tools/kvbench/plain_reads.h"

namespace kvmm::bench {

class TestBed {
 public:
  struct Config {
    uint64_t page_size;
    uint64_t pages;         // of a session
    uint32_t sessions = 1;  // one behind the other
    unsigned depth = 1;     // of plain reads
    bool control = false;   // with a control socket
  };
  // Everything in kvmm stays at its default, except that all pages fit into DRAM at once and that
  // the attributes of `options` are set. Throws Failure (77: this kernel or user cannot run kvmm).
  TestBed(const Options& options, const Config& config);
  ~TestBed();
  TestBed(const TestBed&) = delete;
  TestBed& operator=(const TestBed&) = delete;

  uint64_t pages() const { return config_.pages * config_.sessions; }
  uint64_t page_size() const { return config_.page_size; }
  char* page(uint64_t i) const { return base_ + i * config_.page_size; }

  // Sets an attribute. Throws Failure.
  void set(const char* path, const char* value);
  // Readahead, fault-around and resume-prefetch off: a touch brings its own page and no other.
  void set_one_page_a_fault();
  // Writes every page: its number, then random bytes.
  void fill();
  // Everything is in swap, clean and unmapped, and still in memory: the next touch is a minor
  // fault.
  void sync();
  // Everything is in swap and nothing in memory any more. Throws Failure: it does not come to that.
  void evict();
  // Pages [first, pages()) were never written. REQUIRES: one session.
  void clear_from(uint64_t first);
  // Sums over all sessions.
  kvmm_session_stat stats() const;

  // Reads one word of each page in this order from `threads` threads at once; a thread takes the
  // next page as soon as it has its own. Throws Failure: a page has not the bytes written to it.
  Pass touch(const std::vector<uint64_t>& order, unsigned threads);
  // One thread for each of `orders`, which touches those pages and no other.
  Pass touch_apart(const std::vector<std::vector<uint64_t>>& orders);
  // Compares all bytes of these pages with what was written. Throws Failure.
  void verify(const std::vector<uint64_t>& order) const;
  // The same pages read from the swap file. REQUIRES: filled and evicted before, not written since.
  Pass read_plainly(const std::vector<uint64_t>& order, unsigned depth);
  // The same, each page into memory of its own that stays, of the kind that frames of that size are
  // made of: 2 MiB pages, or 4 KiB ones for smaller frames. REQUIRES: `order` is never longer than
  // the first time.
  Pass read_and_keep(const std::vector<uint64_t>& order, unsigned depth);

 private:
  void open(const Options& options);
  void release();
  void locate();
  std::vector<PlainRead> reads_of(const std::vector<uint64_t>& order);

  Config config_;
  kvmm_runtime* runtime_ = nullptr;
  kvmm_arena* arena_ = nullptr;
  std::vector<kvmm_session*> sessions_;
  char* base_ = nullptr;
  std::vector<uint64_t> words_;  // of every page, but for the first
  std::unique_ptr<PlainReads> plain_, keeping_;
  std::vector<PlainRead> places_;  // of each page in the file; empty: not looked for yet
};

// Numbers [0, pages) in random order, the first `count` of them.
std::vector<uint64_t> random_pages(uint64_t pages, uint64_t count, uint64_t seed);

}  // namespace kvmm::bench
