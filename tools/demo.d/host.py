# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the demo, and the exact lines that mend it if not."""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess

CANNOT_RUN_HERE = 77  # exit status: nothing is broken, the machine or the user may not
NR_USERFAULTFD = 323  # x86_64
UFFD_DEVICE = "/dev/userfaultfd"
USERFAULTFD_IOC_NEW = 0xAA00
UFFD_API = 0xAA
UFFDIO_API = 0xC018AA3F
# What the demo's frames need of it: both are there from Linux 6.8 on.
FEATURES = {"UFFDIO_POISON": 1 << 14, "UFFDIO_MOVE": 1 << 16}


class CannotRunHere(Exception):
    """The text is what to do."""


def open_userfaultfd():
    """(handle, 0) if this process may have a userfaultfd that handles faults of the kernel too, else (-1, errno)."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if handle >= 0:
        return handle, 0
    refused = ctypes.get_errno()
    try:
        device = os.open(UFFD_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1, refused
    handle = libc.ioctl(device, USERFAULTFD_IOC_NEW, os.O_CLOEXEC | os.O_NONBLOCK)
    os.close(device)
    return (handle, 0) if handle >= 0 else (-1, refused)


def userfaultfd_features(handle):
    """What the kernel can do on this descriptor: struct uffdio_api comes back with every bit it knows."""
    api = bytearray(struct.pack("=QQQ", UFFD_API, 0, 0))
    fcntl.ioctl(handle, UFFDIO_API, api)
    return struct.unpack("=QQQ", api)[1]


def userfaultfd_state():
    """(errno, features): errno is 0 if this process may handle page faults, and only then features mean anything."""
    handle, refused = open_userfaultfd()
    if refused:
        return refused, 0
    try:
        return 0, userfaultfd_features(handle)
    finally:
        os.close(handle)


def check_userfaultfd():
    refused, features = userfaultfd_state()
    if refused == 0:
        lacks = [name for name, bit in FEATURES.items() if not features & bit]
        if lacks:
            raise CannotRunHere(
                f"This kernel's userfaultfd has no {' and no '.join(lacks)}, which movable frames need. Take "
                "Linux 6.8 or later.\nAn engine of your own may do without UFFDIO_MOVE:\n\n"
                "    KVMM_FRAMES=shareable\n"
            )
        return
    if refused == errno.ENOSYS:
        raise CannotRunHere(
            "This kernel has no userfaultfd (CONFIG_USERFAULTFD). Take one that has it, 6.8 or later."
        )
    if os.geteuid() == 0:
        raise CannotRunHere(
            f"userfaultfd is refused here although you are root ({os.strerror(refused)}); a container's\n"
            "seccomp profile does that. Start the container with\n\n"
            "    --cap-add SYS_PTRACE --security-opt seccomp=unconfined\n"
        )
    lines = [
        ("sudo sysctl -w vm.unprivileged_userfaultfd=1", "for everybody, until the next boot"),
        ("sudo tools/demo", "for this run only"),
    ]
    if os.path.exists(UFFD_DEVICE):
        # By number: a user of a container need not have a name. chown: setfacl is not on every machine.
        device = (f"sudo chown {os.geteuid()} {UFFD_DEVICE}", "for this user, until the next boot")
        lines.insert(0, device)
    width = max(len(command) for command, _ in lines)
    raise CannotRunHere(
        "An unprivileged user may not handle page faults on this machine. Any one of these mends it:\n\n"
        + "".join(f"    {command:<{width}}  # {what}\n" for command, what in lines)
    )


def build(root, progress, targets):
    """Configures and builds preset `release`; the compiler's output only if it fails."""
    folder = os.path.join(root, "build", "release")
    steps = [["cmake", "--preset", "release"]]
    steps.append(["cmake", "--build", "--preset", "release", "--target", *targets])
    for step in steps:
        with subprocess.Popen(
            step,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            lines = []
            try:
                for line in process.stdout:
                    lines.append(line)
                    progress.now("building  " + line.strip())
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            progress.clear()
            raise RuntimeError(f"{' '.join(step)} failed:\n{''.join(lines[-60:])}")
    return folder


def check_space(path, wanted):
    """The swap file grows while the demo runs; better to say now that it will not fit."""
    free = shutil.disk_usage(path).free
    if free < wanted:
        raise CannotRunHere(
            f"{path} has {free >> 20} MiB free, the swap file may need {wanted >> 20} MiB.\n"
            "Free some space, or put it elsewhere:\n\n    tools/demo --swap /where/there/is/space\n"
        )
