"""Adapters: folders as peft writes them, small tensors that are added to the weights of the one model they are for.

    adapter_config.json           peft's own; `base_model_name_or_path` is the model, `revision` its weights' sha256
    adapter_model.safetensors     the tensors
    config.json, card.md          of the model that it makes, as in our own format; only where we wrote it

Knows no model and imports neither torch nor peft.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musictool.checkpoints.checkpoint import broken
from musictool.checkpoints.files import sha256_of
from musictool.errors import InputError

ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
BASE_NAME_KEY, BASE_SHA256_KEY = "base_model_name_or_path", "revision"
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_CONFIG_BYTES = 1 << 22


@dataclass(frozen=True)
class Adapter:
    """An adapter that is here.

    Attributes:
        path: its folder.
        base: the name of the model that it is for; empty where nobody wrote it down.
        base_sha256: of that model's weights; likewise.
        config: what `adapter_config.json` says.
    """

    path: Path
    base: str
    base_sha256: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Its folder's."""
        return self.path.resolve().name

    @property
    def weights(self) -> Path:
        """The file of its tensors."""
        return self.path / ADAPTER_WEIGHTS_NAME

    @property
    def sha256(self) -> str:
        """Of its tensors, in hexadecimal; read anew each time."""
        return sha256_of(self.weights)


def is_adapter(path: Path) -> bool:
    """Whether a folder looks like one."""
    return (path / ADAPTER_CONFIG_NAME).is_file()


def read_adapter(path: Path) -> Adapter:
    """Read what an adapter says of itself; its tensors are only seen to be there.

    Raises:
        InputError: there is none, or it is damaged.
    """
    name = path / ADAPTER_CONFIG_NAME
    if not os.path.lexists(path):
        raise InputError("no such file or folder", context=str(path), code="no-such-file")
    if not is_adapter(path) or not (path / ADAPTER_WEIGHTS_NAME).is_file():
        missing = ADAPTER_WEIGHTS_NAME if is_adapter(path) else ADAPTER_CONFIG_NAME
        hint = "an adapter is a folder that mtk finetune --lora writes, or peft"
        raise InputError(f"no adapter: {missing} is not there", context=str(path), hint=hint, code="no-adapter")
    try:
        with open(name, "rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise broken(name, f"no valid JSON: {error}") from error
    except OSError as error:
        raise InputError((error.strerror or "cannot be read").lower(), context=str(name)) from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise broken(name, "no adapter of peft's: it has no 'peft_type'")
    base, digest = (config.get(key) or "" for key in (BASE_NAME_KEY, BASE_SHA256_KEY))
    return Adapter(path, str(base), digest if _SHA256.fullmatch(str(digest)) else "", config)


def combined_sha256(base: str, adapter: str) -> str:
    """A digest of weights with an adapter on them, from theirs."""
    return hashlib.sha256(f"{base}+{adapter}".encode()).hexdigest()
