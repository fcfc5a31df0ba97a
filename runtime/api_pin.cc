// SPDX-License-Identifier: Apache-2.0
//
// The C API's pins.
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/api.h"

using kvmm::api_call;
using kvmm::api_ok;
using kvmm::api_options;
using kvmm::api_status;
using kvmm::Errc;
using kvmm::Error;
using kvmm::MutexLock;
using kvmm::PinAnswer;
using kvmm::usable;

namespace {

constexpr size_t kRangesMax = 65536;

uint32_t answer_of(PinAnswer a) {
  switch (a) {
    case PinAnswer::kReady:
      return KVMM_PIN_READY;
    case PinAnswer::kComing:
      return KVMM_PIN_COMING;
    case PinAnswer::kRecompute:
      return KVMM_PIN_RECOMPUTE;
    case PinAnswer::kFailed:
      return KVMM_PIN_FAILED;
  }
  return KVMM_PIN_FAILED;
}

// The pages of one range of the batch. REQUIRES: the core lock.
kvmm::Result<kvmm::PinRange> resolve(const kvmm_pin_range& r, const kvmm::Runtime* runtime) {
  if (r.session == nullptr || r.session->runtime != runtime) {
    return Error(Errc::kInvalid, "a range's session is NULL or of another runtime");
  }
  kvmm::AddressSpace& s = *r.session->impl;
  const auto planes = static_cast<uint32_t>(s.planes().size());
  uint64_t end = r.end;
  if (end == KVMM_ALL_TOKENS && !s.raw()) {
    end = s.tokens;
  }
  if (r.begin > end || (r.plane != KVMM_ALL_PLANES && r.plane >= planes) ||
      (!s.raw() && end > s.token_capacity())) {
    return Error(Errc::kRange, "a range is outside its session");
  }
  kvmm::PinRange out;
  out.space = &s;
  out.write = r.write != 0;
  for (uint32_t p = 0; p < planes; ++p) {
    if (r.plane != KVMM_ALL_PLANES && r.plane != p) {
      continue;
    }
    const kvmm::PlaneSpec& plane = s.arena().planes[p];
    if (!s.arena().whole_lanes(plane)) {  // its first page may be another session's
      return Error(Errc::kInvalid, "plane '" + plane.name +
                                       "' cannot be pinned: lane_stride and base must be "
                                       "multiples of page_size");
    }
    const auto pages = s.pages_of_tokens(p, r.begin, end);
    if (pages.begin < pages.end) {
      out.spans.push_back({s.planes()[p].object.get(), pages.begin, pages.end});
    }
  }
  return out;
}

}  // namespace

extern "C" {

kvmm_status kvmm_pin_batch(kvmm_runtime* runtime, const kvmm_pin_range* ranges, size_t n,
                           kvmm_pin** out, uint32_t* answers) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (ranges == nullptr || out == nullptr || n == 0 || n > kRangesMax) {
      return api_status(Error(Errc::kInvalid, "a batch has 1 to 65536 ranges"));
    }
    auto pin = std::make_unique<kvmm_pin>();
    pin->runtime = runtime->impl.get();
    pin->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (pin->event_fd < 0) {
      return api_status(Error(Errc::kLimit, "no eventfd: raise ulimit -n", errno));
    }
    pin->batch.context = pin.get();
    pin->batch.settled = [](void* context) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t w =
          write(static_cast<kvmm_pin*>(context)->event_fd, &one, sizeof one);
    };
    kvmm::Core& core = pin->runtime->core();
    MutexLock l(core.lock());
    kvmm::Result<void> ok;
    for (size_t i = 0; i < n && ok; ++i) {
      auto range = resolve(ranges[i], pin->runtime);
      ok = range ? kvmm::Result<void>() : kvmm::Result<void>(range.error());
      if (range) {
        core.called_from_here(*range->space);
        pin->batch.ranges.push_back(std::move(*range));
      }
    }
    if (ok) {
      ok = core.mm().pin(pin->batch, core.now());
    }
    if (!ok) {
      close(pin->event_fd);
      return api_status(ok.error());
    }
    core.step();
    core.mm().pin_poll(pin->batch);
    for (size_t i = 0; answers != nullptr && i < n; ++i) {
      answers[i] = answer_of(pin->batch.ranges[i].answer);
    }
    *out = pin.release();
    return api_ok();
  });
}

int kvmm_pin_fd(const kvmm_pin* pin) {
  return pin == nullptr ? -1 : pin->event_fd;
}

kvmm_status kvmm_pin_poll(kvmm_pin* pin, uint32_t* answers, size_t n) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(pin); !ok) {
      return api_status(ok);
    }
    if (answers == nullptr || n != pin->batch.ranges.size()) {
      return api_status(Error(Errc::kInvalid, "n must be as given to kvmm_pin_batch"));
    }
    kvmm::Core& core = pin->runtime->core();
    MutexLock l(core.lock());
    core.mm().pin_poll(pin->batch);
    for (size_t i = 0; i < n; ++i) {
      answers[i] = answer_of(pin->batch.ranges[i].answer);
    }
    return api_ok();
  });
}

kvmm_status kvmm_unpin(kvmm_pin* pin, const kvmm_fence* fence) {
  return api_call([&]() -> kvmm_status {
    kvmm_fence f;
    if (auto ok = usable(pin); !ok) {
      return api_status(ok);
    }
    if (!api_options(fence, &f)) {
      return api_status(Error(Errc::kInvalid, kvmm::kBadSize));
    }
    kvmm::Fence k;
    k.handle = f.handle;
    switch (f.type) {
      case KVMM_FENCE_NONE:
        break;
      case KVMM_FENCE_CALLBACK:
        k.kind = kvmm::Fence::Kind::kCallback;
        k.done = f.done;
        break;
      case KVMM_FENCE_CUDA_EVENT:
        k.kind = kvmm::Fence::Kind::kEvent;
        break;
      default:
        return api_status(Error(Errc::kInvalid, "unknown fence type"));
    }
    kvmm::Core& core = pin->runtime->core();
    MutexLock l(core.lock());
    if (auto ok = core.mm().unpin(pin->batch, k); !ok) {
      return api_status(ok.error());
    }
    core.step();
    core.wake();  // it watches the fence
    close(pin->event_fd);
    delete pin;
    return api_ok();
  });
}

}  // extern "C"
