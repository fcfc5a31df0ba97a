// SPDX-License-Identifier: Apache-2.0
#include "runtime/api.h"

#include <algorithm>

namespace kvmm {
namespace {

// Per thread, so that no call of another thread changes it; a fixed buffer, so that it is no object
// with a destructor.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): what kvmm_last_error is
thread_local char t_error[512] = "";

void remember(const std::string& text) {
  const size_t n = std::min(text.size(), sizeof t_error - 1);
  std::memcpy(t_error, text.data(), n);
  t_error[n] = '\0';
}

}  // namespace

kvmm_status api_ok() {
  t_error[0] = '\0';
  return KVMM_OK;
}

kvmm_status api_status(const Error& error) {
  if (error.code == Errc::kOk) {
    return api_ok();
  }
  remember(error.text());
  return -static_cast<kvmm_status>(error.code);
}

bool api_text(const char* given, std::string* out) {
  out->clear();
  if (given == nullptr) {
    return true;
  }
  const size_t n = strnlen(given, 256);
  if (n > 255) {
    return false;
  }
  out->assign(given, n);
  return std::none_of(out->begin(), out->end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

#define KVMM_SAME(c, e) static_assert((c) == -static_cast<int32_t>(Errc::e))
KVMM_SAME(KVMM_EINVALID, kInvalid);
KVMM_SAME(KVMM_ENOTFOUND, kNotFound);
KVMM_SAME(KVMM_EEXISTS, kExists);
KVMM_SAME(KVMM_EAGAIN, kAgain);
KVMM_SAME(KVMM_EBUSY, kBusy);
KVMM_SAME(KVMM_ENOMEMORY, kNoMemory);
KVMM_SAME(KVMM_ENOSPACE, kNoSpace);
KVMM_SAME(KVMM_EIO, kIo);
KVMM_SAME(KVMM_ECORRUPT, kCorrupt);
KVMM_SAME(KVMM_ESTALE, kStale);
KVMM_SAME(KVMM_EMODELMISMATCH, kModelMismatch);
KVMM_SAME(KVMM_ERECOMPUTE, kRecompute);
KVMM_SAME(KVMM_ENOTSUPPORTED, kNotSupported);
KVMM_SAME(KVMM_EPERMISSION, kPermission);
KVMM_SAME(KVMM_ERANGE, kRange);
KVMM_SAME(KVMM_ESEALED, kSealed);
KVMM_SAME(KVMM_ESEALVIOLATION, kSealViolation);
KVMM_SAME(KVMM_ECLOSED, kClosed);
KVMM_SAME(KVMM_ECANCELLED, kCancelled);
KVMM_SAME(KVMM_EVERSION, kVersion);
KVMM_SAME(KVMM_ELIMIT, kLimit);
KVMM_SAME(KVMM_EDEVICEGONE, kDeviceGone);
#undef KVMM_SAME

}  // namespace kvmm

using kvmm::api_call;
using kvmm::api_ok;
using kvmm::api_options;
using kvmm::api_status;
using kvmm::api_text;
using kvmm::Bytes;
using kvmm::Errc;
using kvmm::Error;
using kvmm::kBadSize;
using kvmm::kNoOut;
using kvmm::usable;

extern "C" {

const char* kvmm_status_name(kvmm_status status) {
  return kvmm::errc_name(static_cast<Errc>(-status));
}
const char* kvmm_status_text(kvmm_status status) {
  return kvmm::errc_text(static_cast<Errc>(-status));
}
const char* kvmm_last_error(void) {
  return kvmm::t_error;
}
uint32_t kvmm_version(void) {
  return (KVMM_VERSION_MAJOR << 16) | (KVMM_VERSION_MINOR << 8) | KVMM_VERSION_PATCH;
}

// ------------------------------------------------------------------------------------ runtime

kvmm_status kvmm_runtime_open(const kvmm_runtime_options* options, kvmm_runtime** out) {
  return api_call([&]() -> kvmm_status {
    kvmm_runtime_options o;
    if (out == nullptr || !api_options(options, &o)) {
      return api_status(Error(Errc::kInvalid, out == nullptr ? kNoOut : kBadSize));
    }
    kvmm::RuntimeConfig c;
    std::string frames;
    if (!api_text(o.name, &c.name) || !api_text(o.config_dir, &c.config_dir) ||
        !api_text(o.swap_path, &c.swap_path) || !api_text(o.frames, &frames) ||
        !api_text(o.swap_driver, &c.swap_driver.name) ||
        !api_text(o.swap_driver_options, &c.swap_driver.options)) {
      return api_status(
          Error(Errc::kInvalid, "a text is longer than 255 bytes or has control characters"));
    }
    constexpr uint32_t kKnown =
        KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_PIN_ONLY | KVMM_RUNTIME_VOLATILE;
    if ((o.flags & ~kKnown) != 0) {
      return api_status(Error(Errc::kInvalid, "unknown flag in kvmm_runtime_options.flags"));
    }
    if (o.dram_bytes > uint64_t{1} << 46) {
      return api_status(Error(Errc::kRange, "dram_bytes must be at most 64 TiB"));
    }
    if (o.data_workers > 64) {
      return api_status(Error(Errc::kInvalid, "data_workers must be 0..64"));
    }
    if (!frames.empty() && frames != "movable" && frames != "shareable") {
      return api_status(
          Error(Errc::kInvalid, "frames must be movable or shareable, not '" + frames + "'"));
    }
    c.dram = Bytes(o.dram_bytes);
    c.swap_size = Bytes(o.swap_bytes);
    c.frames = (o.flags & KVMM_RUNTIME_PIN_ONLY) != 0 ? "pinonly" : frames;
    c.control = (o.flags & KVMM_RUNTIME_NO_CONTROL) == 0;
    c.swap_volatile = (o.flags & KVMM_RUNTIME_VOLATILE) != 0;
    c.data_workers = o.data_workers == 0 ? 1 : o.data_workers;
    auto r = kvmm::Runtime::open(kvmm::real_platform(), std::move(c));
    if (!r) {
      return api_status(r.error());
    }
    *out = new kvmm_runtime{std::move(*r)};
    return api_ok();
  });
}

kvmm_status kvmm_runtime_close(kvmm_runtime* runtime) {
  return api_call([&]() -> kvmm_status {
    if (runtime == nullptr) {
      return api_ok();
    }
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (auto ok = runtime->impl->close(); !ok) {
      return api_status(ok.error());
    }
    delete runtime;
    return api_ok();
  });
}

kvmm_status kvmm_swapon(kvmm_runtime* runtime, const char* path, uint64_t bytes, int32_t priority) {
  kvmm_swap_options o{};
  o.size = sizeof o;
  o.path = path;
  o.bytes = bytes;
  o.priority = priority;
  return kvmm_swapon_with(runtime, &o);
}

kvmm_status kvmm_swapon_with(kvmm_runtime* runtime, const kvmm_swap_options* options) {
  return api_call([&]() -> kvmm_status {
    std::string path;
    kvmm::SwapDriver driver;
    kvmm_swap_options o;
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (options == nullptr || !api_options(options, &o)) {
      return api_status(Error(Errc::kInvalid, kBadSize));
    }
    if (!api_text(o.path, &path) || path.empty()) {
      return api_status(
          Error(Errc::kInvalid, "a path of 1 to 255 bytes without control characters is needed"));
    }
    if (!api_text(o.driver, &driver.name) || !api_text(o.driver_options, &driver.options)) {
      return api_status(Error(Errc::kInvalid,
                              "driver and driver_options are at most 255 bytes without control "
                              "characters"));
    }
    if (o.priority < -32768 || o.priority > 32767) {
      return api_status(Error(Errc::kRange, "priority must be -32768..32767"));
    }
    return api_status(runtime->impl->swapon(path, Bytes(o.bytes), o.priority, driver));
  });
}

kvmm_status kvmm_swapoff(kvmm_runtime* runtime, const char* path) {
  return api_call([&]() -> kvmm_status {
    std::string p;
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (!api_text(path, &p) || p.empty()) {
      return api_status(
          Error(Errc::kInvalid, "a path of 1 to 255 bytes without control characters is needed"));
    }
    return api_status(runtime->impl->swapoff(p));
  });
}

kvmm_status kvmm_attr_get(kvmm_runtime* runtime, const char* path, char* value, size_t length) {
  return api_call([&]() -> kvmm_status {
    std::string p;
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (path == nullptr || !api_text(path, &p) || value == nullptr || length == 0) {
      return api_status(Error(Errc::kInvalid, "a path, and room for the value, are needed"));
    }
    auto text = runtime->impl->attributes().get(p);
    if (!text) {
      return api_status(text.error());
    }
    const size_t n = std::min(text->size(), length - 1);
    std::memcpy(value, text->data(), n);
    value[n] = '\0';
    return api_ok();
  });
}

kvmm_status kvmm_attr_set(kvmm_runtime* runtime, const char* path, const char* value) {
  return api_call([&]() -> kvmm_status {
    std::string p;
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (path == nullptr || !api_text(path, &p) || value == nullptr) {
      return api_status(Error(Errc::kInvalid, "a path and a value are needed"));
    }
    return api_status(runtime->impl->attributes().set(p, value));
  });
}

// ------------------------------------------------------------------------------------ arenas

kvmm_status kvmm_arena_create(kvmm_runtime* runtime, const kvmm_arena_options* options,
                              kvmm_arena** out) {
  return api_call([&]() -> kvmm_status {
    kvmm_arena_options o;
    if (auto ok = usable(runtime); !ok) {
      return api_status(ok);
    }
    if (out == nullptr || !api_options(options, &o)) {
      return api_status(Error(Errc::kInvalid, out == nullptr ? kNoOut : kBadSize));
    }
    kvmm::ArenaSpec spec;
    if (!api_text(o.name, &spec.name) || !api_text(o.layout, &spec.layout) || o.placement > 1 ||
        o.engine > 1) {
      return api_status(Error(Errc::kInvalid, "name, layout, placement or engine is not valid"));
    }
    if (o.model_id != nullptr) {
      std::memcpy(spec.model_id.data(), o.model_id, spec.model_id.size());
    }
    spec.model_is_random = o.model_id == nullptr;
    spec.lanes = o.lanes == 0 ? 1 : o.lanes;
    spec.lane_tokens = o.lane_tokens;
    spec.placement = static_cast<kvmm::Placement>(o.placement);
    spec.engine = static_cast<kvmm::EngineKind>(o.engine);
    auto a = runtime->impl->create_arena(std::move(spec));
    if (!a) {
      return api_status(a.error());
    }
    *out = new kvmm_arena{runtime->impl.get(), *a};
    return api_ok();
  });
}

kvmm_status kvmm_arena_destroy(kvmm_arena* arena) {
  return api_call([&]() -> kvmm_status {
    if (arena == nullptr) {
      return api_ok();
    }
    if (auto ok = usable(arena); !ok) {
      return api_status(ok);
    }
    if (auto ok = arena->runtime->destroy_arena(*arena->impl); !ok) {
      return api_status(ok.error());
    }
    delete arena;
    return api_ok();
  });
}

kvmm_status kvmm_arena_reserve(kvmm_arena* arena, uint64_t length, void** base) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(arena); !ok) {
      return api_status(ok);
    }
    if (base == nullptr || length > (uint64_t{1} << 46)) {
      return api_status(
          Error(Errc::kInvalid, base == nullptr ? kNoOut : "length must be 1..64 TiB"));
    }
    auto r = arena->runtime->reserve(*arena->impl, Bytes(length));
    if (!r) {
      return api_status(r.error());
    }
    *base = reinterpret_cast<void*>(r->start.value());
    return api_ok();
  });
}

kvmm_status kvmm_arena_add_plane(kvmm_arena* arena, const kvmm_plane_options* options,
                                 uint32_t* plane) {
  return api_call([&]() -> kvmm_status {
    kvmm_plane_options o;
    if (auto ok = usable(arena); !ok) {
      return api_status(ok);
    }
    if (!api_options(options, &o)) {
      return api_status(Error(Errc::kInvalid, kBadSize));
    }
    kvmm::PlaneSpec spec;
    if (!api_text(o.name, &spec.name)) {
      return api_status(Error(Errc::kInvalid, "the plane's name is too long"));
    }
    spec.base = kvmm::VirtAddr(reinterpret_cast<uint64_t>(o.base));
    spec.lane_stride = Bytes(o.lane_stride);
    spec.token_stride = Bytes(o.token_stride);
    spec.layers = o.layers == 0 ? 1 : o.layers;
    spec.window = o.window;
    spec.page_size = Bytes(o.page_size);
    auto n = arena->runtime->add_plane(*arena->impl, std::move(spec));
    if (!n) {
      return api_status(n.error());
    }
    if (plane != nullptr) {
      *plane = *n;
    }
    return api_ok();
  });
}

kvmm_status kvmm_arena_clear(kvmm_arena* arena, void* start, uint64_t length) {
  return api_call([&]() -> kvmm_status {
    if (auto ok = usable(arena); !ok) {
      return api_status(ok);
    }
    const kvmm::AddressRange range{kvmm::VirtAddr(reinterpret_cast<uint64_t>(start)),
                                   Bytes(length)};
    return api_status(arena->runtime->clear(*arena->impl, range));
  });
}

}  // extern "C"
