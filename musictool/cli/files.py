"""Which files a command reads, and how it writes the ones it makes.

Inputs: arguments become a list of sources with unique names. Outputs: a name becomes a path that cannot leave its
folder, and a file appears whole or not at all. This module knows no formats and opens no input.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from musictool.cli.environment import UNPRINTABLE, Environment
from musictool.cli.streams import NamedFile, input_error_from
from musictool.errors import InputError, MusicToolError, UsageError

T = TypeVar("T")

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 4095
_MAGIC = re.compile(r"[*?\[]")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FOREIGN_SEPARATORS = re.compile(r'[\\:*?"<>|]' if os.name == "nt" else r"(?!)")
_NO_HARD_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}


# ----------------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Source:
    """One input.

    Args:
        path: the file; None is standard input.
        name: the item's name: printable, with `/` between folders, and no other source's.
        error: why it cannot be read, known before it is opened; the command makes a failed item of it.
    """

    path: Path | None
    name: str
    error: InputError | None = None


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of a list, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/16`.

        Raises:
            UsageError: it is not of that form, or there is no such share.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"no such shard: {text}", context="--shard", hint="write K/N with K from 1 to N, as in 3/16"
            )
        return cls(int(match[1]), int(match[2]))

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item from the `number`-th on: shares are disjoint and together hold every item."""
        return items[self.number - 1 :: self.count]


def expand_inputs(arguments: Sequence[str] | None, suffixes: Sequence[str], environment: Environment) -> list[Source]:
    """Turn a command's arguments into sources.

    A file is taken whatever its suffix; a folder is walked for files with one of `suffixes`, hidden ones left out; a
    pattern that the shell left alone is expanded as the shell would. Files of a folder are named by their path below
    it, files of a pattern by their path below its fixed part. Where names collide, each keeps its suffix, and then the
    later ones are counted: names depend on the arguments and on what the folders hold, never on what has been done.

    Args:
        arguments: files, folders, patterns, or `-`; none at all is standard input.
        suffixes: such as `.mid`, with the dot; upper and lower case are the same.
        environment: tells whether standard input is a terminal.

    Returns:
        The sources in the order of the arguments, each folder and pattern sorted bytewise. Of several arguments, one
        that leads nowhere is a source with an error.

    Raises:
        UsageError: nothing is given and standard input is a terminal, or `-` stands twice.
        InputError: the only argument leads nowhere.
    """
    if not arguments:
        if environment.is_stdin_terminal:
            raise UsageError("no input", hint="name files or folders, or pipe something in")
        arguments = ["-"]
    if list(arguments).count("-") > 1:
        raise UsageError("standard input is named twice", context="-", hint="name it once")
    sources: list[tuple[Source, str]] = []  # with the suffix its name lost
    for argument in arguments:
        try:
            sources += _expand(argument, tuple(suffixes))
        except InputError as error:
            if len(arguments) == 1:
                raise
            sources.append((Source(Path(argument), _clean(Path(argument).stem or argument), error), ""))
    return _with_unique_names(sources)


def _expand(argument: str, suffixes: tuple[str, ...]) -> list[tuple[Source, str]]:
    if argument == "-":
        return [(Source(None, "stdin"), "")]
    try:
        is_folder = stat.S_ISDIR(os.stat(argument).st_mode)
    except OSError as error:
        if _MAGIC.search(argument):
            return _expand_pattern(argument, suffixes)
        if isinstance(error, FileNotFoundError):
            raise InputError("no such file", context=argument, code="no-such-file") from error
        raise input_error_from(error) from error
    if not is_folder:
        return [_source(argument, os.path.basename(argument), suffixes)]
    found = [
        _source(os.path.join(argument, inner), inner, suffixes, error) for inner, error in _walk(argument, suffixes)
    ]
    if not found:
        raise InputError(f"no {' or '.join(suffixes)} file in the folder", context=argument, code="no-such-file")
    return found


def _expand_pattern(pattern: str, suffixes: tuple[str, ...]) -> list[tuple[Source, str]]:
    import glob

    fixed = os.path.dirname(_MAGIC.split(pattern)[0])
    paths = sorted((path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path)), key=os.fsencode)
    if not paths:
        raise InputError("no file matches", context=pattern, code="no-such-file")
    return [_source(path, os.path.relpath(path, fixed or os.curdir), suffixes) for path in paths]


def _walk(folder: str, suffixes: tuple[str, ...]) -> list[tuple[str, InputError | None]]:
    """List a folder's files by relative path, sorted bytewise; a subfolder that cannot be read comes with its error.

    Links to folders are followed, and each real folder is walked once, so that a circle of links ends.
    """
    found: list[tuple[str, InputError | None]] = []
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            status = os.stat(os.path.join(folder, inner))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(folder, inner)) as scan:
                entries = sorted(scan, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as error:
            found.append((inner or os.curdir, input_error_from(error)))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = os.path.join(inner, entry.name)
            if _leads_to_folder(entry):
                pending.append(path)
            elif entry.name.lower().endswith(suffixes) and (entry.is_symlink() or entry.is_file()):
                found.append((path, None))
    return sorted(found, key=lambda pair: os.fsencode(pair[0]))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: a file that will not open
        return False


def _source(path: str, name: str, suffixes: tuple[str, ...], error: InputError | None = None) -> tuple[Source, str]:
    """Make a source of a path, named without its suffix: one of the command's own, or whatever it ends in."""
    known = [len(suffix) for suffix in suffixes if name.lower().endswith(suffix) and len(name) > len(suffix)]
    suffix = name[-max(known) :] if known else os.path.splitext(name)[1]
    stem = name.removesuffix(suffix).replace(os.sep, "/")
    return Source(Path(path), _clean(stem), error), _clean(suffix)


def _clean(name: str) -> str:
    """Make a name of any file fit for UTF-8, for one line and for a terminal."""
    return UNPRINTABLE.sub("_", os.fsencode(name).decode(errors="replace"))


def _with_unique_names(sources: list[tuple[Source, str]]) -> list[Source]:
    counts: dict[str, int] = {}
    for source, _ in sources:
        counts[source.name] = counts.get(source.name, 0) + 1
    taken = {name for name, count in counts.items() if count == 1}
    numbers: dict[str, int] = {}
    unique = []
    for source, suffix in sources:
        name = source.name
        if counts[name] > 1:
            name = stem = source.name + suffix
            while name in taken:
                numbers[stem] = numbers.get(stem, 1) + 1
                name = f"{stem}-{numbers[stem]}"
            taken.add(name)
        unique.append(source if name == source.name else replace(source, name=name))
    return unique


# ---------------------------------------------------------------------------------------------------------- outputs


@dataclass(frozen=True)
class OutputPlan:
    """Where the results of a run go: `-o` read once, and every later question answered from it.

    Args:
        output: a file, a folder (it exists, or ends in a slash), a template with `{stem}` (the last part of an item's
            name) or `{name}` (all of it, with its folders), or None or `-` for standard output.
        suffix: what a file in a folder ends in, with the dot.
        force: existing files are replaced.
        skip_existing: existing files are kept, and the items they belong to left out.

    Raises:
        UsageError: the options contradict each other, or a template holds another placeholder.
    """

    output: str | None
    suffix: str
    force: bool = False
    skip_existing: bool = False
    _taken: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.force and self.skip_existing:
            raise UsageError("--force and --skip-existing contradict each other", hint="give one of them")
        if self.skip_existing and self.is_standard_output:
            raise UsageError("--skip-existing needs files to look for", hint="say where they are with -o")
        if self.output == "":
            raise UsageError("the output has no name", context="-o", hint="name a file or a folder, or leave -o out")
        if self._is_template and (self.output or "").endswith("/"):
            raise UsageError(
                "a template names files, not folders", context=f"-o {self.output}", hint="add /{name} to it"
            )
        for name in _PLACEHOLDER.findall(self.output or ""):
            if name not in ("stem", "name"):
                raise UsageError(f"unknown placeholder {{{name}}}", context="-o", hint="there are {stem} and {name}")

    @property
    def is_standard_output(self) -> bool:
        return self.output is None or self.output == "-"

    @property
    def is_single_file(self) -> bool:
        """Whether all results go to one file, which a token stream can hold and a MIDI file cannot."""
        return not (self.is_standard_output or self._is_folder or self._is_template)

    def path_for(self, name: str) -> Path | None:
        """Find an item's file; ask once an item.

        Args:
            name: the item's name, from a stranger's stream for all we know.

        Returns:
            The path, or None for standard output. It lies in the folder that `-o` names, as far as links that were
            there before do not lead elsewhere.

        Raises:
            UsageError: a second item for a single file.
            InputError: the name is no name for a file, or another item has it.
        """
        if self.output is None or self.is_standard_output:
            return None
        path = self.output
        if self._is_template:
            parts = _parts_of(name)
            values = {"stem": parts[-1], "name": "/".join(parts)}
            path = _PLACEHOLDER.sub(lambda match: values[match[1]], path)
        elif self._is_folder:
            path = os.path.join(path, *_parts_of(name)) + self.suffix
        _check_length(path, name)
        key = os.path.normcase(os.path.abspath(path))
        if key in self._taken:
            if self.is_single_file:
                hint = "name a folder with a trailing slash, or use {stem}"
                raise UsageError("more than one item for one file", context=path, hint=hint)
            hint = "use {name} for all of a name with its folders" if self._is_template else ""
            raise InputError(f"another item has this file: {path}", context=name, hint=hint, code="duplicate-output")
        self._taken.add(key)
        return Path(path)

    def is_done(self, path: Path | None) -> bool:
        """Whether `--skip-existing` leaves out the item that belongs to a path."""
        return self.skip_existing and path is not None and path.is_file()

    def check(self, path: Path | None) -> None:
        """Refuse a file that exists, before any work is done for it.

        Raises:
            UsageError: the file exists and `--force` is not given.
            InputError: a folder is in its place.
        """
        if path is not None and not _is_written_directly(path):
            _refuse_existing(path, force=self.force)

    @contextmanager
    def open(self, path: Path | None, environment: Environment) -> Iterator[BinaryIO]:
        """Open standard output or a file that appears when the block ends well.

        Args:
            path: what `path_for` gave.
            environment: holds standard output.

        Yields:
            The binary file to write to.
        """
        if path is None:
            yield environment.stdout
            environment.stdout.flush()
        else:
            with atomic_writer(path, force=self.force) as file:
                yield file

    @property
    def _is_template(self) -> bool:
        return not self.is_standard_output and _PLACEHOLDER.search(self.output or "") is not None

    @property
    def _is_folder(self) -> bool:
        separators = tuple(filter(None, ("/", os.sep, os.altsep)))
        return self.output is not None and (self.output.endswith(separators) or os.path.isdir(self.output))


def refuse_terminal(environment: Environment) -> None:
    """Keep binary off a screen.

    Raises:
        UsageError: standard output is a terminal.
    """
    if environment.is_stdout_terminal:
        raise UsageError("binary output does not go to a terminal", hint="write a file with -o, or pipe it on")


@contextmanager
def atomic_writer(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Write a file whole or not at all.

    The bytes go to a temporary file in the same folder, which is made if need be, and take the name when the block
    ends; whatever leaves the block otherwise (an error, Ctrl-C, SIGTERM) leaves no trace and an old file as it was. A
    link is written through. A device, a pipe or a `/dev/fd` is opened and written as it is.

    Args:
        path: the file.
        force: replace a file that exists, and keep its permissions; a new file has those of the umask.

    Yields:
        The binary file to write to; the block may close it.

    Raises:
        UsageError: the file exists, at the start or by the end, and `force` is not given.
        InputError: it cannot be written: no space, no permission, a folder in its place.
    """
    if _is_written_directly(path):
        with _reported(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        with _filled(NamedFile(descriptor, "wb", str(path)), path) as file:
            yield file
        return
    mode = _refuse_existing(path, force=force)
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".mtk-{os.urandom(8).hex()}.part")
    try:
        with _reported(path):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            descriptor = os.open(temporary, flags, 0o666)
        with _filled(NamedFile(descriptor, "wb", str(path)), path, durable=True) as file:
            yield file
        with _reported(path):
            if mode is not None:
                os.chmod(temporary, mode)
            _take_name(temporary, target, path, force=force)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


@contextmanager
def _filled(raw: NamedFile, path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Buffer a file for a block and close it; errors that bear its label become ours, the block's own pass."""
    file = io.BufferedWriter(raw)
    try:
        yield cast(BinaryIO, file)
        if not file.closed:
            file.flush()
            if durable:
                with _reported(path):
                    os.fsync(file.fileno())
    except OSError as error:
        if error.filename == raw.label:
            raise input_error_from(error) from error
        raise
    finally:
        with suppress(OSError):  # a flush that failed fails again
            file.close()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the system's errors about an output into ours, whatever name they bear."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise input_error_from(error) from error


def _take_name(temporary: str, target: str, path: Path, *, force: bool) -> None:
    """Give a finished file its name; without `force` the name must be free to the last moment."""
    if not force:
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        if os.path.lexists(target):
            raise _exists(path)
    os.replace(temporary, target)


def _is_written_directly(path: Path) -> bool:
    """Whether a path is no regular file to be: a device, a pipe, or a name for a descriptor that is open already."""
    if os.path.abspath(path).startswith(("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _refuse_existing(path: Path, *, force: bool) -> int | None:
    """Look at what has the name now: give an existing file's permissions, or None where there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise input_error_from(error) from error
    if stat.S_ISDIR(mode):
        raise InputError("a folder is in the place of the file", context=str(path))
    if not force:
        raise _exists(path)
    return stat.S_IMODE(mode)


def _exists(path: Path) -> MusicToolError:
    hint = "replace it with --force, or leave it out with --skip-existing"
    return UsageError("the file exists", context=str(path), hint=hint, code="exists")


def _parts_of(name: str) -> list[str]:
    """Split an item's name into folders and a file, or refuse it: it may come from anywhere."""
    parts = name.split("/")
    if UNPRINTABLE.search(name) or _FOREIGN_SEPARATORS.search(name) or not {"", ".", ".."}.isdisjoint(parts):
        raise InputError("the item's name is no name for a file", context=repr(name)[:80], code="unsafe-name")
    return parts


def _check_length(path: str, name: str) -> None:
    encoded = os.fsencode(path)
    if len(encoded) > MAX_PATH_BYTES or any(len(part) > MAX_COMPONENT_BYTES for part in encoded.split(b"/")):
        raise InputError("the item's name is too long for a file", context=repr(name)[:80], code="unsafe-name")
