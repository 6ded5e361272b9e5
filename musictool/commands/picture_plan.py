"""Where the pictures of `--plot` go, checked before any work is done for them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from musictool.cli.files import OutputPlan
from musictool.errors import UsageError


def plan_pictures(plot: str | None, force: bool) -> OutputPlan | None:
    """Read `--plot`, once it is sure that pictures can be drawn.

    Args:
        plot: a .png, .pdf or .svg file, a folder, or a template with one of these suffixes; None for no pictures.
        force: replace files that exist.

    Raises:
        UsageError: there is no such kind of picture, or the template is none.
        MissingError: matplotlib is not installed.
    """
    if plot is None:
        return None
    from musictool.metrics.pictures import PICTURE_FORMATS, load_matplotlib

    is_folder = plot.endswith("/") or Path(plot).is_dir()
    suffix = ".png" if is_folder else PurePosixPath(plot).suffix.lower()
    try:
        plan = OutputPlan(plot, suffix, force)
    except UsageError as error:
        error.context = f"--plot {plot}"
        raise
    if suffix.lstrip(".") not in PICTURE_FORMATS:
        hint = "name a .png, .pdf or .svg file, or a folder with a trailing slash"
        raise UsageError(f"no such kind of picture: {suffix[:20] or 'none'}", context=f"--plot {plot}", hint=hint)
    load_matplotlib()
    return plan
