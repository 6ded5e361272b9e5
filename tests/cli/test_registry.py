"""The registry holds together: verbs and groups share one table of names."""

from __future__ import annotations

from musictool.cli.registry import COMMANDS, GROUPS, summaries


def test_each_group_has_verbs_and_each_verb_of_two_words_a_group():
    assert {name.split()[0] for name in COMMANDS if " " in name} == set(GROUPS)
    assert GROUPS.keys().isdisjoint(COMMANDS)
    assert all(len(name.split(" ")) <= 2 for name in COMMANDS)


def test_summaries_are_the_next_words_in_the_order_of_the_registry():
    top = summaries()
    assert list(top)[:2] == ["tokenize", "decode"]
    assert list(top) == list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    assert top["kit"] == "A kit of fakes."
    assert summaries("kit") == {name: f"Fake {name} of a kit." for name in ("copy", "fail", "findings")}


def test_a_summary_is_one_sentence_in_one_line():
    for entry in (*COMMANDS.values(), *GROUPS.values()):
        assert entry.summary.endswith(".")
        assert len(entry.summary) <= 60, entry.summary
