"""Every verb of `mtk` and where it lives, so that help and completion import none of them."""

from __future__ import annotations

from typing import NamedTuple


class CommandEntry(NamedTuple):
    """Where a verb lives.

    Attributes:
        module: imported when the verb runs or shows its own help. It holds `EXAMPLES`, two command lines that run as
            they stand and end the help.
        attribute: the verb's function in that module.
        summary: one line for `mtk --help`.
    """

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, CommandEntry] = {
    "tokenize": CommandEntry("musictool.commands.tokenize", "tokenize", "Turn MIDI files into a token stream."),
    "decode": CommandEntry("musictool.commands.decode", "decode", "Turn a token stream into MIDI files or sound."),
    "validate": CommandEntry(
        "musictool.commands.validate", "validate", "Check MIDI, sound, token streams and corpora."
    ),
}
