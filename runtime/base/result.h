// SPDX-License-Identifier: Apache-2.0
//
// Errors as values: an `Errc`, an optional OS error number and an optional sentence, or a `T`.
//
//   Result<Pfn> frame = pool.allocate();
//   if (!frame) return frame.error();
//   use(*frame);
//
// Invariants
//   1. A `Result` holds either a value or an error, never both and never neither.
//   2. `Error::code` is never `Errc::kOk`.
//   3. An `Error` made of a code alone allocates nothing, so that the fault path may return one.
//
// Thread safety: a `Result` is a value; share it as you would an int.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace kvmm {

// The numbers are part of the C ABI (`kvmm_status` is the negative of them): append only.
enum class Errc : int32_t {
  kOk = 0,
  kInvalid = 1,         // an argument is outside its documented range
  kNotFound = 2,        // no object of that name or number
  kExists = 3,          // it is there already
  kAgain = 4,           // nothing was done; try after the next completion
  kBusy = 5,            // pinned, in use, or held by I/O; bounded retries were made
  kNoMemory = 6,        // no frame, and nothing that may be reclaimed
  kNoSpace = 7,         // swap areas or disk are full
  kIo = 8,              // the device said so; `os_error` has its number
  kCorrupt = 9,         // the bytes do not match their checksum
  kStale = 10,          // intact bytes of another generation, page or owner
  kModelMismatch = 11,  // intact KV of another model or layout
  kRecompute = 12,      // the content is gone; the engine must compute it again
  kNotSupported = 13,   // this device, kernel or build cannot do it
  kPermission = 14,     // the system refuses; the text says what allows it
  kRange = 15,          // outside the session, arena or device
  kSealed = 16,         // a sealed page cannot be written
  kSealViolation = 17,  // a sealed page was written all the same
  kClosed = 18,         // the object has been closed
  kCancelled = 19,      // given up on request
  kVersion = 20,        // another format, ABI or API version
  kLimit = 21,          // a configured or system limit (VMAs, mappings, memlock)
  kDeviceGone = 22,     // the device does not answer any more
};

// A short constant name, for example "corrupt". Never null.
const char* errc_name(Errc code) noexcept;
// One sentence for people. Never null.
const char* errc_text(Errc code) noexcept;

struct Error {
  Errc code;
  int os_error = 0;    // errno, or 0
  std::string detail;  // empty, or what and what to do about it

  Error(Errc c, int os = 0) : code(c), os_error(os) {}  // NOLINT(google-explicit-constructor)
  Error(Errc c, std::string text, int os = 0) : code(c), os_error(os), detail(std::move(text)) {}

  // The detail, or the code's sentence if there is none, and the errno: "/a: cannot be read (errno
  // 5: Input/output error)".
  std::string text() const;
  // The code's name before that: "io: /a: cannot be read (errno 5: Input/output error)".
  std::string message() const;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  Result(Errc code) : v_(std::in_place_index<1>, Error(code)) {}         // NOLINT

  bool ok() const noexcept { return v_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }
  T& operator*() & { return std::get<0>(v_); }
  const T& operator*() const& { return std::get<0>(v_); }
  T&& operator*() && { return std::get<0>(std::move(v_)); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  const Error& error() const& { return std::get<1>(v_); }
  Error&& error() && { return std::get<1>(std::move(v_)); }
  Errc code() const noexcept { return ok() ? Errc::kOk : std::get<1>(v_).code; }

 private:
  std::variant<T, Error> v_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() : e_(Errc::kOk) {}
  Result(Error error) : e_(std::move(error)) {}  // NOLINT
  Result(Errc code) : e_(code) {}                // NOLINT: kOk is success

  bool ok() const noexcept { return e_.code == Errc::kOk; }
  explicit operator bool() const noexcept { return ok(); }
  const Error& error() const& { return e_; }
  Error&& error() && { return std::move(e_); }
  Errc code() const noexcept { return e_.code; }

 private:
  Error e_;
};

}  // namespace kvmm
