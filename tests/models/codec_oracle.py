"""EnCodec models of the `encodec` package and of transformers, small or as published, with random weights that matter.

Fresh weights of either library say next to nothing of what they are given: signals die out in the decoder, and
codebooks are all zeros. Here each layer keeps the power of its input, and codebooks are as wide as what they quantise.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musictool.models.codec import CodecConfig
from musictool.models.registry import load_preset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchaudio's, of what it will drop
    encodec = pytest.importorskip("encodec")
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer

PUBLISHED = ("encodec-24khz", "encodec-48khz", "encodec-32khz", "personaljazz-48khz")
_NORMS = {"none": "weight_norm", "group": "time_group_norm"}


def small(preset: str) -> CodecConfig:
    """A codec like a published one, with little in it: 3 to 8 codebooks of 32 or 64 entries."""
    config: CodecConfig = load_preset(preset)
    codebooks = min(config.codebooks, 8)
    size = config.codebook_size // 32
    shrunk = replace(config, filters=4, width=16, codebooks=codebooks, codebook_size=size)
    rates = [levels * shrunk.kbps_of_codebook for levels in (1, 2, codebooks)]
    return replace(shrunk, bandwidths_kbps=tuple(rates))


def package_model(config: CodecConfig, seed: int = 0) -> Any:
    """The package's model of a configuration."""
    torch.manual_seed(seed)
    numbers: dict[str, Any] = {
        "channels": config.channels,
        "dimension": config.width,
        "n_filters": config.filters,
        "ratios": list(config.ratios),
        "n_residual_layers": config.residual_layers,
        "norm": _NORMS[config.norm],
        "kernel_size": config.kernel,
        "last_kernel_size": config.last_kernel,
        "causal": config.is_causal,
        "pad_mode": config.pad_mode,
        "true_skip": not config.has_shortcut,
        "lstm": config.lstm_layers,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of its weight norm
        encoder, decoder = SEANetEncoder(**numbers), SEANetDecoder(**numbers, trim_right_ratio=config.trim_right)
    quantizer = ResidualVectorQuantizer(config.width, config.codebooks, config.codebook_size)
    model = encodec.EncodecModel(
        encoder,
        decoder,
        quantizer,
        list(config.bandwidths_kbps),
        config.rate_hz,
        config.channels,
        normalize=config.normalises,
        segment=config.segment_seconds,
        overlap=config.overlap,
    ).eval()
    codebooks = [layer._codebook.embed for layer in quantizer.vq.layers]
    _enliven(model, codebooks, sound(config, config.rate_hz // 4, seed=99))
    return model


def transformers_model(config: CodecConfig, seed: int = 0) -> Any:
    """Hugging Face's model of a configuration."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    numbers = transformers.EncodecConfig(
        sampling_rate=config.rate_hz,
        audio_channels=config.channels,
        hidden_size=config.width,
        num_filters=config.filters,
        upsampling_ratios=list(config.ratios),
        num_residual_layers=config.residual_layers,
        norm_type=_NORMS[config.norm],
        use_causal_conv=config.is_causal,
        pad_mode=config.pad_mode,
        use_conv_shortcut=config.has_shortcut,
        num_lstm_layers=config.lstm_layers,
        trim_right_ratio=config.trim_right,
        codebook_size=config.codebook_size,
        target_bandwidths=list(config.bandwidths_kbps),
        normalize=config.normalises,
        chunk_length_s=config.segment_seconds,
        overlap=None if config.segment_seconds is None else config.overlap,
    )
    model = transformers.EncodecModel(numbers).eval()
    codebooks = [layer.codebook.embed for layer in model.quantizer.layers]
    _enliven(model, codebooks, sound(config, config.rate_hz // 4, seed=99))
    return model


def sound(config: CodecConfig, samples: int, seed: int = 1) -> Tensor:
    """Noise that swells and fades, with a tone in it; [1, C, N]."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.arange(samples) / config.rate_hz
    noise = torch.randn(1, config.channels, samples, generator=generator)
    return (0.2 * noise + 0.3 * torch.sin(2 * torch.pi * 440 * seconds)) * (0.6 + 0.4 * torch.sin(5 * seconds))


@torch.no_grad()
def _enliven(model: Any, codebooks: list[Tensor], audio: Tensor) -> None:
    """Give weights the size at which signals come through, and codebooks that of the model's latents."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            size = (module.kernel_size[0] / 4) ** 0.5 if isinstance(module, nn.ConvTranspose1d) else 1.0
            for name, gain in module.named_parameters():
                if name.endswith(("weight_g", "original0")):
                    gain.copy_(size * (1 + 0.3 * torch.rand_like(gain)))
    spread = model.encoder(audio / audio.std()).std()
    for level, entries in enumerate(codebooks):
        entries.copy_(torch.randn_like(entries) * spread * 0.8**level)
