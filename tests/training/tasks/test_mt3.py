"""The task `mt3`: what a segment is, that training sees what transcription sees, and that it learns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from musictool.audio.reading import open_audio
from musictool.audio.spectrogram import LogMelConfig
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.config import load_toml
from musictool.errors import InputError, UsageError
from musictool.inference.engine import Decoded, Requests
from musictool.inference.model_files import LoadedModel
from musictool.inference.mt3_transcription import MT3Transcriber
from musictool.inference.transcription import Sound, Transcription
from musictool.metrics.granularity import Granularity
from musictool.models.mt3 import MT3, MT3Config
from musictool.symbolic.midi_writing import write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, Track
from musictool.symbolic.schemes.mt3 import END, TIE, VOCABULARY, encode
from musictool.symbolic.synthesis import render, sounding_until
from musictool.training.data.pairs import PairNotes
from musictool.training.recipe import build_recipe, load_finetuning_table, load_preset_table
from musictool.training.tasks.mt3 import (
    FRAME_SECONDS,
    SEGMENT_FRAMES,
    SEGMENT_SECONDS,
    MT3Data,
    MT3Loss,
    MT3Transcription,
    Segment,
    segment_ids,
)

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPES = Path(__file__).parents[3] / "examples/recipes/mt3"
RATE = 16_000
PROGRAMS = (0, 11, 40)
SMALL = MT3Config(
    width=64,
    heads=2,
    head_width=32,
    hidden=128,
    encoder_layers=2,
    decoder_layers=2,
    dropout=0.0,
    segment_frames=64,
    tokens_max=256,
    front_end=LogMelConfig(hop_samples=512, bins=128),
)
"""Segments as long as ever, in fewer frames."""
SMALL_CHANGES = {"width": 16, "heads": 2, "head_width": 8, "hidden": 32, "encoder_layers": 1, "decoder_layers": 1}
SMALL_CHANGES |= {"tokens_max": 64}


def random_score(seed: int, seconds: float = 20.0, notes_a_second: float = 4.0) -> Score:
    """Notes of several programs and drums, and pedals; no time is near the middle of a step of 10 ms."""
    generator = np.random.default_rng(seed)
    count, end = int(seconds * notes_a_second), round(seconds * 100)
    on = np.sort(generator.integers(0, end * 4 // 5, count))
    off = on + generator.integers(2, 300, count)
    track = generator.integers(0, len(PROGRAMS) + 1, count)
    pitch = 40 + generator.permutation(count) % 48  # a key is seldom struck again, and never while it is down
    again: dict[tuple[int, int], int] = {}
    for row in reversed(range(count)):
        key = int(track[row]), int(pitch[row])
        off[row] = min(off[row], again.get(key, end) - 2)
        again[key] = int(on[row])
    notes = Notes.of(
        on / 100 + generator.integers(0, 4, count) / 1000,
        off / 100 + generator.integers(0, 4, count) / 1000,
        pitch,
        velocity=90,
        program=np.append(PROGRAMS, 0)[track],
        is_drum=track == len(PROGRAMS),
        track=track,
    )
    presses = np.sort(generator.integers(0, end * 4 // 5, 16)) / 100
    tracks = (*(Track("", program) for program in PROGRAMS), Track("", 0, True))
    pedals = Pedals.of(presses[::2], presses[1::2] + 0.002, np.zeros(8, int))
    return Score(notes.take(off > on).sorted(), tracks, pedals=pedals)


def write_pair(stem: Path, score: Score, seconds: float | None = None) -> None:
    """Render a score beside its notes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    blocks = list(render(score.notes, score.pedals, rate_hz=RATE, synthesizer="builtin", tail_seconds=0.5))
    samples = np.concatenate(blocks).mean(axis=1)
    soundfile.write(f"{stem}.wav", samples[: None if seconds is None else round(seconds * RATE)], RATE, "FLOAT")
    Path(f"{stem}.mid").write_bytes(write_midi(score))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of 9, 5 and 1 second, two in a folder and one in another."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pair(folder / "one/long", random_score(1, 9.0), 9.0)
    write_pair(folder / "one/short", random_score(2, 1.0, 8.0), 1.0)
    (folder / "one/short.txt").write_text("short\n")
    write_pair(folder / "other/middling", random_score(3, 5.0), 5.0)
    return folder


@pytest.fixture
def task(pairs: Path) -> Callable[..., MT3Transcription]:
    """Make the task over both folders; changes are of the data section."""

    def make(config: MT3Config = SMALL, seed: int = 0, **changes: object) -> MT3Transcription:
        data = {"train": (pairs / "one", pairs / "other"), "valid": (pairs / "one",), **changes}
        return MT3Transcription(config, MT3Data(max_target_tokens=config.tokens_max, **data), MT3Loss(), seed)

    return make


def is_equal(one: Segment, other: Segment) -> bool:
    return np.array_equal(one.samples, other.samples) and np.array_equal(one.ids, other.ids)


# ------------------------------------------------------------------------------------------------------------- targets


def spelt(score: Score, first_frame: int) -> list[str]:
    """The names of a segment's ids, note by note from their definition; slow on purpose."""
    start, end = first_frame * 4 // 5, (first_frame + SEGMENT_FRAMES) * 4 // 5
    stop = sounding_until(score.notes, score.pedals)
    tied, events = [], []
    for row in range(len(score.notes)):
        notes = score.notes
        pitch, program, is_drum = (int(column[row]) for column in (notes.pitch, notes.program, notes.is_drum))
        on, off = round(float(notes.onset_seconds[row]) * 100), round(float(stop[row]) * 100)
        if stop[row] <= first_frame * FRAME_SECONDS:
            continue
        if not is_drum and on < start <= off:
            tied.append((program, pitch))
        if start <= on < end:
            events.append((on, 1, is_drum, program, pitch))
        if not is_drum and start <= off < end:
            events.append((off, 0, is_drum, program, pitch))
    names, said_program, said_velocity, said_step = [], None, None, start
    for program, pitch in sorted(tied):
        names += [f"Program_{program}"] * (program != said_program) + [f"Pitch_{pitch}"]
        said_program = program
    names.append("Tie")
    for step, velocity, is_drum, program, pitch in sorted(events):
        names += [f"Shift_{step - start}"] * (step != said_step)
        if not is_drum:
            names += [f"Program_{program}"] * (program != said_program)
            said_program = program
        names += [f"Velocity_{velocity}"] * (velocity != said_velocity)
        said_step, said_velocity = step, velocity
        names.append(f"{'Drum' if is_drum else 'Pitch'}_{pitch}")
    return [*names, "End"]


@pytest.mark.parametrize("seed", range(3))
def test_ids_of_a_segment_anywhere_are_those_of_the_definition(seed):
    score = random_score(seed)
    notes = PairNotes.of(score)
    for first in [*range(8), *np.random.default_rng(seed).integers(0, 2600, 60).tolist()]:
        excerpt = notes.between(first * FRAME_SECONDS, first * FRAME_SECONDS + SEGMENT_SECONDS)
        assert VOCABULARY.names(segment_ids(excerpt, first)) == spelt(score, first), first


def test_ids_of_a_piece_cut_as_for_transcription_are_those_of_the_scheme():
    score = random_score(7)
    held = score.notes.with_columns(offset_seconds=sounding_until(score.notes, score.pedals))
    whole = encode(Score(held))
    expected = np.split(whole, np.flatnonzero(whole == END)[:-1] + 1)
    notes = PairNotes.of(score)
    for number, ids in enumerate(expected):
        excerpt = notes.between(number * SEGMENT_SECONDS, (number + 1) * SEGMENT_SECONDS)
        assert segment_ids(excerpt, number * SEGMENT_FRAMES).tolist() == ids.tolist()


def test_a_note_of_minutes_is_tied_and_the_pedal_ends_it():
    pressed = Score(Notes.of([1.0], [2.0], [60]), pedals=Pedals.of([0.5], [300.0], [0]))
    notes = PairNotes.of(pressed)
    first = 36_000  # 288 s
    ids = segment_ids(notes.between(288.0, 288.0 + SEGMENT_SECONDS), first)
    assert VOCABULARY.names(ids) == ["Program_0", "Pitch_60", "Tie", "End"]
    first = 37_400  # 299.2 s
    ids = segment_ids(notes.between(299.2, 299.2 + SEGMENT_SECONDS), first)
    assert VOCABULARY.names(ids) == ["Program_0", "Pitch_60", "Tie", "Shift_80", "Velocity_0", "Pitch_60", "End"]


def test_silence_is_a_tie_and_an_end():
    assert VOCABULARY.names(segment_ids(PairNotes.of(Score()), 3)) == ["Tie", "End"]
    earlier_drum = PairNotes.of(Score(Notes.of([0.5], [9.0], [38], is_drum=True)))
    assert VOCABULARY.names(segment_ids(earlier_drum.between(1.0, 3.048), 125)) == ["Tie", "End"]


@pytest.mark.parametrize(("instruments", "program"), [("full", 42), ("midi_class", 40), ("flat", 0)])
def test_programs_are_told_apart_as_finely_as_asked(instruments, program):
    notes = PairNotes.of(Score(Notes.of([0.1, 0.2], [0.5, 0.3], [60, 38], program=[42, 8], is_drum=[False, True])))
    names = VOCABULARY.names(segment_ids(notes, 0, Granularity(instruments)))
    assert [name for name in names if name.startswith("Program")] == [f"Program_{program}"]
    assert "Drum_38" in names


# ------------------------------------------------------------------------------------------------------------ examples


def test_an_example_is_a_function_of_its_index_and_the_seed(task):
    one, other = task(), task()
    forth = [one.example(index, one._data) for index in range(12)]
    back = [other.example(index, other._data) for index in reversed(range(12))][::-1]
    assert all(map(is_equal, forth, back))
    reseeded = task(seed=1)
    assert not all(is_equal(reseeded.example(index, reseeded._data), forth[index]) for index in range(12))


def test_where_a_segment_begins_depends_on_the_seed_too(task, pairs):
    made = [task(train=(pairs / "one/short.txt",), seed=seed) for seed in (0, 1)]  # of one segment alone
    assert not is_equal(*(each.example(0, each._data) for each in made))


def test_an_epoch_begins_once_in_every_segment_of_the_sound(task, monkeypatch):
    made = task()
    starts = []
    monkeypatch.setattr(made, "_segment", lambda pairs, index, first, data: starts.append((index, first)))
    for index in range(2 * 9):
        made.example(index, made._data)
    epochs = [sorted((pair, first // SEGMENT_FRAMES) for pair, first in part) for part in (starts[:9], starts[9:])]
    expected = [*((0, number) for number in range(5)), (1, 0), *((2, number) for number in range(3))]
    assert epochs == [expected, expected]
    assert starts[:9] != starts[9:]
    frames = {0: 1126, 1: 126, 2: 626}  # a piece of n samples has n // 128 + 1
    assert all(first < frames[pair] for pair, first in starts)
    assert len({first % SEGMENT_FRAMES for _, first in starts}) > 12  # anywhere in it


def test_shares_say_how_often_a_collection_is_drawn(task, pairs):
    lengths = {}
    for shares in ((0.0, 1.0), (3.0, 1.0)):
        made = task(shares=shares)
        drawn = []
        made._segment = lambda pairs, index, first, data, drawn=drawn: drawn.append(len(pairs))  # type: ignore[method-assign]
        for index in range(400):
            made.example(index, made._data)
        lengths[shares] = np.mean(np.array(drawn) == 2)  # `one` has two pairs
    assert lengths[0.0, 1.0] == 0
    assert lengths[3.0, 1.0] == pytest.approx(0.75, abs=0.06)


def test_shares_may_change_while_a_run_goes_on(task):
    made = task()
    of_one, of_other = (
        [made.example(index, replace(made._data, shares=shares)) for index in range(6)]
        for shares in ((1.0, 0.0), (0.0, 1.0))
    )
    assert not any(map(is_equal, of_one, of_other))


def test_targets_longer_than_allowed_are_cut(task):
    made = task()
    whole, cut = (made.example(0, replace(made._data, max_target_tokens=most)).ids for most in (256, 5))
    assert len(whole) > 5
    assert cut.tolist() == whole[:5].tolist()


def test_augmentation_changes_the_sound_and_moves_notes_with_it(task):
    made = task()
    plain = [made.example(index, made._data) for index in range(9)]
    detuning = {name: 0.0 for name in vars(made._data.augment) if name.endswith("_share")}
    loud = replace(made._data.augment, **{**detuning, "gain_decibels": (-6.0, -6.0)})
    quieter = [made.example(index, replace(made._data, augment_share=1.0, augment=loud)) for index in range(9)]
    for one, other in zip(plain, quieter, strict=True):
        np.testing.assert_allclose(other.samples, one.samples * 10**-0.3, atol=1e-6)
        assert one.ids.tolist() == other.ids.tolist()
    stretched = replace(loud, detune_share=1.0, detune_cents=100.0)
    moved = [made.example(index, replace(made._data, augment_share=1.0, augment=stretched)) for index in range(9)]
    assert all(len(one.samples) == len(other.samples) for one, other in zip(plain, moved, strict=True))
    last_shifts = [_last_shift(one.ids) - _last_shift(other.ids) for one, other in zip(plain, moved, strict=True)]
    assert max(map(abs, last_shifts)) >= 2
    mixed = [made.example(index, replace(made._data, augment_share=0.5)) for index in range(9)]
    changed = [not np.array_equal(one.samples, other.samples) for one, other in zip(plain, mixed, strict=True)]
    assert 0 < sum(changed) < 9


def _last_shift(ids: NDArray[np.int32]) -> int:
    shifts = [int(name.partition("_")[2]) for name in VOCABULARY.names(ids) if name.startswith("Shift")]
    return max(shifts, default=0)


# ------------------------------------------------------------------------------------------------------ loss and model


def test_training_sees_the_frames_that_transcription_sees(task, pairs, monkeypatch):
    config = MT3Config(width=16, heads=2, head_width=8, hidden=16, encoder_layers=1, decoder_layers=1, tokens_max=4)
    seen = []
    remember = MT3.remember
    monkeypatch.setattr(MT3, "remember", lambda model, frames: seen.append(frames) or remember(model, frames))
    model = MT3(config).eval()
    transcriber = MT3Transcriber(LoadedModel(model, config, "mt3", ""), Transcription(device="cpu"))
    path = pairs / "one/long.wav"
    for piece in transcriber.run([Sound("long", lambda: open_audio(path))]):
        piece.score()
    made = task(config)
    places = range(0, 1126, SEGMENT_FRAMES)
    batch = made.collate([made._segment(made._all.pairs, 0, place, made._data) for place in places])
    assert batch["frames"].tolist() == [256, 256, 256, 256, 102]
    torch.testing.assert_close(made._features(batch), torch.cat(seen), atol=0, rtol=0)


@torch.no_grad()
def test_padding_of_a_batch_changes_no_loss(task):
    made = task()
    torch.manual_seed(0)
    model = MT3(SMALL).eval()
    examples = [made.example(index, made._data) for index in range(4)]
    together, parts = made.loss(model, made.collate(examples), MT3Loss())
    singles = [made.loss(model, made.collate([example]), MT3Loss())[0] for example in examples]
    tokens = torch.tensor([len(example.ids) for example in examples])
    assert len(set(tokens.tolist())) > 1
    torch.testing.assert_close(together, (torch.stack(singles) * tokens).sum() / tokens.sum())
    torch.testing.assert_close(together, parts["cross_entropy"] + parts["z_loss"])
    assert made.amounts(made.collate(examples)) == {"audio_seconds": 4 * SEGMENT_SECONDS, "tokens": float(tokens.sum())}


@torch.no_grad()
@pytest.mark.parametrize("preset_change", [{}, {"positions": "relative", "ties_output": True}])
def test_fresh_weights_neither_drown_nor_blow_up_what_they_are_given(preset_change):
    torch.manual_seed(0)
    model = MT3(replace(SMALL, width=256, heads=4, head_width=64, hidden=512, **preset_change)).eval()
    x = torch.randn(2, 50, 256)
    attention = model.decoder.blocks[0].self_attention  # type: ignore[union-attr]
    keys = attention.project(x).keys
    scores = attention._split(attention.query(x)) @ keys.transpose(-1, -2)
    assert scores.std().item() == pytest.approx(1.0, abs=0.2)  # a softmax that is neither flat nor all on one
    logits = model(torch.randn(2, 64, 128), torch.randint(0, 1491, (2, 50)))
    assert logits.std().item() == pytest.approx(1.0, abs=0.2)


def test_it_overfits_20_rendered_segments_to_exact_tokens(tmp_path):
    for number in range(5):
        write_pair(tmp_path / f"{number}", random_score(20 + number, 10.0, 3.0))
    data = MT3Data(train=(tmp_path,), valid=(tmp_path,), valid_segments=20, max_target_tokens=256)
    made = MT3Transcription(SMALL, data, MT3Loss(), 0)
    segments = [segment for run in made.held_out for segment in run]
    assert len(segments) == 20
    assert sum(len(segment.ids) for segment in segments) > 600
    torch.manual_seed(0)
    model = MT3(SMALL)
    assert made.evaluate(model.eval())["onset_f1"] < 0.1
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    batch = made.collate(segments)
    model.train()
    for step in range(200):
        loss, _ = made.loss(model, batch, MT3Loss())
        if loss < 0.05:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20)
        optimiser.step()
        optimiser.zero_grad()
    figures = made.evaluate(model.eval())
    assert figures.pop("loss") < 0.05
    assert figures == dict.fromkeys(
        ("token_accuracy", "exact_segments", "onset_f1", "onset_offset_f1", "multi_instrument_f1"), 1.0
    )


def test_a_model_is_trained_then_finetuned_then_transcribes(pairs, tmp_path):
    def mtk(*arguments: object) -> bytes:
        environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO())
        assert main([str(argument) for argument in arguments], environment) == 0, environment.stderr.getvalue()
        return environment.stdout.getvalue()

    small = [f"model.{name}={value}" for name, value in SMALL_CHANGES.items()]
    brief = ["data.max_target_tokens=64", "data.valid_segments=4", "run.steps=2", "run.batch_size=2", "run.workers=0"]
    data = [f'data.train=["{pairs}"]', f'data.valid=["{pairs}"]', "run.precision=fp32"]
    mtk("train", "--preset", "mt3", *data, *small, *brief, "-o", tmp_path / "fresh", "--device", "cpu")
    both = ["--data", pairs / "one", "--data", pairs / "other", "data.shares=[3,1]", data[1]]
    mtk("finetune", *both, *brief, "--model", tmp_path / "fresh/best", "-o", tmp_path / "tuned", "--device", "cpu")
    lines = [json.loads(line) for line in (tmp_path / "tuned/metrics.jsonl").read_text().splitlines()]
    assert {"loss/cross_entropy", "loss/z_loss", "loss/token_accuracy"} <= lines[1].keys()
    assert "valid/multi_instrument_f1" in lines[-2]
    stream = mtk("transcribe", pairs / "one/short.wav", "--model", tmp_path / "tuned/best", "--device", "cpu")
    assert json.loads(stream.splitlines()[0])["vocab"] == "mt3"
    before, after = (load_file(tmp_path / run / "best/model.safetensors") for run in ("fresh", "tuned"))
    assert not any(torch.equal(before[name], after[name]) for name in before if "norm" not in name)


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_held_out_runs_are_as_many_as_asked_and_follow_one_another(task):
    made = task(valid_segments=6)
    runs = made.held_out
    assert [len(run) for run in runs] == [3, 1]  # of 9 and of 1 second
    one, two, three = (segment.samples for segment in runs[0])
    samples, _ = soundfile.read(made._valid.pairs[0].audio, dtype="float32")
    joined = np.concatenate([one, two, three])
    (place,) = [i for i in range(0, len(samples) - len(joined) + 1, 640) if np.array_equal(samples[i : i + 32768], one)]
    assert np.array_equal(samples[place : place + len(joined)], joined)
    assert all(map(is_equal, runs[0], task(valid_segments=6).held_out[0]))
    assert task(valid=()).evaluate(MT3(SMALL)) == {}


@dataclass
class Scribe:
    """Stands for the engine: writes the true ids of every segment, changed in one place."""

    change: Callable[[tuple[int, int], list[int]], list[int]]
    truth: list[list[Segment]]

    def __call__(self, model: object, **options: int) -> Scribe:
        self.tokens_max = options["tokens_max"]
        return self

    def run(self, batches: Iterable[Requests[tuple[int, int]]]) -> Iterator[Decoded[tuple[int, int]]]:
        for key in [key for requests in batches for key in requests.keys]:
            number, place = key
            ids = self.change(key, self.truth[number][place].ids.tolist())
            yield Decoded(key, ids, is_cut_off=ids[-1:] != [END])


def test_figures_are_of_what_the_model_writes(task, monkeypatch):
    made = task(valid_segments=6)

    def figures(change: Callable[[tuple[int, int], list[int]], list[int]]) -> dict[str, float]:
        scribe = Scribe(change, made.held_out)
        monkeypatch.setattr("musictool.training.tasks.mt3.Engine", scribe)
        found = made.evaluate(MT3(SMALL).eval())
        assert scribe.tokens_max == 2 * max(len(segment.ids) for run in made.held_out for segment in run)
        return {name: value for name, value in found.items() if name not in ("loss", "token_accuracy")}

    names = ("exact_segments", "onset_f1", "onset_offset_f1", "multi_instrument_f1")
    assert figures(lambda key, ids: ids) == dict.fromkeys(names, 1.0)
    cut_off = figures(lambda key, ids: ids[:-1] if key == (0, 1) else ids)
    assert cut_off == {**dict.fromkeys(names, 1.0), "exact_segments": 0.75}
    other_program = figures(lambda key, ids: [VOCABULARY.id("Program_11") if id == 1135 else id for id in ids])
    assert other_program["onset_f1"] > other_program["multi_instrument_f1"]
    assert other_program["exact_segments"] < 1
    silent = figures(lambda key, ids: [TIE, END])
    assert silent == dict.fromkeys(names, 0.0)


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_recipe_that_cannot_be_trained_is_refused(task, pairs, tmp_path):
    cases = [
        ({"train": ()}, SMALL, "nothing to train on"),
        ({}, replace(SMALL, segment_frames=128), "segments of 4.096 s"),
        ({}, replace(SMALL, vocabulary=500), "the model 500"),
        ({"max_target_tokens": 300}, SMALL, "256 tokens at most"),
    ]
    for changes, config, words in cases:
        data = replace(MT3Data(train=(pairs,)), max_target_tokens=256)
        with pytest.raises(UsageError, match=words):
            MT3Transcription(config, replace(data, **changes), MT3Loss(), 0).check()
    for changes in ({"train": (tmp_path / "nowhere",)}, {"valid": (tmp_path,)}):
        with pytest.raises(InputError, match="collection"):
            task(**changes).check()
    task().check()


@pytest.mark.parametrize(
    "setting",
    [
        "data.shares=[1.0]",
        "data.shares=[0,0]",
        "data.valid_segments=0",
        "data.augment_share=2",
        "loss.label_smoothing=1",
    ],
)
def test_values_that_make_no_sense_are_refused(setting):
    with pytest.raises(UsageError):
        build_recipe(load_preset_table("mt3"), ['data.train=["a","b"]', setting])


def test_recipes_that_ship_are_whole_and_finetuning_is_gentler():
    fresh = build_recipe(load_preset_table("mt3"))
    gentle = build_recipe(load_finetuning_table("mt3"))
    example = build_recipe(load_toml(RECIPES / "mt3-from-scratch.toml"))
    assert fresh.task == gentle.task == example.task == "mt3"
    assert gentle.optimiser.learning_rate < fresh.optimiser.learning_rate
    assert gentle.run.steps < fresh.run.steps / 100
    assert gentle.data.max_target_tokens <= MT3Config().tokens_max
