#!/bin/sh
# Make TatumFlow's training set: piano music in four styles, split by piece.
#
#   prepare.sh CORPORA OUT [HELD_OUT]
#
# CORPORA   a folder with pop909, pianomidi, wjazz and freedoom, unpacked
# OUT       gets train, valid and test, each with <style>/<artist>/<piece>.mid; the lists and what is left out lie beside
# HELD_OUT  a text file with the names of further pieces to leave out
#
# SEED is that of the arrangements and of the split.
set -eu

corpora=$1 out=$2 held_out=${3:-}
here=$(dirname "$0")
seed=${SEED:-4}

rm -rf "$out/pieces" "$out/lists" "$out/train" "$out/valid" "$out/test"
python3 "$here/prepare.py" "$corpora" "$out/pieces" "$seed"

# Into lists, then into folders. Pieces on no list, those left out and versions of them, stay in pieces.
split() {
    style=$1 fractions=$2
    shift 2
    mtk data split "$out/pieces/$style" -o "$out/lists/$style/" --fractions "$fractions" --seed "$seed" "$@"
    for side in train valid test; do
        grep -v '^#' "$out/lists/$style/$side.txt" | while IFS= read -r item; do
            item=${item#*pieces/}
            mkdir -p "$out/$side/${item%/*}"
            mv "$out/pieces/$item.mid" "$out/$side/$item.mid"
        done
    done
}
split pop train=.86,valid=.03,test=.11
split classical train=.68,valid=.04,test=.28 \
    --leave-out "$here/../note-tagger/left-out.txt" ${held_out:+--leave-out "$held_out"}
split jazz train=.75,valid=.03,test=.22
split game train=.76,valid=.05,test=.19
