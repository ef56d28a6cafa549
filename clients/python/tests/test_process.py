import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

from dexorder import _socket

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MANAGER = os.environ.get("LIFECYCLE_MANAGER", "")


class AgentProcess(unittest.TestCase):
    """Agents are processes of their own: what counts is how they end."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def start(self, body, under=(), **env):
        script = "import asyncio, os, threading, time\nfrom dexorder.lifecycle_manager import *\nasync def main():\n%s\nasyncio.run(main())\n" % (
            textwrap.indent(textwrap.dedent(body), "    "))
        return self.start_script(script, under, **env)

    def start_script(self, script, under=(), **env):
        environment = dict(os.environ, PYTHONPATH=ROOT, IDLE_WARNING_SECONDS="0.2",
                           **{"IDLE_CHECK_INTERVAL_SECONDS": "0.05", "LIFECYCLE_RUN_DIR": self.dir.name, **env})
        process = subprocess.Popen([*under, sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stderr.close)
        return process

    def expect(self, process, code, word=None, directory=None):
        said = process.communicate(timeout=120)[1]
        self.assertEqual(process.returncode, code, said)
        try:
            with open(os.path.join(directory or self.dir.name, "exit_code")) as f:
                left = f.read().strip()
        except FileNotFoundError:
            left = None
        self.assertEqual(left, word, said)

    def await_file(self, name):
        for _ in range(1000):
            if os.path.exists(self.path(name)):
                return
            time.sleep(0.02)
        self.fail("there is no file %s" % name)


class Process(AgentProcess):
    """One process."""

    def test_idle(self):
        self.expect(self.start("""
            await LifecycleManager().start()
            threading.Thread(target=time.sleep, args=(60,)).start()  # nothing that hangs keeps it
            await asyncio.sleep(60)
            """, IDLE_TIMEOUT_MINUTES="0.01"), 42, "42")

    def test_callbacks(self):
        process = self.start("""
            def warned(left):
                with open(os.environ["LIFECYCLE_RUN_DIR"] + "/warned", "w") as f: f.write(str(left))
            await LifecycleManager(idle_timeout_minutes=0.01, on_warning=warned, on_stop=lambda: 1/0).start()
            await asyncio.sleep(60)
            """)
        self.expect(process, 42, "42")
        with open(self.path("warned")) as f:
            self.assertLessEqual(float(f.read()), 0.6)

    def test_activity_and_triggers_keep_it(self):
        self.expect(self.start("""
            manager = get_lifecycle_manager()
            assert manager is get_lifecycle_manager()
            await manager.start()
            manager.update_triggers({"a", "b"})
            await asyncio.sleep(1)
            manager.remove_trigger("a"); manager.remove_trigger("never there")
            assert manager.active_triggers == {"b"}
            await asyncio.sleep(1)
            manager.update_triggers(set())
            for _ in range(10):
                await asyncio.sleep(0.1)
                manager.record_activity()
            await manager.stop()
            os._exit(7)
            """, IDLE_TIMEOUT_MINUTES="0.01"), 7)

    def test_a_manager_that_does_not_answer_decides(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(self.path("lifecycle.sock"))
        listener.listen(8)
        self.expect(self.start("""
            await LifecycleManager().start()
            await asyncio.sleep(2)
            os._exit(7)
            """, IDLE_TIMEOUT_MINUTES="0.005"), 7)

    def test_a_socket_that_nobody_serves_is_left_over(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path("lifecycle.sock"))
        listener.close()
        self.expect(self.start("""
            await LifecycleManager().start()
            await asyncio.sleep(60)
            """, IDLE_TIMEOUT_MINUTES="0.005"), 42, "42")

    def test_shutdown_disabled(self):
        for env in ({"ENABLE_IDLE_SHUTDOWN": "false"}, {"USER_TYPE": "enterprise"}, {"IDLE_GRACE_SECONDS": "soon"},
                    {"IDLE_CHECK_INTERVAL_SECONDS": "0"}):
            with self.subTest(env):
                self.expect(self.start("""
                    await LifecycleManager(idle_timeout_minutes=0.005).start()
                    await asyncio.sleep(1); os._exit(5)
                    """, **env), 5)

    def test_sigterm(self):
        process = self.start("""
            await LifecycleManager().start()
            open(os.environ["LIFECYCLE_RUN_DIR"] + "/up", "w").close()
            await asyncio.sleep(60)
            """)
        self.await_file("up")
        process.send_signal(signal.SIGTERM)
        self.expect(process, 0)

    def test_hold(self):
        with open(self.path("exit_code"), "w") as f:
            f.write("42\n")
        body = """
            await LifecycleManager(hold_seconds=float(os.environ["HOLD"])).start()
            open(os.environ["LIFECYCLE_RUN_DIR"] + "/worked", "w").close()
            """
        process = self.start(body, HOLD="60")
        self.assertIn("waiting", process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        self.expect(process, 0, "42")
        self.expect(self.start(body, HOLD="0.2"), 1)  # nobody came: the word is taken back, and 42 is never said again
        self.assertFalse(os.path.exists(self.path("worked")))
        self.expect(self.start(body, HOLD="60"), 0)
        self.assertTrue(os.path.exists(self.path("worked")))

    @unittest.skipUnless(MANAGER, "LIFECYCLE_MANAGER names no lifecycle-manager program")
    def test_under_a_manager(self):
        process = self.start("""
            manager = get_lifecycle_manager()
            await manager.start()
            manager.add_trigger("a")
            manager.record_activity("tool")
            await asyncio.sleep(2.5)
            manager.update_triggers([])
            await asyncio.sleep(60)
            """, under=(MANAGER, "exec", "--"), IDLE_TIMEOUT_MINUTES="0.03")
        for _ in range(200):
            try:
                status = _socket.call(self.path("lifecycle.sock"), "GET", "/v1/status")
                if status["lastActivity"]["source"] == "tool":
                    break
            except OSError:
                pass
            time.sleep(0.02)
        self.assertIn("a", [k.get("id") for k in status["keptAliveBy"]], json.dumps(status))
        self.expect(process, 42, "42")

    @unittest.skipUnless(MANAGER, "LIFECYCLE_MANAGER names no lifecycle-manager program")
    def test_triggers_of_any_name_keep_it(self):
        self.expect_kept('{"data/BTC USDT", "caf\u00e9", "x" * 300, ""}')

    @unittest.skipUnless(MANAGER, "LIFECYCLE_MANAGER names no lifecycle-manager program")
    def test_triggers_of_any_number_keep_it(self):
        self.expect_kept("map(str, range(2000))")

    def expect_kept(self, triggers):
        self.expect(self.start("""
            manager = LifecycleManager()
            manager.update_triggers(%s)
            await manager.start()
            manager.record_activity("a tool/call")
            await asyncio.sleep(6)
            os._exit(7)
            """ % triggers, under=(MANAGER, "exec", "--"), IDLE_TIMEOUT_MINUTES="0.06"), 7, "7")


if __name__ == "__main__":
    unittest.main()
