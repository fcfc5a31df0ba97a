// SPDX-License-Identifier: Apache-2.0
//
// What the C API's handles are, and how its calls report: every entry point catches, translates and
// remembers the text for kvmm_last_error.
//
// Thread safety: as kvmm/kvmm.h says. Ownership: a handle owns nothing but itself, except
// kvmm_runtime, which owns the Runtime, and kvmm_pin, which owns its batch.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "kvmm/kvmm.h"
#include "runtime/runtime.h"

struct kvmm_runtime {
  std::unique_ptr<kvmm::Runtime> impl;
};

struct kvmm_arena {
  kvmm::Runtime* runtime = nullptr;
  kvmm::Arena* impl = nullptr;
};

struct kvmm_session {
  kvmm::Runtime* runtime = nullptr;
  kvmm::AddressSpace* impl = nullptr;
};

struct kvmm_pin {
  kvmm::Runtime* runtime = nullptr;
  kvmm::PinBatch batch;
  int event_fd = -1;
};

namespace kvmm {

inline const Runtime* runtime_of(const kvmm_runtime* h) {
  return h->impl.get();
}
template <class Handle>
const Runtime* runtime_of(const Handle* h) {
  return h->runtime;
}

// What is wrong with a handle: it is null, or this is a forked child. A call there would wait for
// threads that only the parent has.
template <class Handle>
Result<void> usable(const Handle* h) {
  if (h == nullptr) {
    return Error(Errc::kInvalid, "a handle (runtime, arena, session or pin) is NULL");
  }
  if (runtime_of(h)->forked()) {
    return Error(Errc::kClosed,
                 "this is a forked child; the runtime is its parent's: exec or _exit, or open a "
                 "runtime of its own");
  }
  return {};
}

kvmm_status api_status(const Error& error);
kvmm_status api_ok();

template <class T>
kvmm_status api_status(const Result<T>& r) {
  return r.ok() ? api_ok() : api_status(r.error());
}

// Runs an entry point's body: running out of memory is a status like any other.
template <class Fn>
kvmm_status api_call(Fn&& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return api_status(Error(Errc::kNoMemory));
  } catch (const std::exception& e) {
    return api_status(Error(Errc::kLimit, e.what()));
  }
}

// The caller's options as this version knows them: fields it does not have are 0.
template <class T>
bool api_options(const T* given, T* out) {
  std::memset(static_cast<void*>(out), 0, sizeof *out);
  if (given == nullptr) {
    return true;
  }
  if (given->size < sizeof(size_t) || given->size > 64 * 1024) {
    return false;
  }
  // A larger struct comes from a newer header: fields that we do not know must be unused.
  if (given->size > sizeof *out) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (size_t i = sizeof *out; i < given->size; ++i) {
      if (bytes[i] != 0) {
        return false;
      }
    }
  }
  std::memcpy(static_cast<void*>(out), given,
              given->size < sizeof *out ? given->size : sizeof *out);
  return true;
}

inline constexpr const char* kBadSize =
    "options.size is not that of a struct of this API, or fields of a newer version are set: use "
    "KVMM_INIT";

inline constexpr const char* kNoOut = "the pointer to the result is NULL";

// A borrowed text of at most 255 bytes; null is "". False: too long, or with control characters.
bool api_text(const char* given, std::string* out);

}  // namespace kvmm
