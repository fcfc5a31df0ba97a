// SPDX-License-Identifier: Apache-2.0
//
// Drivers that were built on their own, loaded by path.
//
//   load("/usr/lib/kvmm/libmydisk.so")
//     file of root or this user, which nobody else can write   else kPermission
//     dlopen, never unloaded                                    else kNotSupported, the linker's
//     text kvmm_driver_module, its abi and layout                    else kInvalid, kVersion make()
//     what it throws is an error
//        `--> Driver, wrapped: so is what `bind` throws, and a device that cannot be one is refused
//
// A device's ops are not `noexcept`, and there is no answer to a submit that throws half-way: such
// an exception stops the process, with a line that names the driver.
//
// Thread safety: the caller's lock. Ownership: drivers live as long as the loader, their code as
// long as the process.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "drivers/driver.h"

namespace kvmm {

class DriverLoader {
 public:
  // BLOCKING. The driver of the shared object at `path`, which has a '/' in it; loaded once.
  // Errors: kNotFound, kPermission (the file), kNotSupported (it does not load, or its driver
  // throws), kInvalid (no driver module), kVersion (made for another kvmm), kNoMemory.
  Result<Driver*> load(const std::string& path);

 private:
  std::map<std::string, std::unique_ptr<Driver>> loaded_;
};

}  // namespace kvmm
