"""SoundFont files: what is read, what is refused, and what a zone's generators do to the sound."""

from __future__ import annotations

import struct
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes, Pedals
from musictool.symbolic.sampler import Sampler
from musictool.symbolic.soundfont import DRUM_BANK, SoundFont
from musictool.symbolic.soundfont_regions import Generator
from musictool.symbolic.synthesis import SHIPPED_FONT, render
from tests.symbolic.pitch_measure import cents, key_hz, measured_pitch_hz

RATE_HZ = 44_100
SHIPPED = Path(str(resources.files("musictool"))) / "assets" / "soundfonts" / SHIPPED_FONT
CYCLE_FRAMES = 100  # of the test fonts' sample: 441 Hz at 44.1 kHz
SAMPLE_FRAMES = 50 * CYCLE_FRAMES

GeneratorList = list[tuple[int, int]]


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def bags(zones: list[GeneratorList]) -> tuple[bytes, bytes]:
    """The bag and generator chunks' bodies of a list of zones."""
    starts = np.concatenate([[0], np.cumsum([len(zone) for zone in zones])])
    body = b"".join(struct.pack("<HH", start, 0) for start in starts)
    return body, b"".join(struct.pack("<HH", g, a & 0xFFFF) for zone in zones for g, a in zone) + bytes(4)


def write_font(
    path: Path,
    instrument_zones: list[GeneratorList],
    preset_zones: list[GeneratorList] | None = None,
    *,
    programs: tuple[tuple[int, int], ...] = ((0, 0),),
    root_key: int = 69,
    correction_cents: int = 0,
    wave: NDArray[np.float64] | None = None,
) -> Path:
    """An SF2 font of one sample (a sine, looped whole) and one instrument, under one or more (bank, program)."""
    if wave is None:
        wave = 0.5 * np.sin(2 * np.pi * np.arange(SAMPLE_FRAMES) / CYCLE_FRAMES)
    frames = (wave * 32_767).astype("<i2").tobytes() + bytes(92)
    preset_zones = preset_zones or [[(Generator.INSTRUMENT, 0)]]
    pbag, pgen = bags(preset_zones * len(programs))
    ibag, igen = bags(instrument_zones)
    header = struct.Struct("<20sHHHIII")
    phdr = b"".join(
        header.pack(b"preset", program, bank, i * len(preset_zones), 0, 0, 0)
        for i, (bank, program) in enumerate(programs)
    )
    phdr += header.pack(b"EOP", 0, 0, len(programs) * len(preset_zones), 0, 0, 0)
    inst = struct.pack("<20sH20sH", b"instrument", 0, b"EOI", len(instrument_zones))
    sample = (0, len(wave), CYCLE_FRAMES, len(wave) - CYCLE_FRAMES, RATE_HZ, root_key, correction_cents, 0, 1)
    shdr = struct.pack("<20sIIIIIBbHH", b"sine", *sample) + struct.pack("<20s26x", b"EOS")
    tables = {b"phdr": phdr, b"pbag": pbag, b"pmod": bytes(10), b"pgen": pgen, b"inst": inst}
    tables |= {b"ibag": ibag, b"imod": bytes(10), b"igen": igen, b"shdr": shdr}
    pdta = b"pdta" + b"".join(chunk(name, body) for name, body in tables.items())
    info = b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"INAM", b"test\0\0")
    body = b"sfbk" + chunk(b"LIST", info) + chunk(b"LIST", b"sdta" + chunk(b"smpl", frames)) + chunk(b"LIST", pdta)
    path.write_bytes(chunk(b"RIFF", body))
    return path


LOOPED = (Generator.SAMPLE_MODES, 1)
SAMPLE = (Generator.SAMPLE, 0)


def play(
    path: Path, key: int = 69, velocity: int = 127, seconds: float = 0.5, **columns: object
) -> NDArray[np.float32]:
    """A note's sound, float32 [2, frames], before gain and limiter."""
    notes = Notes.of(0.0, seconds, key, velocity, **columns)
    sampler = Sampler(SoundFont.read(path), RATE_HZ)
    return np.concatenate(list(sampler.play(notes, notes.offset_seconds, round(seconds * RATE_HZ))), axis=1)


def level(sound: NDArray[np.float32]) -> float:
    """Decibels of the sound's power, both sides together."""
    return 10 * np.log10(np.mean(sound.astype(np.float64) ** 2) * 2)


@pytest.mark.parametrize("key", [30, 57, 69, 70, 90, 105])
def test_a_key_sounds_as_far_from_the_root_as_it_lies(tmp_path: Path, key: int) -> None:
    path = write_font(tmp_path / "f.sf2", [[LOOPED, SAMPLE]])
    expected = 441 * 2 ** ((key - 69) / 12)
    assert abs(cents(measured_pitch_hz(play(path, key)[0], RATE_HZ), expected)) < 1


@pytest.mark.parametrize(
    ("zone", "expected_cents"),
    [
        ([(Generator.COARSE_TUNE, 5)], 500),
        ([(Generator.FINE_TUNE, -37)], -37),
        ([(Generator.ROOT_KEY, 57)], 1200),
        ([(Generator.SCALE_TUNING, 50)], 0),
        ([(Generator.SCALE_TUNING, 50), (Generator.ROOT_KEY, 57)], 600),
        ([(Generator.FIXED_KEY, 72)], 300),
    ],
)
def test_generators_tune(tmp_path: Path, zone: GeneratorList, expected_cents: float) -> None:
    path = write_font(tmp_path / "f.sf2", [[*zone, LOOPED, SAMPLE]], correction_cents=11)
    assert abs(cents(measured_pitch_hz(play(path)[0], RATE_HZ), 441) - 11 - expected_cents) < 1


def test_preset_adds_and_global_zone_is_overridden(tmp_path: Path) -> None:
    zones = [
        [(Generator.COARSE_TUNE, 2), (Generator.FINE_TUNE, 10)],
        [(Generator.FINE_TUNE, 20), LOOPED, SAMPLE],
    ]
    presets = [[(Generator.COARSE_TUNE, 1)], [(Generator.FINE_TUNE, 3), (Generator.INSTRUMENT, 0)]]
    path = write_font(tmp_path / "f.sf2", zones, presets)
    assert abs(cents(measured_pitch_hz(play(path)[0], RATE_HZ), 441) - 323) < 1


def test_velocity_and_attenuation_follow_the_specification(tmp_path: Path) -> None:
    loud = play(write_font(tmp_path / "a.sf2", [[LOOPED, SAMPLE]]))
    quiet = play(tmp_path / "a.sf2", velocity=64)
    attenuated = play(write_font(tmp_path / "b.sf2", [[(Generator.ATTENUATION, 100), LOOPED, SAMPLE]]))
    assert level(quiet) - level(loud) == pytest.approx(40 * np.log10(64 / 127), abs=0.1)
    assert level(attenuated) - level(loud) == pytest.approx(-4, abs=0.1)  # 10 dB, counted 0.4-fold


def test_pan_moves_the_sound_and_keeps_its_power(tmp_path: Path) -> None:
    centre = play(write_font(tmp_path / "a.sf2", [[LOOPED, SAMPLE]]))
    right = play(write_font(tmp_path / "b.sf2", [[(Generator.PAN, 500), LOOPED, SAMPLE]]))
    assert np.abs(right[0]).max() < 1e-6
    assert level(right) == pytest.approx(level(centre), abs=0.01)
    np.testing.assert_array_equal(centre[0], centre[1])


def test_key_and_velocity_ranges_choose_the_zone(tmp_path: Path) -> None:
    def zone(keys: tuple[int, int], velocities: tuple[int, int], pan: int) -> GeneratorList:
        ranges = [
            (Generator.KEY_RANGE, keys[0] | keys[1] << 8),
            (Generator.VELOCITY_RANGE, velocities[0] | velocities[1] << 8),
        ]
        return [*ranges, (Generator.PAN, pan), LOOPED, SAMPLE]

    path = write_font(tmp_path / "f.sf2", [zone((0, 60), (0, 127), -500), zone((61, 127), (64, 127), 500)])
    assert np.abs(play(path, 60)[1]).max() < 1e-6 < np.abs(play(path, 60)[0]).max()
    assert np.abs(play(path, 61)[0]).max() < 1e-6 < np.abs(play(path, 61)[1]).max()
    assert np.abs(play(path, 61, velocity=20)[1]).max() > 1e-6, (
        "a melodic note that no zone claims is played by the nearest"
    )


def test_loop_goes_on_without_a_seam(tmp_path: Path) -> None:
    sound = play(write_font(tmp_path / "f.sf2", [[LOOPED, SAMPLE]]), key=64, seconds=3.0)[0]
    assert level(sound[-RATE_HZ:]) == pytest.approx(level(sound[:RATE_HZ]), abs=0.05)
    spectrum = np.abs(np.fft.rfft(sound[-RATE_HZ:] * np.blackman(RATE_HZ)))
    spectrum[: round(441 * 2 ** (-5 / 12)) + 20] = 0
    assert 20 * np.log10(spectrum.max() / np.abs(sound).max() / RATE_HZ * 4) < -70


def test_sample_without_a_loop_ends(tmp_path: Path) -> None:
    sound = play(write_font(tmp_path / "f.sf2", [[SAMPLE]]))[0]
    assert np.abs(sound[: SAMPLE_FRAMES - 20]).max() > 0.1
    assert not sound[SAMPLE_FRAMES + 20 :].any()


def test_envelope_rises_falls_and_is_released(tmp_path: Path) -> None:
    stages = [
        (Generator.ATTACK, -2786),  # 0.2 s
        (Generator.DECAY, 1200),  # 100 dB in 2 s
        (Generator.SUSTAIN, 200),  # 20 dB down, reached after 0.4 s
        (Generator.RELEASE, 0),  # 100 dB in 1 s
    ]
    path = write_font(tmp_path / "f.sf2", [[*stages, LOOPED, SAMPLE]])
    notes = Notes.of(0.0, 1.0, 69, 127)
    sound = np.concatenate(
        list(Sampler(SoundFont.read(path), RATE_HZ).play(notes, notes.offset_seconds, 2 * RATE_HZ)), 1
    )[0]
    peaks = np.abs(sound).reshape(-1, RATE_HZ // 50).max(1) / np.abs(sound).max()
    assert peaks[4] == pytest.approx(0.5, abs=0.06)  # half way up after 0.1 s
    assert 20 * np.log10(peaks[20]) == pytest.approx(-10, abs=1)  # 0.2 s into the decay
    assert 20 * np.log10(peaks[45]) == pytest.approx(-20, abs=0.5)
    assert 20 * np.log10(peaks[60]) == pytest.approx(-40, abs=1.5)  # 0.2 s after the release
    assert not peaks[-8:].any()


def test_filter_takes_the_highs(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000)
    spectra = []
    for cutoff in (13_500, 8_400):  # none, and 1047 Hz
        zone = [(Generator.FILTER_CUTOFF, cutoff), LOOPED, SAMPLE]
        path = write_font(tmp_path / f"{cutoff}.sf2", [zone], wave=noise)
        spectra.append(np.abs(np.fft.rfft(play(path)[0])) ** 2)
    gain_db = 10 * np.log10([spectra[1][a:b].sum() / spectra[0][a:b].sum() for a, b in ((50, 200), (2000, 2200))])
    assert gain_db[0] == pytest.approx(0, abs=1)
    assert gain_db[1] == pytest.approx(-24, abs=3)  # two poles, two octaves


def test_exclusive_class_cuts_the_older_note_off(tmp_path: Path) -> None:
    zone = [(Generator.EXCLUSIVE_CLASS, 1), (Generator.RELEASE, 1200), LOOPED, SAMPLE]
    path = write_font(tmp_path / "f.sf2", [zone], programs=((DRUM_BANK, 0),))
    notes = Notes.of([0.0, 0.5], [2.0, 0.51], [69, 81], [127, 1], 0, True)
    sound = np.concatenate(list(Sampler(SoundFont.read(path), RATE_HZ).play(notes, notes.offset_seconds, RATE_HZ)), 1)[
        0
    ]
    before, after = sound[: RATE_HZ // 2], sound[round(0.6 * RATE_HZ) :]
    assert np.abs(after).max() < 1e-3 * np.abs(before).max()


def test_missing_programs_and_kits_fall_back(tmp_path: Path) -> None:
    path = write_font(
        tmp_path / "f.sf2",
        [[LOOPED, SAMPLE]],
        programs=((0, 0), (0, 24), (0, 26), (8, 26), (DRUM_BANK, 0), (DRUM_BANK, 8)),
    )
    font = SoundFont.read(path)
    assert font.find(26) == (0, 26)
    assert font.find(31) == (0, 26), "the nearest of its family"
    assert font.find(25) == (0, 24)
    assert font.find(73) == (0, 0), "the piano where the family is empty"
    assert font.find(8, is_drum=True) == (DRUM_BANK, 8)
    assert font.find(25, is_drum=True) == (DRUM_BANK, 0)
    only_kit = SoundFont.read(write_font(tmp_path / "kit.sf2", [[LOOPED, SAMPLE]], programs=((DRUM_BANK, 3),)))
    assert only_kit.find(40) == (DRUM_BANK, 3)


def test_shipped_font_has_every_program_and_a_kit_within_its_size() -> None:
    font = SoundFont.read(SHIPPED)
    assert set(font.presets) == {*((0, program) for program in range(128)), (DRUM_BANK, 0)}
    assert SHIPPED.stat().st_size <= 5_000_000
    for sample, header in enumerate(font.samples):
        frames = font.frames(sample)
        assert header.loop_start <= header.loop_end <= len(frames)
        assert np.isfinite(frames).all()
        assert 0.1 < np.abs(frames).max() < 1.5
    assert font.sha256 in (SHIPPED.parent / "README.md").read_text(encoding="utf-8")


def test_shipped_font_covers_every_key_and_velocity() -> None:
    font = SoundFont.read(SHIPPED)
    for program in range(128):
        regions = font.regions(0, program)
        assert all(
            any(region.sounds(key, velocity) for region in regions) for key in range(128) for velocity in (1, 127)
        )
    kit = font.regions(DRUM_BANK, 0)
    assert all(any(region.sounds(key, 64) for region in kit) for key in range(35, 82))


@pytest.mark.parametrize("kept", [0, 3, 11, 12, 60, 5_000, -60_000, -100, -1])
def test_truncated_font_is_an_input_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.sf3"
    path.write_bytes(SHIPPED.read_bytes()[:kept])
    with pytest.raises(InputError) as caught:
        render(Notes.of(0.0, 1.0, 60), Pedals.of(), soundfont=path)
    assert caught.value.exit_status == 3
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"MThd" + bytes(200), bytes(4096), b"RIFF\xff\xff\xff\x7fsfbk" + bytes(90)]
)
def test_garbage_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.sf2").write_bytes(content)
    with pytest.raises(InputError):
        SoundFont.read(tmp_path / "g.sf2")


def test_missing_file_and_folder_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.sf2", tmp_path):
        with pytest.raises(InputError):
            SoundFont.read(path)


def test_corrupt_font_plays_or_is_an_input_error(tmp_path: Path) -> None:
    """Whatever bytes are wrong, in the tables or in a Vorbis stream, nothing else is ever raised and nothing hangs."""
    data = bytearray(SHIPPED.read_bytes())
    tables = data.rindex(b"pdta")
    path = tmp_path / "corrupt.sf3"
    random = np.random.default_rng(0)
    notes = Notes.of(np.zeros(4), np.full(4, 0.05), [36, 60, 60, 90], 100, [0, 0, 48, 48], [True, False, False, False])
    refused = 0
    for trial in range(60):
        broken = data.copy()
        low, high = (tables, len(data)) if trial % 4 else (0, tables)
        for place in random.integers(low, high, 400):
            broken[place] = random.integers(256)
        path.write_bytes(broken)
        try:
            sampler = Sampler(SoundFont.read(path), RATE_HZ)
            for block in sampler.play(notes, notes.offset_seconds, RATE_HZ // 10):
                assert block.shape[0] == 2
        except InputError:
            refused += 1
    assert refused > 0


def test_uncompressed_and_shipped_pitch_agree(tmp_path: Path) -> None:
    """The same sampler plays both kinds in tune: the sine font is 441 Hz at its root by construction."""
    path = write_font(tmp_path / "f.sf2", [[LOOPED, SAMPLE]], correction_cents=-4)
    assert abs(cents(measured_pitch_hz(play(path)[0], RATE_HZ), key_hz(69))) < 1
