"""Learning to write what the denoiser makes: TatumFlow's decoder alone, on latents that are not a piece's own.

What the denoiser makes of noise is near what the encoder says of music, and not the same: it is blurred where it can't
know. A decoder that has read latents of music alone follows the blur. Here it reads latents that were noised and
denoised at once, told their style and some of their theory, and is to write the example all the same: what they leave
open it learns to fill in as the style has it, as cascades do between pictures of two sizes (Ho et al., 2022, section
3). All weights but the decoder's stay as they are, those of the embedding of ids, which the encoder reads by, among
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.models.tatumflow import Draws, Lesson, TatumFlow
from musictool.training.tasks.tatumflow import NO_ID, Odds, StyleTransfer, StyleTransferLoss, draw_for, lesson_of

_LEVELS = (0.0, 0.5, 0.8)  # of noise, at which held-out windows are looked at


@dataclass(frozen=True)
class StyleWritingLoss:
    """What the decoder reads.

    Attributes:
        denoised_share: of examples that are denoised; others are as the encoder has them.
        noise: the least and the most noise that those are made of, as shares of the diffusion's steps.
        odds: of what is drawn, but for the exchange of factors.
    """

    denoised_share: float = 0.7
    noise: tuple[float, float] = (0.3, 1.0)
    odds: Odds = field(default_factory=Odds)

    def __post_init__(self) -> None:
        if not 0 <= self.denoised_share <= 1:
            raise ValueError("denoised_share is from 0 to 1")
        if not 0 <= self.noise[0] <= self.noise[1] <= 1:
            raise ValueError("noise is a least and a most, from 0 to 1")


class DecoderTraining(nn.Module):
    """A TatumFlow of which the decoder learns.

    Args:
        model: all of its weights but the decoder's are kept as they are.
    """

    def __init__(self, model: TatumFlow) -> None:
        super().__init__()
        model.requires_grad_(False)
        model.decoder.requires_grad_(True)
        model.decoder.tokens.requires_grad_(False)
        self.model = model

    def forward(self, lesson: Lesson, draws: Draws) -> Tensor:
        """Logits, float [B, T, V], of the id after each that the decoder was told; `draws` are of one repeat."""
        model = self.model.eval()  # the encoder's norm is not to learn, either
        latents, wish = model.read(lesson, draws)
        made = model.denoise_at_once(latents, wish, draws, lesson.visible)
        return model.tell(lesson, made + draws.latent_noise, wish, draws)


class StyleWriting(StyleTransfer):
    """The task; arguments and data as of `style-transfer`."""

    loss_class: ClassVar[type] = StyleWritingLoss

    def accompanied(self, model: nn.Module, *, is_fresh: bool) -> DecoderTraining:
        """The model, of which the decoder learns."""
        assert isinstance(model, TatumFlow)
        return DecoderTraining(model)

    def loss(self, model: nn.Module, batch: dict[str, Tensor], loss: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """How far the decoder is from writing a batch's ids, a scalar, and the same under its name."""
        lesson = lesson_of(batch)
        draws = draw_for(lesson, self._config, StyleTransferLoss(repeats=1, odds=loss.odds))
        least, most = (max(1, round(share * self._config.diffusion_steps)) for share in loss.noise)
        level = torch.randint(least, most + 1, draws.step.shape, device=draws.step.device)
        is_denoised = torch.rand(level.shape, device=level.device) < loss.denoised_share
        writing = _writing(model(lesson, draws._replace(step=torch.where(is_denoised, level, 0))), batch)
        return writing, {"writing": writing.detach()}

    def _judge(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, float]:
        """The loss where latents are the music's own and where they are denoised, and their mean."""
        tatumflow = cast(TatumFlow, model)
        lesson = lesson_of(batch)
        odds = Odds(hides_token=0.0, drops_style=0.0, drops_all=0.0, drops_factor=0.0, uses_prior=1.0)
        draws = draw_for(lesson, self._config, StyleTransferLoss(repeats=1, odds=odds))
        latents, wish = tatumflow.read(lesson, draws)
        figures = {}
        for share in _LEVELS:
            level = torch.full_like(draws.step, round(share * self._config.diffusion_steps))
            made = tatumflow.denoise_at_once(latents, wish, draws._replace(step=level), lesson.visible)
            logits = tatumflow.tell(lesson, made + draws.latent_noise, wish, draws)
            figures[f"writing_{round(100 * share)}"] = float(_writing(logits, batch))
        return {"loss": sum(figures.values()) / len(figures), **figures}


def _writing(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """How far logits are from a batch's ids, a scalar."""
    return functional.cross_entropy(logits.flatten(0, 1), batch["goal"].flatten(), ignore_index=NO_ID)
