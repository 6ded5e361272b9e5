#!/bin/sh
# Judge a SaxGPT: what codes of held-out solos cost it, with their backing and without, and whether it plays what goes
# with a backing.
#
#   judge.sh MODEL CORPUS OUT
#
# CORPUS  what corpus.toml made
# OUT     gets sound, what is heard in it, and figures
#
# SECONDS_EACH (20) is how long each lead is; a held-out piece counts once.
set -eu

model=$1 corpus=$2 out=$3
here=$(dirname "$0")
seconds=${SECONDS_EACH:-20}
mkdir -p "$out/made" "$out/real" "$out/notes/made" "$out/notes/real" "$out/notes/backing"

lead=$corpus/split/test.lead.parquet backing=$corpus/split/test.backing.parquet
mtk eval tokens "$lead" --model "$model" --backing "$backing" -q --json >"$out/with-backing.json"
mtk eval tokens "$lead" --model "$model" -q --json >"$out/without.json"

sed -n 's,.*encode/lead/,,p' "$corpus/split/test.txt" | while IFS= read -r name; do
    cp "$corpus/encode/backing/$name.mid" "$out/notes/backing/$name.mid"
    mtk generate --model "$model" --backing "$corpus/loudness/backing/$name.flac" --duration "$seconds" -q |
        mtk decode -q -o "$out/made/$name.flac" --force
    mtk decode "$corpus/encode/lead/$name.mtk" -q -o "$out/real/$name.flac" --force
done
for side in made real; do
    mtk transcribe "$out/$side/" -q | mtk decode -q -o "$out/notes/$side/" --force
    python3 "$here/judge.py" "$out/notes/$side" "$out/notes/backing" --seconds "$seconds" >"$out/$side.json"
done
