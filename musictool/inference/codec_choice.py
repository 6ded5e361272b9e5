"""Which codec: the one to encode with and how many of its codebooks, and the one that made codes.

Codes mean something to the one codec alone that made them, so it is found by the fingerprint that goes with them,
whatever it is called here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from musictool.checkpoints.native import CODES_KEY, ModelFacts, read_facts
from musictool.checkpoints.store import InstalledModel, Store, checked_name, how_to_get
from musictool.errors import InputError, MissingError, UsageError
from musictool.inference.codec_streaming import CodecModel, load_codec
from musictool.inference.precision import PrecisionName
from musictool.models.codec import CodecConfig
from musictool.models.registry import config_from_dict
from musictool.stream.records import Head


@dataclass(frozen=True)
class Codebooks:
    """What a stream's reader asks of a codec.

    Attributes:
        fingerprint: of the codec.
        size: entries of each codebook.
    """

    fingerprint: str
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class Codecs:
    """The codecs that are here, to decode with; each is loaded once a process.

    Attributes:
        store: where models are.
        model: the only one to use, by name or path; None for whichever made the codes.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of the model's numbers.
    """

    store: Store
    model: str | None = None
    device: str = "auto"
    precision: PrecisionName = "fp32"

    def codebooks(self, head: Head) -> Codebooks | None:
        """What to check an item of codes by; None if its codec is not here. Reads no weights.

        Raises:
            InputError, MissingError: the model that was asked for is not there, or is no codec.
        """
        found = self.find(head.vocab, head.vocab_sha)
        if found is None:
            return None
        facts = read_facts(found.path)
        has_their_codes = facts.source.get(CODES_KEY) == head.vocab_sha
        fingerprint = head.vocab_sha if has_their_codes else facts.weights_sha256
        return Codebooks(fingerprint, _config_of(facts, found).codebook_size)

    def load(self, vocab: str, vocab_sha: str | None = None) -> CodecModel:
        """The codec of some codes.

        Args:
            vocab: what they call it.
            vocab_sha: its fingerprint; None where they don't say, and the name has to do.

        Raises:
            MissingError: it is not here.
            InputError: its files are damaged, or it is no codec.
            ResourceError: the device is not there.
        """
        found = self.find(vocab, vocab_sha)
        if found is None:
            known = vocab if vocab_sha is None else f"{vocab} ({vocab_sha[:12]})"
            hint = f"{how_to_get_codec(vocab)}; or name its folder with --model"
            raise MissingError(f"the codec is not here: {known:.80}", hint=hint, code="missing-model")
        return _loaded(self.model or found.name, self.device, self.precision, self.store)

    def find(self, vocab: str, vocab_sha: str | None) -> InstalledModel | None:
        """The model with a fingerprint, else the one of that name; names from a stream are never taken for paths.

        Raises:
            InputError, MissingError: the model that was asked for is not there.
        """
        if self.model is not None:
            return self.store.find(self.model)
        installed = self.store.installed()
        named = next((model for model in installed if model.name == vocab), None)
        if vocab_sha is None:
            return named
        first = [named] if named is not None else []
        same = (model for model in (*first, *installed) if _fingerprint(model) == vocab_sha)
        return next(same, named)


def find_levels(config: CodecConfig, name: str, bandwidth_kbps: float | None, codebooks: int | None) -> int:
    """How many codebooks to encode with.

    Args:
        config: of the codec.
        name: what it is called.
        bandwidth_kbps, codebooks: what is asked for, one of them at most; neither is all codebooks.

    Raises:
        UsageError: the codec can't do that.
    """
    most, step = config.codebooks, config.kbps_of_codebook
    if codebooks is not None:
        if not 1 <= codebooks <= most:
            raise UsageError(f"{name} has 1 to {most} codebooks, not {codebooks}", context="--codebooks")
        return codebooks
    if bandwidth_kbps is None:
        return most
    levels = round(bandwidth_kbps / step) if math.isfinite(bandwidth_kbps) else 0
    if not 1 <= levels <= most or abs(levels * step - bandwidth_kbps) > 1e-3:
        hint = f"{name} does {step:g} to {most * step:g} kbps in steps of {step:g}; or count its --codebooks"
        raise UsageError(f"no such bandwidth: {bandwidth_kbps:g} kbps", context="--bandwidth", hint=hint)
    return levels


@lru_cache(maxsize=4)
def _loaded(name: str, device: str, precision: PrecisionName, store: Store) -> CodecModel:
    return load_codec(name, device, store=store, precision=precision)


def _config_of(facts: ModelFacts, found: InstalledModel) -> CodecConfig:
    config = config_from_dict({"family": facts.family, **facts.config}, str(found.path))
    if not isinstance(config, CodecConfig):
        raise UsageError(f"{found.name} is no codec", hint="leave --model out, or name the codec that made the codes")
    return config


def _fingerprint(model: InstalledModel) -> str | None:
    try:
        return read_facts(model.path).weights_sha256
    except (InputError, OSError):  # a damaged model is none of ours, and others may do
        return None


def how_to_get_codec(vocab: str) -> str:
    """The command that brings a codec, by what a stream or a model calls it."""
    try:
        return how_to_get(checked_name(vocab))
    except UsageError:  # a name from a stream must not reach a command that somebody may copy
        return "mtk models import PATH --as NAME"
