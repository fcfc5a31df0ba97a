// SPDX-License-Identifier: Apache-2.0
//
// Bringing pages before they are touched. A decode step reads a session front to back, plane after
// plane, so three simple rules are nearly exact:
//
//   major fault         the next pages of the plane are read; the middle one is left as a mark
//   touch of the mark   the next window
//   minor fault         resident neighbours are mapped along (fault-around)
//   first major fault of a session that is mostly out: all of it (resume), in windows
#include <algorithm>

#include "sched/mm.h"

namespace kvmm {
namespace {

bool quiet(const Page& p) {
  constexpr auto kBusyFlags = static_cast<uint32_t>(
      Page::kWantMapped | Page::kWantResident | Page::kWantOut | Page::kWantDemoted |
      Page::kWantPromoted | Page::kDoomed | Page::kWaiting);
  return (p.flags & kBusyFlags) == 0;
}

}  // namespace

void Mm::readahead(AddressSpace& space, Vma& vma, Page& p, bool major) {
  Object& o = *vma.object;
  if (major && config_.resume_prefetch.load(std::memory_order_relaxed) != 0 &&
      space.stats.bytes_swapped.load(std::memory_order_relaxed) >
          space.stats.bytes_resident.load(std::memory_order_relaxed) &&
      space.stats.bytes_swapped.load(std::memory_order_relaxed) < zones_.capacity().value()) {
    start_prefetch(space, 0, UINT64_MAX, vma.plane, now_);
    return;
  }
  const uint64_t window =
      config_.readahead_max.load(std::memory_order_relaxed) / o.page_size().value();
  const auto end = static_cast<uint32_t>(std::min<uint64_t>(o.used_end(), p.index + 1 + window));
  uint32_t started = 0;
  for (uint32_t i = p.index + 1; i < end && free_count_ > kOps / 2; ++i) {
    Page& q = o.page(i);
    if (q.place == Place::kSwapped && quiet(q)) {
      if (++started == (window + 1) / 2) {
        q.set(Page::kReadaheadMark);
      }
      q.set(Page::kReadahead);
      q.set(Page::kWantResident);
      MmStats::add(stats_.readahead_pages);
      advance(q);
    }
  }
}

void Mm::fault_around(Vma& vma, Page& p) {
  Object& o = *vma.object;
  const uint64_t pages =
      config_.fault_around.load(std::memory_order_relaxed) / o.page_size().value();
  if (pages < 2) {
    return;
  }
  const auto n = static_cast<uint32_t>(std::min<uint64_t>(pages, 64));
  const uint32_t begin = p.index / n * n;
  const uint32_t end = std::min(begin + n, o.used_end());
  for (uint32_t i = begin; i < end && free_count_ > kOps / 4; ++i) {
    Page& q = o.page(i);
    if (q.place == Place::kUnmapped && quiet(q) && !q.has(Page::kReadaheadMark) &&
        !q.has(Page::kProbe) && !q.has(Page::kHint) && vma.maps(i)) {
      if (q.has(Page::kReadahead)) {
        q.clear(Page::kReadahead);
        MmStats::add(stats_.readahead_useful);
      }
      vma.pte_of(i).set(Pte::kWanted);
      q.set(Page::kWantMapped);
      advance(q);
    }
  }
}

void Mm::prefetch(AddressSpace& space, uint64_t a, uint64_t b, Tick deadline) {
  touched(space, now_);  // what is about to run is not a victim
  start_prefetch(space, a, b, 0, deadline);
}

void Mm::start_prefetch(AddressSpace& space, uint64_t a, uint64_t b, uint32_t plane,
                        Tick deadline) {
  PrefetchJob* free_job = nullptr;
  for (PrefetchJob& j : prefetch_) {
    if (j.space == &space) {
      j.deadline = std::min(j.deadline, deadline);
      if (a < j.a || b > j.b) {  // from its start again: it may be past what is new
        j.a = std::min(j.a, a);
        j.b = std::max(j.b, b);
        j.plane = plane;
        j.planes_left = static_cast<uint32_t>(space.planes().size());
        j.page = space.pages_of_tokens(plane, j.a, j.b).begin;
      }
      return;
    }
    if (j.space == nullptr) {
      free_job = &j;
    }
  }
  if (free_job == nullptr || space.planes().empty()) {
    return;  // a hint: the pages come by readahead
  }
  *free_job = {&space, a,       b, plane, plane, static_cast<uint32_t>(space.planes().size()),
               0,      deadline};
  free_job->page = space.pages_of_tokens(plane, a, b).begin;
  trace(TraceEvent::prefetch, space.id(), a, b);
}

// One job as far as it goes now. True: it has come to its end.
bool Mm::step_prefetch_job(PrefetchJob& j) {
  while (j.planes_left != 0) {
    AddressSpace& space = *j.space;
    Vma& vma = *space.planes()[j.plane].vma;
    Object& o = *vma.object;
    const auto r = space.pages_of_tokens(j.plane, j.a, j.b);
    const uint32_t end = std::min(r.end, o.used_end());
    const Bytes window(std::max<uint64_t>(config_.prefetch_window.load(std::memory_order_relaxed),
                                          2 * o.page_size().value()));
    for (; j.page < end; ++j.page) {
      // Only what the devices are at counts: pages that are being verified and mapped keep no
      // device busy, and one that runs out of reads stands still until somebody looks.
      if (reading_ + o.page_size() > window || ops_in_flight_ >= kOps / 2 || !waiting_.empty()) {
        return false;
      }
      Page& p = o.page(j.page);
      const bool brings = p.place == Place::kSwapped || p.place == Place::kUnmapped;
      if (brings && quiet(p)) {
        if (p.place == Place::kSwapped) {
          MmStats::add(stats_.prefetch_pages);
        }
        vma.pte_of(j.page).set(Pte::kWanted);
        touched_from(p, space.home_row);
        p.set(Page::kWantMapped);
        advance(p);
      }
    }
    j.plane = (j.plane + 1) % static_cast<uint32_t>(space.planes().size());
    j.page = space.pages_of_tokens(j.plane, j.a, j.b).begin;
    --j.planes_left;
  }
  return true;
}

void Mm::step_prefetch() {
  // Earliest deadline first; a job that cannot go on leaves the rest for the next step.
  for (size_t n = 0; n < prefetch_.size(); ++n) {
    PrefetchJob* first = nullptr;
    for (PrefetchJob& j : prefetch_) {
      if (j.space != nullptr && (first == nullptr || j.deadline < first->deadline)) {
        first = &j;
      }
    }
    if (first == nullptr || !step_prefetch_job(*first)) {
      return;
    }
    first->space = nullptr;
  }
}

}  // namespace kvmm
