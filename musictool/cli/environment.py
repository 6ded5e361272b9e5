"""Everything a command may touch of the process around it: streams, environment variables and the global flags.

Commands read and write through an `Environment` and never through `sys`, so that a test, a notebook or a server runs
them on streams of its own. Messages for people and for machines leave by this one door. It knows no typer: `main`
builds the environment, and a command takes it out of its context with `environment_of`.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

from musictool.cli.streams import STANDARD_INPUT, STANDARD_OUTPUT, NamedFile
from musictool.errors import MusicToolError

if TYPE_CHECKING:
    import typer

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators and lone surrogates: none belongs in a message or in an item's name."""


class LogFormat(str, Enum):
    """How messages are written to standard error."""

    TEXT = "text"
    JSON = "json"


@dataclass
class Environment:
    """The world of one run of `mtk`.

    Args:
        stdin: bytes in.
        stdout: bytes out; results only, never messages.
        stderr: messages.
        environ: environment variables.
        quiet: no progress and no notes; warnings and errors stay.
        debug: a traceback before each error that ends the run.
        log_format: lines for people, or one JSON object a line.
        write_line: what puts a finished line on `stderr`; a progress bar replaces it while it is on the screen.
    """

    stdin: BinaryIO
    stdout: BinaryIO
    stderr: TextIO
    environ: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False
    debug: bool = False
    log_format: LogFormat = LogFormat.TEXT
    write_line: Callable[[str], None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.write_line = self._write_line

    @classmethod
    def from_process(cls) -> Environment:
        """Take the process's own streams, with names in their errors.

        A stream that the parent closed becomes one that fails when it is used, and its descriptor is not left for the
        next file to take.
        """
        reader = _standard_stream(sys.stdin, "rb", STANDARD_INPUT)
        writer = _standard_stream(sys.stdout, "wb", STANDARD_OUTPUT)
        stderr = sys.stderr if sys.stderr is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (kept as long as the process)
        return cls(reader, writer, stderr, os.environ)

    @property
    def is_stdin_terminal(self) -> bool:
        return self.stdin.isatty()

    @property
    def is_stdout_terminal(self) -> bool:
        return self.stdout.isatty()

    @property
    def is_stderr_terminal(self) -> bool:
        return self.stderr.isatty()

    def note(self, message: str, *, context: str = "") -> None:
        """Say something a user may like to know; silent with `--quiet`."""
        if not self.quiet:
            self._say("note", message, context)

    def warn(self, message: str, *, context: str = "", hint: str = "", code: str = "warning") -> None:
        """Say something a user should know although the work goes on."""
        self._say("warning", message, context, hint, code)

    def item_failed(self, name: str, error: MusicToolError) -> None:
        """Report one item that failed while the others go on."""
        self._say("failed", error.message, error.context, error.hint, error.code, item=name)

    def error(self, error: MusicToolError) -> None:
        """Report the error that ends the run."""
        self._say("error", error.message, error.context, error.hint, error.code)

    def event(self, name: str, **values: Any) -> None:
        """Tell a machine that reads `--log json` how far the run is; people see a progress bar instead."""
        if self.log_format is LogFormat.JSON and not self.quiet:
            self._write_record({"level": "info", "event": name, **values})

    def abandon_stdout(self) -> None:
        """Point standard output at nothing, so that what it still holds fails no more when the interpreter ends."""
        try:
            descriptor = self.stdout.fileno()
        except (OSError, ValueError):
            return
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, descriptor)
        os.close(devnull)

    def _say(
        self, level: str, message: str, context: str = "", hint: str = "", code: str = "", item: str | None = None
    ) -> None:
        if self.log_format is LogFormat.JSON:
            record = {"level": level, "message": message, "context": context, "hint": hint, "code": code}
            self._write_record(record if item is None else {**record, "item": item})
            return
        subject = "" if item is None else f"{item}: "
        place = f" ({context})" if context else ""
        self.write_line(_one_line(f"mtk: {level}: {subject}{message}{place}"))
        if hint:
            self.write_line(_one_line(f"hint: {hint}"))

    def _write_record(self, record: dict[str, Any]) -> None:
        import json  # here, since a run that says nothing to machines starts without it

        self.write_line(json.dumps(record))

    def _write_line(self, line: str) -> None:
        self.stderr.write(line + "\n")
        self.stderr.flush()


def environment_of(context: typer.Context) -> Environment:
    """Take the environment out of a command's context."""
    environment = context.find_object(Environment)
    if environment is None:
        raise RuntimeError("a command runs under musictool.cli.main, which gives it an environment")
    return environment


def _one_line(text: str) -> str:
    """Escape what would break a line or drive a terminal: names in messages come from files of strangers."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _standard_stream(stream: TextIO | None, mode: str, label: str) -> BinaryIO:
    """Rebuild a standard stream on its descriptor, or keep its bytes where it has none (a test, a notebook)."""
    if stream is None:
        wrong_way = os.O_WRONLY if mode == "rb" else os.O_RDONLY
        descriptor = os.open(os.devnull, wrong_way)
    else:
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            return stream.buffer
    raw = NamedFile(descriptor, mode, label, closefd=False)
    return cast(BinaryIO, io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw))
