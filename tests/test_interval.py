"""The paired interval: worked numbers, and coverage in simulation."""

import math

import numpy as np
import pytest

from mobilenet_export.checks.interval import PairedCounts, drop_interval, wilson


def test_wilson_interval_of_a_worked_example() -> None:
    # 81 of 263 at 95 %: 0.2553 to 0.3662. Source: Newcombe 1998, Statistics in Medicine 17, 857–872, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_equal_models_have_an_interval_around_zero() -> None:
    low, high = drop_interval(PairedCounts(both=800, neither=200))
    assert low == pytest.approx(-high)
    assert 0 < high < 0.5


def test_exchanging_the_models_mirrors_the_interval() -> None:
    low, high = drop_interval(PairedCounts(700, 40, 15, 245))
    assert drop_interval(PairedCounts(700, 15, 40, 245)) == pytest.approx((-high, -low))


def test_the_drop_lies_within_and_more_images_narrow_it() -> None:
    few, many = drop_interval(PairedCounts(70, 4, 2, 24)), drop_interval(PairedCounts(7000, 400, 200, 2400))
    assert few[0] < many[0] < 2 < many[1] < few[1]


@pytest.mark.parametrize("counts", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (5, 0, 0, 0)])
def test_the_smallest_samples_give_a_finite_interval(counts: tuple[int, int, int, int]) -> None:
    low, high = drop_interval(PairedCounts(*counts))
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low <= high


@pytest.mark.parametrize("images", [50, 300, 1000])
@pytest.mark.parametrize("shares", [(0.7, 0.02, 0.015, 0.265), (0.8, 0.05, 0.01, 0.14), (0.6, 0.1, 0.1, 0.2)])
def test_the_interval_holds_the_true_drop_as_often_as_it_says(
    images: int, shares: tuple[float, float, float, float]
) -> None:
    random = np.random.default_rng(images)
    truth = 100 * (shares[1] - shares[2])
    draws = [PairedCounts(*map(int, random.multinomial(images, shares))) for _ in range(1500)]
    hits = sum(low <= truth <= high for low, high in map(drop_interval, draws))
    # 95 % but for 3.5 standard errors of a simulation of 1500; conservative where few images disagree
    assert hits / len(draws) > 0.93
