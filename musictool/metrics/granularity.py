"""How finely instruments are told apart, by MT3's words for it; imports nothing, so that a command line may name it."""

from __future__ import annotations

from enum import Enum


class Granularity(str, Enum):
    """What of a program counts: all of it, its family of eight, or whether it is a drum kit."""

    FULL = "full"
    MIDI_CLASS = "midi_class"
    FLAT = "flat"

    @property
    def programs_together(self) -> int:
        """How many neighbouring programs count as one."""
        return {"full": 1, "midi_class": 8, "flat": 128}[self.value]
