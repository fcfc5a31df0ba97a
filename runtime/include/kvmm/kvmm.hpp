// SPDX-License-Identifier: Apache-2.0
//
// kvmm.hpp: owners for the handles of kvmm.h, so that a C++ engine closes what it opened.
//
//   Runtime --- Arena --- Session      each owns one C handle and closes it when it goes away
//      \----------------- Pin          each owns one pinned batch and unpins it when it goes away
//
//   auto runtime = kvmmpp::Runtime::open(options);
//   if (!runtime) return runtime.status().message();
//   auto arena = kvmmpp::Arena::create(*runtime, arena_options);
//
// Choices
//   - Nothing throws but std::bad_alloc. Refusals such as EBUSY are ordinary answers of a memory
//     manager, and engines that are built with -fno-exceptions can use this header. A call returns
//     `Status`, or `Result<T>` where there is something to hand out; both are [[nodiscard]].
//   - Everything is inline and in namespace `kvmmpp`. The library's own C++ code lives in namespace
//     `kvmm`; with a name of its own this header can be used beside it in one program.
//   - C++17, no dependency but kvmm.h and the standard library.
//
// Invariants
//   1. An owner holds one open handle or none (default constructed, moved from, closed or
//   released).
//   2. Owners move and never copy. Moving does not touch the C object: raw handles stay valid.
//   3. A `Result` holds a value or a failed `Status`, never both.
//
// Lifetime: an owner does not keep its parent alive. Destroy pins and sessions before their arena,
// and arenas before their runtime: the reverse of construction, as members of one class do by
// themselves. A destructor cannot report a refusal (EBUSY: a pin is open or its fence is not done).
// The C object then stays open until its parent is closed: pages are never freed under a pin. Call
// `close()` where the answer matters.
//
// Thread safety: as kvmm.h; an owner itself is not to be moved or closed while another thread uses
// it.
#ifndef KVMM_KVMM_HPP_
#define KVMM_KVMM_HPP_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kvmm/kvmm.h"

namespace kvmmpp {

// ------------------------------------------------------------------------------------------
// results

// How a call ended: KVMM_OK, or a KVMM_E* with what kvmm_last_error() said right after it.
class [[nodiscard]] Status {
 public:
  Status() = default;

  // Takes the answer of a C function. To be called on the thread of that call and before any other
  // kvmm call, because it fetches kvmm_last_error().
  static Status of(kvmm_status code) {
    Status status;
    status.code_ = code;
    if (code != KVMM_OK)
      status.detail_ = kvmm_last_error();
    return status;
  }
  // A failure found on this side of the API. REQUIRES: code != KVMM_OK.
  static Status failure(kvmm_status code, std::string detail) {
    Status status;
    status.code_ = code;
    status.detail_ = std::move(detail);
    return status;
  }

  bool ok() const noexcept { return code_ == KVMM_OK; }
  explicit operator bool() const noexcept { return ok(); }
  kvmm_status code() const noexcept { return code_; }
  // What the failed call had to say (kvmm_last_error); "" if it succeeded.
  const std::string& detail() const noexcept { return detail_; }
  // "busy: it is pinned, in use, or held by I/O: 2 pins are open", for people. Nothing is in it
  // twice.
  std::string message() const {
    const std::string text = kvmm_status_text(code_);
    const bool says_text = detail_.compare(0, text.size(), text) == 0;
    return std::string(kvmm_status_name(code_)) + ": " +
           (says_text         ? detail_
            : detail_.empty() ? text
                              : text + ": " + detail_);
  }

 private:
  kvmm_status code_ = KVMM_OK;
  std::string detail_;
};

// A value, or the reason why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: meant to be implicit
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: REQUIRES: !status.ok()

  bool ok() const noexcept { return value_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  const Status& status() const noexcept { return status_; }

  // REQUIRES: ok().
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

// A zeroed struct of kvmm.h with its `size` set: what KVMM_INIT does in C.
template <typename T>
constexpr T init() noexcept {
  T value{};
  value.size = sizeof(T);
  return value;
}

// -------------------------------------------------------------------------------------------
// owners

// Owns one C handle of type T; `Close` is the C function that ends it. Base of the classes below.
template <typename T, kvmm_status (*Close)(T*)>
class Owner {
 public:
  Owner() = default;
  explicit Owner(T* handle) noexcept : handle_(handle) {}
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    if (this != &other) {
      if (handle_ != nullptr)
        static_cast<void>(Close(handle_));
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Owner() {
    if (handle_ != nullptr)
      static_cast<void>(Close(handle_));
  }

  // Closes now. On failure (EBUSY) the handle stays open and owned. Without a handle: ok.
  Status close() {
    if (handle_ == nullptr)
      return Status();
    Status status = Status::of(Close(handle_));
    if (status.ok())
      handle_ = nullptr;
    return status;
  }
  // The raw handle for calls of kvmm.h, or null; stays owned.
  T* get() const noexcept { return handle_; }
  // Hands the raw handle over to the caller, who closes it from now on.
  T* release() noexcept { return std::exchange(handle_, nullptr); }
  explicit operator bool() const noexcept { return handle_ != nullptr; }

 private:
  T* handle_ = nullptr;
};

// A runtime: tiers, swap areas, attributes. See kvmm_runtime_open.
class Runtime : public Owner<kvmm_runtime, kvmm_runtime_close> {
 public:
  using Owner::Owner;

  // Errors as kvmm_runtime_open; EPERMISSION and ENOTSUPPORTED say in detail() what would allow it.
  static Result<Runtime> open(const kvmm_runtime_options& options) {
    kvmm_runtime* handle = nullptr;
    Status status = Status::of(kvmm_runtime_open(&options, &handle));
    if (!status.ok())
      return status;
    return Runtime(handle);
  }
  // Adds or takes out a swap area while running; bytes 0: 16 GiB, or all of a block device.
  // Priority -32768..32767, higher is used first.
  Status swapon(const std::string& path, uint64_t bytes, int32_t priority) {
    return Status::of(kvmm_swapon(get(), path.c_str(), bytes, priority));
  }
  Status swapon(const kvmm_swap_options& options) {
    return Status::of(kvmm_swapon_with(get(), &options));
  }
  Status swapoff(const std::string& path) { return Status::of(kvmm_swapoff(get(), path.c_str())); }
  // The whole text of one attribute. ENOTFOUND; ELIMIT: longer than 1 MiB.
  Result<std::string> attr(const std::string& path) const {
    for (size_t length = 256; length <= (size_t{1} << 20); length *= 2) {
      std::vector<char> text(length);
      Status status = Status::of(kvmm_attr_get(get(), path.c_str(), text.data(), length));
      if (!status.ok())
        return status;
      std::string value(text.data());
      if (value.size() + 1 < length)
        return value;  // shorter than the room: it was not cut
    }
    return Status::failure(KVMM_ELIMIT, path + ": longer than 1 MiB");
  }
  // ENOTFOUND, EPERMISSION (read-only), EINVALID (unit), ERANGE; the old value stays.
  Status set_attr(const std::string& path, const std::string& value) {
    return Status::of(kvmm_attr_set(get(), path.c_str(), value.c_str()));
  }
};

// The KV of one model: planes and lanes. See kvmm_arena_create.
class Arena : public Owner<kvmm_arena, kvmm_arena_destroy> {
 public:
  using Owner::Owner;

  static Result<Arena> create(const Runtime& runtime, const kvmm_arena_options& options) {
    kvmm_arena* handle = nullptr;
    Status status = Status::of(kvmm_arena_create(runtime.get(), &options, &handle));
    if (!status.ok())
      return status;
    return Arena(handle);
  }
  // Address of `length` reserved bytes (rounded up to 2 MiB) to lay planes into.
  Result<void*> reserve(uint64_t length) {
    void* base = nullptr;
    Status status = Status::of(kvmm_arena_reserve(get(), length, &base));
    if (!status.ok())
      return status;
    return base;
  }
  // The new plane's number.
  Result<uint32_t> add_plane(const kvmm_plane_options& options) {
    uint32_t plane = 0;
    Status status = Status::of(kvmm_arena_add_plane(get(), &options, &plane));
    if (!status.ok())
      return status;
    return plane;
  }
  // Drops [start, start + length) bytes, whatever raw session owns them. EBUSY: pinned.
  Status clear(void* start, uint64_t length) {
    return Status::of(kvmm_arena_clear(get(), start, length));
  }
};

// One sequence. See kvmm_session_open. Token ranges are half-open.
class Session : public Owner<kvmm_session, kvmm_session_close> {
 public:
  using Owner::Owner;

  static Result<Session> open(const Arena& arena, const kvmm_session_options& options) {
    kvmm_session* handle = nullptr;
    Status status = Status::of(kvmm_session_open(arena.get(), &options, &handle));
    if (!status.ok())
      return status;
    return Session(handle);
  }
  uint64_t id() const { return kvmm_session_id(get()); }
  uint32_t lane() const { return kvmm_session_lane(get()); }
  uint64_t tokens() const { return kvmm_tokens(get()); }

  // Address of token 0 in `plane`; constant for the session's life.
  Result<void*> address(uint32_t plane) const {
    void* address = nullptr;
    Status status = Status::of(kvmm_session_address(get(), plane, &address));
    if (!status.ok())
      return status;
    return address;
  }
  // Says that the next `n` tokens are written in every plane; `ids` (n of them) may be null.
  Status append(const int32_t* ids, uint64_t n) { return Status::of(kvmm_append(get(), ids, n)); }
  Status truncate(uint64_t tokens) { return Status::of(kvmm_truncate(get(), tokens)); }
  Status discard(uint64_t begin, uint64_t end) {
    return Status::of(kvmm_discard(get(), begin, end));
  }
  // All token ranges whose content is gone, ascending.
  Result<std::vector<kvmm_range>> recompute_ranges() const {
    std::vector<kvmm_range> ranges(8);
    for (;;) {
      size_t count = 0;
      Status status =
          Status::of(kvmm_recompute_ranges(get(), ranges.data(), ranges.size(), &count));
      if (!status.ok())
        return status;
      const bool complete = count <= ranges.size();
      ranges.resize(count);
      if (complete)
        return ranges;
    }
  }
  // Makes [begin, end) writable again, gone pages as zeros; after recompute_end it is content
  // again.
  Status recompute_begin(uint64_t begin, uint64_t end) {
    return Status::of(kvmm_recompute_begin(get(), begin, end));
  }
  Status recompute_end(uint64_t begin, uint64_t end) {
    return Status::of(kvmm_recompute_end(get(), begin, end));
  }
  // Starts to bring [begin, end) back; `deadline_us` from now, 0: as soon as can be.
  Status prefetch(uint64_t begin, uint64_t end, uint64_t deadline_us = 0) {
    return Status::of(kvmm_prefetch(get(), begin, end, deadline_us));
  }
  // One of KVMM_ADVISE_*.
  Status advise(uint32_t advice) { return Status::of(kvmm_advise(get(), advice)); }
  // Waits until all is on swap and flushed; the number of this sync.
  Result<uint64_t> sync() {
    uint64_t sequence = 0;
    Status status = Status::of(kvmm_sync(get(), &sequence));
    if (!status.ok())
      return status;
    return sequence;
  }
  Result<kvmm_session_stat> stats() const {
    auto stat = init<kvmm_session_stat>();
    Status status = Status::of(kvmm_session_stats(get(), &stat));
    if (!status.ok())
      return status;
    return stat;
  }
};

// Ends a pin without a fence, in the shape that Owner wants.
inline kvmm_status unpin_now(kvmm_pin* pin) {
  return kvmm_unpin(pin, nullptr);
}

// One pinned batch. See kvmm_pin_batch. Going away unpins without a fence: whoever has launched
// work on the pages calls `unpin(fence)` first.
class Pin : public Owner<kvmm_pin, unpin_now> {
 public:
  using Owner::Owner;

  // Pins `n` ranges and starts to bring what is absent. EINVALID, ERANGE, ESEALED, ENOMEMORY:
  // nothing is pinned.
  static Result<Pin> batch(const Runtime& runtime, const kvmm_pin_range* ranges, size_t n) {
    kvmm_pin* handle = nullptr;
    std::vector<uint32_t> answers(n);
    Status status = Status::of(kvmm_pin_batch(runtime.get(), ranges, n, &handle, answers.data()));
    if (!status.ok())
      return status;
    Pin pin(handle);
    pin.answers_ = std::move(answers);
    return pin;
  }
  // KVMM_PIN_* of each range as of the batch call or the last poll().
  const std::vector<uint32_t>& answers() const noexcept { return answers_; }
  // Readable (poll(2)) once no range is COMING any more. Owned by the pin: never close it.
  int fd() const { return kvmm_pin_fd(get()); }
  // Refreshes answers(). Never waits.
  Status poll() { return Status::of(kvmm_pin_poll(get(), answers_.data(), answers_.size())); }
  // Ends the pin; its pages may be reclaimed once `fence` is done. The owner is empty on success.
  Status unpin(const kvmm_fence& fence) {
    Status status = Status::of(kvmm_unpin(get(), &fence));
    if (status.ok())
      static_cast<void>(release());
    return status;
  }
  // Ends the pin with no work outstanding.
  Status unpin() { return close(); }

 private:
  std::vector<uint32_t> answers_;
};

}  // namespace kvmmpp

#endif  // KVMM_KVMM_HPP_
