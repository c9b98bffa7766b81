"""`import`: a checkpoint of any kind becomes weights in our own form, and a variant that names them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobilenet_export.errors import UsageError
from mobilenet_export.pipeline.download import fetch, find_download, is_published
from mobilenet_export.pipeline.evidence import printable
from mobilenet_export.pipeline.reference import class_names, open_checkpoint
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.scratch import scratch_folder
from mobilenet_export.spec import FILE_NAME, Given, ModelSpec, WeightsSpec, find_spec, spec_to_table

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import.

    Attributes:
        checkpoint: The file, or the name of published weights, such as `torchvision:mobilenet_v2`.
        out: Of the weights; the variant, the card and the class names lie beside it.
        spec: The variant that the checkpoint is said to be, at any size; None finds it.
        given: What the user says of it.
        card: Also write a card.
        licence: Of the weights; empty where it is not known.
        source: Who made them; empty where it is not known.
        labels: File of class names; None for the variant's.
        force: Replace files that are there.
    """

    checkpoint: Path
    out: Path
    spec: ModelSpec | None = None
    given: Given = field(default_factory=Given)
    card: bool = False
    licence: str = ""
    source: str = ""
    labels: Path | None = None
    force: bool = False

    @property
    def paths(self) -> dict[str, Path]:
        """Kind of file → its path, in the order of writing: once the variant is there, all is."""
        out = {
            "weights": self.out,
            "card": self.out.with_suffix(".md"),
            "labels": self.out.with_suffix(".txt"),
            "variant": self.out.with_suffix(".toml"),
        }
        asked = {"card": self.card, "labels": self.labels is not None}
        return {kind: path for kind, path in out.items() if asked.get(kind, True)}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made.

    Attributes:
        spec: The variant, with its weights.
        description: What the checkpoint was recognised as, in one line.
        files: Written, with their bytes.
    """

    spec: ModelSpec
    description: str
    files: Mapping[Path, bytes]


def import_checkpoint(request: ImportRequest, progress: Progress = silent) -> Imported:
    """Write a checkpoint's weights in our own form, with a variant, a card and class names.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend; nothing is left behind.
    """
    _check_places(request)
    origin = request.checkpoint.name
    request, known = _downloaded(request, progress)
    with Stages(progress)("load torch and import"):
        fitted = open_checkpoint(request.checkpoint, request.spec, request.given)
        from mobilenet_export.architectures.checkpoint import load_fitted, spell  # noqa: PLC0415 (imports torch)

        loaded = load_fitted(fitted)
    data = spell(loaded.module)
    names = class_names(fitted.spec, request.labels) if request.labels else ()
    own = request.paths["labels"].name if names else None
    name = request.out.stem
    weights = WeightsSpec(
        name=name,
        file=request.out.name,
        sha256=hashlib.sha256(data).hexdigest(),
        licence=request.licence or (known.licence if known else ""),
        source=request.source or (known.source if known else ""),
        card=request.paths["card"].name if request.card else "",
    )
    spec = dataclasses.replace(
        fitted.spec,
        name=name,
        alias=None,
        summary=f"read from {printable(origin)}: {fitted.title}",
        labels=own or (None if fitted.spec.home else fitted.spec.labels),
        parameters=sum(parameter.numel() for parameter in loaded.module.parameters()),
        macs=None,
        weights=weights,
    )
    contents = {
        "weights": data,
        "card": _card(spec, weights, fitted.checkpoint.sha256, fitted.description).encode(),
        "labels": "".join(f"{label}\n" for label in names).encode(),
        "variant": to_toml(spec).encode(),
    }
    files = {path: contents[kind] for kind, path in request.paths.items()}
    _write(files)
    return Imported(spec, fitted.description, files)


def _downloaded(request: ImportRequest, progress: Progress) -> tuple[ImportRequest, WeightsSpec | None]:
    """The request with published weights as its file, where it names some, and what is known of those."""
    if not is_published(str(request.checkpoint)):
        return request, None
    found = find_download(str(request.checkpoint))
    file = fetch(found, progress)
    spec = request.spec or find_spec(found.arch)
    return dataclasses.replace(request, checkpoint=file, spec=spec), found.weights


def _check_places(request: ImportRequest) -> None:
    if request.out.suffix != SUFFIX:
        raise UsageError(
            f"--out {request.out}: does not end in {SUFFIX}", f"--out {request.out.stem}{SUFFIX}"
        )
    if not FILE_NAME.fullmatch(request.out.stem):
        raise UsageError(f"--out {request.out}: no name for a variant", "start it with a letter or a digit")
    for path in request.paths.values():
        if path.exists() and not request.force:
            raise UsageError(f"{path} exists", "give --force to replace it, or another --out")
        for kind, own in (("checkpoint", request.checkpoint), ("labels", request.labels)):
            if own and own.exists() and path.exists() and path.samefile(own):
                raise UsageError(f"{path} is the {kind} itself", "give another --out")


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all files whole beside their places before the first takes its place."""
    folder = next(iter(files)).parent
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder, ".import-") as scratch:
        for path, data in files.items():
            (scratch / path.name).write_bytes(data)
        for path in files:
            (scratch / path.name).replace(path)


def to_toml(spec: ModelSpec) -> str:
    """Return a variant as TOML; `read_spec` reads it back."""
    table = spec_to_table(spec)
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    lines = [*_lines(plain)]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_lines(value)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        if value is not None and value != "":
            yield f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    """Spell a value; but for the character 127 JSON's spelling is TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _card(spec: ModelSpec, weights: WeightsSpec, origin_sha256: str, description: str) -> str:
    how = spec.preprocess
    rows = {
        "File": f"`{weights.file}`, {spec.parameters:,} parameters",
        "sha256": f"`{weights.sha256}`",
        "Origin": spec.summary,
        "sha256 of the origin": f"`{origin_sha256}`",
        "Recognised as": description,
        "Source": weights.source or "not stated",
        "Licence": weights.licence or "not stated; ask whoever made the weights before you pass them on",
    }
    return CARD.format(
        name=spec.name,
        network=f"{spec.architecture}, width {spec.width:g}, {spec.resolution_px} px, {spec.classes} classes.",
        table="\n".join(f"| {name} | {text} |" for name, text in rows.items()),
        how=how,
        pad=PADDINGS[spec.padding],
        eps=f"{spec.batch_norm_eps:g}",
        output=f"{spec.classes} {'probabilities' if spec.softmax else 'logits'}",
    )


CARD = """# {name}

{network}

| | |
|---|---|
{table}

Preprocessing: RGB, short side to {how.resize_px} px ({how.interpolation}), centre crop of {how.crop_px} px, x/255,
minus the mean {how.mean}, divided by the standard deviation {how.std}.
Convolutions of stride 2 pad {pad}; BatchNorm eps is {eps}. The output is {output}.

## What was changed
The container, the key names and the order of the axes; batch counters were left out. All other values are the
origin's, but that a BatchNorm that was folded into its convolution became one that only adds the bias.
"""

PADDINGS = {
    "symmetric": "symmetrically",
    "tensorflow": "as TensorFlow's SAME, a row below and a column on the right",
}
