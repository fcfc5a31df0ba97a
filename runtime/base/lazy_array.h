// SPDX-License-Identifier: Apache-2.0
//
// An array of zero-initialised values whose memory the kernel commits page by page on first touch.
//
//   capacity 1,000,000 entries, three used:   |x..|....|..xx|....|   12 KiB resident, not 64 MiB
//
// The page tables and frame tables are such arrays: indexing is one addition, nothing is allocated
// on the fault path, and a reserved but never used lane costs no memory.
//
// Invariants: every entry reads as all zero bytes until it is written. T is trivially copyable or
// at least valid when its bytes are all zero; destructors of entries are not run. Thread safety: as
// an array.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/result.h"

namespace kvmm {

template <class T>
class LazyArray {
 public:
  LazyArray() = default;
  LazyArray(LazyArray&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  LazyArray& operator=(LazyArray&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~LazyArray() {
    if (data_ != nullptr) {
      munmap(data_, bytes());
    }
  }

  // Errors: kNoMemory (address space).
  static Result<LazyArray> create(size_t size) {
    LazyArray a;
    if (size != 0) {
      void* p = mmap(nullptr, size * sizeof(T), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) {
        return Errc::kNoMemory;
      }
      a.data_ = static_cast<T*>(p);
      a.size_ = size;
    }
    return a;
  }

  size_t size() const { return size_; }
  T& operator[](size_t i) {
    check(i < size_, "index inside the array", i, size_);
    return data_[i];
  }
  const T& operator[](size_t i) const {
    check(i < size_, "index inside the array", i, size_);
    return data_[i];
  }
  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  size_t bytes() const { return size_ * sizeof(T); }
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvmm
