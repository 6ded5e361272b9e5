"""How a run ends: one line that says what and where, one that says what to do, and a status that scripts rely on."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import musictool
from musictool.cli import registry
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.cli.streams import STANDARD_OUTPUT, NamedFile


@pytest.mark.parametrize(
    ("kind", "status", "lines"),
    [
        ("missing", 4, ["mtk: error: no model (tiny)", "hint: mtk models pull tiny"]),
        ("plain", 1, ["mtk: error: it failed"]),
        ("two-lines", 3, ["mtk: error: a\\nb\\x1b[31m (c\\u2028d)", "hint: e\\nf"]),
        ("no-entry", 3, ["mtk: error: no such file or directory (lost.mid)"]),
        ("worker-pipe", 3, ["mtk: error: broken pipe"]),
    ],
)
def test_failure_is_one_line_and_one_hint(mtk, kind, status, lines):
    assert mtk("fail", kind) == (status, "", "\n".join(lines) + "\n")


@pytest.mark.parametrize(("kind", "status"), [("memory", 5), ("dependency", 4), ("bug", 70), ("exit", 70)])
def test_what_nobody_foresaw_has_the_same_shape(mtk, kind, status):
    got, out, err = mtk("fail", kind)
    assert (got, out) == (status, "")
    first, second = err.splitlines()
    assert first.startswith("mtk: error: ")
    assert second.startswith("hint: ")


def test_interrupt_is_quiet(mtk):
    assert mtk("fail", "interrupt") == (130, "", "")


def test_status_of_a_command_is_the_status_of_the_run(mtk):
    assert mtk("findings") == (1, "", "")
    assert mtk("kit", "findings") == (1, "", "")


@pytest.mark.parametrize("arguments", [("--log", "json", "fail", "missing"), ("fail", "missing", "--log=json")])
def test_json_log_says_the_same_in_one_object(mtk, arguments):
    status, _, err = mtk(*arguments)
    assert status == 4
    assert [json.loads(line) for line in err.splitlines()] == [
        {"level": "error", "message": "no model", "context": "tiny", "hint": "mtk models pull tiny", "code": "missing"}
    ]


@pytest.mark.parametrize(
    "arguments",
    [("tokenise", "--log", "json"), ("copy", "--outptu", "x", "--log=json"), ("fail", "--log", "json")],
)
def test_json_log_holds_for_a_line_that_does_not_parse(mtk, arguments):
    status, _, err = mtk(*arguments)
    record = json.loads(err)
    assert (status, record["level"], record["code"]) == (2, "error", "usage")


def test_unknown_verb_names_the_nearest(mtk):
    assert mtk("tokenise") == (2, "", "mtk: error: no such command: tokenise\nhint: did you mean 'tokenize'?\n")
    assert "mtk --help" in mtk("xyzzy")[2]


def test_unknown_verb_of_a_group_names_the_nearest(mtk):
    assert mtk("kit", "cpoy") == (2, "", "mtk: error: no such command: kit cpoy\nhint: did you mean 'kit copy'?\n")
    assert "mtk kit --help" in mtk("kit", "xyzzy")[2]
    assert "mtk kit --help" in mtk("kit", "pour")[2]  # a verb, but none of the group's


@pytest.mark.parametrize("verb", [("copy",), ("kit", "copy")])
def test_unknown_option_names_the_nearest(mtk, verb):
    status, _, err = mtk(*verb, "--outptu", "x")
    assert status == 2
    assert err.splitlines()[0] == f"mtk: error: no such option: --outptu (mtk {' '.join(verb)})"
    assert "--output" in err.splitlines()[1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("kit",),
        ("kit", "--version"),
        ("kit", "fail"),
        ("use", "--device", "gpu"),
        ("use", "--device", "cuda:"),
        ("use", "--device", "cuda:-1"),
        ("use", "--device", "CPU"),
        ("use", "--precision", "fp16"),
        ("copy", "--jobs", "-2"),
        ("copy", "--jobs", "x"),
        ("copy", "--log", "xml"),
        ("copy", "--shard", "4/3"),
        ("fail",),
    ],
)
def test_wrong_usage_is_two_lines_and_status_2(mtk, arguments):
    status, out, err = mtk(*arguments)
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("mtk: error: ")
    assert second.startswith("hint: ")


@pytest.mark.parametrize("arguments", [("--quiet", "copy"), ("copy", "--quiet"), ("copy", "-q"), ("-q", "copy", "-q")])
def test_global_options_stand_before_and_after_the_verb(mtk, arguments):
    assert mtk(*arguments, stdin=b"x") == (0, "x", "")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_global_options_stand_anywhere_around_the_words_of_a_group(mtk, place):
    def run(*options: str) -> tuple[int, str, str]:
        words = ["kit", "fail", "missing"]
        return mtk(*words[:place], *options, *words[place:])

    assert json.loads(run("--log", "json")[2])["code"] == "missing"
    assert run("--debug")[2].startswith("Traceback")
    assert mtk(*["kit", "copy"][:place], "-q", *["kit", "copy"][place:], stdin=b"x") == (0, "x", "")
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert out.startswith(
        ("Usage: mtk [OPTIONS]", "Usage: mtk kit [OPTIONS]", "Usage: mtk kit fail [OPTIONS]")[min(place, 2)]
    )


def test_notes_are_shown_unless_quiet(mtk):
    assert mtk("copy", "--jobs", "3", "--colour", "green", stdin=b"x") == (
        0,
        "x",
        "mtk: note: jobs 3 seed 0 colour green\n",
    )


@pytest.mark.parametrize("arguments", [("--debug", "fail", "missing"), ("fail", "missing", "--debug")])
def test_traceback_comes_first_with_debug_and_never_without(mtk, arguments):
    lines = mtk(*arguments)[2].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["mtk: error: no model (tiny)", "hint: mtk models pull tiny"]
    assert "Traceback" not in mtk("fail", "missing")[2]


def test_version_goes_to_standard_output(mtk):
    assert mtk("--version") == (0, f"mtk {musictool.__version__}\n", "")


def test_help_lists_every_verb_and_ends_with_two_examples(mtk):
    status, out, err = mtk("--help")
    assert (status, err) == (0, "")
    assert all(f"  {verb} " in out for verb in ("tokenize", "decode", "validate"))
    *_, title, first, second = out.splitlines()
    assert title.strip() == "Examples:"
    assert first.strip().startswith("mtk ")
    assert second.strip().startswith("mtk ")


def test_help_of_a_group_lists_its_verbs_and_ends_with_two_examples(mtk):
    status, out, err = mtk("kit", "--help")
    assert (status, err) == (0, "")
    assert "A kit of fakes." in out
    verbs = out[out.index("Commands:") : out.index("Examples:")]
    assert [line.split(maxsplit=1) for line in verbs.strip().splitlines()[1:]] == [
        [name, f"Fake {name} of a kit."] for name in ("copy", "fail", "findings")
    ]
    assert [line.strip() for line in out.splitlines()[-3:]] == ["Examples:", *registry.GROUPS["kit"].examples]
    assert "--version" not in out


def test_help_of_mtk_lists_a_group_once_and_none_of_its_verbs(mtk):
    out = mtk("--help")[1]
    assert [line.split(maxsplit=1) for line in out.splitlines() if "kit" in line] == [["kit", "A kit of fakes."]]


@pytest.mark.parametrize("verb", [("copy",), ("kit", "copy")])
def test_help_of_a_verb_keeps_its_own_examples_unfilled(mtk, verb):
    import fake_commands

    examples = fake_commands.KIT_EXAMPLES if verb[0] == "kit" else fake_commands.EXAMPLES
    status, out, _ = mtk(*verb, "--help")
    assert status == 0
    assert [line.strip() for line in out.splitlines()[-3:]] == ["Examples:", *examples]
    for option in ("--output", "--shard", "--quiet", "--log", "--debug"):
        assert option in out


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_device_and_precision_reach_the_verb_as_words(mtk, device):
    assert mtk("use", "--device", device, "--precision", "bf16", "--model", "a/b") == (
        0,
        "",
        f"mtk: note: a/b {device} bf16\n",
    )
    assert mtk("use")[2] == "mtk: note: None auto fp32\n"


def test_failed_item_is_reported_and_the_others_go_on(mtk, tmp_path):
    (tmp_path / "good.txt").write_text("good")
    status, out, err = mtk("copy", "-q", str(tmp_path / "lost.txt"), str(tmp_path / "good.txt"))
    assert (status, out) == (1, "good")
    assert err.splitlines() == [
        f"mtk: failed: lost: no such file ({tmp_path / 'lost.txt'})",
        "mtk: error: 1 of 2 items failed (lost)",
    ]


def test_broken_pipe_on_standard_output_ends_quietly_in_process():
    reader, writer = os.pipe()
    os.close(reader)
    stdout = io.BufferedWriter(NamedFile(writer, "wb", STANDARD_OUTPUT))
    environment = Environment(io.BytesIO(), stdout, io.StringIO())
    assert main(["pour"], environment) == 0
    assert environment.stderr.getvalue() == ""
    stdout.close()


def test_closed_pipe_downstream_ends_quietly(spawn):
    process = spawn("pour")
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(30) == 0


def test_closed_standard_error_costs_only_the_message(spawn):
    reader, writer = os.pipe()
    os.close(reader)
    process = spawn("fail", "missing", stderr=writer)
    os.close(writer)
    with process.stdout:
        assert process.wait(30) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("lines", ["5", "100000"])
def test_full_device_on_standard_output_is_one_line(spawn, lines):
    with open("/dev/full", "wb") as full:
        process = spawn("pour", "--lines", lines, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert err.decode().splitlines()[0] == "mtk: error: no space left on device (standard output)"
    assert len(err.splitlines()) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
def test_standard_output_closed_by_the_parent_is_an_error_of_use_only(spawn, tmp_path):
    def closed(*arguments: str) -> tuple[int, bytes]:
        process = spawn(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
        _, err = process.communicate(timeout=30)
        return process.returncode, err

    source = tmp_path / "a.txt"
    source.write_text("a")
    status, err = closed("pour", "--lines", "1")
    assert status == 3
    assert err.startswith(b"mtk: error: ")
    assert b"(standard output)" in err
    assert closed("copy", str(source), "-o", str(tmp_path / "b.txt"), "-q") == (0, b"")
    assert (tmp_path / "b.txt").read_text() == "a"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 1), 129)]
)
def test_signal_removes_the_temporary_file_and_keeps_the_old_one(spawn, tmp_path, number, status):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    process = spawn("linger", str(folder / "old.txt"))
    deadline = time.monotonic() + 30
    while not (folder / "old.begun").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(folder.iterdir())) == 3  # the old one, the sign, the temporary
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (status, b"", b"")
    assert sorted(path.name for path in folder.iterdir()) == ["old.begun", "old.txt"]
    assert (folder / "old.txt").read_text() == "old"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX signals")
def test_ignored_hangup_stays_ignored(spawn):
    process = spawn("pour", "--lines", "1", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.communicate(timeout=30) == (b"line 0\n", b"")
    ignored = spawn("end_by", "SIGHUP", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    with pytest.raises(subprocess.TimeoutExpired):
        ignored.wait(1.5)
    ignored.kill()
    ignored.communicate()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX signals")
def test_ctrl_c_that_is_swallowed_comes_again_but_not_into_what_cleans_up(spawn):
    process = spawn("swallow")
    assert process.communicate(timeout=30) == (b"clean\n", b"")
    assert process.returncode == 130


def test_signal_handlers_are_given_back():
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGALRM") if hasattr(signal, name)]
    before = [signal.getsignal(number) for number in numbers]
    assert main(["findings"]) == 1
    assert [signal.getsignal(number) for number in numbers] == before


def test_warnings_of_libraries_are_for_developers(spawn):
    def warned(*arguments: str) -> bytes:
        process = spawn(*arguments, python=(), env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, b"")
        return err

    assert warned("warn") == b""
    assert b"nobody asked" in warned("warn", "--debug")


def test_python_m_musictool_is_mtk():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "musictool", "--version"],
        capture_output=True,
        cwd=Path(musictool.__file__).parents[1],
    )
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"mtk {musictool.__version__}\n", b"")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_failed_write_names_the_stream(number):
    class Failing(NamedFile):
        def write(self, data):
            try:
                raise OSError(number, os.strerror(number))
            except OSError as error:
                error.filename = self.label
                raise

    stdout = io.BufferedWriter(Failing(os.open(os.devnull, os.O_WRONLY), "wb", STANDARD_OUTPUT))
    environment = Environment(io.BytesIO(), stdout, io.StringIO())
    assert main(["pour"], environment) == 3
    assert environment.stderr.getvalue().splitlines()[0].endswith("(standard output)")
    with pytest.raises(OSError, match="standard output"):
        stdout.close()
