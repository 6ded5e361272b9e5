#!/bin/sh
# Render the training set of the note tagger: some 59 hours in seven collections.
#
#   prepare.sh CORPORA FONTS OUT [HELD_OUT]
#
# CORPORA   a folder with pianomidi, pop909, wjazz and freedoom, unpacked
# FONTS     a folder of SoundFonts (.sf2, .sf3); each voice is taken from those that have it in tune
# OUT       the folder for the collections
# HELD_OUT  a text file with the names of pieces to leave out
#
# SHARD=1/60 renders a sixtieth, to try it; JOBS and SEED are passed on.
set -eu

corpora=$1 fonts=$2 out=$3 held_out=${4:-}
here=$(dirname "$0")

seed=${SEED:-0}

set -- --tuning 15 --velocity-spread 14 --draw-pedal 0.5 --jobs "${JOBS:-0}" --skip-existing
[ -z "${SHARD:-}" ] || set -- "$@" --shard "$SHARD"

# Grand pianos, most of them the best there is, with a seed of their own.
pianos() {
    mtk data synth "$@" --seed $((seed + 1)) --lag 0:40 --transpose 5 --programs 0 \
        --soundfont "$fonts/salamander-grand.sf2:6" --soundfont "$fonts/tj-piano.sf2:2" \
        --soundfont "$fonts/musescore-general-hq-0.2.1.sf3:2" --soundfont "$fonts/fluidr3-gm.sf2" \
        --soundfont "$fonts/generaluser-gs-1.47.sf2"
}
pianos "$corpora/pianomidi/midis" -o "$out/grands/" "$@" ${held_out:+--leave-out "$held_out"} --per-piece 3 --excerpt 60
pianos "$corpora/pop909" -o "$out/grands-pop/" "$@" --excerpt 30

# Everything, on every font.
set -- "$@" --seed "$seed"
for font in "$fonts"/*.sf[23]; do
    case $font in
        *salamander*) set -- "$@" --soundfont "$font:4" ;;
        *) set -- "$@" --soundfont "$font" ;;
    esac
done

python3 "$here/wjazz_to_midi.py" "$corpora/wjazz" "$out/wjazz-midi"

mtk data synth "$corpora/pianomidi/midis" -o "$out/classical/" "$@" \
    ${held_out:+--leave-out "$held_out"} --per-piece 3 --excerpt 60 --lag 0:40 --transpose 5 \
    --programs 0-1:12,2-5:2,6-7:1,24-27:4,46:1,16-21:2,40-44:1,48-49:1

mtk data synth "$corpora/pop909" -o "$out/pop/" "$@" --excerpt 30 --lag 0:40 --transpose 5 \
    --programs 0-1:8,2-5:3,24-28:5,48-49:1,52-53:1,19-23:1,11:1

mtk data synth "$out/wjazz-midi" -o "$out/solos/" "$@" --excerpt 40 --lag 0:15 --transpose 6 --melody \
    --programs 64-67:4,56:2,57:1,40:4,73:2,52-54:3,22:2,71:2,11:1,26:1

mtk data synth "$corpora/pop909" -o "$out/melodies/" "$@" --excerpt 30 --lag 0:15 --transpose 6 --melody \
    --programs 40:5,41-42:1,52-53:5,22:4,73:3,24-27:3,68:1,71:1,0:1

mtk data synth "$corpora/freedoom" -o "$out/bands/" "$@" --per-piece 2 --excerpt 60 --lag 0:20 --transpose 3
