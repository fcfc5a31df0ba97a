#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo with few, short chats: identical to stock, evicted and back. usage: demo_test.py BUILD [DRIVER]

With DRIVER, a shared object, the swap file is its: one run.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

import engine_case

BUILD = os.path.abspath(sys.argv.pop(1))
DRIVER = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else None
SHORT = "--chats 3 --chat-tokens 640 --turn-tokens 8 --lanes 6 --threads 1 --dram 24".split()


class DemoTest(unittest.TestCase):
    def run_demo(self, *more):
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            done = subprocess.run(
                [os.path.join(engine_case.ROOT, "tools", "demo"), "--build", BUILD, "--out", folder]
                + SHORT
                + list(more),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=420,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
            self.assertEqual(
                sorted(name for name in os.listdir(folder) if name.endswith(".new")), []
            )
            with open(os.path.join(folder, "result.json"), encoding="ascii") as file:
                return json.load(file)

    def check(self, result):
        for promise in (
            "tokens_identical",
            "logprobs_identical",
            "negative_control_caught",
            "corrupt_slot_caught",
        ):
            self.assertIs(result[promise], True, promise)
        self.assertEqual(result["wrong_pages"], 0)
        self.assertEqual(result["sessions"], 3)
        # Every chat was out and back at least twice, and never was all of it in DRAM.
        self.assertGreater(result["swap_in_bytes"], result["kv_bytes_touched"])
        self.assertLess(result["dram_bytes_max"], result["kv_bytes_touched"])
        self.assertLessEqual(result["dram_bytes_max"], 25 << 20)

    def test_f16(self):
        self.check(self.run_demo(*(["--swap-driver", DRIVER] if DRIVER else [])))

    @unittest.skipIf(DRIVER, "one run is enough to try a driver")
    def test_quantised_slots_are_no_multiple_of_the_page(self):
        self.check(self.run_demo("--cache-type", "q8_0", "--dram", "12"))


if __name__ == "__main__":
    engine_case.need_userfaultfd()
    engine_case.need_engine()
    unittest.main()
