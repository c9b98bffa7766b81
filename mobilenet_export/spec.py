"""A variant: everything that is true of one model before any weight is loaded, read from `models/*.toml`."""

import dataclasses
import difflib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from mobilenet_export.documents import parse_toml
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.shipped import shipped_path

Padding = Literal["symmetric", "tensorflow"]
"""Of a stride-2 convolution: (1, 1) on every side as in torch, or TensorFlow's SAME, (0, 1) on even sizes."""

MOST_CLASSES = 100_000
OWN_ONNX = "onnx"
"""The architecture of a network that was read from a user's ONNX file."""
SMALLEST_PX, LARGEST_PX, STRIDE_PX = 96, 320, 32
SMALLEST_WIDTH, LARGEST_WIDTH = 0.25, 1.4
_LARGEST_OWN_PX = 4096
"""Of a user's own ONNX file, and of any picture before its crop."""
_MOST = 1e300
FILE_NAME = re.compile(r"[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]{0,150}")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a photo becomes the network's input: resize short side, crop centre, `(x/255 - mean)/std`."""

    resize_px: int
    crop_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """A variant's weights, and what is known of them.

    Attributes:
        name: Of the weights.
        file: In `home`; of those that ship in `models/weights/`.
        sha256: Of the file.
        licence: SPDX name; empty where it is not known.
        source: Who made them; empty where it is not known.
        card: Notice to pass on with them, in `home` or `models/`; empty where there is none.
        top1_percent: As published on ImageNet.
        top1_source: Of that figure.
        home: Folder of weights that do not ship: the one of the variant's TOML. It is never written down.
    """

    name: str
    file: str
    sha256: str
    licence: str = ""
    source: str = ""
    card: str = ""
    top1_percent: float | None = None
    top1_source: str = ""
    home: Path | None = None

    @property
    def path(self) -> Path:
        """Of the file.

        Raises:
            MissingError: It is one that ships, and it is not there.
        """
        return self.home / self.file if self.home else shipped_path("models", "weights", self.file)

    @property
    def card_path(self) -> Path | None:
        """Of the notice; None where there is none.

        Raises:
            MissingError: It is one that ships, and it is not there.
        """
        if not self.card:
            return None
        return self.home / self.card if self.home else shipped_path("models", self.card)


@dataclass(frozen=True, slots=True)
class Limits:
    """The gate's numbers, and the run that set them; `None` where no run has set one."""

    fp32_sqnr_db: float | None = None
    fp16_sqnr_db: float | None = None
    int8_sqnr_db: float | None = None
    int8_agreement_percent: float | None = None
    run: str = ""


OTHER_LIMITS = Limits(
    fp32_sqnr_db=100.0,
    fp16_sqnr_db=45.0,
    run="random weights: fp32 103 dB or more on 24 sizes of V1 and V2, fp16 49 dB or more on 6",
)
"""Of networks that no run has measured: other sizes, and weights of the user's own."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model variant; see `models/*.toml`.

    Attributes:
        name: Of the variant; file names are made of it.
        summary: One line; of a tutorial's variant, how it differs from the paper.
        architecture: Row in the table of `architectures`.
        width: Width multiplier.
        resolution_px: Height and width of the input.
        classes: How many.
        labels: File of class names under `models/` or beside the TOML, one a line; None where they have no names.
        padding: Of the stride-2 convolutions.
        batch_norm_eps: Added to the variance before the square root.
        preprocess: From photo to input.
        alias: Short name for the command line.
        softmax: Whether the network ends in probabilities, not in logits.
        fixed_resolution: Whether only `resolution_px` fits the network.
        parameters: Trainable numbers.
        macs: Multiply-accumulates of one image in the convolutions and the linear layer.
        weights: Published ones that ship with it.
        limits: Of the gate.
        home: Folder of the labels; None where they ship.
    """

    name: str
    summary: str
    architecture: str
    width: float
    resolution_px: int
    classes: int
    labels: str | None
    padding: Padding
    batch_norm_eps: float
    preprocess: Preprocess
    alias: str | None = None
    softmax: bool = False
    fixed_resolution: bool = False
    parameters: int | None = None
    macs: int | None = None
    weights: WeightsSpec | None = None
    limits: Limits = Limits()
    home: Path | None = None

    @property
    def labels_path(self) -> Path | None:
        """Of the class names; None where there are none.

        Raises:
            MissingError: They are some that ship, and are not there.
        """
        if self.labels is None:
            return None
        return self.home / self.labels if self.home else shipped_path("models", self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (channels, height, width)."""
        return (3, self.resolution_px, self.resolution_px)


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of the network that a checkpoint is for; the checkpoint tells what is None.

    Attributes:
        width: A checkpoint of another width is refused.
        resolution_px: No checkpoint but an ONNX file tells it.
        classes: A checkpoint of another number of classes is refused.
        padding: Whatever the checkpoint's layout is trained with.
        batch_norm_eps: Whatever the checkpoint's layout is trained with.
        mean: Of pixels in 0…1, whatever the checkpoint's layout is trained with.
        std: Of pixels in 0…1, whatever the checkpoint's layout is trained with.
    """

    width: float | None = None
    resolution_px: int | None = None
    classes: int | None = None
    padding: Padding | None = None
    batch_norm_eps: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, spec: ModelSpec) -> "Given":
        """All that there is to say, as it stands in a variant that is decided."""
        return cls(
            spec.width,
            spec.resolution_px,
            spec.classes,
            spec.padding,
            spec.batch_norm_eps,
            spec.preprocess.mean,
            spec.preprocess.std,
        )


def spec_paths() -> tuple[Path, ...]:
    """Return the shipped variants' TOML files, sorted by name."""
    return tuple(sorted(shipped_path("models").glob("*.toml")))


def find_spec(name: str) -> ModelSpec:
    """Return the variant of that name or alias, or read it from a path that ends in `.toml`.

    Raises:
        UsageError: No such variant; the hint names the nearest.
        DamagedInputError: The TOML is not one of a variant.
    """
    if name.endswith(".toml"):
        return read_spec(Path(name))
    specs = [read_spec(path) for path in spec_paths()]
    for spec in specs:
        if name in (spec.name, spec.alias):
            return spec
    aliases = [spec.alias for spec in specs if spec.alias]
    raise unknown_name("arch", name, [*aliases, *(spec.name for spec in specs)])


def read_spec(path: Path) -> ModelSpec:
    """Read a variant from a TOML file.

    Raises:
        UsageError: There is no such file.
        DamagedInputError: It is not TOML, or a field is missing, unknown, of the wrong type or out of range.
    """
    try:
        table = parse_toml(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", "`mnx models` lists the shipped variants") from None
    except (OSError, ValueError) as error:
        raise DamagedInputError(
            f"{path}: not a readable TOML file: {error}", "compare models/*.toml"
        ) from None
    try:
        return _at_home(spec_from_table(table), path.parent)
    except (TypeError, ValueError, KeyError) as error:
        reason = f"missing field {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedInputError(f"{path}: {reason}", "compare the fields of models/*.toml") from None
    except UsageError as error:
        raise DamagedInputError(f"{path}: {error.message}", error.hint) from None


def _at_home(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Return the variant with weights and labels that do not ship looked for beside its TOML."""
    models = shipped_path("models")
    if spec.weights and not (models / "weights" / spec.weights.file).is_file():
        spec = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, home=folder))
    if spec.labels and not (models / spec.labels).is_file():
        spec = dataclasses.replace(spec, home=folder)
    return spec


def spec_from_table(table: dict[str, Any]) -> ModelSpec:
    """Build a variant from its TOML table (or from what `spec_to_table` made of one).

    Raises:
        KeyError, TypeError, ValueError: A field is missing, unknown or of the wrong type.
        UsageError: The resolution is out of range.
    """
    parts = dict(table)
    preprocess = {"crop_px": parts["resolution_px"], **parts["preprocess"]}
    for name in ("mean", "std"):
        preprocess[name] = channels(name, preprocess[name])
    parts["preprocess"] = _record(Preprocess, preprocess, "preprocess.")
    if "weights" in parts:
        parts["weights"] = _record(WeightsSpec, parts["weights"], "weights.")
    parts["limits"] = _record(Limits, parts.get("limits", {}), "limits.")
    spec: ModelSpec = _record(ModelSpec, {"labels": None, **parts}, "")
    check_resolution(spec, spec.resolution_px)
    _check_ranges(spec)
    return spec


def channels(name: str, values: Any) -> tuple[float, ...]:
    """Return `mean` or `std` of a table's preprocess.

    Raises:
        ValueError: It is not three numbers.
    """
    numbers = tuple(values) if isinstance(values, list | tuple) else ()
    fits = len(numbers) == 3 and all(_is_of_type(number, float) for number in numbers)
    if not fits or (name == "std" and min(numbers) <= 0):
        raise ValueError(f"preprocess.{name} must be 3 numbers, one per RGB channel, std above 0")
    return tuple(map(float, numbers))


def _record(kind: Any, table: dict[str, Any], where: str) -> Any:
    """Build a frozen value from a table; refuse unknown and missing names and values of another type."""
    fields = {entry.name: entry for entry in dataclasses.fields(kind) if entry.name != "home"}
    if not isinstance(table, dict):
        raise TypeError(f"{where.rstrip('.')} must be a table")
    for name, value in table.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise ValueError(
                f"unknown field {where}{name}" + (f", did you mean {where}{near[0]}?" if near else "")
            )
        if not _is_of_type(value, fields[name].type):
            raise TypeError(f"{where}{name} must be {_type_name(fields[name].type)}")
    for name, entry in fields.items():
        if name not in table and entry.default is dataclasses.MISSING:
            raise KeyError(where + name)
    return kind(**table)


def _is_of_type(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple)
    if isinstance(kind, UnionType):
        return any(_is_of_type(value, option) for option in get_args(kind))
    if kind is not bool and isinstance(value, bool):
        return False
    if kind is float:  # also an int, but neither NaN nor what no float holds
        return isinstance(value, int | float) and -_MOST < value < _MOST
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if isinstance(kind, UnionType):
        return _type_name(get_args(kind)[0])
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a table")


def _check_ranges(spec: ModelSpec) -> None:
    if not SMALLEST_WIDTH <= spec.width <= LARGEST_WIDTH:
        raise ValueError(f"width must be within {SMALLEST_WIDTH} to {LARGEST_WIDTH}")
    if not FILE_NAME.fullmatch(spec.name):
        raise ValueError("name must be able to be a file's")
    if not 2 <= spec.classes <= MOST_CLASSES:
        raise ValueError(f"classes must be within 2 to {MOST_CLASSES:,}")
    if not 0 < spec.batch_norm_eps < 1:
        raise ValueError("batch_norm_eps must be above 0 and below 1")
    if spec.preprocess.crop_px != spec.resolution_px:
        raise ValueError("preprocess.crop_px must be resolution_px")
    if spec.preprocess.resize_px < spec.preprocess.crop_px:
        raise ValueError("preprocess.resize_px must not be smaller than the crop")
    if not 1 <= spec.resolution_px <= spec.preprocess.resize_px <= _LARGEST_OWN_PX:
        raise ValueError(f"resolution_px and preprocess.resize_px must be within 1 to {_LARGEST_OWN_PX}")
    for name in (spec.labels, *((spec.weights.file, spec.weights.card or None) if spec.weights else ())):
        if name is not None and not is_inside(name):
            raise ValueError(f"{name!r} lies outside models/")


def is_inside(name: Any) -> bool:
    """Whether a name, with `/`, is of a file in the folder that it is relative to, or below."""
    return isinstance(name, str) and (
        "\0" not in name
        and "\\" not in name
        and not PurePosixPath(name).is_absolute()
        and PurePosixPath(name).parts != ()
        and ".." not in PurePosixPath(name).parts
    )


def spec_to_table(spec: ModelSpec) -> dict[str, Any]:
    """Return the variant as a JSON- and TOML-able table; `spec_from_table` reads it back."""
    table = dataclasses.asdict(spec)
    del table["home"]
    if spec.weights:
        del table["weights"]["home"]
    return {name: value for name, value in table.items() if value is not None}


def check_resolution(spec: ModelSpec, resolution_px: int) -> None:
    """Refuse an input size that the architecture has no clean feature map for; a user's ONNX file has its own.

    Raises:
        UsageError: Not 96 to 320 px in steps of 32, or the network's pooling window fixes another size.
    """
    if spec.architecture == OWN_ONNX:
        return
    if spec.fixed_resolution and resolution_px != spec.resolution_px:
        raise UsageError(
            f"{spec.name} takes {spec.resolution_px} px only, not {resolution_px}: it pools 7×7",
            f"leave --resolution out, or set it to {spec.resolution_px}",
        )
    if resolution_px % STRIDE_PX or not SMALLEST_PX <= resolution_px <= LARGEST_PX:
        raise UsageError(
            f"resolution {resolution_px} px is not {SMALLEST_PX} to {LARGEST_PX} in steps of {STRIDE_PX}",
            "choose one of " + ", ".join(map(str, range(SMALLEST_PX, LARGEST_PX + 1, STRIDE_PX))),
        )


def resize_spec(
    spec: ModelSpec, width: float | None, resolution_px: int | None, classes: int | None
) -> ModelSpec:
    """Return the variant at another width multiplier, input size in px, or number of classes.

    The resize of the preprocessing keeps its ratio to the crop. What was published or measured for the
    original (weights at another width, labels of other classes, limits, counts) is dropped where it no longer
    holds.

    Raises:
        UsageError: The resolution is out of range.
    """
    new_width = spec.width if width is None else width
    new_px = spec.resolution_px if resolution_px is None else resolution_px
    new_classes = spec.classes if classes is None else classes
    if (new_width, new_px, new_classes) == (spec.width, spec.resolution_px, spec.classes):
        return spec
    if not SMALLEST_WIDTH <= new_width <= LARGEST_WIDTH:
        raise UsageError(
            f"width {new_width:g} is not within {SMALLEST_WIDTH} to {LARGEST_WIDTH}",
            "the papers use 0.25, 0.35, 0.5, 0.75, 1.0 and 1.4",
        )
    if not 2 <= new_classes <= MOST_CLASSES:
        raise UsageError(
            f"{new_classes} classes: not within 2 to {MOST_CLASSES:,}",
            "give --classes the number that the network has",
        )
    check_resolution(spec, new_px)
    same_network = new_width == spec.width and new_classes == spec.classes
    crop = spec.preprocess
    return dataclasses.replace(
        spec,
        name=_variant_name(spec, new_width, new_px),
        alias=None,
        width=new_width,
        resolution_px=new_px,
        classes=new_classes,
        labels=spec.labels if new_classes == spec.classes else None,
        preprocess=dataclasses.replace(
            crop, resize_px=round(new_px * crop.resize_px / crop.crop_px), crop_px=new_px
        ),
        parameters=spec.parameters if same_network else None,
        macs=None,
        weights=spec.weights if same_network else None,
        limits=OTHER_LIMITS,
    )


def _variant_name(spec: ModelSpec, width: float, resolution_px: int) -> str:
    if spec.fixed_resolution and width == 1:
        return spec.architecture
    return f"{spec.architecture}_{round(width * 100):03d}_{resolution_px}"
