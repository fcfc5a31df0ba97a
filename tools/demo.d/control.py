# SPDX-License-Identifier: Apache-2.0
"""The control socket of a running runtime, from another process: get, set, list attributes.

One line of JSON goes out, one comes in; the same protocol that kvctl speaks.
"""

import glob
import json
import os
import socket
import time

VERSION = 1


class ControlError(Exception):
    """The runtime cannot be reached, or refuses; its own text."""


def directories():
    """Where sockets may be, as the runtime chooses: root's, the session's, the user's own."""
    found = ["/run/kvmm"] if os.geteuid() == 0 else []
    if os.environ.get("XDG_RUNTIME_DIR"):
        found.append(os.path.join(os.environ["XDG_RUNTIME_DIR"], "kvmm"))
    return found + [f"/tmp/kvmm-{os.geteuid()}"]


class Control:
    """REQUIRES: `pid` has opened its runtime."""

    def __init__(self, pid):
        paths = [path for base in directories() for path in glob.glob(f"{base}/{pid}-*.sock")]
        if not paths:
            raise ControlError(
                f"process {pid} has no control socket in {' or '.join(directories())}"
            )
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(sorted(paths)[0])
        self.lines = self.socket.makefile("rwb")

    def close(self):
        self.lines.close()
        self.socket.close()

    def request(self, **fields):
        try:
            self.lines.write(json.dumps({"kvmm": VERSION} | fields).encode() + b"\n")
            self.lines.flush()
            line = self.lines.readline()
        except OSError as error:
            raise ControlError(f"the runtime does not answer: {error}") from error
        if not line:
            raise ControlError("the runtime has closed the control socket")
        reply = json.loads(line)
        if not reply["ok"]:
            raise ControlError(f"{fields.get('path', fields['op'])}: {reply['error']['text']}")
        return reply

    def text(self, path):
        """An attribute's whole text, however many replies it takes."""
        reply = self.request(op="get", path=path)
        value = reply["value"]
        while "next" in reply:
            reply = self.request(op="get", path=path, offset=reply["next"])
            value += reply["value"]
        return value

    def number(self, path):
        """A count or a size; sizes in bytes."""
        return self.request(op="get", path=path)["number"]

    def statistics(self, session):
        """The counters of a session by name."""
        lines = self.text(f"sessions/{session}/stat").splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    def counter(self, name):
        """One of the runtime's own counters (vmstat)."""
        counters = dict(line.split() for line in self.text("vmstat").splitlines())
        return int(counters[name])

    def set(self, path, value):
        self.request(op="set", path=path, value=value)

    def names(self, path):
        """The entries of a directory."""
        reply = self.request(op="ls", path=path)
        entries = reply["entries"]
        while "next" in reply:
            reply = self.request(op="ls", path=path, after=reply["next"])
            entries += reply["entries"]
        return [entry["name"] for entry in entries]

    def evict(self, session, timeout_s=60):
        """Asks for the session's frames and waits until it has none. Returns the seconds that took."""
        begin = time.monotonic()
        self.set(f"sessions/{session}/advice", "evict")
        while (left := self.number(f"sessions/{session}/bytes_resident")) > 0:
            if time.monotonic() - begin > timeout_s:
                raise ControlError(f"session {session} still has {left} bytes after {timeout_s} s")
            time.sleep(0.005)
        return time.monotonic() - begin
