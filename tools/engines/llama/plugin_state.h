// SPDX-License-Identifier: Apache-2.0
//
// The plugin's one state, and what its parts tell people.
//
//   plugin.cc    device, registry, ggml's entry       both work on `plugin()`
//   buffers.cc   buffer type, buffers, their memory
//
// The state is made once and never destroyed: ggml keeps pointers to it until the process ends, and
// threads of the engine may still run while exit handlers do.
//
// Thread safety: `mutex` guards init, allocation and release; it is never held while KV bytes are
// touched. `engine`, `config` and the tables are constant once `ggml_backend_init` has returned.
#ifndef KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_STATE_H_
#define KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_STATE_H_

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <vector>

#include "tools/engines/llama/ggml_abi.h"
#include "tools/engines/llama/kv_store.h"

namespace kvmm::llama {

// What stands behind one ggml buffer: a KV cache in kvmm, or `plain` bytes of ordinary memory.
struct Memory {
  std::unique_ptr<Allocation> kv;
  std::byte* plain = nullptr;
  std::size_t length = 0;
};

struct Plugin {
  std::mutex mutex;
  pid_t pid = 0;  // that opened the runtime; a forked child has another
  Config config;
  ggml::Engine engine;
  kvmm_runtime* runtime = nullptr;
  std::unique_ptr<KvStore> store;
  std::vector<Memory*> memories;  // KV caches that are alive, in order of allocation
  ggml::BufferType buffer_type{};
  ggml::Device device{};
  ggml::Registry registry{};
};

Plugin& plugin();

// Writes "kvmm: <text>\n" to stderr.
__attribute__((format(printf, 1, 2))) void say(const char* format, ...);

// The buffer type's table: where the engine's requests for memory go.
ggml::BufferTypeOps buffer_type_ops();

}  // namespace kvmm::llama

#endif  // KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_STATE_H_
