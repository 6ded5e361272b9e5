"""What a model is trained to do: the protocol of a task, and which tasks there are.

A task makes examples, turns a batch of them into a loss, and judges a model on held-out data. The loop knows nothing
else of music. A task's module, and torch with it, is imported when the task is first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from musictool.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from musictool.checkpoints.store import Store

    Batch = Mapping[str, Tensor]


class Task(Protocol):
    """One kind of training.

    An example is a pure function of its index and of the seed, so that a run can begin anywhere, with any number of
    loader workers and of processes.

    Attributes:
        data_class: the frozen dataclass of a recipe's `[data]`.
        loss_class: that of `[loss]`.
        families: of models that can be trained so.
    """

    data_class: ClassVar[type[Any]]
    loss_class: ClassVar[type[Any]]
    families: ClassVar[tuple[str, ...]]

    def __init__(self, model_config: Any, data: Any, loss: Any, seed: int) -> None: ...

    def check(self) -> None:
        """Look whether there is data to train on; reads little and writes nothing.

        Raises:
            InputError: a corpus is not there, is empty or is of another vocabulary.
            UsageError: the recipe contradicts itself.
        """
        ...

    def example(self, index: int, data: Any) -> Any:
        """Make example number `index`, in a loader's worker.

        Args:
            index: counts over the whole run, from 0.
            data: the data section as it is at the step that wants the example.
        """
        ...

    def collate(self, examples: list[Any]) -> dict[str, Tensor]:
        """Put examples into one batch, in a loader's worker."""
        ...

    def loss(self, model: nn.Module, batch: Batch, loss: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch.

        Args:
            model: to be called as a whole, `model(...)`, since other processes wait for what hangs on that call.
            batch: on the model's device.
            loss: the loss section as it is at this step.

        Returns:
            The loss, a scalar, and its parts by name: detached scalars, the same names for every batch.
        """
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures of a model in evaluation mode on held-out data, by name; none if there is no such data."""
        ...

    def amounts(self, batch: Batch) -> dict[str, float]:
        """How much a batch holds, such as `{"audio_seconds": 64.0}`, to tell how fast it goes."""
        ...


@runtime_checkable
class StoreTask(Protocol):
    """A task that needs models beside the one it trains: a codec, say, to make codes of sound."""

    def use_store(self, store: Store, origin: str) -> None:
        """Take where models are, before anything else.

        Args:
            store: where they are.
            origin: the model whose weights training begins with; empty for fresh ones.
        """
        ...


@runtime_checkable
class FiledTask(Protocol):
    """A task whose models are read with files beside them: a tokenizer, say."""

    def files(self) -> dict[str, bytes]:
        """What has to lie beside a model, by name."""
        ...


@runtime_checkable
class SourcedTask(Protocol):
    """A task whose models mean something beside another model alone: codes by their codec, say."""

    def sources(self) -> dict[str, str]:
        """What a model has to say of where it is from, beside the run."""
        ...


@runtime_checkable
class AccompaniedTask(Protocol):
    """A task that trains more than its model: discriminators, say, or what follows a model and is not in it.

    All of it is kept in checkpoints to go on from, and the model alone is evaluated and written. What takes no part in
    a batch's loss keeps its weights.
    """

    def accompanied(self, model: nn.Module, *, is_fresh: bool) -> nn.Module:
        """The module that `loss` is to call: it holds the model, and beside it what is trained along.

        Args:
            model: as built.
            is_fresh: whether its weights are random, and not those of a model that is there.
        """
        ...


def accompany(task: Task, model: nn.Module, *, is_fresh: bool) -> nn.Module:
    """All that a task trains: the model, or what holds it; arguments as of `AccompaniedTask.accompanied`."""
    return task.accompanied(model, is_fresh=is_fresh) if isinstance(task, AccompaniedTask) else model


class TaskEntry(NamedTuple):
    """Where a task lives."""

    module: str
    attribute: str


TASKS: dict[str, TaskEntry] = {
    "note-tagging": TaskEntry("musictool.training.tasks.note_tagging", "NoteTagging"),
    "style-transfer": TaskEntry("musictool.training.tasks.tatumflow", "StyleTransfer"),
    "style-writing": TaskEntry("musictool.training.tasks.tatumflow_writing", "StyleWriting"),
    "mt3": TaskEntry("musictool.training.tasks.mt3", "MT3Transcription"),
    "symbolic-generation": TaskEntry("musictool.training.tasks.symbolic_generation", "SymbolicGeneration"),
    "codec": TaskEntry("musictool.training.tasks.codec", "CodecTask"),
    "style-encoding": TaskEntry("musictool.training.tasks.style_encoding", "StyleEncoding"),
    "code-generation": TaskEntry("musictool.training.tasks.code_generation", "CodeGeneration"),
}


def find_task(name: object, where: str = "") -> type[Task]:
    """The class of a task.

    Raises:
        UsageError: there is no task of that name.
    """
    if not isinstance(name, str) or name not in TASKS:
        near = get_close_matches(str(name), TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TASKS)}"
        raise UsageError(f"no such task: {name!r:.40}", context=where, hint=hint, code="bad-config")
    entry = TASKS[name]
    task: type[Task] = getattr(import_module(entry.module), entry.attribute)
    return task
