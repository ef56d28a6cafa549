import sys
import tempfile
import threading
import unittest

from dexorder.lifecycle_manager import LifecycleManager


class Threads(unittest.TestCase):
    """A trigger that is lost is an agent that is stopped at work."""

    def test_triggers_from_many_threads(self):
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        with tempfile.TemporaryDirectory() as directory:
            manager = LifecycleManager(run_dir=directory)

            def work(name):
                for i in range(300):
                    manager.add_trigger("%s-%d" % (name, i))
                    if i % 2:
                        manager.remove_trigger("%s-%d" % (name, i))

            threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(manager.active_triggers, {"%s-%d" % (n, i) for n in "abcdefgh" for i in range(0, 300, 2)})


if __name__ == "__main__":
    unittest.main()
