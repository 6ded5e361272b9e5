"""`mtk generate` of notes, with a small random symbolic generator under the name of the one that ships."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from musictool.checkpoints.native import FACTS_NAME
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.stream.reader import StreamReader
from musictool.symbolic.midi import read_midi
from musictool.symbolic.schemes import find_scheme, lookup_events
from tests.commands.generators import install

Run = Callable[..., tuple[int, bytes, str]]

CONFIG = SymbolicGeneratorConfig(width=16, heads=2, hidden=24, layers=1, context=256, styles=("pop", "jazz"))
REMI = find_scheme("remi")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install(home, "symbolic-generator", SymbolicGenerator(CONFIG), CONFIG)
    return home


@pytest.fixture
def run(home) -> Run:
    """Run `mtk ARGUMENT…`: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(home)})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


def pieces_of(stream: bytes) -> dict[str, np.ndarray]:
    """The ids of each item of a stream, all of which are whole."""
    items = StreamReader(io.BytesIO(stream), lookup_events)
    return {item.head.item: np.concatenate(list(item.chunks())) for item in items}


def made(run: Run, *arguments: object, stdin: bytes = b"") -> dict[str, np.ndarray]:
    status, stream, errors = run("generate", *arguments, stdin=stdin)
    assert (status, errors) == (0, "")
    return pieces_of(stream)


def test_a_style_and_bars_become_midi(run, tmp_path):
    stream = run("generate", "--style", "jazz", "--bars", 4, "--key", "C", "--tempo", 90, "--chords", "C Am F G")[1]
    status, _, errors = run("decode", "-o", tmp_path / "x.mid", stdin=stream)
    assert (status, errors) == (0, "")
    score = read_midi(tmp_path / "x.mid")
    assert len(score.notes)
    ids = pieces_of(stream)["generated-1"]
    assert int((ids == REMI.vocabulary.id("Bar")).sum()) in (4, 5)


def test_the_head_names_the_model_and_what_was_asked_for(run):
    stream = run("generate", "--style", "jazz", "--bars", 2, "--seed", 4, "--count", 2)[1]
    heads = []
    for item in StreamReader(io.BytesIO(stream), lookup_events):
        item.skip()
        heads.append(item.head)
    assert [(head.item, head.number, head.of, head.vocab) for head in heads] == [
        ("generated-1", 1, 2, "remi"),
        ("generated-2", 2, 2, "remi"),
    ]
    stage = heads[1].made[-1]
    expected = {"command": "generate", "model": "symbolic-generator", "style": "jazz", "bars": 2, "seed": 4, "piece": 2}
    assert expected.items() <= stage.items()


@pytest.mark.parametrize("scheme", ["tatum", "mt3", "remi"])
def test_a_piece_of_any_scheme_is_gone_on_from(run, waltz, scheme):
    begun = run("tokenize", waltz, "--scheme", scheme)[1]
    bars = REMI.vocabulary.id("Bar")
    known = int((pieces_of(run("tokenize", "--scheme", "remi", stdin=begun)[1])["waltz"] == bars).sum())
    (ids,) = made(run, "-", "--bars", 2, "--style", "pop", stdin=begun).values()
    assert known + 2 <= int((ids == bars).sum()) <= known + 3


def test_midi_on_standard_input_is_gone_on_from(run, waltz):
    (ids,) = made(run, "-", "--bars", 1, stdin=waltz.read_bytes()).values()
    np.testing.assert_array_equal(ids, made(run, waltz, "--bars", 1)["waltz"])


def test_midi_files_are_gone_on_from_each_under_its_name(run, folder):
    status, stream, errors = run("generate", folder, "--bars", 1)
    assert status == 1
    assert errors.count("mtk: failed: b") == 1
    items = []
    for item in StreamReader(io.BytesIO(stream), lookup_events):
        item.skip()
        items.append((item.head.item, item.head.number, item.head.of, item.failure is None, len(item.head.made)))
    assert items == [("a", 1, 3, True, 1), ("b", 2, 3, False, 1), ("inner/c", 3, 3, True, 1)]


def test_of_several_sources_those_that_can_be_read_are_gone_on_from(run, folder, tmp_path):
    begun = run("tokenize", folder / "a.mid")[1]
    (tmp_path / "broken.mtk").write_bytes(begun[:-100])
    status, stream, errors = run("generate", folder / "a.mid", tmp_path / "broken.mtk", "nowhere.mid", "--bars", 1)
    assert status == 3
    assert "mtk: failed: broken: the stream ends inside" in errors
    assert "mtk: failed: nowhere: no such file" in errors
    assert stream.count(b'"end"') == 1
    assert stream.count(b'"fail"') == 1


def test_names_say_the_same_as_ids(run):
    stream = run("generate", "--bars", 2, "--names")[1]
    assert b'{"w":["' in stream
    np.testing.assert_array_equal(pieces_of(stream)["generated-1"], made(run, "--bars", 2)["generated-1"])


def test_plain_words_are_styles(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("jazz\npop\n")
    pieces = made(run, "--prompts", tmp_path / "prompts.txt", "--bars", 2)
    typed = made(run, "--interactive", "--bars", 2, stdin=b"jazz\npop\n")
    assert len({ids.tobytes() for ids in pieces.values()}) == 2
    for name, ids in pieces.items():
        np.testing.assert_array_equal(ids, typed[name])


def test_a_line_that_cannot_be_met_is_a_failed_item_among_others(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("jazz\nno such style\npop\n")
    status, stream, errors = run("generate", "--prompts", tmp_path / "prompts.txt", "--bars", 1)
    assert status == 1
    assert "mtk: failed: generated-2: the model knows no style 'no such style'" in errors
    assert [b'"fail"' in line for line in stream.splitlines() if b'"end"' in line or b'"fail"' in line] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "slow"), "symbolic-generator takes no --text"),
        (("--backing", "x.wav"), "symbolic-generator takes no --backing"),
        (("--style", "no such style"), "the model knows no style"),
        (("--bars", 1, "--duration", 1), "--bars and --duration contradict each other"),
        (("--tempo", 0), "tempo is from 1 to 1000, not 0"),
    ],
)
def test_wrong_usage_is_one_clear_line(run, options, message):
    status, stream, errors = run("generate", *options)
    assert (status, stream) == (2, b"")
    assert message in errors
    assert len(errors.splitlines()) <= 2


def test_a_model_that_is_not_here_is_named_with_what_brings_it(run):
    status, stream, errors = run("generate", "--model", "musicgen-small", "--text", "jazz")
    assert (status, stream) == (4, b"")
    assert "no model named 'musicgen-small'" in errors
    assert FACTS_NAME not in errors


def test_a_model_that_makes_nothing_is_refused(run):
    status, _, errors = run("generate", "--model", "tatumflow")
    assert (status, "tatumflow is no model that makes pieces" in errors) == (2, True)
