"""What other libraries call a model's tensors, declared once and read in both directions.

A model's own module declares rules; a `NameMap` of them turns a foreign checkpoint into one with our names, tensor by
tensor as they are read, and our tensors into foreign ones. Knows no model and no file format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor, broken

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


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


class Parts(NamedTuple):
    """How one tensor and the several that it is stored as follow from each other.

    Attributes:
        shape: of the whole, from the shapes of its parts; raises ValueError where they are no parts of one whole.
        join: the whole, from its parts in float32.
        split: what is written for a whole: its parts, and after them what the other side keeps beside them.
    """

    shape: Callable[[Sequence[Shape]], Shape]
    join: Callable[[Sequence[Tensor]], Tensor]
    split: Callable[[Tensor], Sequence[Tensor]]


class PartsRule(NamedTuple):
    """One tensor of ours, or one of each layer, that the other side keeps as several.

    Attributes:
        ours: our name; `{i}` is a number, the same in all names.
        theirs: the names of its parts.
        parts: how they follow from each other.
        others: further names for all of its parts, as other versions of the same library have them. Only `theirs` are
            written; any will do to read.
        beside: names of what is written after the parts and of no use to read.
    """

    ours: str
    theirs: tuple[str, ...]
    parts: Parts
    others: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class NameMap:
    """The names of a layout.

    Attributes:
        rules: none of their names fits two of them. Where two have the same name of ours, the first is written.
        ignored: patterns of their names that hold nothing a model needs, such as tables that are computed.
        config: what the layout's own configuration file holds for this model; empty if it has none.
    """

    rules: tuple[NameRule | PartsRule, ...]
    ignored: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def ours(self, theirs: str) -> tuple[str, NameRule | PartsRule] | None:
        """Our name for one of theirs, and the rule that tells; None for a name that no rule knows."""
        for rule in self.rules:
            for pattern in _read_names(rule):
                if (name := _renamed(theirs, pattern, rule.ours)) is not None:
                    return name, rule
        return None

    def theirs(self, ours: str) -> tuple[tuple[str, ...], NameRule | PartsRule] | None:
        """Their names for one of ours, the chief one first, and the rule that tells; None if there is none."""
        for rule in self.rules:
            names = [_renamed(ours, rule.ours, pattern) for pattern in _written_names(rule)]
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
        wholes: dict[str, _Whole] = {}
        for name, stored in checkpoint.tensors.items():
            if self._is_ignored(name):
                continue
            ours, rule = self.ours(name) or (name, None)
            if isinstance(rule, PartsRule):
                wholes.setdefault(ours, _Whole(ours, rule)).found[name] = stored
                continue
            turned = _transposed(stored) if rule is not None and rule.transposed else stored
            if ours in tensors:
                copies.setdefault(ours, []).append(turned)
            else:
                tensors[ours] = turned
        unreadable = {}
        for name, error in checkpoint.unreadable.items():
            if not self._is_ignored(name):
                found = self.ours(name)
                unreadable[name if found is None else found[0]] = error
        for ours, whole in wholes.items():
            if ours in unreadable:
                continue
            try:
                tensors[ours] = whole.joined()
            except ValueError as error:
                unreadable[ours] = broken(checkpoint.path, str(error))
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
            if isinstance(rule, PartsRule):
                renamed.update(zip(names, (part.clone() for part in rule.parts.split(tensor)), strict=True))
            else:
                renamed.update((name, (tensor.T if rule.transposed else tensor).clone()) for name in names)
        return renamed

    def _is_ignored(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


@dataclass
class _Whole:
    """A tensor of ours, and those of its parts that a checkpoint has.

    Attributes:
        ours: its name.
        rule: tells what its parts are called.
        found: by their names.
    """

    ours: str
    rule: PartsRule
    found: dict[str, StoredTensor] = field(default_factory=dict)

    def joined(self) -> StoredTensor:
        """The whole, made when it is read.

        Raises:
            ValueError: a part is missing, or they do not go together.
        """
        versions = [
            [name for pattern in patterns if (name := _renamed(self.ours, self.rule.ours, pattern)) is not None]
            for patterns in (self.rule.theirs, *self.rule.others)
        ]
        names = max(versions, key=lambda version: sum(name in self.found for name in version))
        if missing := [name for name in names if name not in self.found]:
            raise ValueError(f"{missing[0]} is missing")
        parts = [self.found[name] for name in names]
        shape = self.rule.parts.shape([part.shape for part in parts])
        dtype = next((part.dtype for part in parts if "float" not in part.dtype), "float32")
        join = self.rule.parts.join
        return StoredTensor(" + ".join(names), shape, dtype, lambda: join([part.read().float() for part in parts]))


def _read_names(rule: NameRule | PartsRule) -> tuple[str, ...]:
    """Patterns of the names that a rule finds a tensor of ours by."""
    if isinstance(rule, NameRule):
        return (rule.theirs, *rule.copies)
    return (*rule.theirs, *(name for names in rule.others for name in names))


def _written_names(rule: NameRule | PartsRule) -> tuple[str, ...]:
    """Patterns of the names that a rule writes a tensor of ours under."""
    return (rule.theirs, *rule.copies) if isinstance(rule, NameRule) else (*rule.theirs, *rule.beside)


def _renamed(name: str, pattern: str, target: str) -> str | None:
    """A name that fits a pattern, as another pattern writes it."""
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    return target.replace("{i}", match[1]) if match.re.groups else target


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{i\}", "(0|[1-9][0-9]*)"))


def _transposed(stored: StoredTensor) -> StoredTensor:
    return replace(stored, shape=stored.shape[::-1], read=lambda: stored.read().T.contiguous())
