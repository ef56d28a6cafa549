"""HTTP over a Unix socket, as far as the lifecycle manager's API takes it."""

import errno
import hashlib
import http.client
import json
import socket
import string
from typing import Any, Optional
from urllib.parse import quote


_PLAIN = string.punctuation.replace("/", "").replace("%", "")
_MAX_ID = 253


def as_id(name: Any) -> str:
    """An id that the manager takes, whatever the agent calls its triggers: one that is refused would keep nobody alive."""
    text = quote(str(name), safe=_PLAIN, errors="replace") or "%"
    if len(text) > _MAX_ID:
        digest = hashlib.sha256(text.encode()).hexdigest()
        text = text[: _MAX_ID - len(digest)] + digest
    return text


class NotServed(ValueError):
    """The manager has no such path: it is of another version."""


class UnixConnection(http.client.HTTPConnection):
    """A connection to the manager's socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("lifecycle", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def is_served(path: str) -> bool:
    """Whether a manager listens at the socket, be it too busy to answer or not for this user: then it is the one that decides."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(5.0)
        probe.connect(path)
        return True
    except OSError as error:
        return isinstance(error, socket.timeout) or error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)
    finally:
        probe.close()


def call(path: str, method: str, target: str, body: Optional[Any] = None, timeout: float = 5.0) -> Any:
    """Sends one request. Raises OSError if the manager is not reached, ValueError if it refuses."""
    connection = UnixConnection(path, timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, target, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        if response.status == 404:
            raise NotServed(data.decode(errors="replace").strip())
        if response.status >= 400:
            raise ValueError(data.decode(errors="replace").strip())
        return json.loads(data) if data else None
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
