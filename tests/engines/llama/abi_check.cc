// SPDX-License-Identifier: Apache-2.0
// Holds tools/engines/llama/ggml_abi.h against ggml's own headers, at compile time.
#include "ggml-backend-impl.h"
#include "tools/engines/llama/ggml_abi.h"

namespace ours = kvmm::ggml;

static_assert(ours::kApiVersion == GGML_BACKEND_API_VERSION);

#define SAME_SIZE(a, b) static_assert(sizeof(ours::a) == sizeof(b), #a)
#define SAME_PLACE(a, x, b, y) static_assert(offsetof(ours::a, x) == offsetof(b, y), #a "::" #x)

SAME_SIZE(Tensor, ggml_tensor);
SAME_PLACE(Tensor, buffer, ggml_tensor, buffer);
SAME_PLACE(Tensor, ne, ggml_tensor, ne);
SAME_PLACE(Tensor, nb, ggml_tensor, nb);
SAME_PLACE(Tensor, view_src, ggml_tensor, view_src);
SAME_PLACE(Tensor, data, ggml_tensor, data);
SAME_PLACE(Tensor, name, ggml_tensor, name);

SAME_SIZE(BufferTypeOps, ggml_backend_buffer_type_i);
SAME_PLACE(BufferTypeOps, alloc_buffer_n, ggml_backend_buffer_type_i, alloc_buffer_n);
SAME_PLACE(BufferTypeOps, get_alignment, ggml_backend_buffer_type_i, get_alignment);
SAME_PLACE(BufferTypeOps, get_alloc_size_n, ggml_backend_buffer_type_i, get_alloc_size_n);
SAME_PLACE(BufferTypeOps, is_host, ggml_backend_buffer_type_i, is_host);
SAME_SIZE(BufferType, ggml_backend_buffer_type);
SAME_PLACE(BufferType, device, ggml_backend_buffer_type, device);

SAME_SIZE(BufferOps, ggml_backend_buffer_i);
SAME_PLACE(BufferOps, memset_tensor, ggml_backend_buffer_i, memset_tensor);
SAME_PLACE(BufferOps, get_tensor, ggml_backend_buffer_i, get_tensor);
SAME_PLACE(BufferOps, clear, ggml_backend_buffer_i, clear);
SAME_SIZE(Buffer, ggml_backend_buffer);
SAME_PLACE(Buffer, context, ggml_backend_buffer, context);

SAME_SIZE(BackendOps, ggml_backend_i);
SAME_PLACE(BackendOps, synchronize, ggml_backend_i, synchronize);
SAME_PLACE(BackendOps, graph_compute, ggml_backend_i, graph_compute);
SAME_SIZE(Backend, ggml_backend);
SAME_PLACE(Backend, device, ggml_backend, device);

SAME_SIZE(DeviceProps, ggml_backend_dev_props);
SAME_PLACE(DeviceProps, caps, ggml_backend_dev_props, caps);
SAME_SIZE(DeviceOps, ggml_backend_device_i);
SAME_PLACE(DeviceOps, init_backend, ggml_backend_device_i, init_backend);
SAME_PLACE(DeviceOps, supports_op, ggml_backend_device_i, supports_op);
SAME_PLACE(DeviceOps, offload_op, ggml_backend_device_i, offload_op);
SAME_SIZE(Device, ggml_backend_device);
SAME_SIZE(Registry, ggml_backend_reg);
SAME_PLACE(Registry, context, ggml_backend_reg, context);
SAME_PLACE(RegistryOps, get_device, ggml_backend_reg_i, get_device);

static_assert(static_cast<int>(ours::kDeviceGpu) == GGML_BACKEND_DEVICE_TYPE_GPU);
static_assert(static_cast<int>(ours::kSuccess) == GGML_STATUS_SUCCESS);
static_assert(static_cast<int>(ours::kAllocFailed) == GGML_STATUS_ALLOC_FAILED);
