"""One run of `mtk generate`: wishes as they come, made side by side, each piece written while it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from musictool import __version__
from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.progress import AudioMeter
from musictool.cli.sinks import StreamSink
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.inference.generation import GUIDANCE, Piece, in_turn
from musictool.stream.records import Head, ItemFailed
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.tokenization import failure_of

if TYPE_CHECKING:
    from musictool.commands.generate_wishes import Wish
    from musictool.inference.generation import Chunk
    from musictool.inference.generation import Generator as Model
    from musictool.inference.generation_options import Drawing, Request


_FATAL = ("exists", "no-space")  # no other item would fare better


@dataclass(frozen=True)
class _Item:
    """A piece to make, and the item that it is to be."""

    piece: Piece
    head: Head
    source_sha: str


class GenerateRun:
    """Makes pieces, writes their items, remembers whether any failed.

    Args:
        environment: where messages go.
        meter: told how much there is and how much is done.
        model: makes the pieces.
        drawing: how.
        sink: where items go.
        precision: of the model's numbers, for what is said of them.
        with_names: write notes by name.

    Raises:
        UsageError: names are asked for of what has none.
    """

    def __init__(
        self,
        environment: Environment,
        meter: AudioMeter,
        model: Model,
        drawing: Drawing,
        sink: StreamSink,
        precision: str,
        *,
        with_names: bool = False,
    ) -> None:
        if with_names and model.kind != "events":
            raise UsageError("codes have no names", context="--names", hint="leave it out")
        self._environment = environment
        self._meter = meter
        self._model = model
        self._drawing = drawing
        self._sink = sink
        self._precision = precision
        self._names = find_scheme(model.vocab).vocabulary if with_names else None
        self._waiting: list[_Item] = []
        self._taken = 0
        self._has_failed = False

    def make(self, wishes: Iterable[Wish], *, count: int, batch: int, is_live: bool = False) -> int:
        """Make all pieces that are wished for.

        Args:
            wishes: what they are to be.
            count: pieces of each.
            batch: the most that are made side by side.
            is_live: make those of each wish before the next is asked for.

        Returns:
            The exit status.

        Raises:
            UsageError, InputError: the only wish cannot be met, a file is there, or a source breaks off.
            MissingError, ResourceError: no wish can be met.
        """
        try:
            for wish in wishes:
                for item in self._items(wish, count):
                    self._waiting.append(item)
                    if len(self._waiting) == batch:
                        self._write_waiting()
                if is_live:
                    self._write_waiting()
        except InputError:  # what came before is good
            self._write_waiting()
            raise
        self._write_waiting()
        return ExitStatus.FINDINGS if self._has_failed else ExitStatus.DONE

    def _items(self, wish: Wish, count: int) -> Iterator[_Item]:
        """What is to be made of a wish and is not there yet; if it cannot be met, that is said."""
        numbers = range(self._taken, self._taken + count)
        self._taken += count
        heads = [self._head(wish, copy, count, number) for copy, number in enumerate(numbers)]
        try:
            is_wanted = [not self._sink.is_done(head.item) for head in heads]
            if not any(is_wanted):
                return
            if wish.error is not None:
                raise wish.error
            plan = self._model.plan(wish.request, wish.prompt)
        except (UsageError, InputError, ItemFailed) as error:
            if error.code in _FATAL or (wish.is_alone and not isinstance(error, ItemFailed)):
                raise
            stages = [self._stage(wish.request, {}, number) for number in numbers]
            self._fail([replace(head, made=(*head.made, own)) for head, own in zip(heads, stages, strict=True)], error)
            return
        for head, number, is_one in zip(heads, numbers, is_wanted, strict=True):
            if is_one:
                self._meter.extend_total(plan.seconds)
                stage = self._stage(plan.request, plan.made, number)
                whole = replace(head, meta=plan.meta, made=(*head.made, stage))
                yield _Item(Piece(number, plan), whole, wish.source_sha)

    def _head(self, wish: Wish, copy: int, count: int, number: int) -> Head:
        """What is known of an item's head before its request is understood."""
        name = wish.name or wish.request.name
        name = f"{name}-{copy + 1}" if name and copy else name or f"generated-{number + 1}"
        place: tuple[int | None, int | None] = (1, 1)
        if self._sink.is_one_stream:
            place = (None, None)
            if wish.number is not None:
                place = ((wish.number - 1) * count + copy + 1, (wish.of or wish.number) * count)
        made = () if wish.head is None else wish.head.made
        model = self._model
        return Head(name, model.kind, model.vocab, model.vocab_sha, made=made, number=place[0], of=place[1])

    def _stage(self, request: Request, made: Mapping[str, Any], number: int) -> Mapping[str, Any]:
        """This stage's entry in an item's `made`."""
        model, drawing = self._model, self._drawing
        return {
            "command": "generate",
            "version": __version__,
            "model": model.name,
            "model_sha256": model.sha256,
            "precision": self._precision,
            **request.asked(),
            **made,
            "temperature": drawing.temperature,
            "top_k": drawing.top_k,
            "top_p": drawing.top_p,
            **({"guidance": drawing.guidance} if GUIDANCE in model.takes else {}),
            "seed": drawing.seed,
            "piece": number + 1,
        }

    def _fail(self, heads: Sequence[Head], error: MusicToolError) -> None:
        """Give up the items of a wish, in their place among the others."""
        self._has_failed = True
        self._write_waiting()
        for head in heads:
            if self._sink.is_one_stream:
                with self._sink.writer(head.item) as writer:
                    writer.failed(head, failure_of(error))
            self._environment.item_failed(head.item, error)

    def _write_waiting(self) -> None:
        """Make the pieces that wait, side by side, and write each while it is made, as soon as it is its turn."""
        items, self._waiting = self._waiting, []
        if items:
            chunks = self._model.generate([item.piece for item in items], self._drawing)
            for item, own in zip(items, in_turn(chunks, len(items)), strict=True):
                self._write(item, own)

    def _write(self, item: _Item, chunks: Iterator[Chunk]) -> None:
        with self._sink.writer(item.head.item, self._names) as writer, writer.item(item.head) as written:
            for chunk in chunks:
                written.write(chunk.tokens)
                self._meter.advance(chunk.seconds)
            written.samples = item.piece.plan.samples
            written.source_sha = item.source_sha
