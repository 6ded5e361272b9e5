"""Composing as a whole, with a small random model: what is asked for is there, and what it depends on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.inference import symbolic_generation
from musictool.inference.composing_passage import Passage
from musictool.inference.generation import Piece, Planned, Setup, open_generator
from musictool.inference.generation_options import Drawing, Request
from musictool.inference.symbolic_generation import EventGenerator
from musictool.models.symbolic_generator import SymbolicGeneratorConfig
from musictool.symbolic.composing import BAR, END, HEADER_IDS, LANGUAGE, LEFT_MAX, compose, header
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import find_scheme, remi
from musictool.symbolic.vocabulary import Ids
from tests.small_models import SMALL_SYMBOLIC_GENERATOR, install_small_symbolic_generator, random_symbolic_generator
from tests.symbolic.scores import score_of, tune

pytestmark = pytest.mark.usefixtures("one_thread")

FREE = Drawing(temperature=1.0, seed=5)
REMI = find_scheme("remi")


def generator_of(config: SymbolicGeneratorConfig = SMALL_SYMBOLIC_GENERATOR) -> EventGenerator:
    return EventGenerator(random_symbolic_generator(config), "small", "", torch.device("cpu"))


@pytest.fixture(scope="module")
def maker() -> EventGenerator:
    return generator_of()


@pytest.fixture
def passages(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """All ids that each passage takes, chords and what is left among them."""
    taken: list[list[int]] = []
    owners: list[Passage] = []
    take = Passage.take

    def taking(passage: Passage, id: int) -> list[int]:
        if not any(owner is passage for owner in owners):
            owners.append(passage)
            taken.append([])
        taken[[owner is passage for owner in owners].index(True)].append(id)
        return take(passage, id)

    monkeypatch.setattr(Passage, "take", taking)
    return taken


def made(
    maker: EventGenerator,
    requests: Sequence[Request],
    drawing: Drawing = FREE,
    prompts: Sequence[Ids | None] = (),
    first: int = 0,
) -> list[list[Ids]]:
    """The chunks of each piece, made side by side."""
    plans = [maker.plan(request, prompt) for request, prompt in zip(requests, prompts or [None] * len(requests))]
    return chunks_of(maker, plans, drawing, first)


def chunks_of(maker: EventGenerator, plans: Sequence[Planned], drawing: Drawing, first: int = 0) -> list[list[Ids]]:
    found: dict[int, list[Ids]] = defaultdict(list)
    ended: set[int] = set()
    for chunk in maker.generate([Piece(first + number, plan) for number, plan in enumerate(plans)], drawing):
        assert chunk.row not in ended
        found[chunk.row].append(chunk.tokens)
        ended |= {chunk.row} if chunk.is_last else set()
    assert ended == set(range(len(plans)))
    return [found[index] for index in range(len(plans))]


def piece(maker: EventGenerator, request: Request, drawing: Drawing = FREE, prompt: Ids | None = None) -> Ids:
    return np.concatenate(made(maker, [request], drawing, [prompt])[0])


def bars_of(ids: Ids) -> int:
    return int((ids == BAR).sum())


def kind_of(name: str) -> str:
    return name.partition("_")[0]


# ------------------------------------------------------------------------------------------------- what it depends on


def test_the_same_seed_and_number_give_the_same_piece_and_others_another(maker: EventGenerator) -> None:
    request = Request(style="jazz", bars=2)
    first = piece(maker, request)
    assert piece(maker, request).tolist() == first.tolist()
    assert piece(maker, request, Drawing(seed=6)).tolist() != first.tolist()
    assert np.concatenate(made(maker, [request], first=1)[0]).tolist() != first.tolist()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_piece_is_the_same_whoever_is_beside_it(maker: EventGenerator, guidance: float) -> None:
    """Of different lengths, with prompts and without; the shortest end first and leave their place to others."""
    requests = [
        Request(style="jazz", bars=3),
        Request(style="pop", key="a minor", bars=1),
        Request(bars=2, tempo=90),
        Request(chords="C | F G", bars=4),
        Request(bars=1),
    ]
    prompts = [None, remi.encode(tune(0, bars=9)), None, None, remi.encode(tune(1, bars=2))]
    drawing = Drawing(guidance=guidance, seed=3)
    together = made(maker, requests, drawing, prompts)
    for number, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        alone = made(maker, [request], drawing, [prompt], first=number)[0]
        assert [chunk.tolist() for chunk in together[number]] == [chunk.tolist() for chunk in alone]


def test_style_and_key_make_a_difference(maker: EventGenerator) -> None:
    requests = (Request(style="jazz", bars=2), Request(style="pop", bars=2), Request(bars=2), Request(key="C", bars=2))
    assert len({piece(maker, request).tobytes() for request in requests}) == 4


def test_guidance_of_one_is_none_and_of_three_leads_elsewhere(
    maker: EventGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(style="jazz", key="C", bars=2)
    plain = piece(maker, request)
    assert piece(maker, request, Drawing(guidance=3.0, seed=5)).tolist() != plain.tolist()
    # With two rows a piece, and the one as likely as the other, nothing changes.
    assert (
        piece(maker, Request(bars=2), Drawing(guidance=3.0, seed=5)).tolist() == piece(maker, Request(bars=2)).tolist()
    )
    near = piece(maker, request, Drawing(guidance=1.0 + 1e-7, seed=5))
    assert near.tolist() == plain.tolist()


@pytest.mark.parametrize(
    "drawing",
    [
        Drawing(temperature=0.0),
        Drawing(temperature=100.0),
        Drawing(top_k=1 << 30),
        Drawing(top_k=1),
        Drawing(top_p=1e-6),
    ],
)
def test_pieces_drawn_anyhow_are_pieces(maker: EventGenerator, drawing: Drawing) -> None:
    ids = piece(maker, Request(bars=3), drawing)
    assert bars_of(ids) == 3
    assert remi.encode(REMI.decode([ids])).tolist() == ids[: len(remi.encode(REMI.decode([ids])))].tolist()


def test_greedy_is_what_is_likeliest_alone(maker: EventGenerator) -> None:
    ways = (Drawing(temperature=0.0), Drawing(temperature=0.0, seed=9), Drawing(top_k=1), Drawing(top_p=1e-6))
    assert len({piece(maker, Request(bars=2), drawing).tobytes() for drawing in ways}) == 1


def test_top_k_beyond_the_vocabulary_is_all(maker: EventGenerator) -> None:
    assert (
        piece(maker, Request(bars=2), Drawing(top_k=1 << 30)).tolist()
        == piece(maker, Request(bars=2), Drawing()).tolist()
    )


# -------------------------------------------------------------------------------------------------------------- chunks


def test_chunks_are_bars_and_together_the_piece(maker: EventGenerator, passages: list[list[int]]) -> None:
    chunks = made(maker, [Request(bars=5)])[0]
    assert [bars_of(chunk) for chunk in chunks] == [1] * 5 + [0]
    assert all(chunk[-1] == BAR for chunk in chunks[:-1])
    told = {"Left", "Chord", "End"}
    names = [name for name in LANGUAGE.names(np.array(passages[0])) if kind_of(name) not in told]
    written = LANGUAGE.names(np.concatenate(chunks))
    assert [name for name in names if kind_of(name) != "Position"] == [
        name for name in written if kind_of(name) != "Position"
    ]


def test_seconds_of_chunks_are_those_of_their_bars(maker: EventGenerator) -> None:
    """Whatever metres and tempos the model likes."""
    plan = maker.plan(Request(bars=6), None)
    chunks = list(maker.generate([Piece(4, plan)], Drawing(temperature=3.0)))
    ids = np.concatenate([chunk.tokens for chunk in chunks])
    names = LANGUAGE.names(ids)
    assert len({name for name in names if kind_of(name) == "Tempo"}) > 2
    assert len({name for name in names if kind_of(name) == "Numerator"}) > 1
    # The end of a piece is where a bar after it would begin, with a note in it.
    ends = [*np.flatnonzero(ids == BAR)[1:], len(ids)]
    begins = np.cumsum([chunk.seconds for chunk in chunks])[1:]
    for end, seconds in zip(ends, begins, strict=True):
        beyond = LANGUAGE.ids(["Bar", "Position_0", "Pitch_99", "Velocity_31", "Duration_1"])
        notes = REMI.decode([np.concatenate([ids[:end], beyond])]).notes
        assert notes.onset_seconds.max() == pytest.approx(seconds, abs=1e-3)


# ------------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("bars", [1, 2])
def test_as_many_bars_as_are_asked_for_are_made(maker: EventGenerator, passages: list[list[int]], bars: int) -> None:
    assert bars_of(piece(maker, Request(bars=bars))) == bars
    lefts = [LANGUAGE.names(np.array([id]))[0] for id in passages[0] if kind_of(LANGUAGE.token_names[id]) == "Left"]
    assert lefts == [f"Left_{min(bars - 1 - bar, LEFT_MAX)}" for bar in range(bars)]
    assert passages[0][-1] == END


def test_what_is_left_is_said_of_a_long_piece_too(maker: EventGenerator) -> None:
    taken = drawn(Passage(maker.plan(Request(bars=LEFT_MAX + 3), None).conditions, 96), 0)
    lefts = [name for name in LANGUAGE.names(np.array(taken)) if kind_of(name) == "Left"]
    assert lefts == [f"Left_{min(LEFT_MAX + 2 - bar, LEFT_MAX)}" for bar in range(LEFT_MAX + 3)]


def test_sixteen_bars_are_made_where_nothing_is_asked_for(maker: EventGenerator) -> None:
    plan = maker.plan(Request(), None)
    assert plan.made == {"bars": 16}
    assert drawn(Passage(plan.conditions, 96), 0).count(BAR) == 16


def drawn(passage: Passage, seed: int) -> list[int]:
    """Ids drawn at random until a piece ends, any type as often; its window slides where it is full."""
    draw, taken = np.random.default_rng(seed), []
    while not passage.is_done:
        choices = np.flatnonzero(passage.allowed())
        kind = draw.choice(np.unique(LANGUAGE.range_of_id[choices]))
        taken.append(int(draw.choice(choices[LANGUAGE.range_of_id[choices] == kind])))
        passage.take(taken[-1])
        assert len(passage.window()) <= 96
        if passage.is_full:
            passage.slide()
            assert len(passage.window()) < 96
    return taken


@pytest.mark.parametrize("seconds", [0.3, 12.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_piece_is_as_long_as_is_asked_for_within_a_bar(maker: EventGenerator, seconds: float, seed: int) -> None:
    """Of its last bar, or of one at the tempo in which that ends."""
    for request in (Request(duration_seconds=seconds), Request(duration_seconds=seconds, tempo=80)):
        plan = maker.plan(request, None)
        assert plan.seconds == seconds
        chunks = list(maker.generate([Piece(0, plan)], Drawing(seed=seed)))
        said = {
            kind_of(name): int(name.partition("_")[2] or 0)
            for name in LANGUAGE.names(np.concatenate([c.tokens for c in chunks]))
        }
        bar = said["Numerator"] * 4 / 2 ** said["DenominatorLog2"] * 60 / said["Tempo"]
        assert abs(sum(chunk.seconds for chunk in chunks) - seconds) <= max(bar, chunks[-1].seconds)
        assert request.tempo is None or chunks[-1].seconds == pytest.approx(bar)


def test_an_asked_tempo_holds_from_the_beginning_to_the_end(maker: EventGenerator) -> None:
    names = LANGUAGE.names(piece(maker, Request(tempo=93.4, bars=4)))
    assert [name for name in names if kind_of(name) == "Tempo"] == ["Tempo_93"]
    prompted = piece(maker, Request(tempo=93, chords="C Am", bars=2), prompt=remi.encode(tune(0, bars=2)))
    tempos = [name for name in LANGUAGE.names(prompted) if kind_of(name) == "Tempo"]
    assert tempos == ["Tempo_120", "Tempo_93"]
    assert REMI.decode([prompted]).tempo_map.start_quarters.tolist() == [0, 8]


def test_style_and_key_stand_in_the_header(maker: EventGenerator) -> None:
    for request, expected in (
        (Request(), header(True, None, None)),
        (Request(style="classical", key="a minor"), header(True, 1, 21)),
        (Request(key="Bb"), header(True, None, 10)),
    ):
        passage = Passage(maker.plan(request, None).conditions, 96)
        assert passage.window() == expected.tolist()
        assert passage.window(is_told=False) == header(True, None, None).tolist()


def chords_said(ids: Sequence[int]) -> list[tuple[int, int, int]]:
    """Bar, place and number of every chord."""
    bar, place, found = -1, 0, []
    for name in LANGUAGE.names(np.array(ids)):
        kind, _, value = name.partition("_")
        bar += kind == "Bar"
        place = int(value) if kind == "Position" else 0 if kind == "Bar" else place
        if kind == "Chord":
            found.append((bar, place, int(value)))
    return found


C, AM, F, G, NONE = 0, 21, 5, 7, 108


@pytest.mark.parametrize(
    ("chords", "expected"),
    [
        ("C Am F", [(0, 0, C), (1, 0, AM), (2, 0, F), (3, 0, C), (4, 0, AM)]),
        ("C C Am | F", [(0, 0, C), (0, 48, AM), (1, 0, F), (2, 0, C), (2, 48, AM), (3, 0, F), (4, 0, C), (4, 48, AM)]),
        ("C F | F G", [(0, 0, C), (0, 48, F), (1, 48, G), (2, 0, C), (2, 48, F), (3, 48, G), (4, 0, C), (4, 48, F)]),
        ("N", [(0, 0, NONE)]),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_chords_are_said_where_they_are_asked_for_and_nowhere_else(
    maker: EventGenerator,
    passages: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    chords: str,
    expected: list,
    seed: int,
) -> None:
    in_common_time(monkeypatch)
    piece(maker, Request(chords=chords, bars=5), Drawing(seed=seed))
    assert chords_said(passages[0]) == expected


def in_common_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other metre be written."""
    allowed = Passage.allowed

    def allowing(passage: Passage) -> np.ndarray:
        mask = allowed(passage)
        others = np.isin(
            LANGUAGE.range_of_id, [LANGUAGE.range_index("Numerator"), LANGUAGE.range_index("DenominatorLog2")]
        )
        others[[LANGUAGE.id("Numerator", 4), LANGUAGE.id("DenominatorLog2", 2)]] = False
        return mask & ~others

    monkeypatch.setattr(Passage, "allowed", allowing)


@pytest.mark.parametrize("seed", range(5))
def test_chords_are_said_in_turn_whatever_the_metre(
    maker: EventGenerator, passages: list[list[int]], seed: int
) -> None:
    """Four in each bar, however short it is; where there is no room for four, those that come last."""
    piece(maker, Request(chords="C Am F G", bars=3), Drawing(temperature=2.0, seed=seed))
    piece(maker, Request(chords="C Am F G | G F Am C | C Am F G", bars=3), Drawing(temperature=2.0, seed=seed))
    assert [(bar, chord) for bar, place, chord in chords_said(passages[0])] == [(0, C), (1, AM), (2, F)]
    found = chords_said(passages[1])
    assert all(chord in (C, AM, F, G) for _, _, chord in found)
    for bar, last in enumerate((G, C, G)):
        assert [chord for where, _, chord in found if where <= bar][-1] == last


def allowed_names(passage: Passage) -> list[str]:
    return LANGUAGE.names(np.flatnonzero(passage.allowed()))


def take_all(passage: Passage, text: str) -> None:
    for id in LANGUAGE.ids(text.split()).tolist():
        assert passage.allowed()[id], LANGUAGE.token_names[id]
        passage.take(id)


def test_an_asked_tempo_comes_before_an_asked_chord(maker: EventGenerator) -> None:
    request = Request(tempo=93, chords="C", bars=2)
    passage = Passage(maker.plan(request, remi.encode(tune(0, bars=2))).conditions, 4000)
    take_all(passage, "Bar Left_1 Position_0")
    assert allowed_names(passage) == ["Tempo_93"]
    take_all(passage, "Tempo_93")
    assert allowed_names(passage) == ["Chord_0"]


def test_of_chords_that_find_no_room_in_a_bar_the_last_are_said(maker: EventGenerator) -> None:
    passage = Passage(maker.plan(Request(chords="C Am F G |", bars=1), None).conditions, 96)
    take_all(passage, "Bar Left_0 Numerator_1 DenominatorLog2_5 Position_0 Tempo_120")
    for chord, then in ((AM, "Position_1"), (F, "Position_2"), (G, "End")):
        names = allowed_names(passage)
        assert [name for name in names if kind_of(name) != "Tempo"] == [f"Chord_{chord}"]
        take_all(passage, f"Chord_{chord} {then}")


def test_chords_may_stand_in_a_file(maker: EventGenerator, tmp_path: Path) -> None:
    (tmp_path / "chords.txt").write_text("C Am |\nF G\n")
    from_file, typed = (maker.plan(Request(chords=text), None) for text in (str(tmp_path / "chords.txt"), "C Am | F G"))
    assert from_file.conditions == typed.conditions
    assert maker.plan(Request(chords="C N.C. " * 400 + "N.C"[:1]), None).conditions.chords[1] == (NONE,)


# ------------------------------------------------------------------------------------------------------- going further


def test_a_prompt_comes_first_and_the_piece_goes_on_from_it(maker: EventGenerator) -> None:
    score = tune(3, bars=3)
    prompt = remi.encode(score)
    chunks = made(maker, [Request(bars=4)], prompts=[prompt])[0]
    assert chunks[0].tolist() == prompt.tolist()
    assert chunks[1].tolist() == [BAR]
    ids = np.concatenate(chunks)
    assert bars_of(ids) == 7
    notes = REMI.decode([ids]).notes
    before = notes.take(notes.onset_seconds < 6.0 - 1e-6)
    assert len(before) == len(score.notes)
    assert remi.encode(REMI.decode([ids])).tolist()[: len(prompt)] == prompt.tolist()


def test_what_follows_a_prompt_depends_on_it(maker: EventGenerator) -> None:
    pieces = [piece(maker, Request(bars=2), prompt=remi.encode(tune(seed, bars=2))) for seed in (1, 2)]
    tails = [ids[len(remi.encode(tune(seed, bars=2))) :].tolist() for seed, ids in zip((1, 2), pieces)]
    assert tails[0] != tails[1]


def test_a_prompt_of_several_programs_is_followed_without_striking_held_keys(maker: EventGenerator) -> None:
    rows = [(24 * n, 24 * (n % 3 + 1), n % 5, 50 + n, 70) for n in range(16)]
    rows.append((0, 2000, 0, 40, 70))  # held into what follows
    prompt = remi.encode(score_of(rows))
    ids = piece(maker, Request(bars=4), prompt=prompt)
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    notes = REMI.decode([ids]).notes
    key = notes.program.astype(int) << 8 | notes.is_drum << 7 | notes.pitch
    for one in np.unique(key):
        same = notes.take(key == one)
        assert (same.onset_seconds[1:] >= same.offset_seconds[:-1] - 1e-9).all()


def test_the_window_of_a_prompt_is_the_passage_that_training_would_see(maker: EventGenerator) -> None:
    score = tune(0, bars=12)
    past = compose(score)
    for context, bars in ((4000, 3), (200, 3), (120, 40)):
        wishes = maker.plan(Request(bars=bars, style="pop"), remi.encode(score)).conditions
        window = Passage(wishes, context).window()
        first = next(bar for bar in range(12) if len(past.passage(bar, 4000, 0, past.key)) - 1 <= context * 3 / 4)
        expected = LANGUAGE.names(past.passage(first, 4000, 0, past.key)[:-1])
        left = iter(min(12 + bars - 1 - bar, LEFT_MAX) for bar in range(first, 12))
        assert LANGUAGE.names(np.array(window)) == [
            f"Left_{next(left)}" if kind_of(name) == "Left" else name for name in expected
        ]


def test_the_key_of_a_prompt_is_kept_unless_another_is_asked_for(maker: EventGenerator) -> None:
    prompt = remi.encode(tune(0))
    assert maker.plan(Request(), prompt).conditions.key == 0
    assert maker.plan(Request(key="D"), prompt).conditions.key == 2


def test_seconds_are_counted_beyond_the_prompt(maker: EventGenerator) -> None:
    plan = maker.plan(Request(duration_seconds=8.0, tempo=120), remi.encode(tune(0, bars=4)))
    chunks = list(maker.generate([Piece(0, plan)], FREE))
    assert chunks[0].seconds == 0
    assert abs(sum(chunk.seconds for chunk in chunks) - 8.0) <= chunks[-1].seconds
    window = LANGUAGE.names(np.array(Passage(plan.conditions, 4000).window()))
    assert [name for name in window if kind_of(name) == "Left"] == ["Left_7", "Left_6", "Left_5", "Left_4"]


# ------------------------------------------------------------------------------------------------------ sliding windows


class Watch:
    """What the model knows whenever an id is to be chosen, held against a fresh reading of each window."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.largest = 0.0
        self.windows: dict[int, list[int]] = {}
        self.lengths: list[int] = []
        self.slides = 0
        self.capacities: set[int] = set()
        composing = symbolic_generation._Composing
        choose = composing._choose

        def choosing(run) -> list[int]:
            for slot, row in enumerate(run._rows):
                for offset in range(run._each):
                    window = row.passage.window(is_told=offset == 0)
                    fresh = run._model(torch.tensor([window]))[0, -1]
                    self.largest = max(
                        self.largest, float((run._logits[slot * run._each + offset] - fresh).abs().max())
                    )
                    self.lengths.append(len(window))
                    self._compare(2 * row.index + offset, window)
            self.capacities.add(run._cache.capacity)
            return choose(run)

        monkeypatch.setattr(composing, "_choose", choosing)

    def _compare(self, number: int, window: list[int]) -> None:
        before = self.windows.get(number, [])
        if window[: len(before)] != before:
            self.slides += 1
            names = LANGUAGE.names(np.array(window))
            assert names[0] == "Within"
            assert kind_of(names[3]) == "Bar"
            assert [kind_of(name) for name in names[4:9]] == [
                "Left", "Numerator", "DenominatorLog2", "Position", "Tempo",
            ]  # fmt: skip
        self.windows[number] = window


@pytest.mark.parametrize(("context", "guidance"), [(64, 2.0), (96, 1.0)])
def test_what_is_chosen_from_is_what_a_fresh_reading_of_the_window_gives(
    monkeypatch: pytest.MonkeyPatch, context: int, guidance: float
) -> None:
    maker = generator_of(SymbolicGeneratorConfig(**{**vars(SMALL_SYMBOLIC_GENERATOR), "context": context}))
    watch = Watch(monkeypatch)
    requests = [Request(style="jazz", bars=5), Request(chords="C | F G", bars=4), Request(bars=1)]
    prompts = [None, remi.encode(tune(0, bars=9)), None]
    pieces = made(maker, requests, Drawing(guidance=guidance, temperature=0.9), prompts)
    assert watch.largest < 1e-3
    assert watch.slides > 3
    assert max(watch.lengths) < context
    assert len(watch.capacities) == 1
    assert [sum(bars_of(chunk) for chunk in chunks) for chunks in pieces] == [5, 13, 1]


def test_a_bar_longer_than_the_window_needs_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = [(step, 6, source, pitch, 70) for step in range(0, 96, 6) for source in (0, 1) for pitch in range(40, 52)]
    prompt = remi.encode(score_of([*crowd, (0, 50_000, 2, 70, 70)]))
    maker = generator_of()
    watch = Watch(monkeypatch)
    pieces = made(maker, [Request(bars=5), Request(bars=2)], FREE, [prompt, prompt])
    assert [sum(bars_of(chunk) for chunk in chunks) for chunks in pieces] == [6, 3]
    assert watch.largest < 1e-3
    assert max(watch.lengths) < 96
    assert watch.capacities == {96}


def test_every_note_of_a_window_says_who_plays_it() -> None:
    """Also where the bars that it begins with are silent."""
    rows = [(96 * bar + 24 * beat, 24, 1, 40 + beat, 70) for bar in range(8) for beat in range(4)]
    score = score_of([row for row in rows if not 96 * 4 <= row[0] < 96 * 6])
    maker = generator_of()
    wishes = maker.plan(Request(bars=2), remi.encode(score)).conditions
    for context in range(60, 200, 2):
        names = LANGUAGE.names(np.array(Passage(wishes, context).window()))
        kinds = [kind_of(name) for name in names]
        assert "Program" in kinds[: kinds.index("Pitch")], context


@pytest.mark.parametrize("chords", [None, "C | Am F"])
@pytest.mark.parametrize("seed", range(3))
def test_a_window_is_never_longer_than_the_context_whatever_is_drawn(
    maker: EventGenerator, chords: str | None, seed: int
) -> None:
    taken = drawn(Passage(maker.plan(Request(bars=60, chords=chords), None).conditions, 96), seed)
    assert len(taken) > 3 * 96


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(style="polka"), "no style 'polka'"),
        (Request(key="H"), "no such key"),
        (Request(chords="C H7"), "no such chord"),
        (Request(chords="nowhere.txt"), "no such chord"),
        (Request(chords="  "), "no chords"),
        (Request(tempo=9), "no such tempo"),
        (Request(tempo=401), "no such tempo"),
    ],
)
def test_what_the_model_cannot_do_is_refused_in_one_line(maker: EventGenerator, request_: Request, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        maker.plan(request_, None)
    assert said in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_the_styles_that_there_are_are_named_as_they_are_typed(maker: EventGenerator) -> None:
    with pytest.raises(UsageError) as caught:
        maker.plan(Request(style="polka"), None)
    assert caught.value.hint == "it knows pop, classical, jazz"


def test_a_prompt_without_notes_is_refused(maker: EventGenerator) -> None:
    with pytest.raises(InputError, match="no notes"):
        maker.plan(Request(), remi.encode(Score()))


def test_a_file_of_chords_that_is_no_text_is_refused(maker: EventGenerator, tmp_path: Path) -> None:
    (tmp_path / "chords.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MusicToolError, match="cannot read the chords"):
        maker.plan(Request(chords=str(tmp_path / "chords.txt")), None)


# ---------------------------------------------------------------------------------------------------------- the opening


def test_a_stored_model_is_opened_as_what_it_is(tmp_path: Path) -> None:
    install_small_symbolic_generator(tmp_path)
    opened = open_generator("symbolic-generator", Setup(Store(tmp_path)))
    assert (opened.name, opened.kind, opened.vocab, opened.words_are) == (
        "symbolic-generator",
        "events",
        "remi",
        "style",
    )
    assert opened.vocab_sha == remi.VOCABULARY.fingerprint
    assert opened.takes >= {"style", "key", "tempo", "chords", "bars", "duration_seconds", "prompt", "guidance"}
    request = Request(bars=1)
    assert isinstance(opened, EventGenerator)
    assert piece(opened, request).tolist() == piece(generator_of(), request).tolist()
    assert HEADER_IDS == 3
