"""The model that a recipe asks for: its configuration, and its weights, fresh or from a model that is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.native import read_facts
from musictool.errors import UsageError
from musictool.inference.model_files import load_model
from musictool.models.registry import FAMILIES, build_model, config_from_dict, config_to_dict, load_preset
from musictool.training.recipe import Recipe, merged

if TYPE_CHECKING:
    from torch import nn

    from musictool.checkpoints.store import Store


@dataclass(frozen=True)
class ModelPlan:
    """What to build.

    Attributes:
        config: of the model.
        preset: whose numbers it began with; a family's name where there is none.
        origin: the model whose weights training begins with; empty for fresh ones.
    """

    config: Any
    preset: str
    origin: str = ""

    def build(self, store: Store) -> nn.Module:
        """The model, in float32 on the CPU, in training mode.

        Fresh weights are drawn from torch's random state.

        Raises:
            UsageError: the weights to begin with are of a model of other shapes.
        """
        if not self.origin:
            return build_model(self.config).train()
        loaded = load_model(self.origin, store=store).model
        model = build_model(self.config)
        try:
            model.load_state_dict(loaded.state_dict())
        except RuntimeError as error:
            hint = "leave out of [model] what changes the model's shape"
            raise UsageError("the recipe's model has other shapes", context=self.origin, hint=hint) from error
        return model.train()


def plan_model(recipe: Recipe, family: str, store: Store, where: str = "") -> ModelPlan:
    """Find out what a recipe's `[model]` means.

    Args:
        recipe: its `[model]` may have `preset`, `from` (a model's name or path), and values of the configuration.
        family: of models that its task trains.
        store: where models are.
        where: the recipe, for errors.

    Raises:
        UsageError: a value makes no sense, or the model is of another family.
        MissingError, InputError: there is no such model to begin with.
    """
    own = dict(recipe.model)
    preset, origin = own.pop("preset", None), own.pop("from", None)
    where = ", ".join(filter(None, (where, "[model]")))
    for name, value in (("preset", preset), ("from", origin)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"'model.{name}' is not a text", context=where, code="bad-config")
    if origin is not None:
        facts = read_facts(store.find(origin).path)
        base: dict[str, Any] = {"family": facts.family, **facts.config}
        preset = facts.preset
    elif preset is not None:
        base = config_to_dict(load_preset(preset))
    else:
        base = {"family": family}
    if base["family"] != family and base["family"] in FAMILIES:
        message = f"task {recipe.task} trains models of family {family}, and this is one of {base['family']}"
        raise UsageError(message, context=where, code="bad-config")
    return ModelPlan(config_from_dict(merged(base, own), where), preset or family, origin or "")


def build_for(recipe: Recipe, plan: ModelPlan, store: Store) -> nn.Module:
    """A recipe's model, ready to be trained.

    Raises:
        UsageError: the weights to begin with do not fit, or it has no layers to compute again and is to.
    """
    model = plan.build(store)
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
