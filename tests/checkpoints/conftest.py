"""Small presets and a store, for every test of the room."""

from __future__ import annotations

from tests.checkpoints.tiny import presets, store

__all__ = ["presets", "store"]
