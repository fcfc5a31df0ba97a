// SPDX-License-Identifier: Apache-2.0
//
// An address space: one session's view of its planes. Its addresses are chosen once and never
// change.
//
//   AddressSpace --+-- plane 0: Vma [start, end) -> Object (private or raw)
//                  +-- plane 1: Vma              -> Object
//                  +-- lists: active (mapped), inactive (unmapped, frame intact), newest first;
//                      a pair for each tier
//
// Invariants
//   1. Every VMA is in the runtime's AddressMap, and no two overlap.
//   2. A page with a frame and no work in flight is on exactly one of the lists, of its frame's
//   tier.
//   3. bytes_resident = frames of its objects' pages; bytes_swapped = its pages in kSwapped.
//
// Thread safety: guarded by the core lock, except `stats`, which anybody may read at any time.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "vmm/arena.h"
#include "vmm/object.h"
#include "vmm/vma.h"

namespace kvmm {

struct MmJob;  // sched/: a wait for many pages

enum class Advice : uint8_t { kNormal, kRunning, kIdle, kDurable };
const char* advice_name(Advice a) noexcept;

struct SpaceSpec {
  uint64_t id = 0;  // never reused within a runtime
  std::string name;
  std::string tenant = "default";
  uint32_t tenant_number = 1;  // for frames: whose bytes may be in them
  std::string sharing_domain;
  uint32_t lane = 0;
  ObjectKind kind = ObjectKind::kPrivate;
};

// Counted since the session was opened. Atomic because tools read them while the core thread
// counts.
struct SpaceStats {
  using N = std::atomic<uint64_t>;
  N faults_zero{0}, faults_minor{0}, faults_major{0};
  N swap_in_bytes{0}, swap_out_bytes{0};
  N clean_drops{0}, wrong_pages{0}, seal_violations{0}, pages_poisoned{0};
  N bytes_resident{0}, bytes_swapped{0}, bytes_discarded{0}, tokens{0};
  static void add(N& n, uint64_t by = 1) { n.fetch_add(by, std::memory_order_relaxed); }
  static void sub(N& n, uint64_t by = 1) { n.fetch_sub(by, std::memory_order_relaxed); }
};

class AddressSpace {
 public:
  // One plane of the session.
  struct Mapping {
    std::unique_ptr<Object> object;
    std::unique_ptr<Vma> vma;
  };

  AddressSpace(Arena& arena, AddressMap& map, SpaceSpec spec);
  ~AddressSpace();  // REQUIRES: no page of it has a frame or a slot

  Arena& arena() const { return arena_; }
  const SpaceSpec& spec() const { return spec_; }
  uint64_t id() const { return spec_.id; }
  bool raw() const { return spec_.kind == ObjectKind::kRaw; }

  // Maps the session's lane of the arena's plane number `plane` (the next one). `object_id` is
  // fresh. Errors: kNoMemory, kExists (overlap).
  Result<void> add_plane(uint32_t plane, uint64_t object_id);
  // The same at an address of the session's own (contiguous placement).
  Result<void> add_plane_at(uint32_t plane, uint64_t object_id, VirtAddr start);

  // Takes the last plane out again. REQUIRES: none of its pages was used.
  void drop_last_plane();

  std::vector<Mapping>& planes() { return planes_; }
  Vma* vma_of_plane(uint32_t plane);
  // Address of token 0. It may lie outside the VMA, where lanes share a page: see vmm/arena.h.
  VirtAddr lane_start(uint32_t plane) const;
  // Pages of `plane` that hold a byte of tokens [a, b), clipped to the lane; of none if it is
  // empty. Raw planes without a token stride: all.
  struct PageRange {
    uint32_t begin = 0, end = 0;
  };
  PageRange pages_of_tokens(uint32_t plane, uint64_t a, uint64_t b) const;
  // Pages that lie wholly inside tokens [a, b).
  PageRange whole_pages_of_tokens(uint32_t plane, uint64_t a, uint64_t b) const;
  // Tokens that have a byte in page `index` of `plane`: [first, end).
  void tokens_of_page(uint32_t plane, uint32_t index, uint64_t* first, uint64_t* end) const;
  uint64_t token_capacity() const;

  // Where a page with a frame belongs now.
  void list_active(Page& p) { lists_of(p).active.push_front(p); }
  void list_inactive(Page& p) { lists_of(p).inactive.push_front(p); }
  bool lists_nothing() const;

  void check_invariants();

  AddressRange own_range{};  // contiguous placement: given back by whoever reserved it
  struct Lists {
    PageList active, inactive;
    bool empty() const { return active.empty() && inactive.empty(); }
  };
  std::array<Lists, kTiersMax> lists;  // by tier
  SpaceStats stats;
  Advice advice = Advice::kNormal;
  bool closing = false;
  uint64_t tokens = 0;
  Tick last_active;  // of the last fault, append or pin
  Tick probed_at;    // a probe page was unmapped then (0: none is out)
  // Where its threads run: a row of the zonelists. Each touch or call from there is a vote, one
  // from elsewhere takes a vote away.
  uint8_t home_row = 0;
  uint8_t home_votes = 0;
  bool home_touched = false;   // touches have voted: calls, which may come from elsewhere, do not
  Tick proved_running;         // a probe page was touched at once then (0: never)
  Page* newest = nullptr;      // most recently filled page: the probe of a raw session
  MmJob* doom_job = nullptr;   // who waits for doomed pages to be gone
  MmJob* clean_job = nullptr;  // who waits for pages to be written
  boost::intrusive::list_member_hook<>
      hook;  // in the list of all spaces, most recently active first

 private:
  Lists& lists_of(const Page& p) { return lists.at(p.frame->tier.value()); }
  // Of tokens [a, b), clipped to the lane: bytes of the VMA. A lane's rest behind its last token
  // goes with that token.
  struct Span {
    uint64_t from = 0, to = 0;
  };
  Span bytes_of_tokens(uint32_t plane, uint64_t a, uint64_t b) const;
  void unmap(Mapping& m);
  Result<void> map_plane(uint32_t plane, uint64_t object_id, const LanePages& lane);

  Arena& arena_;
  AddressMap& map_;
  const SpaceSpec spec_;
  std::vector<Mapping> planes_;
};

using SpaceList = boost::intrusive::list<
    AddressSpace, boost::intrusive::member_hook<AddressSpace, boost::intrusive::list_member_hook<>,
                                                &AddressSpace::hook>>;

}  // namespace kvmm
