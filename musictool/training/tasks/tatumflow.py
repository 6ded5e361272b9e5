"""Learning to carry notes from style to style: windows of pieces of several styles in, all losses of TatumFlow out.

An example is a stretch of one piece, varied, and perhaps corrupted where the encoder reads it; examples come in pairs,
often of one artist, so that what artists and pieces have in common can be learned. What counts is a sum:

    (1 - s) * writing the ids again  +  s * diffusion          s is `diffusion_share`, for a curriculum to raise
    + style (genre told by its prior, Gaussians, contrast between artists and between pieces)
    + theory (read off latents; one factor exchanged must come through and leave the others; suspicion)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from musictool.errors import InputError, UsageError
from musictool.models.tatumflow import NO_FACTOR, Draws, Lesson, Outcome, TatumFlowConfig
from musictool.models.tatumflow_parts import LEVELS, Steps
from musictool.symbolic.piano_ids import FRAME_TICKS, ticks_of_ids
from musictool.symbolic.schemes.tatum import VOCABULARY
from musictool.symbolic.theory import FACTORS, theory_frames
from musictool.training.data.corruptions import CORRUPTIONS, MASK_ID, corrupt
from musictool.training.data.style_corpus import (
    UNKNOWN_ARTIST,
    StyleCorpus,
    StyleWindow,
    Variations,
    open_style_corpus,
)

NO_ID = -100  # where nothing is to be written, as torch's cross-entropy has it
_ARTIST, _PIECE = LEVELS.index("artist"), LEVELS.index("piece")
_CONTRAST_TEMPERATURE = 0.2
_WEIGHED = ("genre", "gaussian", "contrast", "reading", "exchange", "suspicion")
_FAR = 1e4  # below all likenesses by so much that nothing is left of it, and a row that is alone has a number still
_WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class StyleTransferData:
    """What is learned from.

    Attributes:
        train: each style's folders of MIDI files, lists or token corpora; the styles are those of `model.styles`, in
            that order.
        shares: how often each style is drawn; all alike where nothing is said.
        valid: held-out pieces of each style, for figures.
        frames, tokens: of a window at most.
        pair_share: of pairs of examples that are of one artist, half of those of one piece.
        corrupted_share: of examples of which the encoder reads a corrupted version.
        corruption: share of a window's notes that each kind takes.
        corruptions: kinds; one is drawn for each example.
        variations: how far a window may differ from the piece.
        valid_windows: how many held-out windows are looked at.
    """

    train: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    valid: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    frames: int = 64
    tokens: int = 768
    pair_share: float = 0.5
    corrupted_share: float = 0.3
    corruption: float = 0.2
    corruptions: tuple[str, ...] = CORRUPTIONS
    variations: Variations = field(default_factory=Variations)
    valid_windows: int = 64

    def __post_init__(self) -> None:
        if self.shares and (len(self.shares) != len(self.train) or min(self.shares) < 0 or sum(self.shares) == 0):
            raise ValueError(f"shares are one for each of {len(self.train)} styles, 0 or more, and not all of them 0")
        for name in ("frames", "tokens", "valid_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more")
        for name in ("pair_share", "corrupted_share", "corruption"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is from 0 to 1")
        unknown = set(self.corruptions) - set(CORRUPTIONS)
        if unknown:
            raise ValueError(f"no such corruption: {min(unknown)!r}; there are {', '.join(CORRUPTIONS)}")


@dataclass(frozen=True)
class Odds:
    """How often what is drawn in a pass.

    Attributes:
        hides_token: an id is hidden from the decoder that is to write on.
        drops_all: the denoiser is told nothing, so that guidance has something to lead away from.
        drops_style: no level of style is told.
        drops_artist, drops_piece: that level is not.
        drops_factor: a factor of theory is not, each on its own.
        uses_prior: the genre told is its prior's mean, not what is heard.
        exchanges: the critics see theory with a factor exchanged.
    """

    hides_token: float = 0.1
    drops_all: float = 0.05
    drops_style: float = 0.1
    drops_artist: float = 0.6
    drops_piece: float = 0.8
    drops_factor: float = 0.35
    uses_prior: float = 0.5
    exchanges: float = 0.8

    def __post_init__(self) -> None:
        for name, chance in vars(self).items():
            if not 0 <= chance <= 1:
                raise ValueError(f"{name} is from 0 to 1")


@dataclass(frozen=True)
class StyleTransferLoss:
    """How much each part counts.

    Attributes:
        diffusion_share: s above.
        repeats: how often the denoiser sees each window, each time with other noise.
        genre, gaussian, contrast: of style.
        reading, exchange, suspicion: of theory.
        odds: of what is drawn.
    """

    diffusion_share: float = 0.5
    repeats: int = 4
    genre: float = 0.1
    gaussian: float = 1e-3
    contrast: float = 0.05
    reading: float = 1.0
    exchange: float = 1.0
    suspicion: float = 0.02
    odds: Odds = Odds()

    def __post_init__(self) -> None:
        if not 0 <= self.diffusion_share <= 1:
            raise ValueError("diffusion_share is from 0 to 1")
        if self.repeats < 1:
            raise ValueError("repeats is 1 or more")
        if min(getattr(self, name) for name in _WEIGHED) < 0:
            raise ValueError("a weight is negative")


class _Example(NamedTuple):
    """A window.

    Attributes:
        seen, seen_ticks: what the encoder reads, int32 [T], and when, int64 [T].
        told: what the decoder writes, int32 [T].
        theory: of the notes, float32 [F, 384].
        genre, artist, piece: labels.
    """

    seen: NDArray[np.int32]
    seen_ticks: NDArray[np.int64]
    told: NDArray[np.int32]
    theory: NDArray[np.float32]
    genre: int
    artist: int
    piece: int


class StyleTransfer:
    """The task.

    Args:
        model_config: of the net.
        data, loss: sections of the recipe.
        seed: of the run.
    """

    data_class: ClassVar[type] = StyleTransferData
    loss_class: ClassVar[type] = StyleTransferLoss
    families: ClassVar[tuple[str, ...]] = ("tatumflow",)

    def __init__(
        self, model_config: TatumFlowConfig, data: StyleTransferData, loss: StyleTransferLoss, seed: int
    ) -> None:
        self._config = model_config
        self._data = data
        self._loss = loss
        self._seed = seed

    @cached_property
    def _train(self) -> StyleCorpus:
        return open_style_corpus(self._data.train)

    @cached_property
    def _valid(self) -> StyleCorpus:
        return open_style_corpus(self._data.valid)

    def check(self) -> None:
        """See whether there is something to learn from.

        Raises:
            InputError: a style's pieces are not there, or cannot be read.
            UsageError: the styles are not those of the model, or none is named.
        """
        if not self._data.train:
            raise UsageError("no data to learn from", hint='name folders by style: data.train.jazz=["FOLDER"]')
        self._check_model()
        self._check_styles("train", self._data.train)
        _ = self._train
        if self._data.valid:
            self._check_styles("valid", self._data.valid)
            _ = self._valid

    def _check_model(self) -> None:
        """See whether the model can read and hold examples."""
        config = self._config
        if (config.vocabulary, config.frame_ticks) != (len(VOCABULARY), FRAME_TICKS):
            raise UsageError(
                f"the model has {config.vocabulary} ids and frames of {config.frame_ticks} ticks, "
                f"examples have {len(VOCABULARY)} and {FRAME_TICKS}",
                hint="leave model.vocabulary and model.frame_ticks as they are",
                code="bad-config",
            )
        for name, most in (("frames", config.frames_max), ("tokens", config.tokens_max)):
            if getattr(self._data, name) > most:
                hint = f"set data.{name}={most}, or a larger model.{name}_max"
                raise UsageError(f"data.{name} is more than the model's {most}", hint=hint, code="bad-config")

    def _check_styles(self, name: str, styles: Mapping[str, Sequence[Path]]) -> None:
        """See whether styles are those of the model, and what is named of them is there."""
        if tuple(styles) != self._config.styles:
            raise UsageError(
                f"the styles of data.{name} are {', '.join(styles)}, those of the model "
                f"{', '.join(self._config.styles) or 'none'}",
                hint=f"set model.styles={list(styles)}".replace("'", '"'),
                code="bad-config",
            )
        for path in (path for paths in styles.values() for path in paths):
            if not path.exists():
                hint = f"data.{name} names folders of MIDI files, lists of them, or token corpora"
                raise InputError("no such file or folder", context=str(path), hint=hint, code="no-such-file")

    def example(self, index: int, data: StyleTransferData) -> _Example:
        """Example `index`; an odd one is often of the same artist, or piece, as the one before."""
        generator = np.random.default_rng((self._seed, index))
        shared = np.random.default_rng((self._seed, index // 2, 1))
        piece = self._train.draw_piece(shared, data.shares or None)
        kinship = shared.random() / data.pair_share if data.pair_share else 1.0
        if index % 2 and kinship >= 1:
            piece = self._train.draw_piece(generator, data.shares or None)
        elif index % 2 and kinship >= 0.5:
            piece = self._train.draw_companion(generator, piece)
        window = self._train.draw_window(generator, piece, data.frames, data.tokens, data.variations)
        seen = window.ids
        if data.corruptions and generator.random() < data.corrupted_share:
            kind = data.corruptions[int(generator.integers(len(data.corruptions)))]
            seen = corrupt(window, [kind], data.corruption, generator)
        return _example(window, seen)

    def collate(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        """A batch: ids int64 [B, T] and their ticks, theory float32 [B, F, 384], labels int64 [B]."""
        config = self._config
        frames = np.array([len(example.theory) for example in examples])
        theory = np.zeros((len(examples), frames.max(), examples[0].theory.shape[1]), np.float32)
        for row, example in zip(theory, examples, strict=True):
            row[: len(example.theory)] = example.theory
        told = [np.append(np.int32(config.start_id), example.told) for example in examples]
        goal = [np.append(example.told, np.int32(config.end_id)) for example in examples]
        batch = {
            "seen": _padded([example.seen for example in examples], config.pad_id),
            "seen_ticks": _padded([example.seen_ticks for example in examples], 0),
            "seen_length": torch.tensor([len(example.seen) for example in examples]),
            "told": _padded(told, config.pad_id),
            "told_ticks": _padded([ticks_of_ids(ids) for ids in told], 0),
            "goal": _padded(goal, NO_ID),
            "frames": torch.from_numpy(frames),
            "theory": torch.from_numpy(theory),
        }
        for name in ("genre", "artist", "piece"):
            batch[name] = torch.tensor([getattr(example, name) for example in examples])
        return batch

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], loss: StyleTransferLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, a scalar, and its parts before they are weighted."""
        lesson = lesson_of(batch)
        draws = draw_for(lesson, self._config, loss)
        outcome: Outcome = model(lesson, draws)
        parts = _parts(outcome, lesson, draws, batch)
        share = loss.diffusion_share
        weights = {"writing": 1 - share, "diffusion": share, **{name: getattr(loss, name) for name in _WEIGHED}}
        total = torch.stack([weight * parts[name] for name, weight in weights.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def amounts(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Ids in a batch."""
        return {"tokens": float((batch["goal"] != NO_ID).sum())}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The parts of the loss on held-out windows, and how often the next id and the genre are right."""
        if not self._data.valid:
            return {}
        means: dict[str, float] = {}
        torch.manual_seed(self._seed)  # the loop gives the state back
        device = next(model.parameters()).device
        total = self._data.valid_windows
        for first in range(0, total, _WINDOWS_AT_ONCE):
            numbers = range(first, min(first + _WINDOWS_AT_ONCE, total))
            batch = self.collate([self._valid_example(number) for number in numbers])
            for name, figure in self._judge(model, {key: value.to(device) for key, value in batch.items()}).items():
                means[name] = means.get(name, 0.0) + figure * len(numbers) / total
        return means

    def _valid_example(self, number: int) -> _Example:
        generator = np.random.default_rng((self._seed, number))
        unchanged = Variations((0, 0), (1.0, 1.0), (1.0, 1.0), (0, 0))
        window = self._valid.draw(
            generator,
            self._config.frames_max,
            self._config.tokens_max,
            shares=self._data.shares or None,
            variations=unchanged,
        )
        return _example(window, window.ids)

    def _judge(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, float]:
        """Figures of a held-out batch, with `loss` among them."""
        lesson = lesson_of(batch)
        odds = Odds(hides_token=0.0, drops_style=0.0, drops_all=0.0, drops_factor=0.0, uses_prior=1.0)
        draws = draw_for(lesson, self._config, StyleTransferLoss(repeats=4, odds=odds))
        outcome: Outcome = model(lesson, draws)
        is_id = batch["goal"] != NO_ID
        right = (outcome.logits.argmax(-1) == batch["goal"])[is_id].float().mean()
        genre = (outcome.genre.argmax(-1) == batch["genre"]).float().mean()
        parts = {name: float(part) for name, part in _parts(outcome, lesson, draws, batch).items()}
        loss = parts["writing"] + parts["diffusion"]
        return {"loss": loss, "accuracy": float(right), "genre_accuracy": float(genre), **parts}


def _example(window: StyleWindow, seen: NDArray[np.int32]) -> _Example:
    theory = np.concatenate(theory_frames(window.notes, window.frames), axis=1)
    return _Example(seen, _seen_ticks(window.ids, seen), window.ids, theory, window.genre, window.artist, window.piece)


def _seen_ticks(ids: NDArray[np.int32], seen: NDArray[np.int32]) -> NDArray[np.int64]:
    """When each id stands that the encoder reads, int64 [T].

    What Times lead to that are masked stands at the start of its frame: the time is hidden, and not lost.
    """
    said = ticks_of_ids(seen)
    if not (seen == MASK_ID).any():
        return said
    true = ticks_of_ids(ids)  # a mask leaves every id in its place
    return np.where(said == true, true, true // FRAME_TICKS * FRAME_TICKS)


def _padded(rows: Sequence[NDArray], value: int) -> Tensor:
    """int64 [B, T], filled up at the end."""
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)


def lesson_of(batch: dict[str, Tensor]) -> Lesson:
    steps = torch.arange(batch["seen"].shape[1], device=batch["seen"].device)
    frames = torch.arange(batch["theory"].shape[1], device=batch["seen"].device)
    return Lesson(
        Steps(batch["seen"], batch["seen_ticks"], steps < batch["seen_length"][:, None]),
        Steps(batch["told"], batch["told_ticks"]),
        frames < batch["frames"][:, None],
        batch["theory"],
        batch["genre"],
    )


def draw_for(lesson: Lesson, config: TatumFlowConfig, loss: StyleTransferLoss) -> Draws:
    """Draw all that is random in a pass, from torch's random state."""
    odds, device = loss.odds, lesson.visible.device
    rows, frames = lesson.visible.shape
    many = loss.repeats * rows
    latents = (frames, config.latent_width)

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(shape, device=device) < share

    def level(count: int) -> Tensor:
        return torch.randint(1, config.diffusion_steps + 1, (count,), device=device)

    is_told_nothing = chance(odds.drops_all, many, 1)
    drops_style = is_told_nothing | chance(odds.drops_style, many, 1)
    drops_level = torch.stack([chance(share, many) for share in (0.0, odds.drops_artist, odds.drops_piece)], 1)
    factor = torch.randint(len(FACTORS), (rows,), device=device)
    spread = config.latent_noise * torch.rand(rows, 1, 1, device=device)
    return Draws(
        latent_noise=spread * torch.randn(rows, *latents, device=device),
        hidden=chance(odds.hides_token, *lesson.told.ids.shape),
        style_noise=torch.randn(rows, len(LEVELS), config.style_width, device=device),
        uses_prior=chance(odds.uses_prior, rows),
        step=level(many),
        noise=torch.randn(many, *latents, device=device),
        knows_style=~(drops_style | drops_level),
        knows_theory=~(is_told_nothing | chance(odds.drops_factor, many, len(FACTORS))),
        donor=(torch.arange(rows, device=device) + torch.randint(1, max(rows, 2), (), device=device)) % rows,
        factor=torch.where(chance(odds.exchanges, rows), factor, NO_FACTOR),
        swap_step=level(rows),
        swap_noise=torch.randn(rows, *latents, device=device),
    )


def _parts(outcome: Outcome, lesson: Lesson, draws: Draws, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each part of the loss, a scalar, by the name of its weight."""
    style = outcome.style
    visible = lesson.visible[..., None]
    many_visible = visible.repeat(len(draws.step) // len(visible), 1, 1)
    return {
        "writing": functional.cross_entropy(outcome.logits.flatten(0, 1), batch["goal"].flatten(), ignore_index=NO_ID),
        "diffusion": _mean_square(outcome.prediction - outcome.target, many_visible),
        "genre": functional.cross_entropy(outcome.genre, lesson.genre),
        "gaussian": _divergence(outcome.off_prior, style.log_variance),
        "contrast": _contrast(style.mean[:, _ARTIST], batch["artist"], batch["piece"])
        + _contrast(style.mean[:, _PIECE], batch["piece"], batch["piece"]),
        "reading": _mean_square(outcome.theory_read - lesson.theory, visible),
        "exchange": _mean_square(outcome.swapped_read - outcome.swapped_theory, visible),
        "suspicion": functional.cross_entropy(outcome.suspicion, draws.factor),
    }


def _mean_square(difference: Tensor, visible: Tensor) -> Tensor:
    """The mean square of differences, [B, F, ...], in frames that are there, bool [B, F, 1]."""
    return (difference.square() * visible).sum() / (visible.sum() * difference.shape[-1])


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of Gaussians from their priors, of variance 1, float [B, 3, W] each; summed over W, the mean of all."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1).mean()


def _contrast(mean: Tensor, kin: Tensor, piece: Tensor) -> Tensor:
    """How hard rows of one kin are to tell from others (Khosla et al., 2020, equation 2); 0 where none has any.

    Args:
        mean: float [B, W].
        kin: int64 [B], -1 for a row that only has its piece.
        piece: int64 [B].
    """
    directions = functional.normalize(mean, dim=-1)
    likeness = directions @ directions.T / _CONTRAST_TEMPERATURE
    itself = torch.eye(len(mean), dtype=torch.bool, device=mean.device)
    is_kin = ((kin[:, None] == kin) & (kin != UNKNOWN_ARTIST)) | (piece[:, None] == piece)
    is_kin = is_kin & ~itself
    log_share = likeness - likeness.masked_fill(itself, -_FAR).logsumexp(1, keepdim=True)
    each = -(log_share * is_kin).sum(1) / is_kin.sum(1).clamp(min=1)
    return each.sum() / is_kin.any(1).sum().clamp(min=1)
