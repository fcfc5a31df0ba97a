// SPDX-License-Identifier: Apache-2.0
//
// Page tables, mappings and files, and what of them a child or a core dump sees.
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <functional>
#include <string>

#include "tests/kernel_facts/facts.h"

namespace kvmm::facts {
namespace {

// "VmPTE" of /proc/self/status, in KiB; -1: not there.
long status_kib(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, name.size() + 1, name + ":") == 0) {
      return std::stol(line.substr(name.size() + 1));
    }
  }
  return -1;
}

// The line of /proc/self/smaps with `field`, of the VMA that holds `address`.
std::string smaps_line(uint64_t address, const std::string& field) {
  std::ifstream in("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    unsigned long start = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      inside = address >= start && address < end;
    } else if (inside && line.compare(0, field.size() + 1, field + ":") == 0) {
      return line.substr(field.size() + 1);
    }
  }
  return "";
}

int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Finding zeropage_escapes() {
  const Uffd u(0);
  const Memory range(kPage);
  if (!u.ok() || u.register_range(range) != 0) {
    return u.refused();
  }
  if (const int e = u.zeropage(range.at(), kPage); e != 0) {
    return other("UFFDIO_ZEROPAGE: " + errno_text(e));
  }
  const long before = std::stol(smaps_line(range.at(), "Anonymous"));
  range.data()[0] = 1;
  const long after = std::stol(smaps_line(range.at(), "Anonymous"));
  const std::string text = "anonymous memory of the page: " + std::to_string(before) +
                           " KiB before a write, " + std::to_string(after) + " after";
  return before == 0 && after == 4 ? holds(text) : other(text);
}

// userfaultfd for everybody, but a fault that the kernel takes has nobody to wait for.
Finding user_mode_only() {
  const Uffd u(0, 1);  // UFFD_USER_MODE_ONLY
  const Memory range(kPage);
  if (!u.ok() || u.register_range(range) != 0) {
    return u.refused();
  }
  const Fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const ssize_t n = ::read(zero.get(), range.data(), kPage);
  return n < 0 && errno == EFAULT ? holds("read(2) into a missing page: EFAULT")
                                  : other("read(2) into a missing page: " + std::to_string(n));
}

Finding punch_hole() {
  const Fd memory(static_cast<int>(::syscall(SYS_memfd_create, "kvmm-fact", 1u)));
  if (!memory.ok() || ::ftruncate(memory.get(), kHuge) != 0) {
    return cannot_tell("memfd_create: " + errno_text(errno));
  }
  const Memory alias(kHuge, memory.get());
  ::memset(alias.data(), 1, kHuge);
  struct stat full {};
  struct stat empty {};
  ::fstat(memory.get(), &full);
  if (::fallocate(memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kHuge) != 0) {
    return other("FALLOC_FL_PUNCH_HOLE: " + errno_text(errno));
  }
  ::fstat(memory.get(), &empty);
  return full.st_blocks == kHuge / 512 && empty.st_blocks == 0 && alias.data()[0] == 0
             ? holds("2 MiB given back at once, zeros after it")
             : other(std::to_string(empty.st_blocks) + " sectors left");
}

Finding map_count() {
  std::ifstream in("/proc/sys/vm/max_map_count");
  long ceiling = 0;
  if (!(in >> ceiling) || ceiling > 300'000) {
    return cannot_tell("vm.max_map_count is " + std::to_string(ceiling) + ": too long to reach");
  }
  const int status = in_child([ceiling] {
    const size_t length = static_cast<size_t>(ceiling + 2) * kPage;
    auto* const all = static_cast<unsigned char*>(
        ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (size_t at = kPage; all != MAP_FAILED && at < length; at += 2 * kPage) {
      if (::mprotect(all + at, kPage, PROT_READ) != 0) {
        return errno == ENOMEM ? 0 : 1;
      }
    }
    return 2;
  });
  return status == 0 ? holds("ENOMEM at " + std::to_string(ceiling) + " mappings")
                     : other("no ENOMEM at " + std::to_string(ceiling) + " mappings");
}

Finding page_tables_stay() {
  const Uffd u(kFeatureMove);
  const Memory range(128 * kHuge);
  const Memory frame(kPage);
  ::memset(frame.data(), 1, kPage);
  if (!u.ok() || u.register_range(range) != 0 || u.register_range(frame) != 0) {
    return u.refused();
  }
  const long before = status_kib("VmPTE");
  for (size_t at = 0; at < range.size(); at += kHuge) {
    if (u.move(range.at(at), frame.at(), kPage) != 0 ||
        u.move(frame.at(), range.at(at), kPage) != 0) {
      return other("a page cannot be moved in and out");
    }
  }
  const long empty = status_kib("VmPTE");
  range.advise(MADV_DONTNEED);
  const long after = status_kib("VmPTE");
  const std::string text = std::to_string(before) + " KiB of page tables, " +
                           std::to_string(empty) + " after 128 pages went in and out, " +
                           std::to_string(after) + " after MADV_DONTNEED";
  if (empty - before < 4 * 128) {
    return other(text);
  }
  return after < empty ? holds(text) : cannot_tell(text + " (kernels before 6.14 keep them)");
}

Finding dontfork() {
  const Memory kept(kPage);
  const Memory inherited(kPage);
  kept.data()[0] = inherited.data()[0] = 1;
  if (const int e = kept.advise(MADV_DONTFORK); e != 0) {
    return other("MADV_DONTFORK: " + errno_text(e));
  }
  const auto there = [](const Memory& m) {
    unsigned char page = 0;
    return ::mincore(m.data(), kPage, &page) == 0;
  };
  const int status = in_child([&] { return (there(kept) ? 1 : 0) | (there(inherited) ? 0 : 2); });
  return status == 0 ? holds("not mapped in the child")
                     : other("the child sees it: " + std::to_string(status));
}

Finding dontdump() {
  const Memory m(kPage);
  m.data()[0] = 1;
  if (const int e = m.advise(MADV_DONTDUMP); e != 0) {
    return other("MADV_DONTDUMP: " + errno_text(e));
  }
  const std::string flags = smaps_line(m.at(), "VmFlags");
  return flags.find(" dd") != std::string::npos ? holds("VmFlags: dd") : other("VmFlags:" + flags);
}

Finding odirect_refused() {
  const Fd plain(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  const Fd direct(::open("/proc/self/status", O_RDONLY | O_CLOEXEC | O_DIRECT));
  const int error = errno;
  if (!plain.ok()) {
    return cannot_tell("/proc is not mounted");
  }
  return !direct.ok() && error == EINVAL ? holds("open(2) of a file in /proc: EINVAL")
                                         : other("open(2) of a file in /proc lets it through");
}

constexpr std::array kFacts = {
    Fact{"zeropage-escapes", "a write to a UFFDIO_ZEROPAGE page takes memory of no frame",
         "never-written pages are zeroed frames and never zero pages", zeropage_escapes},
    Fact{"user-mode-only", "UFFD_USER_MODE_ONLY: a system call on a missing page is EFAULT",
         "refusing that mode, and the rights that it would spare", user_mode_only},
    Fact{"punch-hole", "punching a hole into a memfd gives its memory back",
         "freeing shareable frames", punch_hole},
    Fact{"map-count", "mappings beyond vm.max_map_count are ENOMEM",
         "kLimit for pin-only engines, and doctor's line", map_count},
    Fact{"page-tables-stay", "page tables of emptied ranges stay until MADV_DONTNEED",
         "giving them back when a range is cleared", page_tables_stay},
    Fact{"dontfork", "MADV_DONTFORK memory is not in a child",
         "a fork neither copies KV nor makes frames EBUSY", dontfork},
    Fact{"dontdump", "MADV_DONTDUMP memory is marked to be left out of core dumps",
         "a core dump does not touch missing pages, nor hold the KV of users", dontdump},
    Fact{"odirect-refused", "a file system without O_DIRECT says EINVAL at open",
         "refusing it at swapon with advice", odirect_refused},
};

}  // namespace

std::span<const Fact> memory_facts() {
  return kFacts;
}

}  // namespace kvmm::facts
