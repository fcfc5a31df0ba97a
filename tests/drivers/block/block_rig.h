// SPDX-License-Identifier: Apache-2.0
//
// What every block test needs: a device of each kind, aligned buffers, and a loop that steps until
// a request is back.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "drivers/driver.h"
#include "drivers/sim/sim_clock.h"
#include "runtime/base/random.h"

namespace kvmm {

// A folder on the disk that the tests run on, removed with all in it.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Memory aligned to 4096 and filled with bytes that depend on `seed` only.
class Buffer {
 public:
  explicit Buffer(size_t length, uint64_t seed = 0);
  std::byte* data() { return data_.get(); }
  size_t size() const { return size_; }
  void fill(uint64_t seed);
  void zero();
  bool operator==(const Buffer& o) const;
  bool all_zero() const;

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  size_t size_;
  std::unique_ptr<std::byte, Free> data_;
};

// A device under test, with its queue and the clock that drives it.
class BlockRig {
 public:
  BlockRig() = default;
  BlockRig(const BlockRig&) = delete;
  BlockRig& operator=(const BlockRig&) = delete;

  BlockOps& block() { return *device->block(); }

  BlockRequest request(BlockOp op, Buffer* buffer, uint64_t offset, uint64_t length);
  // Submits (again and again until taken) and waits. Returns the result.
  Errc run(BlockRequest& r);
  Errc run(BlockOp op, Buffer* buffer, uint64_t offset, uint64_t length);
  // The next finished request; steps the clock or waits on the event_fd. Fails the test after 20 s.
  BlockRequest* wait();

  SimClock clock;
  CompletionQueue queue;
  std::vector<std::unique_ptr<TestFolder>> folders;
  std::function<void()> tear_down = [] {};
  std::unique_ptr<Device> device;
  std::string skip;  // why there is no device here

  ~BlockRig() {
    device.reset();
    tear_down();
  }
};

// Binds a driver to `info`; fails the test if it refuses.
std::unique_ptr<Device> bind_or_fail(std::unique_ptr<Driver> driver, DeviceInfo info,
                                     std::unique_ptr<Device> below = nullptr);
DeviceInfo file_info(const std::string& path, const std::string& options);
DeviceInfo block_info(const std::string& bus, const std::string& options);

// Attaches a free loop device to `image`; "" with `why` set if that is not possible here.
std::string attach_loop(const std::string& image, std::string& why);
void detach_loop(const std::string& device);
// "uring", "uring_loop", "null", "error", "delay", "sim", each of `capacity`.
void build_rig(BlockRig& rig, const std::string& kind, Bytes capacity);

// Runs `body` in a forked child; its return value is the child's exit status (255: it was killed).
int in_child(const std::function<int()>& body);

}  // namespace kvmm
