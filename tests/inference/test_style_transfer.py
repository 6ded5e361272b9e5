"""Style transfer as a whole, with a small random model: what stays, what changes, and what it depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.errors import InputError, UsageError
from musictool.inference import style_transfer
from musictool.inference.piano_parts import PianoPart, windows_of
from musictool.inference.style_transfer import StyleTransfer, Transfer, load_transfer_model
from musictool.inference.transfer_options import KEEPABLE, parse_donors, parse_factors, parse_mix
from musictool.models.tatumflow import TatumFlow
from musictool.models.tatumflow_parts import Wish
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.symbolic.piano_ids import Piano
from musictool.symbolic.skyline import skyline_of
from musictool.symbolic.theory import FACTORS, WIDTHS, theory_frames
from tests.small_models import install_small_mt3, install_small_tatumflow, random_tatumflow

QUICK = Transfer(steps=4, guidance=3.0, theory_guidance=1.5, temperature=0.8)


@pytest.fixture(scope="module")
def model() -> TatumFlow:
    return random_tatumflow()


def piece(seconds: float = 20.0, seed: int = 0) -> Score:
    """A piano with a pedal, a bass and drums; it rests at first."""
    generator = np.random.default_rng(seed)
    onset = np.sort(generator.uniform(1.0, seconds, round(6 * seconds)))
    who = generator.choice(3, len(onset), p=[0.7, 0.2, 0.1])
    notes = Notes.of(
        onset,
        np.minimum(onset + generator.uniform(0.05, 2.0, len(onset)), seconds),
        generator.integers(36, 84, len(onset)),
        generator.integers(20, 120, len(onset)),
        np.array([0, 33, 0])[who],
        who == 2,
        who,
    )
    tracks = (Track("piano"), Track("bass", 33), Track("drums", 0, True))
    return Score(notes.sorted(), tracks, pedals=Pedals.of([2.0, 5.0, 9.0], [4.0, 7.0, 9.5], [0, 1, 0]))


def carried(model: TatumFlow, score: Score, options: Transfer = QUICK, style: str = "jazz", **kwargs) -> Score:
    carrier = StyleTransfer(model, options)
    return carrier.run(score, carrier.style_named({style: 1.0}), **kwargs)


def rows(notes: Notes) -> list[tuple]:
    names = ("onset_seconds", "offset_seconds", "pitch", "velocity", "program", "is_drum", "track")
    return list(zip(*(getattr(notes, name).tolist() for name in names), strict=True))


def pianos(score: Score) -> Notes:
    return score.notes.take((score.notes.program < 8) & ~score.notes.is_drum)


# -------------------------------------------------------------------------------------------------------- what stays


def test_strength_0_gives_the_piece_back(model):
    score = piece()
    assert carried(model, score, replace(QUICK, strength=0.0)) is score


def test_drums_and_other_instruments_and_their_pedals_stay_as_they_are(model):
    score = piece()
    made = carried(model, score)
    is_other = {name: (s.notes.program == 33) | s.notes.is_drum for name, s in (("from", score), ("to", made))}
    assert rows(made.notes.take(is_other["to"])) == rows(score.notes.take(is_other["from"]))
    assert rows(pianos(made)) != rows(pianos(score))
    assert (5.0, 7.0, 1) in zip(
        made.pedals.onset_seconds.tolist(),
        made.pedals.offset_seconds.tolist(),
        made.pedals.track.tolist(),
        strict=True,
    )
    assert made.tempo_map is score.tempo_map
    assert made.tracks is score.tracks


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_what_is_played_can_be_played_within_the_piece(model, strength):
    for seed in range(3):
        source = pianos(piece(30.0, seed))
        notes = pianos(carried(model, piece(30.0, seed), replace(QUICK, strength=strength)))
        assert len(notes) > 10
        assert notes.pitch.min() >= 21
        assert notes.pitch.max() <= 108
        assert notes.onset_seconds.min() >= np.floor(source.onset_seconds.min() * 4) / 4
        assert notes.end_seconds <= round(source.end_seconds, 2)
        for pitch in np.unique(notes.pitch):
            of_key = notes.take(notes.pitch == pitch)
            assert (of_key.offset_seconds[:-1] <= of_key.onset_seconds[1:] + 1e-9).all()


def test_only_the_instruments_that_are_asked_for_are_carried_over(model):
    score = piece()
    made = carried(model, score, programs={33})
    assert rows(pianos(made)) == rows(pianos(score))
    assert rows(made.notes) != rows(score.notes)
    assert set(made.notes.program[~made.notes.is_drum].tolist()) == {0, 33}
    together = carried(model, score, programs=range(128))
    assert set(together.notes.program[~together.notes.is_drum].tolist()) == {0}
    assert rows(together.notes.take(together.notes.is_drum)) == rows(score.notes.take(score.notes.is_drum))


def test_long_rests_stay_rests(model):
    first, second = piece(10.0).notes, piece(10.0, 1).notes
    late = second.with_columns(onset_seconds=second.onset_seconds + 100, offset_seconds=second.offset_seconds + 100)
    onset = pianos(carried(model, replace(piece(), notes=Notes.concatenate([first, late])))).onset_seconds
    assert not ((onset > 20) & (onset < 100)).any()
    assert (onset > 101).any()


# ------------------------------------------------------------------------------------------------- what it depends on


def test_a_factor_borrowed_from_the_piece_itself_is_that_factor_kept(model):
    score = replace(piece(), notes=pianos(piece()))
    keep = frozenset({"harmony"})
    kept = carried(model, score, replace(QUICK, keep=keep | {"rhythm"}))
    assert rows(carried(model, score, replace(QUICK, keep=keep), donors={"rhythm": score}).notes) == rows(kept.notes)


@pytest.mark.parametrize("factor", KEEPABLE)
def test_every_factor_can_be_borrowed_and_comes_from_the_donor(model, factor):
    options = replace(QUICK, keep=frozenset(FACTORS), theory_guidance=8.0)
    made = [rows(carried(model, piece(), options).notes)]
    made += [rows(carried(model, piece(), options, donors={factor: piece(7.0, seed)}).notes) for seed in range(1, 5)]
    assert len({tuple(notes) for notes in made}) >= 4


def top_line(notes: Notes) -> list[tuple[float, int]]:
    line = skyline_of(notes)
    return list(zip(line.onset_seconds.round(2).tolist(), line.pitch.tolist(), strict=True))


def test_a_melody_that_is_kept_is_there_note_for_note(model):
    score = replace(piece(), notes=pianos(piece()))
    on_grid = Piano.of(score.notes).notes()
    made = pianos(carried(model, score, replace(QUICK, keep=frozenset({"chords", "melody"}))))
    assert set(top_line(on_grid)) <= set(top_line(made))
    assert set(rows(made)) - set(rows(on_grid))
    free = pianos(carried(model, score, replace(QUICK, keep=frozenset({"chords", "harmony"}))))
    assert not set(top_line(on_grid)) <= set(top_line(free))


def test_chords_alone_hold_no_note(model, monkeypatch):
    seen = []
    monkeypatch.setattr(style_transfer, "held", lambda made, wanted, borrowed: seen.append((wanted, borrowed)) or made)
    carried(model, piece())
    carried(model, piece(), replace(QUICK, keep=frozenset({"harmony"})), donors={"chords": piece(7.0, 1)})
    assert seen == [({}, frozenset())] * 2
    carried(model, piece(), replace(QUICK, keep=frozenset({"rhythm"})), donors={"melody": piece(7.0, 1)})
    assert (set(seen[2][0]), seen[2][1]) == ({"rhythm", "melody"}, {"melody"})


@pytest.fixture
def wishes(model, monkeypatch) -> list[Wish]:
    """What the model is told of every window."""
    told = []
    carry = TatumFlow.carry

    def spy(self, source, visible, wish, *rest):
        told.append(wish)
        return carry(self, source, visible, wish, *rest)

    monkeypatch.setattr(TatumFlow, "carry", spy)
    return told


def test_a_donor_says_nothing_of_other_factors(model, wishes):
    donor = piece(30.0, 5)
    options = replace(QUICK, keep=frozenset())
    carried(model, piece(3.0), options)
    carried(model, piece(3.0), options, donors={"melody": donor})
    own, borrowed = (wish.theory.split(list(WIDTHS.values()), -1) for wish in wishes)
    for name, before, after in zip(FACTORS, own, borrowed, strict=True):
        assert torch.equal(before, after) is (name != "melody")


def test_chords_are_the_harmony_of_a_lead_sheet_also_where_a_window_cuts_one(model, wishes):
    seconds = 40.0  # of one chord, with a run over it
    run = np.arange(0, seconds, 0.2)
    pitch = np.array([72, 74, 76, 77, 79])[np.arange(len(run)) % 5]
    held = Notes.of([0.0] * 4, [seconds] * 4, [36, 60, 64, 67])
    score = Score(Notes.concatenate([Notes.of(run, run + 0.2, pitch), held]).sorted())
    carried(model, score, replace(QUICK, keep=frozenset({"chords"})))
    assert len(wishes) > 2
    c_major = theory_frames(Notes.of([0.0] * 4, [1.0] * 4, [36, 60, 64, 67]), 4)[0][2]
    for wish in wishes:
        assert wish.knows_theory.tolist() == [[name == "harmony" for name in FACTORS]]
        harmony = wish.theory[0, :, : WIDTHS["harmony"]]
        torch.testing.assert_close(harmony[3:-3], torch.from_numpy(c_major).expand_as(harmony[3:-3]))
    wishes.clear()
    carried(model, score, replace(QUICK, keep=frozenset({"chords", "harmony"})))
    assert not torch.allclose(wishes[0].theory[0, 5, : WIDTHS["harmony"]], torch.from_numpy(c_major))


def test_without_a_style_and_with_nothing_given_nothing_pulls(model):
    carrier = [StyleTransfer(model, replace(QUICK, keep=frozenset(), guidance=scale)) for scale in (1.0, 50.0)]
    free = [rows(one.run(piece(), one.no_style()).notes) for one in carrier]
    assert free[0] == free[1]
    led = [rows(one.run(piece(), one.style_named({"jazz": 1.0})).notes) for one in carrier]
    assert led[0] != led[1]
    assert led[0] != free[0]


def test_a_donor_without_notes_is_refused(model):
    with pytest.raises(InputError, match="no note to borrow rhythm from"):
        carried(model, piece(), donors={"rhythm": Score()})
    with pytest.raises(UsageError, match="no such factor: 'rythm'"):
        carried(model, piece(), donors={"rythm": piece()})


def test_the_same_seed_makes_the_same_and_another_does_not(model):
    options = replace(QUICK, eta=0.5)
    made, again = (carried(model, piece(), options) for _ in range(2))
    assert rows(made.notes) == rows(again.notes)
    assert rows(made.notes) != rows(carried(model, piece(), replace(options, seed=1)).notes)


@pytest.mark.parametrize("count", [1, 2])
def test_windows_may_be_written_in_any_batches(model, count, monkeypatch):
    made = carried(model, piece(30.0))
    monkeypatch.setattr(style_transfer, "WINDOWS_AT_ONCE", count)
    assert rows(carried(model, piece(30.0)).notes) == rows(made.notes)


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.4},
        {"keep": frozenset()},
        {"keep": frozenset({"harmony"})},
        {"keep": frozenset({"chords", "melody"})},
        {"steps": 8},
        {"eta": 1.0},
        {"guidance": 1.0},
        {"theory_guidance": 1.0},
        {"temperature": 0.3},
        {"top_p": 0.5},
    ],
)
def test_every_option_counts(model, change):
    assert rows(carried(model, piece()).notes) != rows(carried(model, piece(), replace(QUICK, **change)).notes)


def test_styles_differ(model):
    found = [rows(carried(model, piece(), style=style).notes) for style in ("pop", "jazz")]
    assert found[0] != found[1]


@pytest.fixture
def latents(monkeypatch) -> list[torch.Tensor]:
    """The latents of every window that is written."""
    seen = []
    write = style_transfer.write_windows

    def spy(model, latents, visible, style, sampling, generators):
        seen.extend(row[is_there] for row, is_there in zip(latents, visible, strict=True))
        return write(model, latents, visible, style, sampling, generators)

    monkeypatch.setattr(style_transfer, "write_windows", spy)
    return seen


def test_a_window_holds_the_frames_that_it_shares_with_the_one_before(model, latents):
    carried(model, piece(30.0))
    assert len(latents) >= 4
    for before, after in pairwise(latents):
        assert torch.equal(after[:6], before[-10:-4])  # the last four are made anew
        assert not torch.equal(after[6:10], before[-4:])


def test_where_little_noise_is_added_latents_are_near_the_source(model, latents):
    for strength in (1e-4, 0.99):
        carried(model, piece(8.0), replace(QUICK, strength=strength, guidance=0.0, theory_guidance=0.0))
    carrier = StyleTransfer(model, QUICK)
    source = []
    read = model.encoder.register_forward_hook(lambda module, inputs, output: source.append(output[0]))
    carrier.run(piece(8.0), carrier.style_named({"jazz": 1.0}))
    read.remove()
    near, far = (float((made - source[0]).square().mean()) for made in latents[:2])
    assert near < 0.01
    assert far > 0.5


# ------------------------------------------------------------------------------------------------------------ styles


def test_a_mix_lies_between_its_styles_whatever_its_shares_sum_to(model):
    carrier = StyleTransfer(model, QUICK)
    pop, jazz = (carrier.style_named({name: 1.0}) for name in ("pop", "jazz"))
    mixed = carrier.style_named({"jazz": 3.0, "pop": 1.0})
    torch.testing.assert_close(mixed.style.values, 0.25 * pop.style.values + 0.75 * jazz.style.values)
    assert mixed.style.is_known.tolist() == [[True, False, False]]


@pytest.mark.parametrize("shares", [{}, {"jazz": 0.0}, {"jazz": -1.0, "pop": 2.0}, {"jazz": float("nan")}])
def test_a_mix_of_nothing_is_refused(model, shares):
    with pytest.raises(UsageError, match="shares"):
        StyleTransfer(model, QUICK).style_named(shares)


def test_a_style_that_does_not_exist_is_refused_with_the_nearest(model):
    with pytest.raises(UsageError, match="no such style: 'jaz'") as caught:
        StyleTransfer(model, QUICK).style_named({"jaz": 1.0})
    assert "did you mean jazz? the model knows pop, classical, jazz, game" in caught.value.hint


def test_kept_chords_are_told_in_those_that_the_style_plays(model, monkeypatch):
    """A named style has them from the model, a mix those of all of it, a piece its own; harmony stays whole."""
    told = []
    monkeypatch.setattr(style_transfer, "lead_sheet", lambda piano, qualities=(): told.append(qualities) or piano)
    config = replace(model.config, chords={"pop": ("maj", "min"), "jazz": ("min7", "7")})
    monkeypatch.setattr(model, "config", config)
    carrier = StyleTransfer(model, QUICK)
    triads = Score(Notes.of([0.0, 0.0, 0.0], [4.0] * 3, [60, 64, 67]))
    named, mixed = carrier.style_named({"pop": 1.0}), carrier.style_named({"pop": 1.0, "jazz": 2.0, "game": 0.0})
    for target in (named, mixed, carrier.style_of([triads]), carrier.no_style(), carrier.style_named({"game": 1.0})):
        carrier.run(piece(4.0), target)
    assert told == [{"maj", "min"}, {"maj", "min", "min7", "7"}, {"maj"}, frozenset(), frozenset()]
    StyleTransfer(model, replace(QUICK, keep=frozenset({"harmony"}))).run(piece(4.0), named)
    assert len(told) == 5


def test_the_style_of_pieces_is_that_of_all_their_windows(model):
    carrier = StyleTransfer(model, QUICK)
    first, second = piece(7.0), piece(15.0, 1)
    means: list[torch.Tensor] = []
    spy = model.style_encoder.register_forward_hook(lambda module, inputs, heard: means.append(heard.mean))
    found = carrier.style_of([first, Score(), second])
    spy.remove()
    shape = model.config.frames_max, model.config.tokens_max
    pianos_of = [PianoPart.of(score, range(128)).piano for score in (first, second)]
    frames = [window.frames for piano in pianos_of for window in windows_of(piano, *shape)]
    expected = sum(count * mean for count, mean in zip(frames, means, strict=True)) / sum(frames)
    assert len(set(frames)) > 1
    torch.testing.assert_close(found.style.values, expected)
    assert found.style.is_known.all()
    with pytest.raises(InputError, match="no note"):
        carrier.style_of([Score(), replace(first, notes=first.notes.take(first.notes.is_drum))])


def test_the_style_of_a_piece_is_a_style_to_carry_over_to(model):
    carrier = StyleTransfer(model, QUICK)
    made = carrier.run(piece(), carrier.style_of([piece(15.0, 5)]))
    assert rows(made.notes) != rows(carrier.run(piece(), carrier.style_named({"jazz": 1.0})).notes)


# ----------------------------------------------------------------------------------------------------- unusual pieces

EDGES = {
    "empty": Score(),
    "drums only": Score(Notes.of([0, 1], [1, 2], [36, 38], is_drum=True), (Track("drums", 0, True),)),
    "no piano": Score(Notes.of([0, 1], [1, 2], [60, 62], program=40), (Track("violin", 40),)),
    "beyond the keys": Score(Notes.of([0, 1], [1, 2], [5, 120])),
    "pedal only": Score(pedals=Pedals.of([0.0], [1.0], [0])),
}


@pytest.mark.parametrize("name", EDGES)
def test_a_piece_without_a_piano_is_given_back(model, name):
    assert carried(model, EDGES[name]) is EDGES[name]


@pytest.mark.parametrize(
    "notes",
    [
        Notes.of([0.0], [0.01], [60]),
        Notes.of([50.0], [90.0], [60]),
        Notes.of(np.zeros(200), np.full(200, 2.0), np.arange(200) % 128),
        Notes.of(np.arange(300) // 100 * 5.0, np.arange(300) // 100 * 5.0 + 4, 21 + np.arange(300) % 100),
        Notes.of(
            np.repeat(np.arange(400) / 100, 60), np.repeat(np.arange(400) / 100 + 0.01, 60), 21 + np.arange(24_000) % 60
        ),
    ],
    ids=["one note", "one long note, late", "200 notes at once", "three walls", "six thousand notes a second"],
)
def test_unusual_music_is_carried_over(model, notes):
    lengths = []
    spy = model.encoder.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].ids.shape[1]))
    made = carried(model, Score(notes))
    spy.remove()
    assert max(lengths) <= model.config.tokens_max
    assert made.notes.end_seconds <= notes.end_seconds + 1e-6
    assert made.notes.pitch.min(initial=60) >= 21


@pytest.mark.parametrize("minutes", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_piece(minutes):
    """A process of its own tells how much more a long piece takes than one of 90 s."""
    code = f"""
import torch
torch.set_num_threads(1)
from musictool.inference import style_transfer
from tests.inference.test_style_transfer import carried, piece
from tests.peak_memory import peak_memory_bytes
from tests.small_models import random_tatumflow
model = random_tatumflow()
style_transfer.WINDOWS_AT_ONCE = 8
options = style_transfer.Transfer(steps=1)
carried(model, piece(90.0), options)
before = peak_memory_bytes()
made = carried(model, piece({minutes} * 60.0), options)
assert made.notes.end_seconds > {minutes} * 60 - 10
print(peak_memory_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16_000_000


# ------------------------------------------------------------------------------------------------- options and models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 2.0}, "strength is from 0 to 1, not 2"),
        ({"strength": float("nan")}, "strength is from 0 to 1, not nan"),
        ({"steps": 0}, "steps is from 1 to 1000, not 0"),
        ({"eta": -0.5}, "eta is from 0 to 1, not -0.5"),
        ({"guidance": 1e9}, "guidance is from 0 to 100, not 1e+09"),
        ({"temperature": -1.0}, "temperature is from 0 to 10, not -1"),
        ({"keep": frozenset({"melody", "harmoni"})}, "no such factor: 'harmoni'"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError) as caught:
        replace(QUICK, **change)
    assert caught.value.message == message


def test_factors_and_mixes_are_read():
    assert parse_factors("none") == frozenset()
    assert parse_factors("melody, rhythm") == {"melody", "rhythm"}
    assert parse_mix("jazz=0.7, pop=.3") == {"jazz": 0.7, "pop": 0.3}
    for text in ("", "jazz", "jazz=", "jazz=much", "jazz=1,jazz=2"):
        with pytest.raises(UsageError):
            parse_mix(text)
    assert parse_donors(["rhythm=a.mid", "melody = b=c.mid"]) == {"rhythm": "a.mid", "melody": "b=c.mid"}
    for texts in (
        ["rhythm"],
        ["rhythm="],
        ["rythm=a.mid"],
        ["rhythm=a.mid", "rhythm=b.mid"],
        ["chords=a.mid", "harmony=a.mid"],
    ):
        with pytest.raises(UsageError):
            parse_donors(texts)


@pytest.fixture
def store(tmp_path) -> Store:
    install_small_tatumflow(tmp_path)
    install_small_mt3(tmp_path)
    return Store(tmp_path)


def test_a_model_that_is_made_ready_makes_the_same_music(model, store):
    loaded = load_transfer_model(device="cpu", store=store)
    assert (loaded.name, len(loaded.sha256)) == ("tatumflow", 64)
    options = replace(QUICK, temperature=0.0)
    ours, theirs = (pianos(carried(m, piece(), options)) for m in (model, loaded.model))
    assert rows(ours) == rows(theirs)


def test_a_model_of_another_kind_is_refused(store):
    with pytest.raises(UsageError, match="mt3 is no model that transfers style"):
        load_transfer_model("mt3", store=store)
