"""Every verb of `mtk` and where it lives, so that help and completion import none of them.

A verb's name is one word, or two where it stands in a group: `mtk models list`.
"""

from __future__ import annotations

from typing import NamedTuple


class CommandEntry(NamedTuple):
    """Where a verb lives.

    Attributes:
        module: imported when the verb runs or shows its own help.
        attribute: the verb's function in that module.
        summary: one line for the help of what the verb stands in.
        examples: the name, in that module, of two command lines that run as they stand and end the verb's help.
    """

    module: str
    attribute: str
    summary: str
    examples: str = "EXAMPLES"


class GroupEntry(NamedTuple):
    """A word that other verbs follow.

    Attributes:
        summary: one line for `mtk --help`.
        examples: two command lines that run as they stand and end the group's help.
    """

    summary: str
    examples: tuple[str, str]


_MODELS = "musictool.commands.models"

COMMANDS: dict[str, CommandEntry] = {
    "tokenize": CommandEntry("musictool.commands.tokenize", "tokenize", "Turn MIDI files into a token stream."),
    "decode": CommandEntry("musictool.commands.decode", "decode", "Turn a token stream into MIDI files or sound."),
    "encode": CommandEntry("musictool.commands.encode", "encode", "Turn sound into a token stream of codes."),
    "transcribe": CommandEntry(
        "musictool.commands.transcribe", "transcribe", "Turn sound into a token stream of the notes in it."
    ),
    "generate": CommandEntry("musictool.commands.generate", "generate", "Make music: notes, or codes of sound."),
    "transfer": CommandEntry("musictool.commands.transfer", "transfer", "Carry pieces over to another style."),
    "validate": CommandEntry(
        "musictool.commands.validate", "validate", "Check MIDI, sound, token streams and corpora."
    ),
    "describe": CommandEntry("musictool.commands.describe", "describe", "Say what is going on in a piece, bar by bar."),
    "train": CommandEntry("musictool.commands.train", "train", "Train a model as a recipe says, or go on with it."),
    "finetune": CommandEntry(
        "musictool.commands.finetune", "finetune", "Go on with a model's weights, on data of your own."
    ),
    "monitor": CommandEntry("musictool.commands.monitor", "monitor", "Show how training runs stand."),
    "models list": CommandEntry(_MODELS, "list_models", "List presets and the models that are here.", "LIST_EXAMPLES"),
    "models show": CommandEntry(_MODELS, "show_model", "Show a model's parts, size and origin.", "SHOW_EXAMPLES"),
    "models import": CommandEntry(_MODELS, "import_model", "Bring a checkpoint into the store.", "IMPORT_EXAMPLES"),
    "models verify": CommandEntry(
        _MODELS, "verify_model", "Check that checkpoints hold what they should.", "VERIFY_EXAMPLES"
    ),
    "models export": CommandEntry(
        _MODELS, "export_model", "Write a model for other libraries to read.", "EXPORT_EXAMPLES"
    ),
    "models merge": CommandEntry(
        _MODELS, "merge_model", "Write a model with an adapter merged into its weights.", "MERGE_EXAMPLES"
    ),
    "models pull": CommandEntry(_MODELS, "pull_model", "Fetch a published model and import it.", "PULL_EXAMPLES"),
    "data synth": CommandEntry(
        "musictool.commands.data_synth", "data_synth", "Render MIDI into pairs of sound and exact notes."
    ),
    "data run": CommandEntry(
        "musictool.commands.data_run", "data_run", "Run the stages of a pipeline, or go on with them."
    ),
    "data ingest": CommandEntry(
        "musictool.commands.data_ingest", "data_ingest", "Bring recordings in, from files or addresses."
    ),
    "data pairs": CommandEntry(
        "musictool.commands.data_pairs", "data_pairs", "Play jazz solos on a saxophone beside their backing."
    ),
    "data loudness": CommandEntry(
        "musictool.commands.data_loudness", "data_loudness", "Make recordings equally loud (EBU R128)."
    ),
    "data separate": CommandEntry(
        "musictool.commands.data_separate", "data_separate", "Take mixes apart into a lead and its backing."
    ),
    "data windows": CommandEntry(
        "musictool.commands.data_windows", "data_windows", "Find where recordings are loud for long."
    ),
    "data clips": CommandEntry("musictool.commands.data_clips", "data_clips", "Cut windows or recordings into files."),
    "data augment": CommandEntry(
        "musictool.commands.data_augment", "data_augment", "Add versions in other keys and at other tempi."
    ),
    "data encode": CommandEntry(
        "musictool.commands.data_encode", "data_encode", "Turn clips into codes, parts together."
    ),
    "data split": CommandEntry(
        "musictool.commands.data_split", "data_split", "List items for training and test, a piece on one side only."
    ),
    "eval transcription": CommandEntry(
        "musictool.commands.eval_transcription", "eval_transcription", "Hold notes against the notes that were played."
    ),
    "eval symbolic": CommandEntry(
        "musictool.commands.eval_symbolic", "eval_symbolic", "Say what pieces are like, alone or beside others."
    ),
    "eval audio": CommandEntry(
        "musictool.commands.eval_audio", "eval_audio", "Hold sound against the sound it should be; judge codes."
    ),
    "eval tokens": CommandEntry(
        "musictool.commands.eval_tokens", "eval_tokens", "Say how well a model predicts pieces, and what they quote."
    ),
}

GROUPS: dict[str, GroupEntry] = {
    "models": GroupEntry(
        "Models: list, show, import, verify, export, merge, pull.", ("mtk models list", "mtk models show mt3")
    ),
    "data": GroupEntry(
        "Make what models learn from: stages that pipe, or run whole.",
        (
            "mtk data synth examples/waltz.mid -o pairs/ --force",
            "mtk data ingest examples/ -o raw/ --force | mtk data clips --seconds 5 -o clips/ --force",
        ),
    ),
    "eval": GroupEntry(
        "Judge results against references.",
        (
            "mtk tokenize examples/waltz.mid | mtk eval transcription --reference examples/",
            "mtk tokenize examples/waltz.mid --scheme mt3 | mtk eval transcription --reference examples/ --json",
        ),
    ),
}


def summaries(group: str = "") -> dict[str, str]:
    """List what may stand after `mtk`, or after a group, in the order of the registry.

    Args:
        group: a group's name; empty for `mtk` itself.

    Returns:
        The next word, and one line about the verb or group it names.
    """
    found = {}
    for name, entry in COMMANDS.items():
        first, _, second = name.partition(" ")
        if group:
            if first == group and second:
                found[second] = entry.summary
        else:
            found[first] = GROUPS[first].summary if second else entry.summary
    return found
