// SPDX-License-Identifier: Apache-2.0
//
// Facts: what the design takes for granted of the kernel, each tried by a few system calls.
//
//   id, claim  --run()-->  kHolds       as the design needs it
//                          kOther       the kernel does something else: `falls` says what then
//                          kCannotTell  not allowed here, or not there: the text says why
//
// The cheap ones (facts.cc, milliseconds together) are tried by `kvctl doctor`; all of them by
// tests/kernel_facts, and docs/kernel_facts.md has a section for each.
//
// Thread safety: run one at a time; they change nothing that outlives them.
#pragma once

#include <linux/ioctl.h>
#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kvmm::facts {

enum class Verdict : uint8_t { kHolds, kOther, kCannotTell };

struct Finding {
  Verdict verdict;
  std::string text;
};
Finding holds(std::string text);
Finding other(std::string text);
Finding cannot_tell(std::string text);

struct Fact {
  const char* id;
  const char* claim;
  const char* falls;  // the choice of the design that does not stand without it
  Finding (*run)();
};
std::span<const Fact> cheap_facts();

// ------------------------------------------------------------------- what the reproducers share

inline constexpr size_t kPage = 4096;
inline constexpr size_t kHuge = size_t{2} << 20;

// Headers of Debian 12 (Linux 6.1) lack these; layouts and numbers are the kernel's ABI.
struct UffdMove {
  uint64_t dst, src, len, mode;
  int64_t move;
};
struct UffdPoison {
  uffdio_range range;
  uint64_t mode;
  int64_t updated;
};
inline constexpr unsigned long kUffdMove = _IOWR(UFFDIO, 0x05, UffdMove);
inline constexpr unsigned long kUffdPoison = _IOWR(UFFDIO, 0x08, UffdPoison);
inline constexpr uint64_t kFeatureMinorShmem = uint64_t{1} << 10;
inline constexpr uint64_t kFeaturePoison = uint64_t{1} << 14;
inline constexpr uint64_t kFeatureMove = uint64_t{1} << 16;

// Anonymous private memory, or that of `fd`; aligned to 2 MiB, never inherited by a child unless
// asked for.
class Memory {
 public:
  explicit Memory(size_t length, int fd = -1, bool huge = false);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  bool ok() const { return base_ != nullptr; }
  unsigned char* data() const { return base_; }
  uint64_t at(size_t offset = 0) const { return reinterpret_cast<uint64_t>(base_) + offset; }
  size_t size() const { return length_; }
  int advise(int advice) const;  // 0 or errno

 private:
  unsigned char* base_ = nullptr;
  size_t length_;
};

// A descriptor of its own, closed when it goes.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd();
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

// A userfaultfd with these features. The calls answer 0 or errno.
class Uffd {
 public:
  explicit Uffd(uint64_t features, int flags = 0);
  bool ok() const { return error_ == 0; }
  Finding refused() const;  // kCannotTell, with the reason
  int error() const { return error_; }
  uint64_t offered() const { return offered_; }  // features of this kernel
  int register_range(const Memory& m, uint64_t mode = UFFDIO_REGISTER_MODE_MISSING) const;
  int move(uint64_t dst, uint64_t src, size_t length, int64_t* moved = nullptr) const;
  int poison(uint64_t start, size_t length) const;
  int zeropage(uint64_t start, size_t length) const;
  int map_shared(uint64_t start, size_t length) const;  // UFFDIO_CONTINUE

 private:
  Fd fd_;
  int error_ = 0;
  uint64_t offered_ = 0;
};

bool present(uint64_t address);         // a page is mapped there
bool mapped_as_huge(uint64_t address);  // one entry for 2 MiB
int signal_of_read(uint64_t address);   // 0, SIGBUS or SIGSEGV
std::string errno_text(int error);      // "EEXIST" and the like, or the number

}  // namespace kvmm::facts
