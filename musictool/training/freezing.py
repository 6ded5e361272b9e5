"""Training some parts of a model, while the rest stays bit for bit as it is."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

from torch import nn

from musictool.errors import UsageError

if TYPE_CHECKING:
    from musictool.training.recipe import Recipe


def freeze_but(model: nn.Module, parts: Collection[str]) -> None:
    """Let nothing learn but some parts, and in these nothing that was not to learn before.

    Args:
        model: any.
        parts: names of modules or weights, as in `denoiser.theory`.

    Raises:
        UsageError: there is no such part, or nothing in them learns.
    """
    modules, weights = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
    learning: set[nn.Parameter] = set()
    for name in parts:
        if name in weights:
            learning.add(weights[name])
        elif name and name in modules:
            learning.update(modules[name].parameters())
        else:
            near = get_close_matches(name, [*filter(None, modules), *weights], n=1, cutoff=0)[0]
            raise UsageError(f"the model has no part {name!r}", hint=f"did you mean {near!r}?", code="bad-config")
    for weight in weights.values():
        if weight not in learning:
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in learning):
        raise UsageError(f"there is nothing to learn in {', '.join(parts)}", code="bad-config")


def modules_at_rest(model: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """Modules that a recipe wants in evaluation mode while the rest of a model learns."""
    if recipe.run.trains:
        return still_modules(model, recipe.run.trains)
    if recipe.adapter is not None:  # codebooks follow what they see, which an adapter has no place for
        return [module for module in model.modules() if getattr(module, "averages_itself", False)]
    return []


def still_modules(model: nn.Module, parts: Collection[str], name: str = "") -> list[nn.Module]:
    """The largest modules that are neither in a part, nor have one in them.

    In training they are to be in evaluation mode: they gather no statistics, learn no codebook, and drop nothing out.

    Args:
        model, parts: as `freeze_but` takes them.
        name: of the model within the one that parts are named in.
    """
    if name in parts:
        return []
    inside = f"{name}." if name else ""
    if not any(part.startswith(inside) for part in parts):
        return [model]
    children = model.named_children()
    return [module for own, child in children for module in still_modules(child, parts, inside + own)]
