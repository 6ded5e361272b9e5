"""Latents to notes: TatumFlow's decoder, run on many windows at once.

Each window is written on its own, from its first frame to its last. What it says is bounded by what a piano can do: a
key is released only while it is down and pressed only while it is up, and time goes on. Windows draw from generators of
their own, so that what one says does not depend on its neighbours in the batch. Knows nothing of the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from musictool.inference.piano_parts import HIGHEST_PITCH, LOWEST_PITCH
from musictool.inference.sampling import Sampling
from musictool.models.tatumflow import TatumFlow
from musictool.models.tatumflow_parts import Steps, Style, TatumFlowConfig
from musictool.symbolic.piano_ids import Piano, score_of_ids
from musictool.symbolic.schemes.tatum import TIME_STEPS_MAX, VELOCITY_BIN, VOCABULARY
from musictool.symbolic.vocabulary import Ids

ENDING_FRAMES = 8
"""How near to its end a window may say that nothing more comes."""

_PITCHES = 128
_VELOCITIES = _PITCHES // VELOCITY_BIN
_TIME = VOCABULARY.id("Time", 1)
_ON, _OFF, _VELOCITY, _PEDAL = (VOCABULARY.id(kind, 0) for kind in ("NoteOn", "NoteOff", "Velocity", "Pedal"))


@torch.inference_mode()
def write_windows(
    model: TatumFlow,
    latents: Tensor,
    visible: Tensor,
    style: Style,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> list[Piano]:
    """What windows say.

    Args:
        model: in evaluation mode.
        latents: float [B, F, L].
        visible: bool [B, F], the frames that each window has, from its first on.
        style: of one row, told for every window.
        sampling: how ids are chosen.
        generators: one a window.

    Returns:
        Notes and presses of each, in ticks from its start; keys that are down at its end are released there.
    """
    config = model.config
    ends = visible.sum(1) * config.frame_ticks
    hands = _Hands(config, ends)
    rows = len(latents)
    told = Style(style.values.expand(rows, -1, -1), style.is_known.expand(rows, -1))
    read = model.decoder.read(latents, visible, told)
    cache = model.decoder.layers.new_cache(rows)
    ids = torch.full_like(ends, config.start_id)
    said: list[Tensor] = []
    while not hands.is_done.all():
        positions = cache.begin(1)
        steps = Steps(ids[:, None], hands.ticks[:, None])
        logits = model.decoder(steps, hands.keys()[:, None], read, cache=cache, positions=positions)[:, -1]
        cache.commit(1)
        ids = sampling.choose(logits.masked_fill(~hands.may_say(), float("-inf")), generators)
        ids = ids.masked_fill(hands.is_done, config.pad_id)
        said.append(ids)
        hands.take(ids)
    written = torch.stack(said, 1).cpu().numpy().astype("int32")
    return [_piano(row, int(end)) for row, end in zip(written, ends, strict=True)]


def _piano(ids: Ids, end: int) -> Piano:
    """What ids say, up to a tick."""
    score = score_of_ids(ids)
    return Piano.of(score.notes, score.pedals).between(0, end)


class _Hands:
    """What pianists are doing, one a row: what the rules look at.

    Beside moving on in time, a row says at most as many ids as the model was taught a window has, spread over its time;
    what is spared may be said later, and a quarter of all be said ahead of time.

    Args:
        config: of the model.
        ends: int64 [B], when each is done, in ticks.

    Attributes:
        ticks: int64 [B], how far each has come.
        is_done: bool [B].
    """

    def __init__(self, config: TatumFlowConfig, ends: Tensor) -> None:
        rows, device = len(ends), ends.device
        self.ticks = torch.zeros_like(ends)
        self.is_done = ends <= 0
        self._config = config
        self._ends = ends
        self._said = torch.zeros_like(ends)  # how many ids but for time
        self._held = torch.zeros(rows, _PITCHES, dtype=torch.bool, device=device)
        self._struck = torch.zeros_like(self._held)  # in this tick
        self._pressed = torch.zeros_like(self._held)  # in this frame
        self._is_pedal_down = torch.zeros_like(self.is_done)
        self._has_said_velocity = torch.zeros_like(self.is_done)  # just now
        self._row = torch.arange(rows, device=device)
        self._steps = torch.zeros(len(VOCABULARY), dtype=torch.int64, device=device)  # that each id moves on
        self._steps[_TIME : _TIME + TIME_STEPS_MAX] = torch.arange(1, TIME_STEPS_MAX + 1, device=device)
        self._on_keys = torch.zeros(_PITCHES, dtype=torch.bool, device=device)
        self._on_keys[LOWEST_PITCH : HIGHEST_PITCH + 1] = True

    def may_say(self) -> Tensor:
        """Which ids can come now, bool [B, V]."""
        most = self._config.tokens_max
        may = torch.zeros(len(self.ticks), len(VOCABULARY), dtype=torch.bool, device=self.ticks.device)
        may[:, _ON : _ON + _PITCHES] = ~self._held & self._on_keys
        may[:, _OFF : _OFF + _PITCHES] = self._held & ~self._struck
        may[:, _PEDAL] = self._is_pedal_down
        may[:, _PEDAL + 1] = ~self._is_pedal_down
        may[:, _VELOCITY : _VELOCITY + _VELOCITIES] = ~self._has_said_velocity[:, None]
        may &= (self._said * self._ends < most * self.ticks + most * self._ends // 4)[:, None]
        may[:, _TIME : _TIME + TIME_STEPS_MAX] = True
        may[:, self._config.end_id] = self.ticks >= self._ends - ENDING_FRAMES * self._config.frame_ticks
        return may

    def keys(self) -> Tensor:
        """What the keys do, float [B, 256], as `keys_of` has it."""
        return torch.cat([self._held, self._pressed], -1).float()

    def take(self, ids: Tensor) -> None:
        """Note what each has said, int64 [B]."""
        steps = self._steps[ids]
        frame = self.ticks // self._config.frame_ticks
        self.ticks += steps
        self._pressed &= (self.ticks // self._config.frame_ticks == frame)[:, None]
        self._said += steps == 0
        self._struck &= (steps == 0)[:, None]
        self._has_said_velocity = _is_among(ids, _VELOCITY, _VELOCITIES)
        for first, is_down in ((_ON, True), (_OFF, False)):
            found = self._row[_is_among(ids, first, _PITCHES)]
            key = ids[found] - first
            self._held[found, key] = is_down
            self._struck[found, key] = is_down
            if is_down:
                self._pressed[found, key] = True
        self._is_pedal_down = torch.where(_is_among(ids, _PEDAL, 2), ids == _PEDAL + 1, self._is_pedal_down)
        self.is_done |= (self.ticks >= self._ends) | (ids == self._config.end_id)


def _is_among(ids: Tensor, first: int, count: int) -> Tensor:
    """Which of ids [B] are of `count` from `first` on."""
    return (ids >= first) & (ids < first + count)
