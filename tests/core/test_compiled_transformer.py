"""Compiled steps say what packed ones say, of rows at steps of their own, whoever of the threads does what."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from musictool.core import compiled_transformer
from musictool.core.compiled_transformer import CompiledLinear, CompiledTransformer, can_be_compiled, compile_steps
from musictool.core.feed_forward import Activation
from musictool.core.packed_linear import PackedInt8Linear, PackedLinear, pack_linear
from musictool.core.packed_transformer import pack_transformers
from musictool.core.transformer import Transformer, build_transformer
from musictool.inference import precision
from musictool.inference.precision import make_ready
from tests.core.test_packed_transformer import FORMATS, NEAR, STACKS, in_steps, memory_for, packed, stack_of

pytest.importorskip("numba")

FP32 = FORMATS[:1]


@pytest.fixture
def steps_compiled(monkeypatch):
    """How many steps have been compiled ones so far."""
    taken = []
    run = compiled_transformer._run

    def counted(do, *given, keep):
        taken.append(do.__name__)
        run(do, *given, keep=keep)

    monkeypatch.setattr(compiled_transformer, "_run", counted)
    return taken


def compiled(stack: Transformer, dtype: torch.dtype) -> Transformer:
    fast = packed(stack, dtype)
    assert can_be_compiled(fast)
    return CompiledTransformer(fast)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", sorted(STACKS))
def test_compiled_steps_say_what_plain_ones_say(kind, dtype, steps_compiled):
    plain = stack_of(kind)
    fast = compiled(plain, dtype)
    x, memory = torch.randn(2, 12, 64), memory_for(kind)
    wanted = in_steps(plain, x, [7, 1, 1, 2, 1], memory)
    said = in_steps(fast, x, [7, 1, 1, 2, 1], memory)
    assert steps_compiled == ["step"] * 3
    assert said.dtype == torch.float32
    assert (said - wanted).std() < NEAR[dtype] * wanted.std()
    if dtype == torch.float32:
        torch.testing.assert_close(said, wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("is_gated", [False, True])
def test_a_compiled_activation_is_torchs(activation: Activation, is_gated, dtype):
    torch.manual_seed(0)
    plain = build_transformer(1, 32, 2, 72, activation=activation, is_gated=is_gated, bias=True).eval()
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 9, 32)
    wanted = in_steps(plain, x, [1] * 9, None)
    said = in_steps(compiled(plain, dtype), x, [1] * 9, None)
    assert (said - wanted).std() < NEAR[dtype] * wanted.std()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_rows_are_at_steps_of_their_own_and_see_no_padding(dtype, steps_compiled):
    """Three rows, of which the last two step, one at step 2 and one at step 5; of their memories one is cut short."""
    plain = stack_of("as SaxGPT's")
    fast = compiled(plain, dtype)
    x, states = torch.randn(3, 6, 64), torch.randn(3, 5, 64)
    visible = torch.tensor([[True] * 5, [True] * 5, [True] * 2 + [False] * 3])
    said = {}
    for name, stack in (("plain", plain), ("compiled", fast)):
        cache, memory = stack.new_cache(3, capacity=8), stack.remember(states, visible)
        stack(x[:, :5], positions=cache.begin(5), cache=cache, memory=memory)
        cache.commit(torch.tensor([4, 2, 5]))
        rows = slice(1, 3)
        positions = cache.begin(1, rows)
        assert positions.flatten().tolist() == [2, 5]
        said[name] = stack(x[rows, 5:], positions=positions, cache=cache, memory=memory.part(rows))
        cache.commit(1)
        said[name + " keys"] = cache.room()[0][1].keys[1, :, :3].float()
    assert steps_compiled == ["step"]
    near = 1e-5 if dtype == torch.float32 else 2 * NEAR[dtype]
    assert (said["compiled"] - said["plain"]).std() < near * said["plain"].std()
    assert (said["compiled keys"] - said["plain keys"]).std() < near * said["plain keys"].std()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("rows", [2, 3, 9])
def test_a_row_says_the_same_beside_others_to_the_bit(rows, dtype, steps_compiled):
    fast = compiled(stack_of("turned, with biases"), dtype)
    x = torch.randn(rows, 3, 64)
    beside = in_steps(fast, x, [1] * 3, None)
    assert len(steps_compiled) == 3
    for row in range(rows):
        assert torch.equal(in_steps(fast, x[row : row + 1], [1] * 3, None)[0], beside[row])


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_any_number_of_threads_says_the_same_to_the_bit(dtype, own_threads):
    fast, memory = compiled(stack_of("as MusicGen's"), dtype), memory_for("as MusicGen's")
    x = torch.randn(2, 40, 64)
    said = []
    for threads in (1, 2, 3, 7, 1):
        torch.set_num_threads(threads)
        said.append(in_steps(fast, x, [1] * 40, memory))
    assert all(torch.equal(each, said[0]) for each in said)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(64, 32), (20, 8), (2, 4), (34, 132)])
def test_a_compiled_layer_says_what_its_weights_say(sizes, bias, dtype, steps_compiled):
    torch.manual_seed(0)
    linear = nn.Linear(*sizes, bias=bias)
    fast = CompiledLinear(pack_linear(linear, dtype))
    for shape in ((1,), (6,), (3, 1), (9, 1), (1, 2), (5, 7)):
        x = torch.randn(*shape, sizes[0])
        near = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(fast(x), linear(x), rtol=near, atol=2 * near)
        if len(shape) < 2 or shape[1] == 1:
            alone = torch.cat([fast(row[None]) for row in x.reshape(-1, sizes[0])])
            assert torch.equal(fast(x).reshape(alone.shape), alone)
    assert steps_compiled == ["product"] * (2 * 4 + 1 + 6 + 3 + 9)
    assert fast(torch.randn(0, sizes[0])).shape == (0, sizes[1])


def test_what_kernels_can_not_read_stays_packed():
    odd = nn.Sequential(nn.Linear(64, 30), nn.Linear(31, 64), nn.Linear(64, 64))
    odd.stack = build_transformer(1, 30, 1, 33)
    pack_transformers(odd)
    compile_steps(odd, weights_min=0)
    assert [type(part) for part in odd[:3]] == [PackedLinear, PackedLinear, CompiledLinear]
    assert type(odd.stack) is Transformer
    gated = nn.Module()
    gated.stack = build_transformer(1, 32, 1, 34, is_gated=True)  # 68 gates and values are a multiple of four
    pack_transformers(gated)
    compile_steps(gated, weights_min=0)
    assert type(gated.stack) is Transformer
    eight = nn.Sequential(nn.Linear(8, 6))
    pack_transformers(eight, torch.int8)
    compile_steps(eight, weights_min=0)
    assert isinstance(eight[0], PackedInt8Linear)


def large_model() -> nn.Module:
    """A few weights less than it takes to be compiled."""
    model = nn.Module()
    model.head = nn.utils.skip_init(nn.Linear, 4, 4)
    model.stack = build_transformer(1, 2048, 2, 4093, is_gated=False)  # 4 D^2 + 2 D F = 2^25 - 6 D
    return model


def test_large_models_that_say_steps_are_compiled_and_no_others(monkeypatch):
    here = torch.device("cpu")
    assert type(make_ready(large_model(), here, says_steps=True).head) is PackedLinear
    monkeypatch.setattr(precision, "compile_steps", partial(compile_steps, weights_min=4 * 2048**2))
    assert type(make_ready(large_model(), here, says_steps=True).head) is CompiledLinear
    assert type(make_ready(large_model(), here).head) is PackedLinear
    with monkeypatch.context() as broken:  # as beside a numpy that numba does not take
        broken.setattr(compiled_transformer, "_kernels", lambda: importlib.import_module("musictool.core.nothing"))
        assert type(make_ready(large_model(), here, says_steps=True).head) is PackedLinear
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as where numba is not installed
    assert type(make_ready(large_model(), here, says_steps=True).head) is PackedLinear


def said_elsewhere(folder: Path) -> bytes:
    """What a process of its own says, which finds compiled steps in a folder or leaves them there."""
    code = """
        import sys, torch
        from tests.core.test_compiled_transformer import compiled, in_steps, memory_for, stack_of
        with torch.inference_mode():
            fast, memory = compiled(stack_of("as MusicGen's"), torch.bfloat16), memory_for("as MusicGen's")
            said = in_steps(fast, torch.randn(2, 40, 64), [1] * 40, memory)
        sys.stdout.buffer.write(said.numpy().tobytes())
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.run([sys.executable, "-c", lines], env=environment, stdout=subprocess.PIPE, check=True).stdout


def test_processes_that_compile_and_those_that_load_say_the_same_to_the_bit(tmp_path):
    first = said_elsewhere(tmp_path)
    kept = sorted(tmp_path.rglob("*.nbc"))
    assert len(first) == 2 * 40 * 64 * 4
    assert kept
    assert said_elsewhere(tmp_path) == first
    assert sorted(tmp_path.rglob("*.nbc")) == kept


def test_a_process_ends_when_the_last_thread_is_back():
    """One that comes back from compiled code to an interpreter that has ended takes the process down."""
    code = """
        import os, threading, time
        from musictool.core.compiled_transformer import Team
        def come_late(words):
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.3)
                os.write(1, words)
        Team(2).run(come_late, b"back")
        raise SystemExit(7)
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "backback", "")


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FP32, ids=str)
def test_a_model_of_packed_blocks_alone_is_what_can_be_compiled(dtype):
    stack = stack_of("as T5's")
    assert not can_be_compiled(stack)
    model = nn.Module()
    model.stack = packed(stack, dtype)
    compile_steps(model, weights_min=0)
    assert isinstance(model.stack, CompiledTransformer)
    x = torch.randn(1, 4, 64)
    np.testing.assert_allclose(model.stack(x).numpy(), stack(x).numpy(), rtol=1e-4, atol=1e-5)
