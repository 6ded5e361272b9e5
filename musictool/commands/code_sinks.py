"""Where `mtk encode` puts what it makes: a stream, a stream for each item, `.ecdc` files, or a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from musictool.cli.environment import Environment
from musictool.cli.files import OutputPlan
from musictool.cli.sinks import StreamSink, open_sink
from musictool.errors import InputError

if TYPE_CHECKING:
    from musictool.inference.code_corpus import CodeCorpusWriter
    from musictool.inference.coded_sound import CodedSound
    from musictool.models.codec import CodecConfig
    from musictool.stream.records import Head

ECDC_SUFFIX = ".ecdc"


class CodeSink(Protocol):
    """Where items go.

    Attributes:
        is_one_stream: whether all of them share a stream, in which they are then numbered.
    """

    is_one_stream: bool

    def is_done(self, name: str) -> bool:
        """Whether an item's output is there and is to be kept; ask once an item, before it is written."""
        ...

    def write(self, head: Head, sound: CodedSound) -> None:
        """Write an item while its codes are made; an error that they raise leaves a failed item, or no file."""
        ...

    def fail(self, head: Head, error: InputError) -> None:
        """Write an item of which there is nothing but why, where such have a place."""
        ...


class _Streams:
    """Items in a stream, or each in one of its own."""

    def __init__(self, sink: StreamSink) -> None:
        self.is_one_stream = sink.is_one_stream
        self._sink = sink

    def is_done(self, name: str) -> bool:
        return self._sink.is_done(name)

    def write(self, head: Head, sound: CodedSound) -> None:
        with self._sink.writer(head.item) as writer, writer.item(head) as item:
            for chunk in sound:
                item.write(chunk.codes, chunk.scales)
            item.samples, item.source_samples = sound.samples, sound.source_samples
            item.source_sha = sound.source_sha256

    def fail(self, head: Head, error: InputError) -> None:
        from musictool.stream.records import Failure

        if self.is_one_stream:
            with self._sink.writer(head.item) as writer:
                writer.failed(head, Failure.of(error))


class _EcdcFiles:
    """A file for each item."""

    is_one_stream = False

    def __init__(self, plan: OutputPlan, environment: Environment, config: CodecConfig) -> None:
        self._plan = plan
        self._environment = environment
        self._config = config
        self._paths: dict[str, Path | None] = {}

    def is_done(self, name: str) -> bool:
        self._paths[name] = path = self._plan.path_for(name)
        if self._plan.is_done(path):
            return True
        self._plan.check(path)
        return False

    def write(self, head: Head, sound: CodedSound) -> None:
        from musictool.inference.ecdc import write_ecdc

        with self._plan.open(self._paths[head.item], self._environment) as file:
            write_ecdc(file, self._config, sound, lambda: sound.samples or 0)

    def fail(self, head: Head, error: InputError) -> None:
        pass


class _Corpus:
    """A row for each item."""

    is_one_stream = True

    def __init__(self, writer: CodeCorpusWriter, codebooks: int) -> None:
        self._writer = writer
        self._codebooks = codebooks

    def is_done(self, name: str) -> bool:
        return False

    def write(self, head: Head, sound: CodedSound) -> None:
        self._writer.write(head, self._codebooks, sound)

    def fail(self, head: Head, error: InputError) -> None:
        pass


@contextmanager
def open_code_sink(
    plan: OutputPlan, environment: Environment, config: CodecConfig, codebooks: int
) -> Iterator[CodeSink]:
    """The sink that `-o` asks for.

    Args:
        plan: where results go.
        environment: holds standard output.
        config: of the codec.
        codebooks: in use.

    Raises:
        UsageError: the one file exists, or the codec's codes have no place in `.ecdc` files.
    """
    from musictool.symbolic.corpus import is_corpus_path

    output = plan.output or ""
    if output.lower().endswith(ECDC_SUFFIX):
        from musictool.inference.ecdc import ecdc_preset

        ecdc_preset(config)
        yield _EcdcFiles(plan, environment, config)
    elif plan.is_single_file and is_corpus_path(output):
        from musictool.inference.code_corpus import CodeCorpusWriter

        path = plan.path_for("")
        plan.check(path)
        with plan.open(path, environment) as file:
            writer = CodeCorpusWriter(file)
            yield _Corpus(writer, codebooks)
            writer.close()
    else:
        with open_sink(plan, environment) as sink:
            yield _Streams(sink)
