"""The parts of TatumFlow (`models.tatumflow` says what it is): encoder, style, denoiser, decoder, and critics.

Shapes as in `core`, and F frames of a window, L numbers of a latent, W of a level of style. Theory is the factors of
`symbolic.theory` one behind the other, 384 numbers a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from musictool.core.kv_cache import KVCache
from musictool.core.multiscale import MultiScaleBlock, TimeScales
from musictool.core.positions import Rotary, sinusoids
from musictool.core.transformer import Transformer, build_transformer
from musictool.symbolic.theory import CHORDS, FACTORS, WIDTHS

LEVELS = ("genre", "artist", "piece")
THEORY_WIDTH = sum(WIDTHS.values())
_MODULATIONS = 6
_KEYS = 128
_READER_FRAMES = 5  # of a quarter of a second: theory is measured over a second


@dataclass(frozen=True)
class TatumFlowConfig:
    """The numbers of a TatumFlow.

    Attributes:
        styles: names of the genres it was taught.
        chords: qualities of the chords that each of them plays, keys of `CHORDS`; any where nothing is said.
        vocabulary: V, of scheme `tatum`.
        pad_id, start_id, end_id: of that vocabulary; the first stands for what is masked, too.
        note_on_id, note_off_id: of pitch 0; those of other pitches follow.
        frame_ticks: steps of 10 ms of a frame.
        frames_max, tokens_max: of a window it was taught on.
        width, heads, hidden: D, H and F of every layer.
        encoder_layers, decoder_layers: over ids.
        frame_layers: over frames, after the encoder and before the decoder each.
        diffusion_layers: of the denoiser.
        latent_width: numbers of a frame's latent.
        latent_noise: the most noise on latents that the decoder learns to bear.
        style_width: numbers of each level's Gaussian.
        scales: of time, at which the denoiser attends.
        diffusion_steps, schedule, prediction: of the diffusion.
        dropout: everywhere, in training.
    """

    family: ClassVar[str] = "tatumflow"

    styles: tuple[str, ...] = ()
    chords: dict[str, tuple[str, ...]] = field(default_factory=dict)
    vocabulary: int = 729
    pad_id: int = 0
    start_id: int = 1
    end_id: int = 2
    note_on_id: int = 103
    note_off_id: int = 231
    frame_ticks: int = 25
    frames_max: int = 64
    tokens_max: int = 768
    width: int = 192
    heads: int = 6
    hidden: int = 400
    encoder_layers: int = 1
    decoder_layers: int = 4
    frame_layers: int = 1
    diffusion_layers: int = 4
    latent_width: int = 48
    latent_noise: float = 0.4
    style_width: int = 32
    scales: tuple[int, ...] = (1, 2, 4)
    diffusion_steps: int = 1000
    schedule: Literal["linear", "cosine"] = "cosine"
    prediction: Literal["v", "noise"] = "v"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if len(set(self.styles)) != len(self.styles):
            raise ValueError("two styles have one name")
        if not set(self.chords) <= set(self.styles):
            raise ValueError("there are chords of what is no style")
        unknown = {quality for qualities in self.chords.values() for quality in qualities} - set(CHORDS)
        if unknown:
            raise ValueError(f"no such chord: {min(unknown)!r}; there are {', '.join(CHORDS)}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no even multiple of {self.heads} heads")
        if not self.scales or min(self.scales) < 1:
            raise ValueError("scales are whole numbers from 1 upwards, one at least")
        if self.heads < len(self.scales):
            raise ValueError(f"{self.heads} heads are too few for {len(self.scales)} scales")


class Steps(NamedTuple):
    """Ids and where they stand.

    Attributes:
        ids: int64 [B, T].
        ticks: int64 [B, T], the time after each id, from the start of the window.
        visible: bool [B, T], False at padding; None where there is none.
    """

    ids: Tensor
    ticks: Tensor
    visible: Tensor | None = None


def keys_of(steps: Steps, config: TatumFlowConfig) -> Tensor:
    """What the keys of a piano do after each id: float [B, T, 256], 1 for those that are down, and, behind them, for
    those that were pressed in the frame that the id stands in."""
    on, off = (
        functional.one_hot(torch.where(_is_of(steps.ids, first), steps.ids - first, _KEYS), _KEYS + 1)[..., :_KEYS]
        for first in (config.note_on_id, config.note_off_id)
    )
    pressed = on.cumsum(1)
    down = pressed - off.cumsum(1)
    frame = steps.ticks // config.frame_ticks
    begins = torch.cat([torch.ones_like(frame[:, :1]), (frame.diff(dim=1) != 0).long()], 1)
    first = torch.where(begins > 0, torch.arange(frame.shape[1], device=frame.device), 0).cummax(1).values
    before = functional.pad(pressed, (0, 0, 1, 0)).gather(1, first[..., None].expand_as(pressed))
    return torch.cat([down, pressed - before], -1).clamp(0, 1).float()


def _is_of(ids: Tensor, first: int) -> Tensor:
    return (ids >= first) & (ids < first + _KEYS)


class StyleGaussian(NamedTuple):
    """What style a stretch of music has, at each level; float [B, 3, W] each."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """A style, float [B, 3, W], given standard normal noise of that shape."""
        return self.mean + noise * (0.5 * self.log_variance).exp()


class Style(NamedTuple):
    """A style that is told.

    Attributes:
        values: float [B, 3, W].
        is_known: bool [B, 3], the levels that are told.
    """

    values: Tensor
    is_known: Tensor


class Wish(NamedTuple):
    """What the denoiser is to make of latents.

    Attributes:
        style: float [B, 3, W].
        knows_style: bool [B, 3], the levels that are given.
        theory: float [B, F, 384], the factors one behind the other.
        knows_theory: bool [B, 4], the factors that are given.
    """

    style: Tensor
    knows_style: Tensor
    theory: Tensor
    knows_theory: Tensor


class _BatchNorm(nn.Module):
    """torch's batch norm without weights, and without its count of batches, which no file of weights need hold."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """float [n, L] to the same."""
        return functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class TokenEncoder(nn.Module):
    """Ids to a latent a frame."""

    def __init__(self, config: TatumFlowConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self._ticks = config.frame_ticks
        self._tokens = (tokens,)  # the decoder's, which has it among its parts: weights are kept once
        self.phase = nn.Embedding(config.frame_ticks, config.width)
        self.layers = _stack(config, config.encoder_layers)
        self.count = nn.Linear(1, config.width)
        self.frame_layers = _stack(config, config.frame_layers)
        self.output = nn.Linear(config.width, config.latent_width)
        self.norm = _BatchNorm(config.latent_width)

    def forward(self, steps: Steps, visible: Tensor) -> Tensor:
        """Latents, float [B, F, L], of ids and of frames that are `visible`, bool [B, F]; 0 in others.

        Each number has mean 0 and variance 1 over the frames of all music. A norm over the batch sees to it: with one
        over a frame's own numbers, all frames came to say the same within a few steps of training, for as long as the
        decoder could not read them, they were only noise to it.
        """
        (tokens,) = self._tokens
        x = tokens(steps.ids) * tokens.embedding_dim**0.5 + self.phase(steps.ticks % self._ticks)
        x = x + self.layers(x, visible=steps.visible)
        if steps.visible is not None:
            x = x * steps.visible[..., None]
        rows, frames = visible.shape
        place = (steps.ticks // self._ticks).minimum((visible.sum(1, keepdim=True) - 1).clamp(min=0))
        held = x.new_zeros(rows, frames, x.shape[-1]).scatter_add_(1, place[..., None].expand_as(x), x)
        ones = torch.ones_like(place) if steps.visible is None else steps.visible.long()
        count = torch.zeros_like(visible, dtype=torch.long).scatter_add_(1, place, ones)[..., None]
        x = held / count.clamp(min=1).sqrt() + self.count(torch.log1p(count.to(x.dtype)))
        x = self.frame_layers(x, visible=visible)
        said = self.output(x).float()
        latents = torch.zeros_like(said)
        latents[visible] = self.norm(said[visible])
        return latents


class StyleEncoder(nn.Module):
    """Latents and theory of a stretch to a Gaussian for each level of style."""

    def __init__(self, config: TatumFlowConfig) -> None:
        super().__init__()
        self._width = config.style_width
        self.input = nn.Linear(config.latent_width + THEORY_WIDTH, config.width)
        self.layers = _stack(config, 1)
        self.output = nn.Linear(2 * config.width, len(LEVELS) * 2 * config.style_width)

    def forward(self, latents: Tensor, theory: Tensor, visible: Tensor) -> StyleGaussian:
        """The style of latents [B, F, L] with their theory [B, F, 384], in frames that are visible, bool [B, F]."""
        x = self.layers(self.input(torch.cat([latents, theory], -1)), visible=visible)
        weight = visible[..., None] / visible.sum(1)[:, None, None].clamp(min=1)
        mean = (x * weight).sum(1)
        spread = ((x - mean[:, None]).square() * weight).sum(1).clamp(min=1e-6).sqrt()
        said = self.output(torch.cat([mean, spread], -1)).float()
        mean, log_variance = said.unflatten(-1, (len(LEVELS), 2, self._width)).unbind(2)
        return StyleGaussian(mean, log_variance.clamp(-8.0, 4.0))


class Denoiser(nn.Module):
    """Noisy latents and a wish to what the schedule predicts.

    Attributes:
        checkpoints_gradients: as that of a `Transformer`.
    """

    time: Tensor

    def __init__(self, config: TatumFlowConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("time", sinusoids(config.diffusion_steps + 1, width), persistent=False)
        self.time_layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.input = nn.Linear(config.latent_width, width)
        self.theory = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(WIDTHS[name], width), nn.SiLU(), nn.Linear(width, width))
                for name in FACTORS
            }
        )
        self.no_theory = nn.Parameter(torch.zeros(len(FACTORS), width))
        self.style = _style_inputs(config)
        self.no_style = nn.Parameter(torch.zeros(len(LEVELS), width))
        self.modulation = nn.Linear(width, _MODULATIONS * width)
        self.modulation_of_layer = nn.Parameter(torch.zeros(config.diffusion_layers, _MODULATIONS, width))
        self.scales = TimeScales(width // config.heads, config.scales)
        self.layers = nn.ModuleList(
            MultiScaleBlock(width, config.heads, config.hidden, config.scales, dropout=config.dropout)
            for _ in range(config.diffusion_layers)
        )
        self.norm = nn.RMSNorm(width)
        self.output = nn.Linear(width, config.latent_width)
        self.checkpoints_gradients = False
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, noisy: Tensor, step: Tensor, wish: Wish, visible: Tensor) -> Tensor:
        """The prediction, float [B, F, L], of latents [B, F, L] after `step` steps of noise, int64 [B]."""
        style = _style_said(Style(wish.style, wish.knows_style), self.style, self.no_style)
        x = self.input(noisy) + self._theory(wish) + style[:, None]
        when = functional.silu(self.time_layers(self.time[step]) + style)
        shared = self.modulation(when).unflatten(-1, (_MODULATIONS, -1))  # [B, 6, D]
        scales = self.scales(x, visible)
        recomputes = self.checkpoints_gradients and self.training and torch.is_grad_enabled()
        for layer, own in zip(self.layers, self.modulation_of_layer, strict=True):
            run = partial(checkpoint, layer, use_reentrant=False) if recomputes else layer
            x = run(x, shared + own, scales)
        return self.output(self.norm(x)).float()

    def _theory(self, wish: Wish) -> Tensor:
        """float [B, F, D]."""
        total = torch.zeros((), device=wish.theory.device)
        parts = wish.theory.split([WIDTHS[name] for name in FACTORS], -1)
        for number, (name, part) in enumerate(zip(FACTORS, parts, strict=True)):
            known = self.theory[name](part)
            total = total + torch.where(wish.knows_theory[:, number, None, None], known, self.no_theory[number])
        return total


class TokenDecoder(nn.Module):
    """Latents to ids, one after the other, in a style that is told: what latents leave open is written as it has it."""

    def __init__(self, config: TatumFlowConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self._ticks = config.frame_ticks
        self.tokens = tokens
        self.phase = nn.Embedding(config.frame_ticks, config.width)
        self.input = nn.Linear(config.latent_width, config.width)
        self.style = _style_inputs(config)
        self.no_style = nn.Parameter(torch.zeros(len(LEVELS), config.width))
        self.frame_layers = _stack(config, config.frame_layers)
        self.keys = nn.Linear(2 * _KEYS, config.width, bias=False)
        nn.init.normal_(self.keys.weight, std=0.3)  # few of them are pressed at a time
        self.now = nn.Linear(config.width, config.width, bias=False)
        self.next = nn.Linear(config.width, config.width, bias=False)
        self.layers = _stack(config, config.decoder_layers)

    def read(self, latents: Tensor, visible: Tensor, style: Style) -> Tensor:
        """What each frame says to the decoder, float [B, F, D], of latents [B, F, L]; from the last on, that one."""
        told = _style_said(style, self.style, self.no_style)
        read = self.frame_layers(self.input(latents) + told[:, None], visible=visible)
        following = functional.pad(self.next(read * visible[..., None]), (0, 0, 0, 1))[:, 1:]
        said = self.now(read) + following
        place = torch.arange(said.shape[1], device=said.device).minimum((visible.sum(1, keepdim=True) - 1).clamp(min=0))
        return _taken(said, place)

    def forward(
        self,
        steps: Steps,
        keys: Tensor,
        read: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Write on.

        Args:
            steps: the ids so far, or those after what a cache holds.
            keys: float [B, T, 256], of `keys_of`.
            read: float [B, F, D], of `read`.
            cache: of `layers`, begun.
            positions: int64 [B, T], of the cache.

        Returns:
            Logits of the id after each, float [B, T, V].
        """
        place = (steps.ticks // self._ticks).clamp(max=read.shape[1] - 1)
        x = self.tokens(steps.ids) * self.tokens.embedding_dim**0.5 + self.phase(steps.ticks % self._ticks)
        x = x + _taken(read, place) + self.keys(keys)
        x = self.layers(x, is_causal=cache is None, cache=cache, positions=positions)
        return functional.linear(x, self.tokens.weight).float()


class Critics(nn.Module):
    """Two that judge latents in training.

    One reads theory off them; asked about latents that were denoised under theory of which one factor came from another
    piece, it tells whether that factor came and the others stayed. The other tries to tell which factor was exchanged,
    from how unlike music the latents are; the denoiser learns to give it nothing to go by (gradient reversal, Ganin and
    Lempitsky, 2015).
    """

    def __init__(self, config: TatumFlowConfig) -> None:
        super().__init__()
        width = config.width // 2
        self.reader = nn.Sequential(
            nn.Conv1d(config.latent_width, 2 * config.width, _READER_FRAMES, padding=_READER_FRAMES // 2),
            nn.SiLU(),
            nn.Conv1d(2 * config.width, THEORY_WIDTH, 1),
        )
        self.looker = nn.Sequential(nn.Linear(config.latent_width + THEORY_WIDTH, width), nn.SiLU())
        self.suspicion = nn.Linear(width, len(FACTORS) + 1)

    def read(self, latents: Tensor, visible: Tensor, *, is_taught: bool) -> Tensor:
        """Theory, float [B, F, 384], of latents [B, F, L]; one that is not taught keeps its weights from gradients."""
        latents = latents * visible[..., None]
        weights: dict[str, Tensor] = dict(self.reader.named_parameters())
        if not is_taught:
            weights = {name: weight.detach() for name, weight in weights.items()}
        read: Tensor = functional_call(self.reader, weights, (latents.transpose(1, 2),))
        return read.transpose(1, 2).float()

    def suspect(self, latents: Tensor, theory: Tensor, visible: Tensor) -> Tensor:
        """Logits, float [B, 5], of which factor of a theory [B, F, 384] is not the latents' own; the last is none."""
        reversed_latents: Tensor = _Reversal.apply(latents)
        seen = self.looker(torch.cat([reversed_latents, theory], -1)) * visible[..., None]
        mean = seen.sum(1) / visible.sum(1)[:, None].clamp(min=1)
        said: Tensor = self.suspicion(mean).float()
        return said


class _Reversal(torch.autograd.Function):
    """The input itself, and its gradient turned round."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -gradient


def _stack(config: TatumFlowConfig, layers: int) -> Transformer:
    return build_transformer(
        layers,
        config.width,
        config.heads,
        config.hidden,
        dropout=config.dropout,
        rotary=Rotary(config.width // config.heads),
    )


def _style_inputs(config: TatumFlowConfig) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(config.style_width, config.width) for name in LEVELS})


def _style_said(style: Style, inputs: nn.ModuleDict, unknown: Tensor) -> Tensor:
    """A style as float [B, D], given a layer and a vector, in its place, for each level."""
    total = torch.zeros((), device=style.values.device)
    for number, name in enumerate(LEVELS):
        known = inputs[name](style.values[:, number])
        total = total + torch.where(style.is_known[:, number, None], known, unknown[number])
    return total


def _taken(frames: Tensor, place: Tensor) -> Tensor:
    """Frames, float [B, F, D], at places int64 [B, T]: float [B, T, D]."""
    return frames.gather(1, place[..., None].expand(-1, -1, frames.shape[-1]))
