// SPDX-License-Identifier: Apache-2.0
#include "vmm/object.h"

namespace kvmm {

const char* object_kind_name(ObjectKind k) noexcept {
  switch (k) {
    case ObjectKind::kPrivate:
      return "private";
    case ObjectKind::kRaw:
      return "raw";
    case ObjectKind::kShared:
      return "shared";
  }
  return "?";
}

Result<std::unique_ptr<Object>> Object::create(const ObjectSpec& spec) {
  if (!std::has_single_bit(spec.page_size.value()) || spec.pages == 0) {
    return Errc::kInvalid;
  }
  auto pages = LazyArray<Page>::create(spec.pages);
  if (!pages) {
    return pages.error();
  }
  return std::unique_ptr<Object>(new Object(spec, std::move(*pages)));
}

Object::~Object() {
  check(vmas_.empty(), "no VMA maps an object that goes away");
}

Page& Object::page(uint32_t index) {
  Page& p = pages_[index];
  if (p.object == nullptr) {
    p.object = this;
    p.index = index;
    if (index >= used_end_) {
      used_end_ = index + 1;
    }
  }
  return p;
}

PageIdentity Object::identity_of(const Page& page) const {
  PageIdentity id = spec_.identity;
  id.object = spec_.id;
  id.page = page.index;
  id.generation = page.generation;
  return id;
}

void Object::check_invariants() {
  for (uint32_t i = 0; i < used_end_; ++i) {
    Page& p = pages_[i];
    if (p.object == nullptr) {
      check(p.place == Place::kNone, "unused pages are nowhere", i, p.place);
      continue;
    }
    check(p.object == this && p.index == i, "page knows its object and index", p.index, i);
    check(place_has_frame(p.place) == (p.frame != nullptr),
          "frame set exactly where a place has one", p.place, p.frame);
    check(p.frame == nullptr || p.frame->page == &p, "frame points back to its page", i, p.place);
    check(p.frame == nullptr || p.frame->size() == spec_.page_size, "frame has the page's size", i,
          p.place);
    const bool needs_slot = p.place == Place::kSwapped || p.place == Place::kReading;
    check(!needs_slot || p.slot != 0, "swapped pages have a slot", i, p.place);
    check(p.place != Place::kNone || p.slot == 0, "a page that is nowhere has no slot", i, p.slot);
    // Without a frame: the pin was told that its content is gone, or that there is no memory.
    check(p.pins == 0 || p.place == Place::kMapped || p.has(Page::kWantMapped) ||
              (!place_has_frame(p.place) && !p.has(Page::kPinWaited)),
          "pinned pages are mapped or wanted, or their pins were refused", i, p.place);
    bool any = false;
    for_each_pte(i, [&](Vma&, Pte& pte) {
      const DeviceView v = device_view(p.place, pte.has(Pte::kPresent), pte.has(Pte::kPoisoned));
      check(v != DeviceView::kImpossible, "PTE agrees with the page's place", p.place, pte.bits);
      any = any || pte.has(Pte::kPresent);
      return true;
    });
    check(p.place != Place::kMapped || any, "a mapped page has a present PTE", i, p.place);
  }
}

}  // namespace kvmm
