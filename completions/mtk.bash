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
            --log) ((i++)) ;;
            -*) ;;
            *) verb=${COMP_WORDS[i]} && break ;;
        esac
    done
    case "$verb $previous" in
        " --log") words="text json" ;;
        "tokenize --log") words="text json" ;;
        "decode --log") words="text json" ;;
        "validate --log") words="text json" ;;
        *)
            case $verb in
                "") words="tokenize decode validate" options="--help -h --version --debug --quiet -q --log" ;;
                "tokenize") words="" options="--output -o --scheme -s --names --show-vocab --style --augment --copies --from --seed --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "decode") words="" options="--output -o --format --scheme -s --soundfont --synthesizer --rate --bits --jobs -j --shard --force -f --skip-existing --help -h --debug --quiet -q --log" ;;
                "validate") words="" options="--rules --set --json --good --bad --strict --scheme --jobs -j --shard --force -f --help -h --debug --quiet -q --log" ;;
            esac
            [[ $current == -* ]] && words=$options
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _mtk mtk
