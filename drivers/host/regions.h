// SPDX-License-Identifier: Apache-2.0
//
// What the host driver itself put where: one byte for each 4 KiB of a reserved range or frame area.
//
//   range  |E E F F F F P E ...|      E empty: a touch is a fault
//   frames |F F E E E E F F ...|      F full: a page of ours (also if Linux swapped it out)
//                                     P poison: a touch is SIGBUS
//
// The kernel knows the same, but cannot tell an unprivileged process a marker from a page that went
// to its swap; and clearing the second for the first would lose KV. So the driver asks its own book
// before it drops anything, and refuses a double map without a system call (a huge move that fails
// in the kernel would split the frame).
//
// Invariants: a byte changes only after the kernel did what it says; `full()` is the number of full
// granules. Regions of one map do not overlap.
// Thread safety: serialised by the caller, except that one map may be searched by any thread while
// nobody adds or removes (HostMoveMmu guards that with a mutex).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/base/lazy_array.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace kvmm {

enum class Granule : uint8_t { kEmpty = 0, kFull = 1, kPoison = 2 };

class Region {
 public:
  static Result<std::unique_ptr<Region>> create(uint64_t start, uint64_t length);

  uint64_t start() const { return start_; }
  uint64_t length() const { return length_; }
  uint64_t end() const { return start_ + length_; }
  uint64_t full() const { return full_; }
  bool contains(uint64_t start, uint64_t length) const {
    return start >= start_ && length <= length_ && start - start_ <= length_ - length;
  }

  // REQUIRES of all: contains(start, length), both multiples of 4 KiB.
  bool all(uint64_t start, uint64_t length, Granule state) const;
  bool any(uint64_t start, uint64_t length, Granule state) const;
  void set(uint64_t start, uint64_t length, Granule state);

  // Frame areas of huge frames: which 2 MiB are known to be no huge page.
  bool split(uint64_t start) const { return split_[block(start)] != 0; }
  void set_split(uint64_t start, bool split) { split_[block(start)] = split ? 1 : 0; }

  // Frame areas: the NUMA node that they are bound to.
  NodeId node() const { return node_; }
  void set_node(NodeId node) { node_ = node; }

  // Shared memory: the descriptor, and the address of the always-mapped alias of start().
  int memfd = -1;
  uint64_t alias = 0;

 private:
  Region(uint64_t start, uint64_t length, LazyArray<uint8_t> granules, LazyArray<uint8_t> split)
      : start_(start), length_(length), granules_(std::move(granules)), split_(std::move(split)) {}
  size_t index(uint64_t a) const { return (a - start_) / kPageSizeMin.value(); }
  size_t block(uint64_t a) const { return (a - start_) / kPageSizeMax.value(); }

  const uint64_t start_, length_;
  LazyArray<uint8_t> granules_;  // a Granule each
  LazyArray<uint8_t> split_;     // one for each 2 MiB
  uint64_t full_ = 0;
  NodeId node_;
};

class RegionMap {
 public:
  Region* add(std::unique_ptr<Region> region);
  // Takes out the region that starts at `start`, null if there is none.
  std::unique_ptr<Region> remove(uint64_t start);
  // The region that holds all of [start, start + length), or null. Logarithmic.
  Region* find(uint64_t start, uint64_t length) const;
  const std::vector<std::unique_ptr<Region>>& regions() const { return regions_; }

 private:
  std::vector<std::unique_ptr<Region>> regions_;  // by start
};

}  // namespace kvmm
