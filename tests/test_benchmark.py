"""The benchmark prints what it promises, on small sizes."""

import re
import time

import pytest
import torch
from drift_core import Laplace
from drift_simplex import onehot_score, onehot_to_sphere


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


@pytest.mark.parametrize(("shape", "factor"), [((32, 35), 10), ((256, 4), 15)], ids=str)
def test_tokens_are_much_faster_than_broadcasting(shape, factor, import_app):
    module, generator = import_app("benchmarks.simplex"), torch.Generator().manual_seed(0)
    x = (2 * torch.randn(64, *shape, generator=generator)).softmax(dim=-1).sqrt()
    tokens = torch.randint(shape[1], (4096, shape[0]), generator=generator)
    y = onehot_to_sphere(tokens, shape[1])
    seconds, results = [], []
    for run in (
        lambda: onehot_score(Laplace(0.5), x, tokens).gradient,
        lambda: onehot_score(Laplace(0.5), x, tokens).gradient,
        lambda: module.broadcast_gradient(Laplace(0.5), x[:8], y, module.two_atan2),
    ):
        start = time.process_time()
        results.append(run())
        seconds.append(time.process_time() - start)
    off = (results[1][:8] - results[2]).flatten(1).norm(dim=1) / results[2].flatten(1).norm(dim=1)
    assert float(off.max()) < 1e-5
    assert seconds[2] / 8 > factor * seconds[1] / 64
