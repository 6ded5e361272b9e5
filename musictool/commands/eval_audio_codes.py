"""`mtk eval audio` of codes, which are judged by themselves: how much of a codec they use, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import Source
from musictool.commands.eval_items import Items, Table, are_fulfilled, demand_records, tracked
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.stream.records import StreamError

if TYPE_CHECKING:
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.averages import Scores
    from musictool.metrics.codes import CodeCounts, CodeKind
    from musictool.stream.reader import ItemReader
    from musictool.stream.records import Head

_COLUMNS = {
    " kbit/s": "bit_rate_kbps",
    "entropy kbit/s": "entropy_kbps",
    "   used": "usage",
    "least used": "least_usage",
    "entropy bits": "entropy_bits",
    "perplexity": "perplexity",
}
_CODEBOOK_COLUMNS = {"   used": "usage", "entropy bits": "entropy_bits", "perplexity": "perplexity"}


def judge_codes(
    sources: Sequence[Source], demands: Sequence[Assertion], environment: Environment, *, as_json: bool
) -> int:
    """Count the codes of streams, each item's and those of all together, and report on them.

    Args:
        sources: files, or standard input.
        demands: conditions on what is found of all together.
        environment: the world.
        as_json: one JSON object, no table.

    Returns:
        The exit status.

    Raises:
        UsageError: a file is sound.
        StreamError: a stream is broken; what came before has been reported.
    """
    counting = _Counting(environment, sources)
    table = None if as_json else Table(environment, [*_COLUMNS, "  frames"])
    counted: list[_Item] = []
    with tracked(counting.items(), environment, by_table=table is not None) as watched:
        for item in watched:
            if not item.frames:
                environment.warn("it has no codes", context=item.name)
            counted.append(item)
            if table is not None:
                table.row([*_cells(item.scores, _COLUMNS), str(item.frames)], item.name)
    total = counting.total
    scores: Scores = dict.fromkeys(demand.metric for demand in demands) if total is None else total.scores()
    if as_json:
        record = {
            "codec": None if total is None else asdict(total.kind),
            "items": [{"item": item.name, **_figures(item.frames, item.scores, item.codebooks)} for item in counted],
            "all": None if total is None else _figures(total.frames, scores, total.of_codebooks()),
            "failed": counting.failed.failures,
            "assertions": demand_records(demands, scores),
        }
        environment.stdout.write(json.dumps(record, allow_nan=False).encode() + b"\n")
    elif table is not None and total is not None:
        table.row([*_cells(scores, _COLUMNS), str(total.frames)], f"all of {len(counted)}")
        environment.stdout.write(b"\n")
        each = Table(environment, list(_CODEBOOK_COLUMNS), subject="codebook")
        for number, figures in enumerate(total.of_codebooks(), 1):
            each.row(_cells(figures, _CODEBOOK_COLUMNS), str(number))
    is_good = are_fulfilled(demands, scores, environment)
    if counting.failed.broken is not None:
        raise counting.failed.broken
    return ExitStatus.FINDINGS if counting.failed.failures or not is_good else ExitStatus.DONE


@dataclass(frozen=True)
class _Item:
    """What was found of one item.

    Attributes:
        name: the item's.
        frames: how many.
        scores: of all codebooks together.
        codebooks: the figures of each.
    """

    name: str
    frames: int
    scores: Scores
    codebooks: list[Scores]


class _Counting:
    """The codes of a run, item by item and all together; those of one codec alone, with as many codebooks.

    Args:
        environment: where failures are told.
        sources: what to read.

    Attributes:
        failed: the items that could not be counted.
        total: of all others; None while there is none.

    Raises:
        UsageError: a file is sound.
    """

    def __init__(self, environment: Environment, sources: Sequence[Source]) -> None:
        from musictool.metrics.note_files import KIND_OF_SUFFIX, split_suffix

        for source in sources:
            if source.path is not None and KIND_OF_SUFFIX.get(split_suffix(source.path.name)[1]) == "audio":
                hint = "say which: --reference PATH, or --corpus PATH"
                raise UsageError("sound is judged beside other sound", context=str(source.path), hint=hint)
        self.failed = Items(environment, None)
        self.total: CodeCounts | None = None
        self._environment = environment
        self._sources = sources

    def items(self) -> Iterator[_Item]:
        """Every item, counted as it is asked for."""
        for source in self._sources:
            with self.failed.failing(source.name):
                if source.error is not None:
                    raise source.error
                try:
                    if source.path is None:
                        yield from self._items_of(self._environment.stdin, "standard input")
                    else:
                        with open(source.path, "rb") as file:
                            yield from self._items_of(file, str(source.path))
                except StreamError as error:
                    if len(self._sources) > 1:
                        self._environment.item_failed(source.name, error)
                    self.failed.broken = error

    def _items_of(self, raw: BinaryIO, context: str) -> Iterator[_Item]:
        from musictool.stream.files import decompressing
        from musictool.stream.reader import StreamReader

        with decompressing(raw, context) as plain:
            for item in StreamReader(plain, lambda head: None, context):
                try:
                    counts = self._count(item)
                except StreamError:
                    raise
                except MusicToolError as error:
                    self.failed.fail(item.head.item, error)
                else:
                    yield _Item(item.head.item, counts.frames, counts.scores(), counts.of_codebooks())

    def _count(self, item: ItemReader) -> CodeCounts:
        """Count one item, and all with it.

        Raises:
            InputError: it has no codes, or others than those before it, or such as its head rules out.
            ItemFailed, StreamError: as `ItemReader.chunks`.
        """
        from musictool.metrics.codes import CodeCounts

        kind = _kind_of(item.head)
        if self.total is not None and kind != self.total.kind:
            of = self.total.kind
            message = f"{kind.codebooks} codebooks of {kind.codec!r:.40} after {of.codebooks} of {of.codec!r:.40}"
            raise InputError(message, hint="judge codes of one codec and one bit rate at a time", code="other-codes")
        counts = CodeCounts(kind)
        for codes in item.chunks():
            counts.add(codes)
        self.total = self.total or CodeCounts(kind)
        self.total.include(counts)
        return counts


def _kind_of(head: Head) -> CodeKind:
    """What an item's head says of its codes.

    Raises:
        InputError: they are notes, or the head does not say.
    """
    from musictool.metrics.codes import CodeKind

    if head.kind != "codes":
        hint = "mtk eval symbolic measures notes"
        raise InputError("the item holds notes, not codes", hint=hint, code="wrong-kind")

    def number(key: str, *kinds: type) -> Any:
        if type(value := head.meta.get(key)) in kinds:
            return value
        raise InputError(f"the head's meta does not say what {key} is", code="no-meta")

    codebooks, size = number("codebooks", int), number("codebook_size", int)
    return CodeKind(head.vocab, head.vocab_sha, codebooks, size, number("frame_rate_hz", int, float))


def _figures(frames: int, scores: Scores, codebooks: list[Scores]) -> dict[str, Any]:
    """What there is to tell, as plain JSON values."""
    return {"frames": frames, **scores, "codebooks": codebooks}


def _cells(scores: Scores, columns: dict[str, str]) -> list[str]:
    return ["-" if (value := scores[name]) is None else f"{value:.3f}" for name in columns.values()]
