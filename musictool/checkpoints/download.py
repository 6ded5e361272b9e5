"""Files over HTTP: several at a time, resumed where they broke off, each known by its digest.

A file that is under way is `NAME.part`; what it holds is kept when a run is interrupted, and the next run asks the
server for the rest. What is not known of a file beforehand is what its server says of it, as the Hugging Face hub does
in headers of its own. Waits and asks again where that may help. Knows no models; says how far it is and prints nothing.
"""

from __future__ import annotations

import http.client
import os
import queue
import random
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from musictool import __version__
from musictool.checkpoints.files import sha256_of
from musictool.checkpoints.published import SHA256_DIGITS, PublishedFile
from musictool.errors import InputError, UsageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

T = TypeVar("T")

PART_SUFFIX = ".part"
_BLOCK_BYTES = 1 << 16
_PARTING_SECONDS = 1.0
_HTTP_PARTIAL, _HTTP_ERROR, _HTTP_RANGE_ERROR = 206, 400, 416
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
_SHA256 = re.compile(rf"[0-9a-f]{{{SHA256_DIGITS}}}")
_HUB_SIZE, _HUB_SHA256 = "X-Linked-Size", "X-Linked-ETag"


@dataclass(frozen=True)
class Patience:
    """How long a download bears with a server.

    Attributes:
        tries: in a row that bring nothing, for one file.
        timeout_seconds: without a byte.
        first_wait_seconds: before the second try; doubled before each further one.
    """

    tries: int = 5
    timeout_seconds: float = 30.0
    first_wait_seconds: float = 0.5


def download(
    files: Sequence[PublishedFile],
    url: str,
    folder: Path,
    *,
    connections: int = 8,
    patience: Patience = Patience(),
) -> Generator[int, None, list[PublishedFile]]:
    """Fetch files into a folder; those that are there and right stay.

    Args:
        files: what to fetch.
        url: the folder they are in, `http` or `https`.
        folder: where they go; it is made.
        connections: at a time.
        patience: with the server.

    Yields:
        Counts of bytes that are there, as they come: less than zero where some have to come again, and the size of all
        files in sum. Closing the generator stops the work.

    Returns:
        The files, with what their server said of those of which not all was known.

    Raises:
        UsageError: the address is none.
        InputError: a file is not there, is not what was published, or the server can't be reached or does not say how
            long a file is; or another process fetches into the same folder.
        OSError: a file cannot be written.
    """
    base = checked_url(url)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        fetcher = _Fetcher(base, folder, patience)
        files = [file if file.is_known else fetcher.described(file) for file in files]
        _check_space(files, folder)
        pending = queue.SimpleQueue[PublishedFile]()
        for file in files:
            pending.put(file)
        # Daemons, since one that waits for a server must not keep an interrupted run from ending.
        threads = [threading.Thread(target=fetcher.work, args=(pending,), daemon=True) for _ in range(connections)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(len(files)):
                while (event := fetcher.events.get()) is not None:
                    if isinstance(event, BaseException):
                        raise event
                    yield event
        finally:
            fetcher.stop.set()
            deadline = time.monotonic() + _PARTING_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
    return list(files)


def missing_files(files: Sequence[PublishedFile], folder: Path) -> list[PublishedFile]:
    """Those of which a folder has none, or another size."""
    return [file for file in files if not _is_there(folder / file.path, file)]


def checked_url(url: str) -> str:
    """An address with a slash at the end.

    Raises:
        UsageError: it is not http or https.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UsageError(f"no address to fetch from: {url[:120]!r}", hint="give one with http:// or https://")
    return url if url.endswith("/") else url + "/"


class _Broken(Exception):
    """A try that failed in a way that another may not."""


class _Stopped(Exception):
    """The run is over."""


class _Fetcher:
    """What the threads of a download share. Each file sends counts of bytes, and None when it is done."""

    def __init__(self, base: str, folder: Path, patience: Patience) -> None:
        self.events: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._base, self._folder, self._patience = base, folder, patience

    def work(self, pending: queue.SimpleQueue[PublishedFile]) -> None:
        """Fetch files until there are none left, or something is in the way."""
        try:
            while not self.stop.is_set():
                self._fetch(pending.get_nowait())
                self.events.put(None)
        except (queue.Empty, _Stopped):
            pass
        except BaseException as error:  # it is raised where the events are read
            self.events.put(error)

    def described(self, file: PublishedFile) -> PublishedFile:
        """A file with what its server says of it, beside what is known.

        Raises:
            InputError: it is another one than is known, or the server does not say how long it is.
        """
        size, sha256 = self._persist(file, lambda: self._ask(file), lambda: 0)
        if file.size is not None and size is not None:
            self._check_size(file, size)
        told = file.size if size is None else size
        if told is None:
            raise InputError(
                "the server does not say how long the file is",
                context=self._url(file),
                hint="name another mirror with --from",
                code="wrong-size",
            )
        if sha256 and not sha256.startswith(file.sha256):
            raise self._wrong_digest(file)
        return replace(file, size=told, sha256=sha256 or file.sha256)

    def _fetch(self, file: PublishedFile) -> None:
        path = self._folder / file.path
        if file.sha256 and _is_there(path, file) and _is_right(path, file):
            self.events.put(_size(path))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + PART_SUFFIX)
        if not file.sha256:  # nothing would tell whether it began as another file
            part.unlink(missing_ok=True)
        is_resumed = _size(part) > 0
        tally = _Tally(self.events)
        self._complete(file, part, tally)
        if is_resumed and not _is_right(part, file):  # its beginning may have been another version's
            part.unlink()
            self._complete(file, part, tally)
        if not _is_right(part, file):
            part.unlink()
            raise self._wrong_digest(file)
        os.replace(part, path)

    def _complete(self, file: PublishedFile, part: Path, tally: _Tally) -> None:
        """Fetch the rest of a file."""
        self._persist(file, lambda: self._try(file, part, tally), lambda: _size(part))

    def _persist(self, file: PublishedFile, attempt: Callable[[], T], progress: Callable[[], int]) -> T:
        """Try, and try again after what another try may mend; one that brought something does not count."""
        failed = 0
        while True:
            before = progress()
            try:
                return attempt()
            except _Broken as error:
                failed = failed + 1 if progress() <= before else 1
                if failed >= self._patience.tries:
                    hint = "try again later: what has come is kept; or name a mirror with --from"
                    message = f"cannot be fetched: {error}"
                    raise InputError(message, context=self._url(file), hint=hint, code="unreachable") from error
            wait = self._patience.first_wait_seconds * 2 ** (failed - 1) * random.uniform(0.75, 1.25)
            if self.stop.wait(wait):
                raise _Stopped

    def _ask(self, file: PublishedFile) -> tuple[int | None, str]:
        """Ask for the size and the sha256 of a file, once; None and nothing for what the server does not say.

        Raises:
            _Broken: another try may help.
            InputError: none will.
        """
        with self._response(self._request(file, "HEAD"), None, _StaysAtTheHub()) as response:
            length = response.headers.get(_HUB_SIZE) or response.headers.get("Content-Length", "")
            sha256 = response.headers.get(_HUB_SHA256, "").strip('"').lower()
        return int(length) if length.isdecimal() else None, sha256 if _SHA256.fullmatch(sha256) else ""

    def _try(self, file: PublishedFile, part: Path, tally: _Tally) -> None:
        """Ask for what a part lacks, once.

        Raises:
            _Broken: another try may help.
            InputError: none will.
        """
        size = _known_size(file)
        have = _size(part)
        if have > size:
            have = 0
        tally.is_at(have)
        if have == size:
            part.touch()
            return
        request = self._request(file)
        if have:
            request.add_header("Range", f"bytes={have}-")
        with self._response(request, part) as response:
            if response.status != _HTTP_PARTIAL:
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise _Broken("the server sent another part of the file than it was asked for")
            length = response.headers.get("Content-Length", "")
            if length.isdecimal():
                self._check_size(file, have + int(length))
            with _opened(part, have) as sink:
                while have < size:
                    with _network():
                        block = response.read(min(_BLOCK_BYTES, size - have))
                    if self.stop.is_set():
                        raise _Stopped
                    if not block:
                        raise _Broken("the connection was closed early")
                    sink.write(block)
                    have += len(block)
                    tally.is_at(have)

    def _request(self, file: PublishedFile, method: str = "GET") -> urllib.request.Request:
        headers = {"User-Agent": f"musictool/{__version__}"}
        return urllib.request.Request(self._url(file), headers=headers, method=method)

    @contextmanager
    def _response(self, request: urllib.request.Request, part: Path | None, *handlers: Any) -> Iterator[Any]:
        """What a server answers; 200 or 206, or where it does not send the file but says what it is.

        Args:
            request: for a file.
            part: what is there of it, to be dropped if the server has no such rest.
            handlers: further ones of urllib's.
        """
        opener = urllib.request.build_opener(*handlers)
        try:
            with _network():
                response = opener.open(request, timeout=self._patience.timeout_seconds)
        except urllib.error.HTTPError as error:
            response = error
            if error.code >= _HTTP_ERROR or _HUB_SIZE not in error.headers:
                self._refused(error, request, part)
        with response:
            yield response

    def _refused(self, error: urllib.error.HTTPError, request: urllib.request.Request, part: Path | None) -> NoReturn:
        error.close()
        if error.code == _HTTP_RANGE_ERROR and part is not None:
            part.unlink(missing_ok=True)
            raise _Broken("the server cannot resume the file") from error
        if error.code in _WORTH_ANOTHER_TRY:
            raise _Broken(f"the server says {error.code} {error.reason}") from error
        raise InputError(
            f"cannot be fetched: the server says {error.code} {error.reason}",
            context=request.full_url,
            hint="name another mirror with --from",
            code="not-at-server",
        ) from error

    def _check_size(self, file: PublishedFile, size: int) -> None:
        if size != file.size:
            raise InputError(
                f"the file is not the one that was published: {size} bytes in place of {file.size}",
                context=self._url(file),
                hint="name another mirror with --from",
                code="wrong-size",
            )

    def _wrong_digest(self, file: PublishedFile) -> InputError:
        return InputError(
            "the file is not the one that was published: its sha256 differs",
            context=self._url(file),
            hint="try again, or name another mirror with --from",
            code="wrong-digest",
        )

    def _url(self, file: PublishedFile) -> str:
        return self._base + quote(file.path)


class _StaysAtTheHub(urllib.request.HTTPRedirectHandler):
    """Takes the hub's word for a file, and does not go on to where those who want the file itself are sent."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if _HUB_SIZE in headers:
            return None
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.method = req.get_method()  # before Python 3.13 a HEAD would become a GET
        return request


class _Tally:
    """Tells how far a file is."""

    def __init__(self, events: queue.SimpleQueue[Any]) -> None:
        self._events, self._told = events, 0

    def is_at(self, size: int) -> None:
        if size != self._told:
            self._events.put(size - self._told)
            self._told = size


@contextmanager
def _network() -> Iterator[None]:
    """Turn what may go wrong on the way into a failed try; what the server says passes."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _Broken(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from error


@contextmanager
def _opened(part: Path, have: int) -> Iterator[BinaryIO]:
    """A part to write on after its first bytes, with its name in the disk's errors."""
    try:
        with open(part, "ab" if have else "wb") as file:
            yield file
    except OSError as error:
        error.filename = str(part)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to the same parts, where the system has locks for that."""
    if fcntl is None:
        yield
        return
    with open(folder / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another process is fetching the same files", context=str(folder), hint="wait for it", code="busy"
            ) from error
        yield


def _check_space(files: Sequence[PublishedFile], folder: Path) -> None:
    needed = sum(map(_known_size, missing_files(files, folder)))
    needed -= sum(_size(folder / (file.path + PART_SUFFIX)) for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"no space: {needed:,} bytes are to come, and {free:,} are free",
            context=str(folder),
            hint="free some space, or set MTK_HOME to another disk",
            code="no-space",
        )


def _is_there(path: Path, file: PublishedFile) -> bool:
    return path.is_file() and _size(path) == file.size


def _is_right(path: Path, file: PublishedFile) -> bool:
    """Whether a file has the digest, as far as it is known."""
    return sha256_of(path).startswith(file.sha256)


def _known_size(file: PublishedFile) -> int:
    """The size of a file that is known, or was asked for."""
    assert file.size is not None
    return file.size


def _size(path: Path) -> int:
    """A file's size; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
