"""What there is to know of a model: its parts and how large they are, its weights and where they come from.

Of a model that is here only headers are read, and torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from musictool.checkpoints.native import WEIGHTS_NAME, open_native, read_card, read_facts
from musictool.checkpoints.store import Store
from musictool.errors import MissingError
from musictool.models.registry import FAMILIES, PRESETS, config_to_dict, load_preset


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        name: of a half, or of a module in it.
        parameters: in it.
        inner: what it is made of.
    """

    name: str
    parameters: int
    inner: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ModelDescription:
    """A model on paper.

    Attributes:
        name: as it was asked for.
        path: its folder; None for a preset without weights.
        family, preset, config: what it is.
        parts: halves, and what they are made of.
        dtypes: number formats of its tensors.
        bytes: of its weights, on the disk or in float32.
        sha256: of its weights; empty without any.
        source: where they come from.
        card: what its maker says.
    """

    name: str
    path: Path | None
    family: str
    preset: str
    config: dict[str, Any]
    parts: tuple[Part, ...]
    dtypes: tuple[str, ...]
    bytes: int
    sha256: str = ""
    source: dict[str, str] = field(default_factory=dict)
    card: str = ""

    @property
    def parameters(self) -> int:
        """How many there are in all."""
        return sum(part.parameters for part in self.parts)


def describe_model(name: str, *, store: Store) -> ModelDescription:
    """Describe a model that is here, or a preset.

    Raises:
        MissingError: there is neither.
        InputError: the model's files are damaged.
    """
    try:
        path = store.find(name).path
    except MissingError:
        if name not in PRESETS:
            raise
        return _describe_preset(name)
    facts = read_facts(path)
    tensors = open_native(path).tensors
    return ModelDescription(
        name,
        path,
        facts.family,
        facts.preset,
        facts.config,
        _parts({key: tensor.parameters for key, tensor in tensors.items()}, facts.family),
        tuple(sorted({tensor.dtype for tensor in tensors.values()})),
        (path / WEIGHTS_NAME).stat().st_size,
        facts.weights_sha256,
        facts.source,
        read_card(path),
    )


def _describe_preset(name: str) -> ModelDescription:
    from musictool.inference.model_files import expected_shapes

    config = load_preset(name)
    values = config_to_dict(config)
    family = values.pop("family")
    counts = {key: math.prod(shape) for key, shape in expected_shapes(config).items()}
    parts = _parts(counts, family)
    return ModelDescription(name, None, family, name, values, parts, ("float32",), 4 * sum(counts.values()))


def _parts(counts: Mapping[str, int], family: str) -> tuple[Part, ...]:
    """Count parameters by half, as the family cuts its models, and by the modules in each.

    Args:
        counts: of each tensor.
        family: a name; tensors of one that is not known are counted by their first module.
    """
    module = FAMILIES[family].names if family in FAMILIES else None
    halves: dict[str, tuple[str, ...]] = import_module(module).PARTS if module else {}
    half_of = {part: half for half, parts in halves.items() for part in parts}
    places = {part: place for place, part in enumerate(half_of)}
    inner: dict[str, dict[str, int]] = {}
    for name in sorted(counts, key=lambda name: places.get(name.partition(".")[0], len(places))):
        first, _, rest = name.partition(".")
        half = half_of.get(first, first)
        part = rest.partition(".")[0] if first == half else first
        parts = inner.setdefault(half, {})
        parts[part] = parts.get(part, 0) + counts[name]
    return tuple(
        Part(half, sum(parts.values()), tuple(Part(part, count) for part, count in parts.items()))
        for half, parts in inner.items()
    )
