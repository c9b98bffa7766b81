"""The referee: integers read back from every file, and a runtime's logits against exact arithmetic, in steps."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Exported, tiny_batch, tiny_graph
from onnx import numpy_helper
from test_cli import Printed, bundle, checkpoint, exported, mnx  # noqa: F401 (fixtures)

from mobilenet_export.agent.check import MOST_STEPS
from mobilenet_export.artifact import Artifact, InputOutput
from mobilenet_export.checks.drift import Evidence, Subject, measure_drift
from mobilenet_export.checks.referee import (
    REFEREED_IMAGES,
    RefereeSums,
    exact_logits,
    has_referee,
    same_integers,
    to_steps,
)
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.formats import Format
from mobilenet_export.graph import FloatArray, FullyConnected, Graph
from mobilenet_export.interpreter import run_quantized
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.pipeline.evidence import appoint_referees, load_subjects, read_integers
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantized import QuantizedGraph, TensorScale
from mobilenet_export.report import DriftReport, Referee
from mobilenet_export.runtimes import Setup, available_runtimes
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import watch

FORMS: tuple[Format, ...] = tuple(load_plugin("formats", name) for name in plugin_names("formats"))
SPELLINGS = [(form, io) for form in FORMS for io in form.io]
NAMES = [f"{form.name} {io}" for form, io in SPELLINGS]


def quantized_tiny(*, softmax: bool = False, seed: int = 0) -> QuantizedGraph:
    graph = fold_normalization(tiny_graph(seed, softmax=softmax), (0.5,) * 3, (0.25,) * 3)
    assert graph.pixels is not None
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), graph.pixels.bounds)
    return quantize_graph(graph, ranges, saturation_safe=True)


# Reading back


@pytest.mark.parametrize(("form", "io"), SPELLINGS, ids=NAMES)
@pytest.mark.parametrize("softmax", [False, True])
def test_what_is_read_is_what_was_written(form: Format, io: InputOutput, softmax: bool) -> None:
    written = quantized_tiny(softmax=softmax)
    data = form.write_int8(written, io)
    found = form.read_int8(data, written.graph)
    assert same_integers(written, found)
    assert list(found.tensors) == list(written.tensors)
    assert form.write_int8(found, io) == data


def test_the_integers_of_a_real_bundle_are_the_quantizers(real: Exported) -> None:
    for artifact in real.artifacts:
        if artifact.precision == "int8":
            assert same_integers(read_integers(artifact, real.pixel_graph), real.quantized), artifact.file


def without_constant(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    (found,) = [held for held in model.graph.initializer if held.name == "depthwise.weight/int8"]
    model.graph.initializer.remove(found)
    return bytes(model.SerializeToString())


def changed(name: str, value: np.ndarray) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        (found,) = [held for held in model.graph.initializer if held.name == name]
        found.CopyFrom(numpy_helper.from_array(value, name))
        return bytes(model.SerializeToString())

    return change


BAD_ONNX: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a weight is missing": (without_constant, "it holds no depthwise.weight/int8"),
    "another shape": (changed("fc.bias/int32", np.zeros(4, np.int32)), r"the bias of fc is int32 \(4,\)"),
    "another type": (changed("fc.bias/int32", np.zeros(5, np.float32)), "the bias of fc is float32"),
    "asymmetric weights": (changed("fc.weight/zero_point", np.ones(5, np.int8)), "not symmetric"),
    "another bias scale": (
        changed("fc.bias/scale", np.ones(5, np.float32)),
        "the bias of fc is not in steps",
    ),
    "a scale of 0": (changed("add/scale", np.float32([0])), "the scale of add is 0"),
    "a scale per channel": (changed("add/scale", np.ones(8, np.float32)), "add has not one scale"),
    "not a model": (lambda _: b"garbage", "not an ONNX model"),
    "nothing": (lambda _: b"", "not an ONNX model"),
}


@pytest.mark.parametrize(("change", "reason"), BAD_ONNX.values(), ids=BAD_ONNX)
def test_onnx_integers_that_do_not_fit_are_named(change: Callable[[bytes], bytes], reason: str) -> None:
    written = quantized_tiny()
    form: Format = load_plugin("formats", "onnx")
    data = change(form.write_int8(written, "float32"))
    with pytest.raises(ValueError, match=reason):
        form.read_int8(data, written.graph)


def test_tflite_integers_that_do_not_fit_are_named() -> None:
    written, form = quantized_tiny(), load_plugin("formats", "tflite")
    data, nodes = form.write_int8(written, "float32"), written.graph.nodes
    wide = FullyConnected("fc", "pool", np.zeros((5, 9), np.float32), np.zeros(5, np.float32))
    foreign = FullyConnected("head", "pool", np.zeros((5, 8), np.float32), np.zeros(5, np.float32))
    for changed_nodes, reason in (
        ((*nodes[:-1], wide), r"the weight of fc is int8 \(5, 8\), not int8 \(5, 9\)"),
        ((*nodes[:-1], foreign), "output is not int8 with one scale"),
    ):
        graph = Graph("t", "input", (3, 16, 16), changed_nodes)
        with pytest.raises(ValueError, match=reason):
            form.read_int8(data, graph)
    with pytest.raises(ValueError, match="input is not int8 with one scale"):
        form.read_int8(form.write_float(written.graph, "fp32"), written.graph)


@pytest.mark.parametrize("length", [0, 3, 8, 100, 1000, 4000])
def test_a_tflite_file_that_is_cut_off_is_refused(length: int) -> None:
    written, form = quantized_tiny(), load_plugin("formats", "tflite")
    data = form.write_int8(written, "float32")
    assert length < len(data)
    with pytest.raises(ValueError):  # noqa: PT011 (numpy's own message, or ours)
        form.read_int8(data[:length], written.graph)


def test_the_pipeline_says_that_such_a_file_is_damaged(small_v2: Exported) -> None:
    foreign = Artifact("f.onnx", "onnx", "int8", small_v2.artifact("onnx", "fp32").data)
    with pytest.raises(
        DamagedInputError, match=r"f.onnx: not the integers of mobilenet_v2_025_96: it holds no"
    ):
        read_integers(foreign, small_v2.pixel_graph)


# Figures


def test_steps_are_the_integers_behind_dequantized_logits() -> None:
    scale = TensorScale(0.1, 77)
    integers = np.arange(256)
    logits = (integers.astype(np.float32) - np.float32(77)) * np.float32(0.1)
    np.testing.assert_array_equal(to_steps(logits, scale), integers)
    far = to_steps(np.float32([np.inf, -np.inf, np.nan]), scale)
    assert np.abs(far).min() > 1e5


def test_figures_are_the_largest_difference_and_the_share_that_is_equal() -> None:
    sums = RefereeSums()
    assert sums.figures is None
    sums.add(np.uint8([[1, 2, 3, 255]]), np.array([[1, 2, 5, 254]]))
    sums.add(np.uint8([[0, 2, 3, 4]]), np.array([[0, 2, 3, 4]]))
    assert sums.figures == Referee(2, 75.0, 2)


def test_the_exact_logits_are_the_interpreters() -> None:
    quantized, batch = quantized_tiny(), tiny_batch(5)
    integers = exact_logits(quantized, batch)
    assert integers.dtype == np.uint8
    scale = quantized.tensors["fc"]
    np.testing.assert_array_equal(to_steps(run_quantized(quantized, batch), scale), integers)


class Shifted:
    """A session that is right but for one output of every image, which is some steps off."""

    runtime, provider, resolution_px = "shifted", "CPU", None

    def __init__(self, quantized: QuantizedGraph, steps: int) -> None:
        self._quantized, self._steps = quantized, steps

    def run(self, batch: FloatArray) -> FloatArray:
        logits = run_quantized(self._quantized, batch)
        logits[:, 1] += np.float32(self._steps * self._quantized.tensors["fc"].scale)
        return logits


def drift_of(quantized: QuantizedGraph, *, integers: QuantizedGraph | None, count: int) -> DriftReport:
    subject = Subject(Artifact("q.onnx", "onnx", "int8", b""), Shifted(quantized, 3), integers)
    batches = [((str(i),), tiny_batch(1, seed=i)) for i in range(count)]
    return measure_drift(Shifted(quantized, 0), [subject], Evidence("tiny", batches, {}), probabilities=False)


def test_a_kernel_that_is_three_steps_off_is_caught_on_the_first_images() -> None:
    quantized = quantized_tiny()
    (row,) = drift_of(quantized, integers=quantized, count=REFEREED_IMAGES + 3).rows
    assert row.referee == Referee(3, 80.0, REFEREED_IMAGES)
    (row,) = drift_of(quantized, integers=quantized, count=2).rows
    assert row.referee == Referee(3, 80.0, 2)


def test_without_integers_there_is_no_referee_and_json_says_null() -> None:
    report = drift_of(quantized_tiny(), integers=None, count=2)
    assert report.rows[0].referee is None
    assert report.to_json()["rows"][0]["referee"] is None
    quantized = quantized_tiny()
    document = drift_of(quantized, integers=quantized, count=2).to_json()
    assert document["rows"][0]["referee"] == {"largest_lsb": 3, "equal_percent": 80.0, "images": 2}


def test_probabilities_have_no_referee() -> None:
    quantized = quantized_tiny(softmax=True)
    assert not has_referee(quantized)
    for form in FORMS:
        (engine, *_) = [engine for engine in available_runtimes() if form.name in engine.formats]
        artifact = Artifact(f"q{form.extension}", form.name, "int8", form.write_int8(quantized, "float32"))
        subject = Subject(artifact, engine.open(artifact), quantized)
        evidence = Evidence("tiny", [(("1", "2"), tiny_batch(2))], {})
        (row,) = measure_drift(subject.session, [subject], evidence, probabilities=True).rows
        assert row.referee is None


def test_real_networks_are_bit_equal_in_onnxruntime_and_nearly_in_litert(real: Exported) -> None:
    """Every type of input and output included."""
    artifacts = [artifact for artifact in real.artifacts if artifact.precision == "int8"]
    loaded = load_subjects(artifacts, available_runtimes(), real.source.spec)
    subjects, notes = appoint_referees(loaded, real.pixel_graph, ours=True)
    assert notes == ()
    assert len({id(subject.integers) for subject in subjects}) == 1
    evidence = Evidence("few", [(("a", "b", "c"), real.images[:3])], {})
    report = measure_drift(real.source.reference, subjects, evidence, probabilities=False)
    for row in report.rows:
        assert row.referee is not None
        assert row.referee.images == 3
        assert math.isclose(row.referee.equal_percent, 100) == (row.referee.largest_lsb == 0)
        assert row.referee.largest_lsb <= (0 if row.runtime == "onnxruntime" else 4), row


def test_litert_without_xnnpack_is_a_few_steps_off_and_the_referee_says_so(real: Exported) -> None:
    """Its builtin kernels multiply in fixed point; as tflite-runtime's."""
    artifact = real.artifact("tflite", "int8")
    session = LiteRuntime().open(artifact, Setup(provider="builtin"))
    evidence = Evidence("few", [(("a", "b", "c"), real.images[:3])], {})
    subject = Subject(artifact, session, real.quantized)
    (row,) = measure_drift(real.source.reference, [subject], evidence, probabilities=False).rows
    assert row.provider == "builtin"
    assert row.referee is not None
    assert 1 <= row.referee.largest_lsb <= MOST_STEPS
    assert 25 < row.referee.equal_percent < 100


def test_another_tools_int8_file_is_measured_without_a_referee_and_a_note_says_so(small_v2: Exported) -> None:
    model = onnx.load_from_string(small_v2.artifact("onnx", "int8").data)
    for held in model.graph.initializer:
        held.name = f"other/{held.name}"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name.endswith(("scale", "zero_point", "int8", "int32", "gain", "shift")):
                node.input[index] = f"other/{name}"
    artifact = Artifact("other.onnx", "onnx", "int8", bytes(model.SerializeToString()))
    loaded = load_subjects([artifact], available_runtimes(), small_v2.source.spec)
    (subject,), (note,) = appoint_referees(loaded, small_v2.pixel_graph, ours=False)
    assert subject.integers is None
    assert note.startswith("no referee: other.onnx: not the integers of")
    with pytest.raises(DamagedInputError):
        appoint_referees(loaded, small_v2.pixel_graph, ours=True)


# The command line


def test_export_and_validate_show_the_referee(
    bundle: Path,  # noqa: F811
    checkpoint: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    rows = json.loads((bundle / "mnx.json").read_text())["drift"]["rows"]
    for row in rows:
        assert (row["referee"] is not None) == (row["precision"] == "int8")
    printed = mnx("validate", bundle, "--checkpoint", checkpoint, "--limit", 3)
    assert "referee" in printed.out
    assert "bit-equal" in printed.out
    assert "referee: logits of the first 3 images" in printed.out
    assert "capture" in printed.err
    junit = mnx("validate", bundle, "--checkpoint", checkpoint, "--limit", 2, "--report", "junit")
    assert "<system-out>referee: bit-equal on 2 images</system-out>" in junit.out


def test_validate_captures_nothing_where_no_file_is_int8(
    bundle: Path,  # noqa: F811
    checkpoint: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    file = bundle / "mobilenet_v2_025_96_fp32.onnx"
    printed = mnx("validate", file, "--checkpoint", checkpoint, "--limit", 2)
    assert printed.code == 0
    assert "capture" not in printed.err
    assert "referee" not in printed.out


def test_a_file_whose_integers_are_gone_is_damaged(
    bundle: Path,  # noqa: F811
    checkpoint: Path,  # noqa: F811
    mnx: Callable[..., Printed],  # noqa: F811
) -> None:
    shutil.copytree(bundle, "copy")
    document = json.loads(Path("copy/mnx.json").read_text())
    float_file = Path("copy/mobilenet_v2_025_96_fp32.onnx")
    for entry in document["files"]:
        if entry["path"] == float_file.name:
            entry["precision"] = "int8"
    Path("copy/mnx.json").write_text(json.dumps(document))
    printed = mnx("validate", float_file, "--checkpoint", checkpoint, "--limit", 2)
    assert printed.code == 4
    assert "not the integers of" in printed.err
