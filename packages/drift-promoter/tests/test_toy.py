"""Toy promoters: the signal says which motifs there are, and where."""

import time

import numpy as np
import pytest
import torch
from drift_promoter.bases import decode, encode
from drift_promoter.toy import generate, placed, read_peaks

MOTIFS = {"Inr": (-2, "TCAGTT"), "TATA": (-30, "TATAAA"), "GC": (-48, "GGGCGG"), "GC2": (-38, "GGGCGG")}
DOWNSTREAM = (12, "CCGCCC")


def everything(windows):
    rows = torch.arange(len(windows))
    return windows.tokens(rows), windows.signals(rows)


def kmers(tokens, k=6):
    codes = sum(tokens[:, i : tokens.shape[1] - k + 1 + i] * 4**i for i in range(k))
    counts = np.bincount(codes.numpy().ravel(), minlength=4**k)
    return counts / counts.sum()


def test_sizes_and_speed(toy):
    start = time.process_time()
    bases, signal = generate(22_000)
    assert time.process_time() - start < 2
    assert tuple(map(len, (toy.train, toy.val, toy.test))) == (20_000, 1_000, 1_000)
    assert toy.train.length == bases.shape[1] == 128
    assert toy.motifs
    assert np.array_equal(np.concatenate([toy.train.bases, toy.val.bases, toy.test.bases]), bases)
    assert np.array_equal(toy.test.signal, signal[-1000:])
    assert signal.dtype == np.float16
    assert signal.min() >= 0
    assert set(np.unique(bases)) == {0, 1, 2, 3}
    assert len(np.unique(bases, axis=0)) == 22_000
    assert not np.array_equal(generate(10, seed=1)[0], bases[:10])


def test_names_differ(toy):
    names = [name for part in (toy.train, toy.val, toy.test) for name in part.names(torch.arange(len(part)))]
    assert names[:2] == ["toy:0-128(+)", "toy:128-256(+)"]
    assert len(set(names)) == 22_000


@pytest.mark.parametrize("site", [48, 49, 73, 99, 100])
@pytest.mark.parametrize("broad", [False, True])
@pytest.mark.parametrize("antisense", [False, True])
def test_motifs_are_counted_where_the_signal_asks_for_them(site, broad, antisense):
    far = torch.arange(128.0) - site
    signals = torch.zeros(1, 128, 2)
    signals[0, :, 0] = 1.5 * torch.exp(-(far**2) / (72 if broad else 2))
    signals[0, :, 1] = antisense * torch.exp(-((far - 15) ** 2) / 2)
    wanted = [MOTIFS["Inr"]] + [MOTIFS[name] for name in (("GC", "GC2") if broad else ("TATA",))]
    wanted += [DOWNSTREAM] if antisense else []
    for there in range(2 ** len(wanted)):
        text = list("A" * 128)
        for bit, (offset, letters) in enumerate(wanted):
            if there >> bit & 1:
                text[site + offset : site + offset + 6] = letters
        tokens = torch.from_numpy(encode("".join(text))).long()[None]
        assert placed(tokens, signals).item() == pytest.approx(there.bit_count() / len(wanted))
    peaks = read_peaks(signals)
    assert (peaks.site.item(), peaks.broad.item(), peaks.antisense.item()) == (site, broad, antisense)


def test_without_the_other_track_no_motif_of_its_is_asked_for(toy):
    tokens, signals = everything(toy.test)
    without = signals.clone()
    without[..., 1] = 0
    assert torch.equal(placed(tokens, signals[..., :1]), placed(tokens, without))
    assert placed(tokens, signals[..., :1]).mean() > 0.999


@pytest.mark.parametrize(("wrong", "score"), [(0, 1.0), (1, 1.0), (2, 0.5)])
def test_one_wrong_letter_is_forgiven(wrong, score):
    signals = torch.zeros(1, 128, 2)
    signals[0, 60, 0] = 1.5
    text = list("C" * 128)
    text[58:64], text[30:36] = "TCAGTT", "TATAAA"
    text[30 : 30 + wrong] = "G" * wrong
    assert placed(torch.from_numpy(encode("".join(text))).long()[None], signals).item() == score


def test_data_have_all_their_motifs_and_none_with_signals_of_others(toy, generator):
    for part in (toy.train, toy.val, toy.test):
        tokens, signals = everything(part)
        scores = placed(tokens, signals)
        assert scores.shape == (len(part),)
        assert scores.mean() > 0.999
        shuffled = signals[torch.randperm(len(part), generator=generator)]
        assert placed(tokens, shuffled).mean() < 0.05


def test_the_motifs_are_in_the_text(toy):
    """By text alone: every promoter has the initiator, and one half each a TATA box and two GC boxes."""
    tokens, signals = everything(toy.test)
    sharp = (signals[..., 0] > signals[..., 0].amax(1, keepdim=True) / 2).sum(1) < 5
    for text, peak, is_sharp in zip(map(decode, tokens), signals[..., 0], sharp.tolist(), strict=True):
        assert "TCAGTT" in text
        if is_sharp:
            site = int(peak.argmax())
            assert text[site - 2 : site + 4] == "TCAGTT"
            assert text[site - 30 : site - 24] == "TATAAA"
        else:
            assert any(text[i : i + 6] == text[i + 10 : i + 16] == "GGGCGG" for i in range(53))
    assert 0.4 < sharp.double().mean() < 0.6


def test_independent_bases_are_far_below_the_floor(toy, generator):
    train, test = everything(toy.train)[0], everything(toy.test)[0]
    floor = np.corrcoef(kmers(train[:1000]), kmers(test))[0, 1]
    shares = torch.bincount(train.flatten(), minlength=4).double()
    independent = torch.multinomial(shares, test.numel(), replacement=True, generator=generator).view_as(test)
    assert floor > 0.97
    assert np.corrcoef(kmers(independent), kmers(test))[0, 1] < 0.3
    background = train[:, 104:110]  # between the motifs, few of which reach so far
    second, first = background[:, 1:].flatten(), background[:, :-1].flatten()
    c_then_g = ((first == 1) & (second == 2)).double().mean()
    assert c_then_g < 0.5 * (first == 1).double().mean() * (second == 2).double().mean()
