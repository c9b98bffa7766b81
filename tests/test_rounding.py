"""Weights rounded for the layer's output, checked by the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet_export.graph import Conv2d, FloatArray, FullyConnected, Pads
from mobilenet_export.interpreter import convolve, pad, views
from mobilenet_export.quantize.rounding import round_filters, round_rows, second_moment
from mobilenet_export.quantize.saturation import largest_pair_sum, reduction_rows


def inputs(random: np.random.Generator, count: int, size: int) -> FloatArray:
    """Correlated, with a mean, as activations after ReLU are."""
    mixed = random.standard_normal((count, size)) @ random.standard_normal((size, size))
    return np.maximum(mixed + 1, 0).astype(np.float32)


def error(weight: FloatArray, scale: FloatArray, rounded: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """(w − s·q)ᵀ H (w − s·q) of each row."""
    left = reduction_rows(weight).astype(np.float64) - reduction_rows(rounded) * scale[:, None].astype(
        np.float64
    )
    return np.einsum("oi,ij,oj->o", left, moment, left)


def nearest(weight: FloatArray, scale: FloatArray) -> np.ndarray:
    return np.rint(weight / scale.reshape((-1,) + (1,) * (weight.ndim - 1))).clip(-127, 127).astype(np.int8)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 90), st.booleans())
def test_rows_come_out_closer_than_rounded_to_nearest_and_stay_safe(seed: int, size: int, safe: bool) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((8, size)).astype(np.float32)
    scale = (np.abs(weight).max(axis=1) / 127).astype(np.float32)
    node = FullyConnected("fc", "x", weight, np.zeros(8, np.float32))
    moment = second_moment(node, inputs(random, 4 * size, size))
    rounded = round_rows(weight, scale, moment, saturation_safe=safe)
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() <= 127
    if safe:
        assert largest_pair_sum(rounded).max() <= 128
    else:
        plain = error(weight, scale, nearest(weight, scale), moment)
        assert error(weight, scale, rounded, moment).sum() <= plain.sum() * 1.001


def test_a_clamped_pair_is_made_up_for_by_the_rest_of_the_row() -> None:
    """Two neighbours of 127 cannot both stay; on inputs that are alike, others take over what is cut off."""
    weight = np.float32([[1.0, 1.0, 0.3, 0.2, 0.1, 0.4]])
    scale = np.float32([1 / 127])
    moment = np.ones((6, 6)) + 0.01 * np.eye(6)
    rounded = round_rows(weight, scale, moment, saturation_safe=True)
    assert largest_pair_sum(rounded).max() <= 128
    assert abs(float(rounded.sum()) * float(scale[0]) - float(weight.sum())) < 1.5 / 127


def test_a_convolutions_rows_are_in_the_order_of_its_moment() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = Conv2d("c", "x", weight, np.zeros(4, np.float32), (2, 2), Pads(1, 1, 1, 1))
    values = random.integers(0, 50, (1, 9, 9, 3)).astype(np.float32)
    moment = second_moment(node, values)
    output = convolve(node, values, weight).reshape(-1, 4)
    rows = reduction_rows(weight).astype(np.float64)
    power = np.einsum("oi,ij,oj->o", rows, moment, rows)
    np.testing.assert_allclose(power, (output.astype(np.float64) ** 2).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_filters_come_out_closer_than_rounded_to_nearest(seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((6, 1, 3, 3)).astype(np.float32)
    scale = (np.abs(weight).reshape(6, -1).max(axis=1) / 127).astype(np.float32)
    node = Conv2d("d", "x", weight, np.zeros(6, np.float32), pads=Pads(1, 1, 1, 1), groups=6)
    values = random.integers(100, 130, (1, 12, 12, 6)).astype(np.float32)
    rounded, chosen = round_filters(weight, scale, second_moment(node, values))
    assert (chosen <= scale).all()
    taps = np.stack(views(node, pad(values, node.pads)), -1).reshape(-1, 6, 9).astype(np.float64)

    def miss(integers: np.ndarray, scales: FloatArray) -> np.ndarray:
        left = weight.reshape(6, 9) - integers.reshape(6, 9) * scales[:, None].astype(np.float64)
        return np.square(np.einsum("pci,ci->pc", taps, left)).mean(axis=0)

    plain = miss(nearest(weight, scale), scale)
    assert (miss(rounded, chosen) <= plain).all()
    assert miss(rounded, chosen).sum() < 0.5 * plain.sum()


def test_dead_inputs_are_rounded_to_nearest() -> None:
    weight = np.float32([[0.5, -0.25, 1.0]])
    rounded = round_rows(weight, np.float32([1 / 127]), np.zeros((3, 3)), saturation_safe=False)
    assert rounded.tolist() == [[64, -32, 127]]
