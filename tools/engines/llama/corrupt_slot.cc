// SPDX-License-Identifier: Apache-2.0
//
// kvmm-corrupt-slot: what happens to a page whose bytes on disk have changed.
//
//   kvmm-corrupt-slot die SWAPFILE      touches it: the process ends by SIGBUS
//   kvmm-corrupt-slot report SWAPFILE   survives the SIGBUS and prints {"wrong_pages": 1, ...}
//   kvmm-corrupt-slot intact SWAPFILE   damages nothing: the same page comes back as it was written
//
// A raw session writes one page, is evicted, and one byte of the page's slot in the swap file is
// changed behind the runtime's back. The slot is found by its content, so nothing is assumed about
// the file's format. Exit status: 0 as described (`die` never exits), 1 otherwise, with a line that
// says why.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "kvmm/kvmm.h"

namespace {

constexpr std::uint64_t kPage = 64 << 10;
constexpr int kWaitMs = 20000;

sigjmp_buf after_bus_error;
volatile sig_atomic_t bus_errors = 0;

void on_bus_error(int) {
  bus_errors = bus_errors + 1;
  siglongjmp(after_bus_error, 1);
}

bool failed(const char* what, kvmm_status status) {
  if (status != KVMM_OK) {
    std::fprintf(stderr, "%s: %s (%s)\n", what, kvmm_last_error(), kvmm_status_name(status));
  }
  return status != KVMM_OK;
}

// Bytes that stand nowhere else: a 64-bit mixer over the position.
std::vector<std::uint8_t> pattern() {
  std::vector<std::uint8_t> bytes(kPage);
  std::uint64_t state = 0x9e3779b97f4a7c15u ^ static_cast<std::uint64_t>(getpid());
  for (std::uint64_t i = 0; i < kPage; i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(bytes.data() + i, &state, 8);
  }
  return bytes;
}

// Changes one byte of the slot that holds `page`; false if no place of the file holds it.
bool damage(const char* path, const std::vector<std::uint8_t>& page) {
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) {
    std::perror(path);
    return false;
  }
  struct stat info {};
  bool changed = false;
  std::vector<std::uint8_t> block(4096);
  if (fstat(file, &info) == 0) {
    for (off_t at = 0; at + 4096 <= info.st_size && !changed; at += 4096) {
      if (pread(file, block.data(), block.size(), at) == 4096 &&
          std::memcmp(block.data(), page.data(), block.size()) == 0) {
        block[100] = static_cast<std::uint8_t>(block[100] ^ 1);
        changed = pwrite(file, block.data(), block.size(), at) == 4096 && fdatasync(file) == 0;
      }
    }
  }
  (void)close(file);
  return changed;
}

// Waits until the session has no frame left.
bool wait_evicted(kvmm_session* session) {
  const timespec moment = {0, 1000000};
  for (int ms = 0; ms < kWaitMs; ++ms) {
    kvmm_session_stat stat{};
    stat.size = sizeof(stat);
    if (failed("statistics", kvmm_session_stats(session, &stat))) {
      return false;
    }
    if (stat.bytes_resident == 0 && stat.bytes_swapped > 0) {
      return true;
    }
    (void)nanosleep(&moment, nullptr);
  }
  std::fprintf(stderr, "the session was not evicted within %d ms\n", kWaitMs);
  return false;
}

int run(const std::string& mode, const char* path) {
  kvmm_runtime_options options{};
  options.size = sizeof(options);
  options.name = "corrupt-slot";
  options.dram_bytes = 32 << 20;
  options.swap_path = path;
  options.swap_bytes = 64 << 20;
  options.flags = KVMM_RUNTIME_NO_CONTROL | KVMM_RUNTIME_VOLATILE;
  kvmm_runtime* runtime = nullptr;
  kvmm_arena* arena = nullptr;
  kvmm_session* session = nullptr;
  void* address = nullptr;
  if (failed("runtime", kvmm_runtime_open(&options, &runtime))) {
    return 1;
  }
  kvmm_arena_options shape{};
  shape.size = sizeof(shape);
  shape.name = "corrupt-slot";
  shape.layout = "one page";
  shape.lane_tokens = 1;
  kvmm_plane_options plane{};
  plane.size = sizeof(plane);
  plane.name = "page";
  plane.lane_stride = kPage;
  plane.page_size = kPage;
  kvmm_session_options raw{};
  raw.size = sizeof(raw);
  raw.name = "victim";
  raw.kind = KVMM_SESSION_RAW;
  std::uint32_t number = 0;
  if (failed("arena", kvmm_arena_create(runtime, &shape, &arena)) ||
      failed("reserve", kvmm_arena_reserve(arena, kPage, &plane.base)) ||
      failed("plane", kvmm_arena_add_plane(arena, &plane, &number)) ||
      failed("session", kvmm_session_open(arena, &raw, &session)) ||
      failed("address", kvmm_session_address(session, number, &address))) {
    return 1;
  }
  const std::vector<std::uint8_t> page = pattern();
  std::memcpy(address, page.data(), kPage);
  if (failed("evict", kvmm_advise(session, KVMM_ADVISE_EVICT)) || !wait_evicted(session)) {
    return 1;
  }
  if (mode != "intact" && !damage(path, page)) {
    std::fprintf(stderr, "%s does not hold the page\n", path);
    return 1;
  }
  if (mode != "die") {
    struct sigaction action {};
    action.sa_handler = on_bus_error;
    (void)sigaction(SIGBUS, &action, nullptr);
  }
  volatile bool equal = false;  // written between sigsetjmp and its return
  if (sigsetjmp(after_bus_error, 1) == 0) {
    equal = std::memcmp(address, page.data(), kPage) == 0;
  }
  kvmm_session_stat stat{};
  stat.size = sizeof(stat);
  if (failed("statistics", kvmm_session_stats(session, &stat))) {
    return 1;
  }
  std::printf("{\"wrong_pages\": %llu, \"pages_poisoned\": %llu, \"sigbus\": %d, \"equal\": %s}\n",
              static_cast<unsigned long long>(stat.wrong_pages),
              static_cast<unsigned long long>(stat.pages_poisoned), static_cast<int>(bus_errors),
              equal ? "true" : "false");
  (void)kvmm_session_close(session);
  (void)kvmm_arena_destroy(arena);
  (void)kvmm_runtime_close(runtime);
  if (mode == "intact") {
    return equal && stat.wrong_pages == 0 ? 0 : 1;
  }
  return bus_errors == 1 && stat.wrong_pages == 1 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc == 3 ? argv[1] : "";
  if (mode != "die" && mode != "report" && mode != "intact") {
    std::fprintf(stderr, "usage: kvmm-corrupt-slot die|report|intact SWAPFILE\n");
    return 2;
  }
  return run(mode, argv[2]);
}
