"""What is wrong with a checkpoint is named, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor, broken, stored_in_memory
from musictool.checkpoints.verify import VerificationError, compare, examine

EXPECTED = {"a": (2, 3), "b": (4,), "c": ()}


def checkpoint(**tensors: torch.Tensor) -> Checkpoint:
    return Checkpoint(Path("x"), "torch", stored_in_memory(tensors))


def good() -> dict[str, torch.Tensor]:
    return {"a": torch.ones(2, 3), "b": torch.ones(4), "c": torch.tensor(1.0)}


def test_a_good_checkpoint_has_no_findings_and_gives_its_tensors():
    examined = examine(checkpoint(**good()), EXPECTED)
    assert examined.findings == []
    assert set(examined.tensors) == set(EXPECTED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_point_will_do(dtype):
    assert not examine(checkpoint(**{k: v.to(dtype) for k, v in good().items()}), EXPECTED).findings


def test_each_thing_wrong_is_named_once():
    tensors = good()
    del tensors["a"]
    tensors["b"] = torch.ones(2, 2)
    tensors["c"] = torch.tensor(float("nan"))
    tensors["d"] = torch.ones(7)
    examined = examine(checkpoint(**tensors), EXPECTED, stored_names={"a": "A"})
    told = {(f.problem, f.tensor, f.stored, f.expected, f.found) for f in examined.findings}
    assert told == {
        ("missing", "a", "A", "[2, 3]", ""),
        ("wrong shape", "b", "b", "[4]", "[2, 2]"),
        ("not finite", "c", "c", "", "1 of 1 values"),
        ("unexpected", "d", "d", "", "[7]"),
    }
    assert examined.tensors == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_counted(value):
    tensors = good()
    tensors["a"][1, 1:] = value
    (finding,) = examine(checkpoint(**tensors), EXPECTED).findings
    assert (finding.problem, finding.tensor, finding.found) == ("not finite", "a", "2 of 6 values")


def test_numbers_of_another_kind_are_found():
    (finding,) = compare(checkpoint(**good() | {"b": torch.ones(4, dtype=torch.int64)}), EXPECTED)
    assert (finding.problem, finding.found) == ("wrong type", "int64")


def test_numbers_are_read_only_where_the_shape_is_right():
    def explode() -> torch.Tensor:
        raise AssertionError("read")

    stored = StoredTensor("a", (1 << 30, 1 << 30), "float32", explode)
    whole = Checkpoint(Path("x"), "torch", {**checkpoint(**good()).tensors, "a": stored, "z": stored})
    assert [finding.problem for finding in examine(whole, EXPECTED).findings] == ["wrong shape", "unexpected"]


def test_a_tensor_that_cannot_be_read_is_named_with_the_reason():
    def fail() -> torch.Tensor:
        raise broken(Path("chunk"), "the chunk ends early")

    tensors = dict(checkpoint(**good()).tensors)
    tensors["a"] = StoredTensor("A", (2, 3), "float32", fail)
    unreadable = {"b": broken(Path("index"), "no shape"), "e": broken(Path("index"), "no dtype")}
    del tensors["b"]
    findings = examine(Checkpoint(Path("x"), "t5x", tensors, unreadable), EXPECTED).findings
    assert {(f.problem, f.tensor, f.found) for f in findings} == {
        ("unreadable", "a", "the chunk ends early (chunk)"),
        ("unreadable", "b", "no shape (index)"),
        ("unreadable", "e", "no dtype (index)"),
    }


@pytest.mark.parametrize(("copy", "problems"), [(torch.ones(4), []), (torch.zeros(4), ["copies differ"])])
def test_copies_have_to_hold_the_same_numbers(copy, problems):
    copies = {"b": list(stored_in_memory({"B": copy}).values())}
    assert [f.problem for f in examine(checkpoint(**good()), EXPECTED, copies=copies).findings] == problems


def test_the_error_counts_what_is_wrong_and_names_a_single_tensor():
    findings = compare(checkpoint(a=torch.ones(3)), EXPECTED)
    error = VerificationError.of(findings, 3, "x")
    assert error.message == "the checkpoint does not fit: 1 wrong shape, 2 missing, of 3 tensors"
    assert error.exit_status == 3
    assert error.findings == tuple(findings)
    single = VerificationError.of(findings[:1], 3, "x")
    assert single.message == "the checkpoint does not fit: wrong shape: a, expected [2, 3], found [3]"
