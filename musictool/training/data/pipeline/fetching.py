"""Sound from where an address leads, through yt-dlp, the extra `fetch`.

One address is one recording; `yt-dlp --flat-playlist --print url ADDRESS` lists those of a list.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from musictool.errors import InputError, MissingError
from musictool.training.data.pipeline.items import Item

ADDRESS_KEY = "address"
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_NOISE = re.compile(r"\x1b\[[0-9;]*m|^ERROR: |\s*\(caused by .*", re.DOTALL)
_NAME_LENGTH = 60


def is_address(text: str) -> bool:
    """Whether an argument is an address rather than a path."""
    return _ADDRESS.fullmatch(text) is not None


def item_of_address(address: str) -> Item:
    """The recording that an address leads to; it is named after it."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"^https?://(www\.)?", "", address, flags=re.IGNORECASE)).strip("-")
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    name = f"{plain[:_NAME_LENGTH]}-{digest}"
    return Item(name, {}, name, about={ADDRESS_KEY: address})


def check_fetcher() -> None:
    """See whether yt-dlp is there.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import yt_dlp  # noqa: F401  (only whether it can be)
    except ImportError as error:
        raise MissingError(
            "fetching sound needs yt-dlp", hint="pip install 'musictool[fetch]'", code="missing-dependency"
        ) from error


def fetched(address: str, folder: Path) -> Path:
    """Fetch a recording.

    Args:
        address: where it is.
        folder: an empty one, where it goes.

    Returns:
        The file.

    Raises:
        MissingError: yt-dlp is not installed.
        InputError: there is nothing to be had.
    """
    check_fetcher()
    import yt_dlp

    options = {
        "format": "bestaudio/best",
        "outtmpl": {"default": str(folder / "sound.%(ext)s")},
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Silence(),
    }
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            downloader.download([address])
    except yt_dlp.utils.YoutubeDLError as error:
        reason = _NOISE.sub("", str(error)).splitlines()[0][:200].rstrip(".")
        raise InputError(f"cannot fetch: {reason}", context=address[:120], code="not-fetched") from error
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InputError("nothing was fetched", context=address[:120], code="not-fetched")
    return files[0]


class _Silence:
    """Takes what yt-dlp has to say; its errors are raised all the same."""

    def debug(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...
