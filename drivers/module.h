// SPDX-License-Identifier: Apache-2.0
//
// A driver that is built on its own: the one symbol that its shared object exports.
//
//   libmydisk.so                                  the process that loads it
//     kvmm_driver_module() -> DriverModule           abi     the same number, or kVersion
//     code against the installed headers,            layout  the same shapes, or kVersion
//     linked to libkvmm_driver.a                     make    a Driver, as those of the tree
//
//   std::unique_ptr<kvmm::Driver> make_mydisk_driver();
//   KVMM_DRIVER_MODULE(make_mydisk_driver)
//
// The contract is C++ (docs/decisions/0018-drivers-built-outside.md): both sides are compiled with
// the same standard library. What can differ unseen is compared when the module is loaded:
// `driver_layout` counts the sizes and virtual functions of everything that both sides share.
//
// Invariants
//   1. The first three fields of DriverModule never move: any version can read them of any other.
//   2. A loaded module is never unloaded: its code may be on a stack, its texts in somebody's hand.
//
// Thread safety: functions without state.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "drivers/driver.h"

namespace kvmm {

// Of what the ops mean. It goes up when an op asks for something else than before, although its
// shape is the same; shapes are compared by themselves.
inline constexpr uint32_t kDriverAbi = 1;
inline constexpr const char* kDriverModuleSymbol = "kvmm_driver_module";

struct DriverModule {
  uint32_t abi = 0;   // kDriverAbi
  uint32_t size = 0;  // of this struct; later versions append to it
  uint64_t layout = 0;
  Driver* (*make)() = nullptr;  // the caller owns it; may throw
};

// A number that two compilations share if they agree on the shapes of the driver interface: sizes,
// and the place of each virtual function. The C++ ABI of GCC and Clang keeps that place in a
// pointer to the member.
inline uint64_t driver_layout() noexcept {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  const auto add = [&hash](uint64_t v) { hash = (hash ^ v) * 1099511628211u; };
  const auto place = [&add](auto member) {
    uint64_t words[2] = {};
    static_assert(sizeof member == sizeof words);
    std::memcpy(words, &member, sizeof words);
    add(words[0]);
    add(words[1]);
  };
  for (const uint64_t size : {sizeof(std::string),
                              sizeof(std::vector<std::string>),
                              sizeof(Error),
                              sizeof(Result<void>),
                              sizeof(Result<std::unique_ptr<Device>>),
                              sizeof(Request),
                              sizeof(CompletionQueue),
                              sizeof(DeviceInfo),
                              sizeof(Device),
                              sizeof(BlockRequest),
                              sizeof(BlockInfo),
                              sizeof(MmuRequest),
                              sizeof(MmuInfo),
                              sizeof(MmuStats),
                              sizeof(MapEntry),
                              sizeof(FaultEvent),
                              sizeof(FrameArea),
                              sizeof(CopyRequest),
                              sizeof(DataRequest),
                              sizeof(AddressRange)}) {
    add(size);
  }
  place(&Driver::name);
  place(&Driver::help);
  place(&Driver::probe);
  place(&Driver::bind);
  place(&Device::driver_name);
  place(&Device::mmu);
  place(&Device::copy);
  place(&Device::block);
  place(&Device::data);
  place(&BlockOps::info);
  place(&BlockOps::submit);
  place(&BlockOps::poll);
  place(&BlockOps::event_fd);
  place(&BlockOps::resize);
  return hash;
}

}  // namespace kvmm

// `make`: a function without arguments that returns std::unique_ptr<kvmm::Driver>.
#define KVMM_DRIVER_MODULE(make_driver)                                       \
  extern "C" __attribute__((visibility("default"))) const kvmm::DriverModule* \
  kvmm_driver_module() {                                                      \
    static const kvmm::DriverModule module{                                   \
        kvmm::kDriverAbi, sizeof(kvmm::DriverModule), kvmm::driver_layout(),  \
        []() -> kvmm::Driver* { return (make_driver)().release(); }};         \
    return &module;                                                           \
  }
