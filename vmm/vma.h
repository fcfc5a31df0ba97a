// SPDX-License-Identifier: Apache-2.0
//
// A VMA maps a range of addresses of one session to a range of pages of one object, with one page
// size; its page table is the array of its PTEs.
//
//   address space  [start ............................. end)
//                   |  PTE 0  |  PTE 1  |  PTE 2  | ...          page_size each
//   object          page first, first+1, first+2, ...
//
// rmap: an object lists the VMAs that map it (`Object::vmas`), so the PTEs of a page are found by
// arithmetic, as Linux does for files; no per-page reverse pointers are stored.
//
// Thread safety: guarded by the core lock. Ownership: the address space owns its VMAs.
#pragma once

#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>

#include "drivers/ops.h"
#include "runtime/base/lazy_array.h"
#include "runtime/base/units.h"

namespace kvmm {

class AddressSpace;
class Object;
struct Page;

struct Pte {
  enum Bit : uint8_t {
    kPresent = 1,   // the device maps it
    kWritable = 2,  // with write access
    kWanted = 4,    // somebody waits for it to become present
    kPoisoned = 8,  // the device answers with an error
    kMapping = 16,  // part of the map request in flight
  };
  uint8_t bits = 0;
  bool has(Bit b) const { return (bits & b) != 0; }
  void set(Bit b) { bits = static_cast<uint8_t>(bits | b); }
  void clear(Bit b) { bits = static_cast<uint8_t>(bits & ~b); }
};

struct Vma {
  boost::intrusive::set_member_hook<> map_hook;      // in the AddressMap, by start
  boost::intrusive::list_member_hook<> object_hook;  // in Object::vmas
  VirtAddr start;
  Bytes page_size;
  uint32_t pages = 0;
  uint32_t first = 0;  // object page of the first PTE
  Prot prot = Prot::kReadWrite;
  uint32_t plane = 0;
  Object* object = nullptr;
  AddressSpace* space = nullptr;
  LazyArray<Pte> ptes;

  VirtAddr end() const { return start + page_size * pages; }
  bool maps(uint32_t page) const { return page >= first && page - first < pages; }
  VirtAddr address_of(uint32_t page) const { return start + page_size * (page - first); }
  Pte& pte_of(uint32_t page) { return ptes[page - first]; }
  uint32_t page_at(VirtAddr a) const {
    return first + static_cast<uint32_t>((a - start) / page_size);
  }
};

struct VmaKey {
  using type = uint64_t;
  uint64_t operator()(const Vma& v) const { return v.start.value(); }
};

// All VMAs of a runtime, found by address: what a fault asks first.
class AddressMap {
 public:
  Vma* find(VirtAddr a) {
    auto it = set_.upper_bound(a.value());
    if (it == set_.begin()) {
      return nullptr;
    }
    --it;
    return a < it->end() ? &*it : nullptr;
  }
  // The first VMA that ends after `a`, or null: iteration over a range of addresses.
  Vma* first_ending_after(VirtAddr a) {
    if (Vma* v = find(a)) {
      return v;
    }
    auto it = set_.lower_bound(a.value());
    return it == set_.end() ? nullptr : &*it;
  }
  // False if it would overlap another.
  bool insert(Vma& v) {
    Vma* next = first_ending_after(v.start);
    if (next != nullptr && next->start < v.end()) {
      return false;
    }
    set_.insert(v);
    return true;
  }
  void erase(Vma& v) { set_.erase(set_.iterator_to(v)); }
  size_t size() const { return set_.size(); }

 private:
  boost::intrusive::set<
      Vma, boost::intrusive::member_hook<Vma, boost::intrusive::set_member_hook<>, &Vma::map_hook>,
      boost::intrusive::key_of_value<VmaKey>>
      set_;
};

}  // namespace kvmm
