"""What a recipe would take, found out without training: parameters by part, and memory by what it is for.

Activations are measured: tensors that autograd keeps are counted in a forward pass of one example, and in one of the
same example twice, which tells what grows with the batch. The rest follows from the numbers of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from musictool.training.recipe import Recipe
    from musictool.training.task import Task

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}  # of fp16 a CPU has too little, and bf16 is as long


@dataclass(frozen=True)
class Sizes:
    """Parameters of a model, and of what is trained along with it.

    Attributes:
        parts: how many, by the parts of both, each counted where it first stands.
        state: numbers that the optimiser keeps of them.
        copied: how many are the model's and trained, of which there is a second copy.
        trained: how many are not frozen.
        weight_bytes: of all of them, frozen ones perhaps in 4 bits.
    """

    parts: Mapping[str, int]
    state: int
    copied: int
    trained: int
    weight_bytes: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def measure_sizes(recipe: Recipe, model: nn.Module, trained: nn.Module | None = None) -> Sizes:
    """Count parameters, and what the optimiser keeps of each.

    Args:
        recipe: all numbers.
        model: what is written in the end.
        trained: the model with what is trained along; the model alone by default.
    """
    trained = trained or model
    own = {parameter: name for name, parameter in model.named_parameters()}
    parts: dict[str, int] = {}
    for name, parameter in trained.named_parameters():
        part = own.get(parameter, name).partition(".")[0]
        parts[part] = parts.get(part, 0) + _numbers_in(parameter)
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in trained.parameters())
    learning = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    state = sum(_state_of(parameter, recipe) for parameter in learning)
    copied = sum(parameter.numel() for parameter in learning if parameter in own)
    return Sizes(parts, state, copied, sum(parameter.numel() for parameter in learning), weight_bytes)


def _numbers_in(parameter: nn.Parameter) -> int:
    """How many numbers a parameter holds; of 4 bits, there are more than it has entries."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def _state_of(parameter: nn.Parameter, recipe: Recipe) -> int:
    """How many numbers an optimiser keeps of a parameter."""
    kind = recipe.optimiser.kind
    if kind == "adamw":
        return 2 * parameter.numel()
    if kind == "sgd":
        return parameter.numel() if recipe.optimiser.betas[0] else 0
    if parameter.ndim < 2:
        return parameter.numel()
    rows, columns = parameter.shape[-2:]
    return parameter.numel() // columns + parameter.numel() // rows


def measure_activations(recipe: Recipe, model: nn.Module, task: Task) -> int:
    """Bytes that a batch's forward pass keeps for the backward pass; the most of the first step and the last.

    Args:
        recipe: all numbers.
        model: what `task.loss` is to call, on the CPU.
        task: makes an example.

    Raises:
        InputError: there is no data to make an example of.
    """
    task.check()
    steps = (0, recipe.run.steps - 1) if recipe.curriculum else (0,)
    return max(_activations_at(recipe.at(step), model, task) for step in steps)


def _activations_at(recipe: Recipe, model: nn.Module, task: Task) -> int:
    """With the sections as they are in a recipe."""
    example = task.example(0, recipe.data)
    one, two = (_kept_bytes(model, task, task.collate([example] * count), recipe) for count in (1, 2))
    return one + (recipe.run.batch_size - 1) * max(0, two - one)


def _kept_bytes(model: nn.Module, task: Task, batch: dict[str, Tensor], recipe: Recipe) -> int:
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    dtype = _DTYPES.get(recipe.run.precision)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype, enabled=dtype is not None),
    ):
        loss: Any = task.loss(model, batch, recipe.loss)[0]  # kept to the end, and with it the tensors counted
    del loss
    return sum(kept.values())


def describe_sizes(sizes: Sizes) -> str:
    """Parameters by part, as comments for the end of a recipe."""
    lines = ["", "# parameters"]
    lines += [f"#   {name:<28} {count:>14,}" for name, count in sizes.parts.items()]
    lines.append(f"#   {'all':<28} {sizes.total:>14,}")
    if sizes.trained < sizes.total:
        lines.append(f"#   {'trained':<28} {sizes.trained:>14,}")
    return "\n".join(lines) + "\n"


def describe_memory(recipe: Recipe, sizes: Sizes, activations: int) -> str:
    """Memory by what it is for, in decimal megabytes, as comments for the end of a recipe."""
    copy = "averaged weights" if recipe.run.ema_decay else "copy of the weights to save"
    needs = {
        "weights": sizes.weight_bytes,
        "gradients": 4 * sizes.trained,
        f"{recipe.optimiser.kind} state": 4 * sizes.state,
        copy: 4 * sizes.copied,
        f"activations, batch of {recipe.run.batch_size}": activations,
    }
    lines = ["", "# memory of a process, MB"]
    lines += [f"#   {name:<28} {amount / 1e6:>14,.1f}" for name, amount in needs.items()]
    lines.append(f"#   {'all':<28} {sum(needs.values()) / 1e6:>14,.1f}")
    return "\n".join(lines) + "\n"
