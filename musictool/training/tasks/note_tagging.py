"""Learning to tag notes: renderings with exact notes in, the maps of `models.note_tagger` out.

An example is a stretch of one pair, or of two mixed, its sound augmented anew each time it is drawn. Targets are
triangles around onsets and offsets (Kong et al., 2021, section III-A), and boxes over the frames in which a key is down
or a note sounds. What counts is the sum of binary cross-entropies over pitches, each head with a weight of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from musictool.audio.augment import AugmentConfig, augment
from musictool.audio.spectrogram import LogFrequency
from musictool.errors import UsageError
from musictool.inference.note_decoding import NoteDecoder
from musictool.metrics.note_matching import Tolerances, match_notes
from musictool.metrics.transcription import rates
from musictool.models.note_tagger import (
    HEADS,
    LOWEST_PITCH,
    PITCHES,
    NoteTagger,
    NoteTaggerConfig,
    NoteThresholds,
)
from musictool.symbolic.notes import Notes
from musictool.training.data.note_maps import note_maps
from musictool.training.data.pairs import Collection, PairNotes, open_collections

DETUNING_ROOM = 1.03  # more sound than an example has, since one that is played faster is shorter
_GRID = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


@dataclass(frozen=True)
class NoteTaggingData:
    """What is learned from.

    Attributes:
        train: collections of pairs.
        shares: how often each of them is drawn from; by their lengths where nothing is said.
        valid: collections that figures are taken on; never drawn from.
        excerpt_seconds: of an example.
        mix_share: of examples in which a second pair plays along.
        valid_excerpts, valid_seconds: how many stretches of the held-out collections are looked at, and how long.
        augment: what becomes of the sound.
    """

    train: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    valid: tuple[Path, ...] = ()
    excerpt_seconds: float = 5.0
    mix_share: float = 0.1
    valid_excerpts: int = 48
    valid_seconds: float = 10.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.train):
            raise ValueError(f"{len(self.shares)} shares for {len(self.train)} collections")
        if self.shares and (min(self.shares) < 0 or sum(self.shares) == 0):
            raise ValueError("shares are 0 or more, and not all of them 0")
        if self.excerpt_seconds <= 0 or self.valid_seconds <= 0:
            raise ValueError("an excerpt lasts more than 0 seconds")
        if self.valid_excerpts < 1:
            raise ValueError("valid_excerpts is 1 or more")
        if self.augment.detune_cents > 50:
            raise ValueError("augment.detune_cents is 50 at most: beyond, a note is nearer to its neighbour")


@dataclass(frozen=True)
class NoteTaggingLoss:
    """How much each head counts."""

    onset: float = 2.0
    frame: float = 0.5
    offset: float = 1.0
    sounding: float = 0.25
    velocity: float = 0.5


class _Example(NamedTuple):
    """Sound, float32 [N], and the maps that are wanted, float32 [heads, T, 88]."""

    samples: NDArray[np.float32]
    maps: NDArray[np.float32]


class NoteTagging:
    """The task.

    Args:
        model_config: of the net.
        data, loss: sections of the recipe.
        seed: of the run.
    """

    data_class: ClassVar[type] = NoteTaggingData
    loss_class: ClassVar[type] = NoteTaggingLoss
    families: ClassVar[tuple[str, ...]] = ("note-tagger",)

    def __init__(self, model_config: NoteTaggerConfig, data: NoteTaggingData, loss: NoteTaggingLoss, seed: int) -> None:
        self._config = model_config
        self._data = data
        self._loss = loss
        self._seed = seed
        self._front_end = LogFrequency(model_config.front_end)
        self._hop_seconds = model_config.front_end.hop_samples / model_config.front_end.rate_hz

    @cached_property
    def _train(self) -> list[Collection]:
        return [open_collections([path]) for path in self._data.train]

    @cached_property
    def _valid(self) -> Collection:
        return open_collections(self._data.valid)

    def check(self) -> None:
        """See whether there is something to learn from.

        Raises:
            InputError: a collection is not there, or empty.
            UsageError: none is named.
        """
        if not self._data.train:
            raise UsageError("no data to learn from", hint='name a collection of pairs: data.train=["FOLDER"]')
        _ = self._train
        if self._data.valid:
            _ = self._valid

    def example(self, index: int, data: NoteTaggingData) -> _Example:
        """Example `index`: its sound and its maps."""
        generator = np.random.default_rng((self._seed, index))
        samples, played = self._draw(data, generator)
        notes = [played]
        if generator.random() < data.mix_share:
            other, other_notes = self._draw(data, generator)
            level = np.float32(10 ** (generator.uniform(-10, 3) / 20))
            samples, notes = samples + level * other, [*notes, other_notes]
        return _Example(
            samples, note_maps(notes, self._hop_seconds, len(samples) // self._config.front_end.hop_samples)
        )

    def _draw(self, data: NoteTaggingData, generator: np.random.Generator) -> tuple[NDArray[np.float32], PairNotes]:
        """A stretch of some pair, augmented, float32 [N], N a multiple of the hop; and its notes."""
        front_end = self._config.front_end
        shares = np.array(data.shares or [collection.duration_seconds for collection in self._train])
        collection = self._train[generator.choice(len(shares), p=shares / shares.sum())]
        row = int(generator.integers(len(collection)))
        count = round(data.excerpt_seconds / self._hop_seconds) * front_end.hop_samples
        seconds = count * DETUNING_ROOM / front_end.rate_hz
        latest = max(0.0, collection.pairs[row].duration_seconds - seconds)
        excerpt = collection.excerpt(row, generator.uniform(0.0, latest), seconds, front_end.rate_hz)
        changed = augment(excerpt.samples, front_end.rate_hz, data.augment, generator)
        samples = np.zeros(count, np.float32)
        samples[: len(changed.samples)] = changed.samples[:count]
        return samples, excerpt.notes.stretched(changed.time_ratio)

    def collate(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        """A batch: samples, float32 [B, N], and maps, float32 [B, heads, T, 88]."""
        return {
            "samples": torch.from_numpy(np.stack([example.samples for example in examples])),
            "maps": torch.from_numpy(np.stack([example.maps for example in examples])),
        }

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], loss: NoteTaggingLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and each head's part in it before it is weighted."""
        samples, maps = batch["samples"], batch["maps"]
        with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
            frames = self._front_end.to(samples.device)(samples)
        logits = model(frames)
        parts = {}
        for number, name in enumerate(HEADS):
            each = functional.binary_cross_entropy_with_logits(logits[number], maps[:, number], reduction="none")
            if name == "velocity":  # wanted at onsets alone
                each = each * maps[:, HEADS.index("onset")]
            parts[name] = each.sum(-1).mean()
        total = torch.stack([getattr(loss, name) * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def amounts(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Seconds of sound in a batch."""
        return {"audio_seconds": batch["samples"].numel() / self._config.front_end.rate_hz}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss and note F1 on stretches of the held-out collections, with the thresholds that suit them best.

        Those thresholds become part of the model's configuration.
        """
        if not self._data.valid:
            return {}
        assert isinstance(model, NoteTagger)
        heard = [self._hear(model, number) for number in range(self._data.valid_excerpts)]
        thresholds = _best_thresholds(heard, self._hop_seconds)
        model.config = replace(model.config, thresholds=thresholds)
        onset, onset_offset = _mean_f1(heard, thresholds, self._hop_seconds)
        loss = float(np.mean([stretch.loss for stretch in heard]))
        return {
            "loss": loss,
            "onset_f1": onset,
            "onset_offset_f1": onset_offset,
            **{f"{name}_threshold": value for name, value in asdict(thresholds).items()},
        }

    def _hear(self, model: NoteTagger, number: int) -> _Heard:
        """What the model says of a held-out stretch; stretches are spread evenly over the collections."""
        front_end = self._config.front_end
        frames = round(self._data.valid_seconds / self._hop_seconds)
        seconds = frames * self._hop_seconds
        starts = np.cumsum([0.0, *(pair.duration_seconds for pair in self._valid.pairs)])
        place = (number + 0.5) / self._data.valid_excerpts * starts[-1]
        row = int(np.searchsorted(starts, place, side="right")) - 1
        latest = max(0.0, self._valid.pairs[row].duration_seconds - seconds)
        excerpt = self._valid.excerpt(row, min(place - starts[row], latest), seconds, front_end.rate_hz)
        maps = note_maps([excerpt.notes], self._hop_seconds, frames)
        example = self.collate([_Example(excerpt.samples, maps)])
        batch = {key: value.to(model.bins.device) for key, value in example.items()}
        loss, _ = self.loss(model, batch, self._loss)
        with torch.autocast(batch["samples"].device.type, enabled=False):
            logits = model(self._front_end(batch["samples"]))
        said = torch.stack([logits.onset, logits.frame, logits.offset, logits.velocity])[:, 0].sigmoid()
        return _Heard(said.cpu().numpy(), _played(excerpt.notes, seconds), float(loss))


class _Heard(NamedTuple):
    """What a model says of a stretch, float32 [4, T, 88], what was played in it, and the loss."""

    maps: NDArray[np.float32]
    played: Notes
    loss: float


def _played(notes: PairNotes, seconds: float) -> Notes:
    """The notes that begin in a stretch and can be asked for, cut at its end."""
    has_pitch = (notes.pitch >= LOWEST_PITCH) & (notes.pitch < LOWEST_PITCH + PITCHES)
    rows = ~notes.is_drum & has_pitch & (notes.onset_seconds >= 0)
    offset = np.minimum(notes.offset_seconds[rows], seconds)
    return Notes.of(notes.onset_seconds[rows], offset, notes.pitch[rows], notes.velocity[rows])


def _mean_f1(heard: Sequence[_Heard], thresholds: NoteThresholds, hop_seconds: float) -> tuple[float, float]:
    """Mean F1 of onsets, and of onsets with offsets, over stretches in which something is played."""
    scores = []
    for stretch in heard:
        if len(stretch.played):
            decoder = NoteDecoder(thresholds, hop_seconds)
            decoder.feed(stretch.maps)
            found = decoder.notes()
            matched = (
                len(match_notes(stretch.played, found, Tolerances(), with_offsets=with_offsets))
                for with_offsets in (False, True)
            )
            scores.append([rates(count, len(stretch.played), len(found))["f1"] for count in matched])
    onset, onset_offset = np.mean(scores, axis=0) if scores else (0.0, 0.0)
    return float(onset), float(onset_offset)


def _best_thresholds(heard: Sequence[_Heard], hop_seconds: float) -> NoteThresholds:
    """The onset threshold with the best onset F1, then the other two with the best F1 of whole notes."""
    best = NoteThresholds()
    for name, measure in (("onset", 0), ("offset", 1), ("frame", 1), ("offset", 1)):
        candidates = [replace(best, **{name: value}) for value in _GRID]
        best = max(candidates, key=lambda each: _mean_f1(heard, each, hop_seconds)[measure])
    return best
