"""Notes in another style: a piano's part through TatumFlow and back.

The part is read in windows that overlap. Each is encoded, its latents are noised as far as `strength` says, and
denoised towards the style, with theory given: the source's for what is kept, another piece's for what is borrowed. The
frames that a window shares with the one before are held at what that one made of them, so that the denoiser goes on in
its middle; then windows are written out, many at once, and in the end their notes are brought to the theory that was
given. Draws depend on the part and the seed alone. Memory is that of a few windows and of the piece's notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from musictool.checkpoints.store import Store
from musictool.core.noise_schedule import Sampler
from musictool.errors import InputError, UsageError
from musictool.inference.model_files import load_model
from musictool.inference.piano_parts import PIANOS, PianoPart, Window, joined, looped, moved, thinned, windows_of
from musictool.inference.piano_writing import write_windows
from musictool.inference.precision import find_device, make_ready
from musictool.inference.sampling import Sampling
from musictool.inference.transfer_options import CHORDS, Transfer, check_keepable, nearest_hint
from musictool.models.tatumflow import TatumFlow, Way
from musictool.models.tatumflow_parts import LEVELS, Steps, Style, Wish
from musictool.symbolic.chords import Chord, chords_of, qualities_of
from musictool.symbolic.holding import held
from musictool.symbolic.lead_sheet import lead_sheet
from musictool.symbolic.notes import Score
from musictool.symbolic.piano_ids import FRAME_TICKS, TICKS_PER_SECOND, Piano, ticks_of_ids
from musictool.symbolic.theory import FACTORS, WIDTHS, theory_frames

__all__ = ["DEFAULT_MODEL", "PIANOS", "StyleTransfer", "Target", "Transfer", "load_transfer_model"]

DEFAULT_MODEL = "tatumflow"
OVERLAP_SHARE, MARGIN_SHARE = 3 / 16, 1 / 8  # of the longest window's frames
WINDOWS_AT_ONCE = 16
_NOISE, _IDS = range(2)  # what is drawn for


class Target(NamedTuple):
    """Where to carry a piece.

    Attributes:
        style: of one row.
        qualities: of the chords that it plays; any where there are none.
    """

    style: Style
    qualities: frozenset[str] = frozenset()


class _Aim(NamedTuple):
    """Where a part is to go.

    Attributes:
        style: that it should have.
        knows: factors of theory that the model is told.
        given: those that are not the part's own, each with a part of the same length to take it of.
        wanted: those that what it writes is held to, each with the part to take it of: what is kept and borrowed, but
            for chords, which say no more than a lead sheet.
        borrowed: those of them that are another piece's.
    """

    style: Style
    knows: frozenset[str]
    given: Mapping[str, Piano]
    wanted: Mapping[str, Piano]
    borrowed: frozenset[str]


class TransferModel(NamedTuple):
    """A model ready to run, what it is called, and the sha256 of its weights."""

    model: TatumFlow
    name: str
    sha256: str


def load_transfer_model(
    name: str = DEFAULT_MODEL, device: str = "auto", *, store: Store | None = None
) -> TransferModel:
    """Load a model for `StyleTransfer`, and make what runs again and again fast.

    Args:
        name: a model's name, or the path of a folder in our own format.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: where models are; the process's own store by default.

    Raises:
        MissingError: there is no such model.
        ResourceError: the device is not there.
        UsageError: the model is none that carries notes over.
    """
    place = find_device(device)
    loaded = load_model(name, store=store)
    model = loaded.model
    if not isinstance(model, TatumFlow):
        raise UsageError(f"{name} is no model that transfers style", hint=f"use --model {DEFAULT_MODEL}")
    model.to(place)
    for part in (model.denoiser, model.decoder):
        make_ready(part, place)
    return TransferModel(model, loaded.name, loaded.sha256)


class StyleTransfer:
    """A model ready to carry notes over.

    Args:
        model: in evaluation mode, on its device.
        options: how.
    """

    def __init__(self, model: TatumFlow, options: Transfer) -> None:
        self._model = model
        self._config = model.config
        self._options = options
        self._device = model.style_priors.device
        self._way = Way(
            options.strength, Sampler("ddim", options.steps, options.eta), options.theory_guidance, options.guidance
        )
        self._sampling = Sampling(options.temperature, top_p=options.top_p, seed=options.seed)
        self._overlap = int(self._config.frames_max * OVERLAP_SHARE)
        self._margin = int(self._config.frames_max * MARGIN_SHARE)

    # ---------------------------------------------------------------------------------------------------------- styles

    @property
    def styles(self) -> tuple[str, ...]:
        """The names of those that the model was taught."""
        return self._config.styles

    @torch.inference_mode()
    def style_named(self, shares: Mapping[str, float]) -> Target:
        """The style of genres, mixed by shares, which are brought to a sum of 1, and the chords of all of them.

        Raises:
            UsageError: the model was not taught one of them, or the shares sum to nothing.
        """
        names = self.styles
        for name in shares:
            if name not in names:
                hint = nearest_hint(name, names, "the model knows") + "; a MIDI file is a style, too"
                raise UsageError(f"no such style: {name[:40]!r}", hint=hint)
        weights = torch.tensor([shares.get(name, 0.0) for name in names], device=self._device)
        if not (weights.isfinite() & (weights >= 0)).all() or not weights.sum() > 0:
            raise UsageError("the shares of a mix are 0 or more, and not all of them 0", hint="as in jazz=0.7,pop=0.3")
        played = [self._config.chords.get(name, ()) for name in names if shares.get(name)]
        qualities = frozenset(chain.from_iterable(played) if all(played) else ())
        return Target(self._model.style_named(weights / weights.sum()), qualities)

    def no_style(self) -> Target:
        """The style of nobody in particular, which leads nowhere."""
        known = torch.zeros(1, len(LEVELS), dtype=torch.bool, device=self._device)
        return Target(Style(torch.zeros(*known.shape, self._config.style_width, device=self._device), known))

    @torch.inference_mode()
    def style_of(self, scores: Iterable[Score]) -> Target:
        """The style of a piece, or of several together, at every level: the mean over their windows; and their chords.

        Raises:
            InputError: there is no note in them.
        """
        total, frames = torch.zeros((), device=self._device), 0
        chords: list[Chord] = []
        for score in scores:
            part = PianoPart.of(score, range(128))
            if part is None:
                continue
            chords += chords_of(part.piano.notes())
            for window in windows_of(part.piano, self._config.frames_max, self._config.tokens_max):
                latents, theory = self._read(part.piano, window)
                visible = torch.ones(latents.shape[:2], dtype=torch.bool, device=self._device)
                total = total + window.frames * self._model.style_encoder(latents, theory, visible).mean
                frames += window.frames
        if not frames:
            raise InputError("there is no note to learn a style from", code="no-notes")
        style = Style(total / frames, torch.ones(1, len(LEVELS), dtype=torch.bool, device=self._device))
        return Target(style, qualities_of(chords))

    # -------------------------------------------------------------------------------------------------------- transfer

    def run(
        self,
        score: Score,
        target: Target,
        *,
        donors: Mapping[str, Score] | None = None,
        programs: Collection[int] = PIANOS,
        advance: Callable[[float], None] = lambda seconds: None,
    ) -> Score:
        """Carry a piece over.

        Args:
            score: the piece; what is not of `programs`, and all drums, stays as it is.
            target: where to.
            donors: factors of theory, and pieces that they are borrowed of in place of the source's own, kept or not:
                what all instruments but drums play from the first note on, over and over if it is shorter.
            programs: whose notes are carried over, together, as one piano's part.
            advance: told how many seconds more are done.

        Returns:
            The piece with that part replaced; the very same at strength 0, or where there is nothing to replace.

        Raises:
            InputError: there is no note in a donor.
            UsageError: a donor is for no factor.
        """
        part = PianoPart.of(score, programs) if self._options.strength else None
        if part is None:
            return score
        aim = self._aim(part.piano, target, donors or {})
        made = held(joined(self._played(part.piano, aim, advance)), aim.wanted, aim.borrowed)
        return part.replaced(score, made.between(0, part.piano.end))

    def _aim(self, piano: Piano, target: Target, donors: Mapping[str, Score]) -> _Aim:
        """Where a part is to go, with all that is given in place of its own theory laid along it."""
        check_keepable(donors)
        total, first = -(-piano.end // FRAME_TICKS), int(piano.onset[0]) // FRAME_TICKS
        given = {}
        if CHORDS in self._options.keep and "harmony" not in self._options.keep:
            given["harmony"] = lead_sheet(piano, target.qualities)
        for name, score in donors.items():
            part = PianoPart.of(score, range(128))
            if part is None:
                raise InputError(f"there is no note to borrow {name} from", code="no-notes")
            donor = moved(looped(part.piano, total - first), first * FRAME_TICKS)
            given["harmony" if name == CHORDS else name] = lead_sheet(donor) if name == CHORDS else donor
        kept, borrowed = self._options.keep & set(FACTORS), donors.keys() & set(FACTORS)
        wanted = {name: given.get(name, piano) for name in kept | borrowed}
        if CHORDS in donors:
            wanted.pop("harmony", None)
        return _Aim(target.style, frozenset(kept | given.keys()), given, wanted, frozenset(borrowed))

    def _played(self, piano: Piano, aim: _Aim, advance: Callable[[float], None]) -> Iterator[tuple[Window, Piano]]:
        """What each window plays when it gets there."""
        draws = _Draws(piano, self._sampling)
        denoised = self._denoised(piano, aim, draws)
        done = 0
        while batch := list(islice(denoised, WINDOWS_AT_ONCE)):
            for window, played in zip([window for window, _ in batch], self._written(batch, aim, draws), strict=True):
                yield window, played
                advance((window.stop_tick - done) / TICKS_PER_SECOND)
                done = window.stop_tick

    def _written(self, batch: list[tuple[Window, Tensor]], aim: _Aim, draws: _Draws) -> list[Piano]:
        """What windows and their latents, float [F, L], say."""
        frames = max(window.frames for window, _ in batch)
        latents = torch.zeros(len(batch), frames, self._config.latent_width, device=self._device)
        visible = torch.zeros(len(batch), frames, dtype=torch.bool, device=self._device)
        for row, (window, made) in enumerate(batch):
            latents[row, : window.frames], visible[row, : window.frames] = made, True
        generators = [draws.generator(window, _IDS) for window, _ in batch]
        return write_windows(self._model, latents, visible, aim.style, self._sampling, generators)

    @torch.inference_mode()
    def _denoised(self, piano: Piano, aim: _Aim, draws: _Draws) -> Iterator[tuple[Window, Tensor]]:
        """The latents of each window in the new style, float [F, L]."""
        before, made = Window(0, 0, 0), torch.zeros(1, 0, self._config.latent_width, device=self._device)
        for window in windows_of(piano, self._config.frames_max, self._config.tokens_max, self._overlap, self._margin):
            source, theory = self._read(piano, window)
            theory = self._given(theory, aim, window)
            offset = window.start - before.start
            held = made[:, offset : offset + window.held]
            made = self._denoise(source, theory, held, aim, draws.generator(window, _NOISE))
            yield window, made[0]
            before = window

    def _read(self, piano: Piano, window: Window) -> tuple[Tensor, Tensor]:
        """Latents, float [1, F, L], and theory, float [1, F, 384], of a window."""
        cut = thinned(window.of(piano), self._config.tokens_max)
        ids = cut.ids()
        steps = Steps(self._row(ids), self._row(ticks_of_ids(ids)))
        visible = torch.ones(1, window.frames, dtype=torch.bool, device=self._device)
        return self._model.encoder(steps, visible), self._theory(cut, window)

    def _theory(self, cut: Piano, window: Window) -> Tensor:
        """The theory of what begins in a window, float [1, F, 384]."""
        theory = np.concatenate(theory_frames(cut.notes(), window.frames), axis=1)
        return torch.from_numpy(theory)[None].to(self._device)

    def _given(self, theory: Tensor, aim: _Aim, window: Window) -> Tensor:
        """Theory of a window, float [1, F, 384], with the factors that are given in place of its own."""
        parts = list(theory.split(list(WIDTHS.values()), -1))
        for name, donor in aim.given.items():
            number = FACTORS.index(name)
            parts[number] = self._theory(window.of(donor), window).split(list(WIDTHS.values()), -1)[number]
        return torch.cat(parts, -1)

    def _denoise(self, source: Tensor, theory: Tensor, held: Tensor, aim: _Aim, generator: torch.Generator) -> Tensor:
        """A window's latents, float [1, F, L], when it gets there; those that are held stay as they are."""
        knows_factor = torch.tensor([[name in aim.knows for name in FACTORS]], device=self._device)
        wish = Wish(*aim.style, theory, knows_factor)
        visible = torch.ones(source.shape[:2], dtype=torch.bool, device=self._device)
        return self._model.carry(source, visible, wish, self._way, generator, held)

    def _row(self, values: np.ndarray) -> Tensor:
        """int64 [1, T]."""
        return torch.from_numpy(values.astype(np.int64))[None].to(self._device)


class _Draws:
    """Where the random numbers of one part come from.

    Args:
        piano: the part.
        sampling: has the seed.
    """

    def __init__(self, piano: Piano, sampling: Sampling) -> None:
        columns = (piano.onset, piano.offset, piano.pitch, piano.velocity, piano.pedal_onset, piano.pedal_offset)
        digest = hashlib.sha256(b"".join(column.tobytes() for column in columns)).digest()
        self._part = int.from_bytes(digest[:8], "little")
        self._sampling = sampling

    def generator(self, window: Window, purpose: int) -> torch.Generator:
        """A fresh generator for one window and one purpose."""
        return self._sampling.generator(self._part << 64 | window.start << 1 | purpose)
