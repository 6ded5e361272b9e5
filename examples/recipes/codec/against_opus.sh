#!/usr/bin/env bash
# The codec that ships beside Opus at the same bit rate: both distances of each, on recordings that it has not seen.
#
#   against_opus.sh FOLDER OUT [MODEL]
#
# FOLDER   recordings, of any rate and channels; both codecs get them at 24 kHz, mono, 16 bit
# OUT      a folder for what both make of them, and for spectrograms
# MODEL    the codec; codec-24khz by default
#
# OPUSENC is the encoder, opusenc of Debian's opus-tools by default; OPUS_OPTIONS what it gets beside the bit rate, by
# default long frames, which it codes best at 6 kbit/s and whose container costs least. Bit rates of Opus are those of
# whole files; that of the codec stands with its codes, which come last.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 FOLDER OUT [MODEL]" >&2
    exit 2
fi
folder=$1 out=$2 model=${3:-codec-24khz}
opusenc=${OPUSENC:-opusenc}

python3 - "$folder" "$out/reference" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import soundfile

from musictool.audio.checks import AUDIO_SUFFIXES
from musictool.audio.reading import mono_blocks, open_audio

folder, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES):
    with open_audio(path) as reader:
        sound = np.concatenate(list(mono_blocks(reader, 24_000)))
    soundfile.write(out / f"{path.stem}.wav", sound.clip(-1, 1), 24_000, subtype="PCM_16")
PYTHON

mkdir -p "$out/opus"
for sound in "$out"/reference/*.wav; do
    # shellcheck disable=SC2086  # options are words
    "$opusenc" --quiet --bitrate 6 ${OPUS_OPTIONS:---framesize 60} "$sound" "$out/opus/$(basename "$sound" .wav).opus"
done
echo "Opus at 6 kbit/s"
mtk eval audio "$out/opus/" --reference "$out/reference/" --plot "$out/spectrograms-opus/" --force

for codebooks in 1 2 4 8; do
    echo
    echo "$model, $codebooks codebooks"
    codes=$out/codes-$codebooks.mtk sounds=$out/decoded-$codebooks
    mtk encode "$out/reference/" --model "$model" --codebooks "$codebooks" -o "$codes" --force
    mtk decode "$codes" --model "$model" -o "$sounds/{name}.wav" --force
    mtk eval audio "$sounds/" --reference "$out/reference/" --plot "$out/spectrograms-$codebooks/" --force
done
echo
echo "codes of $model"
mtk eval audio "$codes"
