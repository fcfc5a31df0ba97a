#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of what judges the tests: the counting of tools/test, its package list, and clang-tidy's memory."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
LIB = os.path.join(ROOT, "tools", "lib")

PASSED = '<testcase name="{}" status="run"><system-out>fine</system-out></testcase>'
FAILED = '<testcase name="{}" status="fail"><failure message=""/></testcase>'
SKIPPED = (
    '<testcase name="{}" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
    "<system-out>[ RUN ] x\n/a.cc:3: Skipped\nno userfaultfd\n[  SKIPPED ] x</system-out></testcase>"
)
DISABLED = '<testcase name="{}" status="disabled"><system-out>Disabled</system-out></testcase>'
MISSING = '<testcase name="{}" status="notrun"><skipped message="Unable to find executable"/></testcase>'


class InAFolder(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="kvmm-house-")
        self.folder = self._folder.name

    def tearDown(self):
        self._folder.cleanup()

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path


class Count(InAFolder):
    def count(self, *arguments):
        command = [sys.executable, "-B", os.path.join(LIB, "count_tests.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    def report(self, *cases):
        body = "".join(kind.format(f"t.C.{i}") for i, kind in enumerate(cases))
        return self.write("r.xml", f"<testsuite>{body}</testsuite>")

    def test_adds_up_configurations_and_steps(self):
        r = self.report(PASSED, PASSED)
        code, lines = self.count(f"a={r}", f"b={r}", "--step", "clang-tidy=passed")
        self.assertEqual((code, lines[-1]), (0, "5 passed, 0 failed, 0 skipped"))

    def test_a_failure_is_named_and_fails(self):
        code, lines = self.count(f"release={self.report(PASSED, FAILED)}")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("failed: release: t.C.1", lines)

    def test_a_failed_step_fails(self):
        code, lines = self.count(f"a={self.report(PASSED)}", "--step", "build asan=failed")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))

    def test_a_program_that_is_missing_has_failed(self):
        code, lines = self.count(f"a={self.report(PASSED, MISSING)}")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))

    def test_a_skipped_test_fails_where_it_counts(self):
        r = self.report(PASSED, SKIPPED, DISABLED)
        code, lines = self.count(f"a={r}")
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed, 2 skipped"))
        self.assertIn("skipped: a: t.C.1 (no userfaultfd)", lines)
        code, lines = self.count(f"a={r}", "--strict")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 2 failed, 0 skipped"))

    def test_what_is_on_the_list_may_be_skipped(self):
        r = self.report(PASSED, SKIPPED, SKIPPED)
        listed = self.write("may.txt", "# why\n*.C.1   # a GPU\n")
        code, lines = self.count(f"a={r}", "--strict", "--may-skip", listed)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 1 skipped"))

    def test_no_report_and_no_test_fail(self):
        self.assertEqual(self.count(f"a={self.folder}/none.xml")[0], 1)
        self.assertEqual(self.count()[0], 1)
        self.assertEqual(self.count(f"a={self.write('r.xml', '<testsuite>')}")[0], 1)


class Packages(InAFolder):
    """packages.sh with a dpkg and an apt-get of the test's own."""

    def shell(self, installed, root, apt_status=0):
        tools = os.path.join(self.folder, "bin")
        known = " ".join(installed)
        self.write("bin/dpkg-query", f'#!/bin/bash\n[[ " {known} " == *" ${{@: -1}} "* ]] && echo -n installed\n')
        self.write("bin/apt-get", f'#!/bin/bash\necho "$@" >>{self.folder}/apt.log\nexit {apt_status}\n')
        self.write("bin/id", f"#!/bin/bash\necho {0 if root else 1000}\n")
        for name in os.listdir(tools):
            os.chmod(os.path.join(tools, name), 0o755)
        script = f"set -euo pipefail; source {LIB}/packages.sh; kvmm_install_packages demo build"
        environment = {**os.environ, "PATH": tools + ":" + os.environ["PATH"]}
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)

    def wanted(self):
        with open(os.path.join(LIB, "debian-packages.txt"), encoding="utf-8") as f:
            rows = [line.split() for line in f if line.strip() and not line.startswith("#")]
        for row in rows:
            self.assertIn(row[0], ("build", "demo", "all", "package", "package-try"))
            self.assertGreater(len(row), 2, f"{row}: says why")
        return [r[1] for r in rows if r[0] in ("build", "demo")]

    def test_nothing_is_done_when_nothing_is_missing(self):
        done = self.shell(self.wanted(), root=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_user_gets_the_line_and_77(self):
        done = self.shell(self.wanted()[1:], root=False)
        self.assertEqual(done.returncode, 77)
        self.assertIn(f"sudo apt-get install -y --no-install-recommends {self.wanted()[0]}\n", done.stderr)

    def test_root_installs_what_is_missing(self):
        done = self.shell(self.wanted()[2:], root=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(f"{self.folder}/apt.log", encoding="utf-8") as f:
            log = f.read().splitlines()
        self.assertEqual(log[0], "update")
        self.assertEqual(log[1].split()[-2:], self.wanted()[:2])

    def test_a_failed_install_is_told(self):
        done = self.shell([], root=True, apt_status=100)
        self.assertEqual(done.returncode, 1)
        self.assertIn("could not install", done.stderr)


class ToolsTest(InAFolder):
    """tools/test with a dpkg that knows nothing and an apt-get that fails: it goes no further than that."""

    def run_it(self, root):
        for name, text in {
            "dpkg-query": "exit 1",
            "apt-get": f'echo "$@" >>{self.folder}/apt.log; exit 100',
            "id": f"echo {0 if root else 1000}",
            "cmake": f"touch {self.folder}/went-on; exit 1",
        }.items():
            os.chmod(self.write(f"bin/{name}", f"#!/bin/bash\n{text}\n"), 0o755)
        environment = {
            **os.environ,
            "PATH": os.path.join(self.folder, "bin") + ":" + os.environ["PATH"],
            "XDG_CACHE_HOME": self.folder,
        }
        done = subprocess.run([os.path.join(ROOT, "tools", "test"), "--fast"], env=environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        self.assertFalse(os.path.exists(os.path.join(self.folder, "went-on")))
        return done

    def test_asks_for_what_the_engine_tests_need(self):
        done = self.run_it(root=False)
        self.assertEqual(done.returncode, 77)
        for package in ("g++-12", "python3-pip"):
            self.assertIn(f" {package}", done.stderr)

    def test_a_failed_installation_is_counted(self):
        done = self.run_it(root=True)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.splitlines()[-1], "0 passed, 1 failed, 0 skipped")


class Lines(unittest.TestCase):
    """What the runtime says on stderr stands in the operators' table, word for word."""

    def test_each_line_is_explained(self):
        with open(os.path.join(ROOT, "runtime", "report.cc"), encoding="utf-8") as f:
            source = re.sub(r'"\s*\n\s*"', "", f.read())
        with open(os.path.join(ROOT, "docs", "operating", "README.md"), encoding="utf-8") as f:
            table = f.read()
        said = re.findall(r'what = "([^";]+)', source) + re.findall(r'"(a touch of [^"{]+)', source)
        self.assertGreaterEqual(len(said), 7)
        for line in said:
            self.assertIn("`" + line.strip(), table)
        self.assertNotIn("has no line", table)


class Commit(InAFolder):
    """The commit that kvbench names is the tree's at the last build, not at the last configuration."""

    def git(self, *arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        done = subprocess.run(["git", "-C", self.tree, *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def build(self):
        script = os.path.join(ROOT, "tools", "kvbench", "commit.cmake")
        out = os.path.join(self.folder, "commit.cc")
        subprocess.run(["cmake", f"-DSOURCE={self.tree}", f"-DOUT={out}", "-P", script], check=True)
        with open(out, encoding="utf-8") as f:
            return re.search(r'return "(.*)";', f.read()).group(1), os.stat(out).st_mtime_ns

    def test_follows_the_tree(self):
        self.tree = os.path.dirname(self.write("tree/a", "1"))
        self.git("init", "-q")
        self.git("add", "a")
        self.git("commit", "-qm", "one")
        one, written = self.build()
        self.assertEqual(one, self.git("rev-parse", "--short=12", "HEAD"))
        self.assertEqual(self.build(), (one, written), "nothing is compiled again without need")
        self.write("tree/a", "2")
        self.assertEqual(self.build()[0], one + "-dirty")
        self.git("commit", "-qam", "two")
        two = self.build()[0]
        self.assertEqual(two, self.git("rev-parse", "--short=12", "HEAD"))
        self.assertNotEqual(one, two)

    def test_without_git_it_is_unknown(self):
        self.tree = os.path.dirname(self.write("plain/a", "1"))
        self.assertEqual(self.build()[0], "unknown")


class Tidy(InAFolder):
    """tidy.py over a build of two files, with a clang-tidy that dislikes one word."""

    def test_remembers_by_content_what_has_passed(self):
        tool = self.write("tool", '#!/bin/bash\n[ "$1" = --version ] && { echo 1; exit 0; }\n'
                          f'echo "${{@: -1}}" >>{self.folder}/runs\n! grep -q BAD "${{@: -1}}"\n')  # fmt: skip
        os.chmod(tool, 0o755)
        # A tree of its own: the root is found from where the script lies.
        with open(os.path.join(LIB, "tidy.py"), encoding="utf-8") as f:
            script = self.write("tools/lib/tidy.py", f.read())
        self.write(".clang-tidy", "Checks: x\n")
        self.write("vmm/a.cc", '#include "vmm/a.h"\n')
        self.write("vmm/a.h", "\n")
        self.write("vmm/b.cc", "int b;\n")
        commands = [{"directory": self.folder, "file": f"vmm/{n}.cc", "command": f"c++ {n}"} for n in "ab"]
        self.write("build/compile_commands.json", json.dumps(commands))

        def tidy():
            command = [sys.executable, "-B", script, f"{self.folder}/build", "--cache", f"{self.folder}/cache",
                       "--tool", tool, "--jobs", "1"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            try:
                with open(f"{self.folder}/runs", encoding="utf-8") as f:
                    runs = [os.path.basename(line.strip()) for line in f]
                os.unlink(f"{self.folder}/runs")
            except FileNotFoundError:
                runs = []
            return done.returncode, runs

        self.assertEqual(tidy(), (0, ["a.cc", "b.cc"]))
        self.assertEqual(tidy(), (0, []))
        self.write("vmm/a.h", "int changed;\n")
        self.assertEqual(tidy(), (0, ["a.cc"]))
        self.write("vmm/b.cc", "int BAD;\n")
        self.assertEqual(tidy(), (1, ["b.cc"]))
        self.assertEqual(tidy(), (1, ["b.cc"]))  # what failed is asked again
        self.write(".clang-tidy", "Checks: y\n")
        self.assertEqual(tidy(), (1, ["a.cc", "b.cc"]))


class Front(unittest.TestCase):
    def test_tools_test_answers_help_and_refuses_nonsense(self):
        program = os.path.join(ROOT, "tools", "test")
        done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--all", done.stdout)
        for arguments in (["--no-such"], ["--jobs"], ["--jobs", "x"]):
            done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
