import os
import subprocess
import tempfile
import unittest

from tests.test_process import MANAGER, AgentProcess

#: How processes are made, with f as what they do: each begins with what was started before.
FORKS = {
    "os.fork": """
def parallel(f):
    pid = os.fork()
    if pid == 0:
        f()
        time.sleep(0.3)  # os._exit gives no time to say anything
        os._exit(0)
    os.waitpid(pid, 0)
""",
    "in C": """
import ctypes  # as uWSGI forks: Python is not told
def parallel(f):
    time.sleep(0.5)  # a thread that waits for the interpreter at the fork would stop it in the child for good
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        f()
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(pid, 0)
""",
    "multiprocessing": """
import multiprocessing
def parallel(f):
    process = multiprocessing.get_context("fork").Process(target=f)
    process.start()
    process.join()
""",
}

START = """
manager = get_lifecycle_manager()
asyncio.run(manager.start())
if os.path.exists(os.environ["LIFECYCLE_RUN_DIR"] + "/lifecycle.sock"):
    from dexorder import _socket
    _socket.call(os.environ["LIFECYCLE_RUN_DIR"] + "/lifecycle.sock", "DELETE", "/v1/triggers/starting")
"""

UNDER = {"alone": ()}
if MANAGER:
    UNDER["under a manager"] = (MANAGER, "exec", "--", "sh", "-c", '"$0" trigger add starting && exec "$@"', MANAGER)  # however slow the machine


class Fork(AgentProcess):
    """What a process says that was forked from a started one is heard."""

    def each(self, body, code, forks=FORKS):
        """Runs it with each way to fork, by itself and under a manager, all at once."""
        running = []
        for fork, definition in FORKS.items():
            if fork not in forks:
                continue
            for where, under in UNDER.items():
                directory = tempfile.TemporaryDirectory()
                self.addCleanup(directory.cleanup)
                script = "import asyncio, os, threading, time\nfrom dexorder.lifecycle_manager import *\n" + definition + START + body
                process = self.start_script(script, under=under, IDLE_TIMEOUT_MINUTES="0.1", LIFECYCLE_RUN_DIR=directory.name)
                running.append((fork, where, process, directory.name))
        for fork, where, process, directory in running:
            with self.subTest(fork=fork, where=where):
                self.expect(process, code, str(code) if where != "alone" or code == 42 else None, directory)

    def test_activity(self):
        self.each("""
def work():
    for _ in range(90):
        manager.record_activity("worker")
        time.sleep(0.1)
parallel(work)
os._exit(7)
""", 7)

    def test_triggers(self):
        self.each("""
def work():
    manager.add_trigger("job")
    time.sleep(9)
parallel(work)
os._exit(7)
""", 7)

    def test_a_trigger_that_was_taken_back_keeps_nobody(self):
        self.each("""
def work():
    manager.add_trigger("job")
    time.sleep(0.2)
    manager.remove_trigger("job")
    assert manager.active_triggers == set()
parallel(work)
time.sleep(60)
""", 42)

    def test_the_parents_triggers_are_its_own(self):
        self.each("""
manager = get_lifecycle_manager()
asyncio.run(manager.start())
manager.add_trigger("listens")
def work():
    assert manager.active_triggers == set(), manager.active_triggers
    manager.add_trigger("job")
    manager.update_triggers([])
parallel(work)
time.sleep(9)
assert manager.active_triggers == {"listens"}
os._exit(7)
""", 7)

    def test_idle_all_the_same(self):
        self.each("""
def work():
    manager.record_activity("worker")
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.1)
parallel(work)
""", 42)

    def test_fork_amid_calls(self):
        """A lock that another thread holds during the fork holds up nobody."""
        self.each("""
def busy():
    while True:
        manager.add_trigger("x")
        manager.remove_trigger("x")
        time.sleep(0.001)
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
def work():
    manager.record_activity("worker")
    manager.add_trigger("y")
for _ in range(5):
    parallel(work)
os._exit(7)
""", 7, forks=["os.fork", "multiprocessing"])  # in C the interpreter's own locks would be held as well, for good


class Workers(AgentProcess):
    """Processes that were started one by one, without a manager."""

    body = """
import asyncio, os, time
from dexorder.lifecycle_manager import *
manager = get_lifecycle_manager()
asyncio.run(manager.start())
open(os.environ["LIFECYCLE_RUN_DIR"] + "/up-" + os.environ["NAME"], "w").close()
%s
"""

    def worker(self, name, work, **env):
        process = self.start_script(self.body % work, NAME=name, **{"IDLE_TIMEOUT_MINUTES": "0.025", **env})
        self.await_file("up-" + name)
        return process

    def test_none_ends_what_another_one_serves(self):
        for name, work in {
            "activity": "\nfor _ in range(60): manager.record_activity('x'); time.sleep(0.1)\n",
            "a trigger": "manager.add_trigger('job'); time.sleep(6)",
        }.items():
            with self.subTest(name):
                busy = self.worker("busy with " + name, work + "\nos._exit(7)")
                waits = self.worker("waits for " + name, "time.sleep(60)")
                self.expect(busy, 7)
                self.assertIsNone(waits.poll())
                self.expect(waits, 42, "42")
                os.remove(self.path("exit_code"))

    def test_idle_together(self):
        first = self.worker("first", """
manager.add_trigger("the other one starts")
while not os.path.exists(os.environ["LIFECYCLE_RUN_DIR"] + "/up-second"): time.sleep(0.01)
manager.remove_trigger("the other one starts")
time.sleep(60)
""")
        second = self.worker("second", "time.sleep(60)")
        self.expect(first, 42, "42")
        self.expect(second, 42, "42")

    def test_one_that_was_killed_keeps_nobody(self):
        killed = self.worker("killed", "manager.add_trigger('job'); time.sleep(60)")
        waits = self.worker("waits", "time.sleep(60)")
        killed.kill()
        killed.wait()
        self.expect(waits, 42, "42")

    def test_the_longer_timeout_counts(self):
        longer = self.worker("longer", "time.sleep(60)", IDLE_TIMEOUT_MINUTES="1")
        shorter = self.worker("shorter", "time.sleep(60)")
        with self.assertRaises(subprocess.TimeoutExpired):
            shorter.wait(3.5)
        longer.kill()
        self.expect(shorter, 42, "42")

    def test_what_cannot_be_read_is_busy(self):
        waits = self.worker("waits", "time.sleep(3); os._exit(7)")
        os.mkdir(os.path.join(self.dir.name, "python", "unreadable"))
        self.expect(waits, 7)

    def test_a_file_of_an_earlier_run_keeps_nobody(self):
        self.worker("killed", "manager.add_trigger('job'); time.sleep(60)").kill()
        os.rename(self.path("python"), self.path("before"))
        os.mkdir(self.path("python"))
        for name in os.listdir(self.path("before")):
            os.rename(self.path("before/" + name), self.path("python/" + name))
        self.expect(self.worker("waits", "time.sleep(60)"), 42, "42")

    def test_without_a_run_directory(self):
        self.expect(self.start_script(self.body.replace('open(os.environ["LIFECYCLE_RUN_DIR"] + "/up-" + os.environ["NAME"], "w").close()', "") % """
child = os.fork()
if child == 0:
    for _ in range(30): manager.record_activity('x'); time.sleep(0.1)
    os._exit(0)
os.waitpid(child, 0)
os._exit(7)
""", NAME="x", IDLE_TIMEOUT_MINUTES="0.025", LIFECYCLE_RUN_DIR=self.path("none")), 7)

    def test_two_managers_in_a_process(self):
        self.expect(self.start_script("""
import asyncio, os, time
from dexorder.lifecycle_manager import *
one, other = LifecycleManager(), LifecycleManager()
async def main():
    await one.start()
    await other.start()
    one.add_trigger("a")
    await asyncio.sleep(3)
    os._exit(7)
asyncio.run(main())
""", IDLE_TIMEOUT_MINUTES="0.02"), 7)


if __name__ == "__main__":
    unittest.main()
