"""What the codec's recipe takes out of packages: the listed sounds alone, whole, at one rate, each in its split."""

from __future__ import annotations

import importlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "codec"
RATE_HZ = 24_000


@pytest.fixture(scope="module")
def gather() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        yield importlib.import_module("gather")


@pytest.fixture(scope="module")
def packages(gather: ModuleType) -> ModuleType:
    return importlib.import_module("debian_packages")


def tone(seconds: float, rate_hz: int = RATE_HZ, frequency_hz: float = 440.0, gain: float = 0.5) -> NDArray[np.float32]:
    return (gain * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def a_package(packages: ModuleType, **changes: object) -> object:
    about = {"kind": "played", "licence": "CC0", "credit": "me", "holds": "tones"}
    values = {"name": "songs", "version": "1:2-3", "take": ["*"], **about}
    return packages.Package(**(values | changes))


def test_only_the_silence_at_the_ends_is_cut(gather):
    block = round(0.02 * RATE_HZ)
    silence = np.zeros(50 * block, np.float32)
    sound = np.concatenate([tone(0.2), silence, tone(0.2)])
    assert np.array_equal(gather.trimmed(np.concatenate([silence, sound, silence])), sound)
    assert len(gather.trimmed(np.full(RATE_HZ, 5e-4, np.float32))) == 0
    assert len(gather.trimmed(silence[:0])) == 0


def test_any_rate_and_channels_become_the_mean_at_one_rate(gather):
    left, right = tone(1.0, 44_100, gain=0.8), tone(1.0, 44_100, frequency_hz=3_000, gain=0.4)
    mono = gather.brought_to_rate(np.stack([left, right], 1), 44_100)
    expected = tone(1.0, gain=0.4) + tone(1.0, frequency_hz=3_000, gain=0.2)
    inside = slice(2_000, 20_000)
    assert abs(len(mono) - RATE_HZ) <= round(0.02 * RATE_HZ)
    assert np.abs(mono[inside] - expected[inside]).max() < 1e-3


def test_what_is_too_loud_is_turned_down_and_the_rest_is_not(gather):
    loud = gather.brought_to_rate(1.5 * np.sign(tone(0.5, 48_000))[:, None], 48_000)
    assert np.abs(loud).max() <= 1.0
    quiet = tone(0.5, gain=0.1)
    assert np.array_equal(gather.brought_to_rate(quiet[:, None], RATE_HZ), quiet)


def test_no_frame_is_lost_between_parts_and_none_is_too_long(gather):
    sound = np.arange(1_300 * RATE_HZ, dtype=np.float32)
    parts = gather.in_parts(sound)
    assert np.array_equal(np.concatenate(parts), sound)
    assert max(map(len, parts)) <= 600 * RATE_HZ
    assert len(gather.in_parts(sound[:RATE_HZ])) == 1
    short = [tone(3.0, gain=gain) for gain in np.linspace(0.1, 0.9, 50)]
    strings = gather.strung(short)
    assert np.array_equal(np.concatenate(strings), np.concatenate(short))
    assert [len(string) / RATE_HZ for string in strings] == [60.0, 60.0, 30.0]


def test_files_of_one_name_in_two_folders_keep_apart(gather):
    names = gather.titles(
        ["usr/share/kit/a/snare 1.wav", "usr/share/kit/b/snare 1.wav", "usr/share/kit/pk.zip!x/k.ogg"]
    )
    assert set(names.values()) == {"a-snare_1", "b-snare_1", "pk.zip-x-k"}


def test_what_is_to_be_left_is_left_and_the_splits_keep_apart(packages):
    package = a_package(packages, take=["*/music/*"], leave=["*tracker*"], valid=["*/music/ann-*"], test=["*BEN*"])
    assert package.split_of("usr/music/cid-song.ogg") == "train"
    assert package.split_of("usr/music/ann-song.ogg") == "valid"
    assert package.split_of("usr/music/ben-song.ogg") == "test"
    assert package.split_of("usr/music/ann-tracker.ogg") is None
    assert package.split_of("usr/sounds/bang.ogg") is None


def test_only_what_neither_lies_there_nor_was_gathered_is_fetched(packages, tmp_path):
    fetched, gathered, new = (a_package(packages, name=name) for name in ("fetched", "gathered", "new"))
    for folder in ("debs", "done"):
        (tmp_path / folder).mkdir()
    (tmp_path / "debs" / "fetched_1%3a2-3_all.deb").touch()
    (tmp_path / "debs" / "new_1%3a2-2_all.deb").touch()
    gathered.done(tmp_path).touch()
    assert packages.missing([fetched, gathered, new], tmp_path) == ["new=1:2-3"]


def test_lists_name_every_sound_once_by_split_and_kind(packages, tmp_path):
    for path in (
        "train/ann/1.flac",
        "train/ann/b/2.flac",
        "train/rendered/3.flac",
        "valid/ann/4.flac",
        "test/ben/5.flac",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "train" / "rendered" / "3.mid").touch()
    listed = [a_package(packages, name="ann", kind="voices"), a_package(packages, name="ben")]
    names = packages.lists(listed, tmp_path)
    found = {name: [Path(p).name for p in (tmp_path / f"{name}.txt").read_text().split()] for name in names}
    assert found == {
        "train-voices": ["1.flac", "2.flac"],
        "train-rendered": ["3.flac"],
        "valid": ["4.flac"],
        "test": ["5.flac"],
    }


def test_every_listed_package_names_a_free_licence_and_whom_to_credit(packages):
    listed = packages.read_list(RECIPE / "packages.toml")
    assert len({package.name for package in listed}) == len(listed)
    for package in listed:
        assert package.credit, package.name
        assert any(word in package.licence for word in ("CC-BY", "CC0", "GPL", "MIT")), package.name
        assert "NC" not in package.licence, package.name
        assert package.split in packages.SPLITS, package.name


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_package_is_gathered_whole_with_archives_and_short_sounds(gather, packages, tmp_path):
    root = tmp_path / "root"
    sounds, control = root / "usr" / "music", root / "DEBIAN"
    for folder in (sounds, control):
        folder.mkdir(parents=True)
    (control / "control").write_text("Package: songs\nVersion: 1\nArchitecture: all\nMaintainer: me\nDescription: x\n")
    soundfile.write(sounds / "song.flac", tone(5.0, 48_000), 48_000)
    soundfile.write(sounds / "telephone.wav", tone(5.0, 8_000), 8_000)
    for number in range(3):
        soundfile.write(sounds / f"hit{number}.wav", tone(0.5), RATE_HZ)
    (sounds / "broken.ogg").write_bytes(b"OggS")
    (sounds / "notes.txt").write_text("no sound")
    inner = io.BytesIO()
    soundfile.write(inner, tone(6.0), RATE_HZ, format="FLAC")
    with zipfile.ZipFile(root / "usr" / "data.zip", "w") as archive:
        archive.writestr("held/inner.flac", inner.getvalue())
    deb = tmp_path / "songs.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, deb], check=True, capture_output=True)

    seconds, left_out = gather.gather(a_package(packages, test=["*!held/*"]), deb, tmp_path)
    lengths = {
        str(path.relative_to(tmp_path)): soundfile.info(path).duration
        for split in packages.SPLITS
        for path in (tmp_path / split).rglob("*")
        if path.is_file()
    }
    assert lengths == {
        "train/songs/music-song.flac": pytest.approx(5.0, abs=0.03),
        "train/songs/short-sounds-001.flac": pytest.approx(1.5, abs=0.07),
        "test/songs/data.zip-held-inner.flac": pytest.approx(6.0, abs=0.03),
    }
    assert seconds == {"train": pytest.approx(6.5, abs=0.1), "test": pytest.approx(6.0, abs=0.03)}
    assert sorted(Path(path).name for path, _ in left_out) == ["broken.ogg", "telephone.wav"]
