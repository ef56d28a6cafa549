import asyncio
import os
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler

from dexorder import _owner, _socket
from dexorder.lifecycle_manager import LifecycleManager
from tests.test_process import MANAGER, AgentProcess

HOLDER = """
import asyncio, os, time
from dexorder.lifecycle_manager import *
manager = LifecycleManager()
asyncio.run(manager.start())
manager.update_triggers(os.environ["TRIGGERS"].split())
time.sleep(60)
"""


@unittest.skipUnless(MANAGER, "LIFECYCLE_MANAGER names no lifecycle-manager program")
class Owners(AgentProcess):
    """Triggers of several processes and scripts under one manager."""

    def setUp(self):
        super().setUp()
        manager = subprocess.Popen([MANAGER, "exec", "--", "sleep", "300"], stderr=subprocess.DEVNULL,
                                   env=dict(os.environ, LIFECYCLE_RUN_DIR=self.dir.name))
        self.addCleanup(manager.wait)
        self.addCleanup(manager.terminate)
        self.await_file("lifecycle.sock")

    def script(self, *args):
        subprocess.run([MANAGER, *args], check=True, env=dict(os.environ, LIFECYCLE_RUN_DIR=self.dir.name))

    def triggers(self):
        status = _socket.call(self.path("lifecycle.sock"), "GET", "/v1/status")
        return {k["id"] for k in status["keptAliveBy"] if k["kind"] == "trigger"}

    def expect_triggers(self, *want):
        for _ in range(1000):
            if self.triggers() == set(want):
                return
            time.sleep(0.02)
        self.assertEqual(self.triggers(), set(want))

    def test_a_script_and_a_process(self):
        self.script("trigger", "add", "inbox", "--reason", "waits for an answer")
        process = self.start_script("""
import asyncio
from dexorder.lifecycle_manager import *
async def main():
    manager = LifecycleManager()
    await manager.start()
    manager.add_trigger("mine")
    await asyncio.sleep(0.3)
    manager.remove_trigger("mine")
    manager.update_triggers({"other"})
    manager.update_triggers([])
    await manager.stop()
asyncio.run(main())
""")
        self.expect(process, 0)
        self.expect_triggers("inbox")
        self.script("trigger", "remove", "inbox")
        self.expect_triggers()

    def test_processes_beside_each_other(self):
        self.start_script(HOLDER, TRIGGERS="a b")
        self.start_script(HOLDER, TRIGGERS="c")
        self.expect_triggers("a", "b", "c")
        self.expect(self.start_script(HOLDER.replace("time.sleep(60)", "manager.update_triggers(['d'])"), TRIGGERS="b"), 0)
        self.expect_triggers("a", "b", "c", "d")  # what a process ends with stays

    def test_the_same_program_started_again(self):
        killed = self.start_script(HOLDER, TRIGGERS="a")
        self.expect_triggers("a")
        killed.kill()
        killed.wait()
        self.start_script(HOLDER + "# another program", TRIGGERS="c")
        self.expect_triggers("a", "c")
        again = self.start_script(HOLDER, TRIGGERS="b")
        self.expect_triggers("b", "c")
        self.assertIsNone(again.poll())


class OlderManager(unittest.TestCase):
    """A manager that knows no owners is told the owner in the id."""

    def test_nothing_of_others_is_taken(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        triggers, calls = {"inbox"}, []

        class Handler(BaseHTTPRequestHandler):
            def answer(self, code=204):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                calls.append((self.command, self.path))
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_PUT(self):
                if not self.path.startswith("/v1/triggers/"):
                    return self.answer(404)
                triggers.add(self.path[len("/v1/triggers/"):])
                self.answer()

            def do_DELETE(self):
                triggers.discard(self.path[len("/v1/triggers/"):])
                self.answer()

            def do_GET(self):
                self.answer(404)

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingUnixStreamServer):
            def get_request(self):
                return super().get_request()[0], ("", 0)

        server = Server(os.path.join(directory.name, "lifecycle.sock"), Handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        async def work():
            manager = LifecycleManager(run_dir=directory.name)
            await manager.start()
            manager.update_triggers({"inbox", "job"})
            await asyncio.sleep(0.5)
            held = sorted(triggers)
            manager.remove_trigger("inbox")
            await manager.stop()
            return held

        held = asyncio.run(work())
        self.assertEqual(len(held), 3, held)
        self.assertTrue(any(t.endswith("%3Ainbox") for t in held) and any(t.endswith("%3Ajob") for t in held), held)
        self.assertEqual(len(triggers), 2, triggers)
        self.assertIn("inbox", triggers)
        self.assertNotIn(("PUT", "/v1/triggers"), calls)


class Names(unittest.TestCase):
    def test_a_process_that_lives(self):
        self.assertFalse(_owner.left_behind(_owner.owner(1)))
        self.assertNotEqual(_owner.owner(1), _owner.owner(2))
        self.assertEqual(_socket.as_id(_owner.owner(1)), _owner.owner(1))
        self.assertEqual(_owner.owner_in(_owner.owner(1) + ":a:trigger"), _owner.owner(1))

    @unittest.skipUnless(os.path.exists("/proc/self/stat"), "there is no /proc")
    def test_one_that_has_ended(self):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, _owner.owner(1).encode())
            os._exit(0)
        name = os.read(read, 1000).decode()
        os.close(read), os.close(write)
        for _ in range(1000):
            if _owner.left_behind(name):
                break
            time.sleep(0.01)
        self.assertTrue(_owner.left_behind(name), "one that was not waited for has ended all the same")
        os.waitpid(child, 0)
        self.assertTrue(_owner.left_behind(name))
        fields = name.split(":")
        for other in ("inbox", "another:" + ":".join(fields[1:]), ":".join(fields[:2] + ["1"] + fields[3:])):
            self.assertFalse(_owner.left_behind(other), other)


if __name__ == "__main__":
    unittest.main()
