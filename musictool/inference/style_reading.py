"""Styles of words and of sound, by a style encoder and the tokenizer beside it.

Sound is read in windows as long as those that the model learned from, and its style is the mean of theirs. Reads no
files of sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from musictool.audio.spectrogram import LogMel
from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.model_files import load_model
from musictool.inference.precision import PrecisionName, find_device, make_ready
from musictool.inference.subwords import Subwords, open_subwords
from musictool.models.style_encoder import StyleEncoder

Blocks = Iterable[NDArray[np.float32]]

_LEAST_SHARE = 0.25  # of a window: what is left of less is not read, where there is more
_WINDOWS_AT_ONCE = 8


class StyleReader:
    """A style encoder ready for use.

    Args:
        model: in evaluation mode.
        subwords: its tokenizer.
        name, sha256: of the model and its weights.

    Attributes:
        name, sha256: the same.
        rate_hz: of the sound that it takes.
        width: S.
    """

    def __init__(self, model: StyleEncoder, subwords: Subwords, name: str, sha256: str) -> None:
        self.name = name
        self.sha256 = sha256
        self.rate_hz = model.config.front_end.rate_hz
        self.width = model.config.style_width
        self._model = model
        self._subwords = subwords
        self._device = model.embedding.weight.device
        self._front_end = LogMel(model.config.front_end).to(self._device)
        self._window_samples = model.config.window_frames * model.config.front_end.hop_samples

    @torch.inference_mode()
    def of_text(self, text: str) -> Tensor:
        """The style that words tell of.

        Args:
            text: its beginning counts, as far as the model reads.

        Returns:
            float32 [S] on the CPU, of length 1; zeros of an empty text.
        """
        ids = self._subwords.ids(text, self._model.config.tokens_max)
        if not ids:
            return torch.zeros(self.width)
        return self._model.encode_text(torch.tensor([ids], device=self._device))[0].cpu()

    @torch.inference_mode()
    def of_sound(self, blocks: Blocks) -> Tensor:
        """The style of a sound, read as it comes.

        Args:
            blocks: mono at `rate_hz`, float32 [n] each, of any length.

        Returns:
            float32 [S] on the CPU, of length 1; zeros of no sound.
        """
        total = torch.zeros(self.width)
        windows = self._windows(blocks)
        while batch := list(islice(windows, _WINDOWS_AT_ONCE)):
            lengths = torch.tensor([len(window) for window in batch])
            samples = np.zeros((len(batch), int(lengths.max())), np.float32)
            for row, window in zip(samples, batch, strict=True):
                row[: len(window)] = window
            frames = self._front_end(torch.from_numpy(samples).to(self._device))
            hop = self._model.config.front_end.hop_samples
            visible = torch.arange(frames.shape[1]) < (lengths // hop)[:, None]
            styles = self._model.encode_audio(frames, visible.to(self._device)).cpu()
            total += (styles * lengths[:, None]).sum(0)
        return functional.normalize(total, dim=-1)

    def _windows(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """Windows of a sound, float32 [n]; n is a multiple of the hop, and less than a window's at the end alone."""
        size = self._window_samples
        pending = np.zeros(0, np.float32)
        has_any = False
        for block in blocks:
            pending = np.concatenate([pending, block])
            while len(pending) >= size:
                yield pending[:size]
                pending, has_any = pending[size:], True
        if len(pending) >= (_LEAST_SHARE * size if has_any else 1):
            yield np.pad(pending, (0, -len(pending) % self._model.config.front_end.hop_samples))


def open_style_reader(
    name: str, *, store: Store, device: str = "auto", precision: PrecisionName = "fp32"
) -> StyleReader:
    """A style encoder of the store.

    Args:
        name: its name, or the path of its folder.
        store: where to look.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of its weights.

    Raises:
        MissingError: there is no such model.
        UsageError: it is of another family.
        InputError: its files are damaged.
        ResourceError: there is no such device.
    """
    where = find_device(device)
    loaded = load_model(name, store=store)
    if not isinstance(loaded.model, StyleEncoder):
        hint = "name one of family style-encoder, as mtk models list tells"
        raise UsageError(f"the model is no style encoder but of family {loaded.config.family}", context=name, hint=hint)
    subwords = open_subwords(loaded.path)
    model = make_ready(loaded.model, where, precision)
    assert isinstance(model, StyleEncoder)
    return StyleReader(model, subwords, loaded.name, loaded.sha256)
