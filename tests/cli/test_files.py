"""Which files are read, under which names, and what is on the disk after whatever happened."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictool.cli.environment import Environment
from musictool.cli.files import OutputPlan, Shard, atomic_writer, expand_inputs, refuse_terminal
from musictool.errors import InputError, UsageError

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files and the working folder."""
    for name in (
        "b.mid",
        "A.MID",
        "sub/a.mid",
        "sub/deep/c.midi",
        "notes.txt",
        ".hidden.mid",
        ".git/x.mid",
        "sub-z/q.mid",
    ):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(environment: Environment, *arguments: str) -> list[str]:
    return [source.name for source in expand_inputs(arguments, (".mid", ".midi"), environment)]


# ----------------------------------------------------------------------------------------------------------- inputs


def test_folder_is_walked_in_byte_order_without_hidden_files(tree, environment):
    sources = expand_inputs(["corpus"], (".mid", ".midi"), environment)
    assert [source.name for source in sources] == ["A", "b", "sub-z/q", "sub/a", "sub/deep/c"]
    assert [source.path for source in sources] == [
        Path("corpus", name) for name in ("A.MID", "b.mid", "sub-z/q.mid", "sub/a.mid", "sub/deep/c.midi")
    ]


def test_order_is_that_of_bytes_and_of_no_locale(tmp_path, environment):
    for name in ("a.mid", "Z.mid", "é.mid", "b/a.mid", "b-c.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(environment, str(tmp_path)) == ["Z", "a", "b-c", "b/a", "é"]


def test_named_file_is_taken_whatever_its_suffix(tree, environment):
    Path(".mid").touch()
    assert names(environment, "corpus/notes.txt", "corpus/.hidden.mid", ".mid") == ["notes", ".hidden", ".mid"]


def test_pattern_is_expanded_and_named_below_its_fixed_part(tree, environment):
    assert names(environment, "corpus/*.mid") == ["b"]
    assert names(environment, "corpus/**/*.mid*") == ["b", "sub-z/q", "sub/a", "sub/deep/c"]
    assert names(environment, "corpus/sub*/[aq].mid") == ["sub-z/q", "sub/a"]


def test_file_whose_name_looks_like_a_pattern_is_a_file(tree, environment):
    Path("take[1].mid").touch()
    assert names(environment, "take[1].mid") == ["take[1]"]


@pytest.mark.parametrize("arguments", [[], ["-"], None])
def test_standard_input_is_a_dash_or_nothing(environment, arguments):
    (source,) = expand_inputs(arguments, (".mid",), environment)
    assert (source.path, source.name, source.error) == (None, "stdin", None)


def test_nothing_on_a_terminal_is_wrong_usage_and_a_dash_is_not(environment, terminal):
    environment.stdin = terminal
    with pytest.raises(UsageError) as caught:
        expand_inputs([], (".mid",), environment)
    assert caught.value.hint
    assert expand_inputs(["-"], (".mid",), environment)[0].path is None


def test_standard_input_is_read_once(environment):
    with pytest.raises(UsageError, match="twice"):
        expand_inputs(["-", "-"], (".mid",), environment)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("lost.mid", "no such file"),
        ("lost*.mid", "no file matches"),
        ("empty", r"\.mid or \.midi"),
        ("", "no such file"),
    ],
)
def test_one_argument_that_leads_nowhere_fails_and_one_of_several_is_an_item(tree, environment, argument, words):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=words):
        names(environment, argument)
    good, bad = expand_inputs(["corpus/b.mid", argument], (".mid", ".midi"), environment)
    assert good.error is None
    assert bad.error is not None
    assert bad.error.code == "no-such-file"


def test_colliding_names_keep_their_suffix_and_are_then_counted(tree, environment):
    for name in ("x/take.mid", "y/take.mid", "take.midi", "take.mid-2"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert names(environment, "x/take.mid", "y/take.mid", "take.midi") == ["take.mid", "take.mid-2", "take.midi"]
    assert names(environment, "take.midi", "x/take.mid", "corpus/b.mid") == ["take.midi", "take.mid", "b"]


@given(
    st.lists(
        st.sampled_from(["a.mid", "a.midi", "a", "a.mid.mid", "b.mid", "x/a.mid", "a.mid-2", "a-2.mid"]), min_size=1
    )
)
def test_names_are_unique_whatever_is_given(arguments):
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO())
    found = expand_inputs([*arguments, "never-there"], (".mid", ".midi"), environment)
    assert len({source.name for source in found}) == len(found) == len(arguments) + 1


@posix_only
def test_name_is_fit_for_a_stream_and_a_terminal(tree, environment):
    folder = b"strange"
    os.mkdir(folder)
    for name in (b"\xff\xfe.mid", b"two\nlines.mid", b"\x1b[31m.mid", "曲 名.mid".encode()):
        open(os.path.join(folder, name), "wb").close()
    found = names(environment, "strange")
    assert "曲 名" in found
    for name in found:
        name.encode()
        assert name.replace("\ufffd", "?").isprintable()


@posix_only
def test_circle_of_links_ends_and_a_linked_folder_is_walked(tree, environment):
    Path("corpus/sub/up").symlink_to("..")
    Path("corpus/self").symlink_to("self")
    Path("corpus/self.mid").symlink_to("self.mid")
    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "e.mid").touch()
    Path("corpus/linked").symlink_to(elsewhere.absolute())
    assert names(environment, "corpus") == ["A", "b", "linked/e", "self", "sub-z/q", "sub/a", "sub/deep/c"]


@posix_only
def test_pipe_is_a_file_when_named_and_is_left_out_of_a_folder(tree, environment):
    os.mkfifo("corpus/pipe.mid")
    assert names(environment, "corpus/pipe.mid") == ["pipe"]
    assert "pipe" not in names(environment, "corpus")


def test_folder_that_cannot_be_read_is_a_failed_item(tree, environment, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    failed = [source for source in expand_inputs(["corpus"], (".mid", ".midi"), environment) if source.error]
    assert [source.name for source in failed] == ["sub/deep"]
    assert failed[0].error.message == "permission denied"


# ----------------------------------------------------------------------------------------------------------- shards


@given(st.integers(1, 40), st.integers(0, 100))
def test_shards_are_disjoint_and_cover_everything(count, size):
    items = list(range(size))
    shares = [Shard.parse(f"{number}/{count}").take(items) for number in range(1, count + 1)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "1/ 4", "1/4/2", "a/b", "1.0/4", "\u0661/\u0664", "1/4\n"]
)
def test_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(UsageError, match="no such shard"):
        Shard.parse(text)


# -------------------------------------------------------------------------------------------------------- the plan


def test_output_is_standard_output_a_file_a_folder_or_a_template(tmp_path):
    folder = str(tmp_path)
    assert OutputPlan(None, ".mid").path_for("a") is None
    assert OutputPlan("-", ".mid").path_for("a") is None
    assert OutputPlan("x.mid", ".mid").path_for("a/b") == Path("x.mid")
    assert OutputPlan("new/", ".mid").path_for("a/b") == Path("new/a/b.mid")
    assert OutputPlan(folder, ".mid").path_for("a") == tmp_path / "a.mid"
    assert OutputPlan("out/{stem}.x", ".mid").path_for("a/b") == Path("out/b.x")
    assert OutputPlan("out/{name}.x", ".mid").path_for("a/b") == Path("out/a/b.x")


def test_single_file_is_told_apart(tmp_path):
    assert OutputPlan("x.mid", ".mid").is_single_file
    assert not any(OutputPlan(output, ".mid").is_single_file for output in (None, "-", "x/", "{stem}", str(tmp_path)))


@pytest.mark.parametrize(
    "plan",
    [
        {"output": "x/", "force": True, "skip_existing": True},
        {"output": None, "skip_existing": True},
        {"output": ""},
        {"output": "{shard}.mid"},
        {"output": "{stem.__class__}.mid"},
        {"output": "{stem}/"},
    ],
)
def test_contradictions_are_refused_before_any_work(plan):
    with pytest.raises(UsageError) as caught:
        OutputPlan(suffix=".mid", **plan)
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        ".",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "a\u2028b",
        "\ud800",
    ],
)
@pytest.mark.parametrize("output", ["out/", "out/{stem}.mid", "{name}"])
def test_name_from_a_stranger_cannot_leave_the_folder(name, output):
    with pytest.raises(InputError) as caught:
        OutputPlan(output, ".mid").path_for(name)
    assert caught.value.code == "unsafe-name"
    assert len(str(caught.value)) < 200


@given(st.text(max_size=300))
def test_any_name_is_refused_or_lies_in_the_folder(name):
    try:
        path = OutputPlan("out/", ".mid").path_for(name)
    except InputError:
        return
    assert Path("out") in path.parents
    assert Path(os.path.normpath(path)) == path
    assert max(len(os.fsencode(part)) for part in path.parts) <= 255


@pytest.mark.parametrize("name", ["n" * 252, "ü" * 126, "/".join(["n" * 250] * 17)])
def test_name_too_long_for_a_file_is_refused(name):
    with pytest.raises(InputError, match="too long"):
        OutputPlan("out/", ".mid").path_for(name)


def test_two_items_never_share_a_file(tmp_path):
    single = OutputPlan(str(tmp_path / "x.mid"), ".mid")
    single.path_for("a")
    with pytest.raises(UsageError, match="more than one item"):
        single.path_for("b")
    folder = OutputPlan(f"{tmp_path}/", ".mid")
    folder.path_for("a")
    with pytest.raises(InputError, match="another item"):
        folder.path_for("a")
    template = OutputPlan("{stem}.mid", ".mid")
    template.path_for("a/x")
    with pytest.raises(InputError, match="another item") as caught:
        template.path_for("b/x")
    assert "{name}" in caught.value.hint


def test_existing_file_is_refused_before_work_and_skipped_or_replaced_on_demand(tmp_path):
    path = tmp_path / "a.mid"
    path.write_text("old")
    with pytest.raises(UsageError) as caught:
        OutputPlan(f"{tmp_path}/", ".mid").check(path)
    assert caught.value.code == "exists"
    assert "--force" in caught.value.hint
    OutputPlan(f"{tmp_path}/", ".mid", force=True).check(path)
    assert OutputPlan(f"{tmp_path}/", ".mid", skip_existing=True).is_done(path)
    assert not OutputPlan(f"{tmp_path}/", ".mid", skip_existing=True).is_done(tmp_path / "b.mid")
    assert not OutputPlan(f"{tmp_path}/", ".mid").is_done(path)
    assert not OutputPlan(os.devnull, ".mid", skip_existing=True).is_done(Path(os.devnull))


def test_plan_opens_standard_output_or_the_file(tmp_path, environment):
    plan = OutputPlan(None, ".mid")
    with plan.open(plan.path_for("a"), environment) as file:
        file.write(b"out")
    assert environment.stdout.getvalue() == b"out"
    plan = OutputPlan(f"{tmp_path}/", ".mid")
    with plan.open(plan.path_for("deep/a"), environment) as file:
        file.write(b"file")
    assert (tmp_path / "deep" / "a.mid").read_bytes() == b"file"


def test_binary_does_not_go_to_a_terminal(environment, terminal):
    refuse_terminal(environment)
    environment.stdout = terminal
    with pytest.raises(UsageError) as caught:
        refuse_terminal(environment)
    assert caught.value.hint


# ---------------------------------------------------------------------------------------------------- whole or not


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_file_appears_only_when_it_is_whole(tmp_path):
    with atomic_writer(tmp_path / "new" / "a.mid") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "new" / "a.mid").exists()
        file.write(b" whole")
    assert contents(tmp_path / "new") == {"a.mid": b"half whole"}


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(143), GeneratorExit()])
@pytest.mark.parametrize("old", [b"old", None])
def test_whatever_goes_wrong_leaves_no_trace(tmp_path, error, old):
    path = tmp_path / "a.mid"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)), atomic_writer(path, force=True) as file:
        file.write(b"half")
        raise error
    assert contents(tmp_path) == ({} if old is None else {"a.mid": old})


def test_existing_file_is_kept_without_force(tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists"), atomic_writer(path):
        pytest.fail("the block must not run")
    with atomic_writer(path, force=True) as file:
        file.write(b"new")
    assert contents(tmp_path) == {"a.mid": b"new"}


@pytest.mark.parametrize("has_hard_links", [True, False])
def test_file_that_appears_meanwhile_is_kept_without_force(tmp_path, monkeypatch, has_hard_links):
    if not has_hard_links:

        def link(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "a.mid"
    with pytest.raises(UsageError, match="exists"), atomic_writer(path) as file:
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert contents(tmp_path) == {"a.mid": b"theirs"}
    with atomic_writer(tmp_path / "b.mid") as file:
        file.write(b"mine")
    assert contents(tmp_path) == {"a.mid": b"theirs", "b.mid": b"mine"}


@posix_only
def test_permissions_are_those_of_the_umask_or_of_the_old_file(tmp_path):
    umask = os.umask(0o027)
    try:
        with atomic_writer(tmp_path / "new.mid"):
            pass
        (tmp_path / "private.mid").touch()
        (tmp_path / "private.mid").chmod(0o600)
        with atomic_writer(tmp_path / "private.mid", force=True):
            pass
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.mid").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private.mid").stat().st_mode) == 0o600


@posix_only
def test_link_is_written_through(tmp_path):
    (tmp_path / "real.mid").write_bytes(b"old")
    (tmp_path / "link.mid").symlink_to("real.mid")
    with atomic_writer(tmp_path / "link.mid", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "link.mid").is_symlink()
    assert (tmp_path / "real.mid").read_bytes() == b"new"


@posix_only
def test_device_and_pipe_are_written_as_they_are(tmp_path):
    with atomic_writer(Path(os.devnull)) as file:
        file.write(b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with atomic_writer(pipe) as file:
        file.write(b"through")
    reader.join(30)
    assert received == [b"through"]


@posix_only
def test_dev_stdout_is_the_descriptor_and_not_a_file_to_replace(spawn, tmp_path):
    source, log = tmp_path / "a.txt", tmp_path / "log"
    source.write_text("two\n")
    log.write_text("one\n")
    with open(log, "ab") as stdout:
        process = spawn("copy", "-q", str(source), "-o", "/dev/stdout", stdout=stdout)
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 0
    assert log.read_text() == "one\ntwo\n"
    assert os.path.islink("/dev/stdout")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("size", [4, 100_000])
def test_full_device_is_an_input_error_that_names_it(size):
    with pytest.raises(InputError) as caught, atomic_writer(Path("/dev/full")) as file:
        file.write(b"x" * size)
    assert str(caught.value) == "no space left on device (/dev/full)"
    assert caught.value.code == "no-space"
    assert caught.value.hint


@posix_only
def test_block_that_closes_the_file_writes_it_all_the_same(tmp_path):
    with atomic_writer(tmp_path / "a.mid") as file:
        file.write(b"whole")
        file.close()
    assert contents(tmp_path) == {"a.mid": b"whole"}


@posix_only
def test_error_of_the_block_about_another_file_is_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_writer(tmp_path / "a.mid"):
        (tmp_path / "lost.mid").read_bytes()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["folder", "file/a.mid"])
def test_path_that_cannot_be_a_file_is_an_input_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught, atomic_writer(tmp_path / name, force=True):
        pytest.fail("the block must not run")
    assert caught.value.context == str(tmp_path / name)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_keeps_the_old_file_and_leaves_no_trace(small_disk, mtk, tmp_path):
    path = small_disk / "a.mid"
    path.write_bytes(b"old")
    with pytest.raises(InputError) as caught, atomic_writer(path, force=True) as file:
        file.write(b"x" * 200_000)
    assert str(caught.value) == f"no space left on device ({path})"
    assert contents(small_disk) == {"a.mid": b"old"}
    (tmp_path / "big.txt").write_bytes(b"x" * 200_000)
    status, _, err = mtk("copy", "-q", str(tmp_path / "big.txt"), "-o", f"{small_disk}/")
    assert f"no space left on device ({small_disk}/big.txt)" in err
    assert status == 1
    assert contents(small_disk) == {"a.mid": b"old"}


@posix_only
def test_file_size_limit_leaves_no_trace(spawn, tmp_path):
    import resource

    (tmp_path / "big.txt").write_bytes(b"x" * 200_000)
    limit = resource.RLIMIT_FSIZE
    out = tmp_path / "out"
    process = spawn(
        "copy", str(tmp_path / "big.txt"), "-o", f"{out}/", preexec_fn=lambda: resource.setrlimit(limit, (4096, 4096))
    )
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"file too large ({out}/big.txt)" in err.decode()
    assert contents(out) == {}


def test_batch_goes_on_where_it_was_with_skip_existing(mtk, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.txt").write_text(name)
    out = tmp_path / "out"
    assert mtk("copy", "-q", str(tmp_path / "in"), "-o", f"{out}/", "--shard", "1/2")[0] == 0
    assert contents(out) == {"a.txt": b"a"}
    (out / "a.txt").write_text("kept")
    assert mtk("copy", "-q", str(tmp_path / "in"), "-o", f"{out}/")[0] == 2
    assert mtk("copy", "-q", str(tmp_path / "in"), "-o", f"{out}/", "--skip-existing")[0] == 0
    assert contents(out) == {"a.txt": b"kept", "b.txt": b"b"}
