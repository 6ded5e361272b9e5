"""Adapters in training: LoRA through peft, over weights as they are or held in 4 bits by bitsandbytes (QLoRA).

An adapted model is still of its own class. Its state dict holds what is trained, and nothing else: so checkpoints are
small, and go on over the weights of the base, which is read again. Both libraries come with the extra `finetune`. What
an adapter's folder holds is told in `checkpoints.adapters`; knows no particular model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from musictool.checkpoints.adapters import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_WEIGHTS_NAME,
    BASE_NAME_KEY,
    BASE_SHA256_KEY,
    read_adapter,
)
from musictool.checkpoints.safetensors_files import stored_in_safetensors, write_safetensors
from musictool.errors import UsageError
from musictool.inference.adapters import PREFIX, load_peft
from musictool.inference.four_bits import hold_in_4_bits, load_bitsandbytes
from musictool.inference.model_files import build_bare

if TYPE_CHECKING:
    from musictool.training.recipe import AdapterSection

_NAME = "default"  # of the one adapter, as peft calls it


def adapt(
    model: nn.Module, section: AdapterSection, *, compute: torch.dtype = torch.float32, beginning: Path | None = None
) -> None:
    """Freeze a model and put a fresh adapter into it, which changes nothing until it is trained.

    Modules that say `is_read_only` stay as they are; so do codebooks, which are to be in evaluation mode in training.

    Args:
        model: with the weights of the base, on the CPU.
        section: what kind of adapter.
        compute: what products with weights of 4 bits are computed in.
        beginning: the folder of an adapter to go on with instead of a fresh one.

    Raises:
        MissingError: peft or bitsandbytes is not installed.
        UsageError: the model has no such layers, or peft does not know them; or the adapter to go on with is another.
    """
    peft = load_peft()
    targets = _targets(model, section)
    if section.kind == "qlora":
        hold_in_4_bits(model, compute)
    config = peft.LoraConfig(
        r=section.rank, lora_alpha=section.alpha, lora_dropout=section.dropout, target_modules=targets
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peft.inject_adapter_in_model(config, model)
        except (ValueError, TypeError) as error:
            raise _unknown_layers(section, str(error).splitlines()[0]) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # whatever products are computed in
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # the base's averages stay as they are
    if beginning is not None:
        _begin_with(model, config, beginning)
    _hold_only_what_is_trained(model)


def check_adapter(section: AdapterSection, config: Any, beginning: Path | None = None) -> None:
    """See whether `adapt` can do what is asked for; no weights are read.

    Args:
        section, beginning: as `adapt` takes them.
        config: of the model.

    Raises:
        MissingError, UsageError: as `adapt`.
        InputError: the adapter to go on with is not there, or damaged.
    """
    if section.kind == "qlora":
        load_bitsandbytes()
    adapt(build_bare(config), replace(section, kind="lora"), beginning=beginning)


def _targets(model: nn.Module, section: AdapterSection) -> list[str]:
    """The names of all layers that are meant.

    Raises:
        UsageError: there are none, or peft has none like them.
    """
    ends = tuple(f".{target}" for target in section.targets)
    read_only = [f"{name}." for name, module in model.named_modules() if getattr(module, "is_read_only", False)]
    names = [
        name
        for name, _ in model.named_modules()
        if f".{name}".endswith(ends) or any(fnmatchcase(name, target) for target in section.targets)
    ]
    names = [name for name in names if not name.startswith(tuple(read_only))]
    if not names:
        raise _unknown_layers(section, f"the model has no layer called {' or '.join(section.targets)}")
    for name in names:  # peft would read them as if they were not
        if set(getattr(model.get_submodule(name), "dilation", (1,))) != {1}:
            raise _unknown_layers(section, f"peft knows no dilated convolution, which {name} is")
    return names


def _unknown_layers(section: AdapterSection, message: str) -> UsageError:
    hint = "adapter.targets=[…] names linear or convolution layers of the model, by the ends of their names or patterns"
    return UsageError(message[:1].lower() + message[1:].rstrip("."), context="adapter.targets", hint=hint)


def _begin_with(model: nn.Module, config: Any, folder: Path) -> None:
    """Give a fresh adapter the weights of another.

    Raises:
        UsageError: it is of another rank, scale or for other layers.
    """
    peft = load_peft()
    adapter = read_adapter(folder)
    theirs = {key: adapter.config.get(key) for key in ("peft_type", "r", "lora_alpha")}
    ours = {"peft_type": config.peft_type.value, "r": config.r, "lora_alpha": config.lora_alpha}
    for key, value in ours.items():
        if theirs[key] != value:
            raise UsageError(
                f"the adapter to go on with has {key} {theirs[key]}, not {value}",
                context=str(folder),
                hint="set adapter.rank and adapter.alpha as it has them",
            )
    stored = stored_in_safetensors(adapter.weights)
    tensors = {name.removeprefix(PREFIX): tensor.read() for name, tensor in stored.items()}
    known = {name: tensor.shape for name, tensor in adapter_tensors(model).items()}
    if known != {name: tensor.shape for name, tensor in tensors.items()}:
        raise UsageError(
            "the adapter to go on with is for other layers",
            context=str(folder),
            hint="adapter.targets names the layers, model.from the model",
        )
    peft.set_peft_model_state_dict(model, tensors, adapter_name=_NAME)


# -------------------------------------------------------------------------------------------------------- state, files


def _hold_only_what_is_trained(model: nn.Module) -> None:
    """Leave what is frozen out of a model's state dict, and let it be missing from one that is loaded."""
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    model.register_state_dict_post_hook(partial(_leave_out, trained))
    model.register_load_state_dict_post_hook(partial(_let_be_missing, trained))


def _leave_out(trained: frozenset[str], module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and name.removeprefix(prefix) not in trained]:
        del state[name]


def _let_be_missing(trained: frozenset[str], module: nn.Module, keys: Any) -> None:
    ends = tuple(f".{name}" for name in trained)
    keys.missing_keys[:] = [name for name in keys.missing_keys if f".{name}".endswith(ends)]


def is_adapted(model: nn.Module) -> bool:
    """Whether there is an adapter in a model."""
    return hasattr(model, "peft_config")


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model's adapter, by the names that peft gives them, without its prefix."""
    peft = load_peft()
    tensors: dict[str, Tensor] = peft.get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    return tensors


def write_adapter(folder: Path, model: nn.Module, base: str, base_sha256: str) -> str:
    """Write a model's adapter as peft would; the same adapter makes the same bytes.

    Args:
        folder: it exists.
        model: with an adapter in it.
        base: what the model without it is called.
        base_sha256: of that model's weights.

    Returns:
        The sha256 of the tensors' file.
    """
    tensors = {PREFIX + name: tensor for name, tensor in adapter_tensors(model).items()}
    values = model.peft_config[_NAME].to_dict()  # type: ignore[union-attr, index]  # peft has put it there
    values |= {BASE_NAME_KEY: base, BASE_SHA256_KEY: base_sha256, "inference_mode": True}
    text = json.dumps(dict(_plain(values)), indent=2, sort_keys=True)
    (folder / ADAPTER_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
    return write_safetensors(folder / ADAPTER_WEIGHTS_NAME, tensors)


def _plain(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A configuration of peft's as JSON takes it, sets in an order."""
    for key, value in values.items():
        yield key, sorted(value) if isinstance(value, set | frozenset) else value
