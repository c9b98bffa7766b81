"""The analysis of layers: what it measures is so, the worst layer comes first, and bad input is said."""

import dataclasses
import hashlib
import io
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from ai_edge_litert.interpreter import Interpreter
from conftest import Exported, tiny_batch, tiny_graph
from rich.console import Console
from test_cli import Printed, bundle, checkpoint, exported, mnx  # noqa: F401 (fixtures)

from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import EQUALIZATION, Bundle
from mobilenet_export.checks.layer_noise import noise_alone, rounded_layer
from mobilenet_export.checks.layer_statistics import TensorSums, weights_in_steps
from mobilenet_export.checks.layers import (
    LayerFacts,
    LayerReport,
    Remedy,
    choose_remedy,
    explain,
    lost_inputs,
    weight_spread,
)
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.cli.layer_table import print_layers, sparkline
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.formats.onnx import write_int8, write_int8_tapped, write_suffix
from mobilenet_export.formats.tflite import write_int8_tapped as write_tflite_tapped
from mobilenet_export.graph import Activation, Conv2d, FloatArray, FullyConnected, Graph, Node
from mobilenet_export.interpreter import run, run_quantized, walk_quantized
from mobilenet_export.pipeline.analyze import (
    measure_layers,
    read_equalization,
    shared_integers,
    sum_noise,
)
from mobilenet_export.pipeline.stages import Stages, silent
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantized import QuantizedGraph, TensorScale
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import OnnxRuntime, suffix, watch

ENGINES = (LiteRuntime(), OnnxRuntime())


def quantized_of(graph: Graph, images: FloatArray, low: float = -1.0, high: float = 1.0) -> QuantizedGraph:
    return quantize_graph(graph, calibrate(graph, watch(graph, [images]), (low, high)), saturation_safe=True)


def quantized_tiny(activation: Activation = Activation.RELU6, *, softmax: bool = False) -> QuantizedGraph:
    return quantized_of(tiny_graph(3, activation, softmax=softmax), tiny_batch(8))


def report_of(
    quantized: QuantizedGraph, images: FloatArray, factors: dict[str, FloatArray] | None = None
) -> LayerReport:
    return measure_layers(quantized, factors or {}, images, ENGINES, Stages(silent))


def changed(graph: Graph, **replacing: Node) -> Graph:
    return dataclasses.replace(graph, nodes=tuple(replacing.get(node.name, node) for node in graph.nodes))


# Watching


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_the_kernels_that_are_watched_are_those_that_users_run(
    engine: LiteRuntime | OnnxRuntime, real: Exported
) -> None:
    """With every tensor as an output the logits are the same to the bit."""
    images = real.images[:2]
    artifact = real.artifact(engine.formats[0], "int8")
    logits = engine.open(artifact).run(images)
    scale = real.quantized.tensors[real.graph.logits]
    for expected, found in zip(logits, engine.watch_int8(real.quantized, images), strict=True):
        integers = found[real.graph.logits].astype(np.float32)[0]
        np.testing.assert_array_equal((integers - scale.zero_point) * np.float32(scale.scale), expected)
        assert list(found) == list(real.quantized.tensors)


def test_a_tapped_tflite_file_still_goes_to_xnnpack_as_a_whole(small: Exported) -> None:
    counts = []
    for data in (small.artifact("tflite", "int8").data, write_tflite_tapped(small.quantized)[0]):
        interpreter = Interpreter(model_content=data)
        interpreter.allocate_tensors()
        names = [operator["op_name"] for operator in interpreter._get_ops_details()]
        counts.append(Counter(name for name in names if name == "DELEGATE"))
    assert counts[0] == counts[1] == {"DELEGATE": 1}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("softmax", [False, True])
def test_watched_tensors_are_channel_first_integers(engine: LiteRuntime | OnnxRuntime, softmax: bool) -> None:
    quantized = quantized_tiny(softmax=softmax)
    (found,) = engine.watch_int8(quantized, tiny_batch(1))
    for name, value in walk_quantized(quantized, tiny_batch(1)):
        expected = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
        assert found[name].dtype == np.uint8
        assert found[name].shape == expected.shape == (1, *quantized.graph.shapes[name])
        assert np.abs(found[name].astype(int) - expected).max() <= 1


def test_a_tapped_onnx_file_still_runs_on_integers(small_v2: Exported, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    operators = []
    for data in (write_int8(small_v2.quantized, "float32"), write_int8_tapped(small_v2.quantized)[0]):
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(str(tmp_path / "optimized.onnx")).graph.node
        operators.append(Counter(node.op_type for node in nodes if node.op_type.startswith(("Q", "Conv"))))
    assert operators[0] == operators[1]


@pytest.mark.parametrize("start", range(7))
def test_a_suffix_runs_the_rest_of_the_network(start: int) -> None:
    graph, image = tiny_graph(softmax=True), tiny_batch(1)
    (truth,) = watch(graph, [image])
    data, feeds = write_suffix(graph, start)
    if start == 2:
        assert set(feeds) == {"stem", "depthwise"}
    if start < 6:
        assert data
        np.testing.assert_allclose(suffix(graph, start)(truth), truth["fc"], rtol=1e-4, atol=1e-5)


# Noise


def test_the_noise_of_a_layer_alone_is_that_of_a_network_with_it_alone_in_int8() -> None:
    quantized, images = quantized_tiny(), tiny_batch(4)
    signal, noise = noise_alone(quantized, {}, images, lambda i: suffix(quantized.graph, i), lambda _n: None)
    truth = run(quantized.graph, images)
    assert signal == pytest.approx(float(np.square(truth, dtype=np.float64).sum()), rel=1e-4)
    assert list(noise) == list(quantized.tensors)
    node = next(node for node in quantized.graph.kernels() if node.name == "pointwise")
    coarse = changed(quantized.graph, pointwise=rounded_layer(quantized, {}, node))
    expected = float(np.square(run(coarse, images) - truth, dtype=np.float64).sum())
    assert noise["pointwise"].weights == pytest.approx(expected, rel=1e-3)
    for name in ("input", "add", "pool"):
        assert noise[name].weights == 0
        assert noise[name].together == noise[name].activations > 0


def test_noise_adds_up_to_about_that_of_the_whole_file() -> None:
    quantized, images = quantized_tiny(), tiny_batch(8)
    report = report_of(quantized, images)
    whole = sqnr_db(run(quantized.graph, images), run_quantized(quantized, images))
    assert report.final_db()["onnxruntime"] == pytest.approx(whole, abs=0.01)
    assert report.summed_db == pytest.approx(whole, abs=3)
    assert sum(row.facts.share_percent for row in report.rows) == pytest.approx(100)
    for row in report.rows:
        facts = row.facts
        assert facts.weights_percent + facts.activations_percent == pytest.approx(facts.share_percent)


def test_a_network_that_ends_in_a_softmax_is_compared_at_its_logits() -> None:
    images = tiny_batch(3)
    plain, ending = (report_of(quantized_tiny(softmax=softmax), images) for softmax in (False, True))
    assert ending.logits == plain.logits == "fc"
    assert ending.final_db() == pytest.approx(plain.final_db(), abs=0.01)
    assert [row.layer for row in ending.rows] == [row.layer for row in plain.rows]


def test_many_images_are_measured_in_groups() -> None:
    quantized, images = quantized_tiny(Activation.NONE), tiny_batch(11)
    whole, in_groups = (
        sum_noise(quantized, {}, groups, lambda _n: None) for groups in ([images], [images[:8], images[8:]])
    )
    assert in_groups[0] == pytest.approx(whole[0], rel=1e-5)
    for name, noise in whole[1].items():
        assert in_groups[1][name].together == pytest.approx(noise.together, rel=1e-3, abs=1e-6), name


def test_a_corrected_bias_does_not_count_as_noise_of_its_layer() -> None:
    quantized, images = quantized_tiny(Activation.NONE), tiny_batch(8)
    kernel = quantized.kernels["pointwise"]
    moved = dataclasses.replace(kernel, bias=kernel.bias + np.int32(3000))
    corrected = dataclasses.replace(quantized, kernels={**quantized.kernels, "pointwise": moved})

    def weights_noise(one: QuantizedGraph) -> float:
        _, noise = noise_alone(one, {}, images, lambda i: suffix(one.graph, i), lambda _n: None)
        return noise["pointwise"].weights

    assert 0 < weights_noise(corrected) <= weights_noise(quantized)


# Statistics


def test_tensor_sums_are_worked_out_by_hand() -> None:
    sums = TensorSums(TensorScale(0.5, 10), np.float32([1, 2]))
    truth = np.float32([[[[1.0, -2.0]], [[0.125, 200.0]]]])  # in steps 12, 6 | 10.5, 810
    integers = np.uint8([[[[12, 6]], [[10, 255]]]])
    sums.add(truth, {"a": integers, "b": integers})
    assert sums.signal == pytest.approx(1 + 4 + 0.125**2 + 200**2)
    assert sums.noise["a"] == sums.noise["b"] == pytest.approx(0.125**2 + (200 - 61.25) ** 2)
    assert (sums.values, sums.clipped) == (4, 1)
    assert sums.rounding == pytest.approx(0.25 + 555**2)
    assert sums.clipping == pytest.approx(555**2)
    np.testing.assert_allclose(sums.channel_steps, [6, 244.5])
    assert sums.fp32.sum() == 3
    assert sums.int8.sum() == 4
    assert sums.int8[63] == 1
    assert sums.dead_channels == 0


def test_a_channel_that_never_changes_is_dead() -> None:
    sums = TensorSums(TensorScale(1.0, 0), np.ones(2, np.float32))
    for value, dead in ((3.0, 0), (4.0, 1)):  # one value of each channel tells nothing
        sums.add(np.float32([[[[value]], [[0.0]]]]), {"a": np.zeros((1, 2, 1, 1), np.uint8)})
        assert sums.dead_channels == dead


def test_weights_in_steps_round_to_the_integers() -> None:
    quantized = quantized_tiny()
    for node in quantized.graph.kernels():
        steps = np.rint(weights_in_steps(quantized, {}, node))
        np.testing.assert_array_equal(steps, quantized.kernels[node.name].weight, err_msg=node.name)


# Equalization: everything in original units


def equalized_pair() -> tuple[QuantizedGraph, QuantizedGraph, dict[str, FloatArray]]:
    """A network quantized after equalization: with the graph that was quantized, and with the original."""
    graph = tiny_graph(3, Activation.RELU)
    times = np.float32([0.5, 1, 2, 4, 8, 0.25, 3, 1])
    nodes = {node.name: node for node in graph.kernels()}
    depthwise, pointwise = nodes["depthwise"], nodes["pointwise"]
    scaled = changed(
        graph,
        depthwise=dataclasses.replace(
            depthwise, weight=depthwise.weight * times.reshape(-1, 1, 1, 1), bias=depthwise.bias * times
        ),
        pointwise=dataclasses.replace(pointwise, weight=pointwise.weight / times.reshape(1, -1, 1, 1)),
    )
    quantized = quantized_of(scaled, tiny_batch(8))
    return quantized, dataclasses.replace(quantized, graph=graph), {"depthwise": times}


def test_an_equalized_file_is_compared_in_original_units() -> None:
    plain, original, factors = equalized_pair()
    images = tiny_batch(4)
    expected = {row.layer: row for row in report_of(plain, images).rows}
    for row in report_of(original, images, factors).rows:
        facts, other = row.facts, expected[row.layer].facts
        assert facts.share_percent == pytest.approx(other.share_percent, rel=0.02, abs=0.02), row.layer
        assert facts.median_steps == pytest.approx(other.median_steps, rel=1e-3), row.layer
        assert (facts.weight_spread or 0) == pytest.approx(other.weight_spread or 0, rel=1e-4), row.layer
        if row.layer != "depthwise":  # the only tensor whose units differ
            assert row.sqnr_db["litert"] == pytest.approx(expected[row.layer].sqnr_db["litert"], abs=0.05)
        else:
            assert row.sqnr_db["litert"] > 25
    assert min(row.sqnr_db["litert"] for row in report_of(original, images).rows) < 10


def bundle_with(folder: Path, data: bytes | None) -> Bundle:
    """A bundle of which only the factors are read."""
    if data is None:
        return Bundle(folder, {})
    (folder / EQUALIZATION).write_bytes(data)
    return Bundle(folder, {"equalization_sha256": hashlib.sha256(data).hexdigest()})


def test_equalization_is_read_from_the_bundle_where_it_is(tmp_path: Path) -> None:
    graph = tiny_graph()
    assert read_equalization(bundle_with(tmp_path, None), graph) == ({}, {})
    times = {"stem": np.linspace(1, 2, 8, dtype=np.float32)}
    written = bundle_with(tmp_path, safetensors.numpy.save(times))
    np.testing.assert_array_equal(read_equalization(written, graph)[0]["stem"], times["stem"])
    (tmp_path / EQUALIZATION).write_bytes(safetensors.numpy.save({"stem": 2 * times["stem"]}))
    with pytest.raises(DamagedInputError, match="changed since it was exported"):
        read_equalization(written, graph)


@pytest.mark.parametrize(
    "factors",
    [
        {"nowhere": np.ones(8, np.float32)},
        {"stem": np.ones(7, np.float32)},
        {"stem": np.ones(8, np.float64)},
        {"stem": np.zeros(8, np.float32)},
        {"stem": np.full(8, np.nan, np.float32)},
        None,
    ],
)
def test_equalization_that_does_not_fit_is_damaged(
    factors: dict[str, np.ndarray] | None, tmp_path: Path
) -> None:
    data = b"no tensors" if factors is None else safetensors.numpy.save(factors)
    with pytest.raises(DamagedInputError, match=EQUALIZATION):
        read_equalization(bundle_with(tmp_path, data), tiny_graph())


# A planted bad layer


def plant(graph: Graph, first: str, second: str, channel: int, times: float) -> Graph:
    """Multiply one output channel of a layer, and undo it exactly in the layer after it (of ReLUs or linear)."""
    nodes = {node.name: node for node in graph.kernels()}
    one, two = nodes[first], nodes[second]
    weight, bias, after = one.weight.copy(), one.bias.copy(), two.weight.copy()
    weight[channel] *= np.float32(times)
    bias[channel] *= np.float32(times)
    if isinstance(two, Conv2d) and two.is_depthwise:
        after[channel] /= np.float32(times)
    else:
        after[:, channel] /= np.float32(times)
    return changed(
        graph,
        **{first: dataclasses.replace(one, weight=weight, bias=bias)},
        **{second: dataclasses.replace(two, weight=after)},
    )


def with_relu(graph: Graph) -> Graph:
    """ReLU6 → ReLU, which factors pass through."""
    nodes = [
        dataclasses.replace(node, activation=Activation.RELU)
        if isinstance(node, Conv2d) and node.activation is Activation.RELU6
        else node
        for node in graph.nodes
    ]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def liveliest(graph: Graph, tensor: str, images: FloatArray) -> int:
    (truth,) = watch(graph, [images[:1]])
    return int(truth[tensor].max(axis=(0, 2, 3)).argmax())


def test_a_planted_bad_layer_of_v1_comes_first_and_is_to_be_equalized(v1: Exported) -> None:
    """Its widest channel × 200, the depthwise layer after it ÷ 200: the same function, and a wrecked range."""
    graph, images = with_relu(v1.graph), v1.images[:4]
    layers = list(graph.kernels())
    first, second = layers[12].name, layers[13].name
    bad = plant(graph, first, second, liveliest(graph, first, images), 200)
    truth = run(graph, images[:1])
    np.testing.assert_allclose(run(bad, images[:1]), truth, atol=1e-3 * np.abs(truth).max())
    quantized = quantized_of(bad, images, -1.01, 1.01)
    report = report_of(quantized, images[:2])
    worst, *_ = report.worst(1)
    assert worst.layer == first
    assert worst.facts.share_percent > 50
    assert worst.facts.activations_percent > worst.facts.weights_percent
    assert worst.facts.weight_spread is not None
    assert worst.facts.weight_spread > 50
    assert worst.remedy is Remedy.EQUALIZE
    healthy, *_ = report_of(quantized_of(graph, images, -1.01, 1.01), images[:2]).worst(1)
    assert healthy.layer != first


def test_a_planted_bad_bottleneck_of_v2_comes_first(v2: Exported) -> None:
    """A linear bottleneck that no Add reads, and the expansion after it."""
    names = {node.name: node for node in v2.graph.kernels()}
    alone = [name for name in names if len(v2.graph.consumers(name)) == 1]
    first = next(
        name
        for name in alone[8:]
        if isinstance(v2.graph.consumers(name)[0], Conv2d)
        and getattr(names[name], "activation", None) is Activation.NONE
    )
    second = v2.graph.consumers(first)[0].name
    images = v2.images[:2]
    bad = plant(v2.graph, first, second, 5, 200)
    worst, *_ = report_of(quantized_of(bad, images, -2.2, 2.7), images).worst(1)
    assert worst.layer == first
    assert worst.remedy is Remedy.EQUALIZE


# Remedies

FACTS = LayerFacts(20.0, 5.0, 15.0, 0.1, 10.0, 120.0, 3.0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "remedy", "reason"),
    [
        ({"share_percent": 1.9}, Remedy.NONE, ""),
        ({"weights_percent": 16.0, "activations_percent": 4.0}, Remedy.GPTQ, "80 % by weights"),
        (
            {"weights_percent": 16.0, "activations_percent": 4.0, "lost_inputs": 2},
            Remedy.EQUALIZE,
            "2 inputs round to 0",
        ),
        (
            {"weights_percent": 16.0, "activations_percent": 4.0, "one_scale": True},
            Remedy.PER_CHANNEL,
            "80 % by weights",
        ),
        ({"clipping_percent": 60.0}, Remedy.WIDEN, "60 % by clipping"),
        ({"median_steps": 3.0, "clipping_percent": 60.0}, Remedy.EQUALIZE, "median channel 3/255"),
        ({"median_steps": 3.0, "equalized": True}, Remedy.TRAIN, "median channel 3/255"),
        ({"median_steps": 3.0, "is_end": True}, Remedy.NONE, "8 bits cost this"),
        ({}, Remedy.TRAIN, "median channel 120/255"),
    ],
)
def test_a_remedy_follows_from_the_facts(changes: dict[str, object], remedy: Remedy, reason: str) -> None:
    facts = dataclasses.replace(FACTS, **changes)  # type: ignore[arg-type]
    assert choose_remedy(facts) is remedy
    assert explain(remedy, facts) == reason
    assert remedy.advice


@pytest.mark.parametrize(
    ("changes", "tried", "remedy", "reason"),
    [
        ({"weights_percent": 16.0, "activations_percent": 4.0}, "rounding", Remedy.TRAIN, "80 % by weights"),
        (
            {"weights_percent": 16.0, "activations_percent": 4.0, "lost_inputs": 2},
            "equalize_all",
            Remedy.GPTQ,
            "80 % by weights",
        ),
        ({"median_steps": 3.0}, "equalize_all", Remedy.TRAIN, "median channel 3/255"),
    ],
)
def test_what_the_quantizer_has_tried_is_no_remedy(
    changes: dict[str, object], tried: str, remedy: Remedy, reason: str
) -> None:
    facts = dataclasses.replace(FACTS, **changes)  # type: ignore[arg-type]
    assert choose_remedy(facts, {tried}) is remedy
    assert explain(remedy, facts) == reason


def test_the_spread_of_weights_is_the_widest_channel_over_the_median() -> None:
    assert weight_spread(np.float32([[1, -2], [0.5, 1], [-30, 0]])) == pytest.approx(15)


def test_a_live_input_whose_weights_round_to_nothing_is_lost() -> None:
    quantized = quantized_tiny(Activation.RELU)
    node = next(node for node in quantized.graph.kernels() if isinstance(node, FullyConnected))
    kernel = quantized.kernels["fc"]
    weight = kernel.weight.copy()
    weight[:, 2] = weight[:, 3] = 0
    kernels = {**quantized.kernels, "fc": dataclasses.replace(kernel, weight=weight)}
    source = TensorSums(quantized.tensors["pool"], np.ones(8, np.float32))
    source.lowest, source.highest = np.zeros(8), np.float64([1, 1, 1, 0, 1, 1, 1, 1])
    assert lost_inputs(dataclasses.replace(quantized, kernels=kernels), node, source) == 1


# What is shown


@pytest.fixture(scope="module")
def report() -> LayerReport:
    return report_of(quantized_tiny(), tiny_batch(4))


@pytest.mark.parametrize("width", [80, 110, 140])
def test_the_table_fits_the_terminal(report: LayerReport, width: int) -> None:
    stream = io.StringIO()
    print_layers(Console(file=stream, width=width, highlight=False), report, 4, 2)
    lines = stream.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert lines[1].startswith("tiny in int8: ")
    assert sum("litert" in line for line in lines) == 2
    worst = [row.layer for row in report.worst(4)]
    places = [next(i for i, line in enumerate(lines) if line.split(" ")[0] == name) for name in worst]
    assert places == sorted(places)
    assert any("▁" in line or "█" in line for line in lines)


def test_a_sparkline_is_logarithmic_and_shows_what_is_empty() -> None:
    assert sparkline([0, 1, 1000, 10**6]) == " ▁▅█"
    assert sparkline([10**6, 1]) == "█▁"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "  "


def test_json_ranks_every_layer_and_holds_the_histograms_of_the_worst(report: LayerReport) -> None:
    document = report.to_json(2)
    json.dumps(document, allow_nan=False)
    assert [layer["layer"] for layer in document["layers"]] == [row.layer for row in report.rows]
    ranked = sorted(document["layers"], key=lambda layer: layer["rank"])
    assert ranked[0]["share_percent"] == max(layer["share_percent"] for layer in ranked)
    assert [one["layer"] for one in document["histograms"]] == [one["layer"] for one in ranked[:2]]
    for one in document["histograms"]:
        for part in ("weights", "activations"):
            if one[part] is not None:
                assert len(one[part]["edges"]) == len(one[part]["fp32"]) + 1 == len(one[part]["int8"]) + 1
        assert sum(one["activations"]["int8"]) >= sum(one["activations"]["fp32"]) > 0


def test_equal_tensors_have_no_finite_ratio(report: LayerReport) -> None:
    row = dataclasses.replace(report.rows[0], sqnr_db={"litert": math.inf, "onnxruntime": math.inf})
    found = dataclasses.replace(report, rows=(row, *report.rows[1:]))
    assert found.to_json(0)["layers"][0]["sqnr_db"] == {"litert": None, "onnxruntime": None}


def test_the_plot_is_drawn_as_png_and_svg_to_the_same_bytes(report: LayerReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mobilenet_export.cli.layer_plot import draw_layers  # noqa: PLC0415

    for name, head in (("layers.png", b"\x89PNG"), ("layers.svg", b"<?xml")):
        paths = [tmp_path / name, tmp_path / f"again_{name}"]
        for path in paths:
            draw_layers(report, path, 2)
        assert paths[0].read_bytes().startswith(head)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    text = (tmp_path / "layers.svg").read_text()
    assert "<dc:date>" not in text


# The command line


def test_analyze_shows_a_table_and_writes_json(
    bundle: Path,  # noqa: F811
    checkpoint: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    arguments = ["analyze", bundle, "--checkpoint", checkpoint, "--limit", 2]
    printed = mnx(*arguments, "--top", 5)
    assert printed.code == 0, printed.err
    assert "mobilenet_v2_025_96 in int8" in printed.out
    assert "2 images of default" in printed.out
    assert "noise of each layer alone" in printed.err
    document = json.loads(mnx(*arguments, "--json").out)
    assert document["files"] == {
        "litert": "mobilenet_v2_025_96_int8.tflite",
        "onnxruntime": "mobilenet_v2_025_96_int8.onnx",
    }
    assert f"5 of {len(document['layers'])} layers" in printed.out
    drift = json.loads((bundle / "mnx.json").read_text())["drift"]["rows"]
    whole = next(row["sqnr_db"] for row in drift if row["file"].endswith("int8.onnx"))
    assert document["sqnr_db"]["onnxruntime"] == pytest.approx(whole, abs=6)  # 2 images, not 32


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["nowhere"], 2, "nowhere is not a bundle: it has no mnx.json", "mnx export"),
        (["."], 2, "is not a bundle", "mnx export"),
        ([], 2, "Missing argument", "--help"),
        ([".", "--limit", "0"], 2, "Invalid value for '--limit'", "--help"),
        ([".", "--top", "0"], 2, "Invalid value for '--top'", "--help"),
        ([".", "--plot", "layers.pdf"], 2, "--plot layers.pdf: neither .png nor .svg", "layers.png"),
        ([".", "--plot", "layers"], 2, "--plot layers: neither .png nor .svg", "layers.svg"),
        ([".", "--plot", "no/layers.png"], 2, "--plot no/layers.png: no such folder: no", "folder"),
    ],
)
def test_what_cannot_be_analyzed_is_said(
    arguments: list[str],
    code: int,
    message: str,
    hint: str,
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    printed = mnx("analyze", *arguments)
    assert printed.code == code
    assert message in printed.error
    assert hint in printed.hint


def test_a_plot_without_matplotlib_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = mnx("analyze", ".", "--plot", "layers.png")
    assert printed.code == 3
    assert printed.error == "--plot needs matplotlib, which is not installed"
    assert "mobilenet-export[plot]" in printed.hint


def copy_without(bundle: Path, precision: str) -> None:  # noqa: F811
    shutil.copytree(bundle, "copy")
    document = json.loads(Path("copy/mnx.json").read_text())
    document["files"] = [entry for entry in document["files"] if entry["precision"] != precision]
    Path("copy/mnx.json").write_text(json.dumps(document))


def test_a_bundle_without_int8_is_said(
    bundle: Path,  # noqa: F811
    checkpoint: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    copy_without(bundle, "int8")
    printed = mnx("analyze", "copy", "--checkpoint", checkpoint)
    assert printed.code == 2
    assert printed.error == "copy holds no int8 file"
    assert "--int8" in printed.hint


def test_the_users_own_weights_are_asked_for(
    bundle: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    printed = mnx("analyze", bundle)
    assert printed.code == 2
    assert "exported from mine.safetensors" in printed.error
    assert "--checkpoint" in printed.hint


def test_files_of_two_exports_are_damaged() -> None:
    first, second = quantized_tiny(), quantized_of(tiny_graph(3), tiny_batch(8, seed=5))
    artifacts = tuple(
        Artifact(f"{name}.onnx", "onnx", "int8", write_int8(one, "float32"))
        for name, one in (("a", first), ("b", second))
    )
    assert shared_integers(artifacts[:1], first.graph).kernels.keys() == first.kernels.keys()
    with pytest.raises(DamagedInputError, match=r"b.onnx holds other integers than a.onnx"):
        shared_integers(artifacts, first.graph)
