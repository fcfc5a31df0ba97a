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
//
// The state is made once and never destroyed: ggml keeps pointers to it until the process ends, and
// threads of the engine may still run while exit handlers do.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "tools/engines/llama/ggml_abi.h"
#include "tools/engines/llama/kv_store.h"
#include "tools/engines/llama/plugin_api.h"

#ifndef KVMM_GGML_API_VERSION
#define KVMM_GGML_API_VERSION ::kvmm::ggml::kApiVersion
#endif

namespace kvmm::llama {
namespace {

using ggml::Backend;
using ggml::Buffer;
using ggml::BufferType;
using ggml::Device;
using ggml::Registry;
using ggml::Tensor;

// What stands behind one ggml buffer: a KV cache in kvmm, or `plain` bytes of ordinary memory.
struct Memory {
  std::unique_ptr<Allocation> kv;
  std::byte* plain = nullptr;
  std::size_t length = 0;
};

struct Plugin {
  std::mutex mutex;  // init, allocation and release; never held while KV bytes are touched
  pid_t pid = 0;
  Config config;
  ggml::Engine engine;
  kvmm_runtime* runtime = nullptr;
  std::unique_ptr<KvStore> store;
  std::vector<Memory*> memories;  // KV caches that are alive, in order of allocation
  BufferType buffer_type{};
  Device device{};
  Registry registry{};
};

Plugin& plugin() {
  static auto* state = new Plugin;  // lives as long as the process; see above
  return *state;
}

// One line with one write(2): the engine's own log goes to the same descriptor.
__attribute__((format(printf, 1, 2))) void say(const char* format, ...) {
  char line[640];
  const int head = std::snprintf(line, sizeof(line), "kvmm: ");
  va_list arguments;
  va_start(arguments, format);
  const int body = std::vsnprintf(line + head, sizeof(line) - static_cast<std::size_t>(head) - 1,
                                  format, arguments);
  va_end(arguments);
  auto length = static_cast<std::size_t>(head) + static_cast<std::size_t>(std::max(body, 0));
  length = std::min(length, sizeof(line) - 2);
  line[length++] = '\n';
  if (write(STDERR_FILENO, line, length) < 0) {
    return;  // nobody listens
  }
}

// The bytes could not be made what the engine was promised: going on would hand it wrong KV.
[[noreturn]] void stop(const char* what, kvmm_status status) {
  say("%s: %s. %s", what, kvmm_status_text(status), kvmm_last_error());
  std::abort();
}

// ---- ggml's view of a tensor

TensorShape shape_of(const Tensor& tensor) {
  TensorShape shape;
  shape.name.assign(tensor.name, strnlen(tensor.name, sizeof(tensor.name)));
  shape.bytes = plugin().engine.nbytes(&tensor);
  shape.lanes = tensor.ne[3] == 1 ? static_cast<std::uint64_t>(tensor.ne[2]) : 0;
  shape.lane_stride = tensor.nb[2];
  shape.tokens = static_cast<std::uint64_t>(tensor.ne[1]);
  shape.token_stride = tensor.nb[1];
  shape.type = tensor.type;
  return shape;
}

// The engine's own accessors must see what we see, or its tensors have another layout than ours.
bool check_tensor(const Tensor& tensor) {
  const ggml::Engine& engine = plugin().engine;
  return engine.get_name(&tensor) == tensor.name && engine.get_data(&tensor) == tensor.data &&
         tensor.ne[0] > 0 && tensor.ne[1] > 0 && tensor.ne[2] > 0;
}

// ---- buffers

Memory& memory_of(const Buffer* buffer) {
  return *static_cast<Memory*>(buffer->context);
}

void zero(Memory& memory, void* start, std::size_t length) {
  if (memory.kv == nullptr) {
    std::memset(start, 0, length);
    return;
  }
  const kvmm_status status = KvStore::clear(*memory.kv, start, length);
  if (status != KVMM_OK) {
    stop("cannot clear the KV cache", status);
  }
}

void buffer_free(Buffer* buffer) {
  Plugin& state = plugin();
  const std::lock_guard lock(state.mutex);
  auto* memory = static_cast<Memory*>(buffer->context);
  std::erase(state.memories, memory);
  if (memory->kv != nullptr) {
    const kvmm_status status = state.store->release(std::move(memory->kv));
    if (status != KVMM_OK) {
      say("cannot free a KV cache: %s. %s", kvmm_status_text(status), kvmm_last_error());
    }
  } else if (memory->plain != nullptr) {
    (void)munmap(memory->plain, memory->length);
  }
  delete memory;
}

void* buffer_base(Buffer* buffer) {
  const Memory& memory = memory_of(buffer);
  return memory.kv != nullptr ? memory.kv->base : memory.plain;
}

void buffer_memset(Buffer* buffer, Tensor* tensor, std::uint8_t value, std::size_t offset,
                   std::size_t size) {
  auto* start = static_cast<std::byte*>(tensor->data) + offset;
  if (value == 0) {
    zero(memory_of(buffer), start, size);
  } else {
    std::memset(start, value, size);
  }
}

void buffer_set(Buffer*, Tensor* tensor, const void* data, std::size_t offset, std::size_t size) {
  std::memcpy(static_cast<std::byte*>(tensor->data) + offset, data, size);
}

void buffer_get(Buffer*, const Tensor* tensor, void* data, std::size_t offset, std::size_t size) {
  std::memcpy(data, static_cast<const std::byte*>(tensor->data) + offset, size);
}

void buffer_clear(Buffer* buffer, std::uint8_t value) {
  Memory& memory = memory_of(buffer);
  if (value == 0) {
    zero(memory, buffer_base(buffer), memory.length);
    return;
  }
  if (memory.kv == nullptr) {
    std::memset(memory.plain, value, memory.length);
    return;
  }
  for (const Placement& placement : memory.kv->placements) {  // the gaps between them are no memory
    std::memset(placement.address, value, placement.shape.bytes);
  }
}

Buffer* make_buffer(BufferType* type, Memory* memory) {
  ggml::BufferOps ops{};
  ops.free_buffer = buffer_free;
  ops.get_base = buffer_base;
  ops.memset_tensor = buffer_memset;
  ops.set_tensor = buffer_set;
  ops.get_tensor = buffer_get;
  ops.clear = buffer_clear;
  return plugin().engine.buffer_init(type, ops, memory, memory->length);
}

// ---- the buffer type

const char* type_name(BufferType*) {
  return "kvmm";
}
bool type_is_host(BufferType*) {
  return true;
}
std::size_t type_alignment(BufferType*) {
  return 128;
}  // as the engine's own CPU memory and more

Buffer* type_alloc(BufferType* type, std::size_t size) {
  void* plain = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (plain == MAP_FAILED) {
    say("cannot allocate %zu bytes: %s", size, std::strerror(errno));
    return nullptr;
  }
  auto memory = std::make_unique<Memory>();
  memory->plain = static_cast<std::byte*>(plain);
  memory->length = size;
  return make_buffer(type, memory.release());
}

// Places the tensors of `list` that have memory of their own, one after another, aligned as ggml
// asks.
Buffer* alloc_plain(BufferType* type, const std::vector<Tensor*>& list) {
  const std::size_t alignment = type_alignment(type);
  const auto padded = [alignment](const Tensor* tensor) {
    return (plugin().engine.nbytes(tensor) + alignment - 1) / alignment * alignment;
  };
  std::size_t total = 0;
  for (const Tensor* tensor : list) {
    total += padded(tensor);
  }
  Buffer* buffer = total == 0 ? nullptr : type_alloc(type, total);
  if (buffer == nullptr) {
    return nullptr;
  }
  std::size_t offset = 0;
  for (Tensor* tensor : list) {
    if (plugin().engine.tensor_alloc(buffer, tensor, memory_of(buffer).plain + offset) !=
        ggml::kSuccess) {
      say("the engine refuses the place of tensor %s", tensor->name);
      plugin().engine.buffer_free(buffer);
      return nullptr;
    }
    offset += padded(tensor);
  }
  return buffer;
}

Buffer* alloc_kv(BufferType* type, const std::vector<Tensor*>& list,
                 const std::vector<TensorShape>& shapes) {
  Plugin& state = plugin();
  std::unique_ptr<Allocation> allocation;
  auto memory = std::make_unique<Memory>();
  {
    const std::lock_guard lock(state.mutex);
    const kvmm_status status = state.store->allocate(shapes, &allocation);
    if (status != KVMM_OK) {
      say("cannot make a KV cache of %zu tensors with %llu slots: %s. %s", shapes.size(),
          static_cast<unsigned long long>(shapes.front().lanes), kvmm_status_text(status),
          state.store->error().c_str());
      return nullptr;
    }
    memory->length = allocation->length;
    memory->kv = std::move(allocation);
    state.memories.push_back(memory.get());
  }
  Memory& placed = *memory;
  Buffer* buffer = make_buffer(type, memory.release());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (state.engine.tensor_alloc(buffer, list[i], placed.kv->placements[i].address) !=
        ggml::kSuccess) {
      say("the engine refuses the place of tensor %s", list[i]->name);
      state.engine.buffer_free(buffer);
      return nullptr;
    }
  }
  return buffer;
}

Buffer* type_alloc_n(BufferType* type, Tensor** tensors, int count) {
  std::vector<Tensor*> own;
  std::vector<TensorShape> shapes;
  for (int i = 0; i < count; ++i) {
    if (!check_tensor(*tensors[i])) {
      say("this engine lays out its tensors in another way; build the plugin for its version");
      return nullptr;
    }
    if (tensors[i]->data == nullptr && tensors[i]->view_src == nullptr) {
      own.push_back(tensors[i]);
      shapes.push_back(shape_of(*tensors[i]));
    }
  }
  Buffer* buffer = is_kv_list(shapes) ? alloc_kv(type, own, shapes) : alloc_plain(type, own);
  if (buffer == nullptr) {
    return nullptr;
  }
  for (int i = 0; i < count; ++i) {
    Tensor* tensor = tensors[i];
    if (tensor->view_src != nullptr && tensor->buffer == nullptr &&
        plugin().engine.view_init(tensor) != ggml::kSuccess) {
      say("the engine refuses a view of tensor %s", tensor->view_src->name);
      plugin().engine.buffer_free(buffer);
      return nullptr;
    }
  }
  return buffer;
}

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
  options.flags =
      KVMM_RUNTIME_VOLATILE;  // raw pages: nobody could say what they mean in another process
  const kvmm_status status = kvmm_runtime_open(&options, &state->runtime);
  if (status != KVMM_OK) {
    say("cannot open the runtime: %s. %s", kvmm_status_text(status), kvmm_last_error());
    return false;
  }
  state->store = std::make_unique<KvStore>(state->runtime, state->config);
  state->pid = getpid();
  (void)std::atexit(at_exit);
  return true;
}

void fill_tables(Plugin* state) {
  state->buffer_type.ops.get_name = type_name;
  state->buffer_type.ops.alloc_buffer = type_alloc;
  state->buffer_type.ops.alloc_buffer_n = type_alloc_n;
  state->buffer_type.ops.get_alignment = type_alignment;
  state->buffer_type.ops.is_host = type_is_host;
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
