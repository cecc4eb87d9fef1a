"""Summaries of draws, and how they print."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
from drift_core.runs.metrics import Metric, frechet, metrics_table, read_metrics, summary, write_metrics

DEFINED = Metric(0.03421, 0.00904, 0.03514, 0.00801)
NO_VALUE = Metric(None, None, 0.5, 0.25)
NO_FLOOR = Metric(0.5, 0.25, None, None)


def test_means_and_standard_deviations_are_those_of_numpy():
    values, floors = np.random.default_rng(0).normal(size=(2, 7))
    metric = summary(values.tolist(), floors.tolist())
    assert (metric.value, metric.std) == pytest.approx((values.mean(), values.std(ddof=1)), rel=1e-12)
    assert (metric.floor, metric.floor_std) == pytest.approx((floors.mean(), floors.std(ddof=1)), rel=1e-12)


def test_one_draw_has_no_spread():
    assert summary([2.0], [1.0]) == Metric(2.0, 0.0, 1.0, 0.0)


def test_what_a_draw_does_not_have_is_none():
    metric = summary([2.0, 4.0], [1.0, math.nan])
    assert (metric.value, metric.std) == pytest.approx((3.0, 2**0.5))
    assert (metric.floor, metric.floor_std) == (None, None)
    assert summary([math.nan], [math.nan]) == Metric(None, None, None, None)


def test_metrics_print_themselves():
    assert str(DEFINED) == f"{DEFINED}" == "0.0342 ± 0.0090 (floor 0.0351 ± 0.0080)"
    assert f"{DEFINED:.2f}" == "0.03 ± 0.01 (floor 0.04 ± 0.01)"
    assert f"{DEFINED:.1%}" == "3.4% ± 0.9% (floor 3.5% ± 0.8%)"
    assert f"{NO_VALUE:.2f}" == "undefined (floor 0.50 ± 0.25)"
    assert str(NO_FLOOR) == "0.5000 ± 0.2500 (floor undefined)"
    assert f"{summary([math.nan], [math.nan]):.3f}" == "undefined (floor undefined)"


def test_the_ratio_to_the_floor():
    assert Metric(0.5, 0.0, 0.25, 0.0).ratio == 2
    assert [m.ratio for m in (NO_VALUE, NO_FLOOR)] == [None, None]
    assert [Metric(0.5, 0.0, floor, 0.0).ratio for floor in (0.0, -0.1)] == [None, None]


def test_the_table_has_a_line_a_metric():
    header, *lines = metrics_table({"mmd": DEFINED, "novel": NO_FLOOR, "frechet": NO_VALUE}).splitlines()
    assert header.split() == ["metric", "value", "floor", "value", "/", "floor"]
    assert [line.split() for line in lines] == [
        ["mmd", "0.0342", "±", "0.0090", "0.0351", "±", "0.0080", "0.97"],
        ["novel", "0.5000", "±", "0.2500", "undefined", "-"],
        ["frechet", "undefined", "0.5000", "±", "0.2500", "-"],
    ]
    assert len({len(line) for line in (header, *lines)}) == 1


def test_metrics_are_read_as_they_were_written(tmp_path):
    metrics = {"mmd": DEFINED, "novel": NO_FLOOR}
    write_metrics(tmp_path, metrics)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["novel"] == {"value": 0.5, "std": 0.25, "floor": None, "floor_std": None}
    assert read_metrics(tmp_path) == metrics


@pytest.mark.parametrize("text", ["{", "[]", '{"mmd": 1}', '{"mmd": {"value": 1}}'])
def test_damaged_metrics_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics.json is damaged"):
        read_metrics(tmp_path)


def test_frechet_is_the_formula_with_the_root_of_a_matrix():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(50, 4)) @ draw.normal(size=(4, 4)), draw.normal(size=(30, 4)) + 1
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * root)
    assert frechet(x, y) == pytest.approx(expected)
    assert frechet(y, x) == pytest.approx(expected)


def test_frechet_of_independent_columns_and_of_what_is_constant():
    x = np.array([[1.0, 0.0], [3.0, 0.0]])  # means 2 and 0, standard deviations sqrt(2) and 0
    y = np.array([[2.0, 5.0], [8.0, 5.0]])  # means 5 and 5, standard deviations sqrt(18) and 0
    assert frechet(x, y) == pytest.approx(9 + 25 + (math.sqrt(18) - math.sqrt(2)) ** 2)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert math.isnan(frechet(x[:1], y))
