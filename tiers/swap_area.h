// SPDX-License-Identifier: Apache-2.0
//
// A swap area: which slots of a block device are taken, and whose page is in each.
//
//   allocate -> write the page -> record -> (index write-back) ... read, verify -> free
//      |             |               |                |                    |
//   slot is ours  caller's I/O   header in memory  take_dirty_index   caller's I/O at offset_of
//
//   extents (2 MiB each)  | 64K slots: xxx.xR.. | 2M slot: x | free | discarding | fresh |  not yet
//                                           retired                                 grown_
//
// An extent holds slots of one size while any of them is in use, so that slots of every size stay
// aligned and freed extents fit all sizes. Page I/O is the caller's: the area only says where.
//
// Index. Headers live in memory (lazily committed). `record` and `free` make their 4 KiB sector
// dirty; the caller takes dirty sectors (copies in buffers of the area that stay put), writes them
// and reports. A sector is in flight once at a time; what changes meanwhile makes it dirty again.
//
// Discard. An extent that became free can be discarded: it is not given out between take_discards
// and discarded(), because the discard would take away the new content.
//
// Growth. An area on a device that grows (a file) begins with room for nothing and takes place for
// more extents before they are needed, up to its size (docs/decisions/0020). A device that is full
// then has refused a request without content; what the area has goes on.
//
// Retiring. A slot whose device failed it is never given out again, and its extent keeps its class:
// what is broken is a place, not a size.
//
// Invariants (`check_invariants`)
//   1. A slot is given to one holder at a time; slots do not overlap. A retired one is given to
//   none.
//   2. used_bytes == the sizes of the used slots, retired_bytes those of the retired ones; an
//   extent
//      with neither belongs to no class.
//   3. The header of a slot that is not used is all zeros.
//   4. No slot lies behind what the device has place for (grown_).
//   5. Nothing is allocated after `open`.
//
// Thread safety: guarded by the core lock. Ownership: owns index and buffers; the device outlives
// it, and so does `BlockOps`.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/ops.h"
#include "runtime/base/lazy_array.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "tiers/pager.h"
#include "tiers/swap_format.h"
#include "tiers/swap_health.h"

namespace kvmm {

struct SwapAreaConfig {
  std::string name;      // unique: "swap0"
  std::string path;      // what swapoff names it by
  int32_t priority = 0;  // higher is used first
  ModelId model_id{};    // zeros: any model, content of no use after exit
  AreaUuid uuid{};       // for an area that is formatted now (random, from the caller)
  Bytes size;            // 0: the whole device
  Bytes unit = kPageSizeMin;
  Bytes extent = kPageSizeMax;
  bool force_format = false;     // whatever is there is lost
  bool discard = true;           // freed extents are given back, if the device can
  uint32_t index_buffers = 16;   // index sectors in flight at most
  std::function<void()> wait{};  // called between polls while `open` waits; empty: poll only

  // Errors: kInvalid.
  Result<void> validate() const;
};

struct IndexWrite {
  std::byte* data = nullptr;  // stays put until index_written; aligned to 4 KiB
  uint64_t offset = 0;        // on the device
  Bytes length;
  uint32_t sector = 0;
  uint32_t buffer = 0;
};

// A run of free extents.
struct Discard {
  uint64_t offset = 0;
  Bytes length;
  uint32_t extent = 0;  // the first
  uint32_t count = 0;
};

// Place that is asked of the device.
struct Growth {
  uint64_t offset = 0;
  Bytes length;
  uint32_t count = 0;  // extents
};

// One size of slots. `free` counts slots of extents that belong to the class now.
struct SlotClassStats {
  Bytes size;
  uint64_t extents = 0, used = 0, free = 0, retired = 0;
};

struct SwapAreaStats {
  uint64_t allocations = 0, frees = 0;
  uint64_t full = 0;         // allocations refused
  uint64_t io_errors = 0;    // note_io_error
  uint64_t stale = 0;        // verify: another generation, page or owner
  uint64_t corrupt = 0;      // verify: header or checksum
  uint64_t wrong_model = 0;  // verify: another model or layout
  uint64_t lost_pages = 0;   // note_lost: content that was only here, and could not be had
  uint64_t discarded_bytes = 0;
};

class SwapArea {
 public:
  // BLOCKING (set-up only): reads the superblock by requests to `block`, polling until they are
  // done, and writes it anew. A device of zeros is formatted. What an earlier opening left in the
  // slots is given up. Errors, nothing written in any of these cases:
  //   kInvalid        config; device too small or badly aligned; not empty and no swap area
  //   kVersion        format version or byte order
  //   kModelMismatch  the area is dedicated to another model
  //   kCorrupt        our superblock, damaged
  //   kIo, kDeviceGone, kNoSpace  from the device (a superblock write that failed: also these)
  static Result<std::unique_ptr<SwapArea>> open(BlockOps& block, SwapAreaConfig config);
  SwapArea(const SwapArea&) = delete;
  SwapArea& operator=(const SwapArea&) = delete;

  // A slot of `size`, a power of two from unit to extent. O(1). Errors: kInvalid (size), kNoSpace
  // (full, draining, or the device said so), kIo (the device fails), kAgain
  // (`room_coming`, or take_growth has some to take).
  Result<SlotId> allocate(Bytes size);
  // REQUIRES: allocated; no I/O on it is in flight.
  void free(SlotId slot);
  // As free, for good. REQUIRES: likewise.
  void retire(SlotId slot);
  // The device refused a write for want of space (a sparse file on a full disk): no slots until one
  // that holds a page has been freed, because its place on the disk is there.
  void note_no_space() { device_full_ = true; }
  void note_io_error() { ++stats_.io_errors; }
  void note_lost() { ++stats_.lost_pages; }

  // Where the slot's data is on the device.
  Bytes offset_of(SlotId slot) const;
  Bytes size_of(SlotId slot) const;
  bool is_used(SlotId slot) const;

  // The slot holds this page now. REQUIRES: allocated; 0 < stored <= size of the slot.
  void record(SlotId slot, const PageIdentity& identity, uint64_t checksum, Bytes stored);
  const SlotHeader& header(SlotId slot) const;
  // Is this the page that is expected there? Errors: kModelMismatch (model or layout), kStale
  // (owner, object, page or generation; or nothing recorded), kCorrupt (header damaged, or the same
  // page with another checksum). Allocates nothing.
  Result<void> verify(SlotId slot, const PageIdentity& identity, uint64_t checksum);

  // Takes up to out.size() dirty index sectors to be written. Returns how many.
  size_t take_dirty_index(std::span<IndexWrite> out);
  // Ends one of them. After a failure the sector is dirty again.
  void index_written(const IndexWrite& write, bool ok);
  bool io_in_flight() const {
    return index_in_flight_ != 0 || discards_in_flight_ != 0 || growing_;
  }
  // Every header is on the device (stable after a flush).
  bool index_clean() const { return dirty_head_ == 0 && index_in_flight_ == 0; }

  // Takes up to out.size() runs of free extents that still hold old content (none if the device has
  // no discard, or it is switched off), that of the oldest first. Until discarded() they are not
  // given out.
  size_t take_discards(std::span<Discard> out);
  bool has_discards() const {
    return config_.discard && info_.discards && free_old_.head != 0 && accepting_;
  }
  // Ends one of them: its extents may be given out again. Not done: they count as discarded all the
  // same, since asking again would end likewise.
  void discarded(const Discard& discard, Errc result = Errc::kOk);
  void set_discard(bool on) { config_.discard = on; }
  bool discards() const { return config_.discard && info_.discards; }

  // Takes the next piece of growth, when little is left of what the device has place for and the
  // last piece has come. Until grew() there is no other.
  bool take_growth(Tick now, Growth* out);
  // Growth or a discard is in flight: there will be more room, or it is known that there is none.
  bool room_coming() const { return growing_ || discards_in_flight_ != 0; }
  // Ends a growth. kNoSpace: the next piece is smaller, and after the smallest one a second passes.
  void grew(const Growth& growth, Errc result, Tick now);
  // A slot was refused for want of growth: when take_growth should be asked again. 0: never.
  Tick growth_due() const { return accepting_ && starving_ && !growing_ ? grow_after_ : Tick(0); }

  // Draining (swapoff): no new slots while not accepting. Accepting again also forgets a full disk.
  void set_accepting(bool accepting) {
    accepting_ = accepting;
    device_full_ = device_full_ && !accepting;
    grow_refused_ = grow_refused_ && !accepting;
    grow_after_ = accepting ? Tick(0) : grow_after_;
  }
  bool accepting() const { return accepting_; }
  // The used slot behind `after` (none: the first), or none. O(extents).
  SlotId next_used_slot(SlotId after = SlotId()) const;
  // Calls fn(SlotId) for every used slot; `fn` may free it.
  template <class Fn>
  void for_each_used_slot(Fn&& fn) const {
    for (SlotId s = next_used_slot(); !s.none(); s = next_used_slot(s)) {
      fn(s);
    }
  }

  uint8_t id() const { return id_; }
  const SwapAreaConfig& config() const { return config_; }
  const Superblock& superblock() const { return superblock_; }
  const ModelId& model_id() const { return superblock_.model_id; }
  BlockOps& block() const { return block_; }
  Bytes capacity() const { return superblock_.geometry.data_bytes(); }
  Bytes used_bytes() const { return used_; }
  Bytes retired_bytes() const { return retired_; }
  // Bytes for pages that the device has taken place for and not been given back.
  Bytes grown_bytes() const {
    return superblock_.geometry.extent * (uint64_t{grown_} - given_back_);
  }
  // Bytes of `used`-to-be: what can still be given out, growth included if the device lets it.
  Bytes free_bytes() const;
  SwapHealth& health() { return health_; }
  const SwapHealth& health() const { return health_; }
  SlotClassStats class_stats(Bytes size) const;
  const SwapAreaStats& stats() const { return stats_; }
  // Stops the process if an invariant is broken. O(units).
  void check_invariants() const;

 private:
  friend class SwapSpace;  // numbers its areas
  static constexpr uint32_t kClasses = 10;
  static constexpr uint32_t kGrowthMax = 128;  // extents at once: 256 MiB

  // Extents are linked by number + 1; 0 ends a list, so that zeroed memory is unlinked.
  struct Extent {
    enum State : uint8_t { kFresh, kFree, kDiscarding, kPartial, kFull };
    std::array<uint64_t, kUnitsPerExtentMax / 64> taken;  // one bit a slot: used or retired
    std::array<uint64_t, kUnitsPerExtentMax / 64> retired;
    uint32_t next, prev;
    uint16_t used;  // bits of `taken`
    uint8_t cls;    // kPartial, kFull: log2 of slot size / unit
    State state;
    bool old;  // kFree: still holds old content, in free_old_; else in free_
  };
  struct List {
    uint32_t head = 0, tail = 0;
  };
  struct Sector {
    enum Flag : uint8_t { kQueued = 1, kWriting = 2, kAgain = 4 };
    uint32_t next;
    uint8_t flags;
  };

  SwapArea(BlockOps& block, SwapAreaConfig config);
  // swap_open.cc
  Result<void> check_device();
  Result<void> identify();  // is it ours, and may we have it?
  Result<void> check_blank(std::span<std::byte> buffer);
  Result<void> allocate_tables();
  Result<void> make_room();
  Result<void> write_superblock(std::span<std::byte> buffer);
  Result<void> run(BlockOp op, std::span<std::byte> data, uint64_t offset);
  uint32_t class_of(Bytes size) const;  // kClasses: none
  uint32_t slots_of(uint32_t cls) const { return units_per_extent_ >> cls; }
  // The slot's extent, after checking that the slot is used.
  uint32_t extent_of(SlotId slot) const;
  uint32_t forget(SlotId slot);
  void push_front(List& list, uint32_t e);
  void unlink(List& list, uint32_t e);
  void mark_dirty(uint64_t unit);
  void queue_sector(uint32_t s);

  // Constant after open.
  BlockOps& block_;
  SwapAreaConfig config_;
  BlockInfo info_;
  Superblock superblock_;
  uint64_t seed_ = 0;
  uint32_t units_per_extent_ = 0;
  uint8_t id_ = 1;  // set when a SwapSpace takes the area

  // Guarded by the core lock.
  LazyArray<SlotHeader> headers_;  // [unit], rounded up to sectors
  LazyArray<Extent> extents_;
  LazyArray<Sector> sectors_;
  LazyArray<std::byte> buffers_;  // index_buffers sectors
  std::vector<uint32_t> free_buffers_;
  std::array<List, kClasses> partial_;
  std::array<uint64_t, kClasses> used_of_{}, extents_of_{}, retired_of_{};
  std::array<uint64_t, kClasses> turn_{};     // SwapSpace: when it last gave a slot of the class
  List free_old_;                             // freed extents, last freed first
  List free_;                                 // discarded ones
  uint32_t next_fresh_ = 0;                   // extents from here on were never used
  uint32_t dirty_head_ = 0, dirty_tail_ = 0;  // sector + 1
  uint32_t index_in_flight_ = 0;
  uint32_t discards_in_flight_ = 0;
  uint32_t grown_ = 0;       // extents that the device has taken place for, once
  uint32_t given_back_ = 0;  // of these: those in free_
  uint32_t step_max_ = 0;    // extents of the next growth at most; halved by a full device
  Tick grow_after_;          // not before
  bool growing_ = false;
  bool grow_refused_ = false;
  bool starving_ = false;  // a slot was refused for want of growth
  Bytes used_, retired_;
  bool accepting_ = true;
  bool device_full_ = false;
  SwapAreaStats stats_;
  SwapHealth health_;
};

// All swap areas, in order of priority. The first pager.
//
// Striping. Areas of one priority take turns by page, for each size of slot by itself: the one that
// gave a slot of that size longest ago gives the next. So neighbours that are written one after
// another lie on all devices, side by side on each, and are read from all at once. Slow devices
// (SwapHealth) come behind the others of their priority. See docs/decisions/0020.
//
// Thread safety: guarded by the core lock. Ownership: owns the areas.
class SwapSpace final : public PagerOps {
 public:
  static constexpr size_t kAreasMax = 255;

  // Set-up or swapon. REQUIRES: none of its slots is in use. Errors: kExists (its path or name is
  // there), kLimit. The area is numbered; on an error it is destroyed.
  Result<SwapArea*> add(std::unique_ptr<SwapArea> area);
  // Takes an area out. Errors: kNotFound, kBusy (slots in use, or index or discards in flight).
  Result<std::unique_ptr<SwapArea>> remove(SwapArea& area);

  const char* pager_name() const override { return "swap"; }
  // From the area of highest priority that has room. O(areas). kAgain: none has, one grows.
  Result<SlotId> allocate(Bytes size) override;
  void free(SlotId slot) override { area(slot).free(slot); }
  void retire(SlotId slot) override { area(slot).retire(slot); }
  bool accepting(SlotId slot) const override { return area(slot).accepting(); }
  Backing backing(SlotId slot) const override;
  void stored(SlotId slot, const PageIdentity& identity, uint64_t checksum, Bytes stored) override {
    area(slot).record(slot, identity, checksum, stored);
  }
  Result<void> verify(SlotId slot, const PageIdentity& identity, uint64_t checksum) override {
    return area(slot).verify(slot, identity, checksum);
  }
  void failed(SlotId slot, Errc why) override;
  void lost(SlotId slot, Errc why) override;
  void done(SlotId slot, const BlockRequest& io, Tick now) override {
    area(slot).health_.finished(io, now);
  }
  // REQUIRES: the slot was allocated here.
  SwapArea& area(SlotId slot) const;

  SwapArea* find(std::string_view path_or_name) const;  // null: none
  const std::vector<std::unique_ptr<SwapArea>>& areas() const { return areas_; }
  bool empty() const override { return areas_.empty(); }
  Bytes capacity() const;
  Bytes used_bytes() const;

 private:
  Result<SlotId> allocate_from(std::span<const std::unique_ptr<SwapArea>> areas, Bytes size,
                               Errc* why);

  std::vector<std::unique_ptr<SwapArea>> areas_;  // highest priority first
  std::array<SwapArea*, kAreasMax + 1> by_id_{};
  uint64_t turn_ = 0;  // counts slots given
};

}  // namespace kvmm
