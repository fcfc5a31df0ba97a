// SPDX-License-Identifier: Apache-2.0
//
// thread_file: a swap file by plain pread and pwrite in one thread. It needs no io_uring, nor
// O_DIRECT where that is refused (pages then stay in the page cache, which is DRAM), and is as slow
// as that: an example, and a way out where both are refused.
//
//   submit --todo--> thread: pread, pwrite, fdatasync --finished, eventfd--> poll --push--> queue
//
// The lists are strung through Request::next, which is the device's while it owns the request: so
// nothing allocates, and there is no limit of what is in flight.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "drivers/block_request.h"
#include "drivers/module.h"
#include "drivers/options.h"

namespace {

using namespace kvmm;

Errc errc_of(int error) {
  switch (error) {
    case 0:
      return Errc::kOk;
    case ENOSPC:
    case EDQUOT:
      return Errc::kNoSpace;
    case ENODEV:
    case ENXIO:
      return Errc::kDeviceGone;
    default:
      return Errc::kIo;
  }
}

// Requests, first in, first out.
class List {
 public:
  void add(Request* r) {
    r->next = nullptr;
    *end_ = r;
    end_ = &r->next;
  }
  Request* take() {
    Request* r = first_;
    if (r != nullptr) {
      first_ = r->next;
      end_ = first_ == nullptr ? &first_ : end_;
    }
    return r;
  }
  bool empty() const { return first_ == nullptr; }

 private:
  Request* first_ = nullptr;
  Request** end_ = &first_;
};

class ThreadFileBlock final : public BlockOps {
 public:
  ThreadFileBlock(int file, int event, Bytes capacity)
      : file_(file), event_(event), capacity_(capacity), thread_([this] { work(); }) {}
  ~ThreadFileBlock() override {
    {
      const std::lock_guard<std::mutex> l(lock_);
      ending_ = true;
    }
    work_came_.notify_one();
    thread_.join();  // what was taken is done before
    poll();
  }

  BlockInfo info() const override {
    BlockInfo i;
    i.name = "thread_file";
    i.capacity = capacity_;
    i.alignment = Bytes(4096);
    i.length_max = kBlockLengthMax;
    i.depth = 16;
    return i;
  }

  size_t submit(std::span<BlockRequest* const> requests) override {
    const BlockInfo limits = info();
    {
      const std::lock_guard<std::mutex> l(lock_);
      for (BlockRequest* r : requests) {
        r->result = check_block_request(*r, limits);
        if (r->result == Errc::kOk && r->op == BlockOp::kDiscard) {
          r->result = Errc::kNotSupported;
        }
        (r->result == Errc::kOk ? todo_ : finished_).add(r);
      }
      if (!finished_.empty()) {
        signal();  // what was refused is pushed by poll, like everything else
      }
    }
    work_came_.notify_one();
    return requests.size();
  }

  void poll() override {
    List done;
    {
      const std::lock_guard<std::mutex> l(lock_);
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t n = ::read(event_, &count, sizeof count);
      while (Request* r = finished_.take()) {
        done.add(r);
      }
    }
    while (Request* r = done.take()) {
      finish_block_request(static_cast<BlockRequest&>(*r), r->result, r->os_error);
    }
  }
  int event_fd() const override { return event_; }

  Result<void> resize(Bytes capacity) override {
    if (capacity < capacity_ || capacity.value() % 4096 != 0) {
      return Error(Errc::kInvalid, "thread_file: grows by multiples of 4096 and never shrinks");
    }
    if (::ftruncate(file_, static_cast<off_t>(capacity.value())) != 0) {
      return Error(errc_of(errno), errno);
    }
    capacity_ = capacity;
    return {};
  }

 private:
  void signal() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(event_, &one, sizeof one);
  }

  void work() {
    sigset_t all;  // signals are the engine's business
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    std::unique_lock<std::mutex> l(lock_);
    for (;;) {
      work_came_.wait(l, [this] { return ending_ || !todo_.empty(); });
      auto* r = static_cast<BlockRequest*>(todo_.take());
      if (r == nullptr) {
        return;
      }
      l.unlock();
      r->os_error = transfer(*r);
      r->result = errc_of(r->os_error);
      l.lock();
      finished_.add(r);
      signal();
    }
  }

  // 0, or an errno. A transfer that is cut short goes on; the end of the file is an error.
  int transfer(const BlockRequest& r) const {
    if (r.op == BlockOp::kFlush) {
      return ::fdatasync(file_) == 0 ? 0 : errno;
    }
    for (uint64_t done = 0; done < r.length.value();) {
      const size_t length = r.length.value() - done;
      const auto at = static_cast<off_t>(r.offset + done);
      const ssize_t n = r.op == BlockOp::kRead ? ::pread(file_, r.data + done, length, at)
                                               : ::pwrite(file_, r.data + done, length, at);
      if (n < 0 && errno == EINTR) {
        continue;
      }
      if (n <= 0) {
        return n < 0 ? errno : EIO;
      }
      done += static_cast<uint64_t>(n);
    }
    return 0;
  }

  const int file_, event_;  // the device's
  Bytes capacity_;          // changed by resize, which the caller serialises
  std::mutex lock_;
  std::condition_variable work_came_;
  List todo_, finished_;  // guarded by lock_
  bool ending_ = false;   // guarded by lock_
  std::thread thread_;    // last: it uses everything above
};

class ThreadFileDevice final : public Device {
 public:
  ThreadFileDevice(DeviceInfo info, int file) : Device(std::move(info)), file_(file) {}
  ~ThreadFileDevice() override {
    block_.reset();
    ::close(event_);
    ::close(file_);  // and the lock goes
  }
  const char* driver_name() const override { return "thread_file"; }
  BlockOps* block() override { return block_.get(); }

  // What can be refused is refused here.
  Result<void> open(Bytes size) {
    const std::string& path = info().path;
    struct stat s {};
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
      return Error(Errc::kBusy, path + ": in use by another process", errno);
    }
    if (::fstat(file_, &s) != 0 || !S_ISREG(s.st_mode) || (s.st_mode & 077) != 0) {
      return Error(Errc::kPermission, path + ": must be a file that others cannot read: chmod 600");
    }
    auto capacity = Bytes(static_cast<uint64_t>(s.st_size) & ~uint64_t{4095});
    if (capacity < size) {
      capacity = size;
      if (::ftruncate(file_, static_cast<off_t>(size.value())) != 0) {
        return Error(errc_of(errno), path + ": cannot be made that large", errno);
      }
    }
    event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_ < 0) {
      return Error(Errc::kLimit, path + ": no descriptor is left; raise ulimit -n", errno);
    }
    try {
      block_ = std::make_unique<ThreadFileBlock>(file_, event_, capacity);
    } catch (const std::system_error& e) {
      return Error(Errc::kLimit, path + ": no thread is left; raise ulimit -u", e.code().value());
    }
    return {};
  }

 private:
  const int file_;
  int event_ = -1;
  std::unique_ptr<ThreadFileBlock> block_;
};

class ThreadFileDriver final : public Driver {
 public:
  const char* name() const override { return "thread_file"; }
  const char* help() const override { return "a file by pread and pwrite; size=BYTES"; }
  bool probe(const DeviceInfo&) const override { return false; }  // only who names it gets it
  Result<std::unique_ptr<Device>> bind(DeviceInfo info, std::unique_ptr<Device> below) override {
    if (below != nullptr || info.path.empty()) {
      return Error(Errc::kInvalid, "thread_file: needs a path, and stacks over nothing");
    }
    auto options = Options::parse(name(), info.options, {"size"});
    if (!options) {
      return options.error();
    }
    auto size = options->bytes("size", info.capacity);
    if (!size) {
      return size.error();
    }
    constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC;
    int file = ::open(info.path.c_str(), kFlags | O_DIRECT, 0600);
    if (file < 0 && errno == EINVAL) {  // a file system without direct I/O
      file = ::open(info.path.c_str(), kFlags, 0600);
    }
    if (file < 0) {
      return Error(errno == ENOENT ? Errc::kNotFound : Errc::kPermission,
                   info.path + ": cannot be opened", errno);
    }
    auto device = std::make_unique<ThreadFileDevice>(std::move(info), file);
    if (auto ok = device->open(*size); !ok) {
      return ok.error();
    }
    return std::unique_ptr<Device>(std::move(device));
  }
};

std::unique_ptr<Driver> make_thread_file_driver() {
  return std::make_unique<ThreadFileDriver>();
}

}  // namespace

KVMM_DRIVER_MODULE(make_thread_file_driver)
