# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the demo, and the exact lines that mend it if not."""

import ctypes
import errno
import getpass
import os
import shutil
import subprocess

CANNOT_RUN_HERE = 77  # exit status: nothing is broken, the machine or the user may not
NR_USERFAULTFD = 323  # x86_64
UFFD_DEVICE = "/dev/userfaultfd"
USERFAULTFD_IOC_NEW = 0xAA00


class CannotRunHere(Exception):
    """The text is what to do."""


def userfaultfd_errno():
    """0 if this process may have a userfaultfd that handles faults of the kernel too, else errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    if handle >= 0:
        os.close(handle)
        return 0
    refused = ctypes.get_errno()
    try:
        device = os.open(UFFD_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return refused
    handle = libc.ioctl(device, USERFAULTFD_IOC_NEW, os.O_CLOEXEC | os.O_NONBLOCK)
    os.close(device)
    if handle < 0:
        return refused
    os.close(handle)
    return 0


def check_userfaultfd():
    refused = userfaultfd_errno()
    if refused == 0:
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
    user = getpass.getuser()
    raise CannotRunHere(
        "An unprivileged user may not handle page faults on this machine. Any one of these mends it:\n\n"
        f"    sudo setfacl -m u:{user}:rw {UFFD_DEVICE}       # for this user, until the next boot\n"
        "    sudo sysctl -w vm.unprivileged_userfaultfd=1     # for everybody, until the next boot\n"
        "    sudo tools/demo                                  # for this run only\n"
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
