"""`mtk transcribe` as it is installed: the model in the package, no store, no network."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors import safe_open

from musictool.checkpoints.native import WEIGHTS_NAME, weights_sha256
from musictool.checkpoints.store import Store
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.metrics.note_matching import Tolerances, match_notes
from musictool.stream.reader import StreamReader
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes
from musictool.symbolic.schemes import find_scheme, lookup_events

SHARED = os.environ.get("MTK_TEST_SHARED")
EXAMPLES = Path(__file__).parents[2] / "examples"
MEGABYTE = 1_000_000

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `mtk ARGUMENT…` with an empty store: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        environment = Environment(io.BytesIO(stdin), io.BytesIO(), io.StringIO(), {"MTK_HOME": str(tmp_path / "home")})
        status = main([str(argument) for argument in arguments], environment)
        return status, environment.stdout.getvalue(), environment.stderr.getvalue()

    return run


def heard(stream: bytes) -> dict[str, tuple[dict, Notes]]:
    """The last stage of each item's provenance, and its notes."""
    found = {}
    for item in StreamReader(io.BytesIO(stream), lookup_events):
        ids = np.concatenate([np.zeros(0, np.int32), *item.chunks()])
        found[item.head.item] = (item.head.made[-1], find_scheme(item.head.vocab).decode([ids]).notes)
    return found


def figures(run: Run, *arguments: object, stdin: bytes = b"") -> dict[str, float]:
    """Mean figures of `mtk eval transcription`."""
    status, out, errors = run("eval", "transcription", *arguments, "--json", stdin=stdin)
    assert status == 0, errors
    return json.loads(out)["mean"]


@pytest.fixture(scope="session")
def shipped(tmp_path_factory) -> Path:
    """The folder of the model in the package."""
    return Store(tmp_path_factory.mktemp("empty")).find("note-tagger").path


def test_the_model_that_ships_is_small_whole_and_stored_in_half_precision(run, shipped):
    assert (shipped / WEIGHTS_NAME).stat().st_size < 6 * MEGABYTE
    with safe_open(shipped / WEIGHTS_NAME, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    assert run("models", "verify", "note-tagger")[0] == 0
    facts = json.loads((shipped / "config.json").read_text())
    assert facts["weights_sha256"] == weights_sha256(shipped)


def test_the_card_says_what_a_user_must_know(shipped):
    card = (shipped / "card.md").read_text()
    for word in ("Data", "Licen", "Recipe", "seed", "hours", "Figures", "fails", "POP909", "Weimar", "piano-midi.de"):
        assert word in card, word


def test_the_first_command_of_a_newcomer_hears_the_waltz(run):
    status, stream, errors = run("transcribe", EXAMPLES / "waltz.ogg")
    assert (status, errors) == (0, "")
    stage, notes = heard(stream)["waltz"]
    assert (stage["model"], stage["scheme"]) == ("note-tagger", "tatum")
    assert set(notes.program.tolist()) == {0}
    assert figures(run, "-", "-r", EXAMPLES / "waltz.mid", stdin=stream)["onset_f1"] > 0.8


def test_louder_notes_are_heard_as_louder(run):
    _, notes = heard(run("transcribe", EXAMPLES / "waltz.ogg")[1])["waltz"]
    played = read_midi(EXAMPLES / "waltz.mid").notes
    matched = match_notes(played, notes, Tolerances(), with_offsets=False)
    assert np.corrcoef(played.velocity[matched[:, 0]], notes.velocity[matched[:, 1]])[0, 1] > 0.6


def test_together_in_a_pipe_and_alone_give_the_same_notes(run, tmp_path):
    sound, rate = soundfile.read(EXAMPLES / "waltz.ogg", dtype="float32")
    soundfile.write(tmp_path / "a.wav", sound, rate)
    soundfile.write(tmp_path / "b.wav", sound[: 3 * rate], rate)
    status, stream, _ = run("transcribe", tmp_path / "a.wav", tmp_path / "b.wav")
    assert status == 0
    together = heard(stream)
    for name in ("a", "b"):
        alone = heard(run("transcribe", stdin=(tmp_path / f"{name}.wav").read_bytes())[1])["stdin"]
        assert alone[1].onset_seconds.tolist() == together[name][1].onset_seconds.tolist()
        assert alone[1].pitch.tolist() == together[name][1].pitch.tolist()
    assert run("transcribe", tmp_path / "a.wav")[1] == run("transcribe", tmp_path / "a.wav")[1]


def test_all_notes_are_given_to_the_one_instrument_that_is_named(run):
    _, notes = heard(run("transcribe", EXAMPLES / "waltz.ogg", "--instruments", "violin")[1])["waltz"]
    assert set(notes.program.tolist()) == {40}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--instruments", "violin,bass"), "note-tagger can't tell instruments apart"),
        (("--instruments", "drums"), "note-tagger can't tell instruments apart"),
        (("--steady",), "note-tagger reads no segments that could disagree"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line_with_a_way_out(run, arguments, message):
    status, stream, errors = run("transcribe", EXAMPLES / "waltz.ogg", *arguments)
    assert (status, stream) == (2, b"")
    assert errors.splitlines()[0] == f"mtk: error: {message}"
    assert "mt3" in errors.splitlines()[1]


def test_one_bad_sound_fails_its_item_alone(run, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    status, stream, errors = run("transcribe", EXAMPLES / "waltz.ogg", tmp_path / "bad.wav")
    assert status == 1
    assert "bad" in errors.splitlines()[0]
    lines = [json.loads(line) for line in stream.splitlines()]
    assert [("fail" in line, "end" in line) for line in lines if "fail" in line or "end" in line] == [
        (False, True),
        (True, False),
    ]
    assert run("transcribe", tmp_path / "bad.wav")[0] == 3


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.02, 1.0])
def test_silence_of_any_length_has_no_notes(run, tmp_path, seconds):
    soundfile.write(tmp_path / "x.wav", np.zeros(max(1, round(44_100 * seconds)), np.float32), 44_100)
    status, stream, _ = run("transcribe", tmp_path / "x.wav")
    assert status == 0
    assert len(heard(stream)["x"][1]) == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_real_pianos_are_heard_as_the_card_says(run, shipped, precision):
    if not SHARED:
        pytest.skip("needs the recordings")
    folder = Path(SHARED) / "data/recordings/maps-dev"
    arguments = (*sorted(folder.glob("*.flac")), "-r", folder, "--precision", precision)
    found = figures(run, *arguments)
    row = re.search(r"\| five real pianos \|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|", (shipped / "card.md").read_text())
    assert row is not None
    assert found["onset_f1"] == pytest.approx(float(row[1]), abs=0.003)
    assert found["onset_offset_f1"] == pytest.approx(float(row[2]), abs=0.003)
