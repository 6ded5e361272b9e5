"""Learning to write codes: stretches of pieces of a codec's codes, one frame after another, teacher-forced.

For MusicGen, which is told words, PersonalJazz, which is told a style, and SaxGPT, which plays over a backing. Codes
are laid out in the model's pattern; what counts is the cross-entropy of each codebook, the mean over them. In some
examples nothing is told (Ho and Salimans, 2022; arXiv:2207.12598), in scheduled sampling the model reads some of its
own words, and stretches of what was written can be hidden from it. Knows neither optimisers nor the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musictool.checkpoints.native import CODEC_KEYS, read_facts
from musictool.checkpoints.store import Store
from musictool.errors import MissingError, UsageError
from musictool.inference.codec_choice import Codecs, how_to_get_codec
from musictool.inference.model_codec import ModelCodec
from musictool.models.codec import CodecConfig
from musictool.models.registry import config_from_dict
from musictool.training.data.code_sets import CodeForm, CodePiece, Codes, CodeSets, CodeWindows
from musictool.training.data.order import item_at
from musictool.training.hidden_past import hide_stretches
from musictool.training.losses import TokenLoss, token_loss
from musictool.training.scheduled_sampling import mix_in_predictions
from musictool.training.tasks.code_conditions import TELLINGS, Telling

_TOGETHER = 8  # held-out windows looked at side by side


@dataclass(frozen=True)
class CodeGenerationData:
    """What is learned from.

    Attributes:
        train: sets of pieces, as `data.code_sets` has them.
        shares: how often each of them is drawn from; none for as often as it has windows.
        valid: sets that are held out.
        window_frames: of a stretch at most; a curriculum may let it grow.
        hop_frames: from the beginning of a stretch to that of the next.
        untold_share: of examples of which nothing is told.
        valid_windows: how many held-out stretches are looked at, spread over the sets.
    """

    train: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    valid: tuple[Path, ...] = ()
    window_frames: int = 1500
    hop_frames: int = 300
    untold_share: float = 0.1
    valid_windows: int = 64

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.train):
            raise ValueError(f"{len(self.shares)} shares for {len(self.train)} sets in train")
        if self.shares and (min(self.shares) < 0 or not 0 < sum(self.shares) < float("inf")):
            raise ValueError("shares are 0 or more, and not all of them 0")
        if min(self.window_frames, self.hop_frames, self.valid_windows) < 1:
            raise ValueError("window_frames, hop_frames and valid_windows are at least 1")
        if not 0 <= self.untold_share <= 1:
            raise ValueError("untold_share is from 0 to 1")


@dataclass(frozen=True)
class CodeGenerationLoss:
    """What is to be minimised.

    Attributes:
        codebooks: how much each codebook counts; all alike where nothing is said.
        own_share: of steps at which the model reads what it would have said itself (scheduled sampling).
        hidden_share: of stretches of the past that the model does not get to read, so that it listens to what is told.
        hidden_steps: of such a stretch.
        label_smoothing: share of a code's probability that is spread over the others.
        z_loss: weight of log(Z)^2, which keeps logits from drifting.
    """

    codebooks: tuple[float, ...] = ()
    own_share: float = 0.0
    hidden_share: float = 0.0
    hidden_steps: int = 150
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        if self.codebooks and (min(self.codebooks) < 0 or sum(self.codebooks) == 0):
            raise ValueError("codebooks are 0 or more, and not all of them 0")
        if not (0 <= self.own_share <= 1 and 0 <= self.label_smoothing < 1 and self.z_loss >= 0):
            raise ValueError("own_share is from 0 to 1, label_smoothing below 1, z_loss 0 or more")
        if not 0 <= self.hidden_share <= 1 or self.hidden_steps < 1:
            raise ValueError("hidden_share is from 0 to 1, hidden_steps at least 1")


class _Example(NamedTuple):
    """Codes, int16 [K, t], and what is told of them."""

    codes: Codes
    told: Any


class CodeTraining(nn.Module):
    """A model of codes with what it takes to learn: what is told is read, and codes are laid out, on its device.

    Args:
        model: it.
        telling: of what it is told.
    """

    def __init__(self, model: nn.Module, telling: Telling) -> None:
        super().__init__()
        self.model = model
        self._telling = telling

    def forward(self, batch: Mapping[str, Tensor], loss: CodeGenerationLoss) -> list[TokenLoss]:
        """What each codebook costs.

        Args:
            batch: from `CodeGeneration.collate`.
            loss: the section as it is at this step.
        """
        model: Any = self.model
        ids = laid_out(model, batch)
        conditions = self._telling.conditions(model, batch)
        special_id = model.special_id
        read = mix_in_predictions(model, ids, conditions, special_id=special_id, probability=loss.own_share)
        read = hide_stretches(read, special_id=special_id, share=loss.hidden_share, steps=loss.hidden_steps)
        logits = model(read[..., :-1], conditions)
        weights = {"z_loss": loss.z_loss, "label_smoothing": loss.label_smoothing}
        return codebook_losses(logits, ids[..., 1:], special_id, **weights)


def laid_out(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """A batch's codes in the model's pattern, int64 [B, K, T]; special ids where a piece has ended."""
    codes: Tensor = batch["codes"]
    places = torch.arange(codes.shape[-1], device=codes.device)
    is_code = places < batch["lengths"][:, None, None]
    ids: Tensor = model.pattern.spread(codes.masked_fill(~is_code, model.special_id), model.special_id)
    return ids


def codebook_losses(logits: Tensor, targets: Tensor, special_id: int, **weights: float) -> list[TokenLoss]:
    """The loss of each codebook, where there is a code.

    Args:
        logits: float [B, K, T, V].
        targets: int64 [B, K, T].
        special_id: stands where there is none.
        **weights: as `token_loss` takes them.
    """
    is_counted = targets != special_id
    codes = targets.masked_fill(~is_counted, 0)
    return [
        token_loss(logits[:, book], codes[:, book], is_counted[:, book], **weights) for book in range(targets.shape[1])
    ]


class CodeGeneration:
    """The task.

    Args:
        model_config: of the model to be trained.
        data, loss: the recipe's sections.
        seed: of the order of examples, and of which are told nothing.
    """

    data_class: ClassVar[type] = CodeGenerationData
    loss_class: ClassVar[type] = CodeGenerationLoss
    families: ClassVar[tuple[str, ...]] = tuple(TELLINGS)

    def __init__(self, model_config: Any, data: CodeGenerationData, loss: CodeGenerationLoss, seed: int) -> None:
        self._config = model_config
        self._data = data
        self._loss = loss
        self._seed = seed
        self._store: Store | None = None
        self._origin = ""
        self._cut: dict[int | None, tuple[tuple[int, int], CodeWindows]] = {}
        self._telling: Telling = TELLINGS[model_config.family](model_config)

    def use_store(self, store: Store, origin: str) -> None:
        """Take where codecs are, and the model whose tokenizer reads words."""
        self._store, self._origin = store, origin

    def check(self) -> None:
        """Read all codes, encode what is sound, and read all words.

        Raises:
            InputError: a set is not there or empty, or its codes are of another codec.
            UsageError: none is named, windows are longer than the model sees, or what is told does not go with it.
            MissingError: a codec, a tokenizer or a package is not here.
        """
        config, data = self._config, self._data
        if not data.train:
            hint = "data.train=[…] names corpora of codes, lists of captions, or folders of sound"
            raise UsageError("no data to learn from", context="data.train", hint=hint, code="no-data")
        most = getattr(config, "frames_max", None)
        if most is not None and data.window_frames > most:
            message = f"windows of {data.window_frames} frames, and the model sees {most}"
            raise UsageError(message, context="data.window_frames", hint=f"data.window_frames={most}")
        if self._loss.codebooks and len(self._loss.codebooks) != config.codebooks:
            message = f"{len(self._loss.codebooks)} codebooks count, and the model writes {config.codebooks}"
            raise UsageError(message, context="loss.codebooks")
        _ = self._train, self._valid

    def sources(self) -> dict[str, str]:
        """The codec that the codes are of, as far as it is known here."""
        sha256 = self._codec_sha256
        return {CODEC_KEYS[0]: self._codec_name, CODEC_KEYS[1]: sha256} if sha256 else {}

    # ----------------------------------------------------------------------------------------------------------- data

    @cached_property
    def _train(self) -> list[list[CodePiece]]:
        """The pieces of each set."""
        sets = [self._sets.read([path]) for path in self._data.train]
        self._prepare([piece for pieces in sets for piece in pieces])
        return sets

    @cached_property
    def _valid(self) -> list[CodePiece]:
        pieces = self._sets.read(self._data.valid)
        if pieces:
            self._prepare(pieces)
        return pieces

    def _prepare(self, pieces: Sequence[CodePiece]) -> None:
        assert self._store is not None
        folder = self._store.find(self._origin).path if self._origin else None
        self._telling.prepare(pieces, self._store, folder)

    @cached_property
    def _sets(self) -> CodeSets:
        config = self._config
        name, sha256 = self._codec_name, self._codec_sha256
        form = CodeForm(name, sha256, config.codebooks, config.codebook_size, getattr(config, "channels", 1) == 1)
        return CodeSets(form, self._encode)

    @cached_property
    def _source(self) -> Mapping[str, str]:
        """What the model to begin with says of where it is from."""
        assert self._store is not None
        return read_facts(self._store.find(self._origin).path).source if self._origin else {}

    @property
    def _codec_name(self) -> str:
        return self._source.get(CODEC_KEYS[0]) or str(self._config.codec)

    @cached_property
    def _codec_sha256(self) -> str | None:
        """Of the codec's weights, as the model says, or of the one here that is called so."""
        assert self._store is not None
        if stated := self._source.get(CODEC_KEYS[1]):
            return stated
        found = Codecs(self._store).find(self._codec_name, None)
        return None if found is None else read_facts(found.path).weights_sha256

    @cached_property
    def _codec(self) -> ModelCodec:
        """The codec, to encode sound."""
        assert self._store is not None
        name, sha256 = self._codec_name, self._codec_sha256
        codecs = Codecs(self._store)
        found = codecs.find(name, sha256)
        if found is None or sha256 is None:
            hint = how_to_get_codec(name)
            raise MissingError(f"the codec of the model is not here: {name}", hint=hint, code="missing-model")
        facts = read_facts(found.path)
        codec = config_from_dict({"family": facts.family, **facts.config}, str(found.path))
        if not isinstance(codec, CodecConfig):
            raise UsageError(f"{found.name} is no codec, and the model names it as its own", context=str(found.path))
        channels = getattr(self._config, "channels", codec.channels)
        return ModelCodec(found.name, sha256, codec, self._config.codebooks, channels, codecs)

    def _encode(self, path: Path) -> NDArray[np.int32]:
        return self._codec.encode(path).codes

    # ------------------------------------------------------------------------------------------------------- examples

    def example(self, index: int, data: CodeGenerationData) -> _Example:
        """A stretch of a piece; those of a set come in an order that covers all of it.

        Args:
            index: of the example.
            data: as it is at its step.
        """
        generator = np.random.default_rng((self._seed, index))
        number = None
        if data.shares:
            shares = np.array(data.shares) / sum(data.shares)
            number = int(generator.choice(len(shares), p=shares))
        windows = self._windows(number, data.window_frames, data.hop_frames)
        piece = windows[item_at(index, len(windows), self._seed)]
        is_untold = generator.random() < data.untold_share
        if len(piece.texts) > 1:
            piece = replace(piece, texts=(piece.texts[generator.integers(len(piece.texts))],))
        return _Example(piece.codes, self._telling.nothing() if is_untold else self._telling.of(piece))

    def _windows(self, number: int | None, window_frames: int, hop_frames: int) -> CodeWindows:
        """Those of one set, or of all; they stay until others of the same are asked for."""
        key = (window_frames, hop_frames)
        known, windows = self._cut.get(number, (None, None))
        if windows is None or known != key:
            sets = self._train if number is None else [self._train[number]]
            windows = CodeWindows([piece for pieces in sets for piece in pieces], window_frames, hop_frames)
            self._cut[number] = key, windows
        return windows

    def collate(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        """Put examples side by side, B of them.

        Returns:
            codes int64 [B, K, T], lengths int64 [B] in frames, and what is told.
        """
        lengths = torch.tensor([example.codes.shape[1] for example in examples])
        codes = torch.zeros(len(examples), self._config.codebooks, int(lengths.max()), dtype=torch.int64)
        for row, example in zip(codes, examples, strict=True):
            row[:, : example.codes.shape[1]] = torch.from_numpy(example.codes)
        return {"codes": codes, "lengths": lengths, **self._telling.collate([example.told for example in examples])}

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Frames in a batch."""
        return {"frames": float(batch["lengths"].sum())}

    # ----------------------------------------------------------------------------------------------- loss, evaluation

    def accompanied(self, model: nn.Module, *, is_fresh: bool) -> CodeTraining:
        """The model, with what reads and lays out its batches; nothing of that is trained."""
        return CodeTraining(model, self._telling)

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], loss: CodeGenerationLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over codebooks, as they count.

        Args:
            model: a `CodeTraining`, wrapped or not.
            batch: from `collate`.
            loss: the section as it is at this step.
        """
        found: list[TokenLoss] = model(batch, loss)
        weights = loss.codebooks or (1.0,) * len(found)
        weighed = [weight * one.total for weight, one in zip(weights, found, strict=True)]
        total = torch.stack(weighed).sum() / sum(weights)
        parts = {f"cross_entropy_{number}": one.cross_entropy for number, one in enumerate(found, 1)}
        return total, {**parts, "accuracy": torch.stack([one.accuracy for one in found]).mean()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge a model by held-out windows, all that is to be told being told, teacher-forced.

        Returns:
            `loss`, the mean over codebooks of the cross-entropy in nats, `accuracy`, and the cross-entropy of each.
            Nothing where nothing is held out.
        """
        if not self._valid:
            return {}
        codebooks = self._config.codebooks
        sums, hits, counts = (np.zeros(codebooks) for _ in range(3))
        for batch in self._held_out(next(model.parameters()).device):
            ids = laid_out(model, batch)
            logits = model(ids[..., :-1], self._telling.conditions(model, batch))
            for book, one in enumerate(codebook_losses(logits, ids[..., 1:], self._config.special_id)):
                count = float(batch["lengths"].sum())
                sums[book] += float(one.cross_entropy) * count
                hits[book] += float(one.accuracy) * count
                counts[book] += count
        means = sums / counts
        each = {f"cross_entropy_{number}": float(mean) for number, mean in enumerate(means, 1)}
        return {"loss": float(means.mean()), "accuracy": float((hits / counts).mean()), **each}

    def _held_out(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Held-out windows side by side, spread evenly over what there is; none overlaps more than it has to."""
        windows = CodeWindows(self._valid, self._data.window_frames, self._data.window_frames)
        chosen = np.linspace(0, len(windows) - 1, min(len(windows), self._data.valid_windows)).round().astype(int)
        for begin in range(0, len(chosen), _TOGETHER):
            pieces = [windows[number] for number in chosen[begin : begin + _TOGETHER].tolist()]
            batch = self.collate([_Example(piece.codes, self._telling.of(piece)) for piece in pieces])
            yield {name: value.to(device) for name, value in batch.items()}
