// SPDX-License-Identifier: Apache-2.0
//
// A kvmm runtime with one raw session of N pages of one size, and what a benchmark does to it.
//
//   runtime (swap file in --dir, already unlinked) -- arena -- plane -- session: page 0 .. N-1
//
// Every page begins with a number that only it has; `touch` reads it, so that a page that came back
// wrong is a failure and not a figure.
//
// Thread safety: none; `touch` starts and joins threads of its own.
#pragma once

#include <kvmm/kvmm.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tools/kvbench/plain_file.h"

namespace kvmm::bench {

class TestBed {
 public:
  struct Config {
    std::string dir;
    uint64_t page_size;
    uint64_t pages;
  };
  // Everything in kvmm stays at its default, except that all pages fit into DRAM at once.
  // Throws Failure (77: this kernel or user cannot run kvmm).
  explicit TestBed(const Config& config);
  ~TestBed();
  TestBed(const TestBed&) = delete;
  TestBed& operator=(const TestBed&) = delete;

  uint64_t pages() const { return config_.pages; }
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
  // Pages [first, pages()) were never written.
  void clear_from(uint64_t first);
  kvmm_session_stat stats() const;

  // Reads one word of each page in this order from `threads` threads at once; a thread takes the
  // next page as soon as it has its own. Throws Failure: a page has not the bytes written to it.
  Pass touch(const std::vector<uint64_t>& order, unsigned threads);

 private:
  void release();

  Config config_;
  kvmm_runtime* runtime_ = nullptr;
  kvmm_arena* arena_ = nullptr;
  kvmm_session* session_ = nullptr;
  char* base_ = nullptr;
};

// Numbers [0, pages) in random order, the first `count` of them.
std::vector<uint64_t> random_pages(uint64_t pages, uint64_t count, uint64_t seed);

}  // namespace kvmm::bench
