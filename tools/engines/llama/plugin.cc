// SPDX-License-Identifier: Apache-2.0
//
// libkvmm-ggml.so: a ggml backend that owns memory and computes nothing.
//
//   ggml_backend_load -> ggml_backend_init -> registry -> one device of type GPU -> one buffer type
//
// llama.cpp puts the KV cache of offloaded layers into the device's buffer type. The device
// supports no operation, so weights and compute stay on the CPU; the buffer type is host memory, so
// the CPU computes on the cache in place. Lists of tensors that are a KV cache go to kvmm,
// everything else that is asked of the device gets ordinary memory.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tools/engines/llama/plugin_api.h"
#include "tools/engines/llama/plugin_state.h"

#ifndef KVMM_GGML_API_VERSION
#define KVMM_GGML_API_VERSION ::kvmm::ggml::kApiVersion
#endif

namespace kvmm::llama {
namespace {

using ggml::Backend;
using ggml::BufferType;
using ggml::Device;
using ggml::Registry;
using ggml::Tensor;

// ---- the device and its (idle) backend

const char* device_name(Device*) {
  return "KVMM";
}
const char* device_description(Device*) {
  return "KV memory of kvmm; computes on the CPU";
}

// Only the engine's fitting of layers to memory asks; address space is not the limit, so the
// machine's is told.
void device_memory(Device*, std::size_t* free, std::size_t* total) {
  const auto pages = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES));
  *total = pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  *free = *total;
}

ggml::DeviceType device_type(Device*) {
  return ggml::kDeviceGpu;
}
BufferType* device_buffer_type(Device*) {
  return &plugin().buffer_type;
}
bool device_supports_op(Device*, const Tensor*) {
  return false;
}
bool device_supports_type(Device*, BufferType* type) {
  return type == &plugin().buffer_type;
}

void device_props(Device* device, ggml::DeviceProps* props) {
  *props = ggml::DeviceProps{};
  props->name = device_name(device);
  props->description = device_description(device);
  props->type = device_type(device);
  device_memory(device, &props->memory_free, &props->memory_total);
}

const char* backend_name(Backend*) {
  return "KVMM";
}
void backend_free(Backend* backend) {
  delete backend;
}

// The engine's scheduler sends a graph only to a backend that supports its operations.
ggml::Status backend_compute(Backend*, void*) {
  return ggml::kFailed;
}

Backend* device_init_backend(Device* device, const char*) {
  static std::uint8_t guid[16] = {'k', 'v', 'm', 'm', '-', 'g', 'g', 'm', 'l', 0, 0, 0, 0, 0, 0, 1};
  auto* backend = new Backend{};
  backend->guid = &guid;
  backend->ops.get_name = backend_name;
  backend->ops.free = backend_free;
  backend->ops.graph_compute = backend_compute;
  backend->device = device;
  return backend;
}

// ---- the registry

const char* registry_name(Registry*) {
  return "KVMM";
}
std::size_t registry_count(Registry*) {
  return 1;
}
Device* registry_device(Registry*, std::size_t index) {
  return index == 0 ? &plugin().device : nullptr;
}

template <typename Function>
bool find(const char* name, Function* out) {
  *out = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  if (*out == nullptr) {
    say("the engine's function %s is not visible; load the engine with RTLD_GLOBAL before the "
        "plugin",
        name);
  }
  return *out != nullptr;
}

bool find_engine(ggml::Engine* engine) {
  if (!find("ggml_backend_buffer_init", &engine->buffer_init) ||
      !find("ggml_backend_buffer_free", &engine->buffer_free) ||
      !find("ggml_backend_tensor_alloc", &engine->tensor_alloc) ||
      !find("ggml_backend_view_init", &engine->view_init) ||
      !find("ggml_nbytes", &engine->nbytes) || !find("ggml_get_name", &engine->get_name) ||
      !find("ggml_get_data", &engine->get_data) ||
      !find("ggml_tensor_overhead", &engine->tensor_overhead)) {
    return false;
  }
  constexpr std::size_t kObjectHeader = 32;  // what ggml keeps before each tensor
  if (engine->tensor_overhead() != sizeof(Tensor) + kObjectHeader) {
    say("a tensor of this engine is %zu bytes, the plugin was built for %zu",
        engine->tensor_overhead() - kObjectHeader, sizeof(Tensor));
    return false;
  }
  return true;
}

// Closes the runtime if the engine has freed its caches. If it has not (it exits in the middle),
// its threads may still touch them: then the memory goes with the process.
void at_exit() {
  Plugin& state = plugin();
  if (getpid() != state.pid || !state.mutex.try_lock()) {
    return;
  }
  if (state.runtime != nullptr && state.store->live() == 0) {
    state.store.reset();
    (void)kvmm_runtime_close(state.runtime);
    state.runtime = nullptr;
  }
  state.mutex.unlock();
}

const char* environment(const char* name) {
  return std::getenv(name);
}

bool open_runtime(Plugin* state) {
  std::string error;
  if (!read_config(environment, &state->config, &error)) {
    say("%s", error.c_str());
    return false;
  }
  kvmm_runtime_options options{};
  options.size = sizeof(options);
  options.name = state->config.name.c_str();
  options.dram_bytes = state->config.dram_bytes;
  options.swap_path = state->config.swap_path.empty() ? nullptr : state->config.swap_path.c_str();
  options.swap_bytes = state->config.swap_bytes;
  options.frames = state->config.frames.c_str();
  options.swap_driver =
      state->config.swap_driver.empty() ? nullptr : state->config.swap_driver.c_str();
  options.flags =
      KVMM_RUNTIME_VOLATILE;  // raw pages: nobody could say what they mean in another process
  const kvmm_status status = kvmm_runtime_open(&options, &state->runtime);
  if (status != KVMM_OK) {
    say("cannot open the runtime: %s (%s)", kvmm_last_error(), kvmm_status_name(status));
    return false;
  }
  state->store = std::make_unique<KvStore>(state->runtime, state->config);
  state->pid = getpid();
  (void)std::atexit(at_exit);
  return true;
}

void fill_tables(Plugin* state) {
  state->buffer_type.ops = buffer_type_ops();
  state->buffer_type.device = &state->device;
  ggml::DeviceOps& device = state->device.ops;
  device.get_name = device_name;
  device.get_description = device_description;
  device.get_memory = device_memory;
  device.get_type = device_type;
  device.get_props = device_props;
  device.init_backend = device_init_backend;
  device.get_buffer_type = device_buffer_type;
  device.supports_op = device_supports_op;
  device.supports_buft = device_supports_type;
  state->device.registry = &state->registry;
  state->registry.ops.get_name = registry_name;
  state->registry.ops.get_device_count = registry_count;
  state->registry.ops.get_device = registry_device;
  state->registry.api_version = KVMM_GGML_API_VERSION;
}

}  // namespace
}  // namespace kvmm::llama

extern "C" {

// ggml's entry. The engine may load the path again: everybody gets the same registry. NULL, after a
// line on stderr, if kvmm cannot work here; the engine then goes on without the device and says so
// itself.
KVMM_API kvmm::ggml::Registry* ggml_backend_init(void) {
  using namespace kvmm::llama;
  Plugin& state = plugin();
  const std::lock_guard lock(state.mutex);
  if (state.registry.api_version == 0) {
    if (!find_engine(&state.engine) || !open_runtime(&state)) {
      return nullptr;
    }
    fill_tables(&state);
  }
  return &state.registry;
}

KVMM_API uint32_t kvmm_llama_plane_count(void) {
  auto& state = kvmm::llama::plugin();
  const std::lock_guard lock(state.mutex);
  std::size_t count = 0;
  for (const auto* memory : state.memories) {
    count += memory->kv->placements.size();
  }
  return static_cast<uint32_t>(count);
}

KVMM_API int32_t kvmm_llama_plane_get(uint32_t number, kvmm_llama_plane* plane) {
  auto& state = kvmm::llama::plugin();
  const std::lock_guard lock(state.mutex);
  std::size_t left = number;
  for (const auto* memory : state.memories) {
    const auto& placements = memory->kv->placements;
    if (left >= placements.size()) {
      left -= placements.size();
      continue;
    }
    const auto& [shape, address, index] = placements[left];
    (void)index;
    std::memset(plane, 0, sizeof(*plane));
    std::memcpy(plane->name, shape.name.c_str(),
                std::min(shape.name.size(), sizeof(plane->name) - 1));
    plane->address = reinterpret_cast<uint64_t>(address);
    plane->lane_stride = shape.lane_stride;
    plane->lanes = shape.lanes;
    plane->tokens = shape.tokens;
    plane->token_stride = shape.token_stride;
    plane->page_size = kvmm::llama::plane_page_size(state.config.page_size, shape.lane_stride);
    return 0;
  }
  return -1;
}

KVMM_API uint64_t kvmm_llama_tensor_address(const char* name, uint32_t slot) {
  kvmm_llama_plane plane;
  for (uint32_t i = 0; kvmm_llama_plane_get(i, &plane) == 0; ++i) {
    if (std::strcmp(plane.name, name) == 0) {
      return slot < plane.lanes ? plane.address + slot * plane.lane_stride : 0;
    }
  }
  return 0;
}

KVMM_API uint64_t kvmm_llama_session_id(uint32_t slot) {
  auto& state = kvmm::llama::plugin();
  const std::lock_guard lock(state.mutex);
  return state.memories.empty()
             ? 0
             : kvmm::llama::KvStore::session_id(*state.memories.front()->kv, slot);
}

KVMM_API void* kvmm_llama_runtime(void) {
  return kvmm::llama::plugin().runtime;
}

}  // extern "C"
