"""Models and their files: what the store holds, put together with what the registry knows.

One file of over 500 lines, since reading, checking, exporting and loading share how a model and its files are matched.

Import, check, export, fetch and load. Knows no particular model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from musictool.checkpoints.adapters import Adapter, combined_sha256, read_adapter
from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor
from musictool.checkpoints.files import refuse_existing, remove, replacing
from musictool.checkpoints.hub import CONFIG_NAME, write_hub_folder
from musictool.checkpoints.inner_codec import codec_name_of, keep_codec
from musictool.checkpoints.native import (
    CODEC_KEYS,
    WEIGHTS_NAME,
    ModelFacts,
    copy_tokenizer,
    is_native,
    kept_codes,
    open_native,
    read_card,
    read_facts,
    weights_sha256,
    write_native,
)
from musictool.checkpoints.published import PublishedFile, PublishedModel
from musictool.checkpoints.store import InstalledModel, Store, is_path
from musictool.checkpoints.verify import Shape, TensorFinding, VerificationError, compare, examine
from musictool.errors import InputError, UsageError
from musictool.models.registry import (
    PRESETS,
    build_model,
    codec_within,
    config_from_dict,
    config_from_huggingface,
    config_to_dict,
    foreign_names,
    load_preset,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from musictool.checkpoints.names import NameMap

Layout = Literal["native", "t5x", "huggingface", "encodec", "torch"]
NumberName = Literal["float32", "float16", "bfloat16"]
LAYOUTS: tuple[Layout, ...] = ("native", "t5x", "huggingface", "encodec", "torch")


# ------------------------------------------------------------------------------------------------------------- loading


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use.

    Attributes:
        model: in eval mode, in float32, on the device that was asked for.
        config: its numbers.
        name: as it was asked for, or its folder's; with an adapter, `NAME+ADAPTER`.
        sha256: of its weights, in hexadecimal; with an adapter, a digest of both.
        path: the folder of its weights.
        source: where they come from, as its facts have it.
    """

    model: nn.Module
    config: Any
    name: str
    sha256: str
    path: Path = Path()
    source: Mapping[str, str] = field(default_factory=dict)


def load_model(name: str, device: str = "cpu", *, store: Store | None = None) -> LoadedModel:
    """Load a model.

    Weights are mapped into memory, not copied; a digest is not computed, which is what `verify_model` is for.

    Args:
        name: a model's name, or the path of a folder in our own format.
        device: torch's name for it.
        store: where to look, and whether an adapter is to be merged with the model; the process's own store by default.

    Raises:
        MissingError: there is no such model, or no peft for its adapter.
        InputError: its files are damaged or do not fit together.
        UsageError: the adapter is for another model.
    """
    found = (store or Store.from_environ(os.environ)).find(name)
    if found.adapter is not None:
        return _load_adapted(found, name, read_adapter(found.adapter), device)
    facts, config = _facts_and_config(found.path)
    model = _load_weights(found.path, config, name)
    model.to(device).eval()
    return LoadedModel(model, config, found.name, facts.weights_sha256, found.path, facts.source)


def _load_adapted(
    found: InstalledModel, name: str, adapter: Adapter, device: str = "cpu", *, is_rounded: bool = False
) -> LoadedModel:
    """A model with an adapter merged into its weights, as they are or rounded to 4 bits."""
    from musictool.inference.adapters import check_base, merge_adapter

    facts, config = _facts_and_config(found.path)
    check_base(adapter, found.name, facts.weights_sha256)
    if is_native(adapter.path):
        config = _facts_and_config(adapter.path)[1]  # training may have changed what is no weight
    model = _load_weights(found.path, config, name)
    if is_rounded:
        from musictool.inference.four_bits import round_to_4_bits

        round_to_4_bits(model)
    model = merge_adapter(model, adapter)
    digest = combined_sha256(facts.weights_sha256, adapter.sha256)
    model.to(device).eval()
    return LoadedModel(model, config, f"{found.name}+{adapter.name}", digest, found.path, facts.source)


def _load_weights(path: Path, config: Any, name: str) -> nn.Module:
    """A model whose weights are a file, mapped; it is asked for by a name."""
    model = build_bare(config)
    stored = open_native(path)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if findings := compare(stored, expected):
        raise VerificationError.of(findings, len(expected), str(path), f"mtk models verify {name}")
    tensors = {key: tensor.read().float() for key, tensor in stored.tensors.items()}
    model.load_state_dict(tensors, assign=True)
    return model


def build_bare(config: Any) -> nn.Module:
    """A model whose parameters are memory not yet touched; its buffers are computed as ever.

    Device `meta` would do for shapes, but leaves no buffers, and takes a second when it is first used.
    """
    from torch.overrides import TorchFunctionMode

    class WithoutInit(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if getattr(func, "__module__", None) == "torch.nn.init":
                return (kwargs or {}).get("tensor", args[0] if args else None)
            return func(*args, **(kwargs or {}))

    with WithoutInit():
        return build_model(config)


def _facts_and_config(path: Path) -> tuple[ModelFacts, Any]:
    facts = read_facts(path)
    try:
        return facts, config_from_dict({"family": facts.family, **facts.config}, str(path))
    except UsageError as error:
        raise InputError(error.message, context=error.context, hint=error.hint, code="bad-checkpoint") from error


def expected_shapes(config: Any) -> dict[str, Shape]:
    """The shapes of a model's tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in build_bare(config).state_dict().items()}


# ----------------------------------------------------------------------------------------------------- foreign layouts


@dataclass(frozen=True)
class _Reading:
    """A checkpoint of any format as one of a model's.

    Attributes:
        checkpoint: under our names.
        stored_names: what that layout calls our tensors, where the names differ.
        copies: of tensors that the file has more than once.
    """

    checkpoint: Checkpoint
    stored_names: dict[str, str] = field(default_factory=dict)
    copies: Mapping[str, Sequence[StoredTensor]] = field(default_factory=dict)


def _read_as(checkpoint: Checkpoint, config: Any, expected: Mapping[str, Shape]) -> _Reading:
    """Read a checkpoint's names in the layout that knows most of them."""
    names = [*checkpoint.names, *checkpoint.unreadable]
    layouts = foreign_names(config)
    known = {layout: name_map.known(names) for layout, name_map in layouts.items()}
    best = max(known, key=known.__getitem__, default="")
    if sum(name in expected for name in names) >= known.get(best, 0):
        return _Reading(checkpoint)
    translated, copies = layouts[best].to_ours(checkpoint)
    stored_names = {ours: _chief_name(layouts[best], ours) for ours in expected}
    return _Reading(translated, stored_names, copies)


def _chief_name(name_map: NameMap, ours: str) -> str:
    found = name_map.theirs(ours)
    return found[0][0] if found is not None else ""


def _taken_for(checkpoint: Checkpoint, preset: str | None, name: str = "") -> tuple[str, Any]:
    """What a checkpoint of another format is the weights of: what its own configuration says, where it has one.

    Args:
        checkpoint: it.
        preset: what it was said to be.
        name: what the model will be called.

    Returns:
        A preset's name, or the family's where it is none of them; and the configuration.

    Raises:
        UsageError: there is no such preset, or the checkpoint says that it is something else.
        InputError: its configuration makes no sense.
    """
    stated = config_from_huggingface(checkpoint.config, str(checkpoint.path / CONFIG_NAME))
    if stated is None:
        preset = preset or (name if name in PRESETS else _nearest_preset(checkpoint))
        return preset, load_preset(preset)
    if preset is None:
        return next((known for known in PRESETS if load_preset(known) == stated), stated.family), stated
    theirs, ours = config_to_dict(stated), config_to_dict(load_preset(preset))
    for key in theirs:
        if theirs[key] != ours.get(key):
            message = f"config.json says that it is no {preset}: {key} is {theirs[key]}, not {ours.get(key)}"
            raise UsageError(message, context=str(checkpoint.path), hint="leave out --preset", code="wrong-preset")
    return preset, stated


def _nearest_preset(checkpoint: Checkpoint) -> str:
    """The preset that a checkpoint differs least from."""
    names = [*checkpoint.names, *checkpoint.unreadable]
    configs = {preset: load_preset(preset) for preset in PRESETS}
    known = {
        preset: max((name_map.known(names) for name_map in foreign_names(config).values()), default=0)
        for preset, config in configs.items()
    }
    most = max(known.values())
    if most > len(names) / 2:  # in a foreign layout: no need to build what has none such
        configs = {preset: config for preset, config in configs.items() if known[preset] > most / 2}

    def differences(preset: str) -> int:
        expected = expected_shapes(configs[preset])
        return len(compare(_read_as(checkpoint, configs[preset], expected).checkpoint, expected))

    return min(configs, key=differences)


# -------------------------------------------------------------------------------------------------- import and verify


@dataclass(frozen=True)
class Verification:
    """What checking a model gave.

    Attributes:
        name: of the model, or the path.
        path: what was checked.
        format: how it is stored.
        preset: whose tensors it was held against.
        tensors: how many there should be.
        findings: what is wrong, one a tensor.
    """

    name: str
    path: Path
    format: str
    preset: str
    tensors: int
    findings: tuple[TensorFinding, ...]

    def raise_if_wrong(self) -> None:
        """Raise VerificationError if anything was found."""
        if self.findings:
            raise VerificationError.of(self.findings, self.tensors, str(self.path))


def verify_model(name: str, *, preset: str | None = None, store: Store) -> Verification:
    """Check every tensor of a model, and the digest of one in our own format.

    Args:
        name: a model's name, or else the path of a checkpoint of any format.
        preset: what a foreign checkpoint is held against; by default what it says itself, or the preset that is
            nearest to it.
        store: where to look.

    Raises:
        InputError: the files can't be read at all.
        MissingError: there is no such model.
        UsageError: there is no such preset.
    """
    if _is_foreign(name, store):
        from musictool.checkpoints.formats import open_checkpoint

        checkpoint = open_checkpoint(Path(name))
        return _verification(name, checkpoint, *_taken_for(checkpoint, preset))
    found = store.find(name)
    facts, config = _facts_and_config(found.path)
    result = _verification(name, open_native(found.path), facts.preset, config)
    digest = weights_sha256(found.path)
    if digest == facts.weights_sha256:
        return result
    changed = TensorFinding("changed", WEIGHTS_NAME, "", f"sha256 {facts.weights_sha256}", f"sha256 {digest}")
    return replace(result, findings=(changed, *result.findings))


def _is_foreign(name: str, store: Store) -> bool:
    """Whether a text means a checkpoint that is no model of ours: a path, or what no model here is called."""
    if is_path(name):
        return not is_native(Path(name))
    return Path(name).exists() and all(model.name != name for model in store.installed())


def _verification(name: str, checkpoint: Checkpoint, preset: str, config: Any) -> Verification:
    expected = expected_shapes(config)
    reading = _read_as(checkpoint, config, expected)
    examined = examine(reading.checkpoint, expected, stored_names=reading.stored_names, copies=reading.copies)
    return Verification(name, checkpoint.path, checkpoint.format, preset, len(expected), tuple(examined.findings))


def import_model(
    path: Path,
    name: str,
    *,
    preset: str | None = None,
    store: Store,
    force: bool = False,
    published: PublishedModel | None = None,
    remark: str = "",
) -> InstalledModel:
    """Bring a checkpoint of any format into the store, and with it the codec and the tokenizer that stand beside it.

    Args:
        path: the checkpoint.
        name: what the model will be called.
        preset: what it is the weights of; by default what the checkpoint itself says, the preset of that name, or the
            one that is nearest to it.
        store: where it goes.
        force: replace a model of that name.
        published: where the checkpoint was fetched from.
        remark: what to keep in mind of that.

    Raises:
        UsageError: there is a model of that name, or no such preset, or the checkpoint says that it is something else.
        VerificationError: tensors are missing, too many, of a wrong shape, not finite or unreadable; nothing is kept.
        InputError: the checkpoint can't be read at all.
    """
    from musictool.checkpoints.formats import open_checkpoint

    target = store.folder_for(name)
    refuse_existing(target, force=force)
    checkpoint = open_checkpoint(path)
    facts, config = _facts_for(checkpoint, name, preset, published)
    if remark:
        facts = replace(facts, source={**facts.source, "remark": remark})
    tensors = _checked_tensors(checkpoint, config)
    if (codec := codec_within(config, checkpoint)) is not None:
        facts = replace(facts, source={**facts.source, **_keep_codec(codec, config.codec, name, store, force)})
    card = (read_card(path) if checkpoint.format == "native" else "") or _card(name, facts, tensors)
    with replacing(target, force=force) as folder:
        folder.mkdir()
        write_native(folder, tensors, facts, card)
        if path.is_dir():
            copy_tokenizer(path, folder)
    return InstalledModel(name, target, "store")


def _checked_tensors(checkpoint: Checkpoint, config: Any) -> dict[str, Tensor]:
    """The tensors of a model, under our names.

    Raises:
        VerificationError: not all are there, or as they should be.
    """
    expected = expected_shapes(config)
    reading = _read_as(checkpoint, config, expected)
    examined = examine(reading.checkpoint, expected, stored_names=reading.stored_names, copies=reading.copies)
    if examined.findings:
        hint = "get the checkpoint again; nothing was imported"
        raise VerificationError.of(examined.findings, len(expected), str(checkpoint.path), hint)
    return {key: examined.tensors[key] for key in expected}


def _keep_codec(checkpoint: Checkpoint, preset: str, owner: str, store: Store, force: bool) -> dict[str, str]:
    """Check the codec of a folder and bring it into the store; what the model that it came with says of it."""
    name = preset or codec_name_of(owner)
    facts, config = _facts_for(checkpoint, name, preset or None, None)
    tensors = _checked_tensors(checkpoint, config)
    card = _card(name, facts, tensors)
    return keep_codec(tensors, facts, card, preset=preset, owner=owner, store=store, force=force)


def _facts_for(
    checkpoint: Checkpoint, name: str, preset: str | None, published: PublishedModel | None
) -> tuple[ModelFacts, Any]:
    """What a checkpoint is taken for, and where it comes from."""
    if checkpoint.format == "native" and preset is None:
        return _facts_and_config(checkpoint.path)
    preset, config = _taken_for(checkpoint, preset, name)
    values = config_to_dict(config)
    family = values.pop("family")
    source = {"format": checkpoint.format, "name": checkpoint.path.resolve().name}
    if published is not None:
        source = {"format": checkpoint.format, "url": published.url, "licence": published.licence}
        source["about"] = published.about
    return ModelFacts(family, preset, values, source=source), config


def _card(name: str, facts: ModelFacts, tensors: Mapping[str, Tensor]) -> str:
    """What is known of a model, for people."""
    lines = [f"# {name}", "", f"- family: {facts.family}, preset {facts.preset}"]
    lines.append(f"- parameters: {sum(tensor.numel() for tensor in tensors.values()):,}")
    lines += [f"- {key}: {value}" for key, value in facts.source.items()]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------- merge and export


def merge_model(
    name: str, adapter: Path, path: Path, *, is_rounded: bool = False, store: Store, force: bool = False
) -> None:
    """Write a model with an adapter merged into its weights, in our own format and in float32.

    Args:
        name: of the model that the adapter is for, or its path.
        adapter: its folder.
        path: the folder to write.
        is_rounded: merge it with the weights as 4 bits hold them, which is what an adapter of QLoRA was trained over.
        store: where to look.
        force: replace a folder in which there is nothing but a checkpoint.

    Raises:
        UsageError: the path is taken, or the adapter is for another model.
        MissingError: there is no such model, or peft is not installed.
        InputError: the adapter is damaged, or the model is.
    """
    from musictool.inference.adapters import changed_names

    refuse_existing(path, force=force)
    found, added = store.find(name), read_adapter(adapter)
    loaded = _load_adapted(found, name, added, is_rounded=is_rounded)
    base = read_facts(found.path)
    values = config_to_dict(loaded.config)
    family = values.pop("family")
    source = {"format": "mtk models merge", "name": loaded.name, "from": found.name, "from_sha256": base.weights_sha256}
    source |= {"adapter_sha256": added.sha256, **{key: base.source[key] for key in CODEC_KEYS if key in base.source}}
    source |= kept_codes(base, loaded.config, changed_names(added))
    facts = ModelFacts(family, base.preset, values, source=source)
    tensors = loaded.model.state_dict()
    with replacing(path, force=force) as folder:
        folder.mkdir()
        write_native(folder, tensors, facts, _card(path.resolve().name, facts, tensors))
        copy_tokenizer(found.path, folder)


def export_model(
    name: str, layout: Layout, path: Path, *, numbers: NumberName | None = None, store: Store, force: bool = False
) -> None:
    """Write a model for other libraries to read.

    Args:
        name: a model's name, or the path of a folder in our own format.
        layout: a folder in our own format, a T5X folder, a Hugging Face folder, or a torch file with the `encodec`
            package's names or with ours.
        path: the folder or file.
        numbers: what weights are written as; None for as they are.
        store: where to look.
        force: replace a file, or a folder in which there is nothing but a checkpoint.

    Raises:
        UsageError: the path is taken, the model has no such layout, or its weights are too large for such numbers.
        MissingError: there is no such model.
        InputError: its weights do not fit its configuration.
    """
    refuse_existing(path, force=force)
    found = store.find(name)
    facts, config = _facts_and_config(found.path)
    expected = expected_shapes(config)
    examined = examine(open_native(found.path), expected)
    if examined.findings:
        raise VerificationError.of(examined.findings, len(expected), str(found.path))
    name_map = foreign_names(config).get(layout)
    if name_map is None and layout not in ("native", "torch"):
        raise UsageError(f"a model of family {facts.family} like this has no {layout} layout", context=name)
    tensors = _stored_as(numbers, examined.tensors) if numbers else examined.tensors
    with replacing(path, force=force) as temporary:
        if layout == "native":
            temporary.mkdir()
            write_native(temporary, tensors, facts, read_card(found.path))
            copy_tokenizer(found.path, temporary)
        else:
            _write_foreign(layout, temporary, tensors, name_map)
        if layout == "huggingface":
            copy_tokenizer(found.path, temporary)


def _stored_as(numbers: NumberName, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in another number format."""
    import torch

    converted = {name: tensor.to(getattr(torch, numbers)) for name, tensor in tensors.items()}
    for name, tensor in converted.items():
        if not tensor.isfinite().all():
            raise UsageError(f"a weight is too large for {numbers}", context=name, hint="bfloat16 holds any weight")
    return converted


def _write_foreign(layout: Layout, path: Path, tensors: Mapping[str, Tensor], name_map: NameMap | None) -> None:
    named = tensors if name_map is None else name_map.to_theirs(tensors)
    if layout == "t5x":
        from musictool.checkpoints.t5x import write_t5x

        path.mkdir()
        write_t5x(path, named)
    elif layout == "huggingface" and name_map is not None:
        path.mkdir()
        write_hub_folder(path, named, name_map.config)
    else:
        from musictool.checkpoints.torch_files import write_torch_file

        write_torch_file(path, named)


# -------------------------------------------------------------------------------------------------------------- fetch


def fetch_model(
    published: PublishedModel, url: str, *, store: Store, force: bool = False
) -> Generator[int, None, None]:
    """Fetch a published model and import it; what was fetched is kept until that is done.

    Args:
        published: what to fetch.
        url: the folder that its files are in, the model's own or a mirror.
        store: where it goes.
        force: replace a model of that name.

    Yields:
        Counts of bytes as they come, as `download` does.

    Raises:
        InputError: a file can't be fetched or is not the one that was published.
        UsageError: there is a model of that name, or the address is none.
    """
    from musictool.checkpoints.download import download

    refuse_existing(store.folder_for(published.name), force=force)
    folder = store.downloads_for(published.name)
    fetched = yield from download(published.files, url, folder)
    import_model(
        folder if len(fetched) > 1 else folder / fetched[0].path,
        published.name,
        preset=published.preset,
        store=store,
        force=force,
        published=published,
        remark="; ".join(_doubt(known, came) for known, came in zip(published.files, fetched) if not known.is_known),
    )
    remove(folder)


def _doubt(known: PublishedFile, came: PublishedFile) -> str:
    """How far a file was checked of which not all is known."""
    digits = len(known.sha256)
    told = f"the first {digits} digits of its sha256 are known" if digits else "its sha256 is not known here"
    if len(came.sha256) > digits:
        return f"{known.path}: {told}, and the one that its server states was checked: {came.sha256}"
    return f"{known.path}: {told}, and its server states none"
