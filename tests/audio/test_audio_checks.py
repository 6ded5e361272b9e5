"""Facts of sound files and what is found wrong with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.audio import checks
from musictool.audio.checks import AudioRules, inspect_audio, judge_audio
from musictool.errors import InputError

RATE = 8000
TONE = np.sin(np.arange(2 * RATE) / 5)[:, None] * [0.5, 0.25]


def file_of(samples: np.ndarray, container: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    file.seek(0)
    return file


def rules_broken(file: io.BytesIO | Path) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in judge_audio(inspect_audio(file), AudioRules())}


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("AIFF", "PCM_16")],
)
def test_a_sound_file_has_its_facts_and_no_findings(container, subtype):
    facts = inspect_audio(file_of(TONE, container, subtype))
    assert (facts.container, facts.rate_hz, facts.channels, facts.frames) == (container, RATE, 2, len(TONE))
    assert facts.duration_seconds == 2.0
    assert facts.peak == pytest.approx(0.5, abs=0.05)
    assert not judge_audio(facts, AudioRules())


@pytest.mark.parametrize("container", ["WAV", "AIFF", "OGG", "FLAC"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_cut_file_is_noticed(container, share):
    subtype = "VORBIS" if container == "OGG" else "PCM_16"
    whole = file_of(TONE, container, subtype).getvalue()
    cut = io.BytesIO(whole[: int(len(whole) * share)])
    try:
        broken = rules_broken(cut)
    except InputError:  # libsndfile could not go on from there
        return
    assert "audio.truncated" in broken


def test_a_length_that_was_never_filled_in_is_no_cut():
    data = bytearray(file_of(TONE).getvalue())
    data[4:8] = data[40:44] = b"\xff" * 4  # as ffmpeg writes into a pipe
    assert not rules_broken(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"no sound at all"])
def test_what_is_no_sound_is_unreadable(data, tmp_path):
    with pytest.raises(InputError, match="unreadable audio"):
        inspect_audio(io.BytesIO(data))
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        inspect_audio(path)
    assert caught.value.context == str(path)


def test_blocks_make_no_difference(monkeypatch):
    sound = np.concatenate([np.zeros((RATE // 3, 2)), TONE, np.zeros((RATE // 7, 2))])
    whole = inspect_audio(file_of(sound))
    monkeypatch.setattr(checks, "BLOCK_SAMPLES", 1)
    assert inspect_audio(file_of(sound)) == whole


def test_silence_is_measured_in_windows():
    silence = np.zeros((RATE, 2))
    facts = inspect_audio(file_of(np.concatenate([silence, TONE, silence])))
    assert facts.leading_silence_seconds == 1.0
    assert facts.silence_share == 0.5
    assert rules_broken(file_of(silence)) == {"audio.silence": "error"}
    assert inspect_audio(file_of(silence)).leading_silence_seconds == 1.0
    faint = inspect_audio(file_of(TONE * 1e-3), silence_db=-80)
    assert faint.silence_share == 0.0
    assert inspect_audio(file_of(TONE * 1e-3), silence_db=-50).silence_share == 1.0


def test_no_frames_is_no_duration():
    assert rules_broken(file_of(np.zeros((0, 1)))) == {"audio.duration": "error"}


def test_clipping_is_a_share_of_the_samples():
    loud = np.clip(TONE * 4, -1, 1)
    assert rules_broken(file_of(loud)) == {"audio.clipping": "warning"}
    expected = np.count_nonzero(np.abs(loud) >= checks.FULL_SCALE) / loud.size
    assert inspect_audio(file_of(loud)).clipped_share == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_counted_and_spoil_nothing_else(value):
    spoilt = TONE.copy()
    spoilt[7, 1] = value
    facts = inspect_audio(file_of(spoilt, subtype="FLOAT"))
    assert facts.unusable_samples == 1
    assert facts.peak == pytest.approx(0.5, abs=0.01)
    assert [finding.rule for finding in judge_audio(facts, AudioRules())] == ["audio.unusable_samples"]


def test_the_digest_is_of_the_sound_and_not_of_its_file():
    samples = (TONE * 20_000).astype(np.int16)
    wav, flac = inspect_audio(file_of(samples)), inspect_audio(file_of(samples, "FLAC"))
    assert wav.digest == flac.digest
    others = [file_of(samples // 2), file_of(samples, rate=RATE * 2), file_of(samples[:-1]), file_of(samples[:, :1])]
    assert len({wav.digest, *(inspect_audio(other).digest for other in others)}) == 5
