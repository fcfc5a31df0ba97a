#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/demo by a user who may not handle page faults, with a name and without: 77 and the lines that mend it,
before anything is fetched, built or run. usage: demo_rights_test.py BUILD"""

import os
import subprocess
import sys
import tempfile
import unittest

import engine_case
import host

BUILD = os.path.abspath(sys.argv.pop(1))
# Users find the system's own Python: this test's may lie in a folder that only root can read.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class RightsTest(unittest.TestCase):
    def check(self, uid):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            done = subprocess.run(
                ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
                + [os.path.join(engine_case.ROOT, "tools", "demo"), "--build", BUILD]
                + ["--out", os.path.join(folder, "out")],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"PATH": SYSTEM_PATH, "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            self.assertEqual(os.listdir(folder), [])
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertIn("    sudo sysctl -w vm.unprivileged_userfaultfd=1 ", done.stderr)
        self.assertIn("    sudo tools/demo ", done.stderr)
        if os.path.exists(host.UFFD_DEVICE):
            self.assertIn(f"    sudo chown {uid} /dev/userfaultfd ", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_nobody(self):
        self.check(65534)

    def test_a_user_without_a_name(self):
        self.check(12345)


if __name__ == "__main__":
    if os.geteuid() != 0:
        engine_case.skip("only root can be somebody else")
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as setting:
        if setting.read().strip() != "0":
            engine_case.skip("vm.unprivileged_userfaultfd is set: everybody may here")
    unittest.main()
