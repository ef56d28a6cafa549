import unittest

from dexorder._idleness import Verdict, decide


class Decide(unittest.TestCase):
    """The same table as the Go package's: a timeout of 10 minutes, a warning of 1, times in minutes."""

    def test_table(self):
        for name, kept, warned, now, want in [
            ("long before", False, None, 1, Verdict(10)),
            ("the warning is due", False, None, 9, Verdict(10, warn=True)),
            ("the warning is late", False, None, 60, Verdict(61, warn=True)),
            ("warned late", False, 60, 60.5, Verdict(61)),
            ("the stop is due", False, 9, 10, Verdict(10, stop=True)),
            ("kept", True, 9, 60, Verdict()),
        ]:
            with self.subTest(name):
                self.assertEqual(decide(10, 1, 0, kept, warned, now), want)
