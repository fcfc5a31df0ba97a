// SPDX-License-Identifier: Apache-2.0
#include "tests/drivers/block/block_rig.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "drivers/delay/delay_driver.h"
#include "drivers/error/error_driver.h"
#include "drivers/null/null_driver.h"
#include "drivers/sim/sim_driver.h"
#include "drivers/uring/uring_driver.h"

namespace kvmm {

TestFolder::TestFolder() {
  char name[] = "kvmm_block_test.XXXXXX";  // in the working folder: /tmp may be no disk
  if (::mkdtemp(name) == nullptr) {
    ADD_FAILURE() << "mkdtemp: " << std::strerror(errno);
    return;
  }
  path_ = std::filesystem::absolute(name).string();
}

TestFolder::~TestFolder() {
  if (!path_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
}

void Buffer::Free::operator()(std::byte* p) const {
  std::free(p);
}

Buffer::Buffer(size_t length, uint64_t seed)
    : size_(length),
      data_(static_cast<std::byte*>(std::aligned_alloc(4096, round_up(length, 4096)))) {
  fill(seed);
}

void Buffer::fill(uint64_t seed) {
  Random random(seed);
  for (size_t i = 0; i + 8 <= size_; i += 8) {
    const uint64_t v = random();
    std::memcpy(data_.get() + i, &v, 8);
  }
}

void Buffer::zero() {
  std::memset(data_.get(), 0, size_);
}

bool Buffer::operator==(const Buffer& o) const {
  return size_ == o.size_ && std::memcmp(data_.get(), o.data_.get(), size_) == 0;
}

bool Buffer::all_zero() const {
  for (size_t i = 0; i < size_; ++i) {
    if (data_.get()[i] != std::byte{0}) {
      return false;
    }
  }
  return true;
}

BlockRequest BlockRig::request(BlockOp op, Buffer* buffer, uint64_t offset, uint64_t length) {
  BlockRequest r;
  r.queue = &queue;
  r.op = op;
  r.data = buffer == nullptr ? nullptr : buffer->data();
  r.offset = offset;
  r.length = Bytes(length);
  return r;
}

BlockRequest* BlockRig::wait() {
  // A real device below one without a descriptor answers in its own time: it gets the processor
  // until then.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  do {
    if (Request* r = queue.pop(); r != nullptr) {
      return static_cast<BlockRequest*>(r);
    }
    block().poll();
    if (!queue.empty()) {
      continue;
    }
    if (const int fd = block().event_fd(); fd >= 0) {
      pollfd p{fd, POLLIN, 0};
      if (::poll(&p, 1, 20'000) == 0) {
        break;
      }
    } else if (!clock.advance_to_alarm()) {
      clock.advance(micros(100));
      std::this_thread::yield();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  ADD_FAILURE() << "no completion came";
  std::abort();
}

Errc BlockRig::run(BlockRequest& r) {
  BlockRequest* one = &r;
  EXPECT_EQ(block().submit({&one, 1}), 1u);
  EXPECT_EQ(wait(), &r);
  return r.result;
}

Errc BlockRig::run(BlockOp op, Buffer* buffer, uint64_t offset, uint64_t length) {
  BlockRequest r = request(op, buffer, offset, length);
  return run(r);
}

std::unique_ptr<Device> bind_or_fail(std::unique_ptr<Driver> driver, DeviceInfo info,
                                     std::unique_ptr<Device> below) {
  auto device = driver->bind(std::move(info), std::move(below));
  if (!device) {
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  return std::move(*device);
}

DeviceInfo block_info(const std::string& bus, const std::string& options) {
  DeviceInfo i;
  i.name = "swap0";
  i.cls = DeviceClass::kBlock;
  i.bus = bus;
  i.options = options;
  return i;
}

DeviceInfo file_info(const std::string& path, const std::string& options) {
  DeviceInfo i = block_info("file", options);
  i.path = path;
  return i;
}

std::string attach_loop(const std::string& image, std::string& why) {
  const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) {
    why = std::string("/dev/loop-control: ") + std::strerror(errno);
    return "";
  }
  const int file = ::open(image.c_str(), O_RDWR | O_CLOEXEC);
  std::string found;
  why = "no free loop device";
  for (int attempt = 0; attempt < 16 && found.empty(); ++attempt) {  // others attach as well
    const int n = ::ioctl(control, LOOP_CTL_GET_FREE);
    if (n < 0) {
      break;
    }
    const std::string name = "/dev/loop" + std::to_string(n);
    const int loop = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
    if (loop < 0) {
      why = name + ": " + std::strerror(errno);
      break;
    }
    if (::ioctl(loop, LOOP_SET_FD, file) == 0) {
      found = name;
    } else {
      why = name + ": " + std::strerror(errno);
    }
    ::close(loop);
  }
  ::close(file);
  ::close(control);
  return found;
}

void detach_loop(const std::string& device) {
  const int loop = ::open(device.c_str(), O_RDWR | O_CLOEXEC);
  if (loop >= 0) {
    EXPECT_EQ(::ioctl(loop, LOOP_CLR_FD, 0), 0) << device;
    ::close(loop);
  }
}

void build_rig(BlockRig& rig, const std::string& kind, Bytes capacity) {
  const std::string size = "size=" + std::to_string(capacity.value());
  const auto real = [&] {
    rig.folders.push_back(std::make_unique<TestFolder>());
    return bind_or_fail(make_uring_driver(),
                        file_info(rig.folders.back()->file("swap"), size + ",depth=16"));
  };
  if (kind == "uring") {
    rig.device = real();
  } else if (kind == "uring_loop") {
    rig.folders.push_back(std::make_unique<TestFolder>());
    const std::string image = rig.folders.back()->file("image");
    const int fd = ::open(image.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(capacity.value())), 0);
    ::close(fd);
    const std::string loop = attach_loop(image, rig.skip);
    if (loop.empty()) {
      return;
    }
    rig.tear_down = [loop] { detach_loop(loop); };
    rig.device = bind_or_fail(make_uring_driver(), file_info(loop, "depth=16"));
  } else if (kind == "null") {
    rig.device = bind_or_fail(make_null_driver(), block_info("null", size));
  } else if (kind == "error") {
    rig.device = bind_or_fail(make_error_driver(), block_info("", ""), real());
  } else if (kind == "delay") {
    rig.device = bind_or_fail(make_delay_driver(rig.clock),
                              block_info("", "latency_us=50,jitter_us=200,seed=3"), real());
  } else if (kind == "sim") {
    rig.device = bind_or_fail(make_sim_driver(rig.clock),
                              block_info("sim", size + ",depth=16,jitter_us=200,seed=5"));
  } else {
    ADD_FAILURE() << "no rig " << kind;
  }
}

int in_child(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(body());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

}  // namespace kvmm
