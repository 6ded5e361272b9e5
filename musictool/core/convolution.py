"""Convolutions over time that read a signal in chunks of any size and say of it what they say of the whole.

The blocks of SEANet (Tagliasacchi et al., 2020; arXiv:2009.02095) as EnCodec has them (Défossez et al., 2022;
arXiv:2210.13438, section 3.1). Each layer has one implementation, `step`, which takes a chunk, and a state with what it
still needs of those before; the whole signal is one chunk, the first and the last. What depends on what is yet to come,
such as a window that looks ahead or a start that is reflected, comes out as soon as it is known. Padding follows
EnCodec's to the sample. Knows nothing of sound.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

PadMode = Literal["reflect", "constant"]


class Streaming(nn.Module, ABC):
    """A layer that reads a signal in chunks."""

    @abstractmethod
    def begin(self) -> Any:
        """The state before the first chunk."""

    @abstractmethod
    def step(self, x: Tensor, state: Any, is_last: bool = False) -> Tensor:
        """Read one chunk.

        Args:
            x: float [B, C, n]; n may be 0.
            state: what `begin` gave for this signal, and only this signal's chunks have changed.
            is_last: no more will come.

        Returns:
            float [B, D, m], what follows on from the output of the step before; m may be 0.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Read a whole signal; [B, C, N] to [B, D, M]."""
        return self.step(x, self.begin(), is_last=True)


@dataclass
class ConvolutionState:
    """What a convolution needs of what it has read.

    Attributes:
        pending: float [B, C, n], the end of it; None before the first chunk.
        skip: how much of `pending` lies before the next window.
        seen: samples read.
        has_begun: whether its start is padded, and windows have come out.
    """

    pending: Tensor | None = None
    skip: int = 0
    seen: int = 0
    has_begun: bool = False


class Convolution(Streaming):
    """A convolution with as many outputs as strides have begun; [B, C, N] to [B, D, ceil(N / stride)].

    Args:
        channels_in, channels_out: C and D.
        kernel: samples of a window, `dilation` apart.
        stride: samples from one window to the next.
        is_causal: pads the start alone, so that nothing waits for what is to come but the reflection at the start.
        pad_mode: `reflect` or `constant` (zeros). A signal shorter than its reflection has zeros after it.
        has_norm: normalise over time and channels together; then a signal can only be read whole.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        is_causal: bool = True,
        pad_mode: PadMode = "reflect",
        has_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride, dilation=dilation)
        self.norm = nn.GroupNorm(1, channels_out) if has_norm else nn.Identity()
        self._pad_mode = pad_mode
        self._stride = stride
        self._span = (kernel - 1) * dilation + 1
        if self._span < stride:
            raise ValueError("windows must not leave samples out: the kernel spans less than the stride")
        self._right = 0 if is_causal else (self._span - stride) // 2
        self._left = self._span - stride - self._right
        self._right_max = self._right + stride - 1

    def begin(self) -> ConvolutionState:
        return ConvolutionState()

    def step(self, x: Tensor, state: ConvolutionState, is_last: bool = False) -> Tensor:
        state.seen += x.shape[-1]
        x = _joined(state.pending, x)
        is_start_known = is_last or x.shape[-1] > max(self._left, self._right_max)
        if (not state.has_begun and not is_start_known) or not state.seen:
            state.pending = x
            return x.new_zeros(len(x), self.conv.out_channels, 0)
        left = 0 if state.has_begun else self._left
        right = self._right + -state.seen % self._stride if is_last else 0
        x = _padded(x, left, right, self._pad_mode)
        self._refuse_part(state, is_last)
        state.has_begun = True
        return self._windows(x, state)

    def _windows(self, x: Tensor, state: ConvolutionState) -> Tensor:
        """The windows that are whole; what later ones need, and what may have to be reflected, stays."""
        count = max(0, (x.shape[-1] - state.skip - self._span) // self._stride + 1)
        start = state.skip + count * self._stride
        last = start - self._stride + self._span
        y = x.new_zeros(len(x), self.conv.out_channels, 0) if not count else self.conv(x[..., state.skip : last])
        keep = start if not self._right_max else max(0, min(start, x.shape[-1] - self._right_max - 1))
        state.pending, state.skip = x[..., keep:].clone(), start - keep
        return cast(Tensor, self.norm(y))

    def _refuse_part(self, state: ConvolutionState, is_last: bool) -> None:
        if isinstance(self.norm, nn.GroupNorm) and (state.has_begun or not is_last):
            raise ValueError("a layer that normalises over time reads whole signals only")


@dataclass
class TransposedState:
    """What a transposed convolution needs of what it has read.

    Attributes:
        tail: float [B, D, n], what the last inputs add to outputs that are not out yet; None before the first chunk.
        trim: samples at the start that are still to be cut off.
    """

    tail: Tensor | None
    trim: int


class TransposedConvolution(Streaming):
    """A transposed convolution with `stride` outputs for each input; [B, C, T] to [B, D, T * stride].

    Args:
        channels_in, channels_out: C and D.
        kernel: outputs that an input adds to.
        stride: outputs from one input to the next.
        is_causal: cut off what is too much at the end, else half of it on either side.
        trim_right: the share of it that is cut off at the end where it is causal.
        has_norm: normalise over time and channels together; then a signal can only be read whole.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        *,
        is_causal: bool = True,
        trim_right: float = 1.0,
        has_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, kernel, stride)
        self.norm = nn.GroupNorm(1, channels_out) if has_norm else nn.Identity()
        self._stride = stride
        self._overlap = kernel - stride
        if self._overlap < 0:
            raise ValueError("outputs must not stay empty: the kernel is shorter than the stride")
        self._right = math.ceil(self._overlap * trim_right) if is_causal else self._overlap // 2

    def begin(self) -> TransposedState:
        return TransposedState(None, self._overlap - self._right)

    def step(self, x: Tensor, state: TransposedState, is_last: bool = False) -> Tensor:
        if isinstance(self.norm, nn.GroupNorm) and (state.tail is not None or not is_last):
            raise ValueError("a layer that normalises over time reads whole signals only")
        y = self._spread(x, state)
        ready = max(0, y.shape[-1] - (self._right if is_last else self._overlap))
        if not is_last and y.shape[-1]:
            state.tail = y[..., ready:] - cast(Tensor, self.conv.bias)[:, None]  # which the next chunk brings again
        trim = min(state.trim, ready)
        state.trim -= trim
        return y[..., trim:ready]

    def _spread(self, x: Tensor, state: TransposedState) -> Tensor:
        """What the inputs give, on top of what those before them left; [B, D, T * stride + overlap]."""
        if not x.shape[-1]:
            if state.tail is None:
                return x.new_zeros(len(x), self.conv.out_channels, 0)
            return state.tail + cast(Tensor, self.conv.bias)[:, None]
        y = cast(Tensor, self.norm(self.conv(x)))
        if state.tail is not None and self._overlap:
            y[..., : self._overlap] += state.tail
        return y


class Activation(Streaming):
    """An exponential linear unit, sample by sample."""

    def begin(self) -> None:
        return None

    def step(self, x: Tensor, state: None, is_last: bool = False) -> Tensor:
        return functional.elu(x)


@dataclass
class ResidualState:
    """What a residual unit needs of what it has read.

    Attributes:
        inner, outer, shortcut: states of its convolutions.
        held: float [B, C, n], what has gone past the convolutions and waits for what has gone through them.
    """

    inner: ConvolutionState
    outer: ConvolutionState
    shortcut: ConvolutionState = field(default_factory=ConvolutionState)
    held: Tensor | None = None


class ResidualUnit(Streaming):
    """shortcut(x) + conv1(elu(conv(elu(x)))); [B, C, N] to the same.

    Args:
        inner: the first convolution, which looks around.
        outer: the second, of kernel 1.
        shortcut: of kernel 1; None to pass x on as it is.
    """

    def __init__(self, inner: Convolution, outer: Convolution, shortcut: Convolution | None) -> None:
        super().__init__()
        self.activation = Activation()
        self.inner = inner
        self.outer = outer
        self.shortcut = shortcut

    def begin(self) -> ResidualState:
        return ResidualState(self.inner.begin(), self.outer.begin())

    def step(self, x: Tensor, state: ResidualState, is_last: bool = False) -> Tensor:
        y = self.inner.step(self.activation(x), state.inner, is_last)
        y = self.outer.step(self.activation(y), state.outer, is_last)
        x = _joined(state.held, x)
        ready = y.shape[-1]
        state.held = x[..., ready:].clone()
        x = x[..., :ready]
        return y + (x if self.shortcut is None else self.shortcut.step(x, state.shortcut, is_last))


@dataclass
class RecurrenceState:
    """Hidden and cell state of an LSTM, float [layers, B, C] each; None before the first chunk."""

    values: tuple[Tensor, Tensor] | None = None


class Recurrence(Streaming):
    """x + lstm(x), over time from the start on; [B, C, T] to the same.

    Args:
        width: C.
        layers: of the LSTM.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def begin(self) -> RecurrenceState:
        return RecurrenceState()

    def step(self, x: Tensor, state: RecurrenceState, is_last: bool = False) -> Tensor:
        if not x.shape[-1]:
            return x
        steps = x.permute(2, 0, 1)  # [T, B, C]
        y, state.values = self.lstm(steps, state.values)
        return cast(Tensor, (y + steps).permute(1, 2, 0))


class Chain(Streaming):
    """Layers, one after the other.

    Args:
        layers: each reads what the one before says.
    """

    def __init__(self, layers: Iterable[Streaming]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def begin(self) -> list[Any]:
        return [cast(Streaming, layer).begin() for layer in self.layers]

    def step(self, x: Tensor, state: list[Any], is_last: bool = False) -> Tensor:
        for layer, own in zip(self.layers, state, strict=True):
            x = cast(Streaming, layer).step(x, own, is_last)
        return x


def _joined(kept: Tensor | None, x: Tensor) -> Tensor:
    """What was kept and what follows it, [B, C, n]; where channels lie side by side in memory, they do so after it."""
    if kept is None or not kept.shape[-1]:
        return x
    if x.stride(1) == 1:
        return torch.cat([kept.transpose(1, 2), x.transpose(1, 2)], 1).transpose(1, 2)
    return torch.cat([kept, x], -1)


def _padded(x: Tensor, left: int, right: int, mode: PadMode) -> Tensor:
    """A signal with more on either side; where it is too short to be reflected, zeros follow it first."""
    if not (left or right):
        return x
    if mode == "constant":
        return _extended(x, left, right, mode)
    missing = max(0, max(left, right) + 1 - x.shape[-1])
    padded = _extended(_extended(x, 0, missing, "constant") if missing else x, left, right, mode)
    return padded[..., : padded.shape[-1] - missing]


def _extended(x: Tensor, left: int, right: int, mode: PadMode) -> Tensor:
    """`functional.pad` over time; where channels lie side by side in memory, they do so after it."""
    if x.stride(1) == 1:
        return functional.pad(x.transpose(1, 2), (0, 0, left, right), mode).transpose(1, 2)
    return functional.pad(x, (left, right), mode)
