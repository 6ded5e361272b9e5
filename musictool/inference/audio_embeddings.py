"""Sound as points in a space where near means alike: embeddings of a second or so each, by whichever model is there.

    clap         CLAP (Wu et al., 2023, arXiv:2211.06687): windows of ten seconds, one each second; a folder as Hugging
                 Face has it, read by `transformers`
    vggish       VGGish: windows of .96 seconds, end to end; a file of `torchvggish`'s weights, or safetensors of them
    note-tagger  our transcriber's features after two of its blocks, where it still hears timbre and noise as well as
                 notes: means over all pitches and a second
    a codec      what its encoder gives before it is quantised: means over a second. To judge a codec by another's

The first two are looked for in the folder `embeddings` of the store, by names that begin with theirs. Sound comes as
the mean of its channels, at the model's rate; what is left at its end of less than a window is left out. Figures that
come of two models can't be compared, so a name and a digest go with each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musictool.audio.chunks import stretches_in_context
from musictool.audio.spectrogram import LogFrequency
from musictool.checkpoints.checkpoint import Checkpoint, broken
from musictool.checkpoints.files import sha256_of
from musictool.checkpoints.formats import open_checkpoint
from musictool.checkpoints.native import is_native, read_facts
from musictool.checkpoints.store import Store, is_path
from musictool.checkpoints.verify import VerificationError, examine
from musictool.errors import MissingError, UsageError
from musictool.inference.codec_streaming import CodecModel, load_codec
from musictool.inference.model_files import LoadedModel, load_model
from musictool.inference.precision import find_device
from musictool.models import vggish
from musictool.models.note_tagger import NoteTagger

AUTO = "auto"
OWN = "note-tagger"
FOREIGN = ("clap", "vggish")  # the better first
FOLDER = "embeddings"

_BLOCKS = 2  # of the note tagger
_STRETCH_SECONDS = 16
_WINDOWS_AT_ONCE = 8

Blocks = Iterable[NDArray[np.float32]]


class Embedding(Protocol):
    """A model that embeds sound.

    Attributes:
        name, sha256: of the model and its weights.
        rate_hz: of the sound that it takes.
        width: D.
        hop_seconds: from embedding to embedding.
    """

    name: str
    sha256: str
    rate_hz: int
    width: int
    hop_seconds: float

    def embed(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """Embed a sound.

        Args:
            blocks: mono at the model's rate, float32 [n] each, of any length.

        Yields:
            float32 [n, D]; none of sound that is too short.
        """
        ...


def open_embedding(name: str = AUTO, device: str = "auto", *, store: Store) -> Embedding:
    """The embedding of a name.

    Args:
        name: `auto` for CLAP or else VGGish where their weights are in the store, our own otherwise; one of these by
            name; a model of ours that embeds, by its name or path; or the path of a CLAP folder or of VGGish's weights.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: where models are.

    Raises:
        MissingError: there is no such model, or transformers is not there to read it.
        InputError: its files are damaged, or no weights that are known here.
        UsageError: it is a model that embeds no sound.
        ResourceError: the device is not there.
    """
    place = find_device(device)
    here = {kind: path for kind in FOREIGN if (path := _installed(store, kind)) is not None}
    if name == AUTO:
        name = next(iter(here), OWN)
    if name in FOREIGN:
        if name not in here:
            hint = f"put its weights at {store.home / FOLDER / name}, or name their path"
            raise MissingError(f"no weights of {name}", hint=hint, code="missing-model")
        return _open_foreign(here[name], place, name)
    if is_path(name) and not is_native(Path(name)):
        return _open_foreign(Path(name), place)
    family = read_facts(store.find(name).path).family
    if family == "note-tagger":
        return NoteTaggerEmbedding(load_model(name, store=store), place)
    if family == "codec":
        return CodecEmbedding(load_codec(name, str(place), store=store), place)
    raise UsageError(f"{name} is no model that embeds sound", hint=f"use {OWN}, a codec, clap or vggish")


def _installed(store: Store, kind: str) -> Path | None:
    """Where the weights of a foreign model are in the store."""
    return min((store.home / FOLDER).glob(f"{kind}*"), default=None)


def _open_foreign(path: Path, device: torch.device, name: str | None = None) -> Embedding:
    """CLAP of a folder that says that it is CLAP, VGGish of anything else."""
    weights = open_checkpoint(path)
    name = name or path.stem
    if weights.config.get("model_type") == "clap":
        return ClapEmbedding(path, name, device)
    return VGGishEmbedding(weights, name, device)


class NoteTaggerEmbedding:
    """Features of our transcriber: an `Embedding`.

    Args:
        loaded: the model; it is changed.
        device: where it is to run.
    """

    hop_seconds = 1.0

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        model = loaded.model
        assert isinstance(model, NoteTagger)
        front_end = model.config.front_end
        self.name, self.sha256 = loaded.name, loaded.sha256
        self.rate_hz, self.width = front_end.rate_hz, model.config.channels
        self._frames = round(self.hop_seconds * front_end.rate_hz / front_end.hop_samples)
        model.blocks = model.blocks[:_BLOCKS]
        window_frames = -(-max(front_end.windows_samples) // (2 * front_end.hop_samples))
        self._around = window_frames + 1 + sum(dilation + 1 for dilation in model.config.time_dilations[:_BLOCKS])
        self._hop_samples = front_end.hop_samples
        self._front_end = LogFrequency(front_end).to(device)
        self._model = model.to(device)
        self._device = device
        self._seen: Tensor | None = None
        model.norm.register_forward_pre_hook(self._keep)

    def _keep(self, module: torch.nn.Module, given: tuple[Tensor]) -> None:
        """Note what the blocks have given to the layer after them, float [B, T, 88, D]."""
        (self._seen,) = given

    @torch.inference_mode()
    def embed(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """As `Embedding.embed`."""
        second = self._frames * self._hop_samples
        around = self._around * self._hop_samples
        for stretch in stretches_in_context(blocks, _STRETCH_SECONDS * second, around):
            seconds = (len(stretch) - 2 * around) // second
            if not seconds:
                return
            samples = torch.from_numpy(stretch[: seconds * second + 2 * around]).to(self._device)
            self._model(self._front_end(samples[None]))
            assert self._seen is not None
            heard = self._seen[0, self._around : -self._around].mean(1)  # [T, 88, D] -> [T, D]
            yield heard.unflatten(0, (seconds, self._frames)).mean(1).cpu().numpy()


class CodecEmbedding:
    """What a codec's encoder gives: an `Embedding`.

    Args:
        codec: the model.
        device: where it runs.

    Raises:
        UsageError: the codec reads sound in segments that it normalises.
    """

    def __init__(self, codec: CodecModel, device: torch.device) -> None:
        config = codec.model.config
        if config.segment_samples is not None:
            message = f"{codec.name} brings segments to one loudness, and its latents say nothing of it"
            raise UsageError(message, hint=f"use {OWN}, or a codec without segments")
        self.name, self.sha256 = codec.name, codec.sha256
        self.rate_hz, self.width = config.rate_hz, config.width
        self._frames = round(config.frame_rate_hz)
        self.hop_seconds = self._frames / config.frame_rate_hz
        self._channels = config.channels
        self._encoder = codec.model.encoder
        self._device = device

    def embed(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """As `Embedding.embed`."""
        for second in _windows(self._latents(blocks), self._frames, self._frames):
            yield second.mean(axis=1)[None]

    @torch.inference_mode()
    def _latents(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """Latents of a sound, float32 [D, t] each."""
        state = self._encoder.begin()
        for block in chain(blocks, [None]):
            samples = torch.from_numpy(np.zeros(0, np.float32) if block is None else block).to(self._device)
            latents = self._encoder.step(samples.expand(1, self._channels, -1), state, is_last=block is None)
            yield latents[0].cpu().numpy()


class VGGishEmbedding:
    """VGGish: an `Embedding`.

    Args:
        weights: what is stored.
        name: what to call it.
        device: where it is to run.

    Raises:
        InputError: these are no weights of it, or damaged.
    """

    rate_hz, width = vggish.RATE_HZ, vggish.WIDTH
    hop_seconds = vggish.FRAMES * vggish.HOP_SAMPLES / vggish.RATE_HZ

    def __init__(self, weights: Checkpoint, name: str, device: torch.device) -> None:
        model = vggish.VGGish("meta")
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        examined = examine(weights, expected)
        if examined.findings:
            hint = "weights of CLAP and of VGGish are known"
            raise VerificationError.of(examined.findings, len(expected), str(weights.path), hint)
        model.load_state_dict({key: tensor.float() for key, tensor in examined.tensors.items()}, assign=True)
        self.name, self.sha256 = name, _digest(weights.path)
        self._model = model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def embed(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """As `Embedding.embed`."""
        hop = vggish.FRAMES * vggish.HOP_SAMPLES
        for patches in _batches(_windows(blocks, vggish.PATCH_SAMPLES, hop), _WINDOWS_AT_ONCE):
            yield self._model(torch.from_numpy(np.stack(patches)).to(self._device)).cpu().numpy()


class ClapEmbedding:
    """CLAP, as `transformers` runs it: an `Embedding`.

    Sound of less than ten seconds is one window, which its front end repeats to fill.

    Args:
        folder: as Hugging Face has it.
        name: what to call it.
        device: where it is to run.

    Raises:
        MissingError: transformers is not installed.
        InputError: the folder is not whole, or damaged.
    """

    hop_seconds = 1.0

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        self._model, self._front_end = _load_clap(folder)
        self.name, self.sha256 = name, _digest(folder)
        self.rate_hz, self.width = int(self._front_end.sampling_rate), int(self._model.config.projection_dim)
        self._model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def embed(self, blocks: Blocks) -> Iterator[NDArray[np.float32]]:
        """As `Embedding.embed`."""
        size, hop = int(self._front_end.nb_max_samples), round(self.hop_seconds * self.rate_hz)
        for windows in _batches(_windows(blocks, size, hop, is_short_kept=True), _WINDOWS_AT_ONCE):
            seen = self._front_end(windows, sampling_rate=self.rate_hz, return_tensors="pt")
            is_longer = torch.zeros(len(windows), 1, dtype=torch.bool)  # the front end would draw one at random
            features = self._model.get_audio_features(seen["input_features"].to(self._device), is_longer)
            yield getattr(features, "pooler_output", features).float().cpu().numpy()


def _load_clap(folder: Path) -> tuple[Any, Any]:
    """CLAP and its front end."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        message, hint = "CLAP is read by transformers, which is not installed", "pip install transformers"
        raise MissingError(message, context=str(folder), hint=hint, code="missing-dependency") from error
    with _quiet(transformers.utils.logging):
        try:
            model, info = transformers.ClapModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
            front_end = transformers.ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever a damaged file makes it stumble over
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise broken(folder, f"CLAP cannot be read: {reason:.120}") from error
    if info["missing_keys"]:
        raise broken(folder, f"CLAP cannot be read: {len(info['missing_keys'])} of its tensors are missing")
    return model, front_end


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep transformers from drawing bars and from warning of what is checked here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _digest(path: Path) -> str:
    """The sha256 of a weights file, or of the digests of all those of a folder."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    digests = [sha256_of(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _windows(blocks: Blocks, size: int, hop: int, *, is_short_kept: bool = False) -> Iterator[NDArray[np.float32]]:
    """Cut what comes as float32 [..., n] into windows that begin every hop.

    Args:
        blocks: of any length.
        size: of a window.
        hop: from window to window.
        is_short_kept: give what is shorter than the first window as one.

    Yields:
        float32 [..., size]; what is left at the end is left out.
    """
    held: NDArray[np.float32] | None = None
    is_first = True
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=-1)
        while held.shape[-1] >= size:
            is_first = False
            yield held[..., :size]
            held = held[..., hop:]
    if is_short_kept and is_first and held is not None and held.shape[-1]:
        yield held


def _batches(windows: Iterator[NDArray[np.float32]], size: int) -> Iterator[list[NDArray[np.float32]]]:
    while batch := list(islice(windows, size)):
        yield batch
