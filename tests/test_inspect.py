"""`mnx inspect`: files hold the layers of the table, each with its precision; bad input is said."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Exported, tiny_graph
from onnx import TensorProto, helper
from test_cli import Printed, bundle, checkpoint, exported, mnx  # noqa: F401

from mobilenet_export.anatomy import Anatomy, Layer
from mobilenet_export.architectures.dissect import dissect
from mobilenet_export.artifact import InputOutput, Precision
from mobilenet_export.errors import UsageError
from mobilenet_export.formats.onnx import FORMAT
from mobilenet_export.graph import Graph
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.readers import ReadAnatomy


def read(form: str, data: bytes) -> Anatomy:
    reader: ReadAnatomy = load_plugin("readers", form)
    return reader(data, f"model.{form}", None)


def kernels(anatomy: Anatomy) -> list[tuple[object, ...]]:
    return [
        (layer.name, layer.operator, layer.weight, layer.biases, layer.stride, layer.macs, layer.output.shape)
        for layer in anatomy.layers
        if layer.weight
    ]


def test_every_format_can_be_inspected() -> None:
    assert plugin_names("readers") == plugin_names("formats")


@pytest.mark.parametrize("form", ["onnx", "tflite", "ort"])
def test_a_float_file_holds_the_layers_of_the_table(form: str, small: Exported) -> None:
    data = load_plugin("formats", form).write_float(small.graph, "fp32")
    found, table = read(form, data), dissect(small.source.spec)
    layers = [layer for layer in found.layers if layer.operator != "pad"]
    if form == "tflite":  # which pads V2's stride-2 layers with an operator of its own
        assert [(x.name, x.label, x.activation) for x in layers[:-1]] == [
            (x.name, x.label, x.activation) for x in table.layers[:-1]
        ]
    else:
        assert found.layers[:-1] == table.layers[:-1]
        assert found.peak_bytes() == table.peak_bytes()
    assert kernels(found) == kernels(table)
    assert (found.macs, found.parameters) == (table.macs, table.parameters)
    assert found.layers[-1].name == "classifier.1"


@pytest.mark.parametrize("form", ["onnx", "tflite", "ort"])
def test_fp16_files_store_weights_of_two_bytes_and_compute_in_float(form: str, small: Exported) -> None:
    found = read(form, load_plugin("formats", form).write_float(small.graph, "fp16"))
    assert {layer.precision for layer in found.layers if layer.weight} == {"fp16"}
    assert {layer.output.kind for layer in found.layers} == {"float32"}
    assert kernels(found) == kernels(dissect(small.source.spec))


@pytest.mark.parametrize(
    ("form", "io", "floats"),
    [
        ("onnx", "float32", ["mul", "add", "quantize", "dequantize"]),
        ("onnx", "uint8", ["dequantize"]),
        ("tflite", "float32", ["mul", "add", "quantize", "dequantize"]),
        ("tflite", "uint8", ["dequantize"]),
        ("tflite", "int8", []),
        ("ort", "float32", ["mul", "add", "quantize", "dequantize"]),
        ("ort", "uint8", ["dequantize"]),
    ],
)
def test_int8_files_compute_with_integers_between_their_ends(
    form: str, io: InputOutput, floats: list[str], small: Exported
) -> None:
    found = read(form, load_plugin("formats", form).write_int8(small.quantized, io))
    assert [layer.operator for layer in found.layers if layer.precision != "int8"] == floats
    assert kernels(found) == kernels(dissect(small.source.spec))
    assert found.input.kind == io
    table = dissect(small.source.spec)
    if form != "tflite" and io == "uint8":
        assert found.peak_bytes() == table.peak_bytes(1)


def test_every_file_of_an_export_holds_the_kernels_of_the_table(small: Exported) -> None:
    for artifact in small.artifacts:
        found = read(artifact.format, artifact.data)
        assert kernels(found) == kernels(dissect(small.source.spec)), artifact.file
        assert found.input.kind == artifact.io, artifact.file


@pytest.mark.parametrize("form", ["onnx", "tflite", "ort"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_softmax_is_a_layer_in_float(form: str, precision: Precision, small_v2: Exported) -> None:
    from mobilenet_export.graph import Softmax  # noqa: PLC0415

    graph = small_v2.pixel_graph if precision == "int8" else small_v2.graph
    graph = dataclasses.replace(graph, nodes=(*graph.nodes, Softmax("softmax", graph.output)))
    writer = load_plugin("formats", form)
    if precision == "int8":
        data = writer.write_int8(dataclasses.replace(small_v2.quantized, graph=graph), "uint8")
    else:
        data = writer.write_float(graph, "fp32")
    last = read(form, data).layers[-1]
    assert (last.operator, last.precision, last.output.kind) == ("softmax", "fp32", "float32")


def test_the_memory_of_a_padding_operator_counts(small_v2: Exported) -> None:
    """V2 pads before its stride-2 layers in TFLite: input and padded copy of the widest map live at once."""
    form = load_plugin("formats", "tflite")
    found = read("tflite", form.write_float(small_v2.graph, "fp32"))
    live = found.live_bytes()
    assert found.layers[live.index(max(live))].operator == "pad"
    assert found.peak_bytes() > dissect(small_v2.source.spec).peak_bytes()


# Files that are not ours


def one_convolution(batch: object = 1, size: object = 8, operator: str = "Conv") -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    node = helper.make_node(operator, ["x", "w"], ["y"], domain="" if operator == "Conv" else "own")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]
    )


def test_open_axes_are_one_image_of_the_size_asked_for() -> None:
    reader: ReadAnatomy = load_plugin("readers", "onnx")
    data = one_convolution("N", "H").SerializeToString()
    assert reader(data, "x", 10).layers[0].output.shape == (4, 8, 8)
    with pytest.raises(UsageError, match="leaves the image size open"):
        reader(data, "x", None)


def test_a_foreign_operator_is_named_where_its_shapes_are_unknown() -> None:
    with pytest.raises(ValueError, match="the shape of y is not known"):
        read("onnx", one_convolution(operator="Magic").SerializeToString())


def test_operators_that_are_not_ours_are_layers() -> None:
    model = one_convolution()
    model.graph.node.append(helper.make_node("Sigmoid", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    assert [layer.operator for layer in read("onnx", model.SerializeToString()).layers] == ["conv", "Sigmoid"]


def test_a_clamp_that_others_look_past_is_a_layer_of_its_own() -> None:
    model = one_convolution()
    model.graph.node.append(helper.make_node("Relu", ["y"], ["r"]))
    model.graph.node.append(helper.make_node("Add", ["y", "r"], ["z"]))
    model.graph.output[0].name = "z"
    assert [layer.operator for layer in read("onnx", model.SerializeToString()).layers] == [
        "conv",
        "clamp",
        "add",
    ]


@pytest.mark.parametrize("form", ["onnx", "tflite", "ort"])
def test_a_damaged_file_is_refused_as_one(form: str, small_v2: Exported) -> None:
    data = load_plugin("formats", form).write_int8(small_v2.quantized, "float32")
    for cut in (0, 3, 8, 100, len(data) // 2):
        with pytest.raises(ValueError, match=r"not an? .* model"):
            read(form, data[:cut])


@pytest.mark.parametrize("form", ["onnx", "tflite", "ort"])
def test_a_file_with_bytes_changed_is_read_or_refused(form: str, small_v2: Exported) -> None:
    data = load_plugin("formats", form).write_int8(small_v2.quantized, "float32")
    generator, outcomes = np.random.default_rng(0), Counter[str]()
    for _ in range(20):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[generator.integers(len(data), size=64)] = generator.integers(0, 256, 64, np.uint8)
        try:
            read(form, changed.tobytes())
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == 20


# The command line


def test_a_variant_is_shown_with_its_comparisons(
    mnx: Callable[..., Printed],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = mnx("inspect", "v1")
    assert printed.code == 0, printed.err
    assert max(map(len, printed.out.splitlines())) <= 80
    for text in (
        "568.7 M MACs; 4,221,032 params: 4,209,088 weights, 11,944 biases",
        "peak activation memory 4.59 MiB fp32, 1.15 MiB int8 (features.1.1.0)",
        "features.1.1.0   conv 1×1     64×112×112      2,112  25.7 M  3,136  4,704",
        "features.13.0.0  1,057,792   51.8 M   9,437,184    462.4 M  11.2 %  1/8.9",
        "whole network    4,209,088  568.7 M  29,281,120  4,867.3 M  11.7 %  1/8.6",
        "project 1×1     512×14×14, ReLU6      64×14×14, linear",
        "shortcut        none                  adds its input",
        "    14  V1       6       512  1,473,024  287.6 M\n        V2       7     64–96    480,736   96.6 M",
        "left out for want of room: input; --json has all",
    ):
        assert text in printed.out
    assert "next: mnx export --arch v1 --int8" in printed.err


def test_a_variant_in_json(mnx: Callable[..., Printed]) -> None:  # noqa: F811
    document = json.loads(mnx("inspect", "v2", "--width", "0.5", "--resolution", "160", "--json").out)
    spec_layers = dissect_of("v2", 0.5, 160)
    assert document["macs"] == sum(layer["macs"] for layer in document["layers"])
    assert document["name"] == "mobilenet_v2_050_160"
    assert [layer["name"] for layer in document["layers"]] == [layer.name for layer in spec_layers]
    assert document["peak_activation_bytes"]["fp32"] == 4 * document["peak_activation_bytes"]["int8"]
    assert [network["name"] for network in document["networks"]] == [
        "mobilenet_v1_050_160",
        "mobilenet_v2_050_160",
    ]
    pair = document["separable"][0]
    assert pair["macs"] / pair["standard_macs"] == pytest.approx(pair["ratio"])
    assert "multiply-accumulates" in document["rules"]


def dissect_of(name: str, width: float, resolution_px: int) -> tuple[Layer, ...]:
    from mobilenet_export.spec import find_spec, resize_spec  # noqa: PLC0415

    return dissect(resize_spec(find_spec(name), width, resolution_px, None)).layers


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(
    "name", ["v2", "", "mobilenet_v2_025_96_int8.onnx", "mobilenet_v2_025_96_fp32.tflite"]
)
def test_no_layer_breaks_at_any_width(
    name: str,
    columns: int,
    bundle: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    target: list[object] = (
        ["v2", "--width", "0.25", "--resolution", "96"] if name == "v2" else [bundle / name]
    )
    printed = mnx("inspect", *target)
    assert printed.code == 0, printed.err
    assert max(map(len, printed.out.splitlines())) <= columns
    assert "…\n" not in printed.out.replace("mobilenet_v2_025_96_…\n", "")
    layers = [line.split()[0] for line in printed.out.splitlines() if line.startswith("features.")]
    assert [one for one in layers if one.endswith((".add", ".conv.2"))] == [
        layer.name for layer in dissect_of("v2", 0.25, 96) if layer.name.endswith((".add", ".conv.2"))
    ]


def test_a_bundle_is_shown_with_all_its_files(
    bundle: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    printed = mnx("inspect", bundle)
    assert printed.code == 0, printed.err
    assert f"next: mnx analyze {bundle}" in printed.err
    for file in bundle.glob("*.onnx"):
        assert file.name in printed.out
    document = json.loads(mnx("inspect", bundle, "--json").out)
    named = {found["file"]: found["precisions"] for found in document["files"]}
    integers = len(dissect_of("v2", 0.25, 96)) + 1  # the camera's channel-last pixels are transposed first
    assert named["mobilenet_v2_025_96_int8_io_uint8.onnx"] == {"int8": integers, "fp32": 1}
    assert document["networks"][1]["macs"] == document["macs"]


def test_a_file_is_shown_with_the_precision_of_every_layer(
    bundle: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    file = bundle / "mobilenet_v2_025_96_int8.tflite"
    printed = mnx("inspect", file)
    assert printed.code == 0, printed.err
    (line,) = [line for line in printed.out.splitlines() if line.startswith("features.2.conv.2 ")]
    assert line.split()[3] == "int8"
    assert f"next: mnx compat {file}" in printed.err


def test_the_plot_has_the_same_bytes_every_time(mnx: Callable[..., Printed]) -> None:  # noqa: F811
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg", "a.png"):
        assert mnx("inspect", "v2", "--plot", name).code == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["v3"], 2, "no variant, bundle or file is called v3", "did you mean v2?"),
        (["mobilenet_v2_tutorail"], 2, "called mobilenet_v2_tutorail", "did you mean mobilenet_v2_tutorial?"),
        (["none.toml"], 2, "no such file: none.toml", "mnx models"),
        (["none.onnx"], 2, "no such file or folder: none.onnx", "bundle"),
        (["no/where"], 2, "no such file or folder: no/where", "bundle"),
        (["text.txt"], 2, "text.txt: no format ends in .txt", ".tflite"),
        (["."], 2, "is not a bundle: it has no mnx.json", "mnx export"),
        (["text.onnx"], 4, "text.onnx: not an ONNX model", "export"),
        (["text.tflite"], 4, "text.tflite: not a TFLite model", "export"),
        (["text.ort"], 4, "text.ort: not an ORT format model", "export"),
        (["text.toml"], 4, "text.toml: not a readable TOML file", "models"),
        (["v1", "--width", "7"], 2, "width 7 is not within 0.25 to 1.4", "papers"),
        (["v1", "--resolution", "100"], 2, "resolution 100 px is not 96 to 320", "choose"),
        (["text.onnx", "--classes", "10"], 2, "--classes does not go with text.onnx", "leave"),
        (["v2", "--plot", "x.gif"], 2, "--plot x.gif: neither .png nor .svg", "name it x.png or x.svg"),
        ([], 2, "Missing argument", "--help"),
    ],
)
def test_what_cannot_be_inspected_is_said(
    arguments: list[str],
    code: int,
    message: str,
    hint: str,
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    for name in ("text.txt", "text.onnx", "text.tflite", "text.ort", "text.toml"):
        Path(name).write_text("no model at all, but long enough for a header")
    printed = mnx("inspect", *arguments)
    assert (printed.code, message in printed.error, hint in printed.hint) == (code, True, True), printed.err


def test_a_bundle_that_lacks_a_file_is_damaged(bundle: Path, mnx: Callable[..., Printed]) -> None:  # noqa: F811
    shutil.copytree(bundle, "copy")
    Path("copy/mobilenet_v2_025_96_int8.onnx").unlink()
    printed = mnx("inspect", "copy")
    assert printed.code == 4
    assert "listed in mnx.json but not there" in printed.error


def test_another_size_than_the_files_is_refused(bundle: Path, mnx: Callable[..., Printed]) -> None:  # noqa: F811
    printed = mnx("inspect", bundle / "mobilenet_v2_025_96_fp32.onnx", "--resolution", "128")
    assert printed.code == 2
    assert "fixed at 3×96×96, not 128 px" in printed.error


def test_a_variant_needs_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys; from mobilenet_export import cli; cli.run(['inspect', 'v2', '--json']);"
        "sys.exit(any(n in sys.modules for n in ('torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'PIL')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_network_of_another_kind_has_no_pairs(tmp_path: Path, mnx: Callable[..., Printed]) -> None:  # noqa: F811
    graph: Graph = tiny_graph()
    Path("tiny.onnx").write_bytes(FORMAT.write_float(graph, "fp32"))
    printed = mnx("inspect", "tiny.onnx")
    assert printed.code == 0, printed.err
    assert "V1's block" not in printed.out
