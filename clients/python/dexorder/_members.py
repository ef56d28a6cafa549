"""What the processes of one agent know of each other where no lifecycle manager runs: a file for each, in a directory for all.

A process holds a lock on its file as long as it lives. The lock is the kernel's and not inherited by fork, so that one that was
killed is known to have ended. What cannot be read means that the process works.
"""

import errno
import fcntl
import hashlib
import os
import struct
import tempfile
import zlib
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

_BODY = struct.Struct("<4sd?")
_CHECKSUM = struct.Struct("<I")
_SIZE = _BODY.size + _CHECKSUM.size
_MAGIC = b"agl1"

#: Where a forked process that can make no file of its own says, in the file that it inherited, that it works.
_UNHEARD_AT = 64

_SCANS = 10

_own: Dict[str, int] = {}  # files of this process: closing one that was opened again would give up its lock


class State(NamedTuple):
    """until: when the process is idle if nothing happens, by the monotonic clock. kept: something keeps it until then and longer."""

    until: float
    kept: bool


class Members:
    """This process among those of the agent. The caller sees to it that one thread at a time is here."""

    def __init__(self, run_dir: str) -> None:
        self._directories = _directories(run_dir)
        self._file: Optional[int] = None
        self._path = ""
        self._inherited: Optional[int] = None  # the file of the process that this one was forked from
        self._ended = 0.0  # until when those that have ended count
        self._counted: Set[str] = set()  # their files that are still there

    def clear(self) -> None:
        """Takes away what earlier processes have left. This one has just begun, so that nothing of theirs counts any more."""
        for directory in self._directories:
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for path in [os.path.join(directory, name) for name in names if not name.startswith(".")]:
                try:
                    if not _read(path)[2]:
                        os.remove(path)
                except OSError:
                    pass

    def join(self, state: State) -> None:
        """Makes the file of this process. Raises OSError where there is no place for it."""
        failed: Optional[OSError] = None
        for directory in self._directories:
            try:
                self._make(directory, state)
                return
            except OSError as error:
                failed = failed or error
        raise failed or OSError(errno.ENOENT, "there is no directory")

    def publish(self, state: State) -> None:
        """Says what this process knows. A forked one that finds no place says that it works, for good."""
        if self._file is None:
            try:
                self.join(state)
                return
            except OSError:
                if self._inherited is None:
                    raise
            os.pwrite(self._inherited, _pack(State(0, True)), _UNHEARD_AT)
            return
        os.pwrite(self._file, _pack(State(max(state.until, self._ended), state.kept)), 0)

    def look(self, now: float, timeout: float) -> State:
        """What the others say, together. Of those that have ended since, what they did counts on."""
        for _ in range(_SCANS):
            state = self._scan(now, timeout)
            if state is not None:
                return state
        return State(0, True)

    def leave(self) -> None:
        """Takes the file of this process away."""
        if self._file is not None:
            _remove(self._path)
            _own.pop(self._path, None)
            os.close(self._file)
            self._file, self._path = None, ""

    def after_fork(self) -> None:
        """In the child: the file is the parent's."""
        _own.clear()
        if self._file is not None:
            if self._inherited is not None:
                os.close(self._inherited)
            self._inherited, self._file, self._path = self._file, None, ""

    def _make(self, directory: str, state: State) -> None:
        try:
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o1777)  # the agent's processes may run as other users
        except FileExistsError:
            pass
        name = "%d-%s" % (os.getpid(), os.urandom(8).hex())
        hidden, path = os.path.join(directory, "." + name), os.path.join(directory, name)
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(file, 0o644)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(file, _pack(state).ljust(_UNHEARD_AT, b"\0") + _pack(State(0, False)), 0)
            _own[path] = file
            os.rename(hidden, path)
        except OSError:
            _own.pop(path, None)
            _remove(hidden)
            os.close(file)
            raise
        self._file, self._path = file, path

    def _scan(self, now: float, timeout: float) -> Optional[State]:
        """None if a file went away meanwhile, whose state another process may or may not have taken over already."""
        until, kept = self._ended, False
        if self._file is not None:
            kept = _unpack(os.pread(self._file, _SIZE, _UNHEARD_AT)).kept
        for directory in self._directories:
            try:
                names = os.listdir(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                kept = True
                continue
            for path in [os.path.join(directory, name) for name in names if not name.startswith(".")]:
                if path == self._path:
                    continue
                try:
                    state, unheard, lives = _read(path)
                except FileNotFoundError:
                    return None
                except OSError:
                    kept = True
                    continue
                kept = kept or unheard
                if lives:
                    until, kept = max(until, state.until), kept or state.kept
                    continue
                if path not in self._counted:
                    # What it waited for has ended with it, just now as far as anybody knows.
                    self._ended = max(self._ended, now + timeout if state.kept else min(state.until, now + timeout))
                    until = max(until, self._ended)
                    self._counted.add(path)
                if not unheard:
                    self._take_over(path)
        return State(until, kept)

    def _take_over(self, path: str) -> None:
        """Says what an ended process has said, and takes its file away after that."""
        if self._file is not None:
            own = _unpack(os.pread(self._file, _SIZE, 0))
            os.pwrite(self._file, _pack(State(max(own.until, self._ended), own.kept)), 0)
            if _remove(path):
                self._counted.discard(path)


def _directories(run_dir: str) -> List[str]:
    """Where files may be: beside the manager's socket, or where there is no such directory in the memory of the machine."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    digest = hashlib.sha256(os.path.abspath(run_dir).encode(errors="surrogateescape")).hexdigest()[:16]
    return [os.path.join(run_dir, "python"), os.path.join(memory, "agent-lifecycle-%d-%s" % (os.getuid(), digest))]


def _read(path: str) -> Tuple[State, bool, bool]:
    """What the process of this file says, whether one that it forked works unheard, and whether it lives."""
    file = _own.get(path)
    if file is not None:
        return _unpack(os.pread(file, _SIZE, 0)), _unpack(os.pread(file, _SIZE, _UNHEARD_AT)).kept, True
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        lives = _is_locked(file)
        return _unpack(os.pread(file, _SIZE, 0)), _unpack(os.pread(file, _SIZE, _UNHEARD_AT)).kept, lives
    finally:
        os.close(file)


def _pack(state: State) -> bytes:
    body = _BODY.pack(_MAGIC, state.until, state.kept)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _unpack(data: bytes) -> State:
    """What is half written, or of another version, keeps the agent."""
    body, checksum = data[: _BODY.size], data[_BODY.size :]
    if len(data) != _SIZE or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(body):
        return State(0, True)
    magic, until, kept = _BODY.unpack(body)
    return State(until, kept) if magic == _MAGIC else State(0, True)


def _is_locked(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return True
        raise


def _remove(path: str) -> bool:
    try:
        os.remove(path)
        return True
    except OSError:
        return False
