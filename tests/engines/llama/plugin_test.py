#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The plugin in the real engine: loading, refusals that say why, fork and exec. usage: plugin_test.py BUILD"""

import os
import subprocess
import sys
import tempfile
import types
import unittest

import engine_case
from runner import Engine, RunError

BUILD = os.path.abspath(sys.argv.pop(1))
PLUGIN = os.path.join(BUILD, "lib", "libkvmm-ggml.so")
OTHER_VERSION = os.path.join(BUILD, "tests/engines/llama/libkvmm-ggml-other-version.so")
OPTIONS = types.SimpleNamespace(lanes=2, lane_tokens=2048, threads=1, cache_type="f16")
FORK_AND_EXEC = """
import ctypes, os, subprocess, sys
sys.path[:0] = sys.argv[1:3]
import xllamacpp, engine
plugin = engine.Plugin(sys.argv[3], xllamacpp.xllamacpp.__file__)
again = engine.Plugin(sys.argv[3], xllamacpp.xllamacpp.__file__)
plugin.library.ggml_backend_init.restype = ctypes.c_void_p
assert plugin.library.ggml_backend_init() == plugin.library.ggml_backend_init() != 0
for _ in range(5):
    subprocess.run(["true"], check=True)
child = os.fork()
if child == 0:
    sys.exit(3)  # runs the exit handlers of a forked child
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert plugin.planes() == []
print("done")
"""


class PluginTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def start(self, plugin, **environment):
        log = os.path.join(self.folder.name, "engine.log")
        defaults = {
            "KVMM_DRAM_BYTES": "24M",
            "KVMM_SWAP_PATH": os.path.join(self.folder.name, "swap"),
        }
        return Engine(
            FOUND,
            OPTIONS,
            log,
            plugin=plugin,
            environment=defaults | {"KVMM_SWAP_BYTES": "64M"} | environment,
        )

    def refusal(self, plugin, **environment):
        with self.assertRaises(RunError) as caught:
            self.start(plugin, **environment).close()
        return str(caught.exception)

    def test_another_api_version_is_said_clearly(self):
        text = self.refusal(OTHER_VERSION)
        self.assertIn("speaks ggml backend API version 2", text)
        self.assertIn("build the plugin for the engine's version", text)

    def test_a_file_that_is_no_plugin(self):
        self.assertIn("cannot be loaded", self.refusal(os.path.join(self.folder.name, "none.so")))

    def test_bad_settings_name_the_variable(self):
        self.assertIn("KVMM_DRAM_BYTES=lots", self.refusal(PLUGIN, KVMM_DRAM_BYTES="lots"))
        self.assertIn("KVMM_MODEL_ID", self.refusal(PLUGIN, KVMM_MODEL_ID="12"))

    def test_a_swap_path_that_cannot_be(self):
        text = self.refusal(PLUGIN, KVMM_SWAP_PATH="/nonexistent/folder/swap")
        self.assertIn("kvmm: cannot open the runtime", text)

    def test_slots_are_sessions_and_the_end_is_clean(self):
        with self.start(PLUGIN) as engine:
            seen = engine.ask("planes", slots=3)
            names = [plane["name"] for plane in seen["planes"]]
            self.assertEqual(len(names), 36)
            self.assertIn("cache_k_l5", names)
            self.assertTrue(all(plane["lanes"] == 2 for plane in seen["planes"]))
            self.assertTrue(all(plane["address"] % (2 << 20) == 0 for plane in seen["planes"]))
            first, second, none = seen["sessions"]
            self.assertNotEqual(first, second)
            self.assertEqual(none, 0)
            engine.quit()

    def test_killed_in_the_middle_it_leaves_a_usable_swap_file(self):
        with self.start(PLUGIN) as engine:
            engine.ask("turn", slot=0, prompt=["One two three"], tokens=2)
        with self.start(PLUGIN) as engine:
            engine.ask("turn", slot=1, prompt=["One two three"], tokens=2)
            engine.quit()

    def test_two_processes_on_one_swap_file(self):
        with self.start(PLUGIN) as engine:
            self.assertIn("kvmm: cannot open the runtime", self.refusal(PLUGIN))
            engine.quit()

    def test_fork_exec_and_a_second_load(self):
        tools = os.path.join(engine_case.ROOT, "tools", "engines", "llama")
        done = subprocess.run(
            [sys.executable, "-c", FORK_AND_EXEC, FOUND["engine"], tools, PLUGIN],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | {"KVMM_DRAM_BYTES": "24M"},
        )
        self.assertEqual((done.returncode, done.stdout), (0, "done\n"), done.stderr)

    def test_without_the_engine_it_names_what_is_missing(self):
        script = (
            "import ctypes, sys; library = ctypes.CDLL(sys.argv[1]);"
            "library.ggml_backend_init.restype = ctypes.c_void_p;"
            "sys.exit(0 if library.ggml_backend_init() is None else 1)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, PLUGIN],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0)
        self.assertIn("RTLD_GLOBAL", done.stderr)


if __name__ == "__main__":
    engine_case.need_userfaultfd()
    FOUND = engine_case.need_engine()
    unittest.main()
