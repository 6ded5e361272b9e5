"""Models made ready in every precision there is, and what is refused."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.cli.options import Precision
from musictool.errors import ResourceError, UsageError
from musictool.inference.codec_streaming import load_codec
from musictool.inference.codes_generation import generate_codes
from musictool.inference.precision import PrecisionName, make_ready
from musictool.models.musicgen import Conditions, MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig
from tests.small_models import install_codec

CPU = torch.device("cpu")
NEAR = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.05}


@pytest.fixture(scope="module")
def model() -> MusicGen:
    torch.manual_seed(0)
    text = TextEncoderConfig(vocabulary=50, width=20, heads=2, head_width=8, hidden=30, layers=1)
    return MusicGen(MusicGenConfig(width=64, heads=4, hidden=128, layers=3, codebook_size=40, text=text)).eval()


def test_the_command_line_knows_every_precision():
    assert [each.value for each in Precision] == list(get_args(PrecisionName))


@torch.inference_mode()
@pytest.mark.parametrize("precision", get_args(PrecisionName))
def test_a_decoder_made_ready_says_about_what_it_said(model, precision):
    ready = copy.deepcopy(model)
    assert make_ready(ready, CPU, precision) is ready
    conditions = ready.encode_text(torch.randint(0, 50, (2, 6)))
    ids = torch.randint(0, 40, (2, 4, 9))
    wanted = model(ids, Conditions(conditions.states, conditions.visible))
    away = (ready(ids, conditions) - wanted).std() / wanted.std()
    assert away < NEAR[precision]
    assert (away < 1e-5) == (precision == "fp32")
    assert len(list(generate_codes(ready, conditions, 5))) == 5


def test_eight_bits_are_refused_where_there_are_none(model, tmp_path):
    with pytest.raises(ResourceError, match="no int8 on cuda"):
        make_ready(copy.deepcopy(model), torch.device("cuda"), "int8")
    install_codec(tmp_path)
    with pytest.raises(UsageError, match="cannot run in int8"):
        load_codec("codec-24khz", "cpu", store=Store(tmp_path), precision="int8")
