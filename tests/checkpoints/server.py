"""A web server on this machine that can be as unhelpful as those on the network."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Behaviour:
    """What a server does beside serving a folder.

    Attributes:
        ranges: whether it sends the rest of a file when asked to.
        range_status: what it answers to such a question if it does not; 200 sends all of it.
        shifted: whether the rest that it sends begins elsewhere.
        failures: by path, status codes of its first answers.
        drops: by path, after how many bytes it closes the connection, once each.
        corrupt: paths of which it sends another first byte.
        longer: paths of which it sends a byte more.
        missing: paths that it does not have.
        stored: paths that it sends on to `stored/PATH`, saying how long they are and what their sha256 is, as the
            Hugging Face hub does.
        silent: whether it says how long nothing is.
        requests: what it was asked for: path, and the range.
    """

    ranges: bool = True
    range_status: int = 200
    shifted: bool = False
    failures: dict[str, list[int]] = field(default_factory=dict)
    drops: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    longer: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    silent: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)

    def asked(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(path for path, _ in self.requests)


@contextmanager
def serving(folder: Path, behaviour: Behaviour) -> Iterator[str]:
    """Serve a folder; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path).lstrip("/")
            asked = self.headers.get("Range", "")
            if self.command == "GET":
                behaviour.requests.append((path, asked))
            if behaviour.failures.get(path):
                return self.send_error(behaviour.failures[path].pop(0))
            data = self.read(path.removeprefix("stored/"))
            if data is None:
                return self.send_error(404)
            if path in behaviour.stored:
                self.send_response(302)
                self.send_header("Location", f"/stored/{path}")
                self.send_header("X-Linked-Size", str(len(data)))
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if path in behaviour.corrupt:
                data = bytes([data[0] ^ 1]) + data[1:]
            if path in behaviour.longer:
                data += b"\0"
            start, match = 0, re.fullmatch(r"bytes=(\d+)-", asked)
            if match and behaviour.ranges:
                start = int(match[1])
                if start >= len(data):
                    return self.send_error(416)
                self.send_response(206)
                if behaviour.shifted:
                    start, data = start + 1, data + data[:1]
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            elif match and behaviour.range_status != 200:
                return self.send_error(behaviour.range_status)
            else:
                self.send_response(200)
            body = data[start:]
            if behaviour.silent:
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return None
            if behaviour.drops.get(path):
                body = body[: behaviour.drops[path].pop(0)]
                self.close_connection = True
            self.wfile.write(body)
            return None

        def read(self, path: str) -> bytes | None:
            is_there = path not in behaviour.missing and (folder / path).is_file()
            return (folder / path).read_bytes() if is_there else None

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
