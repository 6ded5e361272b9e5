"""The codec whose codes a model writes: found among those that are here, told of in heads, asked for codes of sound.

A model says which codec it is by a fingerprint, or at least by a name. Reads the codec's weights only where sound is to
be encoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.audio.reading import open_audio
from musictool.checkpoints.native import CODEC_KEYS, read_facts
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.codec_choice import Codecs, how_to_get_codec
from musictool.inference.coded_sound import EncodedSound, describe_frames
from musictool.inference.generation import Setup
from musictool.inference.model_files import LoadedModel
from musictool.models.codec import CodecConfig
from musictool.models.registry import config_from_dict


class CodedFile(NamedTuple):
    """A sound file as codes.

    Attributes:
        codes: int32 [K, t].
        samples: how much of it was encoded, at the codec's rate.
        sha256: of the file, in hexadecimal.
    """

    codes: NDArray[np.int32]
    samples: int
    sha256: str


@dataclass(frozen=True)
class ModelCodec:
    """The codec of a model.

    Attributes:
        name, sha256: of the codec.
        config: its numbers.
        rows: K, of codes that the model writes.
        channels: that they stand for.
        codecs: loads it.
    """

    name: str
    sha256: str
    config: CodecConfig
    rows: int
    channels: int
    codecs: Codecs

    def samples(self, seconds: float) -> int:
        """How many samples of each channel there are of some seconds, one at least."""
        return max(1, round(seconds * self.config.rate_hz))

    def meta(self, samples: int) -> dict[str, Any]:
        """What the head of an item of so many samples says in `meta`."""
        frames = describe_frames(self.config, self.rows, self.channels)
        return {**frames, "duration_seconds": samples / self.config.rate_hz}

    def encode(self, path: Path, seconds_max: float = math.inf) -> CodedFile:
        """Encode a sound file, of any rate and channels, or at least so much of it.

        Raises:
            InputError: it can't be read.
        """
        codec = self.codecs.load(self.name, self.sha256)
        with open_audio(path, str(path)) as reader:
            sound = EncodedSound(reader, codec, self.rows, seconds_max=seconds_max)
            chunks = [chunk.codes for chunk in sound]
        assert sound.samples is not None
        return CodedFile(np.concatenate(chunks, axis=1), sound.samples, sound.source_sha256)

    def checked_prompt(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes to go on from, int32 [K, t]; those of one channel are the same in all.

        Raises:
            InputError: there are more or fewer codebooks than the model writes, or codes that the codec has not.
        """
        if self.channels > self.config.channels and len(codes) * self.channels == self.rows:
            codes = np.repeat(codes, self.channels, axis=0)
        if len(codes) != self.rows:
            hint = f"make them with: mtk encode --model {self.name} --codebooks {self.rows // self._alone}"
            raise InputError(f"{len(codes)} rows of codes, and the model writes {self.rows}", hint=hint)
        if codes.size and codes.max() >= self.config.codebook_size:
            hint = f"the codebooks of {self.name} have {self.config.codebook_size} entries"
            raise InputError(f"no such code: {codes.max()}", hint=hint, code="bad-codes")
        return codes

    @property
    def _alone(self) -> int:
        """How many channels are coded alone."""
        return self.channels // self.config.channels


def find_model_codec(loaded: LoadedModel, setup: Setup, *, channels: int | None = None) -> ModelCodec:
    """The codec of a model.

    Args:
        loaded: the model; its configuration has `codec`, `codebooks` and `codebook_size`.
        setup: where codecs are, and where they run.
        channels: that the model's codes stand for; None for the codec's.

    Raises:
        MissingError: it is not here.
        UsageError: the one that is here by its name cannot be it.
        InputError: its files are damaged.
    """
    name, sha256 = (loaded.source.get(key) for key in CODEC_KEYS)
    name = name or loaded.config.codec
    codecs = Codecs(setup.store, device=setup.device)
    found = codecs.find(name, sha256) if name else None
    if found is None:
        hint = how_to_get_codec(name) if name else "import it from the folder that the model came in"
        raise MissingError(f"the codec of {loaded.name} is not here: {name}", hint=hint, code="missing-model")
    facts = read_facts(found.path)
    if sha256 and facts.weights_sha256 != sha256:
        message = f"the codec of {loaded.name} is not here: {name} is another"
        hint = "import the folder that the model came in again"
        raise MissingError(message, hint=hint, code="missing-model")
    config = config_from_dict({"family": facts.family, **facts.config}, str(found.path))
    if not isinstance(config, CodecConfig):
        raise UsageError(f"{found.name} is no codec, and {loaded.name} names it as its own")
    channels = channels or config.channels
    alone = channels // config.channels
    _check(loaded, config, alone)
    return ModelCodec(found.name, facts.weights_sha256, config, loaded.config.codebooks, channels, codecs)


def _check(loaded: LoadedModel, config: CodecConfig, alone: int) -> None:
    """Refuse a codec that cannot be the one of a model, which codes so many channels alone."""
    rows, size = loaded.config.codebooks, loaded.config.codebook_size
    if rows > config.codebooks * alone or size != config.codebook_size:
        has = f"{config.codebooks} codebooks of {config.codebook_size}"
        raise UsageError(f"{loaded.name} writes {rows // alone} codebooks of {size}, and its codec has {has}")
    if config.normalises:
        raise UsageError(f"{loaded.name} writes codes alone, and its codec needs the loudness of segments beside them")
