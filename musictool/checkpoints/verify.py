"""Is a checkpoint what a model expects: names, shapes and number formats first, then the numbers themselves.

A result is a list of findings, one for each thing wrong with a tensor. Numbers are read only where the shape is right,
so that a file cannot make this take memory that the model would not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor
from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Problem = Literal[
    "missing", "unexpected", "wrong shape", "wrong type", "unreadable", "not finite", "copies differ", "changed"
]

_FLOATS = ("float32", "bfloat16", "float16", "float64")
_THREADS = 4


@dataclass(frozen=True)
class TensorFinding:
    """Something wrong with one tensor.

    Attributes:
        problem: its kind.
        tensor: our name, or the file's where we have none for it.
        stored: the file's name; empty where the file does not have it.
        expected, found: in words; empty where there is nothing to say.
    """

    problem: Problem
    tensor: str
    stored: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        name = self.tensor if self.stored in ("", self.tensor) else f"{self.tensor} ({self.stored})"
        parts = [f"{self.problem}: {name}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        return ", ".join(parts)


class VerificationError(InputError):
    """A checkpoint that is not what a model expects."""

    default_code = "wrong-checkpoint"

    def __init__(self, message: str, *, findings: Sequence[TensorFinding] = (), **rest: str) -> None:
        super().__init__(message, **rest)
        self.findings = tuple(findings)

    @classmethod
    def of(cls, findings: Sequence[TensorFinding], tensors: int, context: str, hint: str = "") -> VerificationError:
        """The error for what was found.

        Args:
            findings: at least one.
            tensors: how many the model expects.
            context: the checkpoint.
            hint: what to do.
        """
        counts: dict[str, int] = {}
        for finding in findings:
            counts[finding.problem] = counts.get(finding.problem, 0) + 1
        told = ", ".join(f"{count} {problem}" for problem, count in counts.items())
        first = findings[0] if len(findings) == 1 else None
        message = f"the checkpoint does not fit: {first or f'{told}, of {tensors} tensors'}"
        return cls(message, findings=findings, context=context, hint=hint)


def compare(
    checkpoint: Checkpoint, expected: Mapping[str, Shape], stored_names: Mapping[str, str] | None = None
) -> list[TensorFinding]:
    """What is wrong with names, shapes and number formats; reads no numbers.

    Args:
        checkpoint: under our names.
        expected: the model's tensors.
        stored_names: what the checkpoint's layout would call those that are missing.
    """
    layout = stored_names or {}
    findings: list[TensorFinding] = []
    for name, shape in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is not None:
            findings += _misfits(name, stored, shape)
        elif name in checkpoint.unreadable:
            findings.append(_unreadable(name, layout.get(name, ""), checkpoint.unreadable[name]))
        else:
            findings.append(TensorFinding("missing", name, layout.get(name, ""), str(list(shape))))
    for name, stored in checkpoint.tensors.items():
        if name not in expected:
            findings.append(TensorFinding("unexpected", name, stored.name, found=str(list(stored.shape))))
    for name, error in checkpoint.unreadable.items():
        if name not in expected:
            findings.append(_unreadable(name, "", error))
    return findings


def _misfits(name: str, stored: StoredTensor, shape: Shape) -> Iterator[TensorFinding]:
    if stored.shape != shape:
        yield TensorFinding("wrong shape", name, stored.name, str(list(shape)), str(list(stored.shape)))
    if stored.dtype not in _FLOATS:
        yield TensorFinding("wrong type", name, stored.name, "floating point", stored.dtype)


def _unreadable(name: str, stored: str, error: InputError) -> TensorFinding:
    return TensorFinding("unreadable", name, stored, found=str(error))


@dataclass(frozen=True)
class Examination:
    """What reading a whole checkpoint gave.

    Attributes:
        findings: all that is wrong.
        tensors: those that are right, by our names.
    """

    findings: list[TensorFinding]
    tensors: dict[str, Tensor]


def examine(
    checkpoint: Checkpoint,
    expected: Mapping[str, Shape],
    *,
    stored_names: Mapping[str, str] | None = None,
    copies: Mapping[str, Sequence[StoredTensor]] | None = None,
) -> Examination:
    """Compare a checkpoint with what a model expects, and read its numbers.

    Args:
        checkpoint, expected, stored_names: as for `compare`.
        copies: further places where the checkpoint has a tensor; they have to hold the same numbers.

    Returns:
        The findings, and the tensors that are as they should be.
    """
    findings = compare(checkpoint, expected, stored_names)
    misfits = {finding.tensor for finding in findings}
    sound = {name: checkpoint.tensors[name] for name in expected if name not in misfits}

    def read(name: str) -> tuple[list[TensorFinding], Tensor | None]:
        return _read(name, sound[name], (copies or {}).get(name, ()))

    tensors = {}
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:  # unpacking leaves Python's lock
        for name, (wrong, tensor) in zip(sound, pool.map(read, sound)):
            findings += wrong
            if tensor is not None and not wrong:
                tensors[name] = tensor
    return Examination(findings, tensors)


def _read(name: str, stored: StoredTensor, copies: Sequence[StoredTensor]) -> tuple[list[TensorFinding], Tensor | None]:
    """Read a tensor and its copies, and see whether the numbers are any."""
    import torch

    try:
        tensor = stored.read()
        differing = [
            TensorFinding("copies differ", name, copy.name, f"the numbers of {stored.name}")
            for copy in copies
            if copy.shape != stored.shape or not torch.equal(copy.read(), tensor)
        ]
    except InputError as error:
        return [_unreadable(name, stored.name, error)], None
    count = tensor.numel() - int(torch.isfinite(tensor).sum())
    if count:
        return [TensorFinding("not finite", name, stored.name, found=f"{count} of {tensor.numel()} values")], None
    return differing, tensor
