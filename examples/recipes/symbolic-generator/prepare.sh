#!/bin/sh
# Make the symbolic generator's training set: piano music with bars and beats in three styles, split by piece.
#
#   prepare.sh CORPORA OUT [HELD_OUT]
#
# CORPORA   a folder with pop909, pianomidi and wjazz, unpacked
# OUT       gets pieces/<style>/<artist>/<piece>.mid, and lists/<style>/{train,valid,test}.txt
# HELD_OUT  a text file with the names of further pieces to leave out
#
# SEED is that of the arrangements and of the split.
set -eu

corpora=$1 out=$2 held_out=${3:-}
here=$(dirname "$0")
seed=${SEED:-4}

rm -rf "$out/pieces" "$out/lists"
python3 "$here/piano_pieces.py" "$corpora" "$out/pieces" "$seed"

# The same pieces are on the same side as in the style transfer model's set.
split() {
    style=$1 fractions=$2
    shift 2
    mtk data split "$out/pieces/$style" -o "$out/lists/$style/" --fractions "$fractions" --seed "$seed" "$@"
}
split pop train=.86,valid=.03,test=.11
split classical train=.68,valid=.04,test=.28 \
    --leave-out "$here/../note-tagger/left-out.txt" ${held_out:+--leave-out "$held_out"}
split jazz train=.75,valid=.03,test=.22
