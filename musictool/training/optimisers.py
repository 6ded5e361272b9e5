"""Optimisers of torch, over groups of parameters that differ in learning rate and weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from musictool.training.recipe import Optimiser


def parameter_groups(trained: nn.Module, model: nn.Module | None = None) -> list[dict[str, Any]]:
    """Parameters by what becomes of them.

    Embeddings, norms, biases and whatever else has fewer than two dimensions do not decay; embeddings, and what is
    trained along with a model, may have learning rates of their own.

    Args:
        trained: all that is trained.
        model: what of it is the model; all by default.

    Returns:
        Groups for an optimiser, each with `is_companion`, `is_embedding` and `decays` beside its parameters; none is
        empty.
    """
    embeddings = {id(module.weight) for module in trained.modules() if isinstance(module, nn.Embedding)}
    own = {id(parameter) for parameter in (model or trained).parameters()}
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for parameter in trained.parameters():
        if parameter.requires_grad:
            is_embedding = id(parameter) in embeddings
            decays = not is_embedding and parameter.ndim >= 2
            groups.setdefault((id(parameter) not in own, is_embedding, decays), []).append(parameter)
    return [
        {"params": parameters, "is_companion": is_companion, "is_embedding": is_embedding, "decays": decays}
        for (is_companion, is_embedding, decays), parameters in groups.items()
    ]


def build_optimiser(trained: nn.Module, section: Optimiser, model: nn.Module | None = None) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for, of groups as `parameter_groups` makes them.

    On a CPU as on a GPU, AdamW and SGD change all parameters of a group at once. Adafactor bounds its rate by
    1 / sqrt(step) itself, and `betas` means nothing to it; SGD has `betas[0]` for its momentum.
    """
    groups = parameter_groups(trained, model)
    rate = section.learning_rate
    if section.kind == "adafactor":
        return torch.optim.Adafactor(groups, lr=rate)
    if section.kind == "sgd":
        momentum = section.betas[0]
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=rate, betas=section.betas, eps=section.eps, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, section: Optimiser, factor: float) -> None:
    """Set learning rates and weight decay for the step to come.

    Args:
        optimiser: of groups as `parameter_groups` makes them.
        section: the recipe's, as it is at this step.
        factor: what the schedule gives.
    """
    for group in optimiser.param_groups:
        rate = section.embedding_rate if group["is_embedding"] else None
        if group.get("is_companion"):  # a run that was begun before there were any does not say
            rate = section.companion_rate
        group["lr"] = (section.learning_rate if rate is None else rate) * factor
        group["weight_decay"] = section.weight_decay if group["decays"] else 0.0
