#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One llama.cpp server in one process, driven by lines of JSON.

    parent --stdin:  {"op": "turn", "slot": 3, "prompt": ["text", 17, 4], "tokens": 64}
    parent <-stdout: {"event": "turn", "slot": 3, "ids": [...], "logprobs": [...], ...}

The engine is the unmodified one from its wheel. With --plugin its KV cache lies in kvmm, without it lies where
llama.cpp puts it; nothing else differs. stderr carries the engine's own log.

Commands
    turn   generates greedily in a slot; answers ids, log-probabilities (all of them, exact), times
    planes where the cache tensors lie (kvmm only)
    zero   zeroes one page of one tensor of a slot, in place (kvmm only; a test damages KV with it)
    swap   exchanges that page between two slots, in place (kvmm only)
    count  counts the bytes of 4 KiB blocks of some slots that are not all zero (kvmm only)
    attr   reads one attribute of the runtime in this process (kvmm only)
    set    sets one (kvmm only)
    quit   ends the server and the process
An error answers {"event": "error", "text": ...} and the process goes on, except while it starts: then it ends
with status 1.
"""

import argparse
import ctypes
import json
import os
import sys
import time

COUNT_BLOCK = 4096


class Plane(ctypes.Structure):
    """kvmm_llama_plane of plugin_api.h."""

    _fields_ = [("name", ctypes.c_char * 64)] + [
        (field, ctypes.c_uint64)
        for field in ("address", "lane_stride", "lanes", "tokens", "token_stride", "page_size")
    ]


class EngineError(Exception):
    """Something the parent should show to a person; its text is one sentence."""


class Plugin:
    """libkvmm-ggml.so in this process: loaded through ggml, so that the engine uses it."""

    def __init__(self, path, engine_library):
        # The plugin finds ggml's functions by name, so the engine's must be visible to it.
        ggml = ctypes.CDLL(engine_library, mode=ctypes.RTLD_GLOBAL)
        ggml.ggml_backend_load.restype = ctypes.c_void_p
        ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
        if not ggml.ggml_backend_load(os.fsencode(path)):
            raise EngineError(self.refusal(path))
        self.library = ctypes.CDLL(path)
        self.library.kvmm_llama_plane_get.argtypes = [ctypes.c_uint32, ctypes.POINTER(Plane)]
        self.library.kvmm_llama_session_id.restype = ctypes.c_uint64
        self.library.kvmm_llama_runtime.restype = ctypes.c_void_p

    @staticmethod
    def refusal(path):
        """Why ggml_backend_load said no: it only logs, so the same steps are done by hand."""
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            return f"{path} cannot be loaded: {error}"
        library.ggml_backend_init.restype = ctypes.POINTER(ctypes.c_int)
        registry = library.ggml_backend_init()
        if not registry:
            return "kvmm cannot work here; its line on stderr (it begins with 'kvmm:') says why"
        return (
            f"the engine refuses {path}: the plugin speaks ggml backend API version {registry[0]}, "
            "this engine another one; build the plugin for the engine's version"
        )

    def planes(self):
        planes = []
        plane = Plane()
        while self.library.kvmm_llama_plane_get(len(planes), ctypes.byref(plane)) == 0:
            planes.append(Plane.from_buffer_copy(plane))
        return planes

    def page(self, name, slot, page):
        for plane in self.planes():
            if plane.name.decode() == name and slot < plane.lanes:
                start = plane.address + slot * plane.lane_stride + page * plane.page_size
                return start, plane.page_size
        raise EngineError(f"no tensor {name} with slot {slot}")

    def zero(self, name, slot, page):
        start, size = self.page(name, slot, page)
        changed = ctypes.string_at(start, size) != bytes(size)
        ctypes.memset(start, 0, size)
        return changed

    def swap(self, name, slots, page):
        (first, size), (second, _) = (self.page(name, slot, page) for slot in slots)
        a, b = ctypes.string_at(first, size), ctypes.string_at(second, size)
        ctypes.memmove(first, b, size)
        ctypes.memmove(second, a, size)
        return a != b

    def count(self, slot, tokens):
        """Bytes of the slot's 4 KiB blocks that are not all zero. `tokens`: how many the chat has."""
        zeros = bytes(COUNT_BLOCK)
        total = 0
        for plane in self.planes():
            used = min(plane.tokens, -(-tokens // 256) * 256)
            length = used * plane.token_stride
            start = plane.address + slot * plane.lane_stride
            for offset in range(0, length, COUNT_BLOCK):
                block = ctypes.string_at(start + offset, min(COUNT_BLOCK, length - offset))
                total += len(block) if block != zeros[: len(block)] else 0
        return total

    def function(self, name):
        """A function of libkvmm, which the plugin has loaded."""
        return getattr(self.library, name, None) or getattr(ctypes.CDLL(None), name)

    def attribute(self, path):
        text = ctypes.create_string_buffer(1 << 20)
        get = self.function("kvmm_attr_get")
        get.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
        status = get(self.library.kvmm_llama_runtime(), path.encode(), text, len(text))
        if status != 0:
            raise EngineError(f"attribute {path}: status {status}")
        return text.value.decode()

    def set_attribute(self, path, value):
        put = self.function("kvmm_attr_set")
        put.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
        status = put(self.library.kvmm_llama_runtime(), path.encode(), value.encode())
        if status != 0:
            raise EngineError(f"attribute {path} = {value}: status {status}")


def start_server(options, xllamacpp):
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_parallel = options.lanes
    params.n_ctx = options.lanes * options.lane_tokens
    params.kv_unified = False  # one lane a slot
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.fit_params = False
    params.warmup = False
    params.cache_ram_mib = (
        0  # no copies of KV beside the cache: they would hide what the cache does
    )
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 0
    params.n_gpu_layers = 99 if options.plugin else 0
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    for cache, attribute in (("k", "cache_type_k"), ("v", "cache_type_v")):
        if options.cache_type != "f16":
            name = "GGML_TYPE_" + options.cache_type.upper()
            setattr(params, attribute, getattr(xllamacpp.ggml_type, name))
    return xllamacpp.Server(params)


def turn(server, command):
    """One request. Everything that is compared later goes out as the engine gave it."""
    chunks, times = [], []

    def on_chunk(chunk):
        times.append(time.monotonic())
        chunks.append(chunk)
        return False

    begin = time.monotonic()
    server.handle_completions(
        {
            "prompt": command["prompt"],
            "id_slot": command["slot"],
            "n_predict": command["tokens"],
            "temperature": 0,
            "logprobs": 5,
            "cache_prompt": True,
            "ignore_eos": True,
            "stream": True,
        },
        on_chunk,
    )
    ids, logprobs, text = [], [], []
    first = None
    last = {}
    for chunk, at in zip(chunks, times):
        if not isinstance(chunk, dict) or "error" in chunk:
            raise EngineError(f"the engine refuses the request: {chunk}")
        for choice in chunk.get("choices", []):
            text.append(choice.get("text", ""))
            for token in (choice.get("logprobs") or {}).get("content", []):
                first = first or at
                ids.append(token["id"])
                logprobs.append(
                    [token["logprob"]]
                    + [[top["id"], top["logprob"]] for top in token["top_logprobs"]]
                )
        last = chunk
    if len(ids) != command["tokens"]:
        raise EngineError(f"asked for {command['tokens']} tokens, got {len(ids)}")
    usage = last["usage"]
    return {
        "ids": ids,
        "logprobs": logprobs,
        "text": "".join(text),
        "first_token_ms": (first - begin) * 1e3,
        "wall_ms": (times[-1] - begin) * 1e3,
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
    }


def answer(server, plugin, command):
    op = command["op"]
    if op == "turn":
        return turn(server, command)
    if plugin is None:
        raise EngineError(f"{op} needs the plugin")
    if op == "planes":
        return {
            "planes": [
                {name: getattr(plane, name) for name, _ in Plane._fields_[1:]}
                | {"name": plane.name.decode()}
                for plane in plugin.planes()
            ],
            "sessions": [
                plugin.library.kvmm_llama_session_id(slot) for slot in range(command["slots"])
            ],
        }
    if op == "zero":
        return {"changed": plugin.zero(command["plane"], command["slot"], command["page"])}
    if op == "swap":
        return {"changed": plugin.swap(command["plane"], command["slots"], command["page"])}
    if op == "count":
        return {"bytes": plugin.count(command["slot"], command["tokens"])}
    if op == "attr":
        return {"value": plugin.attribute(command["path"])}
    if op == "set":
        plugin.set_attribute(command["path"], command["value"])
        return {}
    raise EngineError(f"unknown command {op}")


def say(event, **fields):
    sys.stdout.write(json.dumps({"event": event} | fields) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", required=True, help="folder that holds the engine's package")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--plugin", help="libkvmm-ggml.so; without it the stock engine")
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--lane-tokens", type=int, default=32768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cache-type", default="f16", help="element type of the KV cache (f16, q8_0)"
    )
    options = parser.parse_args()

    sys.path.insert(0, options.engine)
    try:
        import xllamacpp

        begin = time.monotonic()
        plugin = None
        if options.plugin:
            plugin = Plugin(options.plugin, xllamacpp.xllamacpp.__file__)
        server = start_server(options, xllamacpp)
        say("ready", start_s=time.monotonic() - begin, version=xllamacpp.__version__)
    except Exception as error:  # whatever the engine throws: the parent shows it
        say("error", text=f"{error}")
        return 1

    for line in sys.stdin:
        command = json.loads(line)
        if command["op"] == "quit":
            break
        try:
            say(command["op"], **answer(server, plugin, command))
        except EngineError as error:
            say("error", text=str(error))
    del server
    say("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
