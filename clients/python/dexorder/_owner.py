"""The name under which a process holds its triggers, and whether the process of such a name has ended."""

import hashlib
import os
import re
import sys
from typing import Optional

_FIELDS = 6  # program, digest of its arguments, PID namespace, PID, start of the process, number


def owner(number: int) -> str:
    """A name that no other process has or will have. The number tells several managers of one process apart."""
    start = _start(os.getpid())
    if start is None:  # no /proc: the name is still unique, but nobody can tell when its process has ended
        return ":".join([_program(), "0", str(os.getpid()), os.urandom(8).hex(), str(number)])
    return ":".join([_program(), _namespace(), str(os.getpid()), start, str(number)])


def owner_in(name: str) -> str:
    """The owner with which an id begins, as managers without owners are told it."""
    return ":".join(name.split(":")[:_FIELDS])


def left_behind(name: str) -> bool:
    """Whether a process of this same program held it that has ended. What cannot be told has not ended."""
    fields = name.split(":")
    if len(fields) != _FIELDS or ":".join(fields[:2]) != _program() or fields[2] != _namespace() or fields[2] == "0":
        return False
    try:
        pid = int(fields[3])
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    start = _start(pid)
    return start is not None and start != fields[4]


def _program() -> str:
    arguments = list(getattr(sys, "argv", None) or [""])
    name = os.path.basename(arguments[0])
    if name == "-c":
        arguments = list(getattr(sys, "orig_argv", arguments))
    digest = hashlib.sha256("\0".join(arguments).encode(errors="surrogateescape")).hexdigest()
    return "%s:%s" % (re.sub(r"[^A-Za-z0-9._-]", "_", name or "python")[:64], digest[:8])


def _namespace() -> str:
    try:
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid"))) or "0"
    except OSError:
        return "0"


def _start(pid: int) -> Optional[str]:
    """When the process began, in ticks since boot; "0" for one that has ended and was not waited for yet."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        return "0" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return None
