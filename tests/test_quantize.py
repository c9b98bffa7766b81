"""The quantizer: scales, ranges, biases, and steps that are kept only where they help."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Exported, tiny_batch, tiny_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.graph import (
    UNCLAMPED,
    Activation,
    Add,
    Conv2d,
    FloatArray,
    FullyConnected,
    GlobalAveragePool,
    Graph,
)
from mobilenet_export.interpreter import accumulate, run, walk, walk_quantized
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantize.bias_correction import ChannelMeans, channel_means
from mobilenet_export.quantize.calibrate import (
    Activations,
    Expectation,
    NotFiniteError,
    Ranges,
    calibrate,
    find_ranges,
    observe,
)
from mobilenet_export.quantize.observers import Extremes
from mobilenet_export.quantize.post_training import (
    CalibrationData,
    post_training,
    quantize_graph,
    quantize_kernel,
    tensor_scale,
    weight_scale,
)
from mobilenet_export.quantize.saturation import largest_pair_sum, reduction_rows, saturation_safe_scale
from mobilenet_export.quantize.sequential import Rebuild, rebuild
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe, find_recipe, read_recipe, recipe_names
from mobilenet_export.runtimes import runtime
from mobilenet_export.runtimes.onnxruntime import watch

PIXELS = (-1.0, 1.0)


def activations(graph: Graph, batch: FloatArray) -> Iterator[Activations]:
    return watch(graph, iter([batch]))


def ranges_of(graph: Graph, batch: FloatArray) -> Ranges:
    return calibrate(graph, activations(graph, batch), PIXELS)


def quantized_tiny(**changes: object) -> tuple[Graph, QuantizedGraph]:
    graph = tiny_graph(**changes)  # type: ignore[arg-type]
    return graph, quantize_graph(graph, ranges_of(graph, tiny_batch(8)), saturation_safe=True)


# Saturation

WEIGHTS = arrays.arrays(
    np.float32,
    st.one_of(
        st.tuples(st.integers(1, 3), st.integers(1, 17)),
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.sampled_from([1, 3]), st.sampled_from([1, 3])),
    ),
    elements=st.floats(-4, 4, width=32),
)


def worst_pair(rounded: np.ndarray) -> int:
    """By the definition, one pair after the other: neighbours in (kh, kw, in-channel) order with equal signs."""
    worst = 0
    for filters in rounded:
        row = np.moveaxis(filters, 0, -1).ravel() if filters.ndim == 3 else filters
        for first, second in zip(row[0::2], row[1::2], strict=False):
            if (first > 0 and second > 0) or (first < 0 and second < 0):
                worst = max(worst, abs(int(first) + int(second)))
    return worst


@given(WEIGHTS)
def test_no_pair_of_rounded_weights_saturates(weight: FloatArray) -> None:
    peak = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    least = np.maximum(peak / np.float32(127), np.float32(1e-10))
    scale = saturation_safe_scale(weight, least)
    rounded = np.rint(weight / scale.reshape((-1,) + (1,) * (weight.ndim - 1)))
    assert np.abs(rounded).max() <= 127
    assert worst_pair(rounded) <= 128
    assert (scale >= least).all()
    assert scale.dtype == np.float32


@given(WEIGHTS)
def test_a_scale_is_enlarged_no_more_than_a_pair_needs(weight: FloatArray) -> None:
    """A pair that would sum to 254 is halved; rounding may cost a few steps of 1/512 more."""
    least = np.maximum(
        np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(127), np.float32(1e-10)
    )
    assert (saturation_safe_scale(weight, least) <= least * np.float32(254 / 128 * 1.02)).all()


def test_weights_without_an_unsafe_pair_keep_their_scale() -> None:
    weight = np.float32([[1.0, -1.0, 0.5, 0.4, 1.0]])  # opposite signs, a small pair, and an odd one out
    scale = np.float32([1 / 127])
    np.testing.assert_array_equal(saturation_safe_scale(weight, scale), scale)


def test_a_pair_of_largest_weights_is_halved() -> None:
    weight = np.float32([[1.0, 1.0]])
    rounded = np.rint(weight / saturation_safe_scale(weight, np.float32([1 / 127])))
    np.testing.assert_array_equal(rounded, [[64, 64]])


def test_pairs_are_neighbours_in_kernel_position_then_channel_order() -> None:
    weight = np.arange(12).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(reduction_rows(weight)[0], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    assert largest_pair_sum(np.int8([[127, 127, 3, -127]]))[0] == 254
    assert largest_pair_sum(np.int8([[-127, -2]]))[0] == 129
    assert largest_pair_sum(np.int8([[100]]))[0] == 0


def test_depthwise_kernels_are_left_at_their_best_scale() -> None:
    weight = np.ones((4, 1, 3, 3), np.float32)
    depthwise = Conv2d("d", "input", weight, np.zeros(4, np.float32), groups=4)
    np.testing.assert_allclose(weight_scale(depthwise, 0.1, saturation_safe=True), 1 / 127)
    dense = Conv2d("c", "input", np.ones((4, 2, 3, 3), np.float32), np.zeros(4, np.float32))
    np.testing.assert_allclose(weight_scale(dense, 0.1, saturation_safe=True), 1 / 64, rtol=0.01)
    np.testing.assert_allclose(weight_scale(dense, 0.1, saturation_safe=False), 1 / 127)


def test_every_kernel_of_our_networks_is_saturation_safe(real: Exported) -> None:
    for node in real.graph.kernels():
        kernel = real.quantized.kernels[node.name]
        assert np.abs(kernel.weight.astype(int)).max() <= 127
        if not (isinstance(node, Conv2d) and node.is_depthwise):
            assert largest_pair_sum(kernel.weight).max() <= 128, node.name


def test_the_safety_was_needed(v1: Exported) -> None:
    unsafe = [
        quantize_kernel(node, v1.quantized.tensors[node.input].scale, saturation_safe=False)
        for node in v1.graph.kernels()
        if not (isinstance(node, Conv2d) and node.is_depthwise)
    ]
    assert max(int(largest_pair_sum(kernel.weight).max()) for kernel in unsafe) > 128


# Weights and biases


def test_no_weight_crosses_more_steps_of_its_output_than_xnnpack_takes() -> None:
    graph = tiny_graph(activation=Activation.RELU)
    ranges = dict(ranges_of(graph, tiny_batch(8)))
    ranges |= {"depthwise": (0.0, ranges["depthwise"][1] * 1e-6), "fc": (-1e-6, 1e-6)}
    quantized = quantize_graph(graph, ranges, saturation_safe=True)
    scales = {name: scale.scale for name, scale in quantized.tensors.items()}
    crossed = {
        node.name: quantized.kernels[node.name].scale.max() * scales[node.input] / scales[node.name]
        for node in graph.kernels()
    }
    assert 128 <= crossed["depthwise"] < 256
    assert 128 <= crossed["fc"] < 256
    assert max(crossed.values()) < 256
    data = load_plugin("formats", "tflite").write_int8(quantized, "float32")
    runtime("litert").open(Artifact("tiny.tflite", "tflite", "int8", data)).run(tiny_batch(1))


@given(
    arrays.arrays(np.float32, (3, 4, 1, 1), elements=st.floats(-1e3, 1e3, width=32)),
    arrays.arrays(np.float32, 3, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-6, 10),
)
def test_a_bias_never_overflows(weight: FloatArray, bias: FloatArray, input_scale: float) -> None:
    node = Conv2d("c", "input", weight, bias)
    kernel = quantize_kernel(node, input_scale, saturation_safe=True)
    step = np.float64(input_scale) * kernel.scale.astype(np.float64)
    assert np.abs(kernel.bias.astype(np.int64)).max() <= (1 << 29) * 1.0001  # the scale is float32
    assert (np.abs(kernel.bias * step - bias) <= 0.5001 * step + np.abs(bias) * 1e-6).all()
    spread = np.abs(kernel.weight * kernel.scale.reshape(-1, 1, 1, 1).astype(np.float64) - weight)
    assert (spread <= 0.5001 * kernel.scale.reshape(-1, 1, 1, 1)).all()


def test_a_huge_bias_on_tiny_weights_fits_into_int32() -> None:
    node = Conv2d("c", "input", np.full((1, 3, 1, 1), 1e-9, np.float32), np.float32([1e6]))
    kernel = quantize_kernel(node, 1e-3, saturation_safe=True)
    assert 0 < kernel.bias[0] < 2**31 - 1
    assert kernel.bias[0] * 1e-3 * float(kernel.scale[0]) == pytest.approx(1e6, rel=1e-5)


def test_a_dead_channel_has_weights_of_zero_and_its_bias() -> None:
    node = FullyConnected("fc", "input", np.zeros((2, 4), np.float32), np.float32([0.5, 0.0]))
    kernel = quantize_kernel(node, 0.02, saturation_safe=True)
    assert not kernel.weight.any()
    assert kernel.bias[0] * 0.02 * float(kernel.scale[0]) == pytest.approx(0.5, rel=1e-5)
    assert kernel.bias[1] == 0


# Activations


@given(st.floats(-100, 0), st.floats(0, 100))
def test_a_tensors_scale_holds_its_range_and_zero_exactly(low: float, high: float) -> None:
    assume(high - low > 1e-3)
    scale = tensor_scale(low, high)
    assert 0 <= scale.zero_point <= 255
    lowest, highest = scale.bounds
    assert lowest <= low + 0.51 * scale.scale
    assert highest >= high - 0.51 * scale.scale
    assert highest - lowest == pytest.approx(high - low, rel=1e-5)
    assert np.float32(scale.scale) == scale.scale


def test_a_tensor_that_is_always_zero_has_a_scale() -> None:
    scale = tensor_scale(0.0, 0.0)
    assert scale.scale > 0
    assert scale.zero_point == 0


def test_extremes_are_means_over_images() -> None:
    seen = Extremes()
    for image in ([-1.0, 2.0], [-3.0, 4.0]):
        value = np.float32([image])
        seen.observe(value, value)
    assert seen.mean_range == (-2.0, 3.0)
    assert seen.full_range == (-3.0, 4.0)
    assert seen.scaled_range(np.float32([2, 1])) == (-4.0, 3.0)
    assert seen.magnitude(1.5).tolist() == [4.5, 6.0]


def test_a_shut_channel_is_expected_to_open_by_a_part_of_what_it_varies_by() -> None:
    seen = Extremes()
    seen.observe(np.float32([[0.0, 4.0]]), np.float32([[0.0, 4.0]]))
    seen.observe(np.zeros((1, 2, 1, 1), np.float32), np.float32([-9, 0]).reshape(1, 2, 1, 1))
    shut = Extremes()
    shut.observe(np.zeros((1, 1, 2, 1), np.float32), np.float32([-9, -1]).reshape(1, 1, 2, 1))
    assert shut.magnitude(1.0).tolist() == pytest.approx([0.8])


def test_ranges_are_the_mean_extremes_clamped_by_the_activation() -> None:
    graph, batch = tiny_graph(), tiny_batch(3)
    ranges = ranges_of(graph, batch)
    tensors = [dict(walk(graph, batch[i : i + 1])) for i in range(3)]
    for node in graph.nodes:
        if node.name == graph.logits:
            continue
        low = np.mean([float(values[node.name].min()) for values in tensors])
        high = np.mean([float(values[node.name].max()) for values in tensors])
        assert ranges[node.name] == pytest.approx((min(low, 0), max(high, 0)), rel=1e-4, abs=1e-5)
    assert ranges["input"] == PIXELS
    assert ranges["stem"][0] == 0.0
    assert ranges["stem"][1] <= 6.0


def test_a_range_after_relu6_never_leaves_its_bounds() -> None:
    graph = tiny_graph()
    images = [{node.name: np.float32([[-5.0, 50.0]]) for node in graph.nodes}]
    ranges = calibrate(graph, images, PIXELS)
    assert ranges["stem"] == (0.0, 6.0)
    assert ranges["pointwise"] == (-5.0, 50.0)


def test_logits_get_the_full_range_and_what_they_may_reach_beyond() -> None:
    graph = tiny_graph(softmax=True)
    images = [
        {node.name: np.float32([[low, high]]) for node in graph.nodes} for low, high in ((-1, 2), (-2, 1))
    ]
    seen = observe(graph, images)
    assert find_ranges(graph, seen, PIXELS, Expectation(logits_reach=1.5))["fc"] == (-2.0, 3.0)


def test_zero_lies_in_every_range() -> None:
    graph = tiny_graph(activation=Activation.NONE)
    images = [{node.name: np.float32([[2.0, 3.0]]) for node in graph.nodes}]
    assert calibrate(graph, images, PIXELS)["pointwise"] == (0.0, 3.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_layer_that_is_not_finite_is_named_with_its_image(value: float) -> None:
    graph = tiny_graph()
    good = {node.name: np.float32([[-1.0, 1.0]]) for node in graph.nodes}
    bad = {name: np.float32([[1.0, value]]) if name in ("pointwise", "fc") else x for name, x in good.items()}
    with pytest.raises(NotFiniteError, match="image 2: layer pointwise gives NaN or infinity") as caught:
        calibrate(graph, [good, good, bad, bad], PIXELS)
    assert (caught.value.layer, caught.value.image) == ("pointwise", 2)


def test_an_overflow_that_relu6_hides_is_found() -> None:
    graph = tiny_graph()
    node = dataclasses.replace(graph.nodes[0], weight=np.full((8, 3, 3, 3), 3e38, np.float32))  # type: ignore[call-arg]
    graph = dataclasses.replace(graph, nodes=(node, *graph.nodes[1:]))
    with pytest.raises(NotFiniteError, match="layer stem"):
        ranges_of(graph, np.ones((1, 3, 16, 16), np.float32))


def test_large_values_that_are_finite_are_no_overflow() -> None:
    graph = tiny_graph(activation=Activation.NONE)
    images = [{node.name: np.full((1, 8), 3e38, np.float32) for node in graph.nodes}]
    assert calibrate(graph, images, PIXELS)["pointwise"][1] == pytest.approx(3e38)


def test_every_tensor_up_to_the_logits_has_a_scale_and_probabilities_have_none() -> None:
    graph, quantized = quantized_tiny(softmax=True)
    assert set(quantized.tensors) == {"input"} | {node.name for node in graph.nodes} - {"softmax"}
    assert set(quantized.kernels) == {node.name for node in graph.kernels()}


# Bias correction


def corrected_biases(quantized: QuantizedGraph, batch: FloatArray, means: ChannelMeans) -> QuantizedGraph:
    return rebuild(quantized, batch, Rebuild(means, rounding=False, saturation_safe=True))


def layer_errors(graph: Graph, quantized: QuantizedGraph, batch: FloatArray) -> dict[str, float]:
    """Largest absolute mean error of a layer's channels before its activation, in output steps."""
    means = channel_means(graph, activations(graph, batch))
    integers: dict[str, np.ndarray] = dict(walk_quantized_all(quantized, batch))
    errors = {}
    for node in graph.kernels():
        step = quantized.tensors[node.input].scale * quantized.kernels[node.name].scale.astype(np.float64)
        sums = accumulate(quantized, node, integers[node.input])
        mean = sums.reshape(-1, sums.shape[-1]).mean(axis=0, dtype=np.float64) * step
        errors[node.name] = float(np.abs(mean - means[node.name]).max())
    return errors


def walk_quantized_all(quantized: QuantizedGraph, batch: FloatArray) -> Iterator[tuple[str, np.ndarray]]:
    return iter([(name, value.copy()) for name, value in walk_quantized(quantized, batch)])


@pytest.mark.parametrize("seed", range(4))
def test_bias_correction_takes_the_mean_error_off_every_layer(seed: int) -> None:
    graph, batch = tiny_graph(seed), tiny_batch(6, seed)
    quantized = quantize_graph(graph, ranges_of(graph, batch), saturation_safe=True)
    means = channel_means(graph, activations(graph, batch))
    corrected = corrected_biases(quantized, batch, means)
    before, after = layer_errors(graph, quantized, batch), layer_errors(graph, corrected, batch)
    for node in graph.kernels():
        step = corrected.tensors[node.input].scale * float(corrected.kernels[node.name].scale.max())
        assert after[node.name] <= 0.51 * step, node.name  # the half step that an integer bias rounds off
        assert after[node.name] < before[node.name], node.name


def test_bias_correction_changes_biases_only() -> None:
    graph, quantized = quantized_tiny()
    batch = tiny_batch(4)
    corrected = corrected_biases(quantized, batch, channel_means(graph, activations(graph, batch)))
    assert corrected.tensors == quantized.tensors
    for name, kernel in quantized.kernels.items():
        assert np.array_equal(kernel.weight, corrected.kernels[name].weight)
        assert np.array_equal(kernel.scale, corrected.kernels[name].scale)
        assert corrected.kernels[name].bias.dtype == np.int32
    assert any((quantized.kernels[n].bias != corrected.kernels[n].bias).any() for n in quantized.kernels)


def test_activations_are_clipped_to_given_bounds_and_shown_unclipped_too() -> None:
    graph, batch = tiny_graph(), tiny_batch(1)
    (plain,) = watch(graph, [batch])
    (clipped,) = watch(graph, [batch], {"pointwise": (-0.25, 0.5)})
    np.testing.assert_array_equal(clipped["pointwise" + UNCLAMPED], plain["pointwise"])
    np.testing.assert_array_equal(clipped["pointwise"], np.clip(plain["pointwise"], -0.25, 0.5))
    assert (plain["pointwise"] > 0.5).any()
    assert not np.array_equal(clipped["add"], plain["add"])
    np.testing.assert_array_equal(clipped["stem"], plain["stem"])


def test_channel_means_are_of_the_values_before_the_activation() -> None:
    graph, batch = tiny_graph(), tiny_batch(3)
    means = channel_means(graph, activations(graph, batch))
    linear = dataclasses.replace(graph.nodes[0], activation=Activation.NONE)
    values = dict(walk(Graph("stem", "input", graph.input_shape, (linear,)), batch))["stem"]
    np.testing.assert_allclose(means["stem"], values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert means["stem"].min() < 0


# Keeping what helps


def data_with_judge(graph: Graph, scores: list[float]) -> CalibrationData:
    batch = tiny_batch(4)
    given_scores = iter(scores)
    return CalibrationData(
        activations=activations(graph, batch),
        input_range=PIXELS,
        images=batch,
        clipped_activations=lambda quantized, few: activations(quantized.graph, few),
        judge=lambda _quantized: next(given_scores),
        judge_images=7,
    )


STEPS = ("bias_correction", "equalize_pairs", "equalize_all", "split_channels", "range_search", "rounding")
PLAIN = QuantRecipe(
    "plain",
    "",
    bias_correction=False,
    channel_splitting=False,
    equalization=False,
    range_search=False,
    rounding=False,
)


TINY_STEPS = tuple(step for step in STEPS if step not in ("split_channels", "equalize_pairs"))
"""The tiny graph takes no pixels, and no tensor of it is read by depthwise layers alone."""


@pytest.mark.parametrize("kept", TINY_STEPS)
def test_a_step_is_kept_only_where_it_raises_the_held_out_sqnr(kept: str) -> None:
    graph = tiny_graph()
    scores = [20.0, *(21.0 if step == kept else 20.0 for step in TINY_STEPS)]
    quantized = post_training(graph, data_with_judge(graph, scores), QuantRecipe("int8", ""))
    assert tuple(decision.step for decision in quantized.decisions) == TINY_STEPS
    assert [decision.step for decision in quantized.decisions if decision.kept] == [kept]
    assert {decision.images for decision in quantized.decisions} == {7}
    assert bool(quantized.equalization) == kept.startswith("equalize")


def test_a_recipe_without_steps_asks_no_judge() -> None:
    graph = tiny_graph()
    assert post_training(graph, data_with_judge(graph, []), PLAIN).decisions == ()


def test_refused_steps_leave_the_plain_integers() -> None:
    graph = tiny_graph()
    plain = post_training(graph, data_with_judge(graph, []), PLAIN)
    undone = post_training(graph, data_with_judge(graph, [20.0] + 4 * [10.0]), QuantRecipe("int8", ""))
    kept = post_training(graph, data_with_judge(graph, [20.0, 30.0] + 3 * [10.0]), QuantRecipe("int8", ""))
    assert undone.tensors == plain.tensors
    for name, kernel in plain.kernels.items():
        assert np.array_equal(kernel.bias, undone.kernels[name].bias)
        assert np.array_equal(kernel.weight, undone.kernels[name].weight)
    assert any((plain.kernels[n].bias != kept.kernels[n].bias).any() for n in plain.kernels)


def test_the_decisions_on_real_weights_are_recorded(real: Exported) -> None:
    decisions = real.quantized.decisions
    assert tuple(decision.step for decision in decisions) == STEPS
    best = decisions[0].before_db
    for decision in decisions:
        assert decision.before_db == best
        assert decision.kept == (decision.after_db > decision.before_db)
        best = max(best, decision.after_db)
    assert best > 15


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_int8_of_a_small_graph_stays_near_fp32(seed: int) -> None:
    graph, batch = tiny_graph(seed), tiny_batch(8, seed)
    quantized = quantize_graph(graph, ranges_of(graph, batch), saturation_safe=True)
    truth = run(graph, batch)
    (*_, (_, integers)) = walk_quantized(quantized, batch)
    scale = quantized.tensors["fc"]
    result = (integers.astype(np.float64) - scale.zero_point) * scale.scale
    # Random weights and clipped ranges: 8.8 dB was seen. A wrong zero point gives less than 0.
    assert 10 * np.log10((truth**2).sum() / ((truth - result) ** 2).sum()) > 5


# Recipes


def test_the_shipped_recipes_are_read_and_are_the_defaults() -> None:
    assert "int8" in recipe_names()
    for name in recipe_names():
        assert find_recipe(name).name == name
    recipe = find_recipe("int8")
    assert (recipe.calibration_images, recipe.held_out_images, recipe.check_images) == (64, 16, 32)
    assert recipe.saturation_safe


def test_a_recipe_is_read_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsummary = "few"\ncalibration_images = 8\nheld_out_images = 2\n')
    assert find_recipe(str(path)) == QuantRecipe("mine", "few", calibration_images=8, held_out_images=2)


def test_an_unknown_recipe_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown recipe: int9") as caught:
        find_recipe("int9")
    assert "did you mean int8?" in caught.value.hint


def test_a_missing_recipe_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "name is missing"),
        ('name = "x"\nsummary = ""\nnoise = 1', "unknown field noise"),
        ('name = "x"\nsummary = ""\nseed = "one"', "seed must be of type int"),
        ('name = "x"\nsummary = ""\nseed = true', "seed must be of type int"),
        ('name = "x"\nsummary = ""\nheld_out_images = 64', "held_out_images"),
        ('name = "x"\nsummary = ""\nheld_out_images = 0', "held_out_images"),
        ('name = "x"\nsummary = ""\ncheck_images = 0', "check_images"),
        ('name = "x"\nsummary = ""\nseed = -1', "seed must not be below"),
        ("name = ", "Invalid value"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DamagedInputError) as caught:
        read_recipe(path)
    assert reason in caught.value.message


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "x"\nsummary = ""\nreach = 2')
    assert read_recipe(tmp_path / "mine.toml").reach == 2.0


def test_no_sum_of_an_add_lies_near_a_rounding_tie(v2: Exported) -> None:
    """ONNX Runtime holds the ratios in fixed point, others in float: away from ties all round alike."""
    tensors = v2.quantized.tensors
    adds = [node for node in v2.graph.nodes if isinstance(node, Add)]
    assert len(adds) == 10
    for node in adds:
        first, second = (tensors[name].scale / tensors[node.name].scale for name in node.inputs)
        sums = first * np.arange(-255, 256)[:, None] + second * np.arange(-255, 256)
        assert np.abs(sums - np.floor(sums) - 0.5).min() > 4e-4, node.name


@pytest.mark.parametrize("side", [1, 3, 4, 7, 8, 10])
def test_no_average_lies_near_a_rounding_tie(side: int) -> None:
    """Every sum that a pool can meet, with ranges of its output from a third to all of its input's."""
    graph = Graph("pool", "input", (2, side, side), (GlobalAveragePool("pool", "input"),))
    for high in np.linspace(2, 6, 41):
        tensors = quantize_graph(graph, {"input": (0, 6), "pool": (0, high)}, saturation_safe=True).tensors
        before, after = tensors["input"].scale, tensors["pool"].scale
        assert after * 255 == pytest.approx(high, rel=0.03)
        averages = np.arange(255 * side**2 + 1) * (before / side**2 / after)
        seen = averages[averages <= 256]
        assert np.abs(seen - np.floor(seen) - 0.5).min() > 5e-5
