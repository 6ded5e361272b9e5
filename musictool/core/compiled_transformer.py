"""Transformers whose steps, one at a time, are one compiled piece of work; needs numba.

What `packed_transformer` says in a hundred and more calls a step, each of them shared out evenly among threads that all
have to be back before the next, `step_kernels` says in one. Several steps at once, such as those of a prompt, take the
packed way, by the same weights. Which of the two says a step does not depend on the number of rows, and what becomes of
a row in compiled steps does not depend on the others, not in the last bit: a piece that is written beside others is the
one that is written alone. Packed products gain where there are many rows: from eight on they are as fast, or faster.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache as kept
from queue import SimpleQueue
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from musictool.core.attention import Sight
from musictool.core.feed_forward import Activation
from musictool.core.kv_cache import KeyValues, KVCache, Memory
from musictool.core.packed_linear import Packed, PackedInt8Linear, PackedLinear
from musictool.core.packed_transformer import PackedBlock, PackedFeedForward
from musictool.core.transformer import Transformer

WEIGHTS_MIN = 2**25  # of smaller models a piece is written before numba has begun to be worth its second
_Job = tuple[Callable[..., object], tuple[object, ...], object]
_ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu", "gelu_tanh", "silu")  # in the order of step_kernels
_LIKE: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.bfloat16: np.uint32, torch.int8: np.int8}
_KEPT_LIKE: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.bfloat16: np.uint16}


def can_compile() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@kept
def _kernels() -> ModuleType:
    """The kernels; half a second, which only who runs them spends."""
    from musictool.core import step_kernels

    return step_kernels


class Team:
    """Threads that do one thing together with the one that asks.

    Nobody waits for those that come late: what they are called with must make them find nothing left to do.

    Args:
        helpers: how many beside the one that asks.
    """

    def __init__(self, helpers: int) -> None:
        self._jobs: list[SimpleQueue[_Job | None]] = [SimpleQueue() for _ in range(helpers)]
        self._threads = [threading.Thread(target=_help, args=(jobs,), daemon=True) for jobs in self._jobs]
        for thread in self._threads:
            thread.start()
        atexit.register(self._dismiss)  # a thread that comes back to an interpreter that has ended takes it down

    def run(self, do: Callable[..., object], *given: object, keep: object = None) -> None:
        """Call it in all threads; back when the asking thread's call is.

        Args:
            do: it lets other threads run.
            given: what it is called with.
            keep: what those that come late must still find in its place.
        """
        for jobs in self._jobs:
            jobs.put((do, given, keep))
        do(*given)

    def _dismiss(self) -> None:
        for jobs in self._jobs:
            jobs.put(None)
        for thread in self._threads:
            thread.join()


def _help(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        do, given, _ = job
        do(*given)


@kept
def _team(threads: int) -> Team:
    return Team(threads - 1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_team.cache_clear)  # threads stay behind


def _run(do: Callable[..., object], *given: object, keep: _Addresses) -> None:
    """Call a kernel in as many threads as torch has; the first call of each caller, which may compile it, in one."""
    if keep.is_known:
        _team(torch.get_num_threads()).run(do, *given, keep=keep)
    else:
        do(*given)
        keep.is_known = True


class _Addresses:
    """Where what a kernel reads is in memory, and what keeps it there.

    Attributes:
        is_known: whether the kernel has been called with it.
    """

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.is_known = False

    def of(self, part: Tensor | None) -> int:
        """A tensor's address; 0 of none."""
        if part is None:
            return 0
        self.kept.append(part)
        return part.data_ptr()

    def of_layer(self, layer: Packed) -> list[int]:
        """Weights, scales, bias, and from one output's weights to the next."""
        weight = layer.lay_in_rows()
        scales = layer.scales.float() if isinstance(layer, PackedInt8Linear) else None
        bias = None if layer.bias is None else layer.bias.float()
        apart = weight.stride(0) // 2 if weight.dtype == torch.bfloat16 else weight.stride(0)
        return [self.of(weight), self.of(scales), self.of(bias), apart]

    def of_norm(self, norm: nn.Module | None) -> list[int]:
        """Weight and bias."""
        return [self.of(getattr(norm, part, None)) for part in ("weight", "bias")]


def _fits(layer: Packed) -> bool:
    """Whether kernels can read a layer: four outputs at a time, and two inputs."""
    outputs, inputs = layer.weight.shape
    return outputs % 4 == 0 and inputs % 2 == 0


class CompiledLinear(nn.Module):
    """A packed layer that says single steps compiled.

    Args:
        layer: packed; as many outputs as a multiple of four, and inputs as one of two.
    """

    def __init__(self, layer: Packed) -> None:
        super().__init__()
        self._layer = layer
        self._held = _Addresses()
        self._row: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """float32 [B, T, in], or [B, in], to float32 [B, T, out] or [B, out]; where T is 1, compiled."""
        rows = x.numel() // x.shape[-1]
        if not rows or (x.dim() > 2 and x.shape[-2] > 1):
            return self._layer(x)
        kernels = _kernels()
        if self._row is None:
            self._row = np.array(self._held.of_layer(self._layer))
        weight = self._layer.weight
        y = x.new_empty(*x.shape[:-1], len(weight), dtype=torch.float32)
        seen = x.float().reshape(rows, -1).numpy()
        like = np.empty(0, _LIKE[weight.dtype])
        _run(kernels.product, seen, self._row, like, y.view(rows, -1).numpy(), kernels.counters(0), keep=self._held)
        return y


class CompiledTransformer(Transformer):
    """A transformer whose single steps over a cache are compiled.

    Args:
        transformer: its blocks packed, and such that `can_be_compiled`.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__(
            cast("list[PackedBlock]", list(transformer.blocks)),
            transformer.final_norm,
            position_bias=transformer.position_bias,
            memory_bias=transformer.memory_bias,
            rotary=transformer.rotary,
        )
        self._held = _Addresses()
        self._table: Any = None
        self._sizes: Any = None
        self._like: Any = None

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        is_causal: bool = False,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        is_step = x.shape[1] == 1 and len(x) > 0 and x.dtype == torch.float32
        if is_step and cache is not None and positions is not None:
            return self.final_norm(self._step(x, positions, cache, memory))
        return super().forward(x, visible=visible, is_causal=is_causal, positions=positions, cache=cache, memory=memory)

    def _step(self, x: Tensor, positions: Tensor, cache: KVCache, memory: Memory | None) -> Tensor:
        """Rows, float32 [B, 1, D], past all layers."""
        kernels = _kernels()
        if self._table is None:
            self._read_layers(kernels)
        rows, width = len(x), x.shape[2]
        sizes = self._sizes._replace(looks_across=memory is not None)
        inner = sizes.heads * sizes.head_width
        table = self._table.copy()
        room, first = cache.room()
        table[:, kernels.KEYS : kernels.VALUES + 1] = _places(room, first)
        bias = None if self.position_bias is None else self.position_bias(positions, torch.arange(cache.seen))
        own = _held(kernels, room[0], positions[:, 0] + 1, Sight(bias))
        across = own
        if memory is not None:
            table[:, kernels.MEMORY_KEYS : kernels.MEMORY_VALUES + 1] = _places(memory.layers)
            steps = torch.full((rows,), memory.steps)
            across = _held(kernels, memory.layers[0], steps, self._sight_of(memory, 1, positions))
        x = x.clone(memory_format=torch.contiguous_format)
        shapes = (rows, 3 * inner), (rows, inner), (rows, sizes.hidden)
        _run(
            kernels.step,
            x.view(rows, width).numpy(),
            table,
            np.empty(0, self._like),
            np.empty(0, _KEPT_LIKE[room[0].keys.dtype]),
            tuple(sizes),
            self._angles(positions),
            tuple(own),
            tuple(across),
            tuple(np.empty(shape, np.float32) for shape in shapes),
            kernels.counters(len(table)),
            keep=self._held,
        )
        return x

    def _angles(self, positions: Tensor) -> Any:
        """Cosines and sines of positions int64 [B, 1], float32 [B, 2, P / 2]; [B, 2, 0] where nothing turns."""
        if self.rotary is None:
            return np.empty((len(positions), 2, 0), np.float32)
        return torch.stack([part[:, 0, 0] for part in self.rotary(positions)], 1).numpy()

    def _read_layers(self, kernels: ModuleType) -> None:
        """Note where all weights are."""
        held, table = self._held, []
        for block in cast("list[PackedBlock]", list(self.blocks)):
            row: list[int] = []
            for layer in block.layers():
                row += [0, 0, 0, 0] if layer is None else held.of_layer(layer)
            for norm in (block.self_norm, block.cross_norm, block.feed_norm):
                row += held.of_norm(norm)
            table.append(row + [0] * (kernels.ADDRESSES - len(row)))
        first = cast(PackedBlock, self.blocks[0])
        self._like = _LIKE[next(iter(held.kept)).dtype]
        attention, feed_forward, norm = first.self_attention, first.feed_forward, first.self_norm
        assert isinstance(feed_forward, PackedFeedForward)
        assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
        self._sizes = kernels.Sizes(
            heads=attention.heads,
            head_width=attention.head_width,
            hidden=feed_forward.hidden,
            activation=_ACTIVATIONS.index(feed_forward.activation),
            is_gated=feed_forward.is_gated,
            is_centred=isinstance(norm, nn.LayerNorm),
            looks_across=False,
            epsilon=np.float32(norm.eps),
            scale=np.float32(attention.head_width**-0.5 if attention.scale is None else attention.scale),
        )
        self._table = np.array(table)


def _places(layers: Sequence[KeyValues], row: int = 0) -> Any:
    """Where each layer's keys and values of a row begin, int64 [layers, 2]."""
    offset = row * layers[0].keys.stride(0) * layers[0].keys.itemsize
    return np.array([(keys.data_ptr(), values.data_ptr()) for keys, values in layers]) + offset


def _held(kernels: ModuleType, layer: KeyValues, lengths: Tensor, sight: Sight) -> Any:
    """Keys and values as kernels take them."""
    bias = np.empty((1, 1, 0), np.float32)
    if sight.mask is not None:
        mask = sight.mask
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        bias = mask[:, :, 0].float().contiguous().numpy()
    row, head, step, _ = layer.keys.stride()
    return kernels.Held(lengths.numpy(), row, head, step, bias)


def can_be_compiled(transformer: Transformer) -> bool:
    """Whether kernels can read a packed transformer."""
    for block in transformer.blocks:
        if not isinstance(block, PackedBlock):
            return False
        if not all(layer is None or _fits(layer) for layer in block.layers()):
            return False
        if cast(PackedFeedForward, block.feed_forward).hidden % 4:  # the gates of gated ones are half of a layer
            return False
        norms = [norm for norm in (block.self_norm, block.cross_norm, block.feed_norm) if norm is not None]
        if not all(isinstance(norm, nn.LayerNorm | nn.RMSNorm) and norm.weight is not None for norm in norms):
            return False
    return True


def compile_steps(module: nn.Module, *, weights_min: int = WEIGHTS_MIN) -> None:
    """Compile the steps of every packed transformer, and other packed layers, inside a module.

    Args:
        module: packed, on a CPU; it is changed.
        weights_min: of its packed layers in all, for it to be changed.
    """
    if weights_min <= sum(layer.weight.numel() for layer in _layers(module)) and _can_import():
        _compile(module)


def _can_import() -> bool:
    """Whether numba goes with what else is installed; it takes no numpy that is newer than itself."""
    try:
        _kernels()
    except ImportError:
        return False
    return True


def _layers(module: nn.Module) -> Iterator[Packed]:
    """Its packed layers, those of blocks as well."""
    for part in module.modules():
        if isinstance(part, PackedBlock):
            yield from (layer for layer in part.layers() if layer is not None)
        elif isinstance(part, PackedLinear | PackedInt8Linear):
            yield part


def _compile(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, Transformer):
            if can_be_compiled(child):
                setattr(module, name, CompiledTransformer(child))
        elif isinstance(child, PackedLinear | PackedInt8Linear):
            if _fits(child):
                setattr(module, name, CompiledLinear(child))
        else:
            _compile(child)
