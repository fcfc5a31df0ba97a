// SPDX-License-Identifier: Apache-2.0
//
// The checks of kvctl doctor. Kernel behaviour is tried by the facts (fact.h), not read off a
// version.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

#include "runtime/control/endpoint.h"
#include "tools/kvctl/doctor.h"
#include "tools/kvctl/fact.h"
#include "tools/kvctl/output.h"

namespace kvmm::ctl {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

// The first line of a file; "" if there is none.
std::string line_of(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// A number in a file of /proc/sys; `missing` if there is none.
long number_in(const std::string& path, long missing) {
  const std::string line = line_of(path);
  char* end = nullptr;
  const long n = std::strtol(line.c_str(), &end, 10);
  return line.empty() || end == line.c_str() ? missing : n;
}

Check userfaultfd(const Machine& m) {
  const facts::Uffd u(0);
  if (u.ok()) {
    const bool everybody = number_in(m.root + "/proc/sys/vm/unprivileged_userfaultfd", 0) == 1;
    const bool device = ::access((m.root + "/dev/userfaultfd").c_str(), R_OK | W_OK) == 0;
    const char* by = everybody        ? "vm.unprivileged_userfaultfd=1"
                     : geteuid() == 0 ? "root"
                     : device         ? "/dev/userfaultfd"
                                      : "CAP_SYS_PTRACE";
    return {"userfaultfd", Health::kOk, fmt::format("allowed by {}", by), ""};
  }
  if (u.error() == EPERM || u.error() == EACCES) {
    return {"userfaultfd", Health::kBad, "refused: " + facts::errno_text(u.error()),
            "as root: sysctl -w vm.unprivileged_userfaultfd=1, or: setfacl -m u:USER:rw "
            "/dev/userfaultfd; in a container: a seccomp profile that allows userfaultfd. Engines "
            "that pin need none of it (KVMM_RUNTIME_PIN_ONLY)"};
  }
  return {"userfaultfd", Health::kBad, "not there: " + facts::errno_text(u.error()),
          "a kernel with CONFIG_USERFAULTFD=y; in a container: a seccomp profile that allows "
          "userfaultfd"};
}

Check of_fact(const Machine& m, const facts::Fact& fact) {
  const facts::Finding found = fact.run();
  Check c{fact.id, Health::kOk, found.text, ""};
  if (found.verdict == facts::Verdict::kCannotTell) {
    c.health = Health::kNone;
    c.found = "not tried: " + found.text;
    return c;
  }
  if (found.verdict == facts::Verdict::kHolds) {
    return c;
  }
  const std::string id = fact.id;
  c.health = id == "huge-moves-whole" ? Health::kWarn : Health::kBad;
  if (id == "uring-enters") {
    const long off = number_in(m.root + "/proc/sys/kernel/io_uring_disabled", 0);
    c.mend = off != 0 ? "as root: sysctl -w kernel.io_uring_disabled=0"
                      : "in a container: a seccomp profile that allows io_uring_setup, "
                        "io_uring_enter and io_uring_register (docker run --security-opt "
                        "seccomp=PROFILE.json)";
  } else {
    c.mend = std::string("a kernel of 6.8 or later; without it falls: ") + fact.falls;
  }
  return c;
}

Check feature(const facts::Uffd& u, const char* name, uint64_t bit, Health without,
              const char* mend) {
  if (!u.ok()) {
    return {name, Health::kNone, "not asked: userfaultfd is not to be had", ""};
  }
  const bool there = (u.offered() & bit) != 0;
  return {name, there ? Health::kOk : without, there ? "offered" : "not offered by this kernel",
          there ? "" : mend};
}

Check huge_pages(const Machine& m) {
  const std::string modes = line_of(m.root + "/sys/kernel/mm/transparent_hugepage/enabled");
  if (modes.empty()) {
    return {"huge-pages", Health::kNone, "this kernel has no transparent huge pages", ""};
  }
  if (modes.find("[never]") != std::string::npos) {
    return {"huge-pages", Health::kWarn, modes,
            "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
  }
  return {"huge-pages", Health::kOk, modes, ""};
}

Check limit(const char* name, int which, rlim_t needed, const std::string& mend) {
  rlimit r{};
  ::getrlimit(static_cast<__rlimit_resource>(which), &r);
  const std::string found = r.rlim_cur == RLIM_INFINITY ? "unlimited" : std::to_string(r.rlim_cur);
  const bool enough = r.rlim_cur == RLIM_INFINITY || r.rlim_cur >= needed;
  return {name, enough ? Health::kOk : Health::kWarn, found, enough ? "" : mend};
}

bool direct_io_works(const std::string& folder, std::string* why) {
  const facts::Fd file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!file.ok()) {
    *why = facts::errno_text(errno);
    return false;
  }
  // Opened again with O_DIRECT: what swapon does with a file of its own.
  const facts::Fd direct(
      ::open(fmt::format("/proc/self/fd/{}", file.get()).c_str(), O_RDWR | O_CLOEXEC | O_DIRECT));
  const std::unique_ptr<void, void (*)(void*)> page(std::aligned_alloc(4096, 4096), std::free);
  std::memset(page.get(), 1, 4096);
  if (direct.ok() && ::pwrite(direct.get(), page.get(), 4096, 0) == 4096 &&
      ::pread(direct.get(), page.get(), 4096, 0) == 4096) {
    return true;
  }
  *why = facts::errno_text(errno);
  return false;
}

}  // namespace

void check_kernel(const Machine& m, std::vector<Check>* out) {
  utsname name{};
  ::uname(&name);
  unsigned major = 0;
  unsigned minor = 0;
  (void)std::sscanf(name.release, "%u.%u", &major, &minor);
  const unsigned version = major * 1000 + minor;
  Check kernel{"kernel", Health::kOk, fmt::format("Linux {} {}", name.release, name.machine), ""};
  if (version < 6008) {
    kernel.health = version < 6006 ? Health::kBad : Health::kWarn;
    kernel.mend = version < 6006 ? "Linux 6.8 or later" : "Linux 6.8, or frames=shareable";
  }
  out->push_back(kernel);
  out->push_back(userfaultfd(m));
  const facts::Uffd u(0);
  out->push_back(feature(u, "uffd-move", facts::kFeatureMove, Health::kWarn,
                         "Linux 6.8 or later, or the option frames=shareable, which is slower"));
  out->push_back(
      feature(u, "uffd-poison", facts::kFeaturePoison, Health::kBad, "Linux 6.6 or later"));
  out->push_back(feature(u, "uffd-continue", facts::kFeatureMinorShmem, Health::kWarn,
                         "Linux 5.14 or later, built with CONFIG_HAVE_ARCH_USERFAULTFD_MINOR"));
  out->push_back(huge_pages(m));
  for (const facts::Fact& fact : facts::cheap_facts()) {
    out->push_back(of_fact(m, fact));
  }
}

void check_limits(const Machine& m, std::vector<Check>* out) {
  out->push_back(limit("open-files", RLIMIT_NOFILE, 1024, "ulimit -n 4096"));
  out->push_back(limit("locked-memory", RLIMIT_MEMLOCK, 64 << 10, "ulimit -l 8192"));
  const long maps = number_in(m.root + "/proc/sys/vm/max_map_count", -1);
  if (maps < 0) {
    out->push_back({"max-map-count", Health::kNone, "/proc/sys is not there", ""});
  } else {
    out->push_back({"max-map-count", maps < 65530 ? Health::kWarn : Health::kOk,
                    std::to_string(maps) + " mappings a process",
                    maps < 65530 ? "as root: sysctl -w vm.max_map_count=262144" : ""});
  }
  const long mode = number_in(m.root + "/proc/sys/vm/overcommit_memory", 0);
  out->push_back({"overcommit", mode == 2 ? Health::kWarn : Health::kOk,
                  fmt::format("vm.overcommit_memory={}", mode),
                  mode == 2 ? "address ranges count as memory: as root: sysctl -w "
                              "vm.overcommit_memory=0"
                            : ""});
}

void check_disk(const Machine& m, std::vector<Check>* out) {
  struct statvfs fs {};
  if (::statvfs(m.folder.c_str(), &fs) != 0) {
    out->push_back({"disk", Health::kBad, m.folder + ": " + facts::errno_text(errno),
                    "kvctl doctor --path DIR, with the folder where swap files will be"});
    return;
  }
  std::string why;
  if (direct_io_works(m.folder, &why)) {
    out->push_back({"direct-io", Health::kOk, m.folder + ": read and written with O_DIRECT", ""});
  } else if (why == "EACCES" || why == "EROFS" || why == "EPERM") {
    out->push_back({"direct-io", Health::kWarn, m.folder + ": cannot be written: " + why,
                    "kvctl doctor --path DIR, with a folder that this user may write"});
  } else {
    out->push_back({"direct-io", Health::kBad, m.folder + ": O_DIRECT is refused: " + why,
                    "put swap files on ext4, xfs or btrfs, or name a block device: kvctl doctor "
                    "--path DIR tries another folder"});
  }
  const uint64_t free = fs.f_bavail * uint64_t{fs.f_frsize};
  out->push_back({"disk-space", free < kGiB ? Health::kWarn : Health::kOk,
                  fmt::format("{}: {} free", m.folder, human_bytes(free)),
                  free < kGiB ? "a folder with more room: kvctl doctor --path DIR" : ""});
}

void check_processors(const Machine& m, std::vector<Check>* out) {
  const std::string nodes = m.root + "/sys/devices/system/node";
  unsigned count = 0;
  unsigned bare = 0;
  if (DIR* const dir = ::opendir(nodes.c_str()); dir != nullptr) {
    while (const dirent* const e = ::readdir(dir)) {
      unsigned number = 0;
      if (std::sscanf(e->d_name, "node%u", &number) == 1) {
        ++count;
        bare += line_of(nodes + "/" + e->d_name + "/cpulist").empty() ? 1 : 0;
      }
    }
    ::closedir(dir);
  }
  if (count == 0) {
    out->push_back({"numa", Health::kNone, "this kernel names no NUMA nodes", ""});
  } else {
    const bool moves = count > 1 && number_in(m.root + "/proc/sys/kernel/numa_balancing", 0) != 0;
    out->push_back({"numa", moves ? Health::kWarn : Health::kOk,
                    fmt::format("{} node{}, {} without CPUs{}", count, count == 1 ? "" : "s", bare,
                                moves ? ", and the kernel moves pages between them" : ""),
                    moves ? "as root: sysctl -w kernel.numa_balancing=0" : ""});
  }
  void* const cuda = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (cuda == nullptr) {
    const bool device = ::access((m.root + "/dev/nvidiactl").c_str(), F_OK) == 0;
    out->push_back({"cuda", device ? Health::kWarn : Health::kNone,
                    device ? "a device, and no libcuda.so.1" : "no libcuda.so.1, no device",
                    device ? "install the driver's libcuda (libcuda1)" : ""});
    return;
  }
  auto* const init = reinterpret_cast<int (*)(unsigned)>(::dlsym(cuda, "cuInit"));
  auto* const devices = reinterpret_cast<int (*)(int*)>(::dlsym(cuda, "cuDeviceGetCount"));
  int n = 0;
  const int result = init == nullptr || devices == nullptr ? -1 : init(0);
  if (result != 0 || devices(&n) != 0) {
    out->push_back({"cuda", Health::kWarn, fmt::format("libcuda.so.1 is there; cuInit: {}", result),
                    "nvidia-smi says more: driver and library must be of one version"});
  } else {
    out->push_back({"cuda", Health::kOk, fmt::format("{} device{}", n, n == 1 ? "" : "s"), ""});
  }
}

void check_control(const Machine& m, std::vector<Check>* out) {
  std::string tried;
  for (const std::string& place : control_directories()) {
    const std::string path = m.root + place;
    struct stat s {};
    if (::lstat(path.c_str(), &s) != 0) {
      const std::string parent = path.substr(0, path.rfind('/'));
      if (errno == ENOENT && ::access(parent.c_str(), W_OK | X_OK) == 0) {
        out->push_back({"control", Health::kOk, place + " will be made", ""});
        return;
      }
      tried += place + " cannot be made; ";
      continue;
    }
    if (S_ISDIR(s.st_mode) && s.st_uid == ::geteuid() && (s.st_mode & 077) == 0) {
      out->push_back({"control", Health::kOk, place, ""});
      return;
    }
    tried += place + " is another's, a link or open to others; ";
  }
  out->push_back({"control", Health::kBad, tried + "nothing is left to try",
                  "rm -r the directory, or chmod 700 it; or set XDG_RUNTIME_DIR to one of yours"});
}

}  // namespace kvmm::ctl
