"""Learning to tag notes: examples, the loss, figures on held-out data, and that a small net learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import nn

from musictool.audio.augment import AugmentConfig
from musictool.audio.spectrogram import LogFrequencyConfig
from musictool.config import from_dict
from musictool.errors import InputError, UsageError
from musictool.inference.note_decoding import NoteDecoder
from musictool.models.note_tagger import HEADS, NoteLogits, NoteTagger, NoteTaggerConfig, NoteThresholds
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.synthesis import render
from musictool.training.data.note_maps import note_maps
from musictool.training.data.pairs import Collection, PairNotes, open_collections
from musictool.training.tasks.note_tagging import NoteTagging, NoteTaggingData, NoteTaggingLoss, _played

RATE, HOP = 16_000, 320
FRAME_SECONDS = HOP / RATE
SECONDS = 6.0
TINY = NoteTaggerConfig(
    channels=16,
    time_dilations=(1, 2),
    pitch_dilations=(1, 12),
    harmonics=(1, 2, 3),
    front_end=LogFrequencyConfig(windows_samples=(2048,)),
)
SHARES = ("detune", "equalise", "room", "noise", "band", "hum", "compress", "clip", "codec")
AS_RECORDED = AugmentConfig(**{f"{name}_share": 0.0 for name in SHARES}, gain_decibels=(0.0, 0.0))


def tune(seed: int) -> Notes:
    """Four notes a second on thirteen pitches, now and then two at once."""
    generator = np.random.default_rng(seed)
    onset = np.arange(0.2, SECONDS - 1, 0.25)
    onset += generator.uniform(-0.05, 0.05, len(onset))
    pitch, velocity = generator.integers(55, 68, len(onset)), generator.integers(40, 120, len(onset))
    return Notes.of(onset, onset + generator.uniform(0.15, 0.6, len(onset)), pitch, velocity)


def write_pair(stem: Path, seed: int) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    blocks = render(tune(seed), Pedals.of(), rate_hz=RATE, synthesizer="builtin")
    sound = np.concatenate(list(blocks)).mean(1)[: round(SECONDS * RATE)]
    soundfile.write(f"{stem}.wav", sound, RATE, subtype="FLOAT")
    Path(f"{stem}.mid").write_bytes(write_midi(Score(tune(seed))))


@pytest.fixture(scope="module")
def collections(tmp_path_factory) -> Path:
    """Folders `one`, of a pair, `three` of as many, and `valid` of two."""
    root = tmp_path_factory.mktemp("pairs")
    for seed, stem in enumerate(["one/a", "three/b", "three/c", "three/d", "valid/e", "valid/f"]):
        write_pair(root / stem, seed)
    return root


@pytest.fixture
def task_of(collections) -> Callable[..., NoteTagging]:
    """A task over some folders, as recorded unless something else is said."""

    def build(*train: str, seed: int = 0, **values) -> NoteTagging:
        folders = {"train": tuple(collections / name for name in train)}
        values = {"augment": AS_RECORDED, "mix_share": 0.0, "excerpt_seconds": SECONDS, **folders, **values}
        return NoteTagging(TINY, NoteTaggingData(**values), NoteTaggingLoss(), seed)

    return build


def examples(task: NoteTagging, *indices: int) -> list:
    return [task.example(index, task._data) for index in indices]


def whole(path: Path) -> tuple[list[np.ndarray], list[PairNotes]]:
    """The sounds and the notes of a collection."""
    collection = open_collections([path])
    sounds = [collection.excerpt(row, 0, SECONDS, RATE).samples for row in range(len(collection))]
    return sounds, [collection.notes(row) for row in range(len(collection))]


def maps_of(*parts: PairNotes, frames: int = round(SECONDS / FRAME_SECONDS)) -> np.ndarray:
    return note_maps(parts, FRAME_SECONDS, frames)


# ------------------------------------------------------------------------------------------------------------ examples


def test_an_example_is_a_pure_function_of_seed_and_index(task_of):
    values = {"augment": AugmentConfig(codec_share=0.2), "mix_share": 0.5, "excerpt_seconds": 1.0}
    forward = examples(task_of("one", "three", **values), *range(8))
    backward = examples(task_of("one", "three", **values), *reversed(range(8)))[::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
        np.testing.assert_array_equal(one.maps, other.maps)
    assert len({example.samples.tobytes() for example in forward}) == 8
    (other_seed,) = examples(task_of("one", "three", seed=1, **values), 0)
    assert not np.array_equal(other_seed.samples, forward[0].samples)


def test_an_example_is_the_sound_of_a_pair_and_the_maps_of_its_notes(task_of, collections):
    (sound,), (notes,) = whole(collections / "one")
    (example,) = examples(task_of("one"), 0)
    np.testing.assert_allclose(example.samples, sound, atol=1e-6)
    np.testing.assert_array_equal(example.maps, maps_of(notes))


def test_a_short_example_is_a_stretch_of_a_pair_and_of_its_notes(task_of, collections):
    (sound,), (notes,) = whole(collections / "one")
    windows = np.lib.stride_tricks.sliding_window_view(sound, RATE)
    starts = []
    for example in examples(task_of("one", excerpt_seconds=1.0), *range(6)):
        start = int(np.abs(windows[:, ::97] - example.samples[::97]).max(1).argmin())
        starts.append(start / RATE)
        np.testing.assert_allclose(example.samples, sound[start : start + RATE], atol=1e-6)
        around = notes.between(starts[-1], starts[-1] + 1 + FRAME_SECONDS)  # what comes next casts its shadow before
        expected = maps_of(around, frames=50)
        np.testing.assert_allclose(example.maps, expected, atol=1e-4)
    assert max(starts) - min(starts) > 1


def test_an_example_longer_than_its_pair_ends_in_silence(task_of, collections):
    (sound,), _ = whole(collections / "one")
    (example,) = examples(task_of("one", excerpt_seconds=SECONDS + 2), 0)
    assert len(example.samples) == (SECONDS + 2) * RATE
    np.testing.assert_allclose(example.samples[: len(sound)], sound, atol=1e-6)
    assert not example.samples[len(sound) :].any()


def test_notes_follow_a_sound_that_is_played_faster_or_slower(task_of, collections):
    (sound,), (notes,) = whole(collections / "one")
    detuned = replace(AS_RECORDED, detune_share=1.0, detune_cents=40.0)
    ratios = []
    for example in examples(task_of("one", augment=detuned), *range(4)):
        decoder = NoteDecoder(NoteThresholds(), FRAME_SECONDS)
        decoder.feed(example.maps[[HEADS.index(name) for name in ("onset", "frame", "offset", "velocity")]])
        ratios.append(decoder.notes().onset_seconds[-1] / notes.onset_seconds[-1])
        stretched = soxr.resample(sound, RATE, RATE * ratios[-1])[: 5 * RATE]
        assert np.corrcoef(stretched, example.samples[: len(stretched)])[0, 1] > 0.99
        np.testing.assert_allclose(example.maps, maps_of(notes.stretched(ratios[-1])), atol=0.01)
    assert np.ptp(ratios) > 0.01


def test_a_mixed_example_is_the_sum_of_two_sounds_and_the_maps_of_both(task_of, collections):
    sounds, notes = whole(collections / "three")
    matrix = np.stack(sounds, 1)
    counts, levels = [], []
    for example in examples(task_of("three", mix_share=1.0), *range(12)):
        weights, *_ = np.linalg.lstsq(matrix, example.samples, rcond=None)
        np.testing.assert_allclose(matrix @ weights, example.samples, atol=1e-4)
        there = np.flatnonzero(weights > 0.01)
        counts.append(len(there))
        levels += [20 * np.log10(weights[row]) for row in there if abs(weights[row] - 1) > 1e-3 and len(there) == 2]
        together = maps_of(*(notes[row] for row in there))
        for head in ("onset", "frame", "offset", "sounding"):
            np.testing.assert_array_equal(example.maps[HEADS.index(head)], together[HEADS.index(head)])
    assert set(counts) == {1, 2}  # a pair may be drawn twice
    assert len(levels) == counts.count(2)
    assert -10 < min(levels) < -3
    assert max(levels) < 3


@pytest.mark.parametrize(("shares", "share"), [((), 0.25), ((3.0, 1.0), 0.75), ((1.0, 0.0), 1.0)])
def test_collections_are_drawn_from_by_their_shares_or_else_their_lengths(task_of, collections, shares, share):
    drawn = examples(task_of("one", "three", shares=shares), *range(150))
    _, (notes,) = whole(collections / "one")
    wanted = maps_of(notes)
    assert np.mean([np.array_equal(each.maps, wanted) for each in drawn]) == pytest.approx(share, abs=0.1)


def test_a_batch_holds_samples_and_maps_of_whole_frames(task_of):
    task = task_of("three", excerpt_seconds=1.013)
    batch = task.collate(examples(task, 0, 1, 2))
    frames = round(1.013 / FRAME_SECONDS)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "samples": ((3, frames * HOP), torch.float32),
        "maps": ((3, len(HEADS), frames, 88), torch.float32),
    }
    assert task.amounts(batch) == {"audio_seconds": pytest.approx(3 * frames * FRAME_SECONDS)}


def test_an_example_has_the_length_of_its_step(task_of):
    task = task_of("one")
    longer = replace(task._data, excerpt_seconds=2.0)
    assert len(task.example(0, longer).samples) == 2 * RATE


# ------------------------------------------------------------------------------------------------------------ the loss


class Saying(nn.Module):
    """A model that says what it is told, in logits, [heads, B, T, 88]."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, frames: torch.Tensor) -> NoteLogits:
        assert frames.shape[:2] == self.logits.shape[1:3]
        return NoteLogits(*self.logits)


@pytest.fixture
def batch(task_of) -> dict[str, torch.Tensor]:
    task = task_of("three", excerpt_seconds=2.0)
    return task.collate(examples(task, 0, 1))


def perfect(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.logit(batch["maps"].transpose(0, 1), eps=1e-6)


def entropy(probability: torch.Tensor) -> torch.Tensor:
    sure = probability.double().clamp(1e-12, 1 - 1e-12)
    return -(sure * sure.log() + (1 - sure) * (1 - sure).log())


def test_perfect_logits_have_the_entropy_of_what_is_wanted_and_no_other_have_less(task_of, batch):
    task, maps = task_of("three"), batch["maps"]
    weights = NoteTaggingLoss()
    total, parts = task.loss(Saying(perfect(batch)), batch, weights)
    for number, name in enumerate(HEADS):
        each = entropy(maps[:, number])
        least = (each * maps[:, 0] if name == "velocity" else each).sum(-1).mean()
        assert float(parts[name]) == pytest.approx(float(least), abs=2e-3)
        for scale, shift in ((0.5, 0), (1, 8), (1, -8)):
            logits = perfect(batch)
            logits[number] = scale * logits[number] + shift
            assert task.loss(Saying(logits), batch, weights)[0].item() > total.item() + 1e-4


def test_the_loss_is_the_weighted_sum_of_its_parts(task_of, batch):
    weights = NoteTaggingLoss(onset=1.0, frame=2.0, offset=3.0, sounding=4.0, velocity=5.0)
    total, parts = task_of("three").loss(Saying(torch.zeros_like(perfect(batch))), batch, weights)
    assert list(parts) == list(HEADS)
    assert not any(part.requires_grad for part in parts.values())
    expected = sum(weight * float(parts[name]) for weight, name in enumerate(HEADS, 1))
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_velocity_counts_at_onsets_alone(task_of, batch):
    model = Saying(torch.zeros_like(perfect(batch)))
    task_of("three").loss(model, batch, NoteTaggingLoss())[0].backward()
    gradient = model.logits.grad
    is_onset = batch["maps"][:, HEADS.index("onset")] > 0
    velocity = gradient[HEADS.index("velocity")]
    assert not velocity[~is_onset].any()
    assert (velocity[is_onset & (batch["maps"][:, HEADS.index("velocity")] != 0.5)] != 0).all()
    assert (gradient[HEADS.index("frame")] != 0).all()


def test_the_loss_of_a_batch_is_the_mean_of_its_examples(task_of, batch):
    task = task_of("three")
    torch.manual_seed(0)
    model = NoteTagger(TINY).eval()
    with torch.no_grad():
        together = task.loss(model, batch, NoteTaggingLoss())[0]
        single = [
            task.loss(model, {name: each[row : row + 1] for name, each in batch.items()}, NoteTaggingLoss())[0]
            for row in range(2)
        ]
    assert float(together) == pytest.approx(float(sum(single)) / 2, rel=1e-5)


# ------------------------------------------------------------------------------------------------- figures and learning


def test_nothing_held_out_gives_no_figures(task_of):
    assert task_of("one").evaluate(NoteTagger(TINY)) == {}


def test_held_out_stretches_are_spread_over_all_pairs_and_always_the_same(task_of, collections, monkeypatch):
    excerpt, asked = Collection.excerpt, []

    def noted(self, index, start_seconds, duration_seconds, rate_hz):
        asked.append((index, start_seconds, duration_seconds))
        return excerpt(self, index, start_seconds, duration_seconds, rate_hz)

    monkeypatch.setattr(Collection, "excerpt", noted)
    task = task_of("one", valid=(collections / "valid",), valid_excerpts=3, valid_seconds=2.5)
    first, second = (task.evaluate(NoteTagger(TINY).eval()) for _ in range(2))
    assert asked[:3] == asked[3:]
    assert [row for row, *_ in asked[:3]] == [0, 1, 1]
    assert [start for _, start, _ in asked[:3]] == pytest.approx([2.0, 0.0, 3.5])  # none reaches past the end
    assert all(seconds == pytest.approx(2.5) for *_, seconds in asked)
    assert first.keys() == second.keys()


def test_what_can_be_asked_for_begins_in_the_stretch_and_has_a_pitch_of_a_piano():
    notes = Notes.of(
        [0.5, 1.0, 2.0, 3.0, 1.5, 1.6],
        [1.5, 1.4, 9.0, 4.0, 1.7, 1.8],
        [60, 61, 62, 63, 36, 10],
        64,
        0,
        [0, 0, 0, 0, 1, 0],
    )
    got = _played(PairNotes.of(Score(notes)).between(1.0, 3.0), 2.0)
    assert got.pitch.tolist() == [61, 62]
    np.testing.assert_allclose([got.onset_seconds, got.offset_seconds], [[0, 1], [0.4, 2.0]], atol=1e-6)


def test_a_small_net_learns_in_a_few_steps(task_of, collections):
    """The loss falls, notes of pieces that it was not trained on are found, and thresholds suit how sure it is."""
    task = task_of("three", valid=(collections / "valid",), excerpt_seconds=2.0, valid_excerpts=4, valid_seconds=3.0)
    torch.manual_seed(0)
    model = NoteTagger(TINY).eval()
    untrained = task.evaluate(model)
    assert untrained["onset_f1"] < 0.1
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        batch = task.collate(examples(task, 2 * step, 2 * step + 1))
        loss, _ = task.loss(model.train(), batch, NoteTaggingLoss())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained = task.evaluate(model.eval())
    assert trained["loss"] < 0.3 * untrained["loss"]
    assert trained["onset_f1"] > 0.7
    assert trained["onset_offset_f1"] > 0.4
    thresholds = NoteThresholds(*(trained[f"{name}_threshold"] for name in ("onset", "offset", "frame")))
    assert model.config == replace(TINY, thresholds=thresholds)
    with torch.no_grad():
        model.head.bias[HEADS.index("onset")] += 1.5
    surer = task.evaluate(model)
    assert surer["onset_threshold"] > trained["onset_threshold"]
    assert surer["onset_f1"] == pytest.approx(trained["onset_f1"], abs=0.1)


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_what_is_there_is_fine(task_of, collections):
    task_of("one", "three", valid=(collections / "valid",)).check()


def test_no_collection_is_wrong_usage(task_of):
    with pytest.raises(UsageError, match="no data to learn from") as caught:
        task_of().check()
    assert "data.train" in caught.value.hint


@pytest.mark.parametrize("key", ["train", "valid"])
def test_a_collection_that_is_missing_or_empty_is_named(task_of, collections, tmp_path, key):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="collection") as caught:
            task_of("one", **{key: (collections / "three", folder)}).check()
        assert caught.value.context == str(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"train": ["a"], "shares": [1, 1]},
        {"train": ["a", "b"], "shares": [0, 0]},
        {"train": ["a", "b"], "shares": [2, -1]},
        {"excerpt_seconds": 0},
        {"valid_seconds": -1.0},
        {"valid_excerpts": 0},
    ],
)
def test_values_that_make_no_sense_are_wrong_usage(values):
    with pytest.raises(UsageError):
        from_dict(NoteTaggingData, values)
