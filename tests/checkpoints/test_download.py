"""Files over HTTP: whatever a server does, what is there in the end is right, or one line says why not."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from musictool.checkpoints.download import Patience, download, missing_files
from musictool.checkpoints.published import PublishedFile
from musictool.errors import InputError, UsageError
from tests.checkpoints.server import Behaviour, serving

HASTE = Patience(tries=3, timeout_seconds=5.0, first_wait_seconds=0.001)
SIZES = {"checkpoint": 5000, "target.a/.zarray": 90, "target.a/0.0": 300_000, "target.b/0.0": 1, "empty": 0}
BIG = "target.a/0.0"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A folder of files to serve."""
    generator = random.Random(0)
    for name, size in SIZES.items():
        path = tmp_path / "remote" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.randbytes(size))
    return tmp_path / "remote"


@pytest.fixture
def files(remote: Path) -> list[PublishedFile]:
    return [
        PublishedFile(name, size, hashlib.sha256((remote / name).read_bytes()).hexdigest())
        for name, size in SIZES.items()
    ]


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def url(remote: Path, behaviour: Behaviour) -> Iterator[str]:
    with serving(remote, behaviour) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "local"


def fetch(files: list[PublishedFile], url: str, folder: Path) -> int:
    """Download all; how many bytes were told of."""
    return sum(download(files, url, folder, connections=3, patience=HASTE))


def assert_whole(remote: Path, folder: Path) -> None:
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}
    assert there == set(SIZES)
    assert all((folder / name).read_bytes() == (remote / name).read_bytes() for name in SIZES)


def put_part(remote: Path, folder: Path, size: int, spoil: bool = False) -> None:
    """What an interrupted run left of the big file."""
    part = folder / f"{BIG}.part"
    part.parent.mkdir(parents=True)
    data = (remote / BIG).read_bytes()[:size]
    part.write_bytes(bytes(len(data)) if spoil else data)


def test_files_arrive_and_every_byte_is_told_of(remote, files, behaviour, url, folder):
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)
    assert set(behaviour.asked()) == set(SIZES) - {"empty"}
    assert not missing_files(files, folder)


def test_what_is_there_is_not_fetched_again(remote, files, behaviour, url, folder):
    fetch(files, url, folder)
    (folder / "checkpoint").write_bytes(bytes(SIZES["checkpoint"]))  # of the right size
    (folder / "target.b" / "0.0").unlink()
    behaviour.requests.clear()
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)
    assert behaviour.asked() == {"checkpoint": 1, "target.b/0.0": 1}


@pytest.mark.parametrize("size", [1, 100_000, 299_999, 300_000])
def test_a_part_is_resumed_where_it_broke_off(remote, files, behaviour, url, folder, size):
    put_part(remote, folder, size)
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)
    assert [asked for path, asked in behaviour.requests if path == BIG] == (
        [f"bytes={size}-"] if size < 300_000 else []
    )


@pytest.mark.parametrize("habits", [{"ranges": False}, {"ranges": False, "range_status": 416}, {"shifted": True}])
def test_a_server_that_cannot_resume_sends_all_of_it(remote, files, behaviour, url, folder, habits):
    for name, value in habits.items():
        setattr(behaviour, name, value)
    put_part(remote, folder, 100_000)
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)


@pytest.mark.parametrize("size", [100_000, 300_000, 300_001])
def test_a_part_of_something_else_is_fetched_anew(remote, files, behaviour, url, folder, size):
    put_part(remote, folder, 300_000, spoil=True)
    part = folder / f"{BIG}.part"
    part.write_bytes(part.read_bytes()[:size].ljust(size, b"x"))
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)


def test_a_connection_that_drops_is_taken_up_again(remote, files, behaviour, url, folder):
    behaviour.drops[BIG] = [100_000, 1, 50_000, 2, 3, 4, 5]  # more often than it tries in vain
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)
    assert behaviour.asked()[BIG] == 8
    assert behaviour.requests.count((BIG, "bytes=100001-")) == 1


def test_a_server_that_sends_another_part_is_asked_for_all_of_it(remote, files, behaviour, url, folder):
    behaviour.drops[BIG] = [100_000]
    behaviour.shifted = True
    assert fetch(files, url, folder) == sum(SIZES.values())
    assert_whole(remote, folder)
    assert [asked for path, asked in behaviour.requests if path == BIG] == ["", "bytes=100000-", ""]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(remote, files, behaviour, url, folder, status):
    behaviour.failures["checkpoint"] = [status, status]
    fetch(files, url, folder)
    assert_whole(remote, folder)
    assert behaviour.asked()["checkpoint"] == 3


def test_a_server_that_stays_busy_is_given_up_and_may_be_asked_later(remote, files, behaviour, url, folder):
    behaviour.failures["target.b/0.0"] = [503] * 9
    with pytest.raises(InputError, match="503") as caught:
        fetch([file for file in files if file.path in (BIG, "target.b/0.0")], url, folder)
    assert caught.value.context == f"{url}target.b/0.0"
    assert behaviour.asked()["target.b/0.0"] == 3
    behaviour.failures["target.b/0.0"] = []
    fetch(files, url, folder)
    assert_whole(remote, folder)


def test_a_file_that_is_not_there_is_named_at_once(files, behaviour, url, folder):
    behaviour.missing.add(BIG)
    with pytest.raises(InputError, match="404") as caught:
        fetch(files, url, folder)
    assert caught.value.context == url + BIG
    assert behaviour.asked()[BIG] == 1


def test_a_corrupted_byte_is_noticed_and_nothing_of_it_kept(files, behaviour, url, folder):
    behaviour.corrupt.add(BIG)
    with pytest.raises(InputError, match="sha256 differs") as caught:
        fetch(files, url, folder)
    assert caught.value.context == url + BIG
    assert caught.value.exit_status == 3
    assert not list((folder / "target.a").glob("0.0*"))


def test_a_file_of_another_size_is_refused_before_it_comes(files, behaviour, url, folder):
    behaviour.longer.add(BIG)
    with pytest.raises(InputError, match="300001 bytes in place of 300000"):
        fetch(files, url, folder)


def test_no_server_is_one_error(files, folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(InputError, match=r"cannot be fetched: .*refused"):
            fetch(files, url, folder)


def test_a_server_that_says_nothing_is_left(files, folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        patience = Patience(tries=2, timeout_seconds=0.05, first_wait_seconds=0.001)
        with pytest.raises(InputError, match="timed out"):
            list(download(files[:1], url, folder, patience=patience))


@pytest.mark.parametrize("url", ["", "file:///etc/", "ftp://x/", "x/y", "http://", "/tmp"])
def test_what_is_no_address_is_refused(files, folder, url):
    with pytest.raises(UsageError, match="no address"):
        fetch(files, url, folder)


def test_an_address_needs_no_slash_at_its_end(remote, files, url, folder):
    fetch(files, url.rstrip("/"), folder)
    assert_whole(remote, folder)


def test_a_full_disk_is_told_before_a_byte_comes(files, behaviour, url, folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=300_000))
    with pytest.raises(InputError, match="no space"):
        fetch(files, url, folder)
    assert not behaviour.requests


def test_a_disk_that_fills_up_is_an_error_with_the_files_name(files, url, folder):
    code = f"""
import resource, signal
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from musictool.checkpoints.download import download
from musictool.checkpoints.published import PublishedFile
try:
    list(download([PublishedFile{tuple(vars(files[2]).values())!r}], {url!r}, Path({str(folder)!r})))
except OSError as error:
    print(error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(folder / f"{BIG}.part"), done.stderr


def test_two_runs_do_not_write_to_one_folder(files, behaviour, url, folder):
    behaviour.failures["checkpoint"] = [503] * 2
    patience = Patience(tries=5, first_wait_seconds=0.2)
    first = download(files[:2], url, folder, connections=2, patience=patience)
    next(first)
    with pytest.raises(InputError, match="another process"):
        fetch(files, url, folder)
    list(first)
    fetch(files, url, folder)


def test_an_interrupted_run_keeps_what_came_and_ends_at_once(remote, files, behaviour, folder):
    slow = Behaviour(drops={BIG: [100_000]}, failures={})
    code = f"""
import sys
from pathlib import Path
from musictool.checkpoints.download import Patience, download
from musictool.checkpoints.published import PublishedFile
file = PublishedFile{tuple(vars(files[2]).values())!r}
for count in download([file], sys.argv[1], Path({str(folder)!r}), patience=Patience(9, 30.0, 60.0)):
    print(count, flush=True)
"""
    with serving(remote, slow) as url:
        with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            while not (folder / f"{BIG}.part").exists() or (folder / f"{BIG}.part").stat().st_size < 100_000:
                time.sleep(0.01)
            begin = time.monotonic()
            run.send_signal(signal.SIGINT)
            assert run.wait(20) != 0
            assert time.monotonic() - begin < 5
            assert b"KeyboardInterrupt" in run.stderr.read()
        fetch([files[2]], url, folder)
    assert slow.requests[-1] == (BIG, "bytes=100000-")
    assert (folder / BIG).read_bytes() == (remote / BIG).read_bytes()


def test_an_interrupted_run_does_not_wait_for_a_silent_server(files, folder):
    code = f"""
import sys
from pathlib import Path
from musictool.checkpoints.download import download
from musictool.checkpoints.published import PublishedFile
list(download([PublishedFile{tuple(vars(files[2]).values())!r}], sys.argv[1], Path({str(folder)!r})))
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.DEVNULL) as run:
            connection, _ = silent.accept()
            begin = time.monotonic()
            run.send_signal(signal.SIGINT)
            assert run.wait(20) != 0
            assert time.monotonic() - begin < 5
            connection.close()


def test_closing_the_generator_stops_the_work(files, behaviour, url, folder):
    behaviour.failures[BIG] = [503] * 99
    counts = download(files, url, folder, connections=1, patience=Patience(tries=99, first_wait_seconds=60))
    next(counts)
    while not behaviour.asked()[BIG]:
        time.sleep(0.01)
    begin = time.monotonic()
    counts.close()
    time.sleep(0.05)
    assert time.monotonic() - begin < 2
    assert behaviour.asked()[BIG] == 1


# ------------------------------------------------------------------------------------- files of which not all is known


def half_known(files: list[PublishedFile], digits: int = 0, **sizes: int) -> list[PublishedFile]:
    """Files of which the size is not known, and of the digest no more than some digits."""
    return [PublishedFile(file.path, sizes.get(file.path), file.sha256[:digits]) for file in files]


def fetch_and_see(files: list[PublishedFile], url: str, folder: Path) -> list[PublishedFile]:
    """Download all; what is known of the files then."""
    work = download(files, url, folder, connections=3, patience=HASTE)
    try:
        while True:
            next(work)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("digits", [0, 8])
def test_what_is_not_known_of_a_file_its_server_says(remote, files, behaviour, url, folder, digits):
    behaviour.stored = set(SIZES)
    assert fetch_and_see(half_known(files, digits), url, folder) == files
    assert_whole(remote, folder)


def test_a_server_that_knows_no_digests_is_asked_for_sizes(remote, files, behaviour, url, folder):
    assert fetch_and_see(half_known(files, 8), url, folder) == [
        PublishedFile(file.path, file.size, file.sha256[:8]) for file in files
    ]
    assert_whole(remote, folder)


def test_the_first_digits_of_a_digest_are_held_to(files, behaviour, url, folder):
    behaviour.corrupt.add(BIG)
    with pytest.raises(InputError, match="sha256 differs"):
        fetch(half_known(files, 8), url, folder)
    assert not list((folder / "target.a").glob("0.0*"))


def test_what_the_server_says_of_a_digest_is_held_to(files, behaviour, url, folder):
    behaviour.stored = set(SIZES)
    behaviour.corrupt.add(f"stored/{BIG}")
    with pytest.raises(InputError, match="sha256 differs"):
        fetch(half_known(files), url, folder)
    assert not list((folder / "target.a").glob("0.0*"))


def test_another_file_is_refused_before_it_comes(files, behaviour, url, folder):
    behaviour.stored = set(SIZES)
    other = [PublishedFile(BIG, None, "0" * 8)]
    with pytest.raises(InputError, match="sha256 differs"):
        fetch(other, url, folder)
    with pytest.raises(InputError, match="300000 bytes in place of 7"):
        fetch([PublishedFile(BIG, 7, files[2].sha256[:8])], url, folder)
    assert not behaviour.asked()


def test_a_file_that_nothing_is_known_of_is_fetched_from_its_beginning(remote, files, behaviour, url, folder):
    put_part(remote, folder, 100_000, spoil=True)
    fetch(half_known(files), url, folder)
    assert_whole(remote, folder)
    (remote / BIG).write_bytes(random.Random(1).randbytes(SIZES[BIG]))  # another version of the same size
    fetch(half_known(files), url, folder)
    assert_whole(remote, folder)


def test_a_part_of_a_file_whose_digest_the_server_says_is_resumed(remote, files, behaviour, url, folder):
    behaviour.stored = {BIG}
    put_part(remote, folder, 100_000)
    fetch(half_known(files), url, folder)
    assert_whole(remote, folder)
    assert [asked for path, asked in behaviour.requests if path == f"stored/{BIG}"] == ["bytes=100000-"]


def test_a_server_that_does_not_say_how_long_a_file_is_is_an_error(files, behaviour, url, folder):
    behaviour.silent = True
    with pytest.raises(InputError, match="does not say how long") as caught:
        fetch(half_known(files), url, folder)
    assert caught.value.context.startswith(url)


def test_asking_waits_for_a_busy_server_and_gives_up_on_one_that_stays_so(remote, files, behaviour, url, folder):
    behaviour.failures["checkpoint"] = [503, 503]
    fetch(half_known(files), url, folder)
    assert_whole(remote, folder)
    behaviour.failures["checkpoint"] = [503] * 9
    with pytest.raises(InputError, match="503"):
        fetch(half_known(files), url, folder)
    behaviour.missing.add(BIG)
    behaviour.failures.clear()
    with pytest.raises(InputError, match="404"):
        fetch(half_known(files), url, folder)
