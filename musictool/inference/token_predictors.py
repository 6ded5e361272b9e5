"""The models whose predictions of tokens can be judged: how each family is read, and what it is told beside the tokens.

Knows what families need, and nothing of what is made of their predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from musictool.checkpoints.native import CODEC_KEYS
from musictool.errors import UsageError
from musictool.inference.code_predictor import Beside, CodePredictor, Told
from musictool.inference.event_predictor import EventPredictor
from musictool.inference.precision import PrecisionName, find_device, make_ready

if TYPE_CHECKING:
    from musictool.checkpoints.store import Store
    from musictool.inference.model_files import LoadedModel

FAMILIES = ("musicgen", "personaljazz", "saxgpt", "symbolic-generator")
MUSICGEN_FRAMES = 1500
"""What MusicGen was trained on, 30 s; its positions have no end."""

_TEXT_IDS_MAX = 512


@dataclass(frozen=True)
class Reading:
    """How a model is run, and what it is told.

    Attributes:
        store: where its style encoder is.
        device, precision: as `find_device` and `make_ready` take them.
        text: what is said of all pieces; None for what each says of itself, empty for nothing.
        style: of a composer: the style of all pieces; None leaves it open.
        warn: told what a user should know although the work goes on.
    """

    store: Store
    device: str = "auto"
    precision: PrecisionName = "fp32"
    text: str | None = None
    style: str | None = None
    warn: Callable[..., None] = lambda message, **more: None


def open_predictor(loaded: LoadedModel, reading: Reading) -> CodePredictor | EventPredictor:
    """A model ready to be judged.

    Raises:
        UsageError: the model does not predict tokens of pieces, or knows no such style.
        ResourceError: the device is not there.
    """
    family = loaded.config.family
    if family not in FAMILIES:
        hint = f"families that do are {', '.join(FAMILIES)}"
        raise UsageError(f"{loaded.name} does not predict the tokens of pieces", context="--model", hint=hint)
    if reading.text is not None and family not in ("musicgen", "personaljazz"):
        raise UsageError(f"{loaded.name} takes no text", context="--text")
    if reading.style is not None and family != "symbolic-generator":
        raise UsageError(f"{loaded.name} takes no style by name", context="--style", hint="say it with --text")
    device = find_device(reading.device)
    model: Any = make_ready(loaded.model, device, reading.precision)
    if family == "symbolic-generator":
        return EventPredictor(model, _style_number(loaded, reading.style), device)
    tellings: dict[str, Callable[..., Told]] = {"musicgen": _Texts, "personaljazz": _Styles, "saxgpt": _Backings}
    told = tellings[family](loaded, model, device, reading)
    context = getattr(loaded.config, "frames_max", MUSICGEN_FRAMES)
    codec_sha = loaded.source.get(CODEC_KEYS[1], "")
    return CodePredictor(model, loaded.config.codebook_size, context, told, device, codec_sha)


def _style_number(loaded: LoadedModel, style: str | None) -> int | None:
    styles = loaded.config.styles
    if style is None:
        return None
    if style not in styles:
        hint = f"it knows {', '.join(styles) or 'none'}"
        raise UsageError(f"the model knows no style {style!r:.40}", context="--style", hint=hint)
    number: int = styles.index(style)
    return number


@dataclass(frozen=True)
class _Telling:
    """What a model is told; called with what there is beside some pieces."""

    loaded: LoadedModel
    model: Any
    device: torch.device
    reading: Reading

    def texts(self, beside: Sequence[Beside]) -> list[str]:
        """What is said of each piece."""
        text = self.reading.text
        return [one.text if text is None else text for one in beside]


class _Texts(_Telling):
    """Text that MusicGen reads."""

    @cached_property
    def _reader(self) -> Any:
        from musictool.inference.text_reading import open_text_reader

        return open_text_reader(self.loaded.path, _TEXT_IDS_MAX)

    def __call__(self, beside: Sequence[Beside]) -> Any:
        from musictool.inference.subwords import side_by_side

        ids = [self._ids(text) if text.strip() else [] for text in self.texts(beside)]
        padded, visible = side_by_side(ids)
        return self.model.encode_text(padded.to(self.device), visible.to(self.device))

    @cached_property
    def _read(self) -> dict[str, list[int]]:
        """The ids of texts that have been read."""
        return {}

    def _ids(self, text: str) -> list[int]:
        if text not in self._read:
            self._read[text], is_cut = self._reader.read(text)
            if is_cut:
                message = f"the text is cut: the model reads {_TEXT_IDS_MAX} ids of it"
                self.reading.warn(message, context=f"{' '.join(text.split())[:40]}…", hint="say less", code="text-cut")
        return self._read[text]


class _Styles(_Telling):
    """Words whose style PersonalJazz is told."""

    @cached_property
    def _reader(self) -> Any:
        from musictool.inference.style_reading import open_style_reader

        reading = self.reading
        name = self.loaded.config.style_encoder
        if not name:
            raise UsageError("the model has no style encoder", context="--text", hint="leave it out, or --text ''")
        return open_style_reader(name, store=reading.store, device=reading.device, precision=reading.precision)

    def __call__(self, beside: Sequence[Beside]) -> Tensor:
        none = torch.zeros(self.loaded.config.style_width)
        styles = [self._reader.of_text(text) if text.strip() else none for text in self.texts(beside)]
        return torch.stack([style.to(self.device) for style in styles])


class _Backings(_Telling):
    """The backing that SaxGPT plays over; none where none is known."""

    def __call__(self, beside: Sequence[Beside]) -> Tensor:
        backings = [one.codes for one in beside]
        frames = max(0 if codes is None else codes.shape[1] for codes in backings)
        shape = (len(backings), self.loaded.config.codebooks, frames)
        rows = torch.full(shape, self.model.special_id)
        for row, codes in zip(rows, backings, strict=True):
            if codes is not None:
                row[:, : codes.shape[1]] = torch.from_numpy(codes)
        return rows.to(self.device)
