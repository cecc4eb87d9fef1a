"""Summaries of draws."""

import math

import numpy as np
import pytest
from drift_core.metrics import summary


def test_means_and_standard_deviations_are_those_of_numpy():
    values, floors = np.random.default_rng(0).normal(size=(2, 7))
    expected = {
        "value": values.mean(),
        "std": values.std(ddof=1),
        "floor": floors.mean(),
        "floor_std": floors.std(ddof=1),
    }
    assert summary(values.tolist(), floors.tolist()) == pytest.approx(expected, rel=1e-12)


def test_one_draw_has_no_spread():
    assert summary([2.0], [1.0]) == {"value": 2.0, "std": 0.0, "floor": 1.0, "floor_std": 0.0}


def test_what_a_draw_does_not_have_is_none():
    assert summary([2.0, 4.0], [1.0, math.nan]) == {
        "value": 3.0,
        "std": pytest.approx(2**0.5),
        "floor": None,
        "floor_std": None,
    }
