"""One step of a transformer as one piece of work, compiled by numba and shared by threads.

What a step of few rows takes is the time of reading the weights once. Here nothing stands between one product and the
next but a counter: threads take the items of a product as they come free, so that one that the system holds up keeps
the others waiting for its own item at most, and each of a product's numbers is summed in one order, whoever takes it
and however many rows there are.
Rows, norms and sums are float32; weights are read as float32, as bfloat16 (two in 32 bits) or as eight bits with a
scale for each output, keys and values as float32 or bfloat16.

`step` and `product` are called by all threads at once with the same arguments and counters of their own for each call.
All that they are compiled from is in this one file, long as it is: what numba keeps from one process to the next it
makes anew where this file has changed, and does not look at others.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Where a layer's addresses stand in its row of the table. A linear layer has four: its weights, its outputs' scales,
# its bias (0 where there is none), and the weights from one output to the next. A norm has two: weight and bias.
JOINT, BACK, QUERY, ACROSS, UP, DOWN = range(0, 24, 4)
SELF_NORM, CROSS_NORM, FEED_NORM = range(24, 30, 2)
KEYS, VALUES, MEMORY_KEYS, MEMORY_VALUES = range(30, 34)
ADDRESSES = 34

RELU, GELU, GELU_TANH, SILU = range(4)

# The pieces of work in a layer, whose products and norms have their addresses there.
_JOIN, _LOOK_BACK, _BRING_BACK, _ASK, _LOOK_ACROSS, _BRING_ACROSS, _WIDEN, _NARROW = range(8)
_PIECES = 8
_LAYER = (JOINT, 0, BACK, QUERY, 0, ACROSS, UP, DOWN)
_NORM = (SELF_NORM, 0, 0, CROSS_NORM, 0, 0, FEED_NORM, 0)

_WRITTEN, _ADDED, _ACTIVATED, _GATED = range(4)  # what becomes of a product

ITEM = 32  # outputs that a thread takes at a time
_APART = 8  # counters of two pieces of work are in different lines of the cache
_TAKEN, _DONE = 0, 1
_CAN_GIVE_WAY = hasattr(os, "sched_yield")
_HAS_PAUSE = platform.machine() in ("x86_64", "AMD64")
_PAUSES = 200  # some 10 us
_EXACT_ENOUGH = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order, which makes them fit for vectors


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    return njit(function, nogil=True, fastmath=_EXACT_ENOUGH, error_model="numpy", **options)


def _native(describe: Callable[..., Any]) -> Any:
    """A function that is written in LLVM's terms: what it is of, and how it is made."""
    return intrinsic(describe)


def _part(function: Callable[..., Any]) -> Any:
    """A function that compiled ones call; it becomes part of them.

    Were it called instead, it would be compiled on its own as well, to sums in another order: the process that compiles
    would run one of the two, and those that load what it has kept the other.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def _entry(function: Callable[..., Any]) -> Any:
    """A function that Python calls; compiled at the first call, for other processes too where that can be kept."""
    try:
        compiled = _compiled(function, cache=True, no_cfunc_wrapper=True)
    except RuntimeError:  # neither this file's folder nor the user's own can be written
        return _compiled(function, no_cfunc_wrapper=True)
    save = compiled._cache.save_overload

    def save_if_there_is_room(*given: Any) -> None:
        with suppress(OSError):
            save(*given)

    compiled._cache.save_overload = save_if_there_is_room
    return compiled


class Sizes(NamedTuple):
    """What all layers have in common.

    Attributes:
        heads, head_width, hidden: H, P and F.
        activation: of the feed-forward.
        is_gated: whether that is.
        is_centred: whether norms take the mean away (`layer`).
        looks_across: whether layers attend to a memory.
        epsilon: of the norms.
        scale: of scores.
    """

    heads: int
    head_width: int
    hidden: int
    activation: int
    is_gated: bool
    is_centred: bool
    looks_across: bool
    epsilon: np.float32
    scale: np.float32


class Held(NamedTuple):
    """Keys and values: how far it is from one row, head and step to the next, and what is added to scores.

    Attributes:
        lengths: int64 [B], how many steps each row sees.
        row, head, step: in numbers.
        bias: float32 [B or 1, H or 1, S]; of no size where there is none.
    """

    lengths: Any
    row: int
    head: int
    step: int
    bias: Any


def counters(layers: int) -> Any:
    """Fresh counters for one step of so many layers, or for a product (0)."""
    return np.zeros((layers * _PIECES + 1) * _APART, np.int64)


# ------------------------------------------------------------------------------------------- what numba has no name for


@_native
def _pointer(typing, number, like):
    """An address as a pointer to what an array is of."""
    kind = types.CPointer(like.dtype)

    def generate(context, builder, signature, given):
        return builder.inttoptr(given[0], context.get_value_type(kind))

    return kind(number, like), generate


def _place(context, builder, signature, given):
    array = context.make_array(signature.args[0])(context, builder, given[0])
    return builder.gep(array.data, [given[1]])


@_native
def _count(typing, array, place):
    """Add 1 to a number that other threads add to as well; what it was before."""

    def generate(context, builder, signature, given):
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", _place(context, builder, signature, given), one, "acq_rel")

    return types.int64(array, types.int64), generate


@_native
def _counted(typing, array, place):
    """A number that other threads add to."""

    def generate(context, builder, signature, given):
        return builder.load_atomic(_place(context, builder, signature, given), "acquire", 8)

    return types.int64(array, types.int64), generate


@_native
def _pause(typing):
    """Tell the CPU that this thread waits, where it can be told."""

    def generate(context, builder, signature, given):
        if _HAS_PAUSE:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@_native
def _give_way(typing):
    """Let other threads have this one's core, where the system can be told."""

    def generate(context, builder, signature, given):
        if _CAN_GIVE_WAY:
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@_native
def _as_float(typing, bits):
    """The float32 of 32 bits."""

    def generate(context, builder, signature, given):
        return builder.bitcast(given[0], ir.FloatType())

    return types.float32(types.uint32), generate


@_native
def _as_bits(typing, number):
    """The 32 bits of a float32."""

    def generate(context, builder, signature, given):
        return builder.bitcast(given[0], ir.IntType(32))

    return types.uint32(types.float32), generate


# ------------------------------------------------------------------------------------------------------ number formats


def _low(pair):
    """The first of two bfloat16 in 32 bits."""


@overload(_low, inline="always")
def _compile_low(pair):
    return lambda pair: _as_float(np.uint32(pair << np.uint32(16)))


def _high(pair):
    """The second of two bfloat16 in 32 bits."""


@overload(_high, inline="always")
def _compile_high(pair):
    return lambda pair: _as_float(np.uint32(pair & np.uint32(0xFFFF0000)))


def _widened(number):
    """A number as float32: bfloat16 in 16 bits, eight bits or float32."""


@overload(_widened, inline="always")
def _compile_widened(number):
    if number == types.uint16:
        return lambda number: _as_float(np.uint32(np.uint32(number) << np.uint32(16)))
    return lambda number: np.float32(number)


def _narrowed(number, like):
    """A float32 as an array keeps it: as bfloat16 in 16 bits, rounded to the nearest even, or as it is."""


@overload(_narrowed, jit_options={"forceinline": True})
def _compile_narrowed(number, like):
    if like.dtype == types.uint16:

        def narrow(number, like):
            bits = _as_bits(number)
            if number != number:
                return np.uint16(0x7FC0)
            return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return narrow
    return lambda number, like: number


def _seat(number, size, like):
    """Where one of a product's inputs stands: beside its weights, of which two in 32 bits are read side by side."""


@overload(_seat, inline="always")
def _compile_seat(number, size, like):
    if like.dtype == types.uint32:
        return lambda number, size, like: (number >> 1) + (number & 1) * (size >> 1)
    return lambda number, size, like: number


def _four(w, v, u, t, x):
    """Products of four rows of weights with numbers in their seats."""


@overload(_four, jit_options={"forceinline": True})
def _compile_four(w, v, u, t, x):
    if w.dtype == types.uint32:

        def multiply_pairs(w, v, u, t, x):
            half = len(x) // 2
            even, odd = x[:half], x[half:]
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(half):
                a += _high(w[i]) * odd[i] + _low(w[i]) * even[i]
                b += _high(v[i]) * odd[i] + _low(v[i]) * even[i]
                c += _high(u[i]) * odd[i] + _low(u[i]) * even[i]
                d += _high(t[i]) * odd[i] + _low(t[i]) * even[i]
            return a, b, c, d

        return multiply_pairs

    def multiply(w, v, u, t, x):
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(len(x)):
            a += _widened(w[i]) * x[i]
            b += _widened(v[i]) * x[i]
            c += _widened(u[i]) * x[i]
            d += _widened(t[i]) * x[i]
        return a, b, c, d

    return multiply


# ----------------------------------------------------------------------------------------------------------- the parts


@_part
def _take(marks, piece, items):
    """The next item of a piece of work that nobody has taken; -1 if there is none."""
    item = _count(marks, piece * _APART + _TAKEN)
    return item if item < items else -1


@_part
def _finish(marks, piece):
    _count(marks, piece * _APART + _DONE)


@_part
def _await(marks, piece, items):
    """Wait until all items of a piece of work are done."""
    waited = 0
    while _counted(marks, piece * _APART + _DONE) < items:
        _pause()
        waited += 1
        if waited > _PAUSES:  # who has the item may be waiting for this core
            _give_way()


@_part
def _norm(x, norm, sizes, like, y):
    """The norm of each row, float32 [B, D], every number in its seat."""
    width = x.shape[1]
    weight = carray(_pointer(norm[0], x), (width,))
    for b in range(x.shape[0]):
        mean = np.float32(0)
        if sizes.is_centred:
            for i in range(width):
                mean += x[b, i]
            mean /= np.float32(width)
        spread = np.float32(0)
        for i in range(width):
            spread += (x[b, i] - mean) * (x[b, i] - mean)
        factor = np.float32(1) / np.float32(math.sqrt(spread / np.float32(width) + sizes.epsilon))
        for i in range(width):
            y[b, _seat(i, width, like)] = (x[b, i] - mean) * factor * weight[i]
        if norm[1]:
            bias = carray(_pointer(norm[1], x), (width,))
            for i in range(width):
                y[b, _seat(i, width, like)] += bias[i]


@_part
def _outputs(x, layer, first, count, like, y):
    """Some outputs of a linear layer, `count` from `first` on: rows of inputs in their seats to float32 [B, count].

    Four outputs at a time, a quarter of them apart: each then reads on where it read before, which the CPU foresees. Of
    four neighbours, each would leap over the others' weights after its own, 2 kB of them, and take half as long again.
    """
    end = first + count
    weights = carray(_pointer(layer[0], like), (end, layer[3]))
    scales = carray(_pointer(layer[1], x), (end,))
    bias = carray(_pointer(layer[2], x), (end,))
    quarter = count // 4
    for at in range(quarter):
        second, third, fourth = at + quarter, at + 2 * quarter, at + 3 * quarter
        w, v, u, t = weights[first + at], weights[first + second], weights[first + third], weights[first + fourth]
        for b in range(len(x)):
            y[b, at], y[b, second], y[b, third], y[b, fourth] = _four(w, v, u, t, x[b])
    for b in range(len(x)):
        if layer[1]:
            for r in range(count):
                y[b, r] *= scales[first + r]
        if layer[2]:
            for r in range(count):
                y[b, r] += bias[first + r]


@_part
def _activated(x, activation):
    if activation == RELU:
        return max(x, np.float32(0))
    if activation == SILU:
        return x / (np.float32(1) + np.float32(math.exp(-x)))
    half = np.float32(0.5) * x
    if activation == GELU:
        return half * (np.float32(1) + np.float32(math.erf(x * np.float32(0.7071067811865476))))
    inner = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x)
    return half * (np.float32(1) + np.float32(math.tanh(inner)))


@_part
def _multiply(x, layer, outputs, like, way, activation, y, marks, piece):
    """A linear layer of rows in their seats: to float32 [B, outputs or more].

    They are written, added to what is there, or activated and put in their seats; gated, each is activated and
    multiplied by the one that comes so many outputs later.
    """
    items = -(-outputs // ITEM)
    tiles = np.empty((2, len(x), ITEM), np.float32)
    item = _take(marks, piece, items)
    while item >= 0:
        first = item * ITEM
        count = min(ITEM, outputs - first)
        for half in range(2 if way == _GATED else 1):
            _outputs(x, layer, half * outputs + first, count, like, tiles[half])
        for b in range(len(x)):
            for r in range(count):
                value = tiles[0, b, r]
                if way == _WRITTEN:
                    y[b, first + r] = value
                elif way == _ADDED:
                    y[b, first + r] += value
                else:
                    value = _activated(value, activation)
                    y[b, _seat(first + r, outputs, like)] = value * tiles[1, b, r] if way == _GATED else value
        _finish(marks, piece)
        item = _take(marks, piece, items)
    _await(marks, piece, items)


@_part
def _blend(values, s, weights, y):
    """Add four rows of values, each times its weight; told apart by numbers, rows are known not to overlap with y."""
    for p in range(len(y)):
        y[p] += (
            weights[s] * _widened(values[s, p])
            + weights[s + 1] * _widened(values[s + 1, p])
            + weights[s + 2] * _widened(values[s + 2, p])
            + weights[s + 3] * _widened(values[s + 3, p])
        )


@_part
def _weigh(query, keys, values, steps, bias, scale, y):
    """Attention of one query, float32 [P], to so many steps of keys and values."""
    scores = np.empty(steps, np.float32)
    highest = np.float32(-np.inf)
    for s in range(steps):
        key, score = keys[s], np.float32(0)
        for p in range(len(query)):
            score += query[p] * _widened(key[p])
        score *= scale
        if len(bias):
            score += bias[s]
        scores[s] = score
        highest = max(highest, score)
    total = np.float32(0)
    for s in range(steps):
        scores[s] = np.float32(math.exp(scores[s] - highest))
        total += scores[s]
    y[:] = 0
    fours = steps // 4 * 4
    for s in range(0, fours, 4):
        _blend(values, s, scores, y)
    for s in range(fours, steps):
        for p in range(len(y)):
            y[p] += scores[s] * _widened(values[s, p])
    for p in range(len(y)):
        y[p] /= total


@_part
def _turn(x, rotation):
    """Rotary positions of one head's query or key, float32 [P], in place."""
    half = len(x) // 2
    for p in range(half):
        first, second = x[p], x[half + p]
        x[p] = first * rotation[0, p] - second * rotation[1, p]
        x[half + p] = second * rotation[0, p] + first * rotation[1, p]


@_part
def _attend(joint, held_at, sizes, like, kept_like, rotation, held, looks_back, mixed, marks, piece):
    """Attention of all heads: `joint` holds queries, and keys and values to be kept where they look back."""
    heads, width = sizes.heads, sizes.head_width
    inner = heads * width
    items = len(joint) * heads
    query, key, y = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    item = _take(marks, piece, items)
    while item >= 0:
        b, h = item // heads, item % heads
        steps = held.lengths[b]
        place = (b * held.row + h * held.head) * kept_like.itemsize
        keys = carray(_pointer(held_at[0] + place, kept_like), (steps, held.step))
        values = carray(_pointer(held_at[1] + place, kept_like), (steps, held.step))
        query[:] = joint[b, h * width : (h + 1) * width]
        if looks_back:
            key[:] = joint[b, inner + h * width : inner + (h + 1) * width]
            if rotation.shape[2]:
                _turn(query, rotation[b])
                _turn(key, rotation[b])
            for p in range(width):
                keys[steps - 1, p] = _narrowed(key[p], kept_like)
                values[steps - 1, p] = _narrowed(joint[b, 2 * inner + h * width + p], kept_like)
        bias = held.bias[min(b, len(held.bias) - 1), min(h, held.bias.shape[1] - 1)]
        _weigh(query, keys, values, steps, bias, sizes.scale, y)
        for p in range(width):
            mixed[b, _seat(h * width + p, inner, like)] = y[p]
        _finish(marks, piece)
        item = _take(marks, piece, items)
    _await(marks, piece, items)


# ---------------------------------------------------------------------------------------------------- what threads call


@_entry
def step(x, table, like, kept_like, sizes, rotation, own, across, buffers, marks):
    """Take rows through all layers, one step.

    Tuples come without their names, which numba takes .6 ms to recognise, one thread after the other.

    Args:
        x: float32 [B, D], changed.
        table: int64 [layers, ADDRESSES].
        like, kept_like: arrays of no size in the formats of weights, which are float32, uint32 (two bfloat16) or int8,
            and of what is kept, float32 or uint16 (bfloat16).
        sizes: of the layers, as in `Sizes`.
        rotation: float32 [B, 2, P / 2], cosines and sines of the step's positions; [B, 2, 0] where nothing turns.
        own: the cache, the step itself counted in, as in `Held`.
        across: the memory, likewise.
        buffers: what threads hand each other, float32: [B, 3 H P], queries, keys and values; [B, H P], what heads
            attended to; [B, F], inside the feed-forward.
        marks: fresh `counters`.
    """
    sizes, own, across = Sizes(*sizes), Held(*own), Held(*across)
    width, inner = x.shape[1], sizes.heads * sizes.head_width
    normed = np.empty(x.shape, np.float32)
    joint, mixed, hidden = buffers
    # A thread that comes late reads rows while others change them, and finds then that nothing is left to take.
    for piece in range(len(table) * _PIECES):
        row, part = table[piece // _PIECES], piece % _PIECES
        if _ASK <= part <= _BRING_ACROSS and not sizes.looks_across:
            continue
        if part in (_LOOK_BACK, _LOOK_ACROSS):
            is_own = part == _LOOK_BACK
            held, held_at = (own, row[KEYS:]) if is_own else (across, row[MEMORY_KEYS:])
            _attend(joint, held_at, sizes, like, kept_like, rotation, held, is_own, mixed, marks, piece)
            continue
        source, target, outputs, way = mixed, x, width, _ADDED
        if _NORM[part]:
            _norm(x, row[_NORM[part] :], sizes, like, normed)
            source, target, outputs, way = normed, joint, 3 * inner if part == _JOIN else inner, _WRITTEN
        if part == _WIDEN:
            target, outputs, way = hidden, sizes.hidden, _GATED if sizes.is_gated else _ACTIVATED
        if part == _NARROW:
            source = hidden
        _multiply(source, row[_LAYER[part] :], outputs, like, way, sizes.activation, target, marks, piece)


@_entry
def product(x, layer, like, y, marks):
    """One linear layer of some rows.

    Args:
        x: float32 [B, in].
        layer: int64 [4], its addresses.
        like: as of `step`.
        y: float32 [B, out], written.
        marks: fresh `counters`.
    """
    seated = np.empty(x.shape, np.float32)
    for b in range(len(x)):
        for i in range(x.shape[1]):
            seated[b, _seat(i, x.shape[1], like)] = x[b, i]
    _multiply(seated, layer, y.shape[1], like, _WRITTEN, RELU, y, marks, 0)
