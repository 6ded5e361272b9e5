#!/bin/sh
# Make the corpus of the 24 kHz codec: recordings out of Debian packages, and renderings of free MIDI.
#
#   prepare.sh CORPORA FONTS OUT [HELD_OUT]
#
# CORPORA   a folder with pianomidi, pop909, wjazz, groove and freedoom, unpacked
# FONTS     a folder with the SoundFonts that the note tagger's recipe names
# OUT       the folder for train, valid and test; packages are kept in OUT/debs
# HELD_OUT  a text file with the names of pieces to leave out
#
# Runs again from where it stopped. JOBS and SEED are passed on to the rendering. Needs apt-get and dpkg-deb.
set -eu

corpora=$1 fonts=$2 out=$3 held_out=${4:-}
here=$(dirname "$0")

mkdir -p "$out/debs"
python3 "$here/debian_packages.py" download "$here/packages.toml" "$out" | (cd "$out/debs" && xargs -r apt-get download)
python3 "$here/gather.py" "$here/packages.toml" "$out"

render() { # split, name, then what `mtk data synth` takes
    folder=$out/$1/rendered-$2
    shift 2
    mtk data synth "$@" -o "$folder/" --rate 24000 --excerpt 30 --velocity-spread 10 --tuning 15 \
        --jobs "${JOBS:-0}" --seed "${SEED:-0}" --skip-existing
}

everything() {
    render "$@" --soundfont "$fonts/fluidr3-gm.sf2" --soundfont "$fonts/musescore-general-hq-0.2.1.sf3" \
        --soundfont "$fonts/generaluser-gs-1.47.sf2"
}

piano() {
    render "$@" --transpose 5 --programs 0 --draw-pedal 0.5 ${held_out:+--leave-out "$held_out"} \
        --soundfont "$fonts/salamander-grand.sf2:6" --soundfont "$fonts/tj-piano.sf2:2" \
        --soundfont "$fonts/musescore-general-hq-0.2.1.sf3" --soundfont "$fonts/fluidr3-gm.sf2"
}
midis=$corpora/pianomidi/midis
piano train piano "$midis"/[A-FH-QS]* "$midis"/Gr*
piano valid piano "$midis/Tchaikovsky"
piano test piano "$midis/Ravel" "$midis/Rachmaninoff"

drums() { everything "$@"; }
drums train drums "$corpora"/groove/groove/drummer[1-8]/*/*_beat_*.mid
drums valid drums "$corpora/groove/groove/drummer9"
drums test drums "$corpora/groove/groove/drummer10"

bands() { everything "$@" --transpose 3; }
bands train bands "$corpora"/freedoom/musics/d_[a-ln-z]*.mid "$corpora"/freedoom/musics/d_map[12]?.mid
bands valid bands "$corpora"/freedoom/musics/d_map0[1-5].mid
bands test bands "$corpora"/freedoom/musics/d_map0[6-9].mid

pop() { everything "$@" --transpose 5 --programs 0-7:3,11:1,16-23:2,24-31:5,46:1,48-54:2,80-89:2; }
pop train pop "$corpora"/pop909/[1-9]??.mid --shard 1/3
pop valid pop "$corpora"/pop909/00?.mid
pop test pop "$corpora"/pop909/01?.mid

[ -d "$out/wjazz-midi" ] || python3 "$here/../note-tagger/wjazz_to_midi.py" "$corpora/wjazz" "$out/wjazz-midi"
solo() {
    set -- "$@" --transpose 6 --melody --programs 27:1,40:3,42:2,46:1,56:2,57:1,60:1,65:3,70:1,71:2,73:2,24-25:2,20:1
    for font in "$fonts"/tj-*.sf2; do set -- "$@" --soundfont "$font"; done
    render "$@" --soundfont "$fonts/musescore-general-hq-0.2.1.sf3:2"
}
solo train solos "$out"/wjazz-midi/[A-V]*.mid
solo valid solos "$out"/wjazz-midi/Wo*.mid
solo test solos "$out"/wjazz-midi/W[a-n]*.mid

python3 "$here/debian_packages.py" lists "$here/packages.toml" "$out"
