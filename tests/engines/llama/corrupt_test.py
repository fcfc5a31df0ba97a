#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A page whose bytes on disk changed is never served. usage: corrupt_test.py BUILD"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

import engine_case

PROGRAM = os.path.join(os.path.abspath(sys.argv.pop(1)), "bin", "kvmm-corrupt-slot")


class CorruptTest(unittest.TestCase):
    def run_program(self, mode):
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run(
                [PROGRAM, mode, os.path.join(folder, "swap")],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    def test_intact_comes_back(self):
        done = self.run_program("intact")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(json.loads(done.stdout)["equal"])

    def test_damaged_is_counted_and_named(self):
        done = self.run_program("report")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["wrong_pages"], 1)
        self.assertIn("page 0", done.stderr)

    def test_damaged_kills_who_cannot_recompute(self):
        self.assertEqual(self.run_program("die").returncode, -signal.SIGBUS)


if __name__ == "__main__":
    engine_case.need_userfaultfd()
    unittest.main()
