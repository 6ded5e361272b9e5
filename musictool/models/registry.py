"""Which models there are: families of modules, and presets, which are a family with numbers.

A family's module, and torch with it, is imported when the family is first used; names alone cost nothing. A preset is
a TOML file in `presets/`: `family`, and what differs from the defaults of the family's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from musictool.config import from_dict, load_toml
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from musictool.checkpoints.checkpoint import Checkpoint
    from musictool.checkpoints.names import NameMap

_PRESET_FOLDER = Path(__file__).parent / "presets"

PRESETS = tuple(sorted(path.stem for path in _PRESET_FOLDER.glob("*.toml")))


class Family(NamedTuple):
    """Where a family of models lives.

    Attributes:
        module: holds the configuration's class and the model's.
        config, model: their names.
        names: the module whose `foreign_names(config)` tells what other libraries call its tensors; None
            where none knows it.
        reads_config: whether that module has a `config_from_huggingface(data, where)`.
        has_codec: whether it has an `audio_encoder(checkpoint)`, which takes the codec out of a folder that holds the
            model and it.
    """

    module: str
    config: str
    model: str
    names: str | None = None
    reads_config: bool = False
    has_codec: bool = False


FAMILIES: dict[str, Family] = {
    "mt3": Family("musictool.models.mt3", "MT3Config", "MT3", "musictool.models.mt3_names"),
    "tatumflow": Family("musictool.models.tatumflow", "TatumFlowConfig", "TatumFlow"),
    "codec": Family("musictool.models.codec", "CodecConfig", "Codec", "musictool.models.codec_names", True),
    "musicgen": Family(
        "musictool.models.musicgen", "MusicGenConfig", "MusicGen", "musictool.models.musicgen_names", True, True
    ),
    "note-tagger": Family("musictool.models.note_tagger", "NoteTaggerConfig", "NoteTagger"),
    "symbolic-generator": Family("musictool.models.symbolic_generator", "SymbolicGeneratorConfig", "SymbolicGenerator"),
    "personaljazz": Family("musictool.models.personaljazz", "PersonalJazzConfig", "PersonalJazz"),
    "saxgpt": Family("musictool.models.saxgpt", "SaxGPTConfig", "SaxGPT"),
    "style-encoder": Family("musictool.models.style_encoder", "StyleEncoderConfig", "StyleEncoder"),
}


def load_preset(name: str) -> Any:
    """The configuration of a preset.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
        raise UsageError(f"no such preset: {name[:40]!r}", hint=hint)
    return config_from_dict(load_toml(_PRESET_FOLDER / f"{name}.toml"))


def config_to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, its family among them."""
    return {"family": config.family, **asdict(config)}


def config_from_dict(data: Mapping[str, Any], where: str = "") -> Any:
    """A configuration from plain values.

    Args:
        data: `family`, and values that differ from its defaults.
        where: what to call their source in errors.

    Raises:
        InputError: the family is not known here.
        UsageError: a value is not known to the family, or of another type.
    """
    name = data.get("family")
    if name not in FAMILIES:
        hint = f"this version knows {', '.join(FAMILIES)}"
        raise InputError(f"unknown family of models: {name!r:.40}", context=where, hint=hint, code="unknown-model")
    cls = getattr(import_module(FAMILIES[name].module), FAMILIES[name].config)
    return from_dict(cls, {key: value for key, value in data.items() if key != "family"}, where)


def build_model(config: Any, device: str = "cpu") -> nn.Module:
    """A model with fresh weights, or with none at all on device `meta`."""
    import torch

    family = FAMILIES[config.family]
    with torch.device(device):
        model: nn.Module = getattr(import_module(family.module), family.model)(config)
    return model


def foreign_names(config: Any) -> dict[str, NameMap]:
    """What other layouts call a model's tensors, by the layout's name; nothing for a family of our own."""
    module = FAMILIES[config.family].names
    names: dict[str, NameMap] = import_module(module).foreign_names(config) if module else {}
    return names


def config_from_huggingface(data: Mapping[str, Any], where: str) -> Any | None:
    """The configuration that a `config.json` of Hugging Face's tells of; None where no family reads it.

    Args:
        data: what it holds.
        where: its path, for errors.

    Raises:
        InputError: a family reads it, and it makes no sense.
    """
    for family in FAMILIES.values():
        if family.names and family.reads_config:
            config = import_module(family.names).config_from_huggingface(data, where)
            if config is not None:
                return config
    return None


def codec_within(config: Any, checkpoint: Checkpoint) -> Checkpoint | None:
    """The codec that a folder of another library's holds beside a model; None where there is none.

    Args:
        config: of the model.
        checkpoint: the folder.
    """
    family = FAMILIES[config.family]
    if not (family.names and family.has_codec):
        return None
    codec: Checkpoint = import_module(family.names).audio_encoder(checkpoint)
    return codec if codec.tensors and codec.config else None
