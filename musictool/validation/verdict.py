"""What the reports of a whole run come to: counts, and which items have the same content.

Of everything reported only digests of 16 bytes and names are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

from musictool.errors import InputError
from musictool.findings import Finding
from musictool.validation.reports import Report, ValidationRules

Status = Literal["ok", "warn", "bad"]


@dataclass
class Verdict:
    """The reports of a run summed up.

    Attributes:
        rules: for duplicates.
        is_strict: warnings condemn as errors do.
        error: why something could not be read; the last one counts.
        is_broken: whether a stream or corpus broke off.
    """

    rules: ValidationRules
    is_strict: bool = False
    error: InputError | None = None
    is_broken: bool = False
    _statuses: Counter[Status] = field(default_factory=Counter)
    _rules_broken: Counter[str] = field(default_factory=Counter)
    _seen: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # content -> first item's label, items so far

    def pass_on(self, report: Report) -> Report:
        """Count a report, which gets its finding if it is about content that was there before."""
        if report.content:
            report = replace(report, findings=(*report.findings, *self._duplicates(report)))
        if report.error is not None:
            self.error = report.error
            self.is_broken |= report.kind in ("stream", "corpus")
        self._statuses[self.status(report)] += 1
        self._rules_broken.update({finding.rule for finding in report.findings})
        return report

    def is_good(self, report: Report) -> bool:
        """Whether nothing condemns an item."""
        return not (report.findings if self.is_strict else report.has_errors)

    def status(self, report: Report) -> Status:
        """An item's standing in one word."""
        if not self.is_good(report):
            return "bad"
        return "warn" if report.findings else "ok"

    @property
    def has_bad(self) -> bool:
        """Whether anything is condemned."""
        return self._statuses["bad"] > 0

    def summary(self) -> str:
        """The run in one line."""
        total, bad, warned = self._statuses.total(), self._statuses["bad"], self._statuses["warn"]
        warnings = f" ({warned} with warnings)" if warned else ""
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(self._rules_broken.items()))
        return f"{total} item{'s' * (total != 1)}: {total - bad} good{warnings}, {bad} bad" + (
            f"; {rules}" if rules else ""
        )

    def _duplicates(self, report: Report) -> Iterator[Finding]:
        digest = blake2b(f"{report.kind} {report.content}".encode(), digest_size=16).digest()
        first, count = self._seen.get(digest, (report.label, 0))
        self._seen[digest] = first, count + 1
        for finding in self.rules.duplicates.judge("duplicates", "items with this content before", count):
            yield replace(finding, message=f"same content as {first}")
