// SPDX-License-Identifier: Apache-2.0
//
// Strong types for every quantity that crosses a header. A `Vpn` cannot be passed where a `Pfn` is
// meant, and a conversion between quantities always has a name.
//
//   VirtAddr  byte address as the engine sees it        Vpn   page number inside one VMA
//   FrameAddr byte address of a frame on its device     Pfn   frame number inside one frame pool
//   Bytes     a size or an offset                       Tick  nanoseconds of the run's clock
//
// Thread safety: values.
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>

namespace kvmm {

template <class Tag, class Rep>
class Quantity {
 public:
  using rep = Rep;
  constexpr Quantity() = default;
  constexpr explicit Quantity(Rep v) : v_(v) {}
  constexpr Rep value() const { return v_; }
  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator++() {
    ++v_;
    return *this;
  }

 private:
  Rep v_ = 0;
};

// A quantity that can also be added to itself (sizes, counts, times).
template <class Tag, class Rep>
class Amount : public Quantity<Tag, Rep> {
 public:
  using Quantity<Tag, Rep>::Quantity;
  constexpr Amount operator+(Amount o) const {
    return Amount(static_cast<Rep>(this->value() + o.value()));
  }
  constexpr Amount operator-(Amount o) const {
    return Amount(static_cast<Rep>(this->value() - o.value()));
  }
  constexpr Amount operator*(Rep n) const { return Amount(static_cast<Rep>(this->value() * n)); }
  constexpr Rep operator/(Amount o) const { return static_cast<Rep>(this->value() / o.value()); }
  constexpr Amount& operator+=(Amount o) { return *this = *this + o; }
  constexpr Amount& operator-=(Amount o) { return *this = *this - o; }
};

using Bytes = Amount<struct BytesTag, uint64_t>;
using PageCount = Amount<struct PageCountTag, uint64_t>;
using Tick = Amount<struct TickTag, uint64_t>;  // nanoseconds
using TokenIndex = Amount<struct TokenTag, uint64_t>;
using VirtAddr = Quantity<struct VirtAddrTag, uint64_t>;
using FrameAddr = Quantity<struct FrameAddrTag, uint64_t>;
using Vpn = Quantity<struct VpnTag, uint32_t>;
using Pfn = Quantity<struct PfnTag, uint32_t>;
using NodeId = Quantity<struct NodeTag, uint16_t>;
using TierId = Quantity<struct TierTag, uint16_t>;

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

constexpr Bytes kib(uint64_t n) {
  return Bytes(n * kKiB);
}
constexpr Bytes mib(uint64_t n) {
  return Bytes(n * kMiB);
}
constexpr Bytes gib(uint64_t n) {
  return Bytes(n * kGiB);
}
constexpr Tick micros(uint64_t n) {
  return Tick(n * 1000);
}
constexpr Tick millis(uint64_t n) {
  return Tick(n * 1000 * 1000);
}

constexpr VirtAddr operator+(VirtAddr a, Bytes n) {
  return VirtAddr(a.value() + n.value());
}
constexpr Bytes operator-(VirtAddr a, VirtAddr b) {
  return Bytes(a.value() - b.value());
}
constexpr FrameAddr operator+(FrameAddr a, Bytes n) {
  return FrameAddr(a.value() + n.value());
}
constexpr Bytes operator-(FrameAddr a, FrameAddr b) {
  return Bytes(a.value() - b.value());
}

inline constexpr Bytes kPageSizeMin = Bytes(4 * kKiB);
inline constexpr Bytes kPageSizeMax = Bytes(2 * kMiB);
inline constexpr Bytes kPieceSize = Bytes(64 * kKiB);  // unit of checksums and of GPU digests

constexpr bool is_page_size(Bytes b) {
  return std::has_single_bit(b.value()) && b >= kPageSizeMin && b <= kPageSizeMax;
}
constexpr uint64_t round_up(uint64_t v, uint64_t unit) {
  return (v + unit - 1) / unit * unit;
}
constexpr uint64_t round_down(uint64_t v, uint64_t unit) {
  return v / unit * unit;
}

// A half-open range of addresses of the engine's process (or of a device).
struct AddressRange {
  VirtAddr start;
  Bytes length;
  constexpr VirtAddr end() const { return start + length; }
  constexpr bool contains(VirtAddr a) const { return a >= start && a < end(); }
};

}  // namespace kvmm
