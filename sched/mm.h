// SPDX-License-Identifier: Apache-2.0
//
// The memory manager: decides when pages are filled, mapped, unmapped, written and read. It is a
// set of state machines that are stepped; it owns no thread, touches no page bytes, and decides
// nothing by a clock (the one it is given stamps trace events).
//
//   faults, API calls ---> set what is wanted of a page (flags) ---> advance(page)
//                                                                      |
//              starts the one operation that brings the page nearer <--+
//                                                                      |
//   completion queue ----> finish the operation, move the page by the state table, advance(page)
//   again
//
// `advance` is level-triggered: it looks at where a page is and what is wanted of it, never at how
// it came there. So a fault in the middle of reclaim, a discard in the middle of a write, or a
// retry after an error need no code of their own.
//
// Wants, most important first: doomed (drop it), mapped (somebody waits), resident (readahead),
// demoted or promoted (to another tier), out (reclaim), clean (write-back). A fault clears "out"
// and "demoted".
//
// Invariants
//   1. Between steps every page whose want is not met is in flight or on a waiting list.
//   2. A page is never mapped unless its frame was filled by a worker, or read and verified.
//   3. A frame is freed only after its page is dropped, or its slot is proved to hold the same
//   bytes.
//   4. While anything waits, something is in flight, or a retry is due (`next_due`); else the wait
//   is
//      answered with an error.
//
// Thread safety: guarded by the core lock. `stats` may be read by anybody.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/trace.h"
#include "sched/mm_config.h"
#include "sched/mm_notice.h"
#include "sched/open_faults.h"
#include "sched/page_op.h"
#include "sched/pin.h"
#include "sched/rate_limit.h"
#include "sched/thread_rows.h"
#include "tiers/swap_area.h"
#include "tiers/zonelist.h"
#include "vmm/address_space.h"

namespace kvmm {

class Mm {
 public:
  struct Deps {
    TierTable* tiers = nullptr;  // all of one MMU
    SwapSpace* swap = nullptr;
    AddressMap* map = nullptr;
    DataOps* data = nullptr;     // workers in the runtime, inline in the simulator
    TraceRing* trace = nullptr;  // may be null
    Clock* clock = nullptr;  // stamps events and figures, decides nothing; null: the step's time
    CompletionQueue* completions = nullptr;
    // A touch whose content is lost is answered this long after the notice that says why, or when
    // `notices_told` comes: the answer may end the process. 0: nobody tells them.
    Tick notice_time;
  };

  Mm(const Deps& deps, MmConfig& config);
  ~Mm();
  Mm(const Mm&) = delete;
  Mm& operator=(const Mm&) = delete;

  // ---- what threads and devices report -------------------------------------------------------

  // A touch of an unmapped address. NON-BLOCKING, allocates nothing.
  void handle_fault(const FaultEvent& fault, Tick now);
  // Finishes what has completed, starts what can be started, reclaims. Call it after every fault,
  // API call and completion, and when `next_due` has come. NON-BLOCKING, allocates nothing.
  // `with_io` false: swap devices are left alone, and `io_waits` says whether they are needed. For
  // threads of the engine: a kernel may finish I/O only in the thread that submitted it, once that
  // thread leaves the kernel; and a thread in write(2) of a missing page leaves it after the fault.
  // After `pages_max` pages that became ready it returns although more may be: for a caller that
  // looks at faults in between, so that devices get their next reads while pages are being mapped.
  void step(Tick now, bool with_io = true, uint32_t pages_max = UINT32_MAX);
  bool io_waits() const;
  // Whether the last step left pages that are ready to be mapped.
  bool has_ready() const { return !ready_.empty(); }
  // When step wants to be called again although nothing completes: Tick(0): not at all.
  Tick next_due() const { return next_due_; }
  // Operations in flight or waiting.
  bool busy() const;

  // ---- where threads run (sched/migrate.cc) ----------------------------------------------------

  // A thread on this node called for the session: frames are taken there. NON-BLOCKING.
  void called_from(AddressSpace& space, NodeId node);
  // To be told, outside of the fault path, where the threads run that touch.
  ThreadRows& threads() { return threads_; }

  // ---- sessions (sched/space_ops.cc) -----------------------------------------------------------

  void attach(AddressSpace& space, Tick now);
  // A range that belongs to a session from now on: touches of it from before were answered with an
  // error, and are so no more. attach() does this for every plane.
  void welcome(const Vma& vma);
  // Dooms every page; `job` is done when all are gone. kBusy: a page is pinned (nothing changed).
  Result<void> detach_begin(AddressSpace& space, MmJob& job);
  // REQUIRES: the job of detach_begin is done.
  void detach_end(AddressSpace& space);

  // Structured sessions: errors as in kvmm.h.
  Result<void> append(AddressSpace& space, uint64_t n);
  Result<void> truncate(AddressSpace& space, uint64_t tokens, MmJob& job);
  Result<void> discard_tokens(AddressSpace& space, uint64_t a, uint64_t b, MmJob& job);
  // Drops all pages inside the address range, whole pages only. kBusy: pinned.
  Result<void> clear_range(AddressRange range, MmJob& job);
  // Forgets the job: nobody waits for it any more. REQUIRES: done, or refused.
  void end_job(MmJob& job);
  Result<void> recompute_begin(AddressSpace& space, uint64_t a, uint64_t b);
  Result<void> recompute_end(AddressSpace& space, uint64_t a, uint64_t b);
  // Calls fn(first_token, end_token) in ascending order per plane for every discarded page.
  void for_each_gone(AddressSpace& space, const std::function<void(uint64_t, uint64_t)>& fn);

  void advise(AddressSpace& space, Advice advice);
  // All frames out, as soon as can be. Pinned pages stay.
  void evict(AddressSpace& space);
  // `job` is done when every page's content is in a slot; result kIo or kNoSpace if one could not.
  void clean(AddressSpace& space, MmJob& job);
  void prefetch(AddressSpace& space, uint64_t a, uint64_t b, Tick deadline);

  // ---- pins (sched/pin.cc) ---------------------------------------------------------------------

  // Errors: kNoMemory (more than the tier holds), kSealed. Nothing is pinned then.
  Result<void> pin(PinBatch& batch, Tick now);
  // Where each range stands.
  void pin_poll(PinBatch& batch);
  // Pages may be reclaimed once the fence is done. `batch` may go away at once.
  Result<void> unpin(PinBatch& batch, const Fence& fence);
  bool pins_open() const { return pins_open_ != 0 || !fenced_.empty(); }

  // ---- swap (sched/swap_jobs.cc) ---------------------------------------------------------------

  // An area was added to, or is about to leave, the swap space. BLOCKING (allocates): swapon,
  // swapoff.
  void area_added(SwapArea& area);
  void area_removed(SwapArea& area);
  // Whether an index write or a flush of the area is on its way: it must not be taken out then.
  bool uses(const SwapArea& area) const;
  // Moves everything out of an area; it accepts no new slots. Call step until `done`. A job that
  // ends with an error says what it lacked, and the area goes on as it was.
  struct DrainJob {
    struct Holder {
      uint64_t space = 0;
      uint64_t pages = 0;
    };
    SwapArea* area = nullptr;
    bool done = false;
    Errc result = Errc::kOk;  // kNoMemory, kNoSpace (there are other areas)
    uint64_t lost_before = 0;
    uint64_t lost_pages = 0;  // could not be read: to be computed again
    // Why not:
    std::array<Holder, 8> holders{};  // sessions with most pages left
    uint32_t sessions_left = 0;
    uint64_t pages_left = 0;
    Bytes bytes_left, dram_free, other_areas_free;
  };
  // REQUIRES: not draining(area).
  void drain(DrainJob& job);
  // Whether somebody takes the area out already (not: it is emptied because it fails).
  bool draining(const SwapArea& area);
  // A failing area that holds nothing, and that nothing uses: it may be taken out.
  bool emptied(const SwapArea& area);
  // From now on no growth and no discards are started: the runtime closes.
  void no_more_upkeep() { upkeep_ = false; }
  // Writes the index sectors and flushes the devices; `done` when all of it is on stable storage.
  struct FlushJob {
    uint32_t pending = 0;
    bool started = false;
    bool done = false;
    Errc result = Errc::kOk;
  };
  void flush(FlushJob& job);

  const MmStats& stats() const { return stats_; }
  MmStats& stats() { return stats_; }
  Zonelist& zones() { return zones_; }
  SwapSpace& swap() { return *swap_; }
  SpaceList& spaces() { return spaces_; }
  // The next notice, or false. One reader.
  bool take_notice(MmNotice* out);
  bool has_notice() const { return notice_head_ != notice_tail_; }
  // Those taken so far have reached whom they are for.
  void notices_told();
  void check_invariants();

 private:
  friend class PinTable;

  struct PrefetchJob {
    AddressSpace* space = nullptr;
    uint64_t a = 0, b = 0;
    uint32_t plane = 0, first_plane = 0, planes_left = 0;
    uint32_t page = 0;
    Tick deadline;
  };

  // mm.cc
  void complete(Request& r);
  void finish_data(PageOp& op);
  void advance(Page& p);
  void settle(Page& p);
  void pump_waiting();
  void wait(Page& p);
  void stop_waiting(Page& p);
  bool can_start(const Page& p) const;
  static bool is_urgent(const Page& p) { return p.has(Page::kUrgent) || p.pins != 0; }
  bool leaves_reserve(Bytes size) const;
  bool needs_frame(const Page& p) const;
  PageOp* take_op(Page& p, PageEvent event);
  void give_op(PageOp& op);
  void submit_mmu(PageOp& op, MmuOp what);
  void notice(MmNotice::Kind kind, Errc code, Page& p);
  void say(const MmNotice& n);
  bool held() const { return now_ < hold_until_; }

  // observe.cc: what others may look at; read_ended and write_ended give the nanoseconds it took
  Tick moment() const;
  void trace(TraceEvent event, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0,
             uint64_t e = 0);
  void trace_of(TraceEvent event, const Page& p, uint64_t c = 0, uint64_t d = 0, uint64_t e = 0);
  void trace_piece(TraceEvent event, const BlockRequest& io);
  void fault_began(const FaultEvent& fault, const Vma& vma, const Page& p, FaultKind kind);
  void fault_ended(const Page& p, Errc why);
  void read_began(const PageOp& op);
  uint64_t read_ended(const PageOp& op, Errc why);
  uint64_t write_ended(const PageOp& op, Errc why);
  void verify_failed(const Page& p, Errc why);
  void victim_chosen(const Page& p);

  // page_moves.cc: start and finish of each operation
  void begin_fill(Page& p);
  void begin_map(Page& p);
  void begin_unmap(Page& p);
  void begin_check(Page& p);
  void begin_write(PageOp& op);
  void begin_read(Page& p);
  void finish_fill(PageOp& op);
  void finish_map(PageOp& op);
  void finish_unmap(PageOp& op);
  void finish_check(PageOp& op);
  void finish_write(PageOp& op);
  void finish_read(PageOp& op);
  void read_failed(PageOp& op, Errc why);
  void submit_parts(PageOp& op, DataOp what, Bytes begin, Bytes end);
  void io_arrived(PageOp& op, const BlockRequest& io);
  void plan_chunks(PageOp& op, BlockOp what, uint64_t offset, Bytes length_max);
  bool get_frame(Page& p, bool want_zeroed);
  void release_frame(Page& p);
  void release_slot(Page& p, Errc lost = Errc::kOk);
  void content_lost(Page& p, Errc why);
  void drop(Page& p);
  void answer_lost(Page& p, Errc why);
  void free_clean_frame(Page& p);
  void poison_wanted(Page& p);
  void unpoison(Page& p);
  void poison_stray(VirtAddr touched, VirtAddr page, Bytes size);
  void mmu_now(MmuOp what, VirtAddr va, Bytes size);

  // wants.cc
  void want_mapped(Page& p);
  void want_out(Page& p);
  void want_clean(Page& p);
  static bool wanted_somewhere(Page& p);
  void clear_want_mapped(Page& p);
  void set_want_out(Page& p);
  void clear_want_out(Page& p);
  void clear_want_clean(Page& p, Errc result);
  void clear_doomed(Page& p);
  void doom(Page& p, MmJob& job);
  void seal(AddressSpace& space, uint64_t a, uint64_t b, uint64_t written);

  // reclaim.cc
  void reclaim();
  void unblock_writes();
  bool reclaim_one(Bytes size, int last_pass, const Tier* only = nullptr);
  bool looks_idle(const AddressSpace& space) const;
  bool in_pass(const AddressSpace& space, int pass) const;
  bool reclaim_from(AddressSpace& space, Bytes size, const Tier* only);
  bool block_reclaimable(Page& p);
  bool just_mapped(const Page& p);
  uint64_t coming_frames(Bytes size);
  uint64_t out_bytes() const;
  void probe_spaces();
  void reclaim_for_waiting(uint64_t window);
  void probe(AddressSpace& space);
  void touched(AddressSpace& space, Tick now);
  void write_ahead();
  void zero_ahead();
  bool reclaimable(const Page& p) const;
  void answer_hopeless();

  // migrate.cc
  void vote_home(AddressSpace& space, uint8_t row);
  void touched_from(Page& p, uint8_t row);
  void note_tier(const Page& p);
  void promote(Page& p);
  void demote();
  bool demote_one(Tier& from, int last_pass);
  Bytes free_soon(const Tier& t) const;
  void hint();
  void set_want_moved(Page& p, Tier& to, Page::Flag how);
  void clear_want_moved(Page& p);
  void cancel_demotion(Page& p);
  void want_moved(Page& p);
  void begin_migrate(Page& p);
  void submit_migrate(PageOp& op, uint8_t phase);
  void finish_migrate(PageOp& op);

  // readahead.cc
  void readahead(AddressSpace& space, Vma& vma, Page& p, bool major);
  void fault_around(Vma& vma, Page& p);
  void step_prefetch();
  void start_prefetch(AddressSpace& space, uint64_t a, uint64_t b, uint32_t plane, Tick deadline);
  bool step_prefetch_job(PrefetchJob& job);

  // pin.cc
  void pin_arrived(Page& p);
  void step_fences();

  // swap_jobs.cc
  void step_index();

  // swap_drain.cc
  struct IoQueue;
  void step_drain();
  bool step_drain(DrainJob& job);
  bool drain_page(DrainJob& job, Page& p, uint32_t* started);
  void explain(DrainJob& job);
  void step_rescue(IoQueue& q);

  // swap_upkeep.cc
  SwapHealthLimits health_limits() const;
  void health_woke();
  void step_health();
  void step_room();
  void judged(IoQueue& q);
  void step_growth(SwapArea& area);
  void step_discards(IoQueue& q);
  void wait_for_room(Page& p);
  void say_swap(MmNotice::Kind kind, const SwapArea& area, Errc code, uint64_t pages);
  void due_at(Tick when);
  void check_swap();

  // Passes of reclaim: see reclaim.cc.
  static constexpr int kPasses = 5;
  static constexpr int kPassProved = 1;
  static constexpr int kPassIdle = 2;
  static constexpr int kPassNotProvedRunning = 3;

  // Oldest first. `fn` may unlink the page it is given, and no other unless it answers true (stop).
  template <class Fn>
  static bool for_each_from_tail(PageList& list, Fn&& fn) {
    for (auto it = list.end(); it != list.begin();) {
      const auto here = std::prev(it);
      const bool last = here == list.begin();
      const auto before = last ? list.end() : std::prev(here);
      if (fn(*here)) {
        return true;
      }
      it = last ? list.begin() : std::next(before);
    }
    return false;
  }
  // Inactive pages go before active ones.
  template <class Fn>
  static bool for_each_of_tier(AddressSpace& space, TierId tier, Fn&& fn) {
    AddressSpace::Lists& l = space.lists[tier.value()];
    return for_each_from_tail(l.inactive, fn) || for_each_from_tail(l.active, fn);
  }

  static constexpr uint32_t kOps = 256;
  static constexpr uint32_t kOpsKept = 16;  // only for answers with an error
  static constexpr uint32_t kNotices = 64;
  static constexpr uint32_t kPrefetchJobs = 64;
  static constexpr uint32_t kStrays = 64;
  static constexpr uint32_t kSubmitMax = kOps * kChunksMax;
  static constexpr uint32_t kIndexWrites = 16;  // at once
  static constexpr uint32_t kIndexOps = 256;    // a flush of every area fits
  static constexpr uint32_t kClasses = 32;      // by log2 of the page size

  // Requests that a device did not take yet.
  struct IoQueue {
    BlockOps* device = nullptr;
    std::vector<BlockRequest*> waiting;  // capacity reserved at start
    SwapArea* area = nullptr;
    std::unique_ptr<DrainJob> rescue;  // of an area that fails
    Tick rescue_at;                    // not before: there was no room
    Tick discard_at;                   // 0: nothing waits to be discarded
    bool leaving = false;              // swapoff has it
    bool emptied_said = false;
  };
  IoQueue& queue_of(const SwapArea& area);
  void push_io(BlockOps& device, BlockRequest& r);
  void push_data(DataRequest& r);
  void flush_io(bool devices);
  void finish_index(BlockRequest& r);

  // Constant after construction.
  Zonelist zones_;
  SwapSpace* const swap_;  // swapon, swapoff, sync
  PagerOps* const pager_;  // write-back and reads
  AddressMap* const map_;
  DataOps* const data_;
  TraceRing* const trace_;
  Clock* const clock_;
  CompletionQueue* const completions_;
  MmuOps* const mmu_;
  const bool fixed_frames_;
  MmConfig& config_;

  // Guarded by the core lock.
  std::vector<PageOp> ops_;
  PageOpList free_ops_;
  PageOpList ready_;  // their bytes have been worked on, the page is next
  uint32_t ops_in_flight_ = 0;
  Bytes reading_;                      // pages whose reads the devices have not finished
  PageList waiting_urgent_, waiting_;  // for a frame or an operation
  PageList retry_;                     // EBUSY: tried again at the next step
  PageList room_wait_;                 // for a swap area that grows or discards
  // By size class: pages that wait urgently for a frame; pages on their way out.
  std::array<uint64_t, kClasses> waiting_of_{}, out_of_{};
  // By tier, in bytes: on their way to swap; to other tiers; to it, still without a frame of it.
  std::array<uint64_t, kTiersMax> out_of_tier_{}, moving_from_{}, moving_to_{};
  uint64_t moving_bytes_ = 0;
  uint32_t crowded_ = 0;  // tiers that had no room for a page that is used near to them: a bit each
  RateLimit demotions_, promotions_;
  Tick next_hint_;
  bool far_ = false;  // a page may lie farther than it needs to: hints are worth a step
  ThreadRows threads_;
  SpaceList spaces_;  // most recently active first
  std::vector<IoQueue> io_;
  std::vector<DataRequest*> data_waiting_;
  std::array<PrefetchJob, kPrefetchJobs> prefetch_{};
  std::array<Frame*, 16> blocks_out_{};  // one frame of each block that is being emptied
  bool swap_room_changed_ = false;
  bool swap_full_said_ = false;
  bool upkeep_ = true;        // growth and discards
  uint8_t step_number_ = 0;   // modulo 256
  bool passed_over_ = false;  // the last reclaim left out a page that was mapped in the same step
  struct IndexOp {
    BlockRequest io;
    IndexWrite write;
    SwapArea* area = nullptr;   // null: free
    FlushJob* flush = nullptr;  // kFlush
    Discard discard;
    Growth growth;
  };
  IndexOp& start_index_op(IndexOp& op, SwapArea& area, BlockOp what, RequestKind kind);
  IndexOp* free_index_op();
  std::array<IndexOp, kIndexOps> index_ops_;
  uint32_t index_ops_used_ = 0;
  std::vector<DrainJob*> drains_;
  std::vector<FlushJob*> flushes_;
  PinTable pin_table_;
  uint64_t pins_open_ = 0;
  uint32_t free_count_ = 0;  // of free_ops_
  std::vector<FencedUnpin> fenced_;
  std::array<VirtAddr, kStrays> strays_{};  // poisoned for want of a session
  uint32_t stray_count_ = 0;                // more than kStrays: they are not known any more
  std::array<MmNotice, kNotices> notices_{};
  uint32_t notice_head_ = 0, notice_tail_ = 0;
  const Tick notice_time_;
  bool untold_ = false;
  Tick hold_until_;                      // touches of lost pages are answered from then on
  const Page* hopeless_said_ = nullptr;  // its notice is on its way, its answer comes behind it
  Tick now_;
  Tick next_due_;
  Tick next_probe_;
  MmStats stats_;
  OpenFaults open_faults_;
  uint64_t reclaim_by_ = 0;    // session that has waited longest for a frame; 0: none
  uint64_t reclaim_pass_ = 0;  // see reclaim.cc
};

}  // namespace kvmm
