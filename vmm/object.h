// SPDX-License-Identifier: Apache-2.0
//
// An object is a sequence of KV pages with an identity.
//
//   private  the engine appends; full pages seal themselves     one VMA
//   raw      any page may be written at any time                one VMA
//   shared   a sealed prefix                                    many VMAs, read-only
//
// Thread safety: guarded by the core lock. Ownership: private and raw objects belong to their
// address space; shared ones are counted (holders: the VMAs that map them and the prefix cache).
#pragma once

#include <boost/intrusive/list.hpp>
#include <memory>

#include "runtime/base/result.h"
#include "vmm/identity.h"
#include "vmm/page.h"
#include "vmm/vma.h"

namespace kvmm {

enum class ObjectKind : uint8_t { kPrivate, kRaw, kShared };
const char* object_kind_name(ObjectKind k) noexcept;

struct ObjectSpec {
  uint64_t id = 0;  // never reused within a runtime
  ObjectKind kind = ObjectKind::kPrivate;
  Bytes page_size;
  uint32_t pages = 0;
  PageIdentity identity;         // model, layout, owner; the rest is filled in per page
  AddressSpace* home = nullptr;  // the session that is charged; null for shared objects
};

class Object {
 public:
  using VmaList = boost::intrusive::list<
      Vma,
      boost::intrusive::member_hook<Vma, boost::intrusive::list_member_hook<>, &Vma::object_hook>>;

  // Errors: kNoMemory (address space), kInvalid (page size).
  static Result<std::unique_ptr<Object>> create(const ObjectSpec& spec);
  ~Object();

  const ObjectSpec& spec() const { return spec_; }
  ObjectKind kind() const { return spec_.kind; }
  Bytes page_size() const { return spec_.page_size; }
  uint32_t pages() const { return spec_.pages; }
  AddressSpace* home() const { return spec_.home; }

  // The page of that index; gives it its object and index when it is used for the first time.
  Page& page(uint32_t index);
  // One past the highest page that was ever used: what iterations need to visit.
  uint32_t used_end() const { return used_end_; }

  // The identity of the page's present generation.
  PageIdentity identity_of(const Page& page) const;

  VmaList& vmas() { return vmas_; }
  const VmaList& vmas() const { return vmas_; }

  // rmap: calls fn(Vma&, Pte&) for every VMA that maps `index`; stops when fn says false.
  template <class Fn>
  void for_each_pte(uint32_t index, Fn&& fn) {
    for (Vma& v : vmas_) {
      if (v.maps(index) && !fn(v, v.pte_of(index))) {
        return;
      }
    }
  }

  // Stops if a page contradicts its place, its PTEs or its frame.
  void check_invariants();

 private:
  explicit Object(const ObjectSpec& spec, LazyArray<Page> pages)
      : spec_(spec), pages_(std::move(pages)) {}

  const ObjectSpec spec_;
  LazyArray<Page> pages_;
  VmaList vmas_;
  uint32_t used_end_ = 0;
};

}  // namespace kvmm
