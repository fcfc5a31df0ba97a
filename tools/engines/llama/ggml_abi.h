// SPDX-License-Identifier: Apache-2.0
//
// The binary interface between ggml and a backend that it loads at run time, version 3.
//
//   registry --get_device--> device --get_buffer_type--> buffer type --alloc_buffer_n--> buffer
//                              |                                                          |
//                              +--init_backend--> backend (a stream; ours computes none)  +-
//                              tensors
//
// ggml opens a shared object, calls its `ggml_backend_init` and reads the tables below. They are
// written down here, in our words, so that the plugin builds without the engine's sources: a
// table's order and the types' sizes are the whole contract. `abi_layout_test` holds them against
// the engine's own headers where those are at hand, and `check_tensor` holds the tensor layout
// against the running engine.
//
// Invariants
//   1. A registry's first field is its interface version; ggml refuses every other number than its
//   own.
//   2. Tables and objects that ggml was given stay valid until the process ends: it never unloads a
//   backend.
//   3. Entries marked optional may be null; all others are called without a check.
//   4. A buffer is created by the engine (`buffer_init`), which also frees it.
//
// Thread safety: plain data. Ownership: what a function returns belongs to the side that made it.
#ifndef KVMM_TOOLS_ENGINES_LLAMA_GGML_ABI_H_
#define KVMM_TOOLS_ENGINES_LLAMA_GGML_ABI_H_

#include <cstddef>
#include <cstdint>

namespace kvmm::ggml {

inline constexpr int kApiVersion = 3;
inline constexpr int kMaxDims = 4;
inline constexpr int kMaxOpParams = 64;  // bytes
inline constexpr int kMaxSrc = 10;
inline constexpr int kMaxName = 64;

struct Buffer;
struct BufferType;
struct Device;
struct Registry;
struct Backend;

enum Status : int { kAllocFailed = -2, kFailed = -1, kSuccess = 0 };
enum DeviceType : int { kDeviceCpu = 0, kDeviceGpu = 1 };

// One tensor. Element i0,i1,i2,i3 lies at data + sum(i[k] * nb[k]).
struct Tensor {
  int type;
  Buffer* buffer;
  std::int64_t ne[kMaxDims];  // elements per dimension
  std::size_t nb[kMaxDims];   // bytes from one element, row, plane to the next
  int op;
  std::int32_t op_params[kMaxOpParams / sizeof(std::int32_t)];
  std::int32_t flags;
  Tensor* src[kMaxSrc];
  Tensor* view_src;  // not null: this tensor has no memory of its own
  std::size_t view_offs;
  void* data;
  char name[kMaxName];
  void* extra;
  char padding[8];
};

struct BufferTypeOps {
  const char* (*get_name)(BufferType*);
  Buffer* (*alloc_buffer)(BufferType*, std::size_t size);
  Buffer* (*alloc_buffer_n)(BufferType*, Tensor** tensors, int count);  // optional
  std::size_t (*get_alignment)(BufferType*);
  std::size_t (*get_max_size)(BufferType*);                                   // optional
  std::size_t (*get_alloc_size)(BufferType*, const Tensor*);                  // optional
  std::size_t (*get_alloc_size_n)(BufferType*, Tensor** tensors, int count);  // optional
  bool (*is_host)(BufferType*);                                               // optional
};
struct BufferType {
  BufferTypeOps ops;
  Device* device;
  void* context;
};

struct BufferOps {
  void (*free_buffer)(Buffer*);  // optional
  void* (*get_base)(Buffer*);
  Status (*init_tensor)(Buffer*, Tensor*);  // optional
  void (*memset_tensor)(Buffer*, Tensor*, std::uint8_t value, std::size_t offset, std::size_t size);
  void (*set_tensor)(Buffer*, Tensor*, const void* data, std::size_t offset, std::size_t size);
  void (*get_tensor)(Buffer*, const Tensor*, void* data, std::size_t offset, std::size_t size);
  void (*set_tensor_2d)(Buffer*, Tensor*, const void*, std::size_t, std::size_t, std::size_t,
                        std::size_t, std::size_t);  // optional
  void (*get_tensor_2d)(Buffer*, const Tensor*, void*, std::size_t, std::size_t, std::size_t,
                        std::size_t, std::size_t);              // optional
  bool (*cpy_tensor)(Buffer*, const Tensor* src, Tensor* dst);  // optional
  void (*clear)(Buffer*, std::uint8_t value);
  void (*reset)(Buffer*);  // optional
};
struct Buffer {
  BufferOps ops;
  BufferType* type;
  void* context;
  std::size_t size;
  int usage;
};

struct BackendOps {
  const char* (*get_name)(Backend*);
  void (*free)(Backend*);
  void (*set_tensor_async)();  // the asynchronous entries are optional and unused here
  void (*get_tensor_async)();
  void (*set_tensor_2d_async)();
  void (*get_tensor_2d_async)();
  void (*cpy_tensor_async)();
  void (*synchronize)(Backend*);  // optional
  void (*graph_plan_create)();    // optional
  void (*graph_plan_free)();      // optional
  void (*graph_plan_update)();    // optional
  void (*graph_plan_compute)();   // optional
  Status (*graph_compute)(Backend*, void* graph);
  void (*event_record)();    // optional
  void (*event_wait)();      // optional
  void (*graph_optimize)();  // optional
};
struct Backend {
  std::uint8_t (*guid)[16];
  BackendOps ops;
  Device* device;
  void* context;
};

struct DeviceCaps {
  bool async, host_buffer, buffer_from_host_ptr, events, mmap_support;
};
struct DeviceProps {
  const char* name;
  const char* description;
  std::size_t memory_free, memory_total;
  DeviceType type;
  const char* device_id;  // may be null
  DeviceCaps caps;
};
struct DeviceOps {
  const char* (*get_name)(Device*);
  const char* (*get_description)(Device*);
  void (*get_memory)(Device*, std::size_t* free, std::size_t* total);
  DeviceType (*get_type)(Device*);
  void (*get_props)(Device*, DeviceProps*);
  Backend* (*init_backend)(Device*, const char* params);
  BufferType* (*get_buffer_type)(Device*);
  BufferType* (*get_host_buffer_type)(Device*);                               // optional
  Buffer* (*buffer_from_host_ptr)(Device*, void*, std::size_t, std::size_t);  // optional
  bool (*supports_op)(Device*, const Tensor*);
  bool (*supports_buft)(Device*, BufferType*);
  bool (*offload_op)(Device*, const Tensor*);  // optional
  void (*event_new)();                         // optional
  void (*event_free)();                        // optional
  void (*event_synchronize)();                 // optional
};
struct Device {
  DeviceOps ops;
  Registry* registry;
  void* context;
};

struct RegistryOps {
  const char* (*get_name)(Registry*);
  std::size_t (*get_device_count)(Registry*);
  Device* (*get_device)(Registry*, std::size_t index);
  void* (*get_proc_address)(Registry*, const char* name);  // optional
};
struct Registry {
  int api_version;
  RegistryOps ops;
  void* context;
};

// What the plugin needs from the engine. Found by name in the process: the engine must have been
// loaded with its symbols visible (RTLD_GLOBAL).
struct Engine {
  Buffer* (*buffer_init)(BufferType*, BufferOps, void* context, std::size_t size) = nullptr;
  void (*buffer_free)(Buffer*) = nullptr;
  Status (*tensor_alloc)(Buffer*, Tensor*, void* address) = nullptr;
  Status (*view_init)(Tensor*) = nullptr;
  std::size_t (*nbytes)(const Tensor*) = nullptr;
  const char* (*get_name)(const Tensor*) = nullptr;
  void* (*get_data)(const Tensor*) = nullptr;
  std::size_t (*tensor_overhead)() = nullptr;
};

static_assert(sizeof(Tensor) == 336 && offsetof(Tensor, data) == 248 &&
              offsetof(Tensor, name) == 256);
static_assert(sizeof(BufferTypeOps) == 8 * sizeof(void*) &&
              sizeof(BufferOps) == 11 * sizeof(void*));
static_assert(sizeof(BackendOps) == 16 * sizeof(void*) && sizeof(DeviceOps) == 15 * sizeof(void*));

}  // namespace kvmm::ggml

#endif  // KVMM_TOOLS_ENGINES_LLAMA_GGML_ABI_H_
