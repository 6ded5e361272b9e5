"""Every token is scored once, as a full forward pass scores it, and pieces go on as they would have alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from musictool.checkpoints.store import Store
from musictool.core.codebooks import flattened_pattern, parallel_pattern
from musictool.errors import InputError, UsageError
from musictool.inference import token_scoring
from musictool.inference.model_files import LoadedModel
from musictool.inference.sampling import Sampling
from musictool.inference.token_continuing import Continuation, Continuing
from musictool.inference.token_pieces import TokenPiece
from musictool.inference.token_predictors import Reading, open_predictor
from musictool.inference.token_scoring import score, spans, tally
from musictool.models.musicgen import MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.stream.records import Head
from musictool.symbolic.composing import BAR, IS_TOLD, LANGUAGE, LEFT
from musictool.symbolic.notes import Notes, Score, TempoMap
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.schemes.remi import encode
from tests.small_code_models import SMALL_PERSONALJAZZ, SMALL_SAXGPT, random_backings, random_code_model

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT = 24
TEXT = TextEncoderConfig(vocabulary=20, width=8, heads=2, head_width=4, hidden=12, layers=1)
CONFIGS: dict[str, Any] = {
    "musicgen": MusicGenConfig(width=16, heads=2, hidden=32, layers=2, codebook_size=32, text=TEXT),
    "personaljazz": replace(SMALL_PERSONALJAZZ, frames_max=CONTEXT),
    "saxgpt": replace(SMALL_SAXGPT, positions=CONTEXT + SMALL_SAXGPT.codebooks),
}
COMPOSER = SymbolicGeneratorConfig(width=16, heads=2, hidden=32, layers=2, context=96, styles=("pop", "jazz"))
every_family = pytest.mark.parametrize("family", CONFIGS)


def opened(model, tmp_path, **told):
    """A model's predictor; the model is used up."""
    loaded = LoadedModel(model.eval(), model.config, "some", "ab", tmp_path, told.pop("source", {}))
    return open_predictor(loaded, Reading(Store(tmp_path), "cpu", **told))


def code_model(family):
    if family != "musicgen":
        return random_code_model(CONFIGS[family])
    torch.manual_seed(1)
    model = MusicGen(CONFIGS[family])
    with torch.no_grad():
        model.heads.linear.weight.mul_(4.0)
    return model.eval()


def piece_of_codes(config, frames, seed=0, beside=None, meta=None):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, config.codebook_size, (config.codebooks, frames)).astype(np.int32)
    return TokenPiece(Head(f"piece-{seed}", "codes", "codec", "sha", meta or {}), codes, beside)


def conditions_of(family, config, piece, start=0, stop=None):
    """What the family is told where nothing is said, or of a backing."""
    if family == "personaljazz":
        return torch.zeros(1, config.style_width)
    if piece.beside is None:
        return torch.zeros(1, config.codebooks, 0, dtype=torch.int64)
    return torch.from_numpy(piece.beside[None, :, start:stop].astype(np.int64))


@torch.inference_mode()
def costs_by_forward(family, model, piece, start, stop, temperature=1.0):
    """-log p and ranks of the codes of a stretch, [K, n] each, by one pass over all of it."""
    codes = torch.from_numpy(piece.tokens[None, :, start:stop].astype(np.int64))
    ids = model.pattern.spread(codes, model.special_id)
    if family == "musicgen":
        conditions = model.encode_text(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool))
    else:
        conditions = conditions_of(family, model.config, piece, start, stop)
    logits = model(ids, conditions)[0, :, :-1]
    goals = ids[0, :, 1:]
    is_code = goals != model.special_id
    nats = functional.cross_entropy(logits[is_code] / temperature, goals[is_code], reduction="none").view(
        len(goals), -1
    )
    own = logits[is_code].gather(1, goals[is_code][:, None])
    return nats.numpy(), (logits[is_code] > own).sum(1).view(len(goals), -1).numpy()


@pytest.mark.parametrize("context", [1, 2, 7, 24])
@pytest.mark.parametrize("length", [0, 1, 23, 24, 25, 100])
def test_every_token_counts_once_with_half_a_context_before_it(length, context):
    counted = [place for span in spans(length, context) for place in range(span.first, span.stop)]
    assert counted == list(range(length))
    for span in spans(length, context):
        assert 0 <= span.start <= span.first < span.stop <= span.start + context
        assert span.first - span.start >= context // 2 or span.start == 0


@every_family
def test_scores_are_those_of_a_full_forward(family, tmp_path):
    model = code_model(family)
    beside = random_backings(20)[0].numpy().astype(np.int32) if family == "saxgpt" else None
    piece = piece_of_codes(CONFIGS[family], 20, beside=beside)
    nats, ranks = costs_by_forward(family, model, piece, 0, 20)
    at_half, _ = costs_by_forward(family, model, piece, 0, 20, 0.5)
    predictor = opened(model, tmp_path)
    (scored,) = score(predictor, predictor.windows(piece), temperatures=(1.0, 0.5))
    np.testing.assert_allclose(scored.nats[0], nats, atol=2e-5)
    np.testing.assert_allclose(scored.nats[1], at_half, atol=4e-5)
    np.testing.assert_array_equal(scored.ranks, ranks)
    np.testing.assert_array_equal(scored.ids, piece.tokens)
    assert len(np.unique(ranks == 0)) == 2  # some guesses are right
    (tallied,) = tally(predictor, [piece])
    assert tallied.figures()["cross_entropy_nats"] == pytest.approx(nats.mean(), rel=1e-5)
    for codebook, row in enumerate(nats):
        assert tallied.figures(codebook)["cross_entropy_nats"] == pytest.approx(row.mean(), rel=1e-5)


@pytest.mark.parametrize("family", ["personaljazz", "saxgpt"])
def test_a_long_piece_is_scored_in_windows_that_overlap(family, tmp_path):
    model, frames = code_model(family), 70
    beside = random_backings(frames)[0].numpy().astype(np.int32) if family == "saxgpt" else None
    piece = piece_of_codes(CONFIGS[family], frames, beside=beside)
    expected = np.zeros((len(piece.tokens), frames))
    for span in spans(frames, CONTEXT):
        costs, _ = costs_by_forward(family, model, piece, span.start, span.stop)
        expected[:, span.first : span.stop] = costs[:, span.first - span.start :]
    predictor = opened(model, tmp_path)
    found = [scored.nats[0] for scored in score(predictor, predictor.windows(piece), rows=3)]
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=5e-5)


@pytest.mark.parametrize("pattern", [parallel_pattern, flattened_pattern])
def test_any_pattern_scores_every_code(pattern, tmp_path):
    model = code_model("personaljazz")
    model.pattern = pattern(model.config.codebooks)
    piece = piece_of_codes(model.config, 9)
    nats, _ = costs_by_forward("personaljazz", model, piece, 0, 9)
    predictor = opened(model, tmp_path)
    (scored,) = score(predictor, predictor.windows(piece))
    np.testing.assert_array_equal(scored.ids, piece.tokens)
    np.testing.assert_allclose(scored.nats[0], nats, atol=2e-5)


@every_family
def test_batched_equals_single_and_blocks_equal_the_whole(family, tmp_path, monkeypatch):
    predictor = opened(code_model(family), tmp_path)
    pieces = [piece_of_codes(CONFIGS[family], frames, seed) for seed, frames in enumerate((10, 50, 1, 24, 0, 33))]
    whole = tally(predictor, pieces, rows=1)
    sizes = []
    decode = predictor.decode

    def watched(*arguments, **options):
        logits = decode(*arguments, **options)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(predictor, "decode", watched)
    monkeypatch.setattr(token_scoring, "BLOCK_LOGITS", 8192)
    together = tally(predictor, pieces, rows=4)
    for one, other, piece in zip(whole, together, pieces, strict=True):
        assert one.counts.tolist() == other.counts.tolist() == [len(piece)] * len(piece.tokens)
        np.testing.assert_allclose(other.nats(), one.nats(), rtol=1e-5)
        assert other.figures()["top_1"] == one.figures()["top_1"]
    assert max(sizes) <= 8192


def test_equal_logits_rank_as_argmax_chooses():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]] * 4)
    _, ranks = token_scoring._score_ids(logits, torch.arange(4), (1.0,))
    assert ranks.tolist() == [3, 0, 1, 2]


def test_logits_that_are_no_numbers_are_an_error(tmp_path):
    model = code_model("personaljazz")
    model.heads.linear.weight.data[3, 2] = float("nan")
    with pytest.raises(InputError, match="no numbers"):
        tally(opened(model, tmp_path), [piece_of_codes(CONFIGS["personaljazz"], 5)])


def test_what_is_no_piece_of_the_models_is_refused(tmp_path):
    config = CONFIGS["personaljazz"]
    predictor = opened(code_model("personaljazz"), tmp_path)
    good = piece_of_codes(config, 4)
    for wrong, message in (
        (replace(good, tokens=good.tokens[:3]), "3 codebooks, and the model has 8"),
        (replace(good, tokens=good.tokens + config.codebook_size), "out of range"),
        (piece_of_notes(), "holds notes"),
    ):
        with pytest.raises(InputError, match=message):
            predictor.prepare(wrong)
    with pytest.raises(InputError, match="the model knows others"):
        opened(code_model("saxgpt"), tmp_path, source={"codec_sha256": "cd"}).prepare(good)
    with pytest.raises(InputError, match="holds codes"):
        composer(tmp_path).prepare(good)
    with pytest.raises(UsageError, match="no style 'polka'"):
        composer(tmp_path, style="polka")
    with pytest.raises(UsageError, match="takes no text"):
        opened(code_model("saxgpt"), tmp_path, text="a sax")


# --------------------------------------------------------------------------------------------------------------- notes


def random_composer():
    torch.manual_seed(1)
    model = SymbolicGenerator(COMPOSER)
    with torch.no_grad():
        model.embedding.weight.mul_(1.5)
    return model.eval()


def composer(tmp_path, **told):
    return opened(random_composer(), tmp_path, **told)


def piece_of_notes(seed=0, bars=12, notes_a_bar=6, numerator=4, silent=range(0)):
    """Notes on sixteenths, so many in each bar of quarters but the silent ones."""
    generator = np.random.default_rng(seed)
    steps = np.sort(generator.integers(0, 4 * numerator, (bars, notes_a_bar)), axis=1)
    quarters = np.delete(steps / 4 + numerator * np.arange(bars)[:, None], silent, axis=0).ravel()
    onset = quarters / 2
    notes = Notes.of(
        onset, onset + 0.25, generator.integers(48, 84, len(onset)), generator.integers(40, 100, len(onset))
    )
    ids = encode(Score(notes, tempo_map=TempoMap.constant(), has_metre=True))
    vocabulary = find_scheme("remi").vocabulary
    return TokenPiece(Head(f"piece-{seed}", "events", "remi", vocabulary.fingerprint), ids[None])


@pytest.mark.parametrize(
    ("bars", "notes_a_bar", "silent"), [(9, 3, range(0)), (9, 8, range(0)), (9, 40, range(0)), (80, 2, range(5, 75))]
)
def test_every_id_that_a_composer_is_asked_for_counts_once(bars, notes_a_bar, silent, tmp_path):
    predictor = composer(tmp_path, style="jazz")
    passage = predictor.prepare(piece_of_notes(bars=bars, notes_a_bar=notes_a_bar, silent=silent))
    counted, windows = [], list(predictor.windows(passage))
    for number, window in enumerate(windows):
        ids, counts = window.ids[0].numpy(), window.counts[0].numpy()
        assert len(ids) <= COMPOSER.context
        counted += ids[counts].tolist()
        told = ids[:3].tolist()
        assert told[1:] == passage.ids[1:3].tolist()
        if number:
            assert told[0] == LANGUAGE.id("Within")
            assert np.flatnonzero(counts)[0] >= COMPOSER.context // 2
    asked = passage.ids[~IS_TOLD[passage.ids]]
    assert counted == asked.tolist()
    assert predictor.length(passage) == len(asked)
    assert predictor.notes(passage) == (bars - len(silent)) * notes_a_bar
    assert len(windows) > 1


@torch.inference_mode()
def test_a_composers_scores_are_those_of_a_full_forward(tmp_path):
    predictor = composer(tmp_path)
    passage = predictor.prepare(piece_of_notes(bars=3, notes_a_bar=4))
    ids = torch.from_numpy(passage.ids.astype(np.int64))[None]
    nats = functional.cross_entropy(random_composer()(ids[:, :-1])[0], ids[0, 1:], reduction="none").numpy()
    asked = ~IS_TOLD[passage.ids[1:]]
    (one,) = tally(predictor, [passage])
    assert one.figures()["cross_entropy_nats"] == pytest.approx(nats[asked].mean(), rel=1e-5)
    for type in ("Pitch", "Chord", "Bar"):
        part = predictor.parts.index(type)
        of_type = asked & (LANGUAGE.range_of_id[passage.ids[1:]] == part)
        assert one.figures(part)["cross_entropy_nats"] == pytest.approx(nats[of_type].mean(), rel=1e-5)
        assert one.counts[part] == of_type.sum()


def test_any_scheme_is_read_in_the_composers_language(tmp_path):
    predictor = composer(tmp_path)
    piece = piece_of_notes(bars=4)
    score_ = find_scheme("remi").decode([piece.tokens[0]])
    tatum = find_scheme("tatum")
    head = Head("other", "events", "tatum", tatum.vocabulary.fingerprint, {"tempo": [[0, 500_000]]})
    other = TokenPiece(head, tatum.encode(score_)[None])
    own, theirs = (predictor.prepare(one) for one in (piece, other))
    assert predictor.notes(own) == predictor.notes(theirs)
    nothing = replace(piece, tokens=piece.tokens[:, :1])
    with pytest.raises(InputError, match="no notes"):
        predictor.prepare(nothing)


# ------------------------------------------------------------------------------------------------------------ going on


@every_family
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_piece_becomes_depends_on_its_number_alone(family, temperature, tmp_path):
    predictor = opened(code_model(family), tmp_path)
    pieces = [piece_of_codes(CONFIGS[family], 12, seed) for seed in range(3)]
    sampling = Sampling(temperature=temperature, seed=5)
    together = predictor.go_on(pieces, 8, 6, sampling, 0)
    assert together.shape == (3, CONFIGS[family].codebooks, 6)
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(predictor.go_on([piece], 8, 6, sampling, number)[0], together[number])
    if temperature:
        assert (predictor.go_on(pieces, 8, 6, Sampling(temperature=1.0, seed=6), 0) != together).any()


@every_family
def test_a_greedy_piece_parts_from_the_real_one_where_its_guesses_do(family, tmp_path):
    """In the order of steps: until then all that was read is the same."""
    predictor = opened(code_model(family), tmp_path)
    offsets = np.arange(CONFIGS[family].codebooks)[:, None]
    piece, prompt, length = piece_of_codes(CONFIGS[family], 8), 4, 8
    # The real piece is the model's own for a while, so that there is something to agree on.
    own = predictor.go_on([piece], prompt, length, Sampling(), 0)[0]
    own[:, 5:] = (own[:, 5:] + 1) % CONFIGS[family].codebook_size
    piece = replace(piece, tokens=np.concatenate([piece.tokens[:, :prompt], own], axis=1).astype(np.int32))
    (scored,) = score(predictor, [predictor.stretch(piece, prompt, length)])
    made = predictor.go_on([piece], prompt, length, Sampling(), 0)[0]
    steps = offsets + np.arange(length)
    firsts = [steps[wrong].min() for wrong in (scored.ranks > 0, made != predictor.real(piece, prompt, length))]
    assert firsts[0] == firsts[1] == 5


def test_a_composer_goes_on_in_its_language(tmp_path):
    predictor = composer(tmp_path)
    passages = [predictor.prepare(piece_of_notes(seed, bars=3 + seed)) for seed in range(3)]
    sampling = Sampling(temperature=1.0, seed=3)
    made = predictor.go_on(passages, 10, 25, sampling, 0)
    assert made.shape == (3, 1, 25)
    assert not IS_TOLD[made[made >= 0]].any()
    for number, passage in enumerate(passages):
        np.testing.assert_array_equal(predictor.go_on([passage], 10, 25, sampling, number)[0], made[number])
        real = predictor.real(passage, 10, 25)
        window = predictor.stretch(passage, 10, 25)
        np.testing.assert_array_equal(window.ids[window.counts].numpy(), real[0])


def test_a_composer_is_told_how_many_bars_are_left(tmp_path):
    predictor = composer(tmp_path)
    passage = predictor.prepare(piece_of_notes(bars=5))
    read = []
    decode = predictor._model.decode

    class Watching(SymbolicGenerator):
        def decode(self, ids, *arguments, **options):
            read.append(ids[0].tolist())
            logits = decode(ids, *arguments, **options)
            logits[..., BAR] += 1e3  # it begins a bar wherever it can
            return logits

    predictor._model.__class__ = Watching
    predictor.go_on([passage], 3, 12, Sampling(), 0)
    ids = [id for some in read for id in some]
    after_bars = [ids[place + 1] - LEFT for place, id in enumerate(ids[:-1]) if id == BAR]
    assert after_bars == [4, 3, 2, 1, 0]


def test_after_its_end_a_piece_has_no_ids(tmp_path):
    predictor = composer(tmp_path)
    passage = predictor.prepare(piece_of_notes(bars=3))
    end = LANGUAGE.id("End")
    decode = predictor._model.decode

    class Ending(SymbolicGenerator):
        def decode(self, ids, *arguments, **options):
            logits = decode(ids, *arguments, **options)
            logits[..., [BAR, end]] += 1e3
            return logits

    predictor._model.__class__ = Ending
    *written, last = predictor.go_on([passage], predictor.length(passage) - 1, 4, Sampling(), 0)[0, 0].tolist()
    assert (written, last) == ([end, -1, -1], -1)


def test_a_model_that_goes_on_like_the_piece_never_parts_from_it(tmp_path):
    predictor = opened(code_model("personaljazz"), tmp_path)
    pieces = []
    for seed in range(3):
        start = piece_of_codes(CONFIGS["personaljazz"], 4, seed)
        own = predictor.go_on([start], 4, 10, Sampling(), 0)[0]
        pieces.append(replace(start, tokens=np.concatenate([start.tokens, own], axis=1).astype(np.int32)))
    continuation = Continuation(predictor, Continuing(4, 10, (0.0, 1.5), seed=1))
    continuation.add([*pieces, piece_of_codes(CONFIGS["personaljazz"], 4, 9)])
    found = continuation.to_json()
    greedy, drawn = found["made"]
    assert (found["pieces"], found["left_out"]) == (3, 1)
    for one in (greedy, found["teacher_forced"]):
        assert one["first_divergence"] == {"mean": 10, "median": 10, "never": 1}
        assert (one["agreement"], len(one["codebooks"])) == (1, 8)
    assert (greedy["coverage"], greedy["kl_bits"]) == (1, 0)
    assert greedy["entropy_bits"] == found["real"]["entropy_bits"]
    assert drawn["agreement"] < 1
    assert drawn["kl_bits"] > 0
    assert drawn["first_divergence"]["mean"] < 10


def test_what_would_have_been_guessed_is_told_beside_what_was_made(tmp_path):
    predictor = opened(code_model("musicgen"), tmp_path)
    pieces = [piece_of_codes(CONFIGS["musicgen"], 60, seed) for seed in range(4)]
    continuation = Continuation(predictor, Continuing(10, 50))
    for some in (pieces[:3], pieces[3:]):
        continuation.add(some)
    windows = [predictor.stretch(piece, 10, 50) for piece in pieces]
    is_right = np.stack([scored.ranks == 0 for scored in score(predictor, windows)])
    forced = continuation.to_json()["teacher_forced"]
    assert forced["agreement"] == pytest.approx(is_right.mean())
    for codebook, found in enumerate(forced["codebooks"]):
        firsts = [np.append(row[codebook], False).argmin() for row in is_right]
        assert (found["mean"], found["median"]) == (np.mean(firsts), np.median(firsts))
    assert 0 < forced["agreement"] < 0.5


def write_tokenizer(folder):
    """Beside a model: a tokenizer that knows a few words, and an end."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: id for id, word in enumerate(["<pad>", "</s>", "blue", "red", "slow"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words["</s>"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_text_is_what_the_piece_says_unless_it_is_told(tmp_path):
    write_tokenizer(tmp_path)
    config = CONFIGS["musicgen"]
    pieces = [piece_of_codes(config, 10, meta={"text": text}) for text in ("slow blue", "", "red")]

    def costs(**told):
        predictor = opened(code_model("musicgen"), tmp_path, **told)
        return [one.figures()["cross_entropy_nats"] for one in tally(predictor, pieces, rows=3)]

    own = costs()
    assert len(set(own)) == 3
    assert costs(text="") == pytest.approx([own[1]] * 3, rel=1e-5)
    assert costs(text="red") == pytest.approx([own[2]] * 3, rel=1e-5)
    warnings = []
    opened_with = {"text": "slow " * 10_000, "warn": lambda message, **more: warnings.append(message)}
    assert len(set(costs(**opened_with))) == 1
    assert warnings == ["the text is cut: the model reads 512 ids of it"]
