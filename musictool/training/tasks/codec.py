"""Learning to code sound: windows of sound in, the same windows out, through a quantiser with few levels or many.

What counts is a sum of losses of the reconstruction, each with a share of the gradient (see `training.balancer`), of
the quantiser's commitment, and of what nets that are trained along with the codec learn: to tell coded sound from real
sound. Where neither `adversarial` nor `features` has a weight, as before the step at which a curriculum gives them
one, those nets are left alone and cost nothing. Each example draws how many levels its codes have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musictool.core.quantizer import Codebook, CodebookLearner
from musictool.errors import UsageError
from musictool.models.codec import Codec, CodecConfig
from musictool.training.audio_losses import MEL_WINDOWS, STFT_WINDOWS, mel_distance, stft_distance, time_distance
from musictool.training.balancer import Balancer
from musictool.training.data.audio_windows import SoundCollection, open_sounds
from musictool.training.discriminators import (
    DiscriminatorConfig,
    Discriminators,
    feature_loss,
    fooling_loss,
    telling_loss,
)

_BALANCED = ("time", "mel", "stft", "adversarial", "features")
_LOUDNESS_FLOOR = 1e-8
_PEAK = 0.99


@dataclass(frozen=True)
class CodecData:
    """What is learned from.

    Attributes:
        train: collections: folders, sound files, and lists of sound files.
        shares: how often each of them is drawn from; by their lengths where nothing is said.
        valid: collections that figures are taken on; never drawn from.
        window_seconds: of an example, brought to a whole number of frames.
        gain_decibels: by how much a window is made louder or softer, from and to.
        mix_share: of examples that are two windows at once.
        mix_decibels: by how much the second one is louder, from and to.
        full_share: of examples that use all levels; the others use as many as one of the codec's bit rates has.
        valid_excerpts, valid_seconds: how many stretches of the held-out collections are looked at, and how long; a
            codec that works in segments gets stretches of that length.
    """

    train: tuple[Path, ...] = ()
    shares: tuple[float, ...] = ()
    valid: tuple[Path, ...] = ()
    window_seconds: float = 1.0
    gain_decibels: tuple[float, float] = (-10.0, 6.0)
    mix_share: float = 0.1
    mix_decibels: tuple[float, float] = (-10.0, 0.0)
    full_share: float = 0.0
    valid_excerpts: int = 32
    valid_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.train):
            raise ValueError(f"{len(self.shares)} shares for {len(self.train)} collections")
        if self.shares and (min(self.shares) < 0 or sum(self.shares) == 0):
            raise ValueError("shares are 0 or more, and not all of them 0")
        if self.window_seconds <= 0 or self.valid_seconds <= 0:
            raise ValueError("a window lasts more than 0 seconds")
        if self.valid_excerpts < 1:
            raise ValueError("valid_excerpts is 1 or more")
        for name in ("mix_share", "full_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is from 0 to 1")


@dataclass(frozen=True)
class CodecLoss:
    """What counts, and how much.

    Attributes:
        time, mel, stft, adversarial, features: shares of the gradient that reaches the codec's output; 0 turns a loss
            off, and the nets that are trained along too if neither `adversarial` nor `features` is left.
        commitment: of latents to their codes; beside those shares, with its own gradient.
        mel_windows, stft_windows: of the Fourier transforms, in samples.
        balance_decay: of the running means that gradients are held against.
        discriminator: the nets that are trained along.
        codebook_decay: of the moving averages that codebooks are.
        codebook_revival: an entry that is chosen less often than this share of an even use is given new life.
    """

    time: float = 0.1
    mel: float = 1.0
    stft: float = 0.0
    adversarial: float = 0.0
    features: float = 0.0
    commitment: float = 0.01
    mel_windows: tuple[int, ...] = MEL_WINDOWS
    stft_windows: tuple[int, ...] = STFT_WINDOWS
    balance_decay: float = 0.99
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    codebook_decay: float = 0.99
    codebook_revival: float = 0.1

    def __post_init__(self) -> None:
        if min(*self.shares.values(), self.commitment) < 0:
            raise ValueError("a weight is negative")
        if not any(self.shares.values()):
            raise ValueError("one of time, mel, stft, adversarial and features must count")
        for name in ("mel_windows", "stft_windows"):
            if not getattr(self, name) or min(getattr(self, name)) < 8:
                raise ValueError(f"{name} are one or more, of 8 samples or more")
        for name in ("balance_decay", "codebook_decay", "codebook_revival"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is from 0 to below 1")

    @property
    def shares(self) -> dict[str, float]:
        """The weights of all losses that are balanced."""
        return {name: getattr(self, name) for name in _BALANCED}

    @property
    def judges(self) -> bool:
        """Whether discriminators take part."""
        return self.adversarial > 0 or self.features > 0


class CodecTraining(nn.Module):
    """A codec, and all that is trained or kept along with it and does not go with it.

    Args:
        model: the codec.
        loss: the loss section; what changes with the step is handed to `forward`.
        is_fresh: whether codebooks are to be made anew, from the first batch.
    """

    def __init__(self, model: Codec, loss: CodecLoss, *, is_fresh: bool) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.learner = CodebookLearner(
            config.codebooks,
            config.codebook_size,
            config.width,
            decay=loss.codebook_decay,
            revival=loss.codebook_revival,
        )
        if not is_fresh:
            for level, codebook in enumerate(model.quantizer.codebooks):
                self.learner.adopt(level, cast(Codebook, codebook))
        self.discriminators = Discriminators(config.channels, loss.discriminator)
        self.balancer = Balancer(_BALANCED, loss.balance_decay)

    def forward(self, audio: Tensor, levels: Tensor, loss: CodecLoss) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Its value is the weighted sum of all losses, but its gradient is the balanced one. The codec's output is cut off
        from the codec while its gradient is taken, so that one pass through the discriminators does for both sides:
        what they learn never reaches the codec, and what the codec learns from them never reaches them.

        Args:
            audio: float32 [B, C, N].
            levels: int64 [B], codebooks to use.
            loss: the section as it is at this step.

        Returns:
            The loss, a scalar, and its parts.
        """
        if self.model.config.normalises:
            audio = audio / loudness(audio)
        is_learning = all(codebook.training for codebook in self.model.quantizer.codebooks)
        learner = self.learner if is_learning else None
        reconstruction = self.model(audio, levels, learner)
        coded = reconstruction.audio.float()
        output = coded.detach().requires_grad_()
        losses = self._direct_losses(output, audio, loss)
        telling = torch.zeros((), device=audio.device)
        if loss.judges:
            of_real, of_coded = self.discriminators(audio), self.discriminators(output)
            telling = telling_loss(of_real, of_coded)
            if loss.adversarial:
                losses["adversarial"] = fooling_loss(of_coded)
            if loss.features:
                losses["features"] = feature_loss(of_real, of_coded)
        gradient = self.balancer(losses, loss.shares, output)
        pull = (coded * gradient).sum()
        commitment = reconstruction.quantized.commitment
        value = torch.stack([loss.shares[name] * part.detach() for name, part in losses.items()]).sum()
        total = pull - pull.detach() + value + loss.commitment * commitment + telling
        parts = {name: losses[name].detach() if name in losses else telling.new_zeros(()) for name in _BALANCED}
        return total, {**parts, "commitment": commitment.detach(), "telling": telling.detach()}

    def _direct_losses(self, output: Tensor, audio: Tensor, loss: CodecLoss) -> dict[str, Tensor]:
        """Those that need no discriminator and have a weight."""
        losses = {}
        if loss.time:
            losses["time"] = time_distance(output, audio)
        if loss.mel:
            losses["mel"] = mel_distance(output, audio, self.model.config.rate_hz, loss.mel_windows)
        if loss.stft:
            losses["stft"] = stft_distance(output, audio, loss.stft_windows)
        return losses


class _Example(NamedTuple):
    """Sound, float32 [C, N], and how many codebooks are to code it."""

    audio: NDArray[np.float32]
    levels: int


class CodecTask:
    """The task.

    Args:
        model_config: of the codec.
        data, loss: sections of the recipe.
        seed: of the run.
    """

    data_class: ClassVar[type] = CodecData
    loss_class: ClassVar[type] = CodecLoss
    families: ClassVar[tuple[str, ...]] = ("codec",)

    def __init__(self, model_config: CodecConfig, data: CodecData, loss: CodecLoss, seed: int) -> None:
        self._config = model_config
        self._data = data
        self._loss = loss
        self._seed = seed
        self._rungs = sorted({model_config.levels_for(kbps) for kbps in model_config.bandwidths_kbps})

    @cached_property
    def _train(self) -> list[SoundCollection]:
        return [open_sounds([path]) for path in self._data.train]

    @cached_property
    def _valid(self) -> SoundCollection:
        return open_sounds(self._data.valid)

    def check(self) -> None:
        """See whether there is something to learn from.

        Raises:
            InputError: a collection is not there or empty, or files cannot be read.
            UsageError: none is named.
        """
        if not self._data.train:
            raise UsageError("no data to learn from", hint='name a folder of sound files: data.train=["FOLDER"]')
        _ = self._train
        if self._data.valid:
            _ = self._valid

    def accompanied(self, model: nn.Module, *, is_fresh: bool) -> CodecTraining:
        """The codec, with what is trained along; weights of that come from the run's seed."""
        assert isinstance(model, Codec)
        with torch.random.fork_rng([]):
            torch.manual_seed(self._seed)
            return CodecTraining(model, self._loss, is_fresh=is_fresh)

    def example(self, index: int, data: CodecData) -> _Example:
        """Example `index`: a window, or two at once, and how many levels its codes are to have."""
        generator = np.random.default_rng((self._seed, index))
        count = max(1, round(data.window_seconds * self._config.frame_rate_hz)) * self._config.hop_samples
        audio = self._draw(data, count, generator)
        if generator.random() < data.mix_share:
            audio = audio + _gain(data.mix_decibels, generator) * self._draw(data, count, generator)
        audio = audio * _gain(data.gain_decibels, generator)
        peak = float(np.abs(audio).max())
        if peak > _PEAK:
            audio = audio * np.float32(_PEAK / peak)
        is_full = generator.random() < data.full_share
        levels = self._config.codebooks if is_full else int(generator.choice(self._rungs))
        return _Example(audio, levels)

    def _draw(self, data: CodecData, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
        shares = np.array(data.shares or [collection.seconds for collection in self._train])
        collection = self._train[generator.choice(len(shares), p=shares / shares.sum())]
        return collection.drawn(count, self._config.rate_hz, self._config.channels, generator)

    def collate(self, examples: Sequence[_Example]) -> dict[str, Tensor]:
        """A batch: audio, float32 [B, C, N], and levels, int64 [B]."""
        return {
            "audio": torch.from_numpy(np.stack([example.audio for example in examples])),
            "levels": torch.tensor([example.levels for example in examples]),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor], loss: CodecLoss) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and its parts before they are weighed."""
        total, parts = model(batch["audio"], batch["levels"], loss)
        return total, parts

    def amounts(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Seconds of sound in a batch."""
        audio = batch["audio"]
        return {"audio_seconds": audio.shape[0] * audio.shape[2] / self._config.rate_hz}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures on stretches of the held-out collections.

        `loss` is the mean over bit rates of the multi-scale mel distance, which `mel_...kbps` tell one by one; `si_sdr`
        is in decibels and of all levels; `codes_used` is the share of its entries that a codebook uses, of the one that
        uses fewest.
        """
        if not self._data.valid:
            return {}
        assert isinstance(model, Codec)
        heard = [self._hear(model, number) for number in range(self._data.valid_excerpts)]
        mel = np.mean([stretch.mel for stretch in heard], axis=0)
        is_used = np.any([stretch.is_used for stretch in heard], axis=0)
        return {
            "loss": float(mel.mean()),
            **{
                f"mel_{levels * self._config.kbps_of_codebook:.4g}kbps": float(m) for levels, m in zip(self._rungs, mel)
            },
            "si_sdr": float(np.mean([stretch.si_sdr for stretch in heard])),
            "codes_used": float(is_used.mean(axis=1).min()),
        }

    def _hear(self, model: Codec, number: int) -> _Heard:
        """What becomes of a held-out stretch; stretches are spread evenly over the collections."""
        config = self._config
        count = round((config.segment_seconds or self._data.valid_seconds) * config.rate_hz)
        stretch = self._valid.spread(number, self._data.valid_excerpts, count, config.rate_hz, config.channels)
        audio = torch.from_numpy(stretch)[None].to(next(model.parameters()).device)
        scale = loudness(audio) if config.normalises else 1.0
        codes = model.encode(audio / scale, self._rungs[-1])
        is_used = np.zeros((self._rungs[-1], config.codebook_size), bool)
        for row, chosen in zip(is_used, codes[0].cpu().numpy(), strict=True):
            row[chosen] = True
        coded = [model.decode(codes[:, :levels])[..., :count] * scale for levels in self._rungs]
        mel = [float(mel_distance(each, audio, config.rate_hz)) for each in coded]
        return _Heard(mel, _si_sdr(coded[-1], audio), is_used)


class _Heard(NamedTuple):
    """What became of a stretch: its mel distance for each bit rate, and of the highest, SI-SDR in decibels and which
    entries of which codebooks it uses, bool [K, V]."""

    mel: list[float]
    si_sdr: float
    is_used: NDArray[np.bool_]


def loudness(audio: Tensor) -> Tensor:
    """Root mean square of the mean of all channels, a little above 0 in silence; float [B, C, N] to [B, 1, 1]."""
    return audio.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + _LOUDNESS_FLOOR


def _gain(decibels: tuple[float, float], generator: np.random.Generator) -> np.float32:
    return np.float32(10 ** (generator.uniform(*decibels) / 20))


def _si_sdr(audio: Tensor, target: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in decibels (Le Roux et al., 2019), bounded by 100 either way."""
    tiny = 1e-10 * float(target.square().sum()) + 1e-10
    wanted = target * ((audio * target).sum() / (target.square().sum() + tiny))
    ratio = (wanted.square().sum() + tiny) / ((audio - wanted).square().sum() + tiny)
    return 10 * math.log10(float(ratio))
