"""Checkpoints of a run: written whole or not at all, the oldest removed after, found again to go on from.

A checkpoint is a model in our own format, with the weights that were evaluated, and beside it all that training goes
on from, as accelerate writes it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from musictool.checkpoints.files import remove, replacing
from musictool.checkpoints.native import read_facts
from musictool.errors import InputError, MusicToolError
from musictool.models.registry import config_from_dict
from musictool.training.runs import CHECKPOINTS_NAME, STATE_NAME, RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator

ModelWriter = Callable[[Path], None]
"""Writes the model to a folder that is empty."""

_PROBE_BYTES = 1 << 20


class Checkpoints:
    """Those of one run.

    Args:
        accelerator: holds what is to be saved; every process has one, and all save together.
        folder: the run's.
        keep: how many stay.
    """

    def __init__(self, accelerator: Accelerator, folder: RunFolder, keep: int) -> None:
        self._accelerator = accelerator
        self._folder = folder
        self._keep = keep

    def save(self, step: int, write_model: ModelWriter) -> None:
        """Write a checkpoint, and then remove the oldest.

        Raises:
            InputError: it cannot be written; those that are there stay.
        """
        target = self._folder.checkpoint(step)
        temporary = target.with_name(f".{target.name}.part")
        is_main = self._accelerator.is_main_process
        try:
            with _reported(temporary, target):
                temporary.mkdir(parents=True, exist_ok=True)
                self._accelerator.save_state(str(temporary / STATE_NAME))
                self._accelerator.wait_for_everyone()
                if is_main:
                    write_model(temporary)
                    _sync(temporary)
                    os.rename(temporary, target)
                    self._remove_oldest()
        finally:
            if is_main:
                remove(temporary)
        self._accelerator.wait_for_everyone()

    def save_best(self, write_model: ModelWriter) -> None:
        """Put a model in the place of the best one so far.

        Raises:
            InputError: it cannot be written; the one before stays.
        """
        if self._accelerator.is_main_process:
            with _reported(self._folder.path, self._folder.best), replacing(self._folder.best, force=True) as temporary:
                temporary.mkdir()
                write_model(temporary)
        self._accelerator.wait_for_everyone()

    def load(self, step: int) -> None:
        """Go on from the checkpoint after a step.

        Raises:
            InputError: it is damaged.
        """
        try:
            self._accelerator.load_state(str(self._folder.state(step)))
        except Exception as error:  # pickles and tensors in six files: whatever is wrong, they are damaged
            raise _damaged(self._folder, step, error) from error

    def _remove_oldest(self) -> None:
        for step in self._folder.checkpoint_steps()[: -self._keep]:
            remove(self._folder.checkpoint(step))


def saved_config(folder: RunFolder, step: int) -> Any:
    """The configuration of a checkpoint's model: the recipe's, as evaluations have changed it.

    Raises:
        InputError: the checkpoint is damaged.
    """
    try:
        facts = read_facts(folder.checkpoint(step))
        return config_from_dict({"family": facts.family, **facts.config})
    except (MusicToolError, OSError) as error:
        raise _damaged(folder, step, error) from error


def clear_leftovers(folder: RunFolder) -> None:
    """Remove what a process that was killed left half-written, and put back a best model that it had just moved."""
    for path in folder.path.glob(".mtk-*.part.old"):
        if folder.best.exists():
            remove(path)
        else:
            os.rename(path, folder.best)
    for path in (*folder.path.glob(".mtk-*.part"), *(folder.path / CHECKPOINTS_NAME).glob(".*.part")):
        remove(path)


@contextmanager
def _reported(temporary: Path, target: Path) -> Iterator[None]:
    """Turn whatever goes wrong in writing into an error that says why."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error if isinstance(error, OSError) and error.errno else _try_to_write(temporary)
        if reason is None:
            raise
        is_full = reason.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "make room, then" if is_full else "see to it, then"
        raise InputError(
            (reason.strerror or "cannot be written").lower(),
            context=str(target),
            hint=f"{hint} go on with --resume; the checkpoints before this one are whole",
            code="no-space" if is_full else "unwritable",
        ) from error


def _try_to_write(folder: Path) -> OSError | None:
    """What the system says of writing as much again as there is: torch's and safetensors' own errors do not tell."""
    largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
    probe = folder / ".probe"
    try:
        with open(probe, "wb", buffering=0) as file:
            for _ in range(largest // _PROBE_BYTES + 2):
                file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error
    finally:
        with suppress(OSError):
            probe.unlink()
    return None


def _damaged(folder: RunFolder, step: int, error: Exception) -> InputError:
    """What to say of a checkpoint that cannot be read."""
    path = folder.checkpoint(step)
    return InputError(
        f"the checkpoint is damaged: {_first_line(error)}",
        context=str(path),
        hint=f"remove the folder {path} to go on from the one before it",
        code="bad-checkpoint",
    )


def _sync(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, MusicToolError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:200]
