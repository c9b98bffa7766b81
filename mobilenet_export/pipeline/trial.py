"""Networks to be timed: files of random weights, made in a moment, as nothing but their values differs."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from mobilenet_export import __version__, images
from mobilenet_export.artifact import Artifact, Precision
from mobilenet_export.bundle import SCHEMA, SELF_CHECK, Bundle, read_bundle, write_document
from mobilenet_export.formats import Format, artifact_name
from mobilenet_export.graph import Graph
from mobilenet_export.model_card import card_of
from mobilenet_export.pipeline.contents import write_device_code
from mobilenet_export.pipeline.export import quantize
from mobilenet_export.pipeline.reference import Origin, Source, capture, class_names, open_reference
from mobilenet_export.plugins import load_plugin
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.scratch import scratch_folder
from mobilenet_export.spec import SMALLEST_PX, ModelSpec, find_spec, resize_spec, spec_to_table

_RECIPE = QuantRecipe(
    "timing",
    "no search: latency and size do not depend on the integers",
    bias_correction=False,
    equalization=False,
    range_search=False,
    rounding=False,
)
_IMAGES = 3
_PROVENANCE = {"kind": "random", "origin": "random", "sha256": ""}


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """A network of published width and resolution, or of others."""

    arch: str
    width: float
    resolution_px: int

    def __str__(self) -> str:
        return f"{self.arch} {self.width:g} {self.resolution_px}"

    @property
    def spec(self) -> ModelSpec:
        """The variant; its weights are those that ship, where they fit."""
        return _resized(self.arch, self.width, self.resolution_px)

    @property
    def has_own_weights(self) -> bool:
        """Whether weights ship that were trained at this width and resolution."""
        return self.spec.alias == self.arch and self.spec.weights is not None


@cache
def _resized(arch: str, width: float, resolution_px: int) -> ModelSpec:
    return resize_spec(_original(arch), width, resolution_px, None)


@cache
def _original(arch: str) -> ModelSpec:
    return find_spec(arch)


@cache
def _captured(arch: str, width: float) -> Source:
    """The network at the smallest size: a MobileNet's layers and weights are the same at every one."""
    origin = Origin(_resized(arch, width, SMALLEST_PX), weights="none")
    return capture(origin, open_reference(origin))


def network_source(network: Network) -> Source:
    """Return the network with random weights.

    Sizes are multiples of 32, so every stride-2 layer halves an even map, and is padded alike at all of them.
    """
    small, px = _captured(network.arch, network.width), network.resolution_px
    graph: Graph = dataclasses.replace(small.graph, input_shape=(3, px, px), name=network.spec.name)
    return dataclasses.replace(small, spec=network.spec, graph=graph)


def make_artifacts(
    network: Network, precisions: Sequence[Precision], formats: Sequence[str]
) -> tuple[Artifact, ...]:
    """Write a network with random weights; sizes are those of an export's files."""
    source = network_source(network)
    card = card_of(source.spec, class_names(source.spec, None))
    calibration, _ = images.default_set()
    few = calibration.subset(calibration.names[:_IMAGES])
    quantized = quantize(source, few, _RECIPE, lambda _images: None) if "int8" in precisions else None
    found = []
    for precision in precisions:
        for name in formats:
            form: Format = load_plugin("formats", name)
            if precision == "int8":
                assert quantized is not None
                data = form.write_int8(quantized, "float32", card)
            else:
                data = form.write_float(source.graph, precision, card)
            file = artifact_name(source.spec.name, form, precision, "float32")
            found.append(Artifact(file, name, precision, data))
    return tuple(found)


@contextmanager
def trial_bundle(spec: ModelSpec, artifacts: Sequence[Artifact]) -> Iterator[Bundle]:
    """Yield a bundle that holds what a benchmark needs and no more; it is gone after the block."""
    with scratch_folder(Path(gettempdir()), "mnx-pick-") as folder:
        for artifact in artifacts:
            (folder / artifact.file).write_bytes(artifact.data)
        write_device_code(folder)
        image = _write_image(folder / SELF_CHECK)
        write_document(folder, _document(spec, artifacts, image))
        yield read_bundle(folder)


def _write_image(folder: Path) -> dict[str, str]:
    """Write the image that is measured with, and return its entry of the document."""
    folder.mkdir()
    _, check = images.default_set()
    name = f"{Path(check.names[0]).stem}.png"
    images.save_crop(check, check.names[0], (0, 0, 256, 256), folder / name)
    return {"image": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _document(spec: ModelSpec, artifacts: Sequence[Artifact], image: dict[str, str]) -> dict[str, object]:
    files = [
        {
            "path": artifact.file,
            "format": artifact.format,
            "precision": artifact.precision,
            "io": artifact.io,
            "sha256": hashlib.sha256(artifact.data).hexdigest(),
        }
        for artifact in artifacts
    ]
    return {
        "schema": SCHEMA,
        "mobilenet_export": __version__,
        "model": spec_to_table(spec),
        "source": _PROVENANCE,
        "files": files,
        "self_check": [image],
    }
