"""fp16: weights on the float16 grid, and biases that make up for what rounding takes from the mean."""

import numpy as np
from conftest import tiny_batch, tiny_graph
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import run, walk
from mobilenet_export.quantize.half import diffuse, input_means, round_to_half

RANDOM = np.random.default_rng(11)

WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 24)),
    elements=st.floats(-8, 8, width=32),
)


@given(WEIGHTS)
def test_rounded_weights_lie_on_the_half_precision_grid(weight: FloatArray) -> None:
    rounded = diffuse(weight)
    assert rounded.dtype == np.float32
    assert rounded.shape == weight.shape
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16).astype(np.float32))


@given(WEIGHTS)
def test_rounding_keeps_the_sum_of_a_filter_to_half_a_step_of_its_smallest_weight(weight: FloatArray) -> None:
    error = np.abs(diffuse(weight).astype(np.float64).sum(axis=1) - weight.astype(np.float64).sum(axis=1))
    smallest = np.abs(weight).min(axis=1).astype(np.float64)
    # the smallest takes over at most half a step of the next larger one, so that it may double
    largest_error = np.maximum(smallest, np.abs(weight).max(axis=1) * 2.0**-11)
    assert (error <= np.maximum(largest_error * 2.0**-10, 2.0**-24)).all()


@given(WEIGHTS)
def test_no_weight_moves_more_than_a_step_and_a_half(weight: FloatArray) -> None:
    step = np.maximum(np.abs(weight).max(axis=1, keepdims=True) * 2.0**-10, 2.0**-24)
    assert (np.abs(diffuse(weight) - weight) <= 1.5 * step).all()


def test_rounding_to_nearest_would_not_keep_the_sum() -> None:
    weight = RANDOM.standard_normal((16, 9)).astype(np.float32)
    nearest = weight.astype(np.float16).astype(np.float64).sum(axis=1) - weight.astype(np.float64).sum(axis=1)
    diffused = diffuse(weight).astype(np.float64).sum(axis=1) - weight.astype(np.float64).sum(axis=1)
    assert np.abs(diffused).mean() < np.abs(nearest).mean() / 4


def test_weights_beyond_half_precision_are_clamped_to_its_largest() -> None:
    rounded = diffuse(np.float32([[1e6, 1.0], [-1e6, -1.0]]))
    assert np.isfinite(rounded.astype(np.float16)).all()
    assert rounded[0, 0] == 65504
    assert rounded[1, 0] == -65504


def test_subnormal_weights_survive() -> None:
    tiny = np.float32(2.0**-24)
    np.testing.assert_array_equal(diffuse(np.float32([[tiny, 3 * tiny]])), [[tiny, 3 * tiny]])


def test_weights_lie_on_the_grid_and_means_of_every_layer_are_kept() -> None:
    before = tiny_graph()
    batch = tiny_batch(1)
    tensors = {name: np.moveaxis(value, -1, 1) for name, value in walk(before, batch)}
    means = input_means(before, [tensors])
    after = round_to_half(before, means)
    for a, b in zip(before.kernels(), after.kernels(), strict=True):
        assert not np.array_equal(a.weight, b.weight)
        assert np.array_equal(b.weight, b.weight.astype(np.float16))
        lost = (
            (a.weight.astype(np.float64) - b.weight).reshape(len(a.weight), a.weight.shape[1], -1).sum(axis=2)
        )
        shift = lost[:, 0] * means[a.input] if len(means[a.input]) != lost.shape[1] else lost @ means[a.input]
        np.testing.assert_allclose(b.bias, a.bias + shift, rtol=1e-6, atol=1e-7)
    assert [n.name for n in before.nodes] == [n.name for n in after.nodes]
    assert np.abs(run(after, batch) - run(before, batch)).max() < 1e-2
