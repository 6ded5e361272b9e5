"""A codec that comes in one folder with the model that writes its codes: it is kept as a model of its own.

Several models come with the same codec, and `mtk models` may have fetched it by itself: it is kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musictool.checkpoints.files import replacing
from musictool.checkpoints.native import ModelFacts, open_native, read_facts, write_native
from musictool.checkpoints.store import NAME_CHARACTERS_MAX, Store
from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = "-codec"


def codec_name_of(owner: str) -> str:
    """What the codec of a model is called that can't be called after its preset."""
    return owner[: NAME_CHARACTERS_MAX - len(_SUFFIX)] + _SUFFIX


def keep_codec(
    tensors: Mapping[str, Tensor], facts: ModelFacts, card: str, *, preset: str, owner: str, store: Store, force: bool
) -> dict[str, str]:
    """Bring a codec into the store, unless it is here: under its preset's name if that is free.

    Args:
        tensors, facts, card: the codec.
        preset: what it is; empty where it is like none.
        owner: the name of the model that it came with.
        store: where it goes.
        force: replace another that came with an earlier model of that name.

    Returns:
        What the source of the model that it came with says of it.

    Raises:
        UsageError: its place is taken.
    """
    own_name = codec_name_of(owner)
    here = {model.name: model.path for model in store.installed()}
    for name, path in here.items():
        if _holds(path, tensors):
            return {"codec": name, "codec_sha256": read_facts(path).weights_sha256}
    name = own_name if not preset or preset in here else preset
    with replacing(store.folder_for(name), force=force) as folder:
        folder.mkdir()
        written = write_native(folder, tensors, facts, card)
    return {"codec": name, "codec_sha256": written.weights_sha256}


def _holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a model has just these weights."""
    import torch

    try:
        stored = open_native(path).tensors
        if stored.keys() != tensors.keys():
            return False
        pairs = ((tensor.read(), tensors[name]) for name, tensor in stored.items())
        return all(ours.dtype == theirs.dtype and torch.equal(ours, theirs) for ours, theirs in pairs)
    except (InputError, OSError):
        return False
