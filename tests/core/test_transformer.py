"""The stack: what it sees, what a cache changes (nothing), what it costs."""

from __future__ import annotations

import pytest
import torch

from musictool.core.feed_forward import FeedForward, GatedFeedForward
from musictool.core.kv_cache import KeyValues, KVCache, Memory
from musictool.core.packed_linear import PackedLinear, can_pack, pack_linears
from musictool.core.positions import DistanceBias, RelativeBias, Rotary
from musictool.core.transformer import Transformer, build_transformer

POSITIONS = ("none", "rotary", "relative")


def build(positions: str = "none", *, has_memory: bool = False, is_bidirectional: bool = False) -> Transformer:
    torch.manual_seed(5)
    bias = RelativeBias(2, buckets=8, distance_max=12, is_bidirectional=is_bidirectional)
    torch.nn.init.normal_(bias.weight)
    return build_transformer(
        3,
        16,
        2,
        32,
        attends_to_memory=has_memory,
        memory_width=10 if has_memory else None,
        position_bias=bias if positions == "relative" else None,
        memory_bias=DistanceBias(2) if positions == "near" else None,
        rotary=Rotary(8) if positions == "rotary" else None,
    ).eval()


def step_by_step(stack: Transformer, x: torch.Tensor, cache: KVCache, sizes: list[int], memory=None) -> torch.Tensor:
    parts = []
    for part in x.split(sizes, dim=1):
        positions = cache.begin(part.shape[1])
        parts.append(stack(part, positions=positions, cache=cache, memory=memory))
        cache.commit(part.shape[1])
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("positions", [*POSITIONS, "near"])
@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 9, [4, 1, 1, 3], [9]])
def test_cached_decode_equals_full_forward(positions, is_static, sizes):
    stack = build(positions, has_memory=True)
    x, memory = torch.randn(3, 9, 16), stack.remember(torch.randn(3, 5, 10))
    cache = stack.new_cache(3, capacity=12 if is_static else 2, is_static=is_static)
    full = stack(x, is_causal=True, memory=memory)
    torch.testing.assert_close(step_by_step(stack, x, cache, sizes, memory), full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_rows_that_begin_at_different_times_do_not_touch_each_other(positions):
    stack = build(positions)
    x = torch.randn(2, 6, 16)
    full = stack(x, is_causal=True)
    cache = stack.new_cache(2)
    first = [step_by_step_row(stack, cache, x, 0, slice(0, 3))]  # row 0 alone for three steps
    together = []
    for step in range(3):
        positions_now = cache.begin(1)
        now = torch.stack([x[0, 3 + step], x[1, step]])[:, None]
        together.append(stack(now, positions=positions_now, cache=cache))
        cache.commit(1)
    both = torch.cat(together, dim=1)
    torch.testing.assert_close(torch.cat([first[0][0], both[0]]), full[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1], full[1, :3], atol=1e-5, rtol=1e-5)


def step_by_step_row(stack: Transformer, cache: KVCache, x: torch.Tensor, row: int, steps: slice) -> torch.Tensor:
    part = x[row : row + 1, steps]
    positions = cache.begin(part.shape[1], slice(row, row + 1))
    y = stack(part, positions=positions, cache=cache)
    cache.commit(part.shape[1])
    return y


def test_a_moved_row_goes_on_as_it_was_and_a_cleared_one_begins_anew():
    stack = build("rotary")
    x = torch.randn(2, 70, 16)  # beyond one block of memory
    full = stack(x, is_causal=True)
    cache = stack.new_cache(2)
    step_by_step(stack, x[:, :66], cache, [66])
    cache.move(1, 0)
    cache.clear(1)
    positions = cache.begin(1)
    y = stack(torch.stack([x[1, 66:67], x[0, :1]]), positions=positions, cache=cache)
    torch.testing.assert_close(y[0], full[1, 66:67], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y[1], full[0, :1], atol=1e-5, rtol=1e-5)


def test_a_row_moves_with_its_length():
    stack = build("rotary")
    x = torch.randn(2, 6, 16)
    cache = stack.new_cache(2)
    step_by_step_row(stack, cache, x, 0, slice(0, 1))
    step_by_step_row(stack, cache, x, 1, slice(0, 5))
    cache.move(1, 0)
    last = stack(x[1:, 5:], positions=cache.begin(1, slice(0, 1)), cache=cache)
    torch.testing.assert_close(last[0], stack(x, is_causal=True)[1, 5:], atol=1e-5, rtol=1e-5)


def test_a_static_cache_keeps_one_shape_and_refuses_what_does_not_fit():
    stack = build()
    cache = stack.new_cache(1, capacity=3, is_static=True)
    shapes = set()
    for _ in range(3):
        cache.begin(1)
        shapes.add(tuple(cache.visible().shape))
        stack(torch.randn(1, 1, 16), positions=cache.begin(1), cache=cache)
        cache.commit(1)
    assert shapes == {(1, 1, 1, 3)}
    with pytest.raises(ValueError, match="full"):
        cache.begin(1)


@pytest.mark.parametrize("positions", POSITIONS)
def test_model_is_causal(positions):
    stack = build(positions)
    x = torch.randn(1, 7, 16, requires_grad=True)
    for step in range(7):
        (gradient,) = torch.autograd.grad(stack(x, is_causal=True)[0, step].sum(), x)
        reached = gradient[0].abs().sum(dim=-1) > 0
        assert reached[: step + 1].all()
        assert not reached[step + 1 :].any()


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_padding_changes_nothing_and_batched_equals_single(positions, is_causal):
    stack = build(positions, is_bidirectional=not is_causal)
    short, long = torch.randn(1, 4, 16), torch.randn(1, 7, 16)
    padded = torch.cat([short, torch.full((1, 3, 16), 9.0)], dim=1)
    visible = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    batched = stack(torch.cat([padded, long]), visible=visible, is_causal=is_causal)
    torch.testing.assert_close(batched[:1, :4], stack(short, is_causal=is_causal), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batched[1:], stack(long, is_causal=is_causal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["none", "near"])
def test_padding_of_a_memory_changes_nothing(positions):
    stack = build(positions, has_memory=True)
    x, memory = torch.randn(1, 3, 16), torch.randn(1, 4, 10)
    padded = torch.cat([memory, torch.full((1, 2, 10), 9.0)], dim=1)
    visible = torch.tensor([[True] * 4 + [False] * 2])
    expected = stack(x, memory=stack.remember(memory))
    torch.testing.assert_close(stack(x, memory=stack.remember(padded, visible)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["none", "near"])
def test_a_memory_of_rows_holds_shorter_ones_under_a_mask(positions):
    stack = build(positions, has_memory=True)
    long, short = torch.randn(1, 6, 10), torch.randn(1, 4, 10)
    room = stack.remember(long).room_for(2)
    room.put(0, stack.remember(long), 0)
    room.put(1, stack.remember(short), 0)
    x = torch.randn(2, 3, 16)
    y = stack(x, memory=room)
    torch.testing.assert_close(y[:1], stack(x[:1], memory=stack.remember(long)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y[1:], stack(x[1:], memory=stack.remember(short)), atol=1e-5, rtol=1e-5)
    assert room.part(slice(1, 2)).mask().sum() == 4
    room.put(0, room, 1)
    assert isinstance(room, Memory)
    torch.testing.assert_close(stack(x[1:], memory=room.part(slice(0, 1))), y[1:], atol=1e-5, rtol=1e-5)


def heard(stack: Transformer, memory: torch.Tensor, step: int) -> torch.Tensor:
    """How much a step is moved by each step of a memory."""
    memory.requires_grad_()
    said = stack(torch.zeros(1, memory.shape[1], 16), memory=stack.remember(memory))
    (gradient,) = torch.autograd.grad((said[0, step] * torch.linspace(-1, 1, 16)).sum(), memory)
    return gradient[0].norm(dim=-1)


def test_a_biased_memory_is_heard_around_each_step():
    memory, step = 0.1 * torch.randn(1, 200, 10), 100
    for positions in ("none", "near"):
        moved = heard(build(positions, has_memory=True), memory, step)
        around = moved[step - 3 : step + 4].mean()
        far = torch.cat([moved[: step - 40], moved[step + 40 :]]).mean()
        assert (around > 2 * far) == (positions == "near")


def test_a_longer_memory_than_there_is_room_for_is_refused():
    stack = build(has_memory=True)
    room = stack.remember(torch.randn(1, 4, 10)).room_for(1)
    with pytest.raises(ValueError, match="no room"):
        room.put(0, stack.remember(torch.randn(1, 5, 10)), 0)


def test_gradient_checkpointing_changes_no_gradient():
    stack = build("rotary", has_memory=True).train()
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 4, 10)

    def gradients() -> list[torch.Tensor]:
        stack.zero_grad()
        stack(x, is_causal=True, memory=stack.remember(memory)).square().sum().backward()
        return [parameter.grad.clone() for parameter in stack.parameters()]

    plain = gradients()
    stack.checkpoints_gradients = True
    calls = []
    handle = stack.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, gradients(), strict=True))
    handle.remove()
    assert len(calls) == 2  # forward, and again in the backward pass


def test_dropout_is_for_training_alone():
    stack = build_transformer(1, 16, 2, 32, dropout=0.5)
    x = torch.randn(1, 4, 16)
    assert not torch.equal(stack.train()(x), stack(x))
    assert torch.equal(stack.eval()(x), stack(x))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("is_gated", [False, True])
def test_every_parameter_has_a_gradient(norm, is_gated):
    stack = build_transformer(2, 16, 2, 32, norm=norm, is_gated=is_gated, bias=norm == "layer", activation="silu")
    stack(torch.randn(2, 4, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in stack.parameters())


def test_feed_forward_equals_the_formula():
    x = torch.randn(2, 3, 8)
    plain, gated = FeedForward(8, 12, activation="relu"), GatedFeedForward(8, 12, activation="silu")
    torch.testing.assert_close(plain(x), (x @ plain.up.weight.T).clamp(min=0) @ plain.down.weight.T)
    gate = x @ gated.gate.weight.T
    expected = (gate * gate.sigmoid() * (x @ gated.up.weight.T)) @ gated.down.weight.T
    torch.testing.assert_close(gated(x), expected)


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_packed_layers_give_the_same_numbers():
    stack = build("rotary")
    x = torch.randn(2, 5, 16)
    expected = stack(x)
    pack_linears(stack)
    assert not any(isinstance(module, torch.nn.Linear) for module in stack.modules())
    with torch.inference_mode():
        torch.testing.assert_close(stack(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
def test_packed_bfloat16_layers_are_near_and_stay_float32_outside():
    linear = torch.nn.Linear(64, 32)
    x = torch.randn(7, 64)
    with torch.inference_mode():
        y = PackedLinear(linear, torch.bfloat16)(x)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, linear(x), atol=0.05, rtol=0.05)
        assert not torch.equal(y, linear(x))


def test_caches_know_their_rows():
    cache = KVCache(1, 4, 2, 3, capacity=5)
    assert (cache.rows, cache.capacity) == (4, 5)
    assert Memory([KeyValues(torch.zeros(2, 1, 6, 3), torch.zeros(2, 1, 6, 3))]).steps == 6
