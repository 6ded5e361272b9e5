"""Rules for every kind of input, and the report on one item. Knows nothing of how either is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from musictool.audio.checks import AudioRules
from musictool.errors import InputError
from musictool.findings import Finding, Limit
from musictool.symbolic.checks import Rules

Kind = Literal["midi", "audio", "stream", "corpus", "unknown"]


@dataclass(frozen=True)
class ValidationRules(Rules):
    """What every kind of input has to be like.

    Attributes:
        tokens: ids, or frames of codes, of an item of a stream or corpus.
        duplicates: how many earlier items of the run may have the same content.
        audio: rules for sound.
    """

    tokens: Limit = Limit(min=1)
    duplicates: Limit = Limit(max=0)
    audio: AudioRules = AudioRules()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out about one item.

    Attributes:
        name: the item's.
        path: its file; None is standard input.
        kind: of that file.
        facts: plain JSON values.
        findings: what is wrong.
        content: equal for equal content of one kind, empty where there is nothing to compare.
        error: why the rest of the file, if not all of it, could not be read.
    """

    name: str
    path: Path | None
    kind: Kind
    facts: dict[str, Any]
    findings: tuple[Finding, ...] = ()
    content: str = ""
    error: InputError | None = None

    @property
    def label(self) -> str:
        """What to call it in a list: a file by its path, an item of a stream by its name."""
        is_file = self.kind not in ("stream", "corpus") or self.error is not None
        return str(self.path) if is_file and self.path is not None else self.name

    @property
    def has_errors(self) -> bool:
        """Whether anything found condemns it."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self, *, is_ok: bool) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "kind": self.kind,
            "ok": is_ok,
            "findings": [plain(finding) for finding in self.findings],
            "facts": self.facts,
        }


def unreadable(name: str, path: Path | None, kind: Kind, error: InputError) -> Report:
    """The report on something that could not be read on."""
    return Report(name, path, kind, {}, (Finding("unreadable", "error", str(error), error.code),), error=error)


def plain(record: object) -> dict[str, Any]:
    """A record's fields as JSON values, without those that are None."""
    values = {f.name: getattr(record, f.name) for f in fields(cast(Any, record))}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
