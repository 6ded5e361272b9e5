"""How notes are carried over to another style: the options, and their forms on a command line. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from musictool.errors import UsageError
from musictool.symbolic.theory import FACTORS

_MIX_HINT = "write styles and their shares, as in jazz=0.7,classical=0.3"
_DONOR_HINT = "write a factor and the file to take it of, as in --borrow rhythm=other.mid"
CHORDS = "chords"
KEEPABLE = (CHORDS, *FACTORS)
"""What can be kept or borrowed. The chords are a coarser harmony: that of a lead sheet, without passing notes. Those
that are kept are played as the style has them: one that knows no sevenths leaves them out."""

_RANGES = {
    "strength": (0, 1),
    "steps": (1, 1000),
    "eta": (0, 1),
    "guidance": (0, 100),
    "theory_guidance": (0, 100),
    "temperature": (0, 10),
}


@dataclass(frozen=True)
class Transfer:
    """How notes are carried over.

    Attributes:
        strength: the share of the source's latents, by amplitude, that gives way to noise: 0 keeps everything, 1 only
            what is in `keep`.
        keep: of `KEEPABLE`, what is given to the model as the source has it; harmony says more than chords, and stands
            for both. What the model writes is held to it (`symbolic.holding`), but for chords.
        steps, eta: of DDIM.
        guidance: how far the style leads away from music of no style; 1 is none.
        theory_guidance: the same of what is kept.
        temperature, top_p: how ids are drawn when latents are written out; a temperature of 0 takes the likeliest.
        seed: of everything that is drawn.

    Raises:
        UsageError: a value is out of range, or a factor is none.
    """

    strength: float = 0.7
    keep: frozenset[str] = frozenset({CHORDS})
    steps: int = 25
    eta: float = 0.0
    guidance: float = 7.0
    theory_guidance: float = 3.0
    temperature: float = 0.5
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"{name} is from {least} to {most}, not {value:g}")
        check_keepable(self.keep)


def check_keepable(names: Iterable[str]) -> None:
    """Refuse what can be neither kept nor borrowed.

    Raises:
        UsageError: one of the names is none of `KEEPABLE`.
    """
    for name in sorted(set(names) - set(KEEPABLE)):
        raise UsageError(f"no such factor: {name[:40]!r}", hint=nearest_hint(name, KEEPABLE, "factors are"))


def parse_factors(text: str) -> frozenset[str]:
    """Read `chords,melody`, or `none`; whether there are such factors is for `Transfer` to say."""
    return frozenset() if text.strip() == "none" else frozenset(part.strip() for part in text.split(","))


def parse_mix(text: str) -> dict[str, float]:
    """Read `jazz=0.7,classical=0.3`; whether there are such styles is for the model to say.

    Raises:
        UsageError: it is not of that form.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        if name in shares:
            raise UsageError(f"{name[:40]!r} is in the mix twice", hint=_MIX_HINT)
        try:
            shares[name] = float(share)
        except ValueError:
            raise UsageError(f"no share of a style: {part[:40]!r}", hint=_MIX_HINT) from None
    return shares


def parse_donors(texts: Iterable[str]) -> dict[str, str]:
    """Read `rhythm=other.mid`, once for each factor.

    Raises:
        UsageError: one is not of that form, or a factor is none, or is there twice, which chords with harmony are.
    """
    donors: dict[str, str] = {}
    for text in texts:
        name, _, file = (piece.strip() for piece in text.partition("="))
        if not file:
            raise UsageError(f"no factor and file: {text[:40]!r}", hint=_DONOR_HINT)
        if name in donors:
            raise UsageError(f"{name[:40]} is borrowed twice", hint=_DONOR_HINT)
        donors[name] = file
    check_keepable(donors)
    if {CHORDS, "harmony"} <= donors.keys():
        raise UsageError("chords are harmony: they are borrowed from one piece", hint=_DONOR_HINT)
    return donors


def nearest_hint(name: str, names: Iterable[str], intro: str) -> str:
    """A hint for a name that is not known: the one that is meant perhaps, and all there are."""
    names = list(names)
    near = get_close_matches(name, names, n=1)
    listed = f"{intro} {', '.join(names) or 'none'}"
    return f"did you mean {near[0]}? {listed}" if near else listed
