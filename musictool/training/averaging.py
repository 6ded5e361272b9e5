"""The weights that are evaluated and saved: a running average of the trained ones, or a copy of them.

An exponential moving average whose decay rises with the number of steps, as min(decay, (1 + n) / (10 + n)): after 90
steps it is .91, after 890 .99. A short run is thus not held back by its first, random weights, and in a long one
nothing of this is left. A module that says `averages_itself` has averages for buffers, such as a codebook's entries,
and they are copied as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]

_WARMUP = 10


class PublishedWeights(Protocol):
    """A model's second copy, for evaluations and saves; all processes keep one alike."""

    def follow(self) -> None:
        """Take in the trained weights after a step."""
        ...

    def current(self) -> nn.Module:
        """The model to evaluate and save, in evaluation mode; it is not to be changed."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the trained weights."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        ...


class GatheredWeights:
    """A copy of weights that are spread over processes.

    Args:
        model: as built and on its device, before anything is wrapped around it.
        gather: brings the weights together, by name; all processes call it, and the main one may be the only one that
            gets them.
    """

    def __init__(self, model: nn.Module, gather: Callable[[], Mapping[str, Tensor]]) -> None:
        self._copy = deepcopy(model).eval().requires_grad_(False)
        self._gather = gather

    def follow(self) -> None:
        """Do nothing: the weights are brought together when they are asked for."""

    def current(self) -> nn.Module:
        """The model as it is now, on the main process."""
        if state := self._gather():
            self._copy.load_state_dict(state)
        return self._copy

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Do nothing."""


class AveragedWeights:
    """A second copy of a model, which follows the trained one.

    Args:
        model: as built and on its device, before anything is wrapped around it.
        decay: of the average; 0 for a plain copy, brought up to date when it is asked for.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = AveragedModel(nn.Module(), multi_avg_fn=self._average_in, use_buffers=True)
        self._average.module = _copy_of(model)
        self._average.eval().requires_grad_(False)

    def follow(self) -> None:
        """Take in the trained weights after a step."""
        if self._decay:
            self._average.update_parameters(self._model)
            for copied, value in zip(_averages(self._average), _averages(self._model), strict=True):
                copied.copy_(value)

    def current(self) -> nn.Module:
        """The model to evaluate and save, in evaluation mode; it is not to be changed."""
        if not self._decay:
            self._average.update_parameters(self._model)
        return self._average.module

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint; a plain copy needs none."""
        return self._average.state_dict() if self._decay else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        if self._decay:
            self._average.load_state_dict(state)

    @torch.no_grad()
    def _average_in(self, averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        """Bring tensors of one type up to date; numbers that are no fractions, counts say, are copied."""
        pairs = [(own, value) for own, value in zip(averages, values) if own.data_ptr() != value.data_ptr()]
        if not pairs:
            return
        averages, values = map(list, zip(*pairs))
        if self._decay and averages[0].is_floating_point():
            steps = int(self._average.n_averaged)  # on the CPU, where nothing has to wait for it
            decay = min(self._decay, (1 + steps) / (_WARMUP + steps))
            torch._foreach_lerp_(averages, values, 1.0 - decay)
        else:
            torch._foreach_copy_(averages, values)


def _copy_of(model: nn.Module) -> nn.Module:
    """A second copy, in which what is frozen is the same."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    return deepcopy(model, {id(parameter): parameter for parameter in frozen})


def _averages(model: nn.Module) -> list[Tensor]:
    """The buffers that are averages already."""
    averaging = (module for module in model.modules() if getattr(module, "averages_itself", False))
    return [buffer for module in averaging for buffer in module.buffers()]
