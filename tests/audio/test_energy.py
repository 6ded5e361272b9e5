"""Where a sound is loud for long."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.audio.energy import PowerMeter, loud_spans


def spans_by_hand(power: np.ndarray, frame: int, threshold: float) -> list[tuple[int, int]]:
    """Each hop that some loud frame covers, put into runs."""
    frame = min(frame, len(power))
    covered = np.zeros(len(power), bool)
    for start in range(len(power) - frame + 1):
        if frame and np.sqrt(power[start : start + frame].mean()) >= threshold:
            covered[start : start + frame] = True
    spans, start = [], None
    for hop, is_loud in enumerate([*covered, False]):
        if is_loud and start is None:
            start = hop
        elif not is_loud and start is not None:
            spans.append((start, hop))
            start = None
    return spans


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_what_loud_frames_cover(seed):
    generator = np.random.default_rng(seed)
    power = generator.uniform(0, 1, generator.integers(0, 60)) ** 4
    frame = int(generator.integers(1, 12))
    assert loud_spans(power, frame, 0.5) == spans_by_hand(power, frame, 0.5)


def test_a_loud_stretch_between_silences():
    power = np.zeros(100)
    power[40:60] = 0.04
    assert loud_spans(power, 5, 0.199) == [(40, 60)]
    assert loud_spans(power, 5, 0.12) == [(37, 63)]  # two of five hops are enough
    assert loud_spans(power, 5, 0.201) == []


def test_a_sound_shorter_than_a_frame_is_one_frame():
    assert loud_spans(np.full(3, 0.04), 50, 0.19) == [(0, 3)]
    assert loud_spans(np.zeros(0), 50, 0.0) == []


def test_blocks_of_any_size_give_the_same_power():
    sound = np.random.default_rng(0).normal(0, 0.1, (1003, 2)).astype(np.float32)
    wanted = np.square(sound[:1000].astype(np.float64)).mean(axis=1).reshape(100, 10).mean(axis=1)
    for size in (1, 7, 10, 640, 2000):
        meter = PowerMeter(10)
        for start in range(0, len(sound), size):
            meter.add(sound[start : start + size])
        np.testing.assert_allclose(meter.power, wanted, rtol=1e-12)
