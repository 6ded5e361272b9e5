#!/usr/bin/env bash
# Recordings in another style: what was played, played anew, as token stream, MIDI and sound. Needs no network.
#
#   examples/in_another_style.sh STYLE FOLDER RECORDING…
#   examples/in_another_style.sh jazz out/ take1.flac take2.ogg
#
# The stages run side by side: while one recording is listened to, the one before is carried over.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 STYLE FOLDER RECORDING…" >&2
    exit 2
fi
style=$1 folder=$2
shift 2
mkdir -p "$folder"

mtk transcribe "$@" |
    mtk transfer --style "$style" |
    tee "$folder/$style.mtk" |
    mtk decode --force -o "$folder/{stem}.mid"
mtk decode --force "$folder/$style.mtk" -o "$folder/{stem}.wav"
