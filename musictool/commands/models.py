"""`mtk models`: which models there are, and weights in and out of the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool.cli.environment import UNPRINTABLE, Environment, environment_of
from musictool.cli.options import ForceOption
from musictool.cli.progress import track
from musictool.errors import MusicToolError

if TYPE_CHECKING:
    from musictool.checkpoints.published import PublishedModel
    from musictool.checkpoints.store import InstalledModel, Store
    from musictool.checkpoints.verify import TensorFinding
    from musictool.inference.model_description import ModelDescription, Part

LIST_EXAMPLES = ("mtk models list", "mtk models list --json")
SHOW_EXAMPLES = ("mtk models show mt3", "mtk models show mt3 --json")
IMPORT_EXAMPLES = (
    "if test -d mt3-t5x; then mtk models import mt3-t5x --as mt3; fi",
    "if test -f encodec_24khz-d7cc33bc.th; then mtk models import encodec_24khz-d7cc33bc.th --as encodec-24khz; fi",
)
VERIFY_EXAMPLES = ("mtk models verify", "mtk models verify --json")
EXPORT_EXAMPLES = (
    "if test -d my-model; then mtk models export ./my-model --format t5x -o my-model-t5x; fi",
    "if test -d my-codec; then mtk models export ./my-codec --format huggingface -o my-codec-hf; fi",
)
MERGE_EXAMPLES = (
    "if test -d run/best; then mtk models merge mt3 --adapter run/best -o my-mt3; fi",
    "if test -d my-mt3; then mtk models export ./my-mt3 --weights float16 -o my-mt3-half; fi",
)
PULL_EXAMPLES = (
    "mtk models pull encodec-24khz --dry-run",
    "mtk models pull mt3 --dry-run --from http://localhost:8000/mt3/",
)
MIRROR_VARIABLE = "MTK_MIRROR"
_MEGABYTE = 1_000_000

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", show_default=False, help="A model's name, or the path of its folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, no table.")]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", metavar="PRESET", show_default=False, help="What a checkpoint of another format is the weights of."
    ),
]


class ExportFormat(str, Enum):
    """What `mtk models export` writes; the values are `model_files.LAYOUTS`."""

    NATIVE = "native"
    T5X = "t5x"
    HUGGINGFACE = "huggingface"
    ENCODEC = "encodec"
    TORCH = "torch"


class WeightFormat(str, Enum):
    """What `mtk models export` stores numbers as."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


# ------------------------------------------------------------------------------------------------------ list and show


def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List presets and the models that are here.

    Models are looked for in the folders of MTK_MODEL_PATH, in the store (MTK_HOME, or the platform's folder for
    caches), and in the package. A preset without weights is listed with the command that brings them.
    """
    environment = environment_of(context)
    rows = [_row_of(model) for model in _store(environment).installed()]
    here = {row["name"] for row in rows}
    from musictool.models.registry import PRESETS

    rows += [_row_without_weights(preset) for preset in PRESETS if preset not in here]
    if as_json:
        _write_json(environment, rows)
        return
    cells = [
        (row["name"], row["preset"], _size(row["bytes"]), row["place"] or "-", row["path"] or row["note"])
        for row in rows
    ]
    _write_table(environment, ("model", "preset", "size", "place", "folder"), cells, right=(2,))


def _row_of(model: InstalledModel) -> dict[str, Any]:
    from musictool.checkpoints.native import WEIGHTS_NAME, read_facts

    row = {"name": model.name, "preset": "-", "bytes": None, "place": model.place, "path": str(model.path), "note": ""}
    try:
        facts = read_facts(model.path)
        return {**row, "preset": facts.preset, "bytes": (model.path / WEIGHTS_NAME).stat().st_size}
    except (MusicToolError, OSError) as error:
        return {**row, "path": None, "note": f"unreadable: {error}"}


def _row_without_weights(preset: str) -> dict[str, Any]:
    from musictool.checkpoints.store import how_to_get

    note = f"not here: {how_to_get(preset)}"
    return {"name": preset, "preset": preset, "bytes": None, "place": None, "path": None, "note": note}


def show_model(context: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what a model is made of, how large it is and where it comes from.

    A preset without weights is shown as it would be.
    """
    environment = environment_of(context)
    from musictool.inference.model_description import describe_model

    description = describe_model(model, store=_store(environment))
    if as_json:
        values = {**asdict(description), "parameters": description.parameters}
        _write_json(environment, [{**values, "path": None if description.path is None else str(description.path)}])
        return
    _write_lines(environment, _headline(description))
    _write_lines(environment, [""])
    cells = [row for part in description.parts for row in _part_rows(part)]
    total = ("total", f"{description.parameters:,}")
    _write_table(environment, ("part", "parameters"), [*cells, total], right=(1,))
    if description.card:
        _write_lines(environment, ["", *description.card.rstrip().splitlines()])


def _headline(description: ModelDescription) -> Iterator[str]:
    yield f"{description.name}: preset {description.preset}, family {description.family}"
    yield f"weights: {_size(description.bytes)}, {', '.join(description.dtypes)}"
    if description.path is None:
        from musictool.checkpoints.store import how_to_get

        yield f"not here: {how_to_get(description.name)}"
    else:
        yield f"sha256:  {description.sha256}"
        yield f"folder:  {description.path}"


def _part_rows(part: Part, depth: int = 0) -> Iterator[tuple[str, str]]:
    yield "  " * depth + part.name, f"{part.parameters:,}"
    for inner in part.inner:
        yield from _part_rows(inner, depth + 1)


# -------------------------------------------------------------------------------------------- import, verify and export


def import_model(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", show_default=False, help="A T5X or Hugging Face folder, or a file.")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", show_default=False, help="What to call the model.")],
    preset: PresetOption = None,
    force: ForceOption = False,
) -> None:
    """Bring a checkpoint into the store.

    Reads T5X folders, Hugging Face folders, safetensors, torch files (those of the encodec package among them) and
    musictool's own folders; no code in them is run. What a model is the weights of is what its own configuration says,
    the preset of the same name, or the nearest. A codec in the folder becomes a model of its own, unless it is here,
    and a tokenizer stays with its model. Every tensor is checked first: if one is missing, of a wrong shape or not
    finite, all that is wrong is listed, nothing is kept, and the exit status is 3.
    """
    environment = environment_of(context)
    from musictool.checkpoints.verify import VerificationError
    from musictool.inference import model_files

    try:
        model = model_files.import_model(path, name, preset=preset, store=_store(environment), force=force)
    except VerificationError as error:
        _write_findings(environment, error.findings)
        raise
    environment.note(f"imported as {model.name}", context=str(model.path))


def verify_model(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL|PATH", show_default=False, help="Names, or checkpoints of any format."),
    ] = None,
    preset: PresetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that checkpoints hold what they should.

    Names, shapes and every number of every tensor, and for a model of the store the digest of its weights; without an
    argument, of all models that are here. What is wrong is listed by tensor, and the exit status is 3.
    """
    environment = environment_of(context)
    from musictool.checkpoints.verify import VerificationError

    store = _store(environment)
    names = models or [model.name for model in store.installed()]
    errors: list[MusicToolError] = []
    for name in names:
        try:
            _verify(environment, name, preset, store, as_json)
        except MusicToolError as error:
            errors.append(error)
            if len(names) > 1:
                environment.item_failed(name, error)
    if len(names) == 1 and errors:
        raise errors[0]
    if errors:
        raise VerificationError(f"{len(errors)} of {len(names)} checkpoints are not as they should be")


def _verify(environment: Environment, name: str, preset: str | None, store: Store, as_json: bool) -> None:
    """Check one checkpoint, say how it is, and raise if it is not as it should be."""
    from musictool.inference import model_files

    result = model_files.verify_model(name, preset=preset, store=store)
    if as_json:
        _write_json(environment, [{**asdict(result), "path": str(result.path), "ok": not result.findings}])
    elif result.findings:
        _write_findings(environment, result.findings)
    else:
        what = f"{result.tensors} tensors of preset {result.preset}, {result.format}"
        _write_lines(environment, [f"ok  {name}: {what} ({result.path})"])
    result.raise_if_wrong()


def export_model(
    context: typer.Context,
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", show_default=False, help="The folder or file to write.")
    ],
    format: Annotated[
        ExportFormat, typer.Option("--format", help="Our own folder, one of another library, or a torch file.")
    ] = ExportFormat.NATIVE,
    weights: Annotated[
        WeightFormat | None,
        typer.Option("--weights", show_default=False, help="Numbers of half the size, say; as they are by default."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a model for other libraries to read.

    T5X and Hugging Face folders have the names that those libraries use, and so has the state dict that is written for
    the encodec package; a torch file is a state dict with our own.
    """
    environment = environment_of(context)
    from musictool.inference import model_files

    numbers: model_files.NumberName | None = weights.value if weights else None
    model_files.export_model(model, format.value, output, numbers=numbers, store=_store(environment), force=force)
    environment.note(f"written as {format.value}", context=str(output))


def merge_model(
    context: typer.Context,
    model: ModelArgument,
    adapter: Annotated[
        Path,
        typer.Option(
            "--adapter", metavar="PATH", show_default=False, help="A folder that mtk finetune --lora, or peft, wrote."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", show_default=False, help="The folder to write.")
    ],
    four_bits: Annotated[
        bool, typer.Option("--4-bit", help="Round the weights to 4 bits first, as QLoRA held them in training.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a model with an adapter merged into its weights.

    What comes of it is a model like any other, in musictool's own format and in 32 bits, and needs neither the adapter
    nor peft: use it by its path, or bring it into the store with mtk models import. The adapter is added to the weights
    as they are, as --adapter does it elsewhere; with --4-bit what comes of an adapter of QLoRA is the very model that
    was trained and evaluated. An adapter for another model is refused.
    """
    environment = environment_of(context)
    from musictool.inference import model_files

    model_files.merge_model(model, adapter, output, is_rounded=four_bits, store=_store(environment), force=force)
    environment.note("merged", context=str(output))


# --------------------------------------------------------------------------------------------------------------- pull


def pull_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="A published model.")],
    url: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", show_default=False, help="A folder on another server with its files."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List size, sha256 and address of what is to come.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Fetch a published model and import it.

    Files are known by their sha256; where it is not known here, the one that the server states is held to, and that is
    said. What has come is kept when the run is interrupted, and the next run goes on from there. MTK_MIRROR may name a
    server that has a folder for each model.
    """
    environment = environment_of(context)
    from musictool.checkpoints.download import checked_url, missing_files
    from musictool.checkpoints.native import read_facts
    from musictool.checkpoints.published import find_published
    from musictool.checkpoints.verify import VerificationError

    published = find_published(model)
    address = checked_url(url or _mirror(environment, published) or published.url)
    store = _store(environment)
    if dry_run:
        files = missing_files(published.files, store.downloads_for(model))
        rows = ((file.size or "?", file.sha256 or "?", address + file.path) for file in files)
        _write_lines(environment, (f"{size:>8}  {sha256:<64}  {url}" for size, sha256, url in rows))
        unknown = sum(file.size is None for file in files)
        size = _size(sum(file.size or 0 for file in files)) if not unknown else f"{unknown} of unknown size"
        environment.note(f"{size} in {len(files)} files; licence: {published.licence}")
        return
    if not force and any(installed.name == model for installed in store.installed()):
        environment.note(f"{model} is here already; --force fetches it again")
        return
    try:
        _pull(environment, published, address, store, force=force)
    except VerificationError as error:
        _write_findings(environment, error.findings)
        raise
    if remark := read_facts(store.folder_for(model)).source.get("remark"):
        environment.note(remark)
    environment.note(f"imported as {model}", context=str(store.folder_for(model)))


def _mirror(environment: Environment, published: PublishedModel) -> str:
    mirror = environment.environ.get(MIRROR_VARIABLE, "")
    return mirror and f"{mirror.rstrip('/')}/{published.name}/"


def _pull(environment: Environment, published: PublishedModel, url: str, store: Store, *, force: bool) -> None:
    """Fetch and import, a step of the bar for each megabyte."""
    from musictool.inference.model_files import fetch_model

    total = None if published.size is None else published.size // _MEGABYTE
    with closing(fetch_model(published, url, store=store, force=force)) as counts:
        megabytes = _megabytes(counts)
        with track(megabytes, environment, label=f"pull {published.name}, MB", total=total) as tracked:
            for _ in tracked:
                pass


def _megabytes(counts: Iterable[int]) -> Iterator[int]:
    """The megabytes that counts of bytes make up, as each is full."""
    received = full = 0
    for count in counts:
        received += count
        while full < received // _MEGABYTE:
            full += 1
            yield full


# ------------------------------------------------------------------------------------------------------------- writing


def _store(environment: Environment) -> Store:
    from musictool.checkpoints.store import Store

    return Store.from_environ(environment.environ)


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / _MEGABYTE:,.1f} MB"


def _write_findings(environment: Environment, findings: Sequence[TensorFinding]) -> None:
    """List what is wrong with a checkpoint."""
    cells = [(f.problem, f.tensor, f.stored, f.expected, f.found) for f in findings]
    _write_table(environment, ("problem", "tensor", "in the file", "expected", "found"), cells)


def _write_table(
    environment: Environment, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> None:
    """Write columns wide enough for what is in them, those in `right` flush right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    _write_lines(
        environment,
        (
            "  ".join(
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths))
            ).rstrip()
            for row in (head, *rows)
        ),
    )


def _write_lines(environment: Environment, lines: Iterable[str]) -> None:
    for line in lines:
        environment.stdout.write(UNPRINTABLE.sub("_", line).encode() + b"\n")


def _write_json(environment: Environment, records: Iterable[dict[str, Any]]) -> None:
    """Write a JSON object a line."""
    for record in records:
        environment.stdout.write(json.dumps(record).encode() + b"\n")
