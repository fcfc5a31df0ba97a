// SPDX-License-Identifier: Apache-2.0
//
// The C API's sessions.
#include <algorithm>

#include "runtime/api.h"

using kvmm::AddressSpace;
using kvmm::api_call;
using kvmm::api_ok;
using kvmm::api_options;
using kvmm::api_status;
using kvmm::api_text;
using kvmm::Errc;
using kvmm::Error;
using kvmm::kBadSize;
using kvmm::kNoOut;
using kvmm::Mm;
using kvmm::MmJob;
using kvmm::MutexLock;
using kvmm::Result;
using kvmm::usable;

namespace {

// Runs fn(mm, space) under the core lock, then steps.
template <class Fn>
kvmm_status with_space(kvmm_session* session, Fn&& fn) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(session); !ok) {
      return api_status(ok);
    }
    kvmm::Core& core = session->runtime->core();
    MutexLock l(core.lock());
    core.called_from_here(*session->impl);
    Result<void> r = fn(core.mm(), *session->impl);
    core.step();
    return api_status(r);
  });
}

uint64_t clip(uint64_t b, const AddressSpace& s) {
  return b == KVMM_ALL_TOKENS && !s.raw() ? s.tokens : b;
}

}  // namespace

extern "C" {

kvmm_status kvmm_session_open(kvmm_arena* arena, const kvmm_session_options* options,
                              kvmm_session** out) {
  return api_call([&]() -> kvmm_status {
    kvmm_session_options o;
    if (auto ok = usable(arena); !ok) {
      return api_status(ok);
    }
    if (out == nullptr || !api_options(options, &o)) {
      return api_status(Error(Errc::kInvalid, out == nullptr ? kNoOut : kBadSize));
    }
    kvmm::SpaceSpec spec;
    std::string tenant;
    if (!api_text(o.name, &spec.name) || !api_text(o.tenant, &tenant) ||
        !api_text(o.sharing_domain, &spec.sharing_domain) || o.kind > KVMM_SESSION_RAW ||
        o.lane < 0) {
      return api_status(
          Error(Errc::kInvalid, "name, tenant, sharing_domain, kind or lane is not valid"));
    }
    if (!tenant.empty()) {
      spec.tenant = tenant;
    }
    spec.kind = o.kind == KVMM_SESSION_RAW ? kvmm::ObjectKind::kRaw : kvmm::ObjectKind::kPrivate;
    auto s = arena->runtime->open_session(*arena->impl, std::move(spec), o.lane - 1);
    if (!s) {
      return api_status(s.error());
    }
    *out = new kvmm_session{arena->runtime, *s};
    return api_ok();
  });
}

kvmm_status kvmm_session_close(kvmm_session* session) {
  return api_call([&]() -> kvmm_status {
    if (session == nullptr) {
      return api_ok();
    }
    if (auto good = usable(session); !good) {
      return api_status(good);
    }
    auto ok = session->runtime->close_session(*session->impl);
    if (!ok) {
      return api_status(ok.code() == Errc::kBusy
                            ? Error(Errc::kBusy, "pages of the session are pinned: unpin first")
                            : ok.error());
    }
    delete session;
    return api_ok();
  });
}

uint64_t kvmm_session_id(const kvmm_session* session) {
  return session == nullptr ? 0 : session->impl->id();
}
uint32_t kvmm_session_lane(const kvmm_session* session) {
  return session == nullptr ? UINT32_MAX : session->impl->spec().lane;
}

kvmm_status kvmm_session_address(kvmm_session* session, uint32_t plane, void** address) {
  return with_space(session, [&](Mm&, AddressSpace& s) -> Result<void> {
    if (address == nullptr) {
      return Error(Errc::kInvalid, kNoOut);
    }
    if (s.vma_of_plane(plane) == nullptr) {
      return Error(Errc::kRange,
                   "the session has " + std::to_string(s.planes().size()) + " planes");
    }
    *address = reinterpret_cast<void*>(s.lane_start(plane).value());
    return {};
  });
}

kvmm_status kvmm_append(kvmm_session* session, const int32_t* ids, uint64_t n) {
  (void)ids;  // token ids feed the prefix cache, which is not part of this version
  return with_space(session, [&](Mm& mm, AddressSpace& s) { return mm.append(s, n); });
}

kvmm_status kvmm_truncate(kvmm_session* session, uint64_t tokens) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(session); !ok) {
      return api_status(ok);
    }
    return api_status(session->runtime->run_job(
        [&](Mm& mm, MmJob& job) { return mm.truncate(*session->impl, tokens, job); }));
  });
}

uint64_t kvmm_tokens(kvmm_session* session) {
  return session == nullptr ? 0 : session->impl->stats.tokens.load(std::memory_order_relaxed);
}

kvmm_status kvmm_discard(kvmm_session* session, uint64_t a, uint64_t b) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(session); !ok) {
      return api_status(ok);
    }
    return api_status(session->runtime->run_job([&](Mm& mm, MmJob& job) {
      return mm.discard_tokens(*session->impl, a, clip(b, *session->impl), job);
    }));
  });
}

kvmm_status kvmm_recompute_ranges(kvmm_session* session, kvmm_range* ranges, size_t capacity,
                                  size_t* count) {
  if (count == nullptr || (ranges == nullptr && capacity != 0)) {
    return api_status(Error(Errc::kInvalid, kNoOut));
  }
  std::vector<kvmm_range> all;
  const kvmm_status status = with_space(session, [&](Mm& mm, AddressSpace& s) -> Result<void> {
    mm.for_each_gone(s, [&](uint64_t a, uint64_t b) { all.push_back({a, b}); });
    return {};
  });
  if (status != KVMM_OK) {
    return status;
  }
  std::sort(all.begin(), all.end(),
            [](const kvmm_range& x, const kvmm_range& y) { return x.begin < y.begin; });
  std::vector<kvmm_range> merged;
  for (const kvmm_range& r : all) {
    if (!merged.empty() && r.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, r.end);
    } else {
      merged.push_back(r);
    }
  }
  std::copy_n(merged.begin(), std::min(capacity, merged.size()), ranges);
  *count = merged.size();
  return api_ok();
}

kvmm_status kvmm_recompute_begin(kvmm_session* session, uint64_t a, uint64_t b) {
  return with_space(session, [&](Mm& mm, AddressSpace& s) { return mm.recompute_begin(s, a, b); });
}

kvmm_status kvmm_recompute_end(kvmm_session* session, uint64_t a, uint64_t b) {
  return with_space(session, [&](Mm& mm, AddressSpace& s) { return mm.recompute_end(s, a, b); });
}

kvmm_status kvmm_prefetch(kvmm_session* session, uint64_t a, uint64_t b, uint64_t deadline_us) {
  return with_space(session, [&](Mm& mm, AddressSpace& s) -> Result<void> {
    if (a > b) {
      return Errc::kRange;
    }
    const kvmm::Tick now = session->runtime->core().now();
    mm.prefetch(s, a, clip(b, s),
                now + kvmm::micros(std::min<uint64_t>(deadline_us, 3'600'000'000u)));
    return {};
  });
}

kvmm_status kvmm_advise(kvmm_session* session, uint32_t advice) {
  return with_space(session, [&](Mm& mm, AddressSpace& s) -> Result<void> {
    switch (advice) {
      case KVMM_ADVISE_NORMAL:
        mm.advise(s, kvmm::Advice::kNormal);
        return {};
      case KVMM_ADVISE_RUNNING:
        mm.advise(s, kvmm::Advice::kRunning);
        return {};
      case KVMM_ADVISE_IDLE:
        mm.advise(s, kvmm::Advice::kIdle);
        return {};
      case KVMM_ADVISE_EVICT:
        mm.advise(s, kvmm::Advice::kIdle);
        mm.evict(s);
        return {};
      case KVMM_ADVISE_DURABLE:
        mm.advise(s, kvmm::Advice::kDurable);
        return {};
      default:
        return Error(Errc::kInvalid, "unknown advice");
    }
  });
}

kvmm_status kvmm_sync(kvmm_session* session, uint64_t* seq) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(session); !ok) {
      return api_status(ok);
    }
    auto n = session->runtime->sync(*session->impl);
    if (!n) {
      return api_status(n.error());
    }
    if (seq != nullptr) {
      *seq = *n;
    }
    return api_ok();
  });
}

kvmm_status kvmm_session_stats(kvmm_session* session, kvmm_session_stat* stat) {
  if (auto ok = usable(session); !ok) {
    return api_status(ok);
  }
  if (stat == nullptr || stat->size < sizeof(size_t)) {
    return api_status(Error(Errc::kInvalid, kBadSize));
  }
  const kvmm::SpaceStats& t = session->impl->stats;
  kvmm_session_stat s{};
  s.size = stat->size;
  s.tokens = t.tokens;
  s.bytes_resident = t.bytes_resident;
  s.bytes_swapped = t.bytes_swapped;
  s.bytes_discarded = t.bytes_discarded;
  s.faults_zero = t.faults_zero;
  s.faults_minor = t.faults_minor;
  s.faults_major = t.faults_major;
  s.swap_in_bytes = t.swap_in_bytes;
  s.swap_out_bytes = t.swap_out_bytes;
  s.clean_drops = t.clean_drops;
  s.wrong_pages = t.wrong_pages;
  s.seal_violations = t.seal_violations;
  s.pages_poisoned = t.pages_poisoned;
  std::memcpy(stat, &s, std::min(stat->size, sizeof s));
  return api_ok();
}

}  // extern "C"
