"""Task `mt3`: segments of sound, and the ids that MT3 is to write for them, teacher-forced.

As in Gardner et al. (2022), section 4: a segment begins anywhere in a piece, on a whole frame; its ids are those of
scheme `mt3`, which first list the notes that sound from before; a note ends where the sustain pedal lets go of it. The
spectrogram is computed on the model's device, each segment alone, as when the model transcribes. A model is judged by
runs of segments of held-out pieces, transcribed greedily. Knows neither optimisers nor the loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musictool.audio.augment import AugmentConfig, augment
from musictool.audio.spectrogram import LogMel
from musictool.core.attention import padding_mask
from musictool.errors import UsageError
from musictool.inference.engine import Engine, Requests
from musictool.metrics.granularity import Granularity
from musictool.metrics.transcription import evaluate, mean_scores
from musictool.models.mt3 import MT3, MT3Config
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.schemes.mt3 import END, TIE, VOCABULARY, encode
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.order import item_at
from musictool.training.data.pairs import Collection, Pair, PairNotes, open_collections
from musictool.training.losses import token_loss

SEGMENT_FRAMES, FRAME_SECONDS = 256, 0.008  # of scheme `mt3`
SEGMENT_SECONDS = SEGMENT_FRAMES * FRAME_SECONDS
PHASES = 5  # so many frames, and so many segments, are whole steps of 10 ms
DETUNING_ROOM = 1.06  # more sound than a segment has, since one that is played faster is shorter
RUN_SEGMENTS = 4  # a run of held-out segments has as many or more, so that notes cross their borders
TOGETHER = 8  # held-out segments encoded at once
ROWS = 32  # and decoded side by side
FIGURES = ("onset_f1", "onset_offset_f1", "multi_instrument_f1")


@dataclass(frozen=True)
class MT3Data:
    """What MT3 learns from.

    Attributes:
        train: collections of pairs, each a folder or a list of stems.
        shares: how often each of `train` is drawn, in proportion; none for as often as it has sound.
        valid: collections of pairs that are held out.
        valid_segments: how many segments of these an evaluation transcribes, spread over them in runs.
        max_target_tokens: of a segment; those beyond are left out.
        instruments: how finely programs are told apart; a family of eight is called by its first.
        augment_share: how many of the segments to train on have their sound changed.
        augment: in what ways.
    """

    train: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    valid: tuple[Path, ...] = ()
    valid_segments: int = 64
    max_target_tokens: int = 1024
    instruments: Granularity = Granularity.FULL
    augment_share: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.train):
            raise ValueError(f"{len(self.shares)} shares for {len(self.train)} collections in train")
        if not all(0 <= share < np.inf for share in self.shares) or (self.shares and not sum(self.shares)):
            raise ValueError("shares are 0 or more, and one at least is above")
        if self.valid_segments < 1 or self.max_target_tokens < 1:
            raise ValueError("valid_segments and max_target_tokens are at least 1")
        if not 0 <= self.augment_share <= 1:
            raise ValueError("augment_share is from 0 to 1")


@dataclass(frozen=True)
class MT3Loss:
    """What MT3 is to minimise.

    Attributes:
        z_loss: weight of log(Z)^2, which keeps logits from drifting.
        label_smoothing: share of a token's probability that is spread over the others.
    """

    z_loss: float = 1e-4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (self.z_loss >= 0 and 0 <= self.label_smoothing < 1):
            raise ValueError("z_loss is 0 or more, label_smoothing from 0 to below 1")


class Segment(NamedTuple):
    """An example.

    Attributes:
        samples: float32 [N]; zeros beyond the end of the piece.
        frames: how many of its frames are of the piece.
        ids: int32 [t], what is to be written.
    """

    samples: NDArray[np.float32]
    frames: int
    ids: Ids


class MT3Transcription:
    """The task.

    Args:
        model_config: of the model to be trained.
        data, loss: the recipe's sections.
        seed: of the order of examples and of where they begin.
    """

    data_class: ClassVar[type[MT3Data]] = MT3Data
    loss_class: ClassVar[type[MT3Loss]] = MT3Loss
    families: ClassVar[tuple[str, ...]] = (MT3Config.family,)

    def __init__(self, model_config: MT3Config, data: MT3Data, loss: MT3Loss, seed: int) -> None:
        self._config = model_config
        self._data = data
        self._seed = seed
        self._front_end = LogMel(model_config.front_end)

    def check(self) -> None:
        """Look whether there is data, and whether the model can write scheme `mt3`.

        Raises:
            InputError: a collection is not there or holds no pair.
            UsageError: nothing to train on is named, or the model's numbers do not fit the scheme.
        """
        config, data = self._config, self._data
        if not data.train:
            hint = "data.train=[…] names folders of pairs, or lists of them: mtk data synth makes some"
            raise UsageError("there is nothing to train on", context="data.train", hint=hint, code="no-data")
        if config.segment_samples != round(SEGMENT_SECONDS * config.front_end.rate_hz):
            seconds = config.segment_samples / config.front_end.rate_hz
            hint = f"segment_frames times front_end.hop_samples make {SEGMENT_SECONDS} s"
            raise UsageError(f"segments of {seconds:g} s are not those of scheme mt3", context="model", hint=hint)
        if config.vocabulary < len(VOCABULARY):
            hint = f"model.vocabulary={len(VOCABULARY)}"
            raise UsageError(f"scheme mt3 has {len(VOCABULARY)} ids, the model {config.vocabulary}", hint=hint)
        if data.max_target_tokens > config.tokens_max:
            hint = f"data.max_target_tokens={config.tokens_max}"
            raise UsageError(f"the model writes {config.tokens_max} tokens at most", context="data", hint=hint)
        _ = self._each, self._valid

    def example(self, index: int, data: MT3Data) -> Segment:
        """A segment that begins on any frame; those of a collection come in an order that covers all of its sound.

        Args:
            index: of the example.
            data: as it is at its step.
        """
        generator = np.random.default_rng((self._seed, index))
        collection = self._all
        if data.shares:
            share = np.array(data.shares) / sum(data.shares)
            collection = self._each[generator.choice(len(share), p=share)]
        pair, first = collection.segment(item_at(index, collection.count, self._seed))
        first += int(generator.integers(min(SEGMENT_FRAMES, _frames(collection.pairs.pairs[pair]) - first)))
        if generator.random() < data.augment_share:
            return self._segment(collection.pairs, pair, first, data, generator)
        return self._segment(collection.pairs, pair, first, data)

    def collate(self, examples: Sequence[Segment]) -> dict[str, Tensor]:
        """Put segments side by side, B of them.

        Returns:
            samples float32 [B, N], frames int64 [B], ids int64 [B, T] and lengths int64 [B] of the ids.
        """
        lengths = torch.tensor([len(example.ids) for example in examples])
        ids = torch.zeros(len(examples), int(lengths.max()), dtype=torch.int64)
        for row, example in zip(ids, examples, strict=True):
            row[: len(example.ids)] = torch.from_numpy(example.ids)
        return {
            "samples": torch.from_numpy(np.stack([example.samples for example in examples])),
            "frames": torch.tensor([example.frames for example in examples]),
            "ids": ids,
            "lengths": lengths,
        }

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], loss: MT3Loss) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the ids and z-loss, the mean over tokens.

        Args:
            model: an MT3, wrapped or not.
            batch: from `collate`.
            loss: the weights.
        """
        logits = model(self._features(batch), self._read_ids(batch))
        weights = {"z_loss": loss.z_loss, "label_smoothing": loss.label_smoothing}
        found = token_loss(logits, batch["ids"], padding_mask(batch["lengths"], batch["ids"].shape[1]), **weights)
        parts = {"cross_entropy": found.cross_entropy, "z_loss": found.z_loss, "token_accuracy": found.accuracy}
        return found.total, parts

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Seconds of sound and number of tokens."""
        seconds = batch["samples"].numel() / self._config.front_end.rate_hz
        return {"audio_seconds": seconds, "tokens": float(batch["lengths"].sum())}

    # ------------------------------------------------------------------------------------------------------- examples

    @cached_property
    def _each(self) -> list[_Segments]:
        """What `train` names, one by one."""
        return [_Segments(open_collections([path])) for path in self._data.train]

    @cached_property
    def _all(self) -> _Segments:
        """All of it together."""
        return _Segments(Collection([pair for part in self._each for pair in part.pairs.pairs]))

    @cached_property
    def _valid(self) -> Collection:
        return open_collections(self._data.valid)

    def _segment(
        self, pairs: Collection, index: int, first: int, data: MT3Data, generator: np.random.Generator | None = None
    ) -> Segment:
        """The segment of a pair that begins at a frame; a generator, if there is one, changes its sound."""
        front_end, start_seconds = self._config.front_end, first * FRAME_SECONDS
        room = 1.0 if generator is None else DETUNING_ROOM
        excerpt = pairs.excerpt(index, start_seconds, SEGMENT_SECONDS * room, front_end.rate_hz)
        samples, notes = excerpt.samples, excerpt.notes
        left_seconds = pairs.pairs[index].duration_seconds - start_seconds
        if generator is not None:
            changed = augment(samples, front_end.rate_hz, data.augment, generator)
            samples, notes = changed.samples[: self._config.segment_samples], notes.stretched(changed.time_ratio)
            left_seconds *= changed.time_ratio
        frames = round(left_seconds * front_end.rate_hz) // front_end.hop_samples + 1
        ids = segment_ids(notes, first, data.instruments)[: data.max_target_tokens]
        return Segment(samples, min(frames, self._config.segment_frames), ids)

    # ------------------------------------------------------------------------------------------------- on the device

    def _features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Log-mel frames, float32 [B, S, M]; zeros beyond the end of a piece."""
        samples = batch["samples"]
        with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
            frames: Tensor = self._front_end.to(samples.device)(samples)
        return frames * padding_mask(batch["frames"], frames.shape[1])[..., None]

    def _read_ids(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the decoder reads to write a batch's ids: the start id, and all of them but the last."""
        return nn.functional.pad(batch["ids"][:, :-1], (1, 0), value=self._config.start_id)

    # ----------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge a model by runs of held-out segments.

        Args:
            model: an MT3 in evaluation mode.

        Returns:
            By teacher forcing `loss`, the cross-entropy in nats, and `token_accuracy`; by greedy decoding
            `exact_segments`, the share that is right to the last id, and the means over runs of `onset_f1`,
            `onset_offset_f1` and `multi_instrument_f1` (`metrics.transcription`). A segment is broken off when it
            is twice as long as the longest true one. Nothing where nothing is held out.
        """
        runs = self.held_out
        if not runs:
            return {}
        mt3 = cast(MT3, model)
        forced = _Forced()
        engine = Engine(
            mt3,
            end_id=self._config.end_id,
            tokens_max=min(2 * max(len(segment.ids) for run in runs for segment in run), self._config.tokens_max),
            rows=ROWS,
        )
        written = {done.key: done.ids for done in engine.run(self._requests(mt3, forced))}
        scores, exact = [], 0
        for number, run in enumerate(runs):
            found = [np.array(written[number, place], np.int32) for place in range(len(run))]
            exact += sum(np.array_equal(ids, segment.ids) for ids, segment in zip(found, run, strict=True))
            reference = _notes_of([segment.ids for segment in run])
            if len(reference):
                scores.append(evaluate(reference, _notes_of(found)))
        figures = {**forced.means(), "exact_segments": exact / len(written)}
        means = mean_scores(scores)
        return {**figures, **{name: means[name] or 0.0 for name in FIGURES}}

    def _requests(self, model: MT3, forced: _Forced) -> Iterator[Requests[tuple[int, int]]]:
        """Held-out segments, encoded; what the model makes of their true ids is added to `forced`."""
        weight = model.token_embedding.weight
        keys = [(number, place) for number, run in enumerate(self.held_out) for place in range(len(run))]
        for begin in range(0, len(keys), TOGETHER):
            some = keys[begin : begin + TOGETHER]
            batch = self.collate([self.held_out[number][place] for number, place in some])
            batch = {name: values.to(weight.device) for name, values in batch.items()}
            memory = model.remember(self._features(batch).to(weight.dtype))
            logits = model.decode(self._read_ids(batch), memory)
            forced.add(logits, batch)
            yield Requests(some, memory, [[self._config.start_id]] * len(some))

    @cached_property
    def held_out(self) -> list[list[Segment]]:
        """Runs of segments of held-out pairs; each begins on a step, somewhere in its pair."""
        if not self._data.valid:
            return []
        wanted, pairs = self._data.valid_segments, self._valid
        count = min(len(pairs), -(-wanted // RUN_SEGMENTS))
        runs = []
        for index in np.linspace(0, len(pairs) - 1, count).round().astype(int).tolist():
            frames = _frames(pairs.pairs[index])
            length = min(wanted // count, -(-frames // SEGMENT_FRAMES)) * SEGMENT_FRAMES
            latest = max(frames - length, 0) // PHASES
            first = int(np.random.default_rng((self._seed, index)).integers(latest + 1)) * PHASES
            places = range(first, first + length, SEGMENT_FRAMES)
            runs.append([self._segment(pairs, index, place, self._data) for place in places])
        return runs


class _Segments:
    """A collection's sound in segments, so that longer pairs have more of them."""

    def __init__(self, pairs: Collection) -> None:
        self.pairs = pairs
        self._ends = np.cumsum([-(-_frames(pair) // SEGMENT_FRAMES) for pair in pairs.pairs])

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._ends[-1])

    def segment(self, number: int) -> tuple[int, int]:
        """The pair that a segment is of, and its first frame."""
        pair = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[pair - 1]) if pair else 0
        return pair, (number - before) * SEGMENT_FRAMES


class _Forced:
    """Sums over tokens of what teacher forcing gives."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._tokens = 0

    def add(self, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        found = token_loss(logits, batch["ids"], padding_mask(batch["lengths"], batch["ids"].shape[1]))
        tokens = int(batch["lengths"].sum())
        self._tokens += tokens
        self._sums["loss"] += float(found.cross_entropy) * tokens
        self._sums["token_accuracy"] += float(found.accuracy) * tokens

    def means(self) -> dict[str, float]:
        return {name: value / self._tokens for name, value in self._sums.items()}


def segment_ids(notes: PairNotes, first_frame: int, instruments: Granularity = Granularity.FULL) -> Ids:
    """The ids of a segment of scheme `mt3` that begins on any frame, int32 [t], `End` last.

    Steps of 10 ms are counted from the start of the piece, and a segment's begin with the one that holds its start; so
    a segment is encoded as one of the scheme's own that begins at the same place within a step.

    Args:
        notes: what sounds in the segment; times from its start.
        first_frame: where it begins in the piece.
        instruments: how finely programs are told apart.
    """
    before = -min(float(notes.onset_seconds.min(initial=0.0)), 0.0) - first_frame % PHASES * SEGMENT_SECONDS
    number = first_frame % PHASES + PHASES * max(0, int(np.ceil(before / (PHASES * SEGMENT_SECONDS))))
    start, beyond = number * SEGMENT_SECONDS, (number + 1) * SEGMENT_SECONDS + 0.01
    together = instruments.programs_together
    table = Notes.of(
        np.maximum(notes.onset_seconds.astype(np.float64) + start, 0.0),
        np.minimum(notes.silent_seconds.astype(np.float64) + start, beyond),
        notes.pitch,
        program=notes.program // together * together,
        is_drum=notes.is_drum,
    )
    ids = encode(Score(table))
    ends = np.flatnonzero(ids == END)
    if number >= len(ends):
        return np.array([TIE, END], np.int32)
    return ids[ends[number - 1] + 1 if number else 0 : ends[number] + 1]


def _frames(pair: Pair) -> int:
    """Frames of a pair, the last one reaching beyond its end."""
    return int(pair.duration_seconds / FRAME_SECONDS + 1e-6) + 1


def _notes_of(segments: Sequence[Ids]) -> Notes:
    """The notes of segments, those that were broken off among them."""
    whole = (ids if len(ids) and ids[-1] == END else np.append(ids, np.int32(END)) for ids in segments)
    return find_scheme("mt3").decode(whole).notes.sorted()
