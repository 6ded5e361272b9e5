"""A training recipe: what to train, on what, how, and for how long. Imports no torch.

A recipe is a TOML file, and dotted overrides on the command line. Its sections are frozen dataclasses; those of
`[data]` and `[loss]` are the task's own, and `[model]` holds whatever the configuration of the task's family of models
has, beside `preset` and `from`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Literal, cast

from musictool.config import apply_overrides, from_dict, load_toml
from musictool.errors import UsageError
from musictool.models.registry import load_preset
from musictool.training.curriculum import SECTIONS, Curve, section_at
from musictool.training.task import Task, find_task

_PRESET_FOLDER = Path(__file__).parent / "presets"
_FINETUNE = "finetune"
_FINETUNE_FACTOR = 0.1
_ADAPTER_FACTOR = 10
_MAY_CHANGE = frozenset(
    f"run.{name}"
    for name in ("steps", "workers", "threads", "log_every", "trackers", "save_every", "save_minutes", "keep")
)

PrecisionName = Literal["fp32", "bf16", "fp16"]
TrackerName = Literal["tensorboard", "wandb"]


def _check(is_good: bool, message: str) -> None:
    if not is_good:
        raise ValueError(message)


@dataclass(frozen=True)
class Optimiser:
    """How weights change.

    Attributes:
        kind: of optimiser.
        learning_rate: before the schedule.
        embedding_rate: that of embeddings, where it is another.
        companion_rate: that of what is trained along with a model, such as discriminators, where it is another.
        weight_decay: of what has two dimensions or more; embeddings, norms and biases do not decay.
        betas, eps: of AdamW; SGD takes its momentum from the first beta.
        clip_norm: the longest that a gradient may be; 0 for no bound.
    """

    kind: Literal["adamw", "adafactor", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    embedding_rate: float | None = None
    companion_rate: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        rates = (self.learning_rate, self.embedding_rate or 0, self.companion_rate or 0)
        _check(min(rates) >= 0, "a learning rate is negative")
        _check(all(0 <= beta < 1 for beta in self.betas), "betas are from 0 to below 1")
        _check(self.weight_decay >= 0 and self.clip_norm >= 0 and self.eps >= 0, "a value is negative")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes.

    Attributes:
        kind: after the warm-up.
        warmup_steps: in which it rises from near 0 on a line.
        final_factor: where `linear` and `cosine` end.
        step_every, step_factor: `step` multiplies by the factor every so many steps.
        patience, factor: `plateau` multiplies by the factor after so many evaluations without gain.
    """

    kind: Literal["constant", "linear", "cosine", "step", "plateau"] = "cosine"
    warmup_steps: int = 0
    final_factor: float = 0.0
    step_every: int = 1000
    step_factor: float = 0.5
    patience: int = 3
    factor: float = 0.5

    def __post_init__(self) -> None:
        _check(self.warmup_steps >= 0 and self.final_factor >= 0, "a value is negative")
        _check(self.step_every > 0 and self.patience > 0, "step_every and patience are at least 1")
        _check(0 < self.factor < 1 and self.step_factor > 0, "factor is between 0 and 1, step_factor above 0")


@dataclass(frozen=True)
class Run:
    """How long, how much at once, and what is kept.

    Attributes:
        steps: changes of the weights.
        batch_size: examples of a process at a time.
        accumulation: batches of a process for a step.
        precision: of the model's passes; weights are float32. fp16 is for GPUs alone.
        ema_decay: of the averaged weights that are evaluated and saved; 0 for the weights themselves.
        checkpoint_gradients: compute layers again in the backward pass: less memory, about a third more time.
        workers: processes of a process that make examples; 0 to make them in between.
        threads: of a process; 0 for torch's own choice.
        log_every, evaluate_every, save_every: steps; 0 for never, but for a save and an evaluation at the end.
        save_minutes: a save, too, after so long without one; 0 for never.
        keep: how many checkpoints.
        best: the figure of an evaluation that tells the best model.
        best_is: whether the best is the highest or the lowest.
        patience: the run ends after so many evaluations without gain; 0 for never.
        trains: names of the model's parts, modules or weights, that learn, as in `denoiser.theory`; empty for all.
        seed: of weights, data and dropout.
        trackers: where figures go beside the metrics file.
        deterministic: refuse operations of a GPU that give now this, now that.
    """

    steps: int = 1000
    batch_size: int = 8
    accumulation: int = 1
    precision: PrecisionName = "fp32"
    ema_decay: float = 0.0
    checkpoint_gradients: bool = False
    workers: int = 2
    threads: int = 0
    log_every: int = 50
    evaluate_every: int = 1000
    save_every: int = 1000
    save_minutes: float = 10.0
    keep: int = 2
    best: str = "loss"
    best_is: Literal["min", "max"] = "min"
    patience: int = 0
    trains: tuple[str, ...] = ()
    seed: int = 0
    trackers: tuple[TrackerName, ...] = ()
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "keep"):
            _check(getattr(self, name) >= 1, f"{name} is at least 1")
        for name in ("workers", "threads", "log_every", "evaluate_every", "save_every", "patience", "seed"):
            _check(getattr(self, name) >= 0, f"{name} is negative")
        _check(self.save_minutes >= 0, "save_minutes is negative")
        _check(0 <= self.ema_decay < 1, "ema_decay is from 0 to below 1")


@dataclass(frozen=True)
class AdapterSection:
    """An adapter that is trained instead of a model's own weights (LoRA; Hu et al., 2021; arXiv:2106.09685).

    Attributes:
        kind: `lora`, or `qlora`, which holds the weights that stay as they are in 4 bits (Dettmers et al., 2023;
            arXiv:2305.14314).
        rank: of the change to each weight.
        alpha: the change is multiplied by alpha / rank.
        dropout: of what the adapter reads.
        targets: names of the layers that are changed, ends of such names, or patterns such as `decoder.*.conv`.
    """

    kind: Literal["lora", "qlora"] = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "key", "value", "output")

    def __post_init__(self) -> None:
        _check(self.rank >= 1, "rank is at least 1")
        _check(self.alpha >= 1, "alpha is at least 1")
        _check(0 <= self.dropout < 1, "dropout is from 0 to below 1")
        _check(bool(self.targets) and all(self.targets), "targets are names of layers, one at least")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of it.

    Attributes:
        task: its name.
        model: `preset`, `from` with an `adapter` on it, and values of the model's configuration.
        data, loss: of the task's classes.
        optimiser, schedule, run: numbers.
        curriculum: values that change with the step.
        adapter: what is trained instead of the model's weights; None to train these.
    """

    task: str
    model: dict[str, Any] = field(default_factory=dict)
    data: Any
    loss: Any
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    run: Run = Run()
    curriculum: tuple[Curve, ...] = ()
    adapter: AdapterSection | None = None

    def __post_init__(self) -> None:
        _check(not (self.run.trains and self.adapter), "run.trains is not for an adapter, which has adapter.targets")

    def at(self, step: int) -> Recipe:
        """The recipe as its curricula have it at a step, counted from 0."""
        if not self.curriculum:
            return self
        return replace(
            self, **{name: section_at(getattr(self, name), name, self.curriculum, step) for name in SECTIONS}
        )


# ------------------------------------------------------------------------------------------------------------- reading


def preset_names() -> tuple[str, ...]:
    """The recipes that ship."""
    return tuple(sorted(path.stem for path in _PRESET_FOLDER.glob("*.toml")))


def load_preset_table(name: str) -> dict[str, Any]:
    """A recipe that ships, as a table.

    Raises:
        UsageError: there is none of that name.
    """
    names = preset_names()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"no such training preset: {name[:40]!r}", hint=hint)
    table = load_toml(_PRESET_FOLDER / f"{name}.toml")
    table.pop(_FINETUNE, None)
    return table


def load_finetuning_table(family: str, adapter: Literal["lora", "qlora"] | None = None) -> dict[str, Any]:
    """The recipe that ships for a family of models, with what its `[finetune]` says instead.

    A preset that says nothing there is followed with a tenth of its learning rate.

    Args:
        family: of models.
        adapter: the kind to train instead of the model's weights, with what `[finetune.adapter]` says, and at ten times
            the rate, which is what one bears.

    Raises:
        UsageError: no recipe is for that family.
    """
    for name in preset_names():
        table = load_toml(_PRESET_FOLDER / f"{name}.toml")
        changes = table.pop(_FINETUNE, None)
        if family in _families_of(table):
            if changes is None:
                rate = table.get("optimiser", {}).get("learning_rate", Optimiser.learning_rate)
                changes = {"optimiser": {"learning_rate": rate * _FINETUNE_FACTOR}}
            own = changes.pop("adapter", {})
            table = merged(table, changes)
            return table if adapter is None else _for_adapter(table, {"kind": adapter, **own})
    raise UsageError(f"no recipe for models of family {family}", hint="write one, with model.from, for mtk train")


def _for_adapter(table: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of finetuning that trains an adapter instead."""
    rate = table.get("optimiser", {}).get("learning_rate", Optimiser.learning_rate)
    return merged(table, {"adapter": section, "optimiser": {"learning_rate": float(f"{rate * _ADAPTER_FACTOR:.6g}")}})


def _families_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """The families of models that a recipe that ships is for."""
    preset = table.get("model", {}).get("preset")
    return find_task(table.get("task")).families if preset is None else (load_preset(preset).family,)


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with values of another put into it, section by section."""
    result = dict(table)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def build_recipe(table: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "") -> Recipe:
    """A recipe from parsed TOML.

    Args:
        table: the recipe.
        overrides: `section.key=value` each.
        where: what to call the recipe in errors.

    Raises:
        UsageError: an unknown key or task, a value of another type or one that makes no sense.
    """
    values = apply_overrides(table, overrides)
    if "task" not in values:
        raise UsageError("the recipe names no task", context=where, hint='begin with task = "…"', code="bad-config")
    cls = _recipe_class(find_task(values["task"], where))
    recipe = from_dict(cls, values, where)
    curves = tuple(_fitted(curve, values, cls, where) for curve in recipe.curriculum)
    return replace(recipe, curriculum=curves)


def _fitted(curve: Curve, table: Mapping[str, Any], cls: type[Recipe], where: str) -> Curve:
    """A curve with values of the type that the recipe's value has; each is put in its place for that.

    Raises:
        UsageError: there is no such value, or it is not to be what a point says.
    """
    section, *path = curve.value.split(".")
    hint = f"values of {', '.join(SECTIONS)} may change, as in data.excerpt_seconds"
    no_such_value = UsageError(f"'{curve.value}' has no curriculum", context=where, hint=hint, code="bad-config")
    if section not in SECTIONS or not path:
        raise no_such_value
    points = []
    for step, value in curve.points:
        change: Any = value
        for key in reversed(path):
            change = {key: change}
        held: Any = from_dict(cls, merged(table, {section: change}), f"{where}, curriculum at step {step}".lstrip(", "))
        for key in (section, *path):
            if not is_dataclass(held):
                raise no_such_value
            held = getattr(held, key)
        points.append((step, held))
    return replace(curve, points=tuple(points))


@lru_cache
def _recipe_class(task: type[Task]) -> type[Recipe]:
    """A recipe's class whose data and loss are a task's."""
    own: list[Any] = []
    for name, section in (("data", task.data_class), ("loss", task.loss_class)):
        needs_values = any(f.init and f.default is MISSING and f.default_factory is MISSING for f in fields(section))
        own.append((name, section) if needs_values else (name, section, field(default_factory=section)))
    return cast("type[Recipe]", make_dataclass("Recipe", own, bases=(Recipe,), frozen=True, kw_only=True))


# ------------------------------------------------------------------------------------------------------------- writing


def recipe_to_table(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values that TOML can hold; what is nothing is left out."""
    table: dict[str, Any] = _plain(asdict(recipe))
    return table


def recipe_to_toml(recipe: Recipe) -> str:
    """A recipe as text, every value written out."""
    import tomli_w

    return tomli_w.dumps(recipe_to_table(recipe))


def changed_values(old: Recipe, new: Recipe) -> list[str]:
    """The values, by dotted name, in which a recipe differs from that of a run it is to go on with, and must not."""
    before, after = (dict(_flat(recipe_to_table(recipe))) for recipe in (old, new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [name for name in names if name not in _MAY_CHANGE]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
