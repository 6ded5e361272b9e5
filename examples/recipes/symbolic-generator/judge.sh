#!/bin/sh
# Judge a symbolic generator: what a note of held-out pieces costs it, how like real openings its own are, and whether it
# quotes.
#
#   judge.sh MODEL COMPOSING OUT
#
# COMPOSING  what prepare.sh made
# OUT        gets corpora, samples and figures
set -eu

model=$1 composing=$2 out=$3
here=$(dirname "$0")
bars=32 count=100
mkdir -p "$out"

# Corpora of the pieces that a list names.
corpus() {
    folder=$(dirname "$1")
    grep -v '^#' "$1" | while IFS= read -r item; do
        echo "$folder/$item.mid"
    done | tr '\n' '\0' | xargs -0 mtk tokenize -s remi -q -o "$2" --force
}
for style in pop classical jazz; do
    corpus "$composing/lists/$style/test.txt" "$out/test-$style.parquet"
    corpus "$composing/lists/$style/train.txt" "$out/train-$style.parquet"
    mtk eval tokens "$out/test-$style.parquet" --model "$model" --style "$style" -q --json \
        >"$out/likelihood-$style.json"
done

# As many openings of each style, real ones and its own, 32 bars each.
rm -rf "$out/real" "$out/samples"
python3 "$here/openings.py" "$out/real" $bars $count \
    "$composing/lists/pop/test.txt" "$composing/lists/classical/test.txt" "$composing/lists/jazz/test.txt"
for style in pop classical jazz; do
    number=$(find "$out/real/$style" -name '*.mid' | wc -l)
    mtk generate --model "$model" --style "$style" --bars $bars --count "$number" --batch 8 -q -o "$out/$style.mtk" --force
    mtk decode "$out/$style.mtk" -q -o "$out/samples/$style/{stem}.mid" --force
    mtk eval symbolic "$out/samples/$style" --corpus "$out/real/$style" --json >"$out/likeness-$style.json"
done
mtk eval symbolic "$out/samples" --corpus "$out/real" --json >"$out/likeness.json"

# The longest run of ids and of notes that is in a training piece, too; of real openings beside it.
for set in samples real; do
    mtk tokenize "$out/$set" -s remi -q -o "$out/$set.parquet" --force
    mtk eval tokens "$out/$set.parquet" --against "$out/train-pop.parquet" --against "$out/train-classical.parquet" \
        --against "$out/train-jazz.parquet" -q --json >"$out/quotes-$set.json"
done
