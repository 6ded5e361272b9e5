"""`mtk eval audio` of many sounds at once: the Fréchet distance of their embeddings to those of others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.cli.environment import Environment
from musictool.cli.exit_status import ExitStatus
from musictool.cli.files import Source
from musictool.commands.eval_items import Items, Table, are_fulfilled, demand_records, tracked

if TYPE_CHECKING:
    from musictool.inference.audio_embeddings import Embedding
    from musictool.metrics.assertions import Assertion
    from musictool.metrics.frechet import Moments

_COLUMNS = ["Fréchet", "embeddings", "beside"]


@dataclass(frozen=True)
class Likeness:
    """How like some sounds others are.

    Attributes:
        distance: Fréchet's; None where one side has less than two embeddings.
        frames, other_frames: embeddings of either side.
        embedding: which model's: name, sha256, width, rate_hz and hop_seconds.
    """

    distance: float | None
    frames: int
    other_frames: int
    embedding: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "frechet_distance": self.distance,
            "embeddings": self.frames,
            "other_embeddings": self.other_frames,
            "model": self.embedding,
        }

    def show(self, environment: Environment) -> None:
        """As a table of one line."""
        distance = "-" if self.distance is None else f"{self.distance:.4g}"
        name = f"{self.embedding['name']} {self.embedding['sha256'][:12]}"
        Table(environment, _COLUMNS, "model").row([distance, str(self.frames), str(self.other_frames)], name)


def open_model(name: str, device: str, environment: Environment) -> Embedding:
    """The model of `--embeddings`; raises as `open_embedding` does."""
    from musictool.checkpoints.store import Store
    from musictool.inference.audio_embeddings import open_embedding

    return open_embedding(name, device, store=Store.from_environ(environment.environ))


def embed_files(
    files: Iterable[tuple[str, Path]],
    model: Embedding,
    items: Items,
    environment: Environment,
    shown: Mapping[Path, str] | None = None,
) -> tuple[Moments, list[tuple[str, int]]]:
    """Embed sounds.

    Args:
        files: each with what to call it.
        model: what embeds them.
        items: is told of those that cannot be read; nothing of these counts.
        environment: the world.
        shown: what to call files in errors that are copies of something else.

    Returns:
        What is left of all, and how many embeddings each file has.
    """
    import numpy as np

    from musictool.audio.reading import mono_blocks, open_audio
    from musictool.metrics.frechet import Moments

    moments = Moments(model.width)
    counts = []
    with tracked(files, environment, by_table=False) as watched:
        for name, path in watched:
            with items.failing(name):
                with open_audio(path, (shown or {}).get(path, "")) as reader:
                    found = list(model.embed(mono_blocks(reader, model.rate_hz)))
                moments.add(np.concatenate([np.zeros((0, model.width), np.float32), *found]))
                counts.append((name, sum(map(len, found))))
    return moments, counts


def likeness_of(results: Moments, others: Moments, model: Embedding, environment: Environment) -> Likeness:
    """Hold sounds against others, and say where there are too few of either."""
    from musictool.metrics.frechet import frechet_distance

    one, other = results.gaussian(), others.gaussian()
    distance = None if one is None or other is None else frechet_distance(one, other)
    fewest = min(results.frames, others.frames)
    if fewest <= model.width:
        what = "there is none" if distance is None else "it is too large"
        seconds = (model.width + 1) * model.hop_seconds
        message = f"{fewest} embeddings are too few for a Fréchet distance: {what}"
        hint = f"{model.name} takes {seconds:.0f} s of sound on each side, and says more of hours"
        environment.warn(message, hint=hint, code="few-embeddings")
    facts = {key: getattr(model, key) for key in ("name", "sha256", "width", "rate_hz", "hop_seconds")}
    return Likeness(distance, results.frames, others.frames, facts)


def judge_body(
    sources: Sequence[Source],
    corpus: Sequence[Source],
    model: Embedding,
    demands: Sequence[Assertion],
    environment: Environment,
    *,
    as_json: bool,
    shown: Mapping[Path, str],
) -> int:
    """Hold sounds as a body against a corpus, and report on it.

    Args:
        sources, corpus: what to judge, and what it should be like.
        model: what embeds both.
        demands: conditions on the distance.
        environment: the world.
        as_json: one JSON object, no table.
        shown: what to call files in errors that are copies of something else.

    Returns:
        The exit status.
    """
    items = Items(environment, None)
    moments, counts = embed_files(_files(items, sources), model, items, environment, shown)
    others, other_counts = embed_files(_files(items, corpus), model, items, environment)
    likeness = likeness_of(moments, others, model, environment)
    mean = {"frechet_distance": likeness.distance}
    if as_json:
        record = {
            "items": [{"item": name, "embeddings": count} for name, count in counts],
            "mean": mean,
            "corpus_items": len(other_counts),
            "frechet": likeness.to_json(),
            "failed": items.failures,
            "assertions": demand_records(demands, mean),
        }
        environment.stdout.write(json.dumps(record, allow_nan=False).encode() + b"\n")
    else:
        likeness.show(environment)
    is_good = are_fulfilled(demands, mean, environment)
    return ExitStatus.FINDINGS if items.failures or not is_good else ExitStatus.DONE


def _files(items: Items, sources: Sequence[Source]) -> Iterable[tuple[str, Path]]:
    """The files of sound sources."""
    return ((candidate.name, candidate.notes) for candidate in items.read(sources) if isinstance(candidate.notes, Path))
