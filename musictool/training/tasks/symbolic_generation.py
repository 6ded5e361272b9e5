"""Learning to compose: passages of pieces of several styles in, what came next out.

An example is a passage of one piece from any bar on, moved to another key and played a little otherwise. Style and key
are left open in some, so that the model can do without, and guidance has something to lead away from. What counts is
the cross-entropy of all ids but those that are told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from musictool.errors import InputError, UsageError
from musictool.models.symbolic_generator import SymbolicGeneratorConfig
from musictool.symbolic.composing import ANY_KEY, ANY_STYLE, IS_TOLD, KEY, PAD, PITCH
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.compositions import CompositionCorpus, Renditions, open_compositions
from musictool.training.losses import token_loss

_WINDOWS_AT_ONCE = 8
_STYLE_PLACE, _KEY_PLACE = 1, 2  # in a header


@dataclass(frozen=True)
class SymbolicGenerationData:
    """What is learned from.

    Attributes:
        train: each style's folders of MIDI files, lists or token corpora; the styles are those of `model.styles`, or
            some of them.
        shares: how often each style is drawn; all alike where nothing is said.
        valid: held-out pieces of styles, for figures.
        tokens: of a passage at most.
        open_style, open_key: how often style and key are left open.
        renditions: how far a passage may differ from the piece.
        valid_windows: how many held-out passages are looked at.
    """

    train: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    valid: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    tokens: int = 1024
    open_style: float = 0.1
    open_key: float = 0.3
    renditions: Renditions = field(default_factory=Renditions)
    valid_windows: int = 96

    def __post_init__(self) -> None:
        if self.shares and (len(self.shares) != len(self.train) or min(self.shares) < 0 or sum(self.shares) == 0):
            raise ValueError(f"shares are one for each of {len(self.train)} styles, 0 or more, and not all of them 0")
        if self.tokens < 16 or self.valid_windows < 1:
            raise ValueError("tokens is 16 or more, valid_windows 1")
        if not (0 <= self.open_style <= 1 and 0 <= self.open_key <= 1):
            raise ValueError("open_style and open_key are from 0 to 1")


@dataclass(frozen=True)
class SymbolicGenerationLoss:
    """What is to be minimised.

    Attributes:
        label_smoothing: share of an id's probability that is spread over the others.
        z_loss: weight of log(Z)^2, which keeps logits from drifting.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        if not (self.z_loss >= 0 and 0 <= self.label_smoothing < 1):
            raise ValueError("z_loss is 0 or more, label_smoothing from 0 to below 1")


class SymbolicGeneration:
    """The task.

    Args:
        model_config: of the model to be trained.
        data, loss: the recipe's sections.
        seed: of the run.
    """

    data_class: ClassVar[type] = SymbolicGenerationData
    loss_class: ClassVar[type] = SymbolicGenerationLoss
    families: ClassVar[tuple[str, ...]] = (SymbolicGeneratorConfig.family,)

    def __init__(
        self,
        model_config: SymbolicGeneratorConfig,
        data: SymbolicGenerationData,
        loss: SymbolicGenerationLoss,
        seed: int,
    ) -> None:
        self._config = model_config
        self._data = data
        self._seed = seed

    @cached_property
    def _train(self) -> CompositionCorpus:
        return open_compositions(self._data.train)

    @cached_property
    def _valid(self) -> CompositionCorpus:
        return open_compositions(self._data.valid)

    def check(self) -> None:
        """See whether there is something to learn from.

        Raises:
            InputError: a style's pieces are not there, or cannot be read.
            UsageError: a style is not one of the model's, or none is named; passages are too long for the model.
        """
        if not self._data.train:
            raise UsageError("no data to learn from", hint='name folders by style: data.train.jazz=["FOLDER"]')
        if self._data.tokens > self._config.context:
            hint = f"set data.tokens={self._config.context}, or a larger model.context"
            raise UsageError(
                f"data.tokens is more than the model's {self._config.context}", hint=hint, code="bad-config"
            )
        for name, styles in (("train", self._data.train), ("valid", self._data.valid)):
            self._check_styles(name, styles)
        _ = self._train
        if self._data.valid:
            _ = self._valid

    def _check_styles(self, name: str, styles: Mapping[str, Sequence[Path]]) -> None:
        """See whether styles are the model's, and what is named of them is there."""
        for style in styles:
            if style not in self._config.styles:
                known = ", ".join(self._config.styles) or "none"
                wanted = json.dumps(list(dict.fromkeys([*self._config.styles, *styles])), ensure_ascii=False)
                raise UsageError(
                    f"the model knows no style {style!r:.40}",
                    context=f"data.{name}",
                    hint=f"it knows {known}; to teach it more: model.styles={wanted}",
                    code="bad-config",
                )
        for path in (path for paths in styles.values() for path in paths):
            if not path.exists():
                hint = f"data.{name} names folders of MIDI files, lists of them, or token corpora"
                raise InputError("no such file or folder", context=str(path), hint=hint, code="no-such-file")

    def example(self, index: int, data: SymbolicGenerationData) -> Ids:
        """Example `index`: a passage, int32 [t]."""
        generator = np.random.default_rng((self._seed, index))
        passage = data.renditions.of(self._passage(self._train, generator, data.shares, data.tokens), generator)
        opened = generator.random(2)
        if opened[0] < data.open_style:
            passage[_STYLE_PLACE] = ANY_STYLE
        if opened[1] < data.open_key:
            passage[_KEY_PLACE] = KEY + ANY_KEY
        return passage

    def _passage(
        self, corpus: CompositionCorpus, generator: np.random.Generator, shares: Sequence[float], tokens: int
    ) -> Ids:
        piece = corpus.draw_piece(generator, shares or None)
        composition = corpus.pieces[piece]
        style = self._config.styles.index(corpus.styles[corpus.style_of[piece]])
        return composition.passage(corpus.draw_bar(generator, piece, tokens), tokens, style, composition.key)

    def collate(self, examples: Sequence[Ids]) -> dict[str, Tensor]:
        """A batch: ids int64 [B, T], filled up at the end."""
        ids = np.full((len(examples), max(map(len, examples))), PAD, np.int64)
        for row, example in zip(ids, examples, strict=True):
            row[: len(example)] = example
        return {"ids": torch.from_numpy(ids)}

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], loss: SymbolicGenerationLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over ids of what they cost, and its parts."""
        read, goal = batch["ids"][:, :-1], batch["ids"][:, 1:]
        weights = {"z_loss": loss.z_loss, "label_smoothing": loss.label_smoothing}
        found = token_loss(model(read), goal, is_asked(goal), **weights)
        return found.total, {"cross_entropy": found.cross_entropy, "token_accuracy": found.accuracy}

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Ids in a batch."""
        return {"tokens": float((batch["ids"] != PAD).sum())}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures of held-out passages, as they are.

        Returns:
            `loss`, the cross-entropy of an id in nats, and the same for each style; `token_accuracy`; `bits_per_note`,
            what all ids cost together for each note in them. Nothing where nothing is held out.
        """
        if not self._data.valid:
            return {}
        device = next(model.parameters()).device
        totals = np.zeros((len(self._valid.styles), 4))  # nats, right ones, ids, notes
        passages = self._held_out
        for first in range(0, len(passages), _WINDOWS_AT_ONCE):
            some = passages[first : first + _WINDOWS_AT_ONCE]
            ids = self.collate([passage for _, passage in some])["ids"].to(device)
            read, goal = ids[:, :-1], ids[:, 1:]
            logits = model(read).float()
            asked = is_asked(goal)
            cost = (logits.logsumexp(-1) - logits.gather(-1, goal[..., None]).squeeze(-1)) * asked
            is_right = (logits.argmax(-1) == goal) & asked
            is_note = (goal >= PITCH) & (goal < PITCH + 128)
            rows = torch.stack([cost.sum(1), is_right.sum(1), asked.sum(1), is_note.sum(1)], 1)
            np.add.at(totals, [style for style, _ in some], rows.double().cpu().numpy())
        nats, right, count, notes = totals.sum(0)
        figures = {
            "loss": nats / count,
            "token_accuracy": right / count,
            "bits_per_note": nats / np.log(2) / max(notes, 1),
        }
        by_style = {
            f"loss_{style}": row[0] / row[2] for style, row in zip(self._valid.styles, totals, strict=True) if row[2]
        }
        return {name: float(value) for name, value in (figures | by_style).items()}

    @cached_property
    def _held_out(self) -> list[tuple[int, Ids]]:
        """Held-out passages and the numbers of their styles among those held out."""
        found = []
        for number in range(self._data.valid_windows):
            generator = np.random.default_rng((self._seed, number))
            shares = np.eye(len(self._valid.styles))[number % len(self._valid.styles)]
            passage = self._passage(self._valid, generator, tuple(shares), self._data.tokens)
            found.append((number % len(self._valid.styles), passage))
        return found


def is_asked(ids: Tensor) -> Tensor:
    """Which ids a model is asked for, rather than told; bool, as int64 ids."""
    told = torch.from_numpy(IS_TOLD).to(ids.device)
    return ~told[ids]
