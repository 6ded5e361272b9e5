"""What other libraries call a model's tensors, declared once and read in both directions.

A model's own module declares rules; a `NameMap` of them turns a foreign checkpoint into one with our names, tensor by
tensor as they are read, and our tensors into foreign ones. Knows no model and no file format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor


class NameRule(NamedTuple):
    """One tensor, or one of each layer, under two names.

    Attributes:
        ours, theirs: names; `{i}` is a number, the same in both.
        transposed: their rows are our columns.
        copies: further names that the other side has for the same numbers, as for tied weights. All are written; any
            one will do to read.
    """

    ours: str
    theirs: str
    transposed: bool = False
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class NameMap:
    """The names of a layout.

    Attributes:
        rules: no name fits two of them.
        ignored: patterns of their names that hold nothing a model needs, such as tables that are computed.
        config: what the layout's own configuration file holds for this model; empty if it has none.
    """

    rules: tuple[NameRule, ...]
    ignored: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def ours(self, theirs: str) -> tuple[str, NameRule] | None:
        """Our name for one of theirs, and the rule that tells; None for a name that no rule knows."""
        for rule in self.rules:
            for pattern in (rule.theirs, *rule.copies):
                if (name := _renamed(theirs, pattern, rule.ours)) is not None:
                    return name, rule
        return None

    def theirs(self, ours: str) -> tuple[tuple[str, ...], NameRule] | None:
        """Their names for one of ours, the chief one first, and the rule that tells; None if there is none."""
        for rule in self.rules:
            names = [_renamed(ours, rule.ours, pattern) for pattern in (rule.theirs, *rule.copies)]
            if names[0] is not None:
                return tuple(name for name in names if name is not None), rule
        return None

    def known(self, names: Iterable[str]) -> int:
        """How many of a checkpoint's names the rules know."""
        return sum(self.ours(name) is not None for name in names)

    def to_ours(self, checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, list[StoredTensor]]]:
        """A foreign checkpoint under our names.

        Returns:
            The checkpoint, in which a name that no rule knows stays as it is, and, by our names, the copies that the
            file has of a tensor beside the one that was taken.
        """
        tensors: dict[str, StoredTensor] = {}
        copies: dict[str, list[StoredTensor]] = {}
        for name, stored in checkpoint.tensors.items():
            if self._is_ignored(name):
                continue
            found = self.ours(name)
            ours = name if found is None else found[0]
            turned = _transposed(stored) if found is not None and found[1].transposed else stored
            if ours in tensors:
                copies.setdefault(ours, []).append(turned)
            else:
                tensors[ours] = turned
        unreadable = {}
        for name, error in checkpoint.unreadable.items():
            if not self._is_ignored(name):
                found = self.ours(name)
                unreadable[name if found is None else found[0]] = error
        return replace(checkpoint, tensors=tensors, unreadable=unreadable), copies

    def to_theirs(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their names, each copy in memory of its own.

        Raises:
            KeyError: no rule knows a name.
        """
        renamed: dict[str, Tensor] = {}
        for ours, tensor in tensors.items():
            found = self.theirs(ours)
            if found is None:
                raise KeyError(ours)
            names, rule = found
            for name in names:
                renamed[name] = (tensor.T if rule.transposed else tensor).clone()
        return renamed

    def _is_ignored(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def _renamed(name: str, pattern: str, target: str) -> str | None:
    """A name that fits a pattern, as another pattern writes it."""
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    return target.replace("{i}", match[1]) if match.re.groups else target


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{i\}", "(0|[1-9][0-9]*)"))


def _transposed(stored: StoredTensor) -> StoredTensor:
    return replace(stored, shape=stored.shape[::-1], read=lambda: stored.read().T.contiguous())
