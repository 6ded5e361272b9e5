"""What `mtk eval tokens` says: tables that grow with the pieces, one JSON object, and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.cli.environment import Environment
from musictool.cli.files import OutputPlan
from musictool.commands.eval_items import Items, Table, are_fulfilled, demand_records
from musictool.commands.picture_plan import plan_pictures

if TYPE_CHECKING:
    from musictool.inference.token_judging import Judge
    from musictool.inference.token_quotes import Quotes
    from musictool.metrics.assertions import Assertion

_COLUMNS = {
    "   nats": "cross_entropy_nats",
    "   bits": "cross_entropy_bits",
    "perplexity": "perplexity",
    "  top-1": "top_1",
    "  top-5": "top_5",
}
_PART_COLUMNS = {**_COLUMNS, "of all bits": "share", "  tokens": "tokens"}
_TEMPERATURE_COLUMNS = {name: figure for name, figure in _COLUMNS.items() if not figure.startswith("top")}
_MADE_COLUMNS = {
    "differs at": "mean",
    " median": "median",
    "  never": "never",
    "  alike": "agreement",
    "  usage": "usage",
    "coverage": "coverage",
    "entropy bits": "entropy_bits",
    "KL bits": "kl_bits",
}
_SUMMARIES = ("mean", "median", "p90", "max")


@dataclass(frozen=True)
class Targets:
    """Where a report goes, all of it free to be written.

    Attributes:
        as_json: to standard output as JSON, not as tables.
        report, report_path: a file for the JSON beside that, if there is one.
        pictures, picture_path: a file for the picture, if there is one.
    """

    as_json: bool
    report: OutputPlan
    report_path: Path | None
    pictures: OutputPlan | None
    picture_path: Path | None

    @classmethod
    def plan(cls, output: str | None, plot: str | None, force: bool, *, as_json: bool) -> Targets:
        """Look at what `-o` and `--plot` say.

        Raises:
            UsageError: a file exists, or its name makes no sense.
            MissingError: there is to be a picture, and matplotlib is not there.
        """
        report = OutputPlan(output, ".json", force)
        report_path = report.path_for("tokens")
        report.check(report_path)
        pictures = plan_pictures(plot, force)
        picture_path = None if pictures is None else pictures.path_for("tokens")
        if pictures is not None:
            pictures.check(picture_path)
        return cls(as_json or output == "-", report, report_path, pictures, picture_path)


@dataclass
class Report:
    """The report of a run.

    Args:
        environment: whose standard output it goes to.
        targets: where else.
    """

    environment: Environment
    targets: Targets
    _model: dict[str, str] | None = None
    _items: list[dict[str, Any]] = field(default_factory=list)
    _rate: str = ""  # what bits are told by beside tokens
    _table: Table | None = None

    @property
    def has_table(self) -> bool:
        return not self.targets.as_json

    def name_model(self, name: str, sha256: str, family: str, kind: str) -> None:
        """Say whose predictions the figures of pieces are."""
        self._model = {"name": name, "sha256": sha256, "family": family}
        self._rate = "kbps" if kind == "codes" else "bits_per_note"
        if self.has_table:
            heading = "kbit/s" if kind == "codes" else "bits/note"
            self._table = Table(self.environment, [*_COLUMNS, heading, "  tokens"])

    def add(self, name: str, figures: Mapping[str, Any]) -> None:
        """Tell of a piece."""
        self._items.append({"item": name, **figures})
        self._write_row(figures, name)

    def finish(self, judge: Judge | None, quotes: Quotes | None, failed: Items, demands: Sequence[Assertion]) -> bool:
        """Tell of all pieces together, and write what is to be written.

        Returns:
            Whether they are as they have to be.
        """
        found: dict[str, Any] = {"context": None, "all": None, "parts": [], "temperatures": [], "continued": None}
        if judge is not None:
            found = judge.to_json()
        against = None if quotes is None else self._include(quotes)
        self._warn_of_short(found["continued"])
        scores: dict[str, float | None] = dict.fromkeys(demand.metric for demand in demands)
        scores |= {name: value for name, value in (found["all"] or {}).items() if name in scores}
        for unit in ("tokens", "notes"):
            if against is not None and against[unit] is not None and f"longest_run_{unit}" in scores:
                scores[f"longest_run_{unit}"] = against[unit]["max"]
        record = {
            "model": self._model,
            **found,
            "items": self._items,
            "against": against,
            "failed": failed.failures,
            "assertions": demand_records(demands, scores),
        }
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        if self.has_table:
            self._show(record)
        else:
            self.environment.stdout.write(line)
        if self.targets.report_path is not None:
            with self.targets.report.open(self.targets.report_path, self.environment) as file:
                file.write(line)
        self._draw(record)
        return are_fulfilled(demands, scores, self.environment)

    def _warn_of_short(self, continued: Mapping[str, Any] | None) -> None:
        if continued is not None and continued["left_out"]:
            message = f"{continued['left_out']} pieces end with a prompt of {continued['prompt']} and are not continued"
            self.environment.warn(message, hint="a shorter one: --prompt-tokens, --prompt-seconds", code="short-pieces")

    def _include(self, quotes: Quotes) -> dict[str, Any]:
        """The longest common runs of all pieces; each piece is told of its own."""
        found = quotes.found
        for item, quote in zip(self._items, found, strict=True):
            item["longest_run_tokens"] = quote.tokens
            item["tokens_run"] = {"at": quote.at, "item": quote.source, "item_at": quote.source_at}
            if quote.notes is not None:
                item["longest_run_notes"] = quote.notes
                item["notes_run"] = {"item": quote.notes_source}
        return {
            "pieces": quotes.pieces,
            "tokens": _summary([quote.tokens for quote in found]),
            "notes": _summary([quote.notes for quote in found if quote.notes is not None]),
        }

    def _draw(self, record: Mapping[str, Any]) -> None:
        pictures, path = self.targets.pictures, self.targets.picture_path
        if pictures is not None and path is not None:
            from musictool.metrics.token_picture import draw

            with pictures.open(path, self.environment) as file:
                draw(file, record, format=path.suffix.lower().lstrip("."))

    # ---------------------------------------------------------------------------------------------------------- tables

    def _show(self, record: Mapping[str, Any]) -> None:
        if record["all"] is not None:
            self._write_row(record["all"], f"all of {len(self._items)}")
            subject = "codebook" if self._rate == "kbps" else "type of event"
            self._show_rows(_PART_COLUMNS, subject, [(row["part"], row) for row in record["parts"]])
            rows = [(f"{row['temperature']:g}", row) for row in record["temperatures"]]
            self._show_rows(_TEMPERATURE_COLUMNS, "temperature", rows)
        if record["continued"] is not None:
            self._show_continued(record["continued"])
        if record["against"] is not None:
            self._show_against(record["against"])

    def _show_continued(self, continued: Mapping[str, Any]) -> None:
        made = [(_name_of(way["temperature"]), way) for way in continued["made"]]
        rows = [("real piece", continued["real"]), ("model's guesses", continued["teacher_forced"]), *made]
        self._show_rows(
            _MADE_COLUMNS,
            "after the prompt",
            [(name, {**row, **row.get("first_divergence", {})}) for name, row in rows],
        )

    def _show_against(self, against: Mapping[str, Any]) -> None:
        columns = {" tokens": "longest_run_tokens"}
        if against["notes"] is not None:
            columns["  notes"] = "longest_run_notes"
        rows = [(_with_source(item), item) for item in self._items]
        for name in _SUMMARIES if against["tokens"] is not None else ():
            of_all = {f"longest_run_{unit}": against[unit][name] for unit in ("tokens", "notes") if against[unit]}
            rows.append((f"{name} of {len(self._items)}", of_all))
        self._show_rows(columns, "longest run: item, and where else", rows)

    def _show_rows(
        self, columns: Mapping[str, str], subject: str, rows: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> None:
        """A table of its own, after an empty line where there is one before it."""
        if self._table is not None:
            self.environment.stdout.write(b"\n")
        self._table = Table(self.environment, list(columns), subject)
        for name, row in rows:
            self._table.row([_cell(row.get(figure)) for figure in columns.values()], name)

    def _write_row(self, figures: Mapping[str, Any], name: str) -> None:
        if self._table is not None:
            cells = [_cell(figures.get(figure)) for figure in (*_COLUMNS.values(), self._rate, "tokens")]
            self._table.row(cells, name)


def _summary(values: Sequence[int]) -> dict[str, float] | None:
    """What the lengths of runs are like; None of none."""
    if not values:
        return None
    import numpy as np

    figures = (np.mean(values), np.median(values), np.quantile(values, 0.9), np.max(values))
    return {name: float(value) for name, value in zip(_SUMMARIES, figures, strict=True)}


def _name_of(temperature: float) -> str:
    return f"temperature {temperature:g}" if temperature else "greedy"


def _with_source(item: Mapping[str, Any]) -> str:
    """An item's name, and what its run is in, too."""
    source = item.get("notes_run", item["tokens_run"])["item"]
    return f"{item['item']}, {source}" if source else str(item["item"])


def _cell(value: float | None) -> str:
    if value is None or isinstance(value, int):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"
