// SPDX-License-Identifier: Apache-2.0
//
// A pinning engine in fifty lines, over the installed C++ header: no swap, one session, write 100
// tokens under a pin, unpin with a fence, pin again, read them back.
#include <poll.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kvmm/kvmm.hpp"

namespace {

constexpr uint64_t kTokenStride = 256;
constexpr uint64_t kTokens = 100;

void require(const kvmmpp::Status& status, const char* what) {
  if (status.ok())
    return;
  std::fprintf(stderr, "%s: %s\n", what, status.message().c_str());
  // 77 means "skipped" to ctest: this machine does not allow what a faulting arena needs.
  const bool refused = status.code() == KVMM_EPERMISSION || status.code() == KVMM_ENOTSUPPORTED;
  std::exit(refused && std::getenv("CI") == nullptr ? 77 : 1);
}

kvmmpp::Pin pin_ready(const kvmmpp::Runtime& runtime, const kvmm_pin_range& range) {
  auto pin = kvmmpp::Pin::batch(runtime, &range, 1);
  require(pin.status(), "pin");
  while (pin->answers()[0] == KVMM_PIN_COMING) {
    pollfd wait{pin->fd(), POLLIN, 0};
    ::poll(&wait, 1, -1);
    require(pin->poll(), "poll");
  }
  if (pin->answers()[0] != KVMM_PIN_READY) {
    std::fprintf(stderr, "pin: answer %u\n", pin->answers()[0]);
    std::exit(1);
  }
  return *std::move(pin);
}

int always_done(void*) {
  return 1;
}

}  // namespace

int main() {
  auto options = kvmmpp::init<kvmm_runtime_options>();
  options.name = "consumer-package";
  options.dram_bytes = uint64_t{16} << 20;
  options.flags = KVMM_RUNTIME_NO_CONTROL;
  auto runtime = kvmmpp::Runtime::open(options);
  require(runtime.status(), "runtime");

  auto arena_options = kvmmpp::init<kvmm_arena_options>();
  arena_options.layout = "consumer u8x256";
  arena_options.lanes = 2;
  arena_options.lane_tokens = 1024;
  arena_options.engine = KVMM_ENGINE_PINNING;
  auto arena = kvmmpp::Arena::create(*runtime, arena_options);
  require(arena.status(), "arena");
  auto plane_options = kvmmpp::init<kvmm_plane_options>();
  plane_options.name = "kv";
  plane_options.token_stride = kTokenStride;
  auto plane = arena->add_plane(plane_options);
  require(plane.status(), "plane");
  auto session = kvmmpp::Session::open(*arena, kvmmpp::init<kvmm_session_options>());
  require(session.status(), "session");
  auto address = session->address(*plane);
  require(address.status(), "address");
  auto* bytes = static_cast<unsigned char*>(*address);

  kvmmpp::Pin writing = pin_ready(*runtime, {session->get(), *plane, 1, 0, kTokens});
  for (uint64_t t = 0; t < kTokens; ++t) {
    std::memset(bytes + t * kTokenStride, static_cast<int>(t + 1), kTokenStride);
  }
  auto fence = kvmmpp::init<kvmm_fence>();
  fence.type = KVMM_FENCE_CALLBACK;
  fence.done = always_done;
  require(writing.unpin(fence), "unpin");
  require(session->append(nullptr, kTokens), "append");

  kvmmpp::Pin reading = pin_ready(*runtime, {session->get(), *plane, 0, 0, KVMM_ALL_TOKENS});
  for (uint64_t i = 0; i < kTokens * kTokenStride; ++i) {
    if (bytes[i] != static_cast<unsigned char>(i / kTokenStride + 1)) {
      std::fprintf(stderr, "wrong byte at %llu\n", static_cast<unsigned long long>(i));
      return 1;
    }
  }
  require(reading.unpin(), "unpin");
  if (session->tokens() != kTokens)
    return 1;
  std::printf("consumer (package): %u.%u ok\n", kvmm_version() >> 16, kvmm_version() >> 8 & 255);
  return 0;
}
