"""Networks that the tests share: real ones exported once a session, and graphs small enough to read."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import arm
import numpy as np
import pytest
import sshd
from ai_edge_litert import schema_py_generated as schema

from mobilenet_export import images
from mobilenet_export.artifact import INPUT_OUTPUTS, PRECISIONS, Artifact, InputOutput, Precision
from mobilenet_export.cli import settings
from mobilenet_export.graph import (
    Activation,
    Add,
    Conv2d,
    FloatArray,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Node,
    Pads,
    Softmax,
)
from mobilenet_export.model_card import ModelCard, card_of
from mobilenet_export.pipeline.export import (
    ExportRequest,
    Spellings,
    choose_images,
    export,
    halve,
    quantize,
    write_artifacts,
)
from mobilenet_export.pipeline.reference import Source, capture, class_names, open_reference
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe, find_recipe
from mobilenet_export.spec import find_spec, resize_spec

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and our tables would be as narrow

FEW_IMAGES = QuantRecipe(
    "test",
    "few images, so that tests are fast",
    calibration_images=12,
    held_out_images=4,
    check_images=8,
    bias_correction_images=4,
)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep everything away from the user's own cache; what a module's fixtures export is cached here."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNX_CACHE", str(folder / "of_fixtures"))
        yield folder


@pytest.fixture(autouse=True)
def cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for every test, so that none passes by what another one computed."""
    folder = Path(tempfile.mkdtemp(dir=caches))
    monkeypatch.setenv("MNX_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_settings_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of `mnx` holds in a test, and no mnx.toml above the tests' folders."""
    for name in [name for name in os.environ if name.startswith("MNX_") and name != "MNX_CACHE"]:
        monkeypatch.delenv(name)
    folder, find = tmp_path_factory.getbasetemp(), settings.find_file

    def find_ours(start: Path) -> Path | None:
        found = find(start)
        return found if found and found.is_relative_to(folder) else None

    monkeypatch.setattr(settings, "find_file", find_ours)


@dataclass(frozen=True)
class Exported:
    """A network, its integers and its files, in memory."""

    source: Source
    quantized: QuantizedGraph
    artifacts: tuple[Artifact, ...]
    images: FloatArray
    """Preprocessed images that nothing was calibrated with, (8, 3, H, W)."""
    card: ModelCard

    @property
    def graph(self) -> Graph:
        return self.source.graph

    @property
    def pixel_graph(self) -> Graph:
        return self.source.pixel_graph

    def artifact(self, form: str, precision: Precision, io: InputOutput = "float32") -> Artifact:
        (found,) = [a for a in self.artifacts if (a.format, a.precision, a.io) == (form, precision, io)]
        return found


def export_in_memory(
    name: str, width: float | None = None, resolution_px: int | None = None, weights: str | None = None
) -> Exported:
    spec = resize_spec(find_spec(name), width, resolution_px, None)
    request = ExportRequest(
        spec, Path(), PRECISIONS, ("onnx", "tflite"), FEW_IMAGES, weights=weights, io=INPUT_OUTPUTS
    )
    source = capture(request.origin, open_reference(request.origin))
    choice = choose_images(None, FEW_IMAGES)
    quantized = quantize(source, choice.calibrate, FEW_IMAGES, lambda _steps: None)
    card = card_of(source.spec, class_names(source.spec, None))
    spellings = Spellings(source.graph, halve(source, choice.calibrate), quantized, card)
    artifacts = write_artifacts(request, spellings)
    ((_, batch),) = images.batches(choice.check, source.spec.preprocess, FEW_IMAGES.check_images)
    return Exported(source, quantized, artifacts, batch, card)


@pytest.fixture(scope="session")
def v1() -> Exported:
    """MobileNetV1 with its embedded weights at 224 px."""
    return export_in_memory("v1")


@pytest.fixture(scope="session")
def v2() -> Exported:
    """MobileNetV2 with its embedded weights at 224 px."""
    return export_in_memory("v2")


@pytest.fixture(scope="session")
def small_v1() -> Exported:
    return export_in_memory("v1", 0.25, 96, "none")


@pytest.fixture(scope="session")
def small_v2() -> Exported:
    return export_in_memory("v2", 0.25, 96, "none")


@pytest.fixture(params=["v1", "v2"])
def real(request: pytest.FixtureRequest) -> Exported:
    """Both networks with their embedded weights, one after the other."""
    found: Exported = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["small_v1", "small_v2"])
def small(request: pytest.FixtureRequest) -> Exported:
    """Both networks at width 0.25 and 96 px with random weights, one after the other."""
    found: Exported = request.getfixturevalue(request.param)
    return found


TINY_PX = 16


def tiny_graph(
    seed: int = 0,
    activation: Activation = Activation.RELU6,
    pads: Pads = Pads(1, 1, 1, 1),
    *,
    softmax: bool = False,
) -> Graph:
    """Stem of stride 2, depthwise, linear pointwise, residual Add, pool, 5 classes; 16 px."""
    random = np.random.default_rng(seed)

    def values(*shape: int, scale: float) -> FloatArray:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    nodes: list[Node] = [
        Conv2d(
            "stem", "input", values(8, 3, 3, 3, scale=0.5), values(8, scale=0.3), (2, 2), pads, 1, activation
        ),
        Conv2d(
            "depthwise",
            "stem",
            values(8, 1, 3, 3, scale=0.5),
            values(8, scale=0.3),
            pads=Pads(1, 1, 1, 1),
            groups=8,
            activation=activation,
        ),
        Conv2d("pointwise", "depthwise", values(8, 8, 1, 1, scale=0.4), values(8, scale=0.3)),
        Add("add", ("stem", "pointwise")),
        GlobalAveragePool("pool", "add"),
        FullyConnected("fc", "pool", values(5, 8, scale=1.0), values(5, scale=0.3)),
    ]
    if softmax:
        nodes.append(Softmax("softmax", "fc"))
    return Graph("tiny", "input", (3, TINY_PX, TINY_PX), tuple(nodes))


def tiny_batch(count: int = 4, seed: int = 1) -> FloatArray:
    """Images for `tiny_graph`, float32 (N, 3, 16, 16) in −1…1, smooth enough that classes differ."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (count, 3, 4, 4)).astype(np.float32)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


class TfliteFile:
    """A .tflite file, read back through the schema and not through the code that wrote it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        root = schema.Model.GetRootAs(data)
        self.model = schema.ModelT.InitFromObj(root)
        (self.subgraph,) = self.model.subgraphs
        self.tensors = {tensor.name.decode(): tensor for tensor in self.subgraph.tensors}

    def operators(self) -> Iterator[tuple[str, int, object]]:
        """Yield (name, version, operator) in order."""
        names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        for operator in self.subgraph.operators:
            code = self.model.operatorCodes[operator.opcodeIndex]
            yield names[code.builtinCode], code.version, operator

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name, _, _ in self.operators():
            counts[name] = counts.get(name, 0) + 1
        return counts

    def is_constant(self, name: str) -> bool:
        return self.model.buffers[self.tensors[name].buffer].data is not None

    def kind(self, name: str) -> str:
        names = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
        return names[self.tensors[name].type]

    def constant(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        kind = {"INT8": np.int8, "INT32": np.int32, "FLOAT32": np.float32, "FLOAT16": np.float16}[
            self.kind(name)
        ]
        return np.asarray(self.model.buffers[tensor.buffer].data, np.uint8).view(kind).reshape(tensor.shape)


# Emulated devices

DEVICE_PX = 96


@pytest.fixture(scope="session")
def emulated() -> None:
    """Skip where there can be no emulated device."""
    if reason := arm.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def reachable(emulated: None) -> None:
    """Skip where it cannot be reached by ssh, too."""
    if sshd.SSHD is None:
        pytest.skip(sshd.NEEDS)


@pytest.fixture(scope="session")
def bundles(emulated: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """V1 and V2 with their own weights, small enough to emulate, in every precision and format."""
    return {
        arch: make_bundle(arch, tmp_path_factory.mktemp("bundles") / f"{arch} 96 px") for arch in ("v1", "v2")
    }


def make_bundle(arch: str, out: Path) -> Path:
    spec = resize_spec(find_spec(arch), None, DEVICE_PX, None)
    export(ExportRequest(spec, out, PRECISIONS, ("onnx", "tflite"), find_recipe("int8-fast")))
    return out


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of the photos in $DATA: to calibrate with, to check with."""
    data = Path(os.environ["DATA"])
    folders = (tmp_path_factory.mktemp("calibrate"), tmp_path_factory.mktemp("check"))
    names = sorted(images.ImageSet.open(data).names)
    for index, name in enumerate(names):
        shutil.copy(data / name, folders[index * 2 // len(names)] / Path(name).name)
    return folders
