"""Codecs in pieces: the same codes and the same sound however they come, of the exact length; and what is refused."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musictool.checkpoints.formats import open_checkpoint
from musictool.checkpoints.store import Store
from musictool.core.packed_convolution import can_pack_convolutions, pack_convolutions
from musictool.errors import InputError, MissingError, ResourceError, UsageError
from musictool.inference import codec_streaming
from musictool.inference.codec_streaming import CodeBlock, CodecModel, Decoder, Encoder, load_codec
from musictool.models.codec import Codec, CodecConfig
from musictool.models.registry import foreign_names
from tests.small_models import SMALL_CODEC, install_codec, install_small_note_tagger

CAUSAL = CodecConfig(
    rate_hz=1200, width=8, filters=4, ratios=(4, 2), codebooks=4, codebook_size=16, bandwidths_kbps=(0.6, 2.4)
)
IN_SEGMENTS = replace(CAUSAL, channels=2, is_causal=False, norm="group", normalises=True, segment_seconds=1.0)
CONFIGS = {
    "causal": CAUSAL,
    "strided": replace(
        CAUSAL, ratios=(2,), stem_stride=4, stem_kernel=16, residual_layers=2, dilation_growth=3, pad_mode="constant"
    ),
    "looking ahead": replace(CAUSAL, channels=2, is_causal=False, lstm_layers=1),
    "in segments": IN_SEGMENTS,
    "in long fades": replace(IN_SEGMENTS, overlap=0.2),
}
"""All with frames of 8 samples. Segments are of 150 frames and overlap by one and a half, as EnCodec's do, or by 30."""

HOP, SEGMENT, STRIDE = 8, 1200, 1188
LENGTHS = (0, 1, 7, 8, 9, 100, 961, 980, 1188, 1189, 1196, 1197, 1199, 1200, 1201, 2376 + 3, 2376 + 6, 2376 + 11, 6000)
THE_PACKAGE_CANNOT_DECODE = (("in segments", 1196), ("in segments", 2376 + 6))  # it adds a segment into less room

Sound = NDArray[np.float32]


@lru_cache
def plain_model(kind: str) -> Codec:
    """A random model whose codes vary and whose sound is about as loud as what it was made from."""
    torch.manual_seed(3)
    model = Codec(CONFIGS[kind]).eval()
    with torch.inference_mode():
        audio = torch.randn(1, model.config.channels, 400)
        latents = model.encoder(audio)
        for level, codebook in enumerate(model.quantizer.codebooks):
            codebook.entries.copy_(torch.randn_like(codebook.entries) * latents.std() * 0.7**level)
        last = model.decoder.layers[-1].conv
        gain = 0.3 / model.decode(model.encode(audio)).std()
        last.weight.mul_(gain)
        last.bias.mul_(gain)
    return model


@lru_cache
def codec_of(kind: str) -> CodecModel:
    """The same, packed, where that can be."""
    model = copy.deepcopy(plain_model(kind))
    if can_pack_convolutions():
        pack_convolutions(model)
    return CodecModel(model, f"the codec {kind}", "0" * 64)


def sound(kind: str, samples: int, seed: int = 0) -> Sound:
    """Noise that swells and fades."""
    swell = 0.3 + 0.2 * np.sin(np.arange(samples) / 500)
    noise = np.random.default_rng(seed).normal(0, 1, (CONFIGS[kind].channels, samples))
    return (noise * swell).astype(np.float32)


def cut(length: int, sizes: list[int]) -> list[slice]:
    """Stretches of some sizes, again and again, until all of a length lies in one."""
    edges = [0]
    while edges[-1] < length:
        edges.append(min(length, edges[-1] + sizes[(len(edges) - 1) % len(sizes)]))
    return [slice(*pair) for pair in pairwise(edges)]


class Coded(NamedTuple):
    """All codes and scales of a sound, and the frames that segments begin with."""

    codes: NDArray[np.int32]
    scales: Sound
    firsts: NDArray[np.int64]


def encode(kind: str, audio: Sound, sizes: list[int], **options: float) -> Coded:
    """Encode sound that comes in pieces."""
    encoder = Encoder(codec_of(kind), **options)
    pieces = [encoder.push(audio[:, piece]) for piece in cut(audio.shape[1], sizes)]
    blocks = [block for piece in [*pieces, encoder.finish()] for block in piece]
    assert encoder.samples == audio.shape[1]
    codes, scales = zip(CodeBlock(np.zeros((options.get("levels", 4), 0), np.int32)), *blocks, strict=True)
    assert all(part.dtype == np.int32 for part in codes)
    starts = np.cumsum([part.shape[1] for part in codes])[:-1]
    return Coded(np.concatenate(codes, 1), np.concatenate(scales), starts[[len(part) > 0 for part in scales[1:]]])


def decode(
    kind: str, coded: Coded, sizes: list[int], samples: int | None = None, early: int = 0, **options: float
) -> Sound:
    """Decode codes that come in pieces, with each scale so many frames before its segment at the most."""
    decoder = Decoder(codec_of(kind), **options)
    sounds, given = [np.zeros((CONFIGS[kind].channels, 0), np.float32)], 0
    for piece in cut(coded.codes.shape[1], sizes):
        known = int((coded.firsts < piece.stop + early).sum())
        sounds.append(decoder.push(CodeBlock(coded.codes[:, piece], coded.scales[given:known])))
        given = known
    return np.concatenate([*sounds, decoder.finish(samples)], 1)


def whole(kind: str, audio: Sound, levels: int | None = None) -> tuple[NDArray[np.int64], Sound]:
    """Codes and sound by the plain model at once; not of segments."""
    model = plain_model(kind)
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(audio)[None], levels)
        return codes[0].numpy(), model.decode(codes)[0, :, : audio.shape[1]].numpy()


# ------------------------------------------------------------------------------------------------- pieces and the whole


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.integers(0, 6000),
    st.lists(st.integers(1, 12_000), min_size=1, max_size=4),
    st.lists(st.integers(1, 1500), min_size=1, max_size=4),
    st.sampled_from([None, 0.1, 3.0]),
    st.integers(0, 400),
)
@settings(max_examples=40, deadline=None)
def test_sound_and_codes_in_pieces_give_bit_for_bit_what_they_give_at_once(kind, samples, sizes, cuts, latency, early):
    audio = sound(kind, samples)
    coded = encode(kind, audio, sizes, latency_seconds=latency)
    for in_pieces, at_once in zip(coded, encode(kind, audio, [samples], latency_seconds=latency), strict=True):
        np.testing.assert_array_equal(in_pieces, at_once)
    in_pieces = decode(kind, coded, cuts, samples, early, latency_seconds=latency)
    at_once = decode(kind, coded, [samples], samples, latency_seconds=latency)
    assert in_pieces.shape == audio.shape
    np.testing.assert_array_equal(in_pieces, at_once)


@pytest.mark.parametrize("latency", [None, 0.1])
@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("kind", ["causal", "strided", "looking ahead"])
def test_chunked_equals_whole(kind, samples, latency):
    audio = sound(kind, samples)
    coded = encode(kind, audio, [1, 30, 12_000], latency_seconds=latency)
    assert coded.codes.shape == (4, -(-samples // HOP))
    assert not len(coded.scales)
    decoded = decode(kind, coded, [1, 13, 500], samples, latency_seconds=latency)
    assert decoded.shape == audio.shape
    if samples:
        wanted_codes, wanted_sound = whole(kind, audio)
        np.testing.assert_array_equal(coded.codes, wanted_codes)
        np.testing.assert_allclose(decoded, wanted_sound, rtol=0, atol=1e-5)
        assert samples < 100 or (decoded.std() > 0.05 and len(np.unique(coded.codes)) > 8)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_one_sample_at_a_time_is_enough(kind):
    audio = sound(kind, 1300)
    coded = encode(kind, audio, [1], latency_seconds=0.001)  # blocks of one hop
    np.testing.assert_array_equal(coded.codes, encode(kind, audio, [1300]).codes)
    in_pieces = decode(kind, coded, [1], 1300, latency_seconds=0.001)
    np.testing.assert_allclose(in_pieces, decode(kind, coded, [1300], 1300), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_fewer_levels_are_the_first_rows_of_more(kind):
    audio = sound(kind, 3000)
    many, few = encode(kind, audio, [700]), encode(kind, audio, [700], levels=2)
    np.testing.assert_array_equal(few.codes, many.codes[:2])
    np.testing.assert_array_equal(few.scales, many.scales)
    assert not np.allclose(decode(kind, few, [9]), decode(kind, many, [9]), atol=0.05)


def test_a_stream_gives_codes_and_sound_as_soon_as_they_are_known():
    encoder = Encoder(codec_of("causal"), latency_seconds=HOP / 1200)
    decoder = Decoder(codec_of("causal"), latency_seconds=HOP / 1200)
    audio = sound("causal", 40 * HOP)
    frames = samples = 0
    for number, piece in enumerate(cut(40 * HOP, [HOP]), 1):
        for block in encoder.push(audio[:, piece]):
            frames += block.codes.shape[1]
            samples += decoder.push(block).shape[1]
        if number > 6:  # the first frames wait for what is reflected before them, in one layer after the other
            assert frames == number
        if number > 12:
            assert samples == frames * HOP - (HOP - 1)


def test_a_block_is_no_longer_than_the_latency_that_is_asked_for():
    encoder = Encoder(codec_of("causal"), latency_seconds=0.1)  # 15 frames
    codes = [[block.codes.shape[1] for block in encoder.push(sound("causal", HOP))] for _ in range(45)]
    assert [number for number, block in enumerate(codes) if block] == [14, 29, 44]
    assert [codes[number] for number in (14, 29, 44)] == [[15]] * 3


def test_segments_come_one_a_block_each_with_its_scale():
    encoder = Encoder(codec_of("in segments"), latency_seconds=1.0)
    audio = sound("in segments", 3000)
    assert [block.codes.shape for block in encoder.push(audio[:, :SEGMENT])] == [(4, 150)]
    assert not encoder.push(audio[:, SEGMENT : SEGMENT + STRIDE - 1])
    (block,) = encoder.push(audio[:, SEGMENT + STRIDE - 1 :])
    loudness = np.sqrt(np.square(audio[:, STRIDE : STRIDE + SEGMENT].mean(0)).mean())
    np.testing.assert_allclose(block.scales, [loudness], rtol=1e-5)
    assert [rest.codes.shape for rest in encoder.finish()] == [(4, (3000 - 2 * STRIDE) // HOP)]


def test_a_segment_becomes_sound_as_soon_as_it_is_whole():
    codes, scales, _ = encode("in segments", sound("in segments", 3000), [3000])
    decoder = Decoder(codec_of("in segments"), latency_seconds=1.0)
    assert decoder.push(CodeBlock(codes[:, :149], scales[:1])).shape == (2, 0)
    assert decoder.push(CodeBlock(codes[:, 149:150])).shape == (2, STRIDE - HOP + 1)
    assert decoder.push(CodeBlock(codes[:, 150:310], scales[1:])).shape == (2, STRIDE)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_memory_does_not_grow_with_the_sound(kind):
    encoder, decoder = Encoder(codec_of(kind)), Decoder(codec_of(kind))
    audio, held = sound(kind, 6000), []
    for _ in range(8):
        for block in encoder.push(audio):
            decoder.push(block)
        held.append(bytes_in(encoder) + bytes_in(decoder))
    assert 0 < max(held[4:]) <= max(held[:4])


def bytes_in(thing: object) -> int:
    """What the tensors and arrays inside an object hold on to, the model left out."""
    if isinstance(thing, CodecModel):
        return 0
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes()
    if isinstance(thing, np.ndarray):
        return bytes_in(thing.base) if thing.base is not None else thing.nbytes
    inner = thing if isinstance(thing, (list, tuple, deque)) else getattr(thing, "__dict__", {}).values()
    return sum(map(bytes_in, inner))


# ------------------------------------------------------------------------------------------------------- the package's


@pytest.fixture(scope="module", params=["in segments", "in long fades"])
def of_package(request, tmp_path_factory):
    """The package's model with random weights, and ours with the same."""
    oracle = pytest.importorskip("tests.models.codec_oracle")
    config = CONFIGS[request.param]
    theirs = oracle.package_model(config)
    path = tmp_path_factory.mktemp("weights") / "segments.th"
    torch.save(theirs.state_dict(), path)
    checkpoint, _ = foreign_names(config)["encodec"].to_ours(open_checkpoint(path))
    model = Codec(config).eval()
    model.load_state_dict({name: tensor.read() for name, tensor in checkpoint.tensors.items()})
    pack_convolutions(model)
    return theirs, CodecModel(model, request.param, "0" * 64)


@pytest.mark.parametrize("kbps", CAUSAL.bandwidths_kbps)
@pytest.mark.parametrize("samples", LENGTHS[1:])
def test_segments_are_those_of_the_package(of_package, samples, kbps):
    theirs, codec = of_package
    theirs.set_target_bandwidth(kbps)
    audio = sound("in segments", samples)
    with torch.inference_mode():
        wanted = theirs.encode(torch.from_numpy(audio)[None])
    encoder = Encoder(codec, codec.model.config.levels_for(kbps))
    blocks = [*encoder.push(audio), *encoder.finish()]
    assert len(blocks) == len(wanted)
    for block, (codes, scale) in zip(blocks, wanted, strict=True):
        np.testing.assert_array_equal(block.codes, codes[0].numpy())
        np.testing.assert_allclose(block.scales, scale[0].numpy(), rtol=1e-6)
    decoder = Decoder(codec)
    decoded = np.concatenate([*map(decoder.push, blocks), decoder.finish(samples)], 1)
    if (codec.name, samples) not in THE_PACKAGE_CANNOT_DECODE:
        with torch.inference_mode():
            theirs_decoded = theirs.decode(wanted)[0, :, :samples].numpy()
        np.testing.assert_allclose(decoded, theirs_decoded, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("samples", LENGTHS)
def test_sound_comes_back_as_long_as_it_was(kind, samples):
    decoded = decode(kind, encode(kind, sound(kind, samples), [1000]), [100], samples)
    assert decoded.shape == (CONFIGS[kind].channels, samples)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("samples", [1188, 1301])
def test_without_a_length_sound_ends_with_its_last_frame(kind, samples):
    coded = encode(kind, sound(kind, samples), [samples])
    before = (CONFIGS[kind].stride_samples or 0) * max(0, len(coded.scales) - 1)
    whole_frames = before + -(-(samples - before) // HOP) * HOP
    assert decode(kind, coded, [10]).shape[1] == whole_frames
    assert decode(kind, coded, [10], whole_frames - HOP + 1).shape[1] == whole_frames - HOP + 1


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("off", [-HOP, 1])
def test_a_length_that_codes_cannot_have_is_refused(kind, off):
    coded = encode(kind, sound(kind, 1304), [2000])
    most = decode(kind, coded, [1000]).shape[1]
    with pytest.raises(InputError, match=f"the codes of {most} samples cannot be of {most + off}"):
        decode(kind, coded, [1000], most + off)
    with pytest.raises(InputError, match="the codes of 0 samples"):
        Decoder(codec_of(kind)).finish(1)


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_sound_that_is_no_numbers_is_refused_with_its_place(value):
    encoder = Encoder(codec_of("looking ahead"))
    encoder.push(sound("looking ahead", 1200))
    audio = sound("looking ahead", 1200)
    audio[1, 600] = value
    with pytest.raises(InputError, match=rf"^a sample of {value} at 1\.500 s$"):
        encoder.push(audio)


def test_other_channels_are_refused():
    with pytest.raises(UsageError, match="takes sound of 2 channels, not 1"):
        Encoder(codec_of("looking ahead")).push(sound("causal", 10))


@pytest.mark.parametrize("levels", [0, 5, -1])
def test_codebooks_that_are_not_there_are_refused(levels):
    with pytest.raises(UsageError, match=f"has 1 to 4 codebooks, not {levels}"):
        Encoder(codec_of("causal"), levels)


@pytest.mark.parametrize("code", [-1, 16, 2**31 - 1])
def test_a_code_out_of_range_is_refused_with_its_place(code):
    decoder = Decoder(codec_of("causal"))
    decoder.push(CodeBlock(np.zeros((3, 5), np.int32)))
    codes = np.zeros((3, 5), np.int32)
    codes[2, 1] = code
    with pytest.raises(InputError, match=rf"^no such code: {code} \(codebook 3, frame 6\)$") as raised:
        decoder.push(CodeBlock(codes))
    assert "16 entries" in raised.value.hint


@pytest.mark.parametrize("rows", [0, 5])
def test_more_rows_than_codebooks_are_refused(rows):
    with pytest.raises(InputError, match=f"{rows} rows of codes, and the codec causal has 4 codebooks"):
        Decoder(codec_of("causal")).push(CodeBlock(np.zeros((rows, 5), np.int32)))


def test_rows_that_change_are_refused():
    decoder = Decoder(codec_of("causal"))
    decoder.push(CodeBlock(np.zeros((3, 0), np.int32)))
    with pytest.raises(InputError, match="2 rows of codes after 3"):
        decoder.push(CodeBlock(np.zeros((2, 5), np.int32)))


def test_scales_where_the_codec_has_none_are_refused():
    with pytest.raises(InputError, match="codes with scales"):
        Decoder(codec_of("causal")).push(CodeBlock(np.zeros((3, 5), np.int32), np.ones(1, np.float32)))


@pytest.mark.parametrize("scale", [np.nan, np.inf, 0.0, -1.0])
def test_scales_that_are_no_factors_are_refused(scale):
    block = CodeBlock(np.zeros((3, 5), np.int32), np.full(1, scale, np.float32))
    with pytest.raises(InputError, match="no number above 0"):
        Decoder(codec_of("in segments")).push(block)


@pytest.mark.parametrize(("frames", "scales"), [(1, 0), (151, 1), (301, 1)])
def test_segments_without_a_scale_are_refused(frames, scales):
    block = CodeBlock(np.zeros((3, frames), np.int32), np.ones(scales, np.float32))
    with pytest.raises(InputError, match="codes of a segment without its scale"):
        Decoder(codec_of("in segments")).push(block)


@pytest.mark.parametrize(("frames", "scales"), [(0, 1), (149, 2), (299, 3)])
def test_scales_without_a_segment_are_refused(frames, scales):
    decoder = Decoder(codec_of("in segments"))
    decoder.push(CodeBlock(np.zeros((3, frames), np.int32), np.ones(scales, np.float32)))
    with pytest.raises(InputError, match="frames of codes in the last"):
        decoder.finish()


# -------------------------------------------------------------------------------------------------------------- loading


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_codec(home)
    install_small_note_tagger(home)
    return Store(home)


def codes_by(codec: CodecModel) -> NDArray[np.int32]:
    audio = np.random.default_rng(0).normal(0, 0.1, (1, SMALL_CODEC.rate_hz)).astype(np.float32)
    encoder = Encoder(codec)
    return np.concatenate([block.codes for block in [*encoder.push(audio), *encoder.finish()]], 1)


def test_a_codec_from_the_store_is_ready(store):
    codec = load_codec(device="cpu", store=store)
    assert (codec.name, len(codec.sha256)) == ("codec-24khz", 64)
    assert codes_by(codec).shape == (8, 75)


def test_a_codec_that_cannot_be_packed_says_the_same(store, monkeypatch):
    packed = codes_by(load_codec(device="cpu", store=store))
    monkeypatch.setattr(codec_streaming, "can_pack_convolutions", lambda: False)
    np.testing.assert_array_equal(codes_by(load_codec(device="cpu", store=store)), packed)


@pytest.mark.parametrize("is_packed", [False, True])
def test_bf16_gives_most_of_the_codes_of_fp32(store, monkeypatch, is_packed):
    exact = codes_by(load_codec(device="cpu", store=store))
    if not is_packed:
        monkeypatch.setattr(codec_streaming, "can_pack_convolutions", lambda: False)
    codec = load_codec(device="cpu", store=store, precision="bf16")
    rough = codes_by(codec)
    assert (rough[0] == exact[0]).mean() > 0.7
    assert not np.array_equal(rough, exact)
    rough_sound, exact_sound = (
        np.concatenate([decoder.push(CodeBlock(exact)), decoder.finish()], 1)
        for decoder in map(Decoder, (codec, load_codec(device="cpu", store=store)))
    )
    assert rough_sound.dtype == np.float32
    assert 0 < np.abs(rough_sound - exact_sound).max() < 0.1


def test_what_is_no_codec_or_not_there_is_said_so(store):
    with pytest.raises(UsageError, match="note-tagger is no codec"):
        load_codec("note-tagger", store=store)
    with pytest.raises(MissingError):
        load_codec("no-such-codec", store=store)
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError):
            load_codec(device="cuda:7", store=store)
