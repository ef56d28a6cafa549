"""Tells whether the agent works, so that it stops when it is idle and not before.

Under ``lifecycle-manager exec`` this module passes on what it is told, and the manager decides. By itself it decides, and ends
the process with exit code 42.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Iterable, List, Optional, Set

from . import _socket
from ._idleness import decide

__all__ = ["EXIT_IDLE", "LifecycleManager", "get_lifecycle_manager"]

#: The exit code by which an agent says that it stopped because it was idle.
EXIT_IDLE = 42

_RUN_DIR = "/var/run/agent"
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
    """Tracks one agent. Its methods may be called from any thread, and none raises because the manager is away."""

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

        self._changed = threading.Condition()
        self._triggers: Set[str] = set()
        self._since = time.monotonic()
        self._warned: Optional[float] = None
        self._activity: Optional[str] = None  # not passed on yet
        self._unsent = False  # triggers are not passed on yet
        self._complained = False
        self._running = False
        self._thread: Optional[threading.Thread] = None

    async def start(self) -> None:
        """Begins. If an earlier run of the agent in this Pod was idle, this waits for the Pod's deletion instead."""
        if self._thread is not None:
            return
        remote = _socket.is_served(self._socket)
        if not remote:
            if self.enabled:
                await self._hold()
            self._leave_by_signal()
        with self._changed:
            self._since, self._running, self._unsent = time.monotonic(), True, bool(self._triggers)
        self._thread = threading.Thread(target=self._tell if remote else self._watch, name="lifecycle", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends. What was not passed on yet is."""
        thread, self._thread = self._thread, None
        with self._changed:
            self._running = False
            self._changed.notify_all()
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.join, 10)

    def record_activity(self, source: str = "python") -> None:
        """The agent has just done something."""
        with self._changed:
            self._activity = source
            self._alive()

    def add_trigger(self, trigger: str) -> None:
        """Keeps the agent alive until the trigger is removed."""
        with self._changed:
            self.update_triggers(self._triggers | {trigger})

    def remove_trigger(self, trigger: str) -> None:
        """Lets a trigger go. The timeout begins anew. One that is not there is no error."""
        with self._changed:
            self.update_triggers(self._triggers - {trigger})

    def update_triggers(self, triggers: Iterable[str]) -> None:
        """Makes these the triggers, and no others."""
        with self._changed:
            wanted = set(triggers)
            if wanted == self._triggers:
                return
            self._triggers, self._unsent = wanted, True
            self._alive()

    @property
    def active_triggers(self) -> Set[str]:
        """A copy of the triggers."""
        with self._changed:
            return set(self._triggers)

    def status(self) -> Any:
        """What the manager knows, as a dict; None by itself."""
        return self._reach()

    def _alive(self) -> None:
        self._since, self._warned = time.monotonic(), None
        self._changed.notify_all()

    # Under a manager.

    def _reach(self) -> Any:
        try:
            return _socket.call(self._socket, "GET", "/v1/status")
        except (OSError, ValueError):
            return None

    def _tell(self) -> None:
        """Passes on, at most once a second, what has changed; and again until it got through."""
        while True:
            with self._changed:
                while self._running and self._activity is None and not self._unsent:
                    self._changed.wait()
                activity, self._activity = self._activity, None
                triggers = sorted(map(_socket.as_id, self._triggers)) if self._unsent else None
                self._unsent = False
                running = self._running
            try:
                if triggers is not None:
                    self._pass_on(triggers)
                    triggers = None
                if activity is not None:
                    _socket.call(self._socket, "POST", "/v1/activity", {"source": _socket.as_id(activity)})
                self._complained = False
            except (TypeError, ValueError) as error:
                _log.warning("the lifecycle manager refuses: %s", error)
            except OSError as error:
                if not self._complained:
                    _log.warning("the lifecycle manager is not reached; trying again: %s", error)
                self._complained = True
                with self._changed:
                    self._activity = self._activity or activity
                    self._unsent = self._unsent or triggers is not None
            if not running:
                return
            time.sleep(1 if self._running else 0)

    def _pass_on(self, triggers: List[str]) -> None:
        """One trigger stands for those that the manager does not take, such as more than it remembers."""
        try:
            _socket.call(self._socket, "PUT", "/v1/triggers", {"triggers": triggers})
        except ValueError as error:
            if not triggers:
                raise
            _log.warning("the lifecycle manager refuses %d triggers, one stands for them: %s", len(triggers), error)
            _socket.call(self._socket, "PUT", "/v1/triggers", {"triggers": ["python"]})

    # By itself.

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                verdict = decide(self.timeout, self.warning, self._since, bool(self._triggers), self._warned, now)
                if not self._running:
                    return
                if verdict.warn:
                    self._warned = now
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


_manager: Optional[LifecycleManager] = None
_manager_lock = threading.Lock()


def get_lifecycle_manager() -> LifecycleManager:
    """Returns the process's manager, made at the first call from what the environment says."""
    global _manager
    with _manager_lock:
        if _manager is None:
            _manager = LifecycleManager()
        return _manager
