#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A running engine, looked at: kvctl trace, kvctl metrics, the dashboard, the probes.

usage: observe_test.py BUILD SUITE     SUITE: Trace Metrics Dashboard ProbesInLibrary Bpf
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

BUILD = os.path.abspath(sys.argv[1]) if len(sys.argv) > 2 else ""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KVCTL = os.path.join(BUILD, "bin", "kvctl")
TINY = os.path.join(BUILD, "bin", "kvmm-tiny")
LIBRARY = os.path.join(BUILD, "lib", "libkvmm.so")
DASHBOARD = os.path.join(ROOT, "tools", "grafana", "kvmm.json")
TRACING = os.path.join(ROOT, "docs", "operating", "tracing.md")
LIMIT_S = 60


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


class Watched(unittest.TestCase):
    """An engine that faults and swaps until it is told to end."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.engine = subprocess.Popen(
            [TINY, "--sessions", "4", "--tokens", "100000", "--prompt", "400", "--evict-every", "20", "--dram", "4M",
             "--swap", os.path.join(cls.folder.name, "swap"), "--swap-size", "512M", "--no-check"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": cls.folder.name},
        )  # fmt: skip
        # Ready once it faults: kvctl answers, and a fault is in the trace.
        while cls.engine.poll() is None:
            if cls.kvctl("trace", "--fault", timeout=LIMIT_S).returncode == 0:
                return
        error = cls.engine.stderr.read()
        cls.tearDownClass()
        if cls.engine.returncode == 77:
            skip(error)
        raise AssertionError(f"the engine ended: {error}")

    @classmethod
    def tearDownClass(cls):
        cls.engine.kill()
        cls.engine.wait()
        cls.engine.stderr.close()
        cls.folder.cleanup()

    @classmethod
    def command(cls, *arguments):
        return [KVCTL, "-p", str(cls.engine.pid), *arguments]

    @classmethod
    def kvctl(cls, *arguments, timeout=LIMIT_S):
        return subprocess.run(cls.command(*arguments), capture_output=True, text=True, timeout=timeout)

    def good(self, *arguments):
        done = self.kvctl(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


class Trace(Watched):
    def test_live_events_are_json_and_in_order(self):
        lines = [json.loads(line) for line in self.good("--json", "trace", "-n", "500").splitlines()]
        events = [line for line in lines if "event" in line]
        self.assertEqual(len(events), 500)
        numbers = [e["number"] for e in events]
        self.assertEqual(numbers, sorted(set(numbers)))
        pages = [e for e in events if e["event"] in ("map", "unmap", "frame", "fault_begin")]
        self.assertTrue(pages)
        for event in pages:
            self.assertIn("page", event)

    def test_events_and_sessions_are_chosen(self):
        out = self.good("--json", "trace", "-e", "fault_begin,fault_end", "-s", "2", "--past", "-n", "50")
        for line in map(json.loads, out.splitlines()):
            if "event" in line:
                self.assertIn(line["event"], ("fault_begin", "fault_end"))
                self.assertEqual(line["session"], 2)
        self.assertIn("fault_begin", self.kvctl("trace", "-e", "nonsense").stderr)
        self.assertEqual(self.kvctl("trace", "-s", "x").returncode, 2)
        self.assertEqual(self.kvctl("trace", "--fault", "3").returncode, 2)

    def test_interrupted_it_says_what_was_lost(self):
        with subprocess.Popen(self.command("trace"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            self.assertTrue(select.select([p.stdout], [], [], LIMIT_S)[0])
            os.read(p.stdout.fileno(), 100)
            # Now nobody reads: it stands with a full pipe, and ends all the same.
            p.send_signal(signal.SIGINT)
            _, error = p.communicate(timeout=LIMIT_S)
        self.assertEqual(p.returncode, 0)
        self.assertRegex(error.decode(), r"kvctl: \d+ events?, \d+ events lost")

    def test_a_fault_has_its_steps(self):
        for name, off in (("resume_prefetch", "off"), ("readahead_max", "0")):  # touches read for themselves
            self.addCleanup(self.good, "set", "sched/" + name, self.good("get", "sched/" + name).strip())
            self.good("set", "sched/" + name, off)
        faults = [json.loads(x) for x in self.good("--json", "trace", "--fault", "-n", "2000").splitlines()]
        faults = [f for f in faults if "steps" in f]
        major = next(f for f in faults if f["complete"] and "io_submit" in [s["event"] for s in f["steps"]])
        names = [s["event"] for s in major["steps"]]
        order = ["fault_begin", "frame", "read", "io_submit", "io_done", "checksummed", "swap_in", "map", "fault_end"]
        self.assertEqual([n for n in dict.fromkeys(names) if n in order], order)
        times = [s["ns"] for s in major["steps"]]
        self.assertEqual(times, sorted(times))
        self.assertGreater(len(set(times)), 5, "steps have times of their own")
        self.assertEqual(major["ns"], times[-1])

    def test_recorded_is_what_was_seen(self):
        path = os.path.join(self.folder.name, "t.trace")
        self.good("trace", "-o", path, "-n", "2000")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        out = self.good("--json", "trace", "--from", path)
        self.assertEqual(sum("event" in json.loads(x) for x in out.splitlines()), 2000)
        chosen = self.good("--json", "trace", "--from", path, "-e", "fault_end")
        self.assertEqual({json.loads(x).get("event", "fault_end") for x in chosen.splitlines()}, {"fault_end"})
        self.assertIn("woken", self.good("trace", "--from", path, "--fault"))
        with open(path, "r+b") as f:
            f.truncate(os.path.getsize(path) - 10)
        done = self.kvctl("trace", "--from", path)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"line \d+, byte \d+: .*cut off")
        self.assertGreater(done.stdout.count("\n"), 1000, "what is good is shown")

    def test_what_is_recorded_can_be_tuned(self):
        self.good("set", "trace/events", "fault_end")
        self.addCleanup(self.good, "set", "trace/events", "all")
        names = {json.loads(x).get("event") for x in self.good("--json", "trace", "-n", "50").splitlines()}
        self.assertLessEqual(names, {"fault_end", None})
        self.assertEqual(self.good("get", "trace/events").strip(), "fault_end")
        self.assertNotEqual(self.kvctl("set", "trace/events", "nonsense").returncode, 0)


def openmetrics(text):
    """{family: [sample]} by a parser that is not ours."""
    try:
        from prometheus_client.openmetrics import parser
    except ImportError:
        sys.path.append("/usr/lib/python3/dist-packages")  # another Python's: it has no parts in C
        from prometheus_client.openmetrics import parser
    return {f.name: f for f in parser.text_string_to_metric_families(text)}


class Metrics(Watched):
    def listen(self, address="127.0.0.1:0"):
        server = subprocess.Popen(self.command("metrics", "--listen", address), stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.wait)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.kill)
        line = server.stdout.readline()
        self.assertRegex(line, r"^serving http://\S+/metrics$")
        return server, line.split()[1]

    def test_the_format_is_strictly_right(self):
        text = self.good("metrics")
        families = openmetrics(text)
        self.assertTrue(text.endswith("# EOF\n"))
        for name, family in families.items():
            self.assertTrue(name.startswith("kvmm_"), name)
            self.assertTrue(family.documentation, name)
            for unit in ("bytes", "seconds"):
                self.assertEqual(family.unit == unit, name.endswith("_" + unit), name)
            for sample in family.samples:
                self.assertTrue(name.startswith("kvmm_runtimes") or sample.labels["process"], sample)
        zero = [s for s in families["kvmm_fault_duration_seconds"].samples
                if s.labels["kind"] == "zero" and s.name.endswith("_bucket")]  # fmt: skip
        self.assertEqual(zero[-1].labels["le"], "+Inf")
        self.assertGreater(zero[-1].value, 0)
        vmstat = dict(line.split() for line in self.good("get", "vmstat").splitlines())
        for name in vmstat:
            if not name.startswith("faults_"):
                self.assertIn("kvmm_" + name, families)

    def test_it_is_served(self):
        _, url = self.listen()
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            self.assertTrue(answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"))
            self.assertIn("kvmm_faults", openmetrics(answer.read().decode()))
        for path, code in (("/nothing", 404), ("/metrics", 405)):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                data = b"x" if code == 405 else None
                urllib.request.urlopen(url.replace("/metrics", path), data=data, timeout=LIMIT_S)
            self.assertEqual(refused.exception.code, code)
            refused.exception.close()

    def test_scrapers_that_never_read_or_never_ask_harm_nothing(self):
        server, url = self.listen()
        host, port = re.search(r"//(.*):(\d+)/", url).groups()
        idle = []
        for i in range(80):  # more than it holds
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(LIMIT_S)
            s.connect((host, int(port)))
            if i % 2 == 0:
                s.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and never reads
            elif i % 3 == 0:
                s.sendall(b"GET /met")  # and never ends
            idle.append(s)
        for _ in range(3):
            with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
                self.assertTrue(answer.read().endswith(b"# EOF\n"))
        self.assertLess(len(os.listdir(f"/proc/{server.pid}/fd")), 50)
        for s in idle:
            s.close()
        self.assertIsNone(self.engine.poll())
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(LIMIT_S), 0)

    def test_requests_that_are_none_are_refused(self):
        _, url = self.listen()
        host, port = re.search(r"//(.*):(\d+)/", url).groups()
        for request, status in ((b"nonsense\r\n\r\n", b"400"), (b"GET /\r\n\r\n", b"400"),
                                (b"GET / HTTP/1.1\n\n", b"200"), (b"x" * 20000, b"431")):  # fmt: skip
            with socket.create_connection((host, int(port)), LIMIT_S) as s:
                s.sendall(request)
                self.assertEqual(s.recv(12).split()[1], status, request[:20])

    def test_only_loopback_is_listened_at(self):
        for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:80", "localhost:80", "127.0.0.1", "127.0.0.1:65536", ":80"):
            done = self.kvctl("metrics", "--listen", address)
            self.assertEqual(done.returncode, 2, address)
            self.assertIn("loopback", done.stderr)
        _, url = self.listen()
        done = self.kvctl("metrics", "--listen", re.search(r"//(.*)/", url).group(1))
        self.assertEqual(done.returncode, 1)
        self.assertIn("take another port", done.stderr)


class Dashboard(Watched):
    def test_every_expression_names_metrics_that_are_exported(self):
        exported = set()
        for family in openmetrics(self.good("metrics")).values():
            exported |= {sample.name for sample in family.samples}
        with open(DASHBOARD, encoding="utf-8") as f:
            dashboard = json.load(f)
        texts = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", [])]
        texts += [v["query"]["query"] for v in dashboard["templating"]["list"] if isinstance(v["query"], dict)]
        self.assertGreater(len(texts), 30)
        for text in texts:
            names = re.findall(r"kvmm_\w+", text)
            self.assertTrue(names, text)
            for name in names:
                self.assertIn(name, exported, text)
        titles = [p["title"] for p in dashboard["panels"] if p["type"] == "row"]
        self.assertGreaterEqual(len(titles), 6)


def documented_probes():
    """{probe: number of arguments} of the table in the documentation."""
    with open(TRACING, encoding="utf-8") as f:
        text = f.read()
    table = text[text.index("| probe |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): sum(bool(cell) for cell in row[1:]) for row in rows}


def probes_in(library):
    """{probe: number of arguments} of provider kvmm in the library's notes."""
    notes = subprocess.run(["readelf", "-n", library], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"Provider: kvmm\s+Name: (\w+)\s+Location:.*\s+Arguments: (.*)", notes)
    return {name: len(arguments.split()) for name, arguments in found}


class ProbesInLibrary(unittest.TestCase):
    def test_the_documentation_and_the_library_agree(self):
        self.assertGreater(len(documented_probes()), 5)
        self.assertEqual(probes_in(LIBRARY), documented_probes())


class Bpf(Watched):
    def trace(self, *arguments, until):
        """What bpftrace prints once it has seen `until` and is told to end."""
        p = subprocess.Popen(["bpftrace", "-B", "none", "-p", str(self.engine.pid), *arguments], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1)  # fmt: skip
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        seen = []
        for line in p.stdout:
            seen.append(line)
            if re.search(r"ERROR|Operation not permitted|not supported", line) and "MEMLOCK" not in line:
                skip("this kernel does not let bpftrace attach: " + line)
            if re.search(until, line):
                p.send_signal(signal.SIGINT)
                break
        return "".join(seen) + p.stdout.read()

    def test_faults_are_counted(self):
        program = f"usdt:{LIBRARY}:kvmm:fault_end {{ @n[arg4] = count(); }} interval:ms:200 {{ print(@n); }}"
        self.assertRegex(self.trace("-e", program, until=r"@n\[\d\]: [1-9]"), r"@n\[\d\]: [1-9]")

    def test_the_scripts_attach(self):
        for script in sorted(os.listdir(os.path.join(ROOT, "tools", "bpf"))):
            path = os.path.join(ROOT, "tools", "bpf", script)
            with open(path, encoding="utf-8") as f:
                program = f.read().replace("$1", LIBRARY) + "\ninterval:ms:500 { exit(); }\n"
            done = subprocess.run(["bpftrace", "-p", str(self.engine.pid), "-e", program], text=True,
                                  capture_output=True, timeout=LIMIT_S)  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, "Ctrl-C ends", script)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    unittest.main(argv=[sys.argv[0], sys.argv[2]], verbosity=2)
