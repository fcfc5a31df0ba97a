// SPDX-License-Identifier: Apache-2.0
#include "runtime/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "runtime/base/lock.h"
#include "runtime/core.h"

namespace kvmm {
namespace {

constexpr size_t kPagesAQuery = 4096;  // what one query copies: a few microseconds

AddressSpace* find_space(Mm& mm, uint64_t id) {
  for (AddressSpace& s : mm.spaces()) {
    if (s.id() == id) {
      return &s;
    }
  }
  return nullptr;
}

char page_char(const Page& p) {
  if (p.pins != 0 && p.place == Place::kMapped) {
    return 'P';
  }
  switch (p.place) {
    case Place::kNone:
      return '.';
    case Place::kMapped:
    case Place::kMapping:
      return 'R';
    case Place::kFilling:
    case Place::kUnmapping:
    case Place::kUnmapped:
    case Place::kChecking:
    case Place::kMigrating:
      return 'r';
    case Place::kReading:
      return '<';
    case Place::kWriting:
      return '>';
    case Place::kSwapped:
      return 'S';
    case Place::kDiscarded:
      return 'X';
  }
  return '?';
}

struct PlaneCopy {
  uint64_t start = 0, end = 0, page_size = 0, object = 0;
  uint32_t pages = 0;
  ObjectKind kind = ObjectKind::kPrivate;
  char name[64] = "";
  std::string map;  // one character a page, as far as pages were used
};

// All planes of a session with a character a page. Each query copies into memory made ready before.
Result<std::vector<PlaneCopy>> copy_planes(Core& core, uint64_t session) {
  size_t planes = 0;
  bool found = false;
  core.query([&](Mm& mm) {
    AddressSpace* s = find_space(mm, session);
    found = s != nullptr;
    planes = found ? s->planes().size() : 0;
  });
  if (!found) {
    return Errc::kNotFound;
  }
  std::vector<PlaneCopy> out(planes);
  for (size_t i = 0; i < planes; ++i) {
    PlaneCopy& c = out[i];
    std::vector<char> chars(kPagesAQuery);
    for (uint32_t from = 0, used = 1; from < used; from += kPagesAQuery) {
      size_t n = 0;
      core.query([&](Mm& mm) {
        AddressSpace* s = find_space(mm, session);
        found = s != nullptr && i < s->planes().size();
        if (!found) {
          return;
        }
        AddressSpace::Mapping& m = s->planes()[i];
        const std::string& name = s->arena().planes[i].name;
        c.start = m.vma->start.value();
        c.end = m.vma->end().value();
        c.page_size = m.vma->page_size.value();
        c.object = m.object->spec().id;
        c.pages = m.vma->pages;
        c.kind = m.object->kind();
        c.name[name.copy(c.name, sizeof c.name - 1)] = '\0';
        used = m.object->used_end();
        for (uint32_t p = from; p < used && n < chars.size(); ++p) {
          chars[n++] = page_char(m.object->page(p));
        }
      });
      if (!found) {
        return Errc::kNotFound;
      }
      c.map.append(chars.data(), n);
    }
  }
  return out;
}

// What smaps counts of one VMA, in pages. resident + swapped + discarded + empty is all of them,
// clean + dirty are the resident ones, and so are the tiers.
struct PlaneSums {
  uint64_t start = 0, end = 0, page_size = 0, object = 0;
  ObjectKind kind = ObjectKind::kPrivate;
  char name[64] = "";
  uint64_t pages = 0;
  uint64_t resident = 0, mapped = 0, swap_cached = 0, swapped = 0, discarded = 0;
  uint64_t dirty = 0, sealed = 0, pinned = 0, reading = 0, writing = 0;
  std::vector<uint64_t> tiers = {};  // by id

  void add(const Page& p) {
    swapped += p.place == Place::kSwapped;
    discarded += p.place == Place::kDiscarded;
    reading += p.place == Place::kReading;
    writing += p.place == Place::kWriting;
    mapped += p.place == Place::kMapped;
    pinned += p.pins != 0;
    const bool gone = p.place == Place::kNone || p.place == Place::kDiscarded;
    sealed += p.content == Content::kSealed && !gone;
    if (p.frame == nullptr) {
      return;
    }
    ++resident;
    ++tiers[p.frame->tier.value()];
    swap_cached += p.slot != 0;
    // What the engine may write to is not known to be clean, whatever its slot held before.
    const bool proved =
        p.has(Page::kSlotCurrent) && (p.has(Page::kProvedClean) || p.content == Content::kSealed);
    dirty += !proved && p.place != Place::kReading;
  }
  uint64_t empty() const { return pages - resident - swapped - discarded; }
};

std::string sums_text(const PlaneSums& s, const std::vector<std::string>& tier_names) {
  std::string out = fmt::format("{:x}-{:x} {} {} {} {}:{}\n", s.start, s.end,
                                s.kind == ObjectKind::kShared ? "r-" : "rw", s.page_size, s.name,
                                object_kind_name(s.kind), s.object);
  const std::pair<const char*, uint64_t> counts[] = {{"size", s.pages},
                                                     {"resident", s.resident},
                                                     {"mapped", s.mapped},
                                                     {"swapped", s.swapped},
                                                     {"discarded", s.discarded},
                                                     {"empty", s.empty()},
                                                     {"clean", s.resident - s.dirty},
                                                     {"dirty", s.dirty},
                                                     {"swap_cached", s.swap_cached},
                                                     {"sealed", s.sealed},
                                                     {"pinned", s.pinned},
                                                     {"reading", s.reading},
                                                     {"writing", s.writing}};
  for (const auto& [name, pages] : counts) {
    out += fmt::format("{} {}\n", name, pages * s.page_size);
  }
  for (size_t i = 0; i < tier_names.size(); ++i) {
    out += fmt::format("tier:{} {}\n", tier_names[i], s.tiers[i] * s.page_size);
  }
  return out;
}

}  // namespace

std::string notice_text(const MmNotice& n) {
  const char* what = "";
  switch (n.kind) {
    case MmNotice::Kind::kWrongPage:
      what = "a page failed verification and was not mapped";
      break;
    case MmNotice::Kind::kReadError:
      what = "a page could not be read";
      break;
    case MmNotice::Kind::kWriteError:
      what = "a page could not be written and stays in memory";
      break;
    case MmNotice::Kind::kSealViolation:
      what = "a sealed page was written; its new bytes are kept";
      break;
    case MmNotice::Kind::kNoMemory:
      what = "no frame can be had: the touch was answered with an error; add memory or a swap area";
      break;
    case MmNotice::Kind::kStrayTouch:
      return fmt::format(
          "a touch of the page at {:#x}, outside every open session, was answered with an error "
          "({})",
          n.va, errc_name(n.code));
    case MmNotice::Kind::kSwapFull:
      what = "the swap areas are full; add one with kvctl swapon";
      break;
    case MmNotice::Kind::kSwapFailing:
      return fmt::format(
          "{}: its device fails or hangs: it takes no pages any more, and what it "
          "holds is read home",
          n.swap.data());
    case MmNotice::Kind::kSwapGone:
      return fmt::format(
          "{}: its device has gone, and pages that were only there with it; whoever "
          "needs them computes them again",
          n.swap.data());
    case MmNotice::Kind::kSwapEmptied:
      return fmt::format(
          "{}: holds nothing any more ({} pages were lost) and is taken out; kvctl "
          "swapon takes it back when it is well",
          n.swap.data(), n.page);
  }
  return fmt::format("session {} plane {} page {} at {:#x}: {} ({})", n.space, n.plane, n.page,
                     n.va, what, errc_name(n.code));
}

std::string stats_text(const MmStats& s) {
  std::string out;
#define KVMM_X(name, help) \
  out += fmt::format(#name " {}\n", s.name.load(std::memory_order_relaxed));
  KVMM_MM_STATS(KVMM_X)
#undef KVMM_X
  return out;
}

std::string locks_text() {
  std::string out;
  for (const LockRankInfo& lock : kLockRanks) {
    out += fmt::format("{} {}\n", lock.name, lock_acquisitions_here(lock.rank));
  }
  return out;
}

std::string latency_text(const MmStats& s) {
  const std::pair<const char*, const Histogram*> all[] = {
      {"fault_zero", &s.fault_ns[static_cast<size_t>(FaultKind::kZero)]},
      {"fault_minor", &s.fault_ns[static_cast<size_t>(FaultKind::kMinor)]},
      {"fault_major", &s.fault_ns[static_cast<size_t>(FaultKind::kMajor)]},
      {"swap_in", &s.read_ns},
      {"swap_out", &s.write_ns}};
  std::string out;
  for (const auto& [name, histogram] : all) {
    const HistogramSnapshot h = histogram->snapshot();
    out += fmt::format("{} count {} sum {} max {} le", name, h.count, h.sum, h.max);
    for (size_t i = 0; i < h.buckets.size(); ++i) {
      if (h.buckets[i] != 0) {
        out += fmt::format(" {}:{}", histogram_bucket_high(i), h.buckets[i]);
      }
    }
    out += "\n";
  }
  return out;
}

Result<std::string> maps_text(Core& core, uint64_t session) {
  auto planes = copy_planes(core, session);
  if (!planes) {
    return planes.error();
  }
  std::string out;
  for (const PlaneCopy& c : *planes) {
    auto count = [&](std::string_view chars) {
      return std::count_if(c.map.begin(), c.map.end(),
                           [&](char ch) { return chars.find(ch) != std::string_view::npos; });
    };
    out += fmt::format("{:x}-{:x} {} {} {} {}:{} pages={} resident={} swapped={} gone={}\n",
                       c.start, c.end, c.kind == ObjectKind::kShared ? "r-" : "rw", c.page_size,
                       c.name, object_kind_name(c.kind), c.object, c.pages, count("RrP<>"),
                       count("S"), count("X"));
  }
  return out;
}

Result<std::string> pagemap_text(Core& core, uint64_t session) {
  auto planes = copy_planes(core, session);
  if (!planes) {
    return planes.error();
  }
  constexpr size_t kLine = 64;
  std::string out;
  for (const PlaneCopy& c : *planes) {
    out += fmt::format("plane {} page_size={} pages={}\n", c.name, c.page_size, c.pages);
    const size_t shown = c.map.size();
    for (size_t i = 0; i < shown; i += kLine) {
      out += c.map.substr(i, kLine) + "\n";
    }
  }
  return out;
}

Result<std::string> smaps_text(Core& core, const TierTable& tiers, uint64_t session) {
  std::vector<std::string> names;
  for (const auto& tier : tiers.tiers()) {
    names.push_back(tier->name());
  }
  std::string out;
  size_t planes = 1;
  for (size_t i = 0; i < planes; ++i) {
    PlaneSums sums;
    sums.tiers.resize(names.size());
    // A round copies nothing: it counts, into memory made ready before.
    for (uint32_t from = 0, used = 1; from < used; from += kPagesAQuery) {
      bool found = false;
      core.query([&](Mm& mm) {
        AddressSpace* s = find_space(mm, session);
        found = s != nullptr;
        planes = found ? s->planes().size() : 0;
        if (i >= planes) {
          used = 0;
          return;
        }
        AddressSpace::Mapping& m = s->planes()[i];
        const std::string& name = s->arena().planes[i].name;
        sums.start = m.vma->start.value();
        sums.end = m.vma->end().value();
        sums.page_size = m.vma->page_size.value();
        sums.object = m.object->spec().id;
        sums.pages = m.vma->pages;
        sums.kind = m.object->kind();
        sums.name[name.copy(sums.name, sizeof sums.name - 1)] = '\0';
        used = m.object->used_end();
        for (uint32_t p = from; p < used && p - from < kPagesAQuery; ++p) {
          sums.add(m.object->page(p));
        }
      });
      if (!found) {
        return Errc::kNotFound;
      }
    }
    if (i < planes) {
      out += sums_text(sums, names);
    }
  }
  return out;
}

Result<std::string> session_stat_text(Core& core, uint64_t session) {
  struct Copy {
    uint64_t zero, minor, major, in, out, clean, wrong, seal, poisoned;
  } c{};
  bool found = false;
  core.query([&](Mm& mm) {
    if (AddressSpace* s = find_space(mm, session)) {
      found = true;
      const SpaceStats& t = s->stats;
      c = {t.faults_zero, t.faults_minor, t.faults_major,    t.swap_in_bytes, t.swap_out_bytes,
           t.clean_drops, t.wrong_pages,  t.seal_violations, t.pages_poisoned};
    }
  });
  if (!found) {
    return Errc::kNotFound;
  }
  return fmt::format(
      "faults_zero {}\nfaults_minor {}\nfaults_major {}\nswap_in_bytes {}\nswap_out_bytes {}\n"
      "clean_drops {}\nwrong_pages {}\nseal_violations {}\npages_poisoned {}\n",
      c.zero, c.minor, c.major, c.in, c.out, c.clean, c.wrong, c.seal, c.poisoned);
}

}  // namespace kvmm
