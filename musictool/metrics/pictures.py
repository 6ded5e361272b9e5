"""matplotlib as every picture of ours uses it: plain, without a user's style, and the same bytes for the same content.

Its pyplot, and with it any window or global state, is left alone. Needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

from musictool.errors import MissingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_FORMATS = ("png", "pdf", "svg")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart."""

_NO_DATES: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}


def load_matplotlib() -> ModuleType:
    """The module `matplotlib`.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise MissingError(
            "pictures need matplotlib", hint="pip install 'musictool[plot]'", code="missing-dependency"
        ) from error
    return matplotlib


@contextmanager
def plain_matplotlib() -> Iterator[ModuleType]:
    """matplotlib as it comes: no user's style, no warnings about letters that its font has not, fixed ids in SVG.

    Raises:
        MissingError: it is not installed.
    """
    matplotlib = load_matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "musictool"
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        yield matplotlib


def save_figure(figure: Figure, file: BinaryIO, format: str, dots_per_inch: int) -> None:
    """Write a figure, drawn within `plain_matplotlib`, to a binary file in one of `PICTURE_FORMATS`."""
    figure.savefig(file, format=format, dpi=dots_per_inch, metadata=_NO_DATES[format])
