"""Keys and values that outlive a step: of the steps decoded so far, and of what a decoder attends to.

Rows of a `KVCache` are at positions of their own, so that rows of one batch begin and end at different times, and a
step may work on some neighbouring rows alone. `Memory` is the other half: what an encoder gave, as keys and values
computed once. Knows nothing of what is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BLOCK_STEPS = 64


class KeyValues(NamedTuple):
    """Keys and values of one layer, float [B, H, S, P] each."""

    keys: Tensor
    values: Tensor


class KVCache:
    """Keys and values of R rows in every layer; row r holds its first `lengths[r]` steps.

    One step of a decoder is `begin`, an `append` a layer, and `commit`.

    Args:
        layers: how many layers keep theirs.
        rows: R.
        heads, head_width: H and P of every layer.
        capacity: steps each row has room for at first.
        is_static: never grow, and always show all of the capacity under a mask: one shape for every step, which CUDA
            graphs and compiled code need. Otherwise room is made in blocks as the longest row grows, and only as much
            as that row holds is shown.
        dtype, device: of keys and values.

    Attributes:
        is_static: as given.
        lengths: int64 [R].
        seen: S, steps that a layer shows after `begin`.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        head_width: int,
        *,
        capacity: int = BLOCK_STEPS,
        is_static: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        # [R, H, capacity, P]: what a head reads at a step is one piece of memory.
        shape = (rows, heads, capacity, head_width)
        self._layers = [
            KeyValues(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(layers)
        ]
        self.is_static = is_static
        self._known: list[int] | None = [0] * rows  # lengths, while the device need not be asked for them
        self._row = torch.arange(rows, device=device)[:, None]
        self._rows = slice(0, rows)
        self._position = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        self._stretch: slice | None = None
        self.seen = 0
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Steps that each row has room for now."""
        return self._layers[0].keys.shape[2]

    def begin(self, steps: int, rows: slice | None = None) -> Tensor:
        """Make room for the next steps of all rows, or of some neighbouring ones.

        Args:
            steps: T.
            rows: which rows take them, all by default.

        Returns:
            Their positions, int64 [B, T].

        Raises:
            ValueError: a static cache is full.
        """
        self._rows = rows if rows is not None else slice(0, self.rows)
        self._position = self.lengths[self._rows, None] + torch.arange(steps, device=self.lengths.device)
        held = self._held()[self._rows]
        shortest, longest = min(held), max(held)
        needed = longest + steps
        # Where all rows go on from the same step, theirs are one stretch of memory, which takes less time to write.
        self._stretch = slice(shortest, needed) if shortest == longest and not self.is_static else None
        if self.is_static:
            self._refuse_beyond(needed)
        else:
            self._reserve(needed)
        self.seen = self.capacity if self.is_static else needed
        return self._position

    def visible(self) -> Tensor | None:
        """What the steps begun may see of the steps shown, bool [B, 1, T, S]: the past and themselves; None for all."""
        if self._stretch is not None and self._position.shape[1] == 1:
            return None
        shown = torch.arange(self.seen, device=self.lengths.device)
        return (shown <= self._position[:, :, None]).unsqueeze(1)

    def room(self) -> tuple[list[KeyValues], int]:
        """All the room there is, of each layer [R, H, capacity, P], and the first row of those that take steps."""
        return self._layers, self._rows.start

    def append(self, layer: int, keys: Tensor, values: Tensor) -> KeyValues:
        """Keep the steps begun, [B, H, T, P] each; all that the layer shows now, [B, H, S, P] each."""
        held = self._layers[layer]
        for part, steps in zip(held, (keys, values), strict=True):
            if self._stretch is not None:
                part[self._rows, :, self._stretch] = steps
            else:
                part[self._row[self._rows], :, self._position] = steps.transpose(1, 2)
        return KeyValues(*(part[self._rows, :, : self.seen] for part in held))

    def commit(self, steps: int | Tensor) -> None:
        """Count the steps begun as held: T of each row, or int64 [B] where rows end in padding."""
        self.lengths[self._rows] += steps
        if self._known is not None and isinstance(steps, int):
            self._known[self._rows] = [held + steps for held in self._known[self._rows]]
        else:
            self._known = None

    def follow(self, steps: int) -> None:
        """Count steps that recorded work takes for the rows begun last: it holds them, and counts them on the device.

        Raises:
            ValueError: the cache is full.
        """
        taken = [held + steps for held in self._held()[self._rows]]
        self._refuse_beyond(max(taken))
        self._held()[self._rows] = taken

    def recount(self) -> None:
        """Ask the device for the lengths: steps were begun and committed there that did not come about."""
        self._known = None

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        lengths = self._held()
        held = lengths[source]
        for layer in self._layers:
            for part in layer:
                part[target, :, :held] = part[source, :, :held]
        self.lengths[target] = lengths[target] = held

    def clear(self, row: int) -> None:
        """Empty a row."""
        self.lengths[row] = self._held()[row] = 0

    def _held(self) -> list[int]:
        """`lengths`, without waiting for the device where that can be."""
        if self._known is None:
            self._known = self.lengths.tolist()
        return self._known

    def _refuse_beyond(self, steps: int) -> None:
        if steps > self.capacity:
            raise ValueError(f"the cache is full: {steps} steps, and room for {self.capacity}")

    def _reserve(self, steps: int) -> None:
        missing = -(-(steps - self.capacity) // BLOCK_STEPS) * BLOCK_STEPS
        if missing > 0:
            for index, layer in enumerate(self._layers):  # one at a time: never more than one layer twice
                self._layers[index] = KeyValues(*(functional.pad(part, (0, 0, 0, missing)) for part in layer))


class Memory:
    """What R rows attend to beside themselves: keys and values of every layer, computed once.

    Args:
        layers: [R, H, S, P] each.
        visible: bool [R, S], False where a row's memory is padding; None if none is.
    """

    def __init__(self, layers: Sequence[KeyValues], visible: Tensor | None = None) -> None:
        self.layers = list(layers)
        self.visible = visible

    @property
    def rows(self) -> int:
        """R."""
        return self.layers[0].keys.shape[0]

    @property
    def steps(self) -> int:
        """S."""
        return self.layers[0].keys.shape[2]

    def mask(self) -> Tensor | None:
        """What every step may see, bool [R, 1, 1, S]; None for all."""
        return None if self.visible is None else self.visible[:, None, None, :]

    def part(self, rows: slice) -> Memory:
        """Some rows, as a view."""
        visible = None if self.visible is None else self.visible[rows]
        return Memory([KeyValues(layer.keys[rows], layer.values[rows]) for layer in self.layers], visible)

    def room_for(self, rows: int) -> Memory:
        """An empty memory of as many steps for R rows."""
        layers = [KeyValues(*(part.new_zeros(rows, *part.shape[1:]) for part in layer)) for layer in self.layers]
        return Memory(layers, None if self.visible is None else self.visible.new_zeros(rows, self.steps))

    def put(self, row: int, other: Memory, source: int) -> None:
        """Copy a row of another memory over a row of this one.

        Raises:
            ValueError: the other has more steps than this one.
        """
        steps = other.steps
        if steps > self.steps:
            raise ValueError(f"no room for {steps} steps in a memory of {self.steps}")
        if self.visible is None and (other.visible is not None or steps < self.steps):
            self.visible = torch.ones(self.rows, self.steps, dtype=torch.bool, device=self.layers[0].keys.device)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for to, of in zip(mine, theirs, strict=True):
                to[row, :, :steps] = of[source]
        if self.visible is not None:
            self.visible[row] = False
            self.visible[row, :steps] = True if other.visible is None else other.visible[source]
