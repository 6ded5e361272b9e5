#!/bin/sh
# Teach the composer how one performer of the Weimar Jazz Database plays: adapters, and what they are worth.
#
#   performer.sh LISTS PERFORMER OUT [SECTION.KEY=VALUE]…
#
# LISTS      composing/lists/jazz, as ../symbolic-generator/prepare.sh writes it
# PERFORMER  the name of a folder of solos, such as wayne-shorter
# OUT        gets fold-1/, fold-2/, …: in each an adapter, run/best/, and reports on solos that it did not learn from
#
# MODEL is the composer, by default the one that ships; FOLDS is how often it is done, by default 4.
set -eu

lists=$1 performer=$2 out=$3
shift 3
here=$(dirname "$0")
model=${MODEL:-symbolic-generator} folds=${FOLDS:-4}

judge() {
    tr '\n' '\0' < "$1.txt" | xargs -0 mtk tokenize --scheme remi -o "$1.mtk" --force
    mtk eval tokens "$1.mtk" --model "$model" --style jazz --temperatures 1 --json > "$1-base.json"
    mtk eval tokens "$1.mtk" --model "$model" --style jazz --temperatures 1 --json --adapter "$2" > "$1-adapter.json"
}

for fold in $(seq "$folds"); do
    folder="$out/fold-$fold"
    python3 "$here/choose.py" "$lists" "$performer" "$fold/$folds" "$folder"
    mtk finetune --lora --model "$model" --data "jazz=$folder/train.txt" -o "$folder/run" --resume "$@"
    judge "$folder/own" "$folder/run/best"
    judge "$folder/others" "$folder/run/best"
done
python3 "$here/compare.py" "$out"
