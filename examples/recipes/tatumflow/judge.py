"""Judge style transfer: does a classifier find the target style, and is the piece still there?

    python judge.py train STYLES CLASSIFIER
    python judge.py judge STYLES CLASSIFIER [RESULTS] [--seconds 64] [--output FOLDER]
    python judge.py rolls BEFORE AFTER PICTURE

STYLES is what `prepare.sh` writes. `train` trains the classifier on its train side, independently of any transfer, and
says how often it is right on the test side. RESULTS holds `<source>-to-<target>/<strength>/<piece>.mid`; a piece's
source is the file of its name in `<source>-to-<target>/source` if there is such a folder, else in STYLES' test side.
Without RESULTS only the baselines are judged, on all test pieces and pairs of styles.

Of every direction and strength are told the share of the pieces of which the target style is what they are most, and
how alike they are to their sources at the same time: the pitch classes that sound (mean cosine over seconds) and the
chords (share of the time with the same triad), both of `metrics.symbolic_similarity`. Baselines are the source itself,
random pieces of the target style, and a rule (`baselines`). What a transfer has to keep is halfway from random pieces
to the copy. `rolls` draws pieces before and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from baselines import StyleMeans, by_rule, style_means
from judge_pictures import draw_curves, draw_rolls
from numpy.typing import NDArray
from style_classifier import StyleClassifier, judged_notes, train, windows_of

from musictool.errors import MusicToolError
from musictool.metrics.pitch_content import frame_count, profiles
from musictool.metrics.symbolic_similarity import chord_similarity, frame_similarity
from musictool.symbolic.notes import Notes

COPY, RANDOM, RULE = "copy", "random", "rule"
RANDOM_DRAWS = 3
LEAST_SHARE = 0.75
STEPS, BATCH = 1_200, 32

Pieces = Mapping[str, Notes]  # by the name of the file, without suffix


@dataclass(frozen=True)
class Verdict:
    """What there is to say of some results of one direction.

    Attributes:
        direction: `pop-to-jazz`.
        name: the strength, or which baseline.
        pieces: how many results.
        style_share: of them, those that are most of the target style.
        style_probability: the mean probability of the target style.
        source_share: those that are most of the source's style.
        profile_similarity, chord_similarity: with the sources, means over the results, 0..1.
    """

    direction: str
    name: str
    pieces: int
    style_share: float
    style_probability: float
    source_share: float
    profile_similarity: float
    chord_similarity: float


# --------------------------------------------------------------------------------------------------------- judgement


def similarities(source: Notes, result: Notes) -> tuple[float, float]:
    """How alike two pieces are: pitch classes second by second, and chords; 0..1, 1 if both are silent."""
    count = max(frame_count(source), frame_count(result))
    profile = frame_similarity(profiles(source, count), profiles(result, count))
    chord = chord_similarity(source, result)
    return 1.0 if profile is None else profile, 1.0 if chord is None else chord


def verdict(classifier: StyleClassifier, direction: str, name: str, pairs: Iterable[tuple[Notes, Notes]]) -> Verdict:
    """Judge some pairs of a source and its result."""
    source_style, target_style = parse_direction(direction)
    target, source = (classifier.styles.index(style) for style in (target_style, source_style))
    rows = []
    for before, after in pairs:
        probability = classifier.probabilities(after)
        most = int(probability.argmax())
        rows.append((most == target, probability[target], most == source, *similarities(before, after)))
    means = np.array(rows, float).mean(axis=0).round(4).tolist()
    return Verdict(direction, name, len(rows), *means)


def baselines(
    classifier: StyleClassifier,
    direction: str,
    sources: Sequence[tuple[str, Notes]],
    others: Sequence[Notes],
    means: StyleMeans,
) -> Iterator[Verdict]:
    """Judge the baselines of a direction.

    Args:
        classifier: the judge.
        direction: `pop-to-jazz`.
        sources: names and notes.
        others: pieces of the target style, of which some are drawn for each source.
        means: of the target style.
    """
    source_style, target_style = parse_direction(direction)
    yield verdict(classifier, direction, COPY, ((notes, notes) for _, notes in sources))
    yield verdict(
        classifier,
        direction,
        RANDOM,
        (
            (notes, others[choice])
            for name, notes in sources
            for choice in np.random.default_rng(zlib.crc32(f"{direction} {name}".encode())).integers(
                len(others), size=RANDOM_DRAWS
            )
        ),
    )
    ruled = ((notes, by_rule(notes, source_style, target_style, means)) for _, notes in sources)
    yield verdict(classifier, direction, RULE, ruled)


def parse_direction(direction: str) -> tuple[str, str]:
    """The two styles of `pop-to-jazz`."""
    source, separator, target = direction.partition("-to-")
    if not separator:
        raise SystemExit(f"judge.py: not a direction: {direction}; write <source>-to-<target>")
    return source, target


def least_kept(verdicts: Iterable[Verdict]) -> tuple[float, float]:
    """What results of a direction must keep of profile and chords: halfway from random pieces to the copy."""
    by_name = {entry.name: entry for entry in verdicts}
    copy, random = by_name[COPY], by_name[RANDOM]
    return (
        (copy.profile_similarity + random.profile_similarity) / 2,
        (copy.chord_similarity + random.chord_similarity) / 2,
    )


# ------------------------------------------------------------------------------------------------------------- files


def pieces_below(folder: Path, seconds: float = np.inf) -> dict[str, Notes]:
    """The pieces below a folder by name, as the judge hears them, cut after some seconds."""
    if not folder.is_dir():
        raise SystemExit(f"judge.py: no such folder: {folder}")
    return {path.stem: cut(judged_notes(path), seconds) for path in sorted(folder.rglob("*.mid"))}


@cache
def means_of(styles: Path, style: str) -> StyleMeans:
    """The means of a style over its train side."""
    return style_means(list(pieces_below(styles / "train" / style).values()))


def cut(notes: Notes, seconds: float) -> Notes:
    """The beginning of a piece."""
    notes = notes.take(notes.onset_seconds < seconds)
    return notes.with_columns(offset_seconds=np.minimum(notes.offset_seconds, seconds))


def judge_direction(
    classifier: StyleClassifier, styles: Path, folder: Path | None, direction: str, seconds: float
) -> list[Verdict]:
    """Judge the baselines of a direction and, if there is a folder, the results in it."""
    source_style, target_style = parse_direction(direction)
    if unknown := {source_style, target_style} - set(classifier.styles):
        raise SystemExit(f"judge.py: the classifier knows no {min(unknown)} ({direction})")
    own = folder / "source" if folder else None
    sources = pieces_below(own if own and own.is_dir() else styles / "test" / source_style, seconds)
    results: dict[str, Pieces] = {}
    for path in sorted(folder.iterdir()) if folder else ():
        if path.is_dir() and path.name != "source":
            results[path.name] = pieces_below(path, seconds)
            if not results[path.name]:
                raise SystemExit(f"judge.py: no MIDI file in {path}")
            if missing := results[path.name].keys() - sources.keys():
                raise SystemExit(f"judge.py: no source for {min(missing)} (and {len(missing) - 1} more) of {path}")
    judged = set().union(*results.values()) if results else set(sources)
    others = list(pieces_below(styles / "test" / target_style, seconds).values())
    chosen = [(name, sources[name]) for name in sorted(judged)]
    verdicts = list(baselines(classifier, direction, chosen, others, means_of(styles, target_style)))
    for name, pieces in results.items():
        verdicts.append(verdict(classifier, direction, name, ((sources[stem], pieces[stem]) for stem in pieces)))
    return verdicts


# ---------------------------------------------------------------------------------------------------------- commands


def run_train(styles: Path, classifier: Path, steps: int, batch: int, seed: int) -> None:
    """Train, save, and report on the test side."""
    names = sorted(path.name for path in (styles / "train").iterdir() if path.is_dir())
    pieces = {name: list(pieces_below(styles / "train" / name).values()) for name in names}
    losses: list[float] = []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.3f}", file=sys.stderr, flush=True)

    trained = train(pieces, steps, batch, seed, report)
    trained.save(classifier)
    for title, excerpt in (("whole pieces", np.inf), ("first 64 s", 64.0), ("first 16 s", 16.0)):
        print(f"\n{title}")
        print(confusion_table(trained, confusion(trained, styles, excerpt)))


def confusion(classifier: StyleClassifier, styles: Path, seconds: float) -> NDArray[np.int64]:
    """How many test pieces of each style (rows) were taken for which (columns), [styles, styles]."""
    counts = np.zeros((len(classifier.styles),) * 2, np.int64)
    for row, style in enumerate(classifier.styles):
        for notes in pieces_below(styles / "test" / style, seconds).values():
            if windows_of(notes):
                counts[row, classifier.styles.index(classifier.style_of(notes))] += 1
    return counts


def confusion_table(classifier: StyleClassifier, counts: NDArray[np.int64]) -> str:
    """The matrix in words and figures."""
    width = max(map(len, classifier.styles)) + 2
    lines = ["".ljust(width) + "".join(style.rjust(width) for style in classifier.styles) + "  right"]
    for style, row in zip(classifier.styles, counts, strict=True):
        share = row[classifier.styles.index(style)] / max(row.sum(), 1)
        lines.append(style.ljust(width) + "".join(str(count).rjust(width) for count in row) + f"  {share:.3f}")
    right = np.diag(counts)
    by_style = (right / np.maximum(counts.sum(axis=1), 1)).mean()
    lines.append(f"accuracy {right.sum() / counts.sum():.3f}, mean over the styles {by_style:.3f}")
    return "\n".join(lines)


def run_judge(styles: Path, path: Path, results: Path | None, seconds: float, output: Path | None) -> None:
    """Judge all directions, print a table, and write figures and curves."""
    classifier = StyleClassifier.load(path)
    if results:
        directions = sorted(entry.name for entry in results.iterdir() if "-to-" in entry.name)
    else:
        directions = [f"{source}-to-{target}" for source, target in permutations(classifier.styles, 2)]
    judged = {}
    for direction in directions:
        folder = results / direction if results else None
        judged[direction] = judge_direction(classifier, styles, folder, direction, seconds)
        print(verdict_table(judged[direction]), flush=True)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        rows = [asdict(entry) for verdicts in judged.values() for entry in verdicts]
        (output / "verdicts.json").write_text(json.dumps(rows, indent=1) + "\n")
        if results:
            thresholds = {direction: least_kept(verdicts) for direction, verdicts in judged.items()}
            draw_curves(judged, thresholds, LEAST_SHARE, output / "strength.png")


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts of a direction as lines; a star stands where a result is as good as it has to be."""
    least_profile, least_chord = least_kept(verdicts)
    lines = [
        f"{verdicts[0].direction}",
        "  strength    pieces   target  (mean p)   source   profile    chords",
    ]
    for entry in verdicts:
        marks = [
            f"{value:.3f}{'*' if value >= least else ' '}"
            for value, least in (
                (entry.style_share, LEAST_SHARE),
                (entry.profile_similarity, least_profile),
                (entry.chord_similarity, least_chord),
            )
        ]
        lines.append(
            f"  {entry.name:10}{entry.pieces:8}   {marks[0]}   ({entry.style_probability:.3f})    "
            f"{entry.source_share:.3f}    {marks[1]}    {marks[2]}"
        )
    lines.append(f"  {'needed':10}{'':8}   {LEAST_SHARE:.3f}{'':24}{least_profile:.3f}     {least_chord:.3f}\n")
    return "\n".join(lines)


def run_rolls(before: Path, after: Path, picture: Path, count: int, start: float, seconds: float) -> None:
    """Draw some pieces that are in both folders, each before and after."""
    sources, results = pieces_below(before), pieces_below(after)
    names = sorted(sources.keys() & results.keys())
    if not names:
        raise SystemExit(f"judge.py: no piece of {after} is in {before}")
    step = max(len(names) // count, 1)
    chosen = names[::step][:count]
    draw_rolls([(name, sources[name], results[name]) for name in chosen], start, seconds, picture)


def main() -> None:
    """Read the command line and run what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train the classifier and report on the test side")
    judging = commands.add_parser("judge", help="judge results, or the baselines alone")
    for command in (training, judging):
        command.add_argument("styles", type=Path)
        command.add_argument("classifier", type=Path)
    training.add_argument("--steps", type=int, default=STEPS)
    training.add_argument("--batch", type=int, default=BATCH)
    training.add_argument("--seed", type=int, default=0)
    judging.add_argument("results", type=Path, nargs="?")
    judging.add_argument("--seconds", type=float, default=np.inf, help="only the beginning of each piece")
    judging.add_argument("--output", type=Path, help="a folder for verdicts.json and strength.png")
    rolling = commands.add_parser("rolls", help="draw pieces before and after")
    rolling.add_argument("before", type=Path)
    rolling.add_argument("after", type=Path)
    rolling.add_argument("picture", type=Path)
    rolling.add_argument("--count", type=int, default=5)
    rolling.add_argument("--start", type=float, default=8.0)
    rolling.add_argument("--seconds", type=float, default=16.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "train":
        run_train(options.styles, options.classifier, options.steps, options.batch, options.seed)
    elif options.command == "judge":
        run_judge(options.styles, options.classifier, options.results, options.seconds, options.output)
    else:
        run_rolls(options.before, options.after, options.picture, options.count, options.start, options.seconds)


if __name__ == "__main__":
    try:
        main()
    except MusicToolError as error:
        raise SystemExit(f"judge.py: {error}") from error
