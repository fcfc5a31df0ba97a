// SPDX-License-Identifier: Apache-2.0
//
// The plugin's buffer type. Lists of tensors that are a KV cache go to kvmm, everything else that
// is asked of the device gets ordinary memory.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tools/engines/llama/plugin_state.h"

namespace kvmm::llama {

using ggml::Buffer;
using ggml::BufferType;
using ggml::Tensor;

Plugin& plugin() {
  static auto* state = new Plugin;  // lives as long as the process
  return *state;
}

// One line with one write(2): the engine's own log goes to the same descriptor.
void say(const char* format, ...) {
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

namespace {

// The bytes could not be made what the engine was promised: going on would hand it wrong KV.
[[noreturn]] void stop(const char* what, kvmm_status status) {
  say("%s: %s (%s)", what, kvmm_last_error(), kvmm_status_name(status));
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
      say("cannot free a KV cache: %s (%s)", kvmm_last_error(), kvmm_status_name(status));
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

}  // namespace

ggml::BufferTypeOps buffer_type_ops() {
  ggml::BufferTypeOps ops{};
  ops.get_name = type_name;
  ops.alloc_buffer = type_alloc;
  ops.alloc_buffer_n = type_alloc_n;
  ops.get_alignment = type_alignment;
  ops.is_host = type_is_host;
  return ops;
}

}  // namespace kvmm::llama
