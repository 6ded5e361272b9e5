"""The Debian packages that the codec's recordings come from, as `packages.toml` lists them.

    python debian_packages.py download packages.toml OUT    # what `apt-get download` has to fetch yet into OUT/debs
    python debian_packages.py table packages.toml OUT       # the table of SOURCES.md, with the hours that were taken
    python debian_packages.py lists packages.toml OUT       # OUT/train-KIND.txt, OUT/valid.txt and OUT/test.txt

Knows nothing of sound, and of licences only what the list says.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Package:
    """What is taken of a Debian package.

    Attributes:
        name, version: as Debian has them.
        kind: of sound, for which there is a list of its own to train from.
        licence, credit, holds: for people, and for the table of sources.
        take: patterns of the paths that are taken; those inside an archive follow its path and a `!`.
        leave: patterns of those that are not, whatever `take` says.
        split: where they go.
        valid, test: patterns of those that go there instead.
    """

    name: str
    version: str
    kind: str
    licence: str
    credit: str
    holds: str
    take: list[str]
    leave: list[str] = field(default_factory=list)
    split: str = "train"
    valid: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)

    def split_of(self, path: str) -> str | None:
        """The split of a file in it, or none where it is not taken."""
        if not matches(path, self.take) or matches(path, self.leave):
            return None
        if matches(path, self.valid):
            return "valid"
        return "test" if matches(path, self.test) else self.split

    def deb(self, out: Path) -> Path | None:
        """Where the package lies, as apt-get names it; none where it is not there."""
        return next((out / "debs").glob(f"{self.name}_{self.version.replace(':', '%3a')}_*.deb"), None)

    def done(self, out: Path) -> Path:
        """The file that tells that it was gathered, with the seconds in each split."""
        return out / "done" / f"{self.name}_{self.version.replace(':', '%3a')}.json"


def matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(path.lower(), pattern.lower()) for pattern in patterns)


def read_list(path: Path) -> list[Package]:
    with path.open("rb") as file:
        return [Package(**table) for table in tomllib.load(file)["package"]]


def missing(packages: list[Package], out: Path) -> list[str]:
    """`name=version` of each package that has not been gathered and does not lie there."""
    return [f"{p.name}={p.version}" for p in packages if not p.done(out).exists() and not p.deb(out)]


def table(packages: list[Package], out: Path) -> list[str]:
    """The lines of a Markdown table, one row for each package that was gathered."""
    lines = [
        "| package | version | what it holds | train, valid, test (h) | licence | credit |",
        "|---|---|---|---|---|---|",
    ]
    for package in packages:
        if package.done(out).exists():
            seconds = json.loads(package.done(out).read_text())
            hours = ", ".join(f"{seconds.get(split, 0) / 3600:.2f}" for split in SPLITS)
            cells = [package.name, package.version, package.holds, hours, package.licence, package.credit]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def lists(packages: list[Package], out: Path) -> list[str]:
    """Write lists of all sounds by split and kind, and tell their names; a folder of no package was rendered."""
    kinds = {package.name: package.kind for package in packages}
    paths: dict[str, list[str]] = defaultdict(list)
    for split in SPLITS:
        for folder in sorted((out / split).iterdir()):
            kind = kinds.get(folder.name, "rendered")
            paths[f"train-{kind}" if split == "train" else split] += sorted(
                str(path.relative_to(out)) for path in folder.rglob("*.flac")
            )
    for name, lines in paths.items():
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return sorted(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["download", "table", "lists"])
    parser.add_argument("list", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    make = {"download": missing, "table": table, "lists": lists}[arguments.what]
    print("\n".join(make(read_list(arguments.list), arguments.out)))


if __name__ == "__main__":
    main()
