# Completion of mtk, made by `python -m musictool.cli.completions`; changes here are lost.

_mtk() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb="" words="" options="" i
    if [[ $current == "=" ]]; then
        current=""
    elif [[ $previous == "=" ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --log)
                ((i++))
                [[ ${COMP_WORDS[i]} == "=" ]] && ((i++))
                ;;
            -*) ;;
            *)
                verb+=${verb:+ }${COMP_WORDS[i]}
                [[ "|models|data|eval|" == *"|$verb|"* ]] || break
                ;;
        esac
    done
    case "$verb $previous" in
        " --log") words="text json" ;;
        "tokenize --log") words="text json" ;;
        "decode --sample-format") words="s16le s16be s24le s24be s32le s32be u8 f32le f32be f64le f64be" ;;
        "decode --device") words="auto cpu cuda" ;;
        "decode --precision") words="fp32 bf16 int8" ;;
        "decode --log") words="text json" ;;
        "encode --sample-format") words="s16le s16be s24le s24be s32le s32be u8 f32le f32be f64le f64be" ;;
        "encode --device") words="auto cpu cuda" ;;
        "encode --precision") words="fp32 bf16 int8" ;;
        "encode --log") words="text json" ;;
        "transcribe --device") words="auto cpu cuda" ;;
        "transcribe --precision") words="fp32 bf16 int8" ;;
        "transcribe --log") words="text json" ;;
        "generate --device") words="auto cpu cuda" ;;
        "generate --precision") words="fp32 bf16 int8" ;;
        "generate --log") words="text json" ;;
        "transfer --device") words="auto cpu cuda" ;;
        "transfer --log") words="text json" ;;
        "validate --log") words="text json" ;;
        "describe --log") words="text json" ;;
        "train --device") words="auto cpu cuda" ;;
        "train --log") words="text json" ;;
        "finetune --device") words="auto cpu cuda" ;;
        "finetune --log") words="text json" ;;
        "monitor --log") words="text json" ;;
        "models --log") words="text json" ;;
        "models list --log") words="text json" ;;
        "models show --log") words="text json" ;;
        "models import --log") words="text json" ;;
        "models verify --log") words="text json" ;;
        "models export --format") words="native t5x huggingface encodec torch" ;;
        "models export --weights") words="float32 float16 bfloat16" ;;
        "models export --log") words="text json" ;;
        "models merge --log") words="text json" ;;
        "models pull --log") words="text json" ;;
        "data --log") words="text json" ;;
        "data synth --log") words="text json" ;;
        "data run --log") words="text json" ;;
        "data ingest --log") words="text json" ;;
        "data pairs --synthesizer") words="auto fluidsynth builtin" ;;
        "data pairs --log") words="text json" ;;
        "data loudness --log") words="text json" ;;
        "data separate --device") words="auto cpu cuda" ;;
        "data separate --log") words="text json" ;;
        "data windows --log") words="text json" ;;
        "data clips --log") words="text json" ;;
        "data augment --log") words="text json" ;;
        "data encode --device") words="auto cpu cuda" ;;
        "data encode --precision") words="fp32 bf16 int8" ;;
        "data encode --log") words="text json" ;;
        "data split --log") words="text json" ;;
        "eval --log") words="text json" ;;
        "eval transcription --granularity") words="full midi_class flat" ;;
        "eval transcription --device") words="auto cpu cuda" ;;
        "eval transcription --precision") words="fp32 bf16 int8" ;;
        "eval transcription --log") words="text json" ;;
        "eval symbolic --log") words="text json" ;;
        "eval audio --device") words="auto cpu cuda" ;;
        "eval audio --log") words="text json" ;;
        "eval tokens --device") words="auto cpu cuda" ;;
        "eval tokens --precision") words="fp32 bf16 int8" ;;
        "eval tokens --log") words="text json" ;;
        *)
            case $verb in
                "") words="tokenize decode encode transcribe generate transfer validate describe train finetune monitor models data eval" options="--help -h --version --debug --quiet -q --log" ;;
                "tokenize") words="" options="--output -o --scheme -s --names --show-vocab --style --augment --copies --from --seed --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "decode") words="" options="--output -o --format --raw --sample-format --scheme -s --soundfont --synthesizer --model --adapter --codebooks --rate --bits --latency --device --precision --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "encode") words="" options="--output -o --model -m --adapter --bandwidth --codebooks --latency --raw --rate --channels --sample-format --device --precision --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "transcribe") words="" options="--output -o --model -m --adapter --scheme -s --instruments --steady --no-steady --names --batch --device --precision --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "generate") words="" options="--output -o --model -m --adapter --text --style --melody --backing --key --tempo --chords --bars --duration --count -n --prompts --interactive --temperature --top-k --top-p --guidance --batch --names --seed --device --precision --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "transfer") words="" options="--output -o --style --mix --strength --keep --borrow --instruments --steps --guidance --eta --temperature --model -m --adapter --scheme -s --names --seed --device --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "validate") words="" options="--rules --set --json --good --bad --strict --scheme --jobs -j --shard --force -f --help -h --debug --quiet -q --log" ;;
                "describe") words="" options="--every --json --scheme --jobs -j --help -h --debug --quiet -q --log" ;;
                "train") words="" options="--output -o --preset --resume --dry-run --device --help -h --debug --quiet -q --log" ;;
                "finetune") words="" options="--data --model -m --adapter --lora --qlora --output -o --resume --dry-run --device --help -h --debug --quiet -q --log" ;;
                "monitor") words="" options="--watch -w --live --plot --metric --json --every --force -f --help -h --debug --quiet -q --log" ;;
                "models") words="list show import verify export merge pull" options="--help -h --debug --quiet -q --log" ;;
                "models list") words="" options="--json --help -h --debug --quiet -q --log" ;;
                "models show") words="" options="--json --help -h --debug --quiet -q --log" ;;
                "models import") words="" options="--as --preset --force -f --help -h --debug --quiet -q --log" ;;
                "models verify") words="" options="--preset --json --help -h --debug --quiet -q --log" ;;
                "models export") words="" options="--output -o --format --weights --force -f --help -h --debug --quiet -q --log" ;;
                "models merge") words="" options="--adapter --output -o --4-bit --force -f --help -h --debug --quiet -q --log" ;;
                "models pull") words="" options="--from --dry-run --force -f --help -h --debug --quiet -q --log" ;;
                "data") words="synth run ingest pairs loudness separate windows clips augment encode split" options="--help -h --debug --quiet -q --log" ;;
                "data synth") words="" options="--output -o --soundfont --programs --melody --monophonic --excerpt --per-piece --lag --tuning --transpose --velocity-spread --draw-pedal --drums --no-drums --augment --rate --leave-out --seed --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data run") words="" options="--output -o --set --jobs -j --force -f --help -h --debug --quiet -q --log" ;;
                "data ingest") words="" options="--output -o --rate --channels --bits --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data pairs") words="" options="--output -o --saxophones-only --on-chords --transpose --rate --channels --soundfont --synthesizer --seed --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data loudness") words="" options="--output -o --target --ceiling --limit --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data separate") words="" options="--output -o --model --stem --device --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data windows") words="" options="--output -o --threshold --frame --hop --least --part --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data clips") words="" options="--output -o --seconds --every --least --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data augment") words="" options="--output -o --semitones --tempo --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data encode") words="" options="--output -o --model -m --adapter --codebooks --device --precision --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "data split") words="" options="--output -o --fractions --seed --leave-out --group-by --extend --jobs -j --force -f --help -h --debug --quiet -q --log" ;;
                "eval") words="transcription symbolic audio tokens" options="--help -h --debug --quiet -q --log" ;;
                "eval transcription") words="" options="--reference -r --json --assert --plot --onset-tolerance --offset-ratio --offset-min-tolerance --duration --pedal --granularity --scheme --model -m --adapter --device --precision --jobs -j --force -f --help -h --debug --quiet -q --log" ;;
                "eval symbolic") words="" options="--reference -r --corpus --json --assert --scheme --jobs -j --help -h --debug --quiet -q --log" ;;
                "eval audio") words="" options="--reference -r --corpus --embeddings --json --assert --plot --mono --length-tolerance --device --jobs -j --force -f --help -h --debug --quiet -q --log" ;;
                "eval tokens") words="" options="--model -m --adapter --temperatures --continue --prompt-tokens --prompt-seconds --text --style --backing --against --limit --batch --seed --device --precision --json --output -o --plot --assert --force -f --help -h --debug --quiet -q --log" ;;
            esac
            [[ $current == -* ]] && words=$options
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _mtk mtk
