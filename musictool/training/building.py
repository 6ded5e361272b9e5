"""The model that a recipe asks for: its configuration, and its weights, fresh or from a model that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from musictool.checkpoints.native import CODEC_KEYS, kept_codes, read_facts
from musictool.errors import UsageError
from musictool.inference.model_files import build_bare, load_model
from musictool.models.registry import FAMILIES, build_model, config_from_dict, config_to_dict, load_preset
from musictool.training.freezing import freeze_but
from musictool.training.recipe import Recipe, merged

if TYPE_CHECKING:
    from torch import nn

    from musictool.checkpoints.store import Store

_COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ModelPlan:
    """What to build.

    Attributes:
        config: of the model.
        preset: whose numbers it began with; a family's name where there is none.
        origin: the model whose weights training begins with; empty for fresh ones.
        origin_sha256: of these weights.
        adapter: the folder of an adapter on that model, to begin with it; empty for none.
        inherited: what that model says of where it comes from, and what is made of it says, too: its codec; and of a
            codec, whose codes it goes on to have.
    """

    config: Any
    preset: str
    origin: str = ""
    origin_sha256: str = ""
    adapter: str = ""
    inherited: Mapping[str, str] = field(default_factory=dict)

    def build(self, store: Store) -> nn.Module:
        """The model, in float32 on the CPU, in training mode.

        Fresh weights are drawn from torch's random state.

        Raises:
            UsageError: the weights to begin with are of a model of other shapes.
        """
        if not self.origin:
            return build_model(self.config).train()
        loaded = load_model(self.origin, store=store).model
        model = build_bare(self.config)
        try:
            model.load_state_dict(loaded.state_dict(), assign=True)
        except RuntimeError as error:
            hint = "leave out of [model] what changes the model's shape"
            raise UsageError("the recipe's model has other shapes", context=self.origin, hint=hint) from error
        return model.train()


def plan_model(recipe: Recipe, families: Sequence[str], store: Store, where: str = "") -> ModelPlan:
    """Find out what a recipe's `[model]` means.

    Args:
        recipe: its `[model]` may have `preset`, `from` (a model's name or path), `adapter` (the path of one on that
            model), and values of the configuration.
        families: of models that its task trains.
        store: where models are.
        where: the recipe, for errors.

    Raises:
        UsageError: a value makes no sense, or the model is of another family.
        MissingError, InputError: there is no such model to begin with.
    """
    own = dict(recipe.model)
    preset, origin, adapter = (own.pop(name, None) for name in ("preset", "from", "adapter"))
    where = ", ".join(filter(None, (where, "[model]")))
    for name, value in (("preset", preset), ("from", origin), ("adapter", adapter)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"'model.{name}' is not a text", context=where, code="bad-config")
    if origin is None and (adapter is not None or recipe.adapter is not None):
        raise UsageError("an adapter is on a model that is there", context=where, hint="name it with model.from")
    digest, inherited = "", dict[str, str]()
    if origin is not None:
        facts = read_facts(store.find(origin).path)
        base: dict[str, Any] = {"family": facts.family, **facts.config}
        preset, digest = facts.preset, facts.weights_sha256
        inherited = {key: facts.source[key] for key in CODEC_KEYS if key in facts.source}
        if recipe.run.trains and adapter is None and not own:  # else other parts than those may differ, too
            inherited |= kept_codes(facts, config_from_dict(base), recipe.run.trains)
    elif preset is not None:
        base = config_to_dict(load_preset(preset))
    elif len(families) == 1:
        base = {"family": families[0]}
    else:
        hint = f"model.preset names one; there are families {', '.join(families)}"
        raise UsageError(f"task {recipe.task} trains models of several kinds", context=where, hint=hint)
    family = base["family"]
    if family not in families and family in FAMILIES:
        known = ", ".join(families)
        message = f"task {recipe.task} trains models of family {known}, and this is one of {family}"
        raise UsageError(message, context=where, code="bad-config")
    config = config_from_dict(merged(base, own), where)
    return ModelPlan(config, preset or family, origin or "", digest, adapter or "", inherited)


def build_for(recipe: Recipe, plan: ModelPlan, store: Store) -> nn.Module:
    """A recipe's model, ready to be trained; with an adapter, where that is what is trained.

    Raises:
        UsageError: the weights to begin with do not fit, it has no layers to compute again and is to, or none for an
            adapter, or no part of a name that is to learn.
        MissingError: a package for adapters is not installed.
    """
    if recipe.adapter is None:
        model = plan.build(store.adapting(plan.origin, plan.adapter or None))
    else:
        from musictool.training.adapters import adapt

        model = plan.build(store)
        beginning = Path(plan.adapter) if plan.adapter else None
        adapt(model, recipe.adapter, compute=_COMPUTE[recipe.run.precision], beginning=beginning)
    for module in model.modules():
        if getattr(module, "is_read_only", False):
            module.requires_grad_(False)
    if recipe.run.trains:
        freeze_but(model, recipe.run.trains)
    if recipe.run.checkpoint_gradients:
        _use_gradient_checkpoints(model)
    return model


def _use_gradient_checkpoints(model: nn.Module) -> None:
    """Let a model compute its layers again in the backward pass, instead of keeping what is inside them.

    Raises:
        UsageError: it has no part that can.
    """
    parts = [module for module in model.modules() if hasattr(module, "checkpoints_gradients")]
    if not parts:
        raise UsageError("this model has no layers to compute again", hint="set run.checkpoint_gradients to false")
    for part in parts:
        part.checkpoints_gradients = True  # type: ignore[assignment]
