"""The cache: the same bytes with and without it, and nothing in it, or wrong with it, that an export trips over."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FEW_IMAGES, TINY_PX, Exported, tiny_batch, tiny_graph
from safetensors.numpy import load, save

import mobilenet_export
from mobilenet_export import cli, runtimes
from mobilenet_export.graph import Activation, FloatArray, Graph
from mobilenet_export.images import ImageSet
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.pipeline import ExportRequest, cache_folder, export
from mobilenet_export.pipeline import cache as module
from mobilenet_export.pipeline.cache import FORMAT, MOST_ENTRIES, Inputs, keep, recall
from mobilenet_export.pipeline.export import find_integers
from mobilenet_export.pipeline.reference import Source
from mobilenet_export.quantize.equalize import rescale
from mobilenet_export.quantize.splitting import place_copies, shift_copies
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.runtimes import onnxruntime as ort_runtime
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec

exporting = importlib.import_module("mobilenet_export.pipeline.export")
NORMALIZED = tiny_graph(softmax=True)
NAMES = tuple("abcdefghijkl")
PIXELS = dict(zip(NAMES, tiny_batch(12), strict=True))


def tiny_spec(**changes: Any) -> ModelSpec:
    spec = resize_spec(find_spec("v2"), 0.25, 96, 5)
    crop = dataclasses.replace(spec.preprocess, resize_px=TINY_PX, crop_px=TINY_PX, **changes)
    return dataclasses.replace(spec, resolution_px=TINY_PX, preprocess=crop)


def tiny_set(pixels: dict[str, FloatArray] = PIXELS, names: tuple[str, ...] = NAMES) -> ImageSet:
    return ImageSet("tiny", names, pixels.__getitem__)


SPEC = tiny_spec()
GRAPH = fold_normalization(NORMALIZED, SPEC.preprocess.mean, SPEC.preprocess.std)
INPUTS = Inputs(NORMALIZED, SPEC, tiny_set(), FEW_IMAGES)


def find(folder: Path | None, inputs: Inputs = INPUTS) -> tuple[QuantizedGraph, str | None]:
    request = ExportRequest(inputs.spec, Path(), ("int8",), ("onnx",), inputs.recipe, cache=folder)
    source = Source(inputs.spec, inputs.graph, None, {})  # type: ignore[arg-type]
    return find_integers(request, source, inputs.calibration, lambda _images: None)


@pytest.fixture(scope="module")
def fresh() -> QuantizedGraph:
    """Computed without a cache."""
    quantized, note = find(None)
    assert note is None
    return quantized


@pytest.fixture
def entry(cache: Path) -> Path:
    """The file that a first run has kept."""
    _, note = find(cache)
    assert note is None
    (path,) = cache.iterdir()
    return path


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every inference, gradient and rebuilding of a layer fail."""

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("computed, though it is in the cache")

    for place, name in (
        (exporting, "watch"),
        (exporting, "_judge"),
        (exporting, "post_training"),
        (ort_runtime.OnnxSession, "run_feeds"),
        (torch.autograd, "grad"),
    ):
        monkeypatch.setattr(place, name, refuse)


def assert_same(found: QuantizedGraph, expected: QuantizedGraph) -> None:
    """Bit for bit, and in the same order."""
    assert list(found.tensors.items()) == list(expected.tensors.items())
    assert found.decisions == expected.decisions
    assert list(found.kernels) == list(expected.kernels)
    assert list(found.equalization) == list(expected.equalization)
    assert module.hash_graph(found.graph) == module.hash_graph(expected.graph)
    pairs = [(found.equalization[name], expected.equalization[name]) for name in expected.equalization]
    for name, kernel in expected.kernels.items():
        pairs += [(getattr(found.kernels[name], p), getattr(kernel, p)) for p in ("weight", "scale", "bias")]
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


# A hit


def test_a_hit_gives_the_same_integers_without_computing(
    entry: Path, fresh: QuantizedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert entry.stat().st_size < 10_000
    forbid(monkeypatch)
    quantized, note = find(entry.parent)
    assert note is not None
    assert "--no-cache" in note
    assert_same(quantized, fresh)


def test_a_graph_that_was_rescaled_comes_back(cache: Path, fresh: QuantizedGraph) -> None:
    factors = {"stem": np.linspace(0.3, 3, 8, dtype=np.float32), "depthwise": np.full(8, 1 / 3, np.float32)}
    equalized = dataclasses.replace(fresh, graph=rescale(GRAPH, factors), equalization=factors)
    keep(cache / "entry", equalized)
    found = recall(cache / "entry", GRAPH)
    assert found is not None
    assert_same(found, equalized)


def test_weights_come_back_however_they_lie_in_memory(cache: Path, fresh: QuantizedGraph) -> None:
    turned = {
        name: dataclasses.replace(kernel, weight=np.asfortranarray(kernel.weight))
        for name, kernel in fresh.kernels.items()
    }
    keep(cache / "entry", dataclasses.replace(fresh, kernels=turned))
    found = recall(cache / "entry", GRAPH)
    assert found is not None
    assert_same(found, fresh)


def test_a_graph_with_copies_comes_back(cache: Path, small_v1: Exported) -> None:
    graph = small_v1.pixel_graph
    copies = {"features.1.0.0": {2: 0, 5: 0}, "features.3.0.0": {1: 7}}
    factors = {"features.0.0": np.full(8, 1 / 3, np.float32)}
    changed = rescale(place_copies(graph, copies), factors)
    changed = shift_copies(changed, copies, small_v1.quantized.tensors, {})
    made = dataclasses.replace(small_v1.quantized, graph=changed, copies=copies, equalization=factors)
    keep(cache / "entry", made)
    found = recall(cache / "entry", graph)
    assert found is not None
    assert found.copies == copies
    assert_same(found, made)


def test_without_a_folder_nothing_is_kept(cache: Path, fresh: QuantizedGraph) -> None:
    assert_same(find(None)[0], fresh)
    assert list(cache.iterdir()) == []


def small_request(out: Path, cache: Path | None) -> ExportRequest:
    spec = resize_spec(find_spec("v2"), 0.25, 96, 12)
    fast = dataclasses.replace(FEW_IMAGES, range_search=False, rounding=False)
    return ExportRequest(spec, out, ("fp32", "int8"), ("onnx",), fast, weights="none", cache=cache)


def test_bundles_are_equal_with_and_without_a_hit(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        found = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    without = export(small_request(tmp_path / "without", None))
    missed = export(small_request(tmp_path / "missed", cache))
    monkeypatch.setattr(exporting, "quantize", None)
    hit = export(small_request(tmp_path / "hit", cache))
    told = [[note for note in made.notes if note.startswith("cache: ")] for made in (without, missed, hit)]
    assert [len(notes) for notes in told] == [0, 0, 1]
    assert files(tmp_path / "without") == files(tmp_path / "missed") == files(tmp_path / "hit")


def test_the_command_line_uses_the_cache_and_leaves_it_alone_when_told(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "fast.toml"
    fields = ("calibration_images = 9", "held_out_images = 4", "check_images = 8", "equalization = false")
    fields += ('name = "fast"', 'summary = ""', "range_search = false", "rounding = false")
    recipe.write_text("\n".join(fields))
    command = [
        "export",
        "--arch",
        "v2",
        "--width",
        "0.25",
        "--resolution",
        "96",
        "--weights",
        "none",
        "--int8",
    ]
    command += [
        "--formats",
        "onnx",
        "--recipe",
        str(recipe),
        "--out",
        str(tmp_path / "out"),
        "--force",
        "--json",
    ]

    def talk(*more: str) -> tuple[list[str], dict[str, Any]]:
        assert cli.run([*command, *more]) in (0, 1)
        printed = capfd.readouterr()
        return [line for line in printed.err.splitlines() if "cache" in line], json.loads(printed.out)

    assert talk("--no-cache")[0] == []
    assert list(cache.iterdir()) == []
    assert talk()[0] == []
    (path,) = cache.iterdir()
    (line,), document = talk()
    assert line.startswith("cache: int8 as in an earlier run")
    assert document["warnings"] == []
    path.write_bytes(path.read_bytes()[:-1])
    assert talk("--no-cache")[0] == []
    assert talk()[0] == [f"cache: {path} was cut short or altered; rebuilt"]


# A miss


def with_node(graph: Graph, name: str, change: Callable[[Any], dict[str, Any]]) -> Inputs:
    nodes = tuple(dataclasses.replace(n, **change(n)) if n.name == name else n for n in graph.nodes)
    return dataclasses.replace(INPUTS, graph=dataclasses.replace(graph, nodes=nodes))


def nudged(values: FloatArray) -> FloatArray:
    """Change one value by its last bit."""
    values = values.copy()
    values.flat[-1] = np.nextafter(values.flat[-1], np.float32(9))
    return values


def with_images(image_set: ImageSet) -> Inputs:
    return dataclasses.replace(INPUTS, calibration=image_set)


@pytest.mark.parametrize(
    "inputs",
    [
        with_node(GRAPH, "stem", lambda node: {"weight": nudged(node.weight)}),
        with_node(GRAPH, "fc", lambda node: {"bias": nudged(node.bias)}),
        with_node(GRAPH, "stem", lambda _: {"activation": Activation.RELU}),
        with_node(GRAPH, "add", lambda _: {"inputs": ("pointwise", "stem")}),
        dataclasses.replace(INPUTS, graph=tiny_graph()),
        with_images(tiny_set({**PIXELS, "f": nudged(PIXELS["f"])})),
        with_images(tiny_set(names=(*NAMES[:-2], NAMES[-1], NAMES[-2]))),
        with_images(tiny_set(names=NAMES[:-1])),
        with_images(dataclasses.replace(tiny_set(), roles=dict.fromkeys(NAMES, "calibrate"))),
        dataclasses.replace(INPUTS, spec=tiny_spec(mean=(0.5, 0.5, 0.4))),
    ],
    ids=["weight", "bias", "activation", "edges", "softmax", "pixel", "order", "count", "drawn", "mean"],
)  # fmt: skip
def test_other_inputs_are_another_entry(inputs: Inputs) -> None:
    assert inputs.entry_name() != INPUTS.entry_name()


@pytest.mark.parametrize("field", QuantRecipe.__annotations__)
def test_every_field_of_a_recipe_matters_but_for_those_that_choose_images(field: str) -> None:
    value = getattr(FEW_IMAGES, field)
    other: Any = not value if isinstance(value, bool) else value + ("x" if isinstance(value, str) else 1)
    changed = dataclasses.replace(INPUTS, recipe=dataclasses.replace(FEW_IMAGES, **{field: other}))
    chooses = field in ("name", "summary", "calibration_images", "check_images", "seed")
    assert (changed.entry_name() == INPUTS.entry_name()) == chooses


def test_names_of_images_and_of_the_network_do_not_matter() -> None:
    renamed = {name.upper(): value for name, value in PIXELS.items()}
    inputs = dataclasses.replace(INPUTS, graph=dataclasses.replace(NORMALIZED, name="other"))
    inputs = dataclasses.replace(inputs, calibration=tiny_set(renamed, tuple(renamed)))
    assert inputs.entry_name() == INPUTS.entry_name()


@pytest.mark.parametrize(
    "part", ["mobilenet-export", "source", "numpy", "torch", "onnxruntime", "cpu", "format"]
)
def test_another_version_is_another_entry_and_says_so_once(
    part: str, entry: Path, fresh: QuantizedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by = {**module.makers(), part: "other"}
    monkeypatch.setattr(module, "makers", lambda: made_by)
    quantized, note = find(entry.parent)
    assert note is not None
    assert "is of another version" in note
    assert note.endswith("; rebuilt")
    assert_same(quantized, fresh)
    assert len(list(entry.parent.iterdir())) == 2
    assert find(entry.parent)[1] == module._RECALLED


def test_what_computes_is_read_from_the_installation() -> None:
    found = module.makers()
    assert found["mobilenet-export"] == mobilenet_export.__version__
    assert found["onnxruntime"] == runtimes.runtime("onnxruntime").version()
    assert found["format"] == FORMAT
    assert len(found["source"]) == 64


# Damage


def test_an_entry_cut_short_anywhere_is_refused(entry: Path) -> None:
    data = entry.read_bytes()
    for length in range(len(data)):
        with pytest.raises(module._UnusableError, match="cut short"):
            module._parse(data[:length])


def test_any_flipped_byte_is_found(entry: Path) -> None:
    data = bytearray(entry.read_bytes())
    for index in range(len(data)):
        for mask in (0x01, 0x20, 0xFF):
            data[index] ^= mask
            with pytest.raises(module._UnusableError):
                module._restore(*module._parse(bytes(data)), GRAPH)
            data[index] ^= mask


def respell(data: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """Change facts or arrays, and make the checksum fit again."""
    facts, read = module._parse(data)
    arrays = dict(read)
    change(facts, arrays)
    text = json.dumps(facts)
    return save(arrays, {"format": FORMAT, "facts": text, "sha256": module._hash_contents(text, arrays)})


def transpose(_facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["weight/fc"] = np.ascontiguousarray(arrays["weight/fc"].T)


def widen(_facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["weight/fc"] = arrays["weight/fc"].astype(np.int32)


def add_layer(_facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["bias/more"] = arrays["bias/fc"]


def drop_scale(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    del facts["tensors"]["stem"]


def rename_factors(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts["equalization"] = ["nothing"]


def copy_elsewhere(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts["copies"] = ["nothing"]


def empty(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts.clear()


def other_graph(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts["graph"] = "0" * 64


def other_decisions(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts["decisions"] = [{"step": "dance"}]


def text_for_scales(facts: dict[str, Any], _arrays: dict[str, Any]) -> None:
    facts["tensors"] = "none"


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "was cut short or altered"),
    "half": (lambda data: data[: len(data) // 2], "was cut short or altered"),
    "json": (lambda _: b'{"scales": [1, 2, 3]}', "was cut short or altered"),
    "longer": (lambda data: data + b"x", "was cut short or altered"),
    "huge header": (lambda data: b"\xff" * 8 + data[8:], "was cut short or altered"),
    "no facts": (lambda data: save(load(data), {"format": FORMAT}), "was cut short or altered"),
    "foreign": (lambda data: save(load(data)), "is of another format"),
    "newer": (lambda data: save(load(data), {"format": FORMAT + "1"}), "is of another format"),
    **{
        change.__name__: (lambda data, c=change: respell(data, c), reason)  # type: ignore[misc]
        for change, reason in (
            (transpose, "does not fit the network"),
            (widen, "does not fit the network"),
            (add_layer, "does not fit the network"),
            (drop_scale, "does not fit the network"),
            (other_graph, "does not fit the network"),
            (rename_factors, "is of another format"),
            (copy_elsewhere, "is of another format"),
            (other_decisions, "is of another format"),
            (text_for_scales, "is of another format"),
            (empty, "is of another format"),
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_used_is_passed_over_with_one_line_and_replaced(
    damage: str, entry: Path, fresh: QuantizedGraph
) -> None:
    change, reason = DAMAGES[damage]
    entry.write_bytes(change(entry.read_bytes()))
    quantized, note = find(entry.parent)
    assert note == f"cache: {entry} {reason}; rebuilt"
    assert_same(quantized, fresh)
    assert find(entry.parent)[1] == module._RECALLED


# Trouble with the folder


def test_a_folder_in_the_entrys_place_is_left_alone(entry: Path, fresh: QuantizedGraph) -> None:
    entry.unlink()
    (entry / "thesis").mkdir(parents=True)
    quantized, note = find(entry.parent)
    assert note is not None
    assert note.startswith(f"cache: cannot write {entry}: ")
    assert_same(quantized, fresh)
    assert list(entry.parent.rglob("*")) == [entry, entry / "thesis"]


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_a_pipe_in_the_entrys_place_is_not_waited_for(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)
    assert find(entry.parent)[1] == f"cache: {entry} is no file; rebuilt"
    assert entry.is_file()


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path, fresh: QuantizedGraph) -> None:
    (tmp_path / "file").write_text("")
    quantized, note = find(tmp_path / "file" / "cache")
    assert note is not None
    assert note.startswith(f"cache: cannot write {tmp_path}")
    assert "the next run computes it again" in note
    assert_same(quantized, fresh)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(cache: Path, fresh: QuantizedGraph) -> None:
    cache.chmod(0o500)
    quantized, note = find(cache)
    assert note is not None
    assert note.startswith(f"cache: cannot write {cache}")
    assert_same(quantized, fresh)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_full_disk_is_one_line_and_leaves_nothing(cache: Path, fresh: QuantizedGraph) -> None:
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        quantized, note = find(cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert note is not None
    assert note.startswith(f"cache: cannot write {cache}")
    assert_same(quantized, fresh)
    assert list(cache.iterdir()) == []


LOOP = """
import sys
from pathlib import Path
from mobilenet_export.pipeline.cache import keep, recall
from test_cache import GRAPH
path, graph = Path(sys.argv[1]), GRAPH
for _ in range(100):
    found = recall(path, graph)
    assert found is not None
    keep(path, found)
"""


def test_two_processes_write_and_read_at_once(entry: Path, fresh: QuantizedGraph) -> None:
    paths = [str(Path(__file__).parent), str(Path(mobilenet_export.__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", LOOP, str(entry)]
    running = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    found = recall(entry, GRAPH)
    assert found is not None
    assert_same(found, fresh)
    assert list(entry.parent.iterdir()) == [entry]


def test_the_least_used_entries_go_first_and_nothing_else_goes(cache: Path, fresh: QuantizedGraph) -> None:
    def name(index: int) -> Path:
        return cache / f"quantized-{index:032x}-{0:016x}.safetensors"

    others = [cache / "model.safetensors", cache / "quantized-mine.safetensors", cache / ".quantized-new"]
    for other in others:
        other.write_text("")
    os.utime(others[1], (1, 1))
    (cache / ".quantized-abandoned").write_text("")
    os.utime(cache / ".quantized-abandoned", (1, 1))
    for index in range(MOST_ENTRIES):
        keep(name(index), fresh)
        os.utime(name(index), (1000 + index, 1000 + index))
    assert recall(name(0), GRAPH) is not None  # used, so it stays
    keep(name(100), fresh)
    keep(name(101), fresh)
    stay = [0, *range(3, MOST_ENTRIES), 100, 101]
    assert set(cache.iterdir()) == {*others, *map(name, stay)}


# Where it is


@pytest.mark.parametrize(
    ("system", "variables", "place"),
    [
        ("linux", {"MNX_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ("linux", {"MNX_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/mobilenet-export"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/mobilenet-export"),
        ("linux", {}, "/home/me/.cache/mobilenet-export"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/me/Library/Caches/mobilenet-export"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mobilenet-export"),
        ("win32", {}, "/home/me/AppData/Local/mobilenet-export"),
    ],
)
def test_the_folder_is_where_the_system_keeps_such(
    system: str, variables: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MNX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", system)
        found = cache_folder()
    assert found == Path(place)


def test_an_account_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    for variable in ("MNX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
