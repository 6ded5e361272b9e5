#!/bin/sh
# Teach the published MT3 an instrument that it hardly knows, and keep the piano that it knows well.
#
#   finetune-instrument.sh PROGRAM MIDI PIANO FONT OUT [SECTION.KEY=VALUE]…
#
# PROGRAM   General MIDI number of the instrument, from 0
# MIDI      a folder of pieces for it; a fifth of them is kept for judging
# PIANO     a folder of piano pieces, so that nothing is forgotten
# FONT      a SoundFont
# OUT       the folder for pairs and the run
set -eu

program=$1 midi=$2 piano=$3 font=$4 out=$5
shift 5

mtk data synth "$midi" -o "$out/instrument/" --programs "$program" --soundfont "$font" --excerpt 60 --skip-existing
mtk data split "$out/instrument" -o "$out/instrument" --fractions train=.8,valid=.2
mtk data synth "$piano" -o "$out/piano/" --programs 0 --soundfont "$font" --excerpt 60 --skip-existing

mtk finetune --model mt3 --data "$out/instrument/train.txt" --data "$out/piano/" "data.shares=[1, 1]" \
    "data.valid=[\"$out/instrument/valid.txt\"]" -o "$out/run" "$@"
mtk monitor "$out/run"
