"""The note tagger: what it sees, how far it sees, and that it treats all pitches alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.errors import UsageError
from musictool.inference.model_files import load_model
from musictool.models.note_tagger import HEADS, LOWEST_PITCH, PITCHES, NoteTagger, NoteTaggerConfig, harmonic_bins
from musictool.models.registry import build_model, config_from_dict, config_to_dict, load_preset
from tests.small_models import SMALL_NOTE_TAGGER, install_small_note_tagger, random_note_tagger

BINS, WINDOWS = SMALL_NOTE_TAGGER.front_end.bins, len(SMALL_NOTE_TAGGER.front_end.windows_samples)
CONTEXT = SMALL_NOTE_TAGGER.context_frames


@pytest.fixture(scope="module")
def model() -> NoteTagger:
    return random_note_tagger()


def random_frames(*shape: int, bins: int = BINS) -> torch.Tensor:
    """Frames of nothing in particular, float32 [..., M, windows]."""
    return torch.rand(*shape, bins, WINDOWS, generator=torch.Generator().manual_seed(len(shape)))


@torch.no_grad()
def say(model: NoteTagger, frames: torch.Tensor) -> torch.Tensor:
    """The logits of all heads, [heads, B, T, 88]."""
    return torch.stack(tuple(model(frames)))


def test_logits_have_a_number_for_each_head_frame_and_pitch(model):
    said = model(random_frames(2, 7))
    assert said._fields == HEADS
    assert all(logits.shape == (2, 7, PITCHES) and logits.dtype == torch.float32 for logits in said)


def test_a_pitch_sees_three_bins_around_each_of_its_harmonics():
    config = NoteTaggerConfig()
    front_end, bins = config.front_end, harmonic_bins(config)
    assert bins.shape == (PITCHES, len(config.harmonics) * 3)
    for pitch, row in enumerate(bins.view(PITCHES, -1, 3).tolist()):
        for harmonic, seen in zip(config.harmonics, row, strict=True):
            hz = 440 * 2 ** ((pitch + LOWEST_PITCH - 69) / 12) * harmonic
            nearest = min(
                range(-40, front_end.bins + 80), key=lambda bin: abs(front_end.low_hz * 2 ** (bin / 36) / hz - 1)
            )
            wanted = [bin if 0 <= bin < front_end.bins else front_end.bins for bin in range(nearest - 1, nearest + 2)]
            assert seen == wanted


def test_bins_that_are_not_there_are_silence(model):
    frames = random_frames(1, 9)
    more = torch.cat([frames, torch.zeros(1, 9, 30, WINDOWS)], dim=2)
    wide = replace(model.config.front_end, rate_hz=round(16_000 * 2 ** (30 / 36)))
    seeing_more = NoteTagger(replace(model.config, front_end=wide)).eval()
    seeing_more.load_state_dict(model.state_dict())
    assert wide.bins == BINS + 30
    torch.testing.assert_close(say(seeing_more, more), say(model, frames))


def test_what_sounds_a_semitone_higher_is_said_of_the_next_pitch(model):
    frames = random_frames(1, 12)
    higher = torch.roll(frames, 3, dims=2)
    said, said_higher = say(model, frames), say(model, higher)
    reach = 1 + sum(model.config.pitch_dilations) + len(model.config.pitch_dilations)
    inner = slice(12 + reach, PITCHES - 6 - reach)  # lower, half the pitch lies below all bins; higher, twice above
    torch.testing.assert_close(said_higher[..., inner.start + 1 : inner.stop + 1], said[..., inner], atol=1e-4, rtol=0)
    assert (said_higher - said)[..., inner].abs().max() > 0.1


def test_context_frames_is_how_far_a_frame_reaches_and_no_farther(model):
    middle = CONTEXT + 5
    frames = random_frames(1, 2 * middle + 1).requires_grad_()
    for logits in model(frames):
        (gradient,) = torch.autograd.grad(logits[0, middle].square().sum(), frames, retain_graph=True)
        felt = torch.nonzero(gradient.abs().amax((0, 2, 3))).flatten()
        assert (felt[0].item(), felt[-1].item()) == (middle - CONTEXT, middle + CONTEXT)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("frames_at_once", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("frames", [1, 30])
def test_frames_a_few_at_a_time_are_tagged_as_the_whole(model, frames, frames_at_once, rows):
    given = random_frames(rows, frames + 2 * CONTEXT)
    with torch.no_grad():
        said = torch.stack(tuple(model.tag(given, frames_at_once)))
    torch.testing.assert_close(said, say(model, given)[:, :, CONTEXT:-CONTEXT], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_batched_equals_single(model, frames):
    batch = random_frames(3, frames)
    single = torch.cat([say(model, row[None]) for row in batch], dim=1)
    torch.testing.assert_close(say(model, batch), single, atol=1e-4, rtol=0)


def test_blocks_add_to_what_they_get():
    model = random_note_tagger()
    frames = random_frames(1, 9)
    for block in model.blocks:
        torch.nn.init.zeros_(block.near.weight)
        torch.nn.init.zeros_(block.near.bias)
    said = say(model, frames)
    model.blocks = torch.nn.ModuleList()
    assert torch.equal(said, say(model, frames))


def test_an_untrained_model_hears_no_note():
    torch.manual_seed(0)
    said = say(NoteTagger(SMALL_NOTE_TAGGER), random_frames(2, 20))
    assert said.sigmoid().max() < 0.3


def test_the_preset_takes_at_most_6_megabytes_in_half_precision():
    model = build_model(load_preset("note-tagger"))
    assert 2 * sum(tensor.numel() for tensor in model.state_dict().values()) < 6e6


def test_a_stored_model_says_what_it_said(model, tmp_path):
    install_small_note_tagger(tmp_path)
    loaded = load_model("note-tagger", store=Store(tmp_path))
    assert loaded.config == SMALL_NOTE_TAGGER
    frames = random_frames(1, 9)
    assert torch.equal(say(loaded.model, frames), say(model, frames))


def test_a_configuration_comes_back_from_plain_values():
    config = replace(NoteTaggerConfig(), thresholds=replace(NoteTaggerConfig().thresholds, onset=0.25))
    assert config_from_dict(config_to_dict(config)) == config


def test_blocks_have_a_dilation_in_time_and_one_in_pitch():
    with pytest.raises(UsageError, match="equally many"):
        config_from_dict({"family": "note-tagger", "time_dilations": [1, 2], "pitch_dilations": [1]})
