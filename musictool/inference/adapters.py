"""Adapters put on a model's weights, by peft, for good: what comes of it is a model like any other.

The extra `finetune` brings peft. Knows no particular model and no kind of adapter: peft does.
"""

from __future__ import annotations

import logging
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from musictool.checkpoints.adapters import Adapter
from musictool.checkpoints.checkpoint import broken
from musictool.checkpoints.safetensors_files import stored_in_safetensors
from musictool.errors import InputError, MissingError, UsageError

if TYPE_CHECKING:
    from torch import nn

PREFIX = "base_model.model."
"""What peft puts before the names of a model's tensors in an adapter's file."""


def load_peft() -> ModuleType:
    """The module `peft`.

    Raises:
        MissingError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it; it tells of what it could do without
    try:
        import peft
    except ImportError as error:
        hint = "pip install 'musictool[finetune]'"
        raise MissingError("adapters need peft", hint=hint, code="missing-dependency") from error
    module: ModuleType = peft
    return module


def check_base(adapter: Adapter, name: str, sha256: str) -> None:
    """Refuse an adapter that says that it is for another model.

    Args:
        adapter: it.
        name: what the model is called.
        sha256: of the model's weights.

    Raises:
        UsageError: it is.
    """
    if adapter.base_sha256 and adapter.base_sha256 != sha256:
        ours, theirs = f"{name} ({sha256[:8]})", f"{adapter.base or 'a model'} ({adapter.base_sha256[:8]})"
        hint = "name the model that it was trained on, with the same weights"
        message = f"the adapter is for another model: {theirs}, and this is {ours}"
        raise UsageError(message, context=str(adapter.path), hint=hint, code="wrong-model")


def merge_adapter(model: nn.Module, adapter: Adapter) -> nn.Module:
    """Add an adapter's changes to a model's weights.

    Args:
        model: of the adapter's kind, on the CPU; it is used up.
        adapter: of any kind that peft merges.

    Returns:
        The model, of the class that it was, its weights in memory of their own where they have changed.

    Raises:
        MissingError: peft is not installed.
        UsageError: the adapter does not fit the model.
        InputError: it is damaged, or peft does not merge its kind.
    """
    peft = load_peft()
    stored = set(_stored_names(adapter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is looked for here
        try:
            adapted = peft.PeftModel.from_pretrained(model, str(adapter.path), torch_device="cpu")
            known = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
        except (RuntimeError, ValueError) as error:
            raise _misfit(adapter, str(error)) from error
        except (TypeError, KeyError, AttributeError) as error:
            raise broken(adapter.path, f"peft cannot read the adapter: {_first_line(str(error))}") from error
        if stored != known:
            raise _misfit(adapter, f"of its {len(stored)} tensors, {len(stored & known)} have a place in the model")
        if not hasattr(adapted.base_model, "merge_and_unload"):
            kind = adapter.config["peft_type"]
            raise InputError(f"an adapter of kind {kind} is not merged with weights", context=str(adapter.path))
        try:
            merged: nn.Module = adapted.merge_and_unload(safe_merge=True)  # refuses what is not finite
        except ValueError as error:
            raise broken(adapter.path, _first_line(str(error))) from error
    return merged.requires_grad_(True)


def changed_names(adapter: Adapter) -> list[str]:
    """The names of an adapter's tensors, each beginning with that of the layer that it changes.

    Raises:
        InputError: they can't be read.
    """
    return [name.removeprefix(PREFIX) for name in _stored_names(adapter)]


def _stored_names(adapter: Adapter) -> list[str]:
    try:
        return list(stored_in_safetensors(adapter.weights))
    except OSError as error:
        raise InputError((error.strerror or "cannot be read").lower(), context=str(adapter.weights)) from error


def _misfit(adapter: Adapter, why: str) -> UsageError:
    hint = f"it is for {adapter.base}" if adapter.base else "name the model that it was trained on"
    message = f"the adapter does not fit the model: {_first_line(why)}"
    return UsageError(message, context=str(adapter.path), hint=hint, code="wrong-model")


def _first_line(text: str) -> str:
    """The first line that says something, without a full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Error(s) in loading")]
    return (lines or ["it is damaged"])[0][:200].rstrip(".")
