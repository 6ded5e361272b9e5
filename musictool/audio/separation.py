"""A mix taken apart into an instrument and what goes with it, by a Demucs model (Rouard et al., 2023).

Demucs is the extra `separate`; its models are fetched by itself. Sound of any length is taken apart in bounded memory,
a minute or two at a time with some seconds on either side that are thrown away. Knows samples, not files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musictool.audio.resampling import Resampler, remixed
from musictool.errors import InputError, MissingError, UsageError

Samples = NDArray[np.float32]

STRETCH_SECONDS, AROUND_SECONDS = 120.0, 8.0
_OVERLAP = 0.25  # of the segments within a stretch; Demucs's own default
_TINY = 1e-8


def check_demucs() -> None:
    """See whether Demucs is there.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import demucs.apply
        import demucs.pretrained  # noqa: F401  (only whether it can be)
    except ImportError as error:
        raise MissingError(
            "taking mixes apart needs Demucs", hint="pip install 'musictool[separate]'", code="missing-dependency"
        ) from error


class Separator:
    """A loaded model.

    Args:
        model: a name that Demucs knows, or a folder of its models and a name in there, `models/my-model`.
        stem: the source that is taken out.
        device: torch's name of where it runs.

    Attributes:
        rate_hz, channels: of the sound that it works on; any other is brought there and back.

    Raises:
        MissingError: Demucs is not installed, or the model is not there and cannot be fetched.
        UsageError: the model has no such source.
    """

    def __init__(self, model: str, stem: str, device: str) -> None:
        self._model = _load(model)
        self._device = device
        if stem not in self._model.sources:
            known = ", ".join(self._model.sources)
            raise UsageError(f"model {model!r:.60} takes out no {stem!r:.40}", hint=f"it takes out {known}")
        self._stem = list(self._model.sources).index(stem)
        self.rate_hz, self.channels = int(self._model.samplerate), int(self._model.audio_channels)

    def separated(
        self, blocks: Iterable[Samples], rate_hz: int, channels: int, frames: int, level: float
    ) -> Iterator[tuple[Samples, Samples]]:
        """Take sound apart.

        Args:
            blocks: float32 [n, C] each.
            rate_hz, channels, frames: of all of them.
            level: the standard deviation of all of the sound, which the model wants to be 1.

        Yields:
            The stem and the sum of the other sources, float32 [m, C] each; all together as long as the sound.
        """
        stretch, around = round(STRETCH_SECONDS * self.rate_hz), round(AROUND_SECONDS * self.rate_hz)
        back = [Resampler(self.rate_hz, rate_hz, channels) for _ in range(2)]
        for piece in _in_context(self._brought_here(blocks, rate_hz), stretch, around, self.channels):
            stem, rest = self._apart(piece, max(level, _TINY))
            yield (
                back[0].push(remixed(stem[around:-around], channels)),
                back[1].push(remixed(rest[around:-around], channels)),
            )
        yield back[0].finish(frames), back[1].finish(frames)

    def _brought_here(self, blocks: Iterable[Samples], rate_hz: int) -> Iterator[Samples]:
        """Blocks at the model's rate and in its channels."""
        resampler = Resampler(rate_hz, self.rate_hz, self.channels)
        for block in blocks:
            yield resampler.push(remixed(block, self.channels))
        yield resampler.finish()

    def _apart(self, piece: Samples, level: float) -> tuple[Samples, Samples]:
        """The stem and the rest of a piece, float32 [n, C] each."""
        import torch
        from demucs.apply import apply_model

        mix = torch.from_numpy(np.ascontiguousarray(piece.T) / np.float32(level))[None]
        found = apply_model(self._model, mix, shifts=0, overlap=_OVERLAP, device=self._device)[0].numpy()  # [S, C, n]
        found *= np.float32(level)
        stem = found[self._stem]
        return stem.T, (found.sum(axis=0) - stem).T


def _in_context(blocks: Iterable[Samples], stretch: int, around: int, channels: int) -> Iterator[Samples]:
    """Sound cut into stretches, each with what lies around it: float32 [around + m + around, C], 0 < m <= stretch."""
    silence = np.zeros((around, channels), np.float32)
    held, count = [silence], around
    for block in chain(blocks, [silence]):
        held.append(block)
        count += len(block)
        while count >= stretch + 2 * around:
            known = np.concatenate(held)
            yield known[: stretch + 2 * around]
            held, count = [known[stretch:]], count - stretch
    if count > 2 * around:
        yield np.concatenate(held)


def _load(name: str) -> Any:
    """Demucs's model of a name, or of a folder and a name."""
    check_demucs()
    from demucs.pretrained import get_model

    folder = Path(name).parent
    is_local = "/" in name and folder.is_dir()
    try:
        return get_model(Path(name).name, repo=folder) if is_local else get_model(name)
    except (Exception, SystemExit) as error:  # whatever goes wrong in fetching and unpacking; it may even exit
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        hint = "name one of Demucs's models such as htdemucs or htdemucs_6s; the first time it is fetched"
        message = f"cannot load the Demucs model: {reason}"
        if is_local:
            raise InputError(message, context=name) from error
        raise MissingError(message, context=name, hint=hint, code="no-such-model") from error
