"""Tells whether the agent works, so that it stops when it is idle and not before.

Under ``lifecycle-manager exec`` this module passes on what it is told, and the manager decides. By itself it decides, and ends
the process with exit code 42.
"""

import asyncio
import atexit
import itertools
import logging
import os
import signal
import sys
import threading
import time
import weakref
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple
from urllib.parse import quote

from . import _owner, _socket
from ._idleness import decide
from ._members import Members, State

__all__ = ["EXIT_IDLE", "LifecycleManager", "get_lifecycle_manager"]

#: The exit code by which an agent says that it stopped because it was idle.
EXIT_IDLE = 42

_RUN_DIR = "/var/run/agent"

_PAUSE = 1.0  # seconds between two activities that are passed on, and before what did not get through is passed on again
_FLUSH = 2.0  # seconds at most for what is to be passed on when the process ends
_numbers = itertools.count(1)
_log = logging.getLogger(__name__)


def _number(name: str, default: float, least: float = 0.0) -> float:
    text = os.environ.get(name, "")
    if not text:
        return default
    value = float(text)  # what is no number raises, and idle shutdown stays off
    if not least <= value < float("inf"):
        raise ValueError("%s is %r; accepted is a number, at least %g" % (name, text, least))
    return value


class LifecycleManager:
    """Tracks what one process of an agent does. Its methods may be called from any thread, and none raises because the manager is away.

    Its triggers are its own: they stand beside those of scripts and of other processes. A process that is forked from a started one
    goes on without a call, with no trigger of its own at first.
    """

    def __init__(
        self,
        idle_timeout_minutes: Optional[float] = None,
        check_interval_seconds: Optional[float] = None,
        enable_shutdown: Optional[bool] = None,
        *,
        on_warning: Optional[Callable[[float], None]] = None,
        on_stop: Optional[Callable[[], None]] = None,
        hold_seconds: float = 300.0,
        run_dir: Optional[str] = None,
    ) -> None:
        """What is left out comes from the environment.

        on_warning is called with the seconds that are left, on_stop before the process ends; both by a thread of this module.
        They work where this module decides by itself.
        """
        enabled, reason = _enabled_by_environment()
        try:
            self.timeout = 60 * (_number("IDLE_TIMEOUT_MINUTES", 15, 1e-5) if idle_timeout_minutes is None else idle_timeout_minutes)
            self.interval = _number("IDLE_CHECK_INTERVAL_SECONDS", 60, 1e-3) if check_interval_seconds is None else check_interval_seconds
            self.warning = _number("IDLE_WARNING_SECONDS", 60)
            self.grace = _number("IDLE_GRACE_SECONDS", 10)
        except ValueError as error:
            _log.error("the environment is not understood, idle shutdown is off: %s", error)
            self.timeout, self.interval, self.warning, self.grace, enabled = 900.0, 60.0, 60.0, 10.0, False
            enable_shutdown = None
        self.enabled = enabled if enable_shutdown is None else enable_shutdown
        if enable_shutdown is None and reason:
            _log.info("idle shutdown is off: %s", reason)
        self._on_warning, self._on_stop, self._hold_seconds = on_warning, on_stop, hold_seconds
        run_dir = run_dir or os.environ.get("LIFECYCLE_RUN_DIR") or _RUN_DIR
        self._socket = os.path.join(run_dir, "lifecycle.sock")
        self._exit_code = os.path.join(run_dir, "exit_code")

        self._remote = False  # a manager decides
        self._members: Optional[Members] = Members(run_dir)
        self._started_by: Optional[int] = None  # the process that was started, if this one was forked from it
        self._since = time.monotonic()
        self._running = False
        self._reset()
        _managers.add(self)

    def _reset(self) -> None:
        """What begins anew in a process that was forked."""
        self._changed = threading.Condition()
        self._owner = ""
        self._triggers: Set[str] = set()
        self._warned: Optional[float] = None
        self._warned_since = 0.0
        self._activity: Optional[str] = None  # not passed on yet
        self._not_before = 0.0  # when an activity may be passed on
        self._failed = False  # the last time nothing got through
        self._unsent = False  # triggers are not passed on yet
        self._told: Set[str] = set()  # what a manager without owners was told
        self._complained = False
        self._thread: Optional[threading.Thread] = None

    async def start(self) -> None:
        """Begins. If an earlier run of the agent in this Pod was idle, this waits for the Pod's deletion instead."""
        _notice_fork()
        if self._thread is not None:
            return
        remote = _socket.is_served(self._socket)
        forked = self._running and self._started_by == os.getppid()
        if not remote and not forked:
            if self.enabled:
                await self._hold()
            self._leave_by_signal()
        with self._changed:
            self._since, self._running, self._remote = time.monotonic(), True, remote
            self._unsent = bool(self._triggers)
            if not remote and not forked and self._members is not None:
                self._members.clear()
            self._publish()
            if remote:
                self._begin(self._tell)
            elif not forked:  # else the process that this one was forked from decides
                self._begin(self._watch)

    def _begin(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="lifecycle", daemon=True)
        self._thread.start()
        if self._remote:
            _at_end(self)

    async def stop(self) -> None:
        """Ends. What was not passed on yet is."""
        await asyncio.get_running_loop().run_in_executor(None, self._stop, 10.0)

    def _stop(self, timeout: float) -> None:
        _notice_fork()
        thread, self._thread = self._thread, None
        with self._changed:
            self._running = False
            self._changed.notify_all()
            if self._members is not None:
                self._members.leave()
        if thread is not None:
            thread.join(timeout)

    def record_activity(self, source: str = "python") -> None:
        """The agent has just done something."""
        _notice_fork()
        with self._changed:
            self._activity = source
            self._alive()

    def add_trigger(self, trigger: str) -> None:
        """Keeps the agent alive until the trigger is removed."""
        _notice_fork()
        with self._changed:
            self.update_triggers(self._triggers | {trigger})

    def remove_trigger(self, trigger: str) -> None:
        """Lets a trigger go. The timeout begins anew. One that is not there is no error."""
        _notice_fork()
        with self._changed:
            self.update_triggers(self._triggers - {trigger})

    def update_triggers(self, triggers: Iterable[str]) -> None:
        """Makes these the triggers of this process, and no others."""
        _notice_fork()
        with self._changed:
            wanted = set(triggers)
            if wanted == self._triggers:
                return
            if self._unsent:  # what came and went before it was passed on has happened all the same
                self._activity = self._activity or "trigger"
            self._triggers, self._unsent = wanted, True
            self._alive()

    @property
    def active_triggers(self) -> Set[str]:
        """A copy of the triggers of this process."""
        _notice_fork()
        with self._changed:
            return set(self._triggers)

    def status(self) -> Any:
        """What the manager knows, as a dict; None by itself."""
        return self._reach()

    def _alive(self) -> None:
        self._since, self._warned = time.monotonic(), None
        self._changed.notify_all()
        if not self._running:
            return
        self._publish()
        if self._thread is None and self._remote:  # forked, and it has something to say
            try:
                self._begin(self._tell)
            except RuntimeError as error:  # the process ends: there are no threads any more
                self._thread = None
                _log.debug("no thread passes it on: %s", error)
                self._pass_all_on()

    # In a process that is forked.

    def _before_fork(self) -> None:
        self._changed.acquire()  # what another thread does here is done, and the child finds it whole

    def _after_fork_in_parent(self) -> None:
        self._changed.release()

    def _after_fork_in_child(self) -> None:
        self._started_by = os.getppid()
        if self._members is not None:
            self._members.after_fork()
        self._reset()

    # Under a manager.

    def _reach(self) -> Any:
        try:
            return _socket.call(self._socket, "GET", "/v1/status")
        except (OSError, ValueError):
            return None

    def _tell(self) -> None:
        """Passes on what has changed: triggers at once, activities at most once a second; and again until it got through."""
        while True:
            with self._changed:
                while self._running and (self._activity is not None or self._unsent):
                    wait = self._not_before - time.monotonic()
                    if wait <= 0 or (self._unsent and not self._failed):
                        break
                    self._changed.wait(wait)
                else:
                    if self._running:
                        self._changed.wait()
                        continue
                running = self._running
            self._pass_all_on()
            if not running:
                return

    def _pass_all_on(self) -> None:
        with self._changed:
            activity, self._activity = self._activity, None
            triggers = sorted(map(_socket.as_id, self._triggers)) if self._unsent else None
            self._unsent = False
        try:
            if triggers is not None:
                self._pass_on(triggers)
                triggers = None
            if activity is not None:
                _socket.call(self._socket, "POST", "/v1/activity", {"source": _socket.as_id(activity)})
            self._failed = self._complained = False
        except (OSError, ValueError) as error:
            if not self._complained:
                refused = "refuses" if isinstance(error, ValueError) else "is not reached"
                _log.warning("the lifecycle manager %s; trying again: %s", refused, error)
            self._failed = self._complained = True
            with self._changed:
                self._activity = self._activity or activity
                self._unsent = self._unsent or triggers is not None
        self._not_before = time.monotonic() + _PAUSE

    def _pass_on(self, triggers: List[str]) -> None:
        """One trigger stands for those that the manager does not take, such as more than it remembers."""
        if not self._owner:
            self._owner = _owner.owner(next(_numbers))
        try:
            self._replace(triggers)
        except ValueError as error:
            if not triggers:
                raise
            _log.warning("the lifecycle manager refuses %d triggers, one stands for them: %s", len(triggers), error)
            self._replace(["python"])
        self._remove_left_behind()

    def _replace(self, triggers: List[str]) -> None:
        """Makes these the triggers of this process, and lets others hold theirs."""
        try:
            _socket.call(self._socket, "PUT", _path("owners", self._owner, "triggers"), {"triggers": triggers})
        except _socket.NotServed:
            # An older manager has no owners: the owner is in the id. One that refuses an id has still been told the others.
            wanted = {_socket.as_id("%s:%s" % (self._owner, trigger)) for trigger in triggers}
            for known in sorted(self._told - wanted):
                _socket.call(self._socket, "DELETE", _path("triggers", known))
                self._told.discard(known)
            for added in sorted(wanted - self._told):
                _socket.call(self._socket, "PUT", _path("triggers", added))
                self._told.add(added)

    def _remove_left_behind(self) -> None:
        """Takes the place of processes of this program that ended without taking their triggers back."""
        for keeper in (self._reach() or {}).get("keptAliveBy", []):
            if keeper.get("kind") != "trigger":
                continue
            name = str(keeper.get("id", ""))
            holder = keeper.get("owner") or _owner.owner_in(name)
            if not _owner.left_behind(holder):
                continue
            _log.info("removing the trigger %s of a process that has ended", name)
            owned = ["owners", holder] if keeper.get("owner") else []
            _socket.call(self._socket, "DELETE", _path(*owned, "triggers", name))

    # By itself.

    def _publish(self) -> None:
        """Tells the other processes of this agent. One that cannot do that is not ended, and ends none."""
        if self._remote or self._members is None:
            return
        try:
            self._members.publish(State(self._since + self.timeout, bool(self._triggers)))
        except OSError as error:
            self._members = None
            _log.error("the other processes of this agent cannot be told what this one does, idle shutdown is off: %s", error)

    def _look(self, now: float) -> Tuple[float, bool]:
        """Since when nothing has happened in any process of this agent, and whether something keeps one."""
        if self._members is None:
            return self._since, True
        others = self._members.look(now, self.timeout)
        return max(self._since, others.until - self.timeout), bool(self._triggers) or others.kept

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._running:
                    return
                now = time.monotonic()
                since, kept = self._look(now)
                if kept or since > self._warned_since:
                    self._warned = None
                verdict = decide(self.timeout, self.warning, since, kept, self._warned, now)
                if verdict.warn:
                    self._warned, self._warned_since = now, since
                if not verdict.stop and not verdict.warn:
                    wait = self.interval
                    if verdict.deadline is not None:
                        due = verdict.deadline - (0 if self._warned is not None else min(self.warning, self.timeout))
                        wait = min(wait, due - now)
                    self._changed.wait(max(wait, 0.001))
                    continue
            if verdict.warn and not verdict.stop:
                left = (verdict.deadline or now) - now
                _log.warning("idle: stopping in %.0f s unless something happens", left)
                self._guarded(self._on_warning, left)
                continue
            if not self.enabled:
                _log.info("idle, and idle shutdown is off")
                with self._changed:
                    self._since, self._warned = time.monotonic(), None
                    self._publish()
                continue
            self._end()

    def _end(self) -> None:
        """Ends the process with 42, whatever its other threads and exit handlers are up to."""
        _log.warning("idle: stopping with exit code %d", EXIT_IDLE)
        callback = threading.Thread(target=self._guarded, args=(self._on_stop,), daemon=True)
        callback.start()
        callback.join(self.grace)
        self._leave_word(EXIT_IDLE)
        _exit(EXIT_IDLE)

    @staticmethod
    def _guarded(callback: Optional[Callable[..., None]], *args: Any) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:  # the agent's own mistake must not change what becomes of it
            _log.exception("a callback failed")

    def _leave_word(self, code: int) -> None:
        following = "%s.%d" % (self._exit_code, os.getpid())
        try:
            with open(following, "w") as word:
                word.write("%d\n" % code)
            os.chmod(following, 0o644)
            os.replace(following, self._exit_code)
        except OSError as error:
            _log.warning("the exit code cannot be left: %s", error)

    async def _hold(self) -> None:
        """Waits where an earlier run ended with 42: the Pod is about to be deleted. If nobody does that, the next start works
        under a status that no longer says 42."""
        try:
            with open(self._exit_code) as word:
                idle = word.read(16).strip() == str(EXIT_IDLE)
        except OSError:
            return
        if idle:
            self._leave_by_signal()
            _log.warning("an earlier run was idle; waiting for the Pod to be deleted")
            await asyncio.sleep(self._hold_seconds)
        try:
            os.remove(self._exit_code)
        except OSError as error:
            _log.warning("the exit code of an earlier run cannot be removed: %s", error)
        if idle:
            _log.error("nobody has deleted the Pod")
            _exit(1)

    @staticmethod
    def _leave_by_signal() -> None:
        """SIGTERM ends the agent with 0, unless the program handles it."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: _exit(0))
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda *_: _exit(0))


def _enabled_by_environment() -> Any:
    text = os.environ.get("ENABLE_IDLE_SHUTDOWN", "").lower()
    if text in ("1", "t", "true"):
        return True, ""
    if text:
        return False, "ENABLE_IDLE_SHUTDOWN is %r" % text
    if os.environ.get("USER_TYPE") == "enterprise":
        return False, "enterprise agents never stop"
    return True, ""


def _exit(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _at_end(manager: LifecycleManager) -> None:
    """Has what is not passed on yet passed on when the process ends."""
    reference = weakref.ref(manager)

    def flush() -> None:
        living = reference()
        if living is not None:
            living._stop(_FLUSH)

    atexit.register(flush)
    if "multiprocessing.util" in sys.modules:  # whose children end without what is registered above
        sys.modules["multiprocessing.util"].Finalize(None, flush, exitpriority=0)


_managers: "weakref.WeakSet[LifecycleManager]" = weakref.WeakSet()
_manager: Optional[LifecycleManager] = None
_manager_lock = threading.Lock()
_forking: List[LifecycleManager] = []
_process = os.getpid()
_noticing: Dict[int, threading.Lock] = {}


def _before_fork() -> None:
    _manager_lock.acquire()
    _forking[:] = list(_managers)
    for manager in _forking:
        manager._before_fork()


def _after_fork_in_parent() -> None:
    for manager in _forking:
        manager._after_fork_in_parent()
    _forking.clear()
    _manager_lock.release()


def _after_fork_in_child() -> None:
    global _manager_lock, _process
    _manager_lock = threading.Lock()
    _forking.clear()
    for manager in list(_managers):
        manager._after_fork_in_child()
    _process = os.getpid()


def _notice_fork() -> None:
    """Finds out about a fork in C, of which Python is not told: uWSGI's, unless it is asked to. No lock may be taken before, since
    another thread may have held it at the fork, and there is no such thread here."""
    process = os.getpid()
    if process == _process:
        return
    with _noticing.setdefault(process, threading.Lock()):
        if process != _process:
            _after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def get_lifecycle_manager() -> LifecycleManager:
    """Returns the process's manager, made at the first call from what the environment says."""
    _notice_fork()
    global _manager
    with _manager_lock:
        if _manager is None:
            _manager = LifecycleManager()
        return _manager
