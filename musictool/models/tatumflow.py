"""TatumFlow: notes to notes in another style, by diffusion over one latent a quarter of a second.

An encoder reads `tatum` ids and leaves one latent for each frame of time. A denoiser moves such latents towards a
style, told by a Gaussian for each of three levels (genre, artist, piece), and towards music theory that is measured for
each frame, any factor of which may be left open. A decoder writes ids again, one after the other, and is told the
style, too; it always sees the latents of the moment it has come to, so that music and latents cannot drift apart.
Attention over frames runs at 1x, 2x and 4x time (`core.multiscale`). Latent diffusion after Rombach et al. (2022),
guidance after Ho and Salimans (2022).

Where the published description leaves it open or did not hold: latents stand on a grid of time and not of tokens, so
that theory, style and source compare frame by frame; they are normalised instead of drawn, and the decoder learns to
bear noise on them. Knows nothing of files, nor what an id means beyond its time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from musictool.core.noise_schedule import NoiseSchedule, Sampler, guided_by_each
from musictool.models.tatumflow_parts import (
    LEVELS,
    Critics,
    Denoiser,
    Steps,
    Style,
    StyleEncoder,
    StyleGaussian,
    TatumFlowConfig,
    TokenDecoder,
    TokenEncoder,
    Wish,
    keys_of,
)
from musictool.symbolic.theory import FACTORS, WIDTHS

__all__ = ["NO_FACTOR", "Draws", "Lesson", "Outcome", "TatumFlow", "TatumFlowConfig", "Way", "swapped"]

NO_FACTOR = len(FACTORS)


class Lesson(NamedTuple):
    """A batch to learn from.

    Attributes:
        seen: ids that the encoder reads, perhaps corrupted.
        told: ids that the decoder writes, behind the start id.
        visible: bool [B, F], frames that the window has.
        theory: float [B, F, 384], of the notes before any corruption.
        genre: int64 [B].
    """

    seen: Steps
    told: Steps
    visible: Tensor
    theory: Tensor
    genre: Tensor


class Draws(NamedTuple):
    """All that is random in a pass, but for dropout.

    Attributes:
        latent_noise: float [B, F, L], added to what the decoder reads.
        hidden: bool [B, T], ids that the decoder does not see.
        style_noise: float [B, 3, W].
        uses_prior: bool [B], whether the genre is its prior's mean instead of what is heard.
        step, noise: int64 [R * B] and float [R * B, F, L], of the diffusion, which sees each row R times.
        knows_style, knows_theory: bool [R * B, 3] and [R * B, 4].
        donor: int64 [B], the row whose theory a row takes a factor of.
        factor: int64 [B], which; 4 for none.
        swap_step, swap_noise: int64 [B] and float [B, F, L].
    """

    latent_noise: Tensor
    hidden: Tensor
    style_noise: Tensor
    uses_prior: Tensor
    step: Tensor
    noise: Tensor
    knows_style: Tensor
    knows_theory: Tensor
    donor: Tensor
    factor: Tensor
    swap_step: Tensor
    swap_noise: Tensor


class Outcome(NamedTuple):
    """What comes of a pass.

    Attributes:
        logits: float [B, T, V], of the id after each that the decoder was told.
        latents: float [B, F, L], of the encoder.
        style: what the style encoder hears.
        off_prior: float [B, 3, W], the style's mean less that of its prior, which is 0 but for a genre's.
        genre: float [B, styles], logits of the genre by how near its prior is to what is heard.
        prediction, target: float [R * B, F, L], of the denoiser.
        theory_read: float [B, F, 384], off latents of the encoder.
        swapped_theory, swapped_read: float [B, F, 384], what the denoiser was given, and what is read off its latents.
        suspicion: float [B, 5], logits of which factor was exchanged.
    """

    logits: Tensor
    latents: Tensor
    style: StyleGaussian
    off_prior: Tensor
    genre: Tensor
    prediction: Tensor
    target: Tensor
    theory_read: Tensor
    swapped_theory: Tensor
    swapped_read: Tensor
    suspicion: Tensor


class Way(NamedTuple):
    """How latents are carried to where a wish leads.

    Attributes:
        strength: the share of their amplitude that gives way to noise.
        sampler: of the diffusion.
        theory_guidance, style_guidance: how far what is told of theory leads away from nothing, and of style from
            theory alone; 1 is as it was learned.
    """

    strength: float
    sampler: Sampler
    theory_guidance: float
    style_guidance: float


def swapped(theory: Tensor, donor: Tensor, factor: Tensor) -> Tensor:
    """Theory.

    Args:
        theory: float [B, F, 384].
        donor: int64 [B], rows.
        factor: int64 [B], numbers of factors; 4 for none.

    Returns:
        A copy in which row b has factor[b] of row donor[b].
    """
    parts = theory.split([WIDTHS[name] for name in FACTORS], -1)
    takes = [(factor == number)[:, None, None] for number in range(len(FACTORS))]
    return torch.cat([torch.where(take, part[donor], part) for take, part in zip(takes, parts, strict=True)], -1)


class TatumFlow(nn.Module):
    """The model.

    Args:
        config: its numbers.
    """

    def __init__(self, config: TatumFlowConfig) -> None:
        super().__init__()
        self.config = config
        tokens = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(tokens.weight, std=config.width**-0.5)
        self.encoder = TokenEncoder(config, tokens)
        self.decoder = TokenDecoder(config, tokens)
        self.style_encoder = StyleEncoder(config)
        self.style_priors = nn.Parameter(torch.randn(len(config.styles), config.style_width))
        self.denoiser = Denoiser(config)
        self.critics = Critics(config)
        self.schedule = NoiseSchedule(config.schedule, config.diffusion_steps, prediction=config.prediction)

    def style_named(self, weights: Tensor) -> Style:
        """The style of named genres mixed, of one row; it knows the genre's level alone.

        Args:
            weights: float [styles], of each genre; they sum to 1.
        """
        style = self.style_priors.new_zeros(1, len(LEVELS), self.config.style_width)
        style[0, 0] = weights @ self.style_priors
        return Style(style, torch.tensor([[True, False, False]], device=style.device))

    def forward(self, lesson: Lesson, draws: Draws) -> Outcome:
        """One pass of everything, for training.

        Gradients of the denoiser and of the style encoder end at the latents: what a latent says is the autoencoder's
        and the reader's to choose, or the denoiser would make latents that say nothing.
        """
        latents = self.encoder(lesson.seen, lesson.visible)
        still = latents.detach()
        style = self.style_encoder(still, lesson.theory, lesson.visible)
        off_prior = torch.cat([style.mean[:, :1] - self.style_priors[lesson.genre, None], style.mean[:, 1:]], 1)
        genre = -0.5 * (style.mean[:, :1] - self.style_priors).square().sum(-1)  # [B, styles]
        wish = self._wish(lesson, style, draws)
        logits = self.tell(lesson, latents + draws.latent_noise, wish, draws)
        target, prediction = self._denoise(still, wish, draws, lesson.visible)
        theory, denoised = self._swap(still, wish, draws, lesson.visible)
        return Outcome(
            logits=logits,
            latents=latents,
            style=style,
            off_prior=off_prior,
            genre=genre,
            prediction=prediction,
            target=target,
            theory_read=self.critics.read(latents, lesson.visible, is_taught=True),
            swapped_theory=theory,
            swapped_read=self.critics.read(denoised, lesson.visible, is_taught=False),
            suspicion=self.critics.suspect(denoised, theory, lesson.visible),
        )

    @torch.no_grad()
    def carry(
        self,
        source: Tensor,
        visible: Tensor,
        wish: Wish,
        way: Way,
        generator: torch.Generator,
        held: Tensor | None = None,
    ) -> Tensor:
        """Noise latents and denoise them towards a wish, with guidance by theory and by style (Brooks et al., 2023).

        Args:
            source: float [B, F, L].
            visible: bool [B, F].
            wish: of B rows; what no row is told leads nowhere.
            way: how.
            generator: of the noise.
            held: float [B, H, L], what the first H frames are to be, and the denoiser is to go on from.

        Returns:
            float [B, F, L].
        """
        no_style, no_theory = torch.zeros_like(wish.knows_style), torch.zeros_like(wish.knows_theory)
        told, scales = [(no_style, no_theory)], []
        if wish.knows_theory.any():
            told.append((no_style, wish.knows_theory))
            scales.append(way.theory_guidance)
        if wish.knows_style.any():
            told.append((wish.knows_style, wish.knows_theory))
            scales.append(way.style_guidance)
        knows_style, knows_theory = (torch.cat(column) for column in zip(*told, strict=True))
        times = len(told)
        wishes = Wish(wish.style.repeat(times, 1, 1), knows_style, wish.theory.repeat(times, 1, 1), knows_theory)
        all_visible = visible.repeat(times, 1)
        held = source[:, :0] if held is None else held
        count = held.shape[1]
        noise = torch.randn(held.shape, generator=generator, device=generator.device).to(held)

        def denoise(noisy: Tensor, level: Tensor) -> Tensor:
            if count:
                noisy = torch.cat([self.schedule.add_noise(held, noise, level), noisy[:, count:]], 1)
            said = self.denoiser(noisy.repeat(times, 1, 1), level.repeat(times), wishes, all_visible)
            base, *conditional = said.chunk(times)
            return guided_by_each(base, conditional, scales)

        strength = self.schedule.strength_keeping(1 - way.strength)
        made = self.schedule.sample(denoise, source, generator, strength=strength, sampler=way.sampler)
        return torch.cat([held, made[:, count:]], 1)

    @torch.no_grad()
    def read(self, lesson: Lesson, draws: Draws) -> tuple[Tensor, Wish]:
        """A lesson's latents, float [B, F, L], and what the denoiser is told of it, without gradients."""
        latents = self.encoder(lesson.seen, lesson.visible)
        return latents, self._wish(lesson, self.style_encoder(latents, lesson.theory, lesson.visible), draws)

    @torch.no_grad()
    def denoise_at_once(self, latents: Tensor, wish: Wish, draws: Draws, visible: Tensor) -> Tensor:
        """Latents noised to their steps, and their mean given what is left of them and the wish, float [B, F, L].

        Rows at step 0 stay as they are. `draws` are of one repeat.
        """
        noisy = self.schedule.add_noise(latents, draws.noise, draws.step)
        return self.schedule.estimate(noisy, self.denoiser(noisy, draws.step, wish, visible), draws.step).x0

    def tell(self, lesson: Lesson, latents: Tensor, wish: Wish, draws: Draws) -> Tensor:
        """The decoder's logits, float [B, T, V]; the ids that are hidden from it are. It does not say what style is."""
        told = lesson.told._replace(ids=lesson.told.ids.masked_fill(draws.hidden, self.config.pad_id))
        rows = len(latents)
        read = self.decoder.read(latents, lesson.visible, Style(wish.style[:rows].detach(), wish.knows_style[:rows]))
        logits: Tensor = self.decoder(told, keys_of(lesson.told, self.config), read)
        return logits

    def _wish(self, lesson: Lesson, style: StyleGaussian, draws: Draws) -> Wish:
        """What the denoiser is told of each row, R times."""
        drawn = style.draw(draws.style_noise)
        prior = self.style_priors[lesson.genre]
        genre = torch.where(draws.uses_prior[:, None], prior, drawn[:, 0])
        drawn = torch.cat([genre[:, None], drawn[:, 1:]], 1)
        repeats = len(draws.step) // len(drawn)
        return Wish(
            drawn.repeat(repeats, 1, 1), draws.knows_style, lesson.theory.repeat(repeats, 1, 1), draws.knows_theory
        )

    def _denoise(self, latents: Tensor, wish: Wish, draws: Draws, visible: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser should say, and says; float [R * B, F, L] each."""
        repeats = len(draws.step) // len(latents)
        many = latents.repeat(repeats, 1, 1)
        noisy = self.schedule.add_noise(many, draws.noise, draws.step)
        target = self.schedule.target(many, draws.noise, draws.step)
        return target, self.denoiser(noisy, draws.step, wish, visible.repeat(repeats, 1))

    def _swap(self, latents: Tensor, wish: Wish, draws: Draws, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Theory with a factor exchanged, and latents denoised under it, all of it given and no style."""
        rows = len(latents)
        theory = swapped(wish.theory[:rows], draws.donor, draws.factor)
        other = Wish(
            wish.style[:rows],
            torch.zeros_like(draws.knows_style[:rows]),
            theory,
            torch.ones_like(draws.knows_theory[:rows]),
        )
        noisy = self.schedule.add_noise(latents, draws.swap_noise, draws.swap_step)
        prediction = self.denoiser(noisy, draws.swap_step, other, visible)
        return theory, self.schedule.estimate(noisy, prediction, draws.swap_step).x0
