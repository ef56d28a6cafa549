"""When an agent is idle: the same rule as the Go package idle, as a pure function of times in seconds."""

from typing import NamedTuple, Optional


class Verdict(NamedTuple):
    """What is due now, and when to look again. Without a deadline nothing can stop the agent."""

    deadline: Optional[float] = None
    warn: bool = False
    stop: bool = False


def decide(timeout: float, warning: float, since: float, kept: bool, warned: Optional[float], now: float) -> Verdict:
    """Nobody is stopped who was not warned for the whole length of the warning, even if the look at the clock came late."""
    if kept:
        return Verdict()
    warning = min(warning, timeout)
    deadline = since + timeout
    if warned is None:
        if now < deadline - warning:
            return Verdict(deadline)
        return Verdict(max(deadline, now + warning), warn=True, stop=warning == 0 and now >= deadline)
    deadline = max(deadline, warned + warning)
    return Verdict(deadline, stop=now >= deadline)
