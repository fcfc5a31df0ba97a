# SPDX-License-Identifier: Apache-2.0
"""What the tests with the real engine share: where things are, and when a test may be skipped."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path[:0] = [os.path.join(ROOT, "tools", part) for part in ("demo.d", "engines/llama")]

import fetch  # noqa: E402
import host  # noqa: E402

SKIPPED = 77


def skip(reason):
    """Ends the test: skipped, or failed where everything has to be there."""
    print(reason, file=sys.stderr)
    sys.exit(1 if os.environ.get("CI") == "true" else SKIPPED)


def need_engine():
    try:
        return fetch.fetch(print)
    except fetch.FetchError as error:
        return skip(f"no engine or model: {error}")


def need_userfaultfd():
    try:
        host.check_userfaultfd()
    except host.CannotRunHere as error:
        skip(str(error))
