"""Gaussian diffusion: how noise comes in level by level, what a net predicts of it, and how samplers take it out.

A level t runs from 0, the data, to `steps`, all but pure noise: x_t = signal_t x_0 + spread_t n, where n is standard
normal and the squares of the two factors, alpha-bar and 1 - alpha-bar, add up to one (Ho et al., 2020, equation 4).
Schedules: Ho et al. (linear), Nichol and Dhariwal (2021, cosine). Samplers: Ho et al. (DDPM) and Song et al. (2021,
DDIM) on any evenly spaced levels; started half way from a noised source they edit it (Meng et al., 2022, SDEdit).
Guidance: Ho and Salimans (2022).

Nothing here knows a net, a shape or a condition: a denoiser is a function of noisy data and their levels.

The last level keeps some signal: 0.6 % of the amplitude in the linear schedule, 0.005 % in the cosine one. Chains
begin with pure noise all the same, and with the net told the last level. For predictions "v" (Salimans and Ho, 2022)
this is harmless, since both conversions are free of divisions. The data that a prediction of the noise stands for are
divided by the signal, which at the end of the cosine schedule would blow up a net's smallest error 20,000 times: chains
over such predictions begin at the last level that has SIGNAL_MIN of signal, four short of the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

ScheduleKind = Literal["linear", "cosine"]
Prediction = Literal["v", "noise"]
SamplerKind = Literal["ddpm", "ddim"]
Generators = torch.Generator | Sequence[torch.Generator]
Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy data, float [B, ...], and their levels, int64 [B], to the net's prediction, float [B, ...]."""

BETA_MAX = 0.999
SIGNAL_MIN = 0.005


class Estimate(NamedTuple):
    """What a prediction says of noisy data, float [B, ...] each: the data and the noise in them."""

    x0: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Sampler:
    """A way from noise to data.

    Attributes:
        kind: "ddim" adds `eta` times the noise that "ddpm" adds in each step; DDPM is DDIM at an eta of 1.
        steps: evaluations of the net.
        eta: of DDIM, 0 (a fixed map of the first noise to the data) to 1.
    """

    kind: SamplerKind = "ddim"
    steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(SamplerKind):
            raise ValueError(f"no sampler {self.kind!r}; there are {', '.join(get_args(SamplerKind))}")
        if self.steps < 1:
            raise ValueError(f"a sampler takes at least one step, not {self.steps}")
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}, not in 0..1")

    @property
    def noise_share(self) -> float:
        """Eta, whichever the kind."""
        return 1.0 if self.kind == "ddpm" else self.eta


class NoiseSchedule:
    """How much signal and noise there is at each level, and what follows from it.

    Args:
        kind: "linear" or "cosine".
        steps: the last level; the linear schedule's betas are Ho et al.'s at 1000, and have the same sum at others.
        prediction: what the net gives, "v" or "noise".

    Attributes:
        alpha_bar: float64 [steps + 1] on the CPU, from 1 at level 0 downwards.
    """

    def __init__(self, kind: ScheduleKind = "cosine", steps: int = 1000, *, prediction: Prediction = "v") -> None:
        if kind not in get_args(ScheduleKind):
            raise ValueError(f"no noise schedule {kind!r}; there are {', '.join(get_args(ScheduleKind))}")
        if prediction not in get_args(Prediction):
            raise ValueError(f"no prediction {prediction!r}; there are {', '.join(get_args(Prediction))}")
        betas = _linear_betas(steps) if kind == "linear" else _cosine_betas(steps)
        kept = torch.cat([torch.ones(1, dtype=torch.float64), 1.0 - betas.clamp(max=BETA_MAX)])
        self.steps = steps
        self.prediction = prediction
        self.alpha_bar = kept.cumprod(0)
        self._signal = self.alpha_bar.sqrt()
        self._spread = (1.0 - self.alpha_bar).sqrt()

    @property
    def level_max(self) -> int:
        """The level that chains over this kind of prediction begin at."""
        if self.prediction == "v":
            return self.steps
        return int((self._signal >= SIGNAL_MIN).sum()) - 1

    def draw_levels(self, rows: int, generator: torch.Generator) -> Tensor:
        """Levels to train at, int64 [rows], uniform in 1..steps, on the generator's device."""
        return torch.randint(1, self.steps + 1, (rows,), generator=generator, device=generator.device)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Data at a level of noise.

        Args:
            x0: float [B, ...].
            noise: standard normal, float [B, ...].
            t: levels, int64 [B].

        Returns:
            float [B, ...].
        """
        signal, spread = self._factors(x0, t)
        return signal * x0 + spread * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a net is to predict of `add_noise(x0, noise, t)`; arguments and result as there."""
        if self.prediction == "noise":
            return noise
        signal, spread = self._factors(x0, t)
        return signal * noise - spread * x0

    def estimate(self, x: Tensor, prediction: Tensor, t: Tensor) -> Estimate:
        """The data and the noise that a prediction stands for.

        Args:
            x: noisy data, float [B, ...].
            prediction: float [B, ...].
            t: levels, int64 [B], none of them 0 for predictions of noise to tell anything.

        Returns:
            float [B, ...] each.
        """
        signal, spread = self._factors(x, t)
        if self.prediction == "noise":
            return Estimate((x - spread * prediction) / signal, prediction)
        return Estimate(signal * x - spread * prediction, spread * x + signal * prediction)

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        source: Tensor,
        generator: Generators,
        *,
        strength: float = 1.0,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """Draw data, anew or as a variation of a source.

        All of the sampler's steps go to the levels from the start downwards, evenly spaced; where there are fewer
        levels than steps, each has one. The last step gives the data that the last prediction stands for, unclipped.

        Args:
            denoise: the net, with its conditions and guidance in it; it runs without gradients.
            source: float [B, ...], what is edited. At strength 1 only its shape, type and device count.
            generator: one for all, or one for each row, whose result then does not depend on the rest of the batch (as
                long as all batches are padded to the same length: a row draws for its padding too).
            strength: 0 gives the source back as it is, 1 begins with pure noise, and between them the source is noised
                to the level round(strength * steps).
            sampler: by default 50 steps of DDIM without added noise.

        Returns:
            float [B, ...].
        """
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength is {strength}, not in 0..1")
        sampler = sampler or Sampler()
        level = min(round(strength * self.steps), self.level_max)
        if level == 0:
            return source.clone()
        x = _standard_normal(source, generator)
        if level < self.level_max:
            x = self.add_noise(source, x, _everywhere(level, source))
        for now, after in pairwise(_evenly_spaced(level, sampler.steps)):
            t = _everywhere(now, x)
            estimate = self.estimate(x, denoise(x, t).to(x.dtype), t)
            x = self._step(estimate, now, after, sampler.noise_share, generator)
        return x

    def strength_keeping(self, amplitude: float) -> float:
        """The strength of `sample` that leaves a source this share of its amplitude, 0 to 1, or less by a level.

        Equal steps of it take equal shares of the source whatever the schedule, which equal steps of level do not.
        """
        return min(int((self._signal > amplitude).sum()), self.steps) / self.steps

    def _step(self, estimate: Estimate, now: int, after: int, noise_share: float, generator: Generators) -> Tensor:
        """Song et al., equations 12 and 16: data at level `after` from what is known of them at level `now`."""
        kept_now, kept_after = float(self.alpha_bar[now]), float(self.alpha_bar[after])
        fresh = noise_share**2 * (1.0 - kept_after) / (1.0 - kept_now) * (1.0 - kept_now / kept_after)  # a variance
        x = math.sqrt(kept_after) * estimate.x0 + math.sqrt(max(0.0, 1.0 - kept_after - fresh)) * estimate.noise
        return x + math.sqrt(fresh) * _standard_normal(x, generator) if fresh > 0.0 else x

    def _factors(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise at levels t, int64 [B], each [B, 1, ...] as x is [B, ...]."""
        shape = (len(t),) + (1,) * (x.dim() - 1)
        signal, spread = (table.to(x.dtype).to(t.device)[t].view(shape) for table in (self._signal, self._spread))
        return signal, spread


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of one step's predictions, of either kind, float [B, ...].

    A scale of 0 gives the unconditional one, 1 the conditional one, both as they are, and more goes beyond it; Ho and
    Salimans's w is scale - 1.
    """
    return torch.lerp(unconditional, conditional, scale)


def guided_by_each(base: Tensor, conditionals: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """Guidance by several conditions, each with a scale of its own (Brooks et al., 2023, equation 3).

    Args:
        base: the prediction without conditions, float [B, ...].
        conditionals: predictions with the first condition, with the first two, and so on, float [B, ...] each.
        scales: one for each condition.

    Returns:
        float [B, ...]: base + the sum of scale_i (conditional_i - the one before it).
    """
    result = base
    for (before, conditional), scale in zip(pairwise([base, *conditionals]), scales, strict=True):
        result = result + scale * (conditional - before)
    return result


def _linear_betas(steps: int) -> Tensor:
    """Ho et al., section 4, float64 [steps], scaled to the same sum."""
    return torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)


def _cosine_betas(steps: int, offset: float = 0.008) -> Tensor:
    """Nichol and Dhariwal, equation 17, float64 [steps]."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((time + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return 1.0 - kept[1:] / kept[:-1]


def _evenly_spaced(level: int, steps: int) -> list[int]:
    """Levels from `level` down to 0, at most steps + 1 of them and none twice."""
    count = min(level, steps)
    return [level * k // count for k in range(count, -1, -1)]


def _everywhere(level: int, x: Tensor) -> Tensor:
    """The level of each row of x, int64 [B]."""
    return torch.full((len(x),), level, dtype=torch.int64, device=x.device)


def _standard_normal(like: Tensor, generator: Generators) -> Tensor:
    """Normal numbers of the shape, type and device of a tensor, drawn where the generator is."""
    if isinstance(generator, torch.Generator):
        drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    else:
        if len(generator) != len(like):
            raise ValueError(f"{len(generator)} generators for {len(like)} rows")
        rows = [torch.randn(like.shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in generator]
        drawn = torch.stack(rows)
    return drawn.to(like.device)
