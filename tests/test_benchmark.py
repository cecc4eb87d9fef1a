"""The benchmark prints what it promises, on small sizes."""

import re

import pytest


def test_every_line_is_a_ratio_to_a_named_baseline(import_app, monkeypatch: pytest.MonkeyPatch, capsys):
    module = import_app("benchmarks.simplex")
    small = {
        "SHAPES": ((4, 5),),
        "QUERIES": 8,
        "REFERENCES": 50,
        "SOFT": 20,
        "TRAINING_SET": 200,
        "KMER_LENGTH": 4,
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    module.benchmark(repeats=1)
    out = capsys.readouterr().out
    lines = re.findall(r"^(\S.*?) +([\d.]+) ms +([\d.]+) x +off by (\S+)$", out, flags=re.MULTILINE)
    assert [name for name, *_ in lines] == [
        "onehot_score",
        "broadcast, 2 atan2",
        "broadcast, arccos",
        "smoothed_score, Power(Sphere())",
        "smoothed_score, FisherRao()",
        "smoothed_score, Power(Sphere())",
        "kmer_scores",
        "onehot_score",
    ]
    assert all(float(off) < 1e-5 for *_, off in lines)
    assert "MB more at the peak" in out
