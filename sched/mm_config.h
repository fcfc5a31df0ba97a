// SPDX-License-Identifier: Apache-2.0
//
// What can be tuned in sched/, and what it counts. Every field of `MmConfig` is an attribute of the
// same name under `sched/`; every field of `MmStats` is a line of `vmstat`.
//
// Thread safety: atomic because the control plane reads and writes them while the core steps.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "runtime/base/histogram.h"
#include "runtime/base/units.h"

namespace kvmm {

struct MmConfig {
  using N = std::atomic<uint64_t>;
  // Bytes read ahead of a major fault in the same plane.
  N readahead_max{1 * kMiB};
  // Bytes mapped around a minor fault when they are resident.
  N fault_around{512 * kKiB};
  // 1: the first major fault of a session that is mostly out brings all of it.
  N resume_prefetch{1};
  // Bytes of prefetch in flight at once, over all sessions.
  N prefetch_window{8 * kMiB};
  // Bytes of unmapped, clean pages that write-back keeps ready beyond the high watermark.
  N writeback_ahead{0};
  // A session that does not touch its probe page for this long counts as idle.
  N probe_wait_us{200 * 1000};
  // Bytes of one I/O of a larger page. Smaller ones let checksums overlap the I/O of the next one;
  // whole pages were faster all the same (docs/measurements/cpu.md, "Size of a read").
  N io_chunk{2 * kMiB};
  // Frames of each size in use that are zeroed ahead of need.
  N zero_ahead{4};
  // How long the core thread looks for the next fault before it sleeps; see runtime/core.h.
  N spin_us{50};
  // Tries of a write before the page is kept resident.
  N write_tries{3};
  // Bytes a second that go down a tier, and up. 0: none; then only swap makes room.
  N demote_rate{1 * kGiB};
  N promote_rate{256 * kMiB};
  // Time between two looks at whether far pages of running sessions are used.
  N hint_wait_us{1000 * 1000};
  // Bytes reclaim may have in flight.
  N reclaim_window{8 * kMiB};
  // A swap area is slow from this average latency on, and failing from `swap_fail_us` on (average,
  // or silence with I/O in flight) or at so many errors (tiers/swap_health.h).
  N swap_slow_us{100 * 1000};
  N swap_fail_us{10 * 1000 * 1000};
  N swap_fail_errors{16};
};

// Counted since the runtime was opened.
#define KVMM_MM_STATS(X)                                                           \
  X(faults_zero, "touches of pages that were never written")                       \
  X(faults_minor, "touches of resident pages that were not mapped")                \
  X(faults_major, "touches of pages that had to be read")                          \
  X(faults_spurious, "touches of pages that were mapped by then")                  \
  X(faults_stray, "touches outside every session: answered with an error")         \
  X(swap_in_bytes, "bytes read from swap areas")                                   \
  X(swap_out_bytes, "bytes written to swap areas")                                 \
  X(clean_drops, "frames freed without a write: proved unchanged")                 \
  X(reclaimed, "frames freed by reclaim")                                          \
  X(reclaim_cancelled, "pages taken back by a touch while they were reclaimed")    \
  X(reclaim_busy, "pages that could not be unmapped because something holds them") \
  X(direct_reclaim, "times a fault had to reclaim for itself")                     \
  X(probes, "pages unmapped to see whether their session runs")                    \
  X(probes_hit, "of these, touched")                                               \
  X(pages_promoted, "pages moved to a nearer tier")                                \
  X(pages_demoted, "pages moved to a farther tier")                                \
  X(migrated_bytes, "bytes of these")                                              \
  X(migrate_cancelled, "demotions that a touch or a pin took back")                \
  X(migrate_failed, "copies that were not the same bytes; none of them was used")  \
  X(hints, "far pages unmapped to see whether they are used")                      \
  X(hints_hit, "of these, touched")                                                \
  X(readahead_pages, "pages read ahead of a touch")                                \
  X(readahead_useful, "of these, touched")                                         \
  X(readahead_useless, "of these, reclaimed before a touch")                       \
  X(prefetch_pages, "pages brought by a prefetch")                                 \
  X(prefetch_late, "of these, touched before they had arrived")                    \
  X(wrong_pages, "pages that failed verification; none of them was mapped")        \
  X(read_errors, "reads that failed")                                              \
  X(write_errors, "writes that failed")                                            \
  X(seal_violations, "sealed pages whose bytes had changed")                       \
  X(poisoned, "pages answered with an error")                                      \
  X(no_memory, "faults answered with an error because nothing could be reclaimed") \
  X(swap_full, "pages that stayed resident because no slot was free")              \
  X(map_retries, "maps tried again because the frame was busy")                    \
  X(frames_split, "huge frames that lost their huge page")                         \
  X(pages_dropped, "pages whose content was given up on request")

struct MmStats {
  using N = std::atomic<uint64_t>;
#define KVMM_X(name, help) N name{0};
  KVMM_MM_STATS(KVMM_X)
#undef KVMM_X
  std::array<Histogram, 3>
      fault_ns;        // by FaultKind zero, minor, major: read by the core to answered
  Histogram read_ns;   // submit of a page's read to verified
  Histogram write_ns;  // submit of a page's write to written
  static void add(N& n, uint64_t by = 1) {
    n.fetch_add(by, std::memory_order_relaxed);
  }
};

}  // namespace kvmm
