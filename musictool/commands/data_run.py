"""`mtk data run`: a pipeline's TOML -> all of its stages, in a folder each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musictool.cli.environment import Environment, environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import atomic_writer
from musictool.cli.options import JobsOption
from musictool.cli.parallel import use_one_thread
from musictool.commands.split_runs import WantedSplit, split_folder
from musictool.commands.stage_runs import AgainOption, StageInput, StageRun, read_items, read_recordings
from musictool.config import apply_overrides, load_toml
from musictool.errors import InputError

if TYPE_CHECKING:
    from musictool.training.data.pipeline.items import Item
    from musictool.training.data.pipeline.plan import Pipeline, PlannedStage

EXAMPLES = (
    "mtk data run examples/recipes/saxgpt/recordings.toml examples/ -o saxgpt/",
    "mtk data run examples/recipes/saxgpt/recordings.toml examples/ -o saxgpt/ --set loudness.target_lufs=-16 --force",
)
SPLIT_FOLDER = "split"


def data_run(
    context: typer.Context,
    pipeline: Annotated[
        Path,
        typer.Argument(metavar="PIPELINE.toml", show_default=False, help="What is done: a section for each stage."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR/", show_default=False, help="A folder for each stage is in it."),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", show_default=False, help="Instead of the pipeline's own inputs."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="One setting, as in loudness.target_lufs=-16 or ingest.keep=false; may be repeated.",
        ),
    ] = None,
    jobs: JobsOption = 1,
    force: AgainOption = False,
) -> int:
    """Run the stages of a pipeline, or go on where an earlier run ended.

    A stage's output is in DIR/STAGE/; with keep = false in its section it goes as soon as the next stage has used it
    up. What is done is not done again, however often a run is cut off, and the result is the same. A setting that has
    changed since is refused, unless --force makes again what hangs on it.
    """
    environment = environment_of(context)
    use_one_thread()
    from musictool.training.data.pipeline.plan import parse_pipeline

    plan = parse_pipeline(apply_overrides(load_toml(pipeline), settings or ()), str(pipeline))
    run = _PipelineRun(environment, plan, output, jobs, force=force)
    items = run.work(inputs or list(plan.inputs))
    if not items:
        raise InputError("nothing came out of the pipeline", context=str(pipeline), code="empty-pipeline")
    is_good = not run.has_failed
    if plan.split is not None:
        is_good &= run.split(items)
    return ExitStatus.DONE if is_good else ExitStatus.FINDINGS


class _PipelineRun:
    """One run of a pipeline.

    Attributes:
        has_failed: whether an item has, at any stage.
    """

    def __init__(self, environment: Environment, plan: Pipeline, folder: Path, jobs: int, *, force: bool) -> None:
        from musictool.training.data.pipeline.ledger import Ledger
        from musictool.training.data.pipeline.stage import Stage

        self.has_failed = False
        self._environment = environment
        self._plan = plan
        self._folder = folder
        self._jobs = jobs
        stages = [Stage.of(planned.settings) for planned in plan.stages]
        self._ledgers = [Ledger(folder / stage.name, stage, replaces=force) for stage in stages]

    def work(self, inputs: Sequence[str]) -> list[Item]:
        """Do all stages; what comes out of the last."""
        given: StageInput | None = None
        needed: set[Path] = set()  # by items that failed, when they are tried again
        made: list[Item] = []
        for number, (planned, ledger) in enumerate(zip(self._plan.stages, self._ledgers, strict=True)):
            run = StageRun(self._environment, ledger.stage, ledger, self._jobs)
            if given is None:
                given = _first_input(planned, inputs, run)
            made = list(run.work(given, self._used_up_by(number + 1)))
            self.has_failed |= run.has_failed
            needed |= {path for item in run.failed for path in item.files}
            if any(ledger.folder in path.parents for item in made for path in item.files):
                self._discard_before(number, needed)
            given = StageInput(made, len(made))
        return made

    def split(self, items: Sequence[Item]) -> bool:
        """List the items for each side, and put their codes together where they have some; whether all is well."""
        from musictool.training.data.pipeline.outlet import CODES_SUFFIX
        from musictool.training.data.splitting import EVIDENCE, parse_fractions

        assert self._plan.split is not None
        wanted = WantedSplit(parse_fractions(self._plan.split.fractions), self._plan.split.seed, EVIDENCE[:1])
        target = self._folder / SPLIT_FOLDER
        source = self._ledgers[-1].folder
        for left_over in target.glob(".mtk-*.part"):  # by a run that was killed while it wrote a list
            left_over.unlink(missing_ok=True)
        is_good, sides = split_folder(self._environment, source, target, wanted, force=True)
        if all(part.file.suffix == CODES_SUFFIX for item in items for part in item.parts.values()):
            from musictool.training.data.pipeline.corpora import corpora_of, write_corpus

            for name, streams in corpora_of(items, sides, source).items():
                with atomic_writer(target / name, force=True) as file:
                    count = write_corpus(file, streams)
                self._environment.note(f"{name}: {count} items")
        return is_good

    def _used_up_by(self, number: int) -> Callable[[Item], bool]:
        """Whether the stage of a number, and those behind it, need no file of an item any more."""

        def is_used_up(item: Item) -> bool:
            if number == len(self._ledgers) or self._is_kept(item, number - 1):
                return False
            return self._ledgers[number].has(item, self._used_up_by(number + 1))

        return is_used_up

    def _is_kept(self, item: Item, number: int) -> bool:
        """Whether a stage has files of an item that are to stay."""
        folder = self._ledgers[number].folder
        return self._plan.stages[number].keeps and any(folder in path.parents for path in item.files)

    def _discard_before(self, number: int, needed: set[Path]) -> None:
        """Remove what stages before this one made and nobody needs any more."""
        for planned, ledger in zip(self._plan.stages[:number], self._ledgers, strict=False):
            if not planned.keeps:
                ledger.discard(needed)


def _first_input(planned: PlannedStage, inputs: Sequence[str], run: StageRun) -> StageInput:
    if not inputs:
        hint = 'name them behind the pipeline, or say inputs = ["recordings/"] in it'
        raise InputError("the pipeline has no inputs", hint=hint)
    if planned.name == "ingest":
        return read_recordings(inputs, run)
    if planned.name == "pairs":
        from musictool.training.data.pipeline.pairs import items_of_database

        items = [item for folder in inputs for item in items_of_database(Path(folder), planned.settings)]
        return StageInput(items, len(items))
    return read_items(inputs, run)
