"""Gather recordings from Debian packages into the training folders of the codec.

    python gather.py packages.toml OUT

OUT/debs holds the packages that `packages.toml` lists, as `apt-get download` leaves them. What a package's patterns
take out of it becomes mono FLAC of 16 bits at 24 kHz, without the silence at its ends, in OUT/SPLIT/PACKAGE/, at most
ten minutes to a file so that seeking is cheap. Sounds shorter than some seconds, such as drum hits, are strung
together. A sound that cannot be read, is all but silent or was recorded at too low a rate is left out and named in
OUT/left-out.tsv.

A package that OUT/done names is not looked at again. Knows nothing of licences. Needs numpy, soundfile and soxr, and
dpkg-deb.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr
from debian_packages import SPLITS, Package, read_list
from numpy.typing import NDArray

RATE_HZ = 24_000
LOWEST_RATE_HZ = 22_050  # of a recording: below, too much of its upper octave would be empty
AUDIO_SUFFIXES = {".ogg", ".oga", ".opus", ".flac", ".wav", ".mp3", ".aif", ".aiff"}
ARCHIVE_SUFFIXES = {".zip", ".pk3"}
SILENT_DBFS = -60.0
BLOCK_SECONDS = 0.02  # in which loudness is measured
SHORT_SECONDS = 4.0  # below which a sound is strung together with others
STRING_SECONDS = 60.0
LONGEST_SECONDS = 600.0


def members(deb: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Every sound of a package, in its order: its path and its bytes; archives inside are opened."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            suffix = Path(name).suffix.lower()
            if not member.isfile() or suffix not in AUDIO_SUFFIXES | ARCHIVE_SUFFIXES:
                continue
            file = tar.extractfile(member)
            assert file is not None  # it is a file
            if suffix in AUDIO_SUFFIXES:
                yield name, file
            else:
                yield from zipped(name, file)


def zipped(name: str, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with tempfile.TemporaryFile() as seekable:
        shutil.copyfileobj(file, seekable, 1 << 20)
        with zipfile.ZipFile(seekable) as archive:
            for entry in archive.namelist():
                if Path(entry).suffix.lower() in AUDIO_SUFFIXES:
                    with archive.open(entry) as inner:
                        yield f"{name}!{entry}", inner


def unpack(package: Package, deb: Path, folder: Path) -> dict[str, tuple[str, Path]]:
    """Lay the sounds that are taken into a folder: {member: (split, file)}."""
    found = {}
    for path, file in members(deb):
        if split := package.split_of(path):
            target = folder / f"{len(found)}{Path(path).suffix.lower()}"
            with target.open("wb") as out:
                shutil.copyfileobj(file, out)
            found[path] = (split, target)
    return found


def titles(paths: list[str]) -> dict[str, str]:
    """A name for each member's file: its path without what all have in common, letters, digits and dots."""
    parts = {path: re.split(r"[/!]", path) for path in paths}
    common = 0
    while all(len(p) > common + 1 and p[common] == next(iter(parts.values()))[common] for p in parts.values()):
        common += 1
    return {path: re.sub(r"[^\w.-]+", "_", "-".join([*p[common:-1], Path(p[-1]).stem])) for path, p in parts.items()}


def trimmed(sound: NDArray[np.float32], rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """A sound [n] without the blocks at its ends that are quieter than SILENT_DBFS; empty where all are."""
    size = round(BLOCK_SECONDS * rate_hz)
    blocks = np.pad(sound, (0, -len(sound) % size)).reshape(-1, size)
    heard = np.flatnonzero(np.square(blocks).mean(1) > 10 ** (SILENT_DBFS / 10))
    return sound[heard[0] * size : (heard[-1] + 1) * size] if len(heard) else sound[:0]


def brought_to_rate(sound: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Frames [n, channels] as mono [m] at RATE_HZ, ends trimmed, peak at most 1."""
    mono = np.ascontiguousarray(sound.mean(1, dtype=np.float32))
    if rate_hz != RATE_HZ:
        mono = soxr.resample(mono, rate_hz, RATE_HZ, "VHQ")
    mono = trimmed(np.nan_to_num(mono))
    return mono / max(1.0, float(np.abs(mono).max(initial=0.0)))


def read(path: Path) -> NDArray[np.float32]:
    """A file as mono at RATE_HZ.

    Raises:
        ValueError: it cannot be read, is silent or has too low a rate.
    """
    try:
        sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be read: {error.error_string}") from error
    if rate_hz < LOWEST_RATE_HZ:
        raise ValueError(f"has only {rate_hz} Hz")
    mono = brought_to_rate(sound, rate_hz)
    if not len(mono):
        raise ValueError("is silent")
    return mono


def in_parts(sound: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Equal parts of at most LONGEST_SECONDS."""
    return np.array_split(sound, max(1, -(-len(sound) // round(LONGEST_SECONDS * RATE_HZ))))


def strung(sounds: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Sounds one after the other, some STRING_SECONDS together."""
    strings: list[list[NDArray[np.float32]]] = []
    length = 0
    for sound in sounds:
        if not strings or length >= STRING_SECONDS * RATE_HZ:
            strings.append([])
            length = 0
        strings[-1].append(sound)
        length += len(sound)
    return [np.concatenate(parts) for parts in strings]


def write(path: Path, sounds: list[NDArray[np.float32]]) -> float:
    """Write a sound's parts, numbered where there are several; the seconds written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, sound in enumerate(sounds, 1):
        name = f"{path.name}.flac" if len(sounds) == 1 else f"{path.name}-part{number}.flac"
        soundfile.write(path.with_name(name), sound, RATE_HZ, subtype="PCM_16")
    return sum(map(len, sounds)) / RATE_HZ


def gather(package: Package, deb: Path, out: Path) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Take a package's sounds: the seconds in each split, and what was left out and why."""
    seconds: dict[str, float] = defaultdict(float)
    left_out: list[tuple[str, str]] = []
    short: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for split in SPLITS:
        shutil.rmtree(out / split / package.name, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        found = unpack(package, deb, Path(scratch))
        names = titles(sorted(found))
        for path in sorted(found):
            split, file = found[path]
            try:
                sound = read(file)
            except ValueError as error:
                left_out.append((path, str(error)))
                continue
            if len(sound) < SHORT_SECONDS * RATE_HZ:
                short[split].append(sound)
            else:
                seconds[split] += write(out / split / package.name / names[path], in_parts(sound))
    for split, sounds in short.items():
        random.Random(0).shuffle(sounds)
        for number, string in enumerate(strung(sounds), 1):
            seconds[split] += write(out / split / package.name / f"short-sounds-{number:03}", [string])
    return dict(seconds), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out: Path = arguments.out
    (out / "done").mkdir(parents=True, exist_ok=True)
    for package in read_list(arguments.list):
        if package.done(out).exists():
            continue
        deb = package.deb(out)
        if not deb:
            parser.error(f"{package.name} {package.version} is not in {out / 'debs'}")
        seconds, left_out = gather(package, deb, out)
        with (out / "left-out.tsv").open("a") as file:
            file.writelines(f"{package.name}\t{path}\t{why}\n" for path, why in left_out)
        package.done(out).write_text(json.dumps(seconds) + "\n")
        hours = ", ".join(f"{split} {value / 3600:.2f} h" for split, value in seconds.items())
        print(f"{package.name}: {hours or 'nothing'}; {len(left_out)} left out", flush=True)


if __name__ == "__main__":
    main()
