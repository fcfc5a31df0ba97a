/* SPDX-License-Identifier: Apache-2.0
 *
 * What libkvmm-ggml.so exports besides ggml's own `ggml_backend_init`: where the cache tensors lie.
 *
 * For drivers and tests in the engine's process (ctypes, for example). Nothing here touches KV
 * memory. Thread safety: call between the engine's start and its end, from any thread.
 */
#ifndef KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_API_H_
#define KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_API_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kvmm_llama_plane {
  char name[64];         /* "cache_k_l5" */
  uint64_t address;      /* of slot 0, token 0 */
  uint64_t lane_stride;  /* bytes from one slot to the next */
  uint64_t lanes;        /* slots */
  uint64_t tokens;       /* cells of one slot; a sliding window's ring has fewer than the context */
  uint64_t token_stride; /* bytes of one cell */
  uint64_t page_size;    /* bytes */
} kvmm_llama_plane;

/* Planes there are now, over all caches. */
uint32_t kvmm_llama_plane_count(void);
/* Fills `plane`; 0 on success, -1 if there is no plane of that number. */
int32_t kvmm_llama_plane_get(uint32_t number, kvmm_llama_plane* plane);
/* Address of token 0 of `slot` in the tensor of that name, 0 if there is none. */
uint64_t kvmm_llama_tensor_address(const char* name, uint32_t slot);
/* kvmm's number of the session that shows `slot` (of the first cache there is), 0 if there is none.
 */
uint64_t kvmm_llama_session_id(uint32_t slot);
/* The runtime the plugin opened (a kvmm_runtime*), NULL if it has none. */
void* kvmm_llama_runtime(void);

#ifdef __cplusplus
}
#endif
#endif /* KVMM_TOOLS_ENGINES_LLAMA_PLUGIN_API_H_ */
