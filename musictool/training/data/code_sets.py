"""Sets of pieces of codes to learn from, out of all that such pieces come in.

    corpus.parquet                 a corpus of codes (`inference.code_corpus`)
    train.lead.parquet             the same; what sounds beside each piece is in train.backing.parquet, in that order
    piece.mtk                      a token stream of codes
    codes/                         what `mtk data encode` filled, with a lead and its backing, or one part alone
    sounds/, piece.flac            sound, which is encoded; perhaps with captions beside it in piece.txt, one a line
    captions.jsonl                 a piece a line: "audio" or "codes", a path from the list's folder on; perhaps "text",
                                   a caption or a list of them, and "backing", another path

All codes of a set are held in memory, two bytes each: some megabytes an hour. Knows no model: which codec it has to be,
and how sound becomes its codes, is said by who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.errors import InputError, MusicToolError
from musictool.inference.token_pieces import Read, TokenPiece, corpus_pieces, stream_pieces
from musictool.stream.files import STREAM_SUFFIXES, is_stream_path
from musictool.symbolic.corpus import is_corpus_path
from musictool.training.data.pipeline.items import LIST_SUFFIX, Item, manifests_of, parse_item, read_manifest
from musictool.training.data.pipeline.settings import BACKING, LEAD

Codes = NDArray[np.int16]

_HINT = "name corpora (.parquet), folders of codes or of sound, or lists of captions (.jsonl)"


@dataclass(frozen=True, eq=False)
class CodePiece:
    """A piece.

    Attributes:
        name: of it.
        codes: int16 [K, T].
        backing: int16 [K, F] that sounds beside it, from the same moment on; None where there is none.
        texts: what may be said of it.
    """

    name: str
    codes: Codes
    backing: Codes | None = None
    texts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The first of what may be said of it; empty for nothing."""
        return self.texts[0] if self.texts else ""


@dataclass(frozen=True)
class CodeForm:
    """What codes have to be like.

    Attributes:
        codec: the name of the codec.
        codec_sha256: of its weights; None where they are not known.
        codebooks: K; of more, the first are taken.
        size: V, codes of each.
        can_be_cut: whether more codebooks may be taken for K; not where those of channels alternate.
    """

    codec: str
    codec_sha256: str | None
    codebooks: int
    size: int
    can_be_cut: bool = True

    def fitted(self, piece: TokenPiece, where: str) -> Codes:
        """The codes of a piece that was read.

        Raises:
            InputError: they are none of this codec, or too few of a frame.
        """
        head, where = piece.head, f"{where}, item {piece.name!r:.60}"
        if head.kind != "codes":
            raise InputError("the item holds notes, and the model writes codes", context=where, code="wrong-kind")
        known = (self.codec, head.vocab) if self.codec_sha256 is None else (self.codec_sha256, head.vocab_sha)
        if known[0] != known[1]:
            message = f"codes of {head.vocab} ({head.vocab_sha[:8]}), and the model writes those of {self.codec}"
            hint = f"encode the sound again: mtk data encode --model {self.codec}"
            raise InputError(message, context=where, hint=hint, code="other-codes")
        return self.cut(piece.tokens, where)

    def cut(self, codes: NDArray[np.int32], where: str) -> Codes:
        """K codebooks, int16 [K, T]; raises InputError if there are too few, or codes that are none."""
        if not codes.size:
            return np.zeros((self.codebooks, 0), np.int16)
        if len(codes) < self.codebooks or (len(codes) > self.codebooks and not self.can_be_cut):
            message = f"{len(codes)} codebooks, and the model writes {self.codebooks}"
            raise InputError(message, context=where, code="other-codes")
        kept = codes[: self.codebooks]
        if not 0 <= int(kept.min()) <= int(kept.max()) < self.size:
            message = f"code {int(kept.max())} is out of range: the model's codebooks have {self.size} entries"
            raise InputError(message, context=where, code="code-out-of-range")
        return kept.astype(np.int16)


@dataclass(frozen=True)
class CodeSets:
    """Reads sets.

    Attributes:
        form: what codes have to be like.
        encode: codes of a sound file, int32 [K, T].
    """

    form: CodeForm
    encode: Callable[[Path], NDArray[np.int32]]

    def read(self, paths: Sequence[Path]) -> list[CodePiece]:
        """All pieces of some sets, in their order; those without a frame are left out.

        Raises:
            InputError: a set is not there, empty or none; or codes are of another codec.
            MissingError: pyarrow is not there for a corpus, or the codec for sound.
        """
        found: list[CodePiece] = []
        for path in paths:
            pieces = [piece for piece in self._read(path) if piece.codes.shape[1]]
            if not pieces:
                raise InputError("there are no codes in it", context=str(path), hint=_HINT, code="empty-corpus")
            found += pieces
        return found

    def _read(self, path: Path) -> Iterator[CodePiece]:
        if not path.exists():
            raise InputError("no such file or folder", context=str(path), hint=_HINT, code="no-such-file")
        if path.is_dir():
            yield from self._read_folder(path)
        elif is_corpus_path(path):
            yield from self._read_corpus(path)
        elif path.suffix == LIST_SUFFIX:
            yield from self._read_list(path)
        else:
            yield from self._read_file(path)

    def _read_folder(self, folder: Path) -> Iterator[CodePiece]:
        items = [item for manifest in manifests_of(folder) for item in read_manifest(manifest)]
        if items:
            yield from map(self._read_item, items)
            return
        for path in sorted(folder.rglob("*")):
            if path.name.lower().endswith((*AUDIO_SUFFIXES, *STREAM_SUFFIXES)) and path.is_file():
                yield from self._read_file(path)

    def _read_corpus(self, path: Path) -> Iterator[CodePiece]:
        """The rows of a corpus; of one of leads, with those of the corpus of backings beside it."""
        pieces = (_sound(read, path) for read in corpus_pieces(path))
        beside = path.with_name(path.name.replace(f".{LEAD}.", f".{BACKING}."))
        if beside == path or not beside.exists():
            for piece in pieces:
                yield CodePiece(piece.name, self.form.fitted(piece, str(path)), texts=_texts([piece.text]))
            return
        backings = (_sound(read, beside) for read in corpus_pieces(beside))
        try:
            for lead, backing in zip(pieces, backings, strict=True):
                codes = self.form.fitted(lead, str(path)), self.form.fitted(backing, str(beside))
                yield CodePiece(lead.name, *codes, _texts([lead.text]))
        except ValueError as error:
            hint = "mtk data run writes both together"
            raise InputError(f"not as many rows as {path.name}", context=str(beside), hint=hint) from error

    def _read_list(self, path: Path) -> Iterator[CodePiece]:
        """The lines of a list: items of the data pipeline's, or captions."""
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError("the line is no JSON", context=place, hint="it may be cut off") from error
            if isinstance(record, dict) and "parts" in record:
                yield self._read_item(parse_item(record, path.parent, place))
            elif record != {"end": 1}:
                yield self._read_caption(record, path.parent, place)

    def _read_caption(self, record: Any, folder: Path, place: str) -> CodePiece:
        fields = record if isinstance(record, dict) else {}
        file, said, backing = fields.get("codes") or fields.get("audio"), fields.get("text", []), fields.get("backing")
        said = [said] if isinstance(said, str) else said
        is_said = isinstance(said, list) and all(isinstance(text, str) for text in said)
        if not isinstance(file, str) or not is_said or not isinstance(backing, str | None):
            hint = '{"audio": "song.flac", "text": "a slow blues"}; "codes" names a token stream instead'
            raise InputError("the line is no caption", context=place, hint=hint)
        piece = self._read_first(folder / file)
        beside = None if backing is None else self._read_first(folder / backing).codes
        return CodePiece(piece.name, piece.codes, beside, _texts(said) or piece.texts)

    def _read_item(self, item: Item) -> CodePiece:
        """An item of the pipeline's; of its parts, one is the lead and the other the backing, or there is one."""
        if LEAD not in item.parts and len(item.parts) > 1:
            raise InputError(f"the item has parts {', '.join(item.parts)}, and none is {LEAD}", context=item.name)
        part = item.parts[LEAD] if LEAD in item.parts else next(iter(item.parts.values()))
        beside = item.parts.get(BACKING)
        codes = self._read_first(part.file).codes
        return CodePiece(item.name, codes, None if beside is None else self._read_first(beside.file).codes)

    def _read_first(self, path: Path) -> CodePiece:
        """A sound file, or the first piece of a token stream."""
        for piece in self._read_file(path):
            return piece
        raise InputError("the stream has no item", context=str(path), code="empty-corpus")

    def _read_file(self, path: Path) -> list[CodePiece]:
        """A sound file, or the pieces of a token stream."""
        if not is_stream_path(path):
            if not path.name.lower().endswith(AUDIO_SUFFIXES):
                raise InputError("neither codes nor sound", context=str(path), hint=_HINT)
            return [CodePiece(path.stem, self.form.cut(self.encode(path), str(path)), texts=_texts_beside(path))]
        try:
            with open(path, "rb") as file:
                pieces = [_sound(read, path) for read in stream_pieces(file, str(path))]
        except OSError as error:
            raise InputError((error.strerror or "cannot be read").lower(), context=str(path)) from error
        return [
            CodePiece(piece.name, self.form.fitted(piece, str(path)), texts=_texts([piece.text])) for piece in pieces
        ]


def _sound(read: Read, path: Path) -> TokenPiece:
    """A piece that was read, or the error that there is instead."""
    if isinstance(read.piece, MusicToolError):
        read.piece.context = f"{path}, {read.piece.context}".rstrip(", ")
        raise read.piece
    return read.piece


def _texts_beside(path: Path) -> tuple[str, ...]:
    """The captions in the text file beside a sound."""
    captions = path.with_suffix(".txt")
    try:
        return _texts(captions.read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the captions", context=str(captions)) from error


def _texts(said: Iterable[str]) -> tuple[str, ...]:
    """Captions, none of them empty."""
    return tuple(text.strip() for text in said if text.strip())


class CodeWindows:
    """Stretches of pieces, at most as long as a window; a new one begins every hop, and the last ends with the piece.

    Args:
        pieces: one at least.
        window_frames: the longest that a stretch may be.
        hop_frames: from the beginning of one to that of the next.
    """

    def __init__(self, pieces: Sequence[CodePiece], window_frames: int, hop_frames: int) -> None:
        self._pieces = pieces
        self._window_frames = window_frames
        self._hop_frames = hop_frames
        beyond = np.array([max(0, piece.codes.shape[1] - window_frames) for piece in pieces])
        self._ends = np.cumsum(1 + -(-beyond // hop_frames))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> CodePiece:
        """A stretch of a piece and of its backing; numbers go through all pieces in their order."""
        index = int(np.searchsorted(self._ends, number, "right"))
        piece = self._pieces[index]
        before = int(self._ends[index - 1]) if index else 0
        latest = max(0, piece.codes.shape[1] - self._window_frames)
        start = min((number - before) * self._hop_frames, latest)
        stretch = slice(start, start + self._window_frames)
        backing = None if piece.backing is None else piece.backing[:, stretch]
        return CodePiece(piece.name, piece.codes[:, stretch], backing, piece.texts)
