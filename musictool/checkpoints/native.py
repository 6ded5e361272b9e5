"""Our own format: a folder with `model.safetensors`, `config.json` and `card.md`.

`config.json` holds what it takes to build the model and where its weights come from:

    {"format": 1, "family": "mt3", "preset": "mt3", "config": {…}, "weights_sha256": "…", "source": {…}}

Knows no model: a configuration is a table of plain values here. Imports no torch to read one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.checkpoint import Checkpoint, broken
from musictool.checkpoints.files import sha256_of
from musictool.checkpoints.safetensors_files import stored_in_safetensors, write_safetensors
from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_NAME = "model.safetensors"
FACTS_NAME = "config.json"
CARD_NAME = "card.md"
TOKENIZER_NAMES = ("tokenizer.json", "spiece.model")
"""Of the `tokenizers` library, and of SentencePiece: one of them stands beside a model that reads text."""
CODEC_KEYS = ("codec", "codec_sha256")
"""What `source` says of the codec whose codes a model writes: its name and its fingerprint."""
CODES_KEY = "codes_sha256"
"""What `source` says of a codec that has another one's codes, and only sounds otherwise: that one's fingerprint."""
FORMAT = 1
_MAX_FACTS_BYTES = 1 << 22


@dataclass(frozen=True)
class ModelFacts:
    """What `config.json` says.

    Attributes:
        family: of models.
        preset: whose numbers the model began with.
        config: those numbers, by the family's names for them.
        weights_sha256: of `model.safetensors`, in hexadecimal.
        source: where the weights come from: format, name or address, licence; `CODEC_KEYS` and `CODES_KEY`.
    """

    family: str
    preset: str
    config: dict[str, Any]
    weights_sha256: str = ""
    source: dict[str, str] = field(default_factory=dict)


def kept_codes(facts: ModelFacts, config: Any, changed: Iterable[str]) -> dict[str, str]:
    """What `source` says of a model's codes where it is another one but for some weights.

    Args:
        facts: of that other one.
        config: its numbers; those of a codec have `code_parts`.
        changed: the names of weights, or of the parts that hold them.
    """
    parts = getattr(config, "code_parts", ())
    if not parts or any(name.partition(".")[0] in parts for name in changed):
        return {}
    return {CODES_KEY: facts.source.get(CODES_KEY, facts.weights_sha256)}


def is_native(path: Path) -> bool:
    """Whether a folder holds a model in our format."""
    try:
        read_facts(path)
    except (OSError, InputError):
        return False
    return True


def read_facts(path: Path) -> ModelFacts:
    """Read `config.json`.

    Raises:
        InputError: it is damaged, or of a later format.
        OSError: it is not there or cannot be read.
    """
    name = path / FACTS_NAME
    with open(name, "rb") as file:
        text = file.read(_MAX_FACTS_BYTES)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(name, f"no valid JSON: {error}") from error
    if not isinstance(data, dict) or type(data.get("format")) is not int:
        raise broken(name, "no model of musictool's: it has no 'format'")
    if data["format"] != FORMAT:
        raise InputError(
            f"the model is of format {data['format']}, and this version reads {FORMAT}",
            context=str(name),
            hint="install a newer musictool",
            code="newer-format",
        )
    values = {key: data.get(key) for key in (f.name for f in fields(ModelFacts))}
    for key, value in values.items():
        kind = dict if key in ("config", "source") else str
        if not isinstance(value, kind):
            raise broken(name, f"'{key}' is missing or of another type")
    return ModelFacts(**values)  # type: ignore[arg-type]  # kinds are checked above


def open_native(path: Path) -> Checkpoint:
    """The weights of a model.

    Raises:
        InputError: the file is damaged.
        OSError: it is not there or cannot be read.
    """
    return Checkpoint(path, "native", stored_in_safetensors(path / WEIGHTS_NAME))


def write_native(folder: Path, tensors: Mapping[str, Tensor], facts: ModelFacts, card: str) -> ModelFacts:
    """Write a model.

    Args:
        folder: it exists and is empty.
        tensors: by the model's own names.
        facts: all but the weights' digest.
        card: what a person should know, as Markdown.

    Returns:
        The facts as written.
    """
    return write_facts(folder, facts, write_safetensors(folder / WEIGHTS_NAME, tensors), card)


def write_facts(folder: Path, facts: ModelFacts, digest: str, card: str) -> ModelFacts:
    """Write all of a model but its weights.

    Args:
        folder: it exists.
        facts: all but the weights' digest.
        digest: of the weights' file.
        card: as for `write_native`.

    Returns:
        The facts as written.
    """
    written = ModelFacts(facts.family, facts.preset, facts.config, digest, facts.source)
    text = json.dumps({"format": FORMAT, **asdict(written)}, indent=2)
    (folder / FACTS_NAME).write_text(text + "\n")
    (folder / CARD_NAME).write_text(card)
    return written


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files that a model's text is read by from its folder to another, where there are any."""
    for name in TOKENIZER_NAMES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def read_card(path: Path) -> str:
    """What a person should know of a model; empty where nobody wrote it."""
    try:
        return (path / CARD_NAME).read_text(errors="replace")
    except OSError:
        return ""


def weights_sha256(path: Path) -> str:
    """The digest of the weights as they are now."""
    return sha256_of(path / WEIGHTS_NAME)
