import shutil

import numpy as np
import pytest
import torch
from drift_qm9 import (
    QM9,
    canonical,
    decode,
    load,
    read_smi,
    split,
    to_smiles,
    tokenise,
    write_smi,
)
from drift_qm9.data import MIN_MOLECULES

FIFTY = ["C" * i for i in range(1, 26)] + ["C" * i + "O" for i in range(1, 26)]


@pytest.fixture
def smi(tmp_path):
    def write(*lines):
        path = tmp_path / "mine.smi"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def test_toy_is_the_whole_space(toy, toy_smiles):
    assert tuple(map(len, (toy.train, toy.val, toy.test))) == (12_780, 710, 710)
    assert toy.complete
    assert toy.skipped == 0
    assert len(set(toy_smiles)) == 14_200
    assert toy.train.dtype == torch.int64
    assert toy.train.shape[1] == 16


def test_the_split_is_that_of_hugging_face_datasets():
    """The first ceil(n / 20) of numpy's default_rng(42).permutation(n) are for testing."""
    ids = np.arange(101, dtype=np.uint8)[:, None]
    parts = split(ids)
    order = np.random.default_rng(42).permutation(101)
    assert parts.test[:, 0].tolist() == order[:6].tolist()
    assert parts.val[:, 0].tolist() == order[6:12].tolist()
    assert sorted(torch.cat([parts.train, parts.val, parts.test])[:, 0].tolist()) == list(range(101))
    assert not torch.equal(split(ids, seed=43).test, parts.test)


def test_sizes_of_the_split_of_qm9():
    parts = split(np.zeros((133_885, 1), dtype=np.uint8))
    assert tuple(map(len, (parts.train, parts.val, parts.test))) == (120_495, 6_695, 6_695)


def test_the_published_file(qm9_dir):
    lines = read_smi(QM9.path(qm9_dir))
    assert (lines[0], lines[-1][0]) == ((1, "N#CC1NC11C2CC1C2"), 133_885)


def test_lines_of_a_file_are_made_canonical_in_order(smi):
    data = load(data=smi("SMILES name", "# comment", "", *FIFTY, "OCC ethanol, again", "C1=CC=CN1\tpyrrole"))
    smiles = to_smiles(torch.cat([data.test, data.val, data.train]))
    expected = [canonical(text) for text in [*FIFTY, "OCC", "C1=CC=CN1"]]
    order = np.random.default_rng(42).permutation(52)
    assert smiles == [expected[i] for i in order]
    assert not data.complete
    assert data.train.shape == (46, 32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("C1CC", r"mine\.smi, line 3: 'C1CC' is not a molecule: .*unclosed ring"),
        ("CC(C)(C)(C)C", r"mine\.smi, line 3: .*Explicit valence for atom # 1 C, 5"),
        ("CCCl name", r"mine\.smi, line 3: 'CCCl' has the token 'Cl'"),
        ("C" * 31, r"mine\.smi, line 3: 'C+' has 31 tokens; at most 30 fit"),
    ],
    ids=["syntax", "valence", "token", "length"],
)
def test_a_bad_line_is_named_or_skipped_and_counted(smi, bad, message):
    path = smi("# mine", FIFTY[0], bad, *FIFTY[1:], bad)
    with pytest.raises(ValueError, match=message):
        load(data=path)
    data = load(data=path, skip_bad=True)
    assert data.skipped == load(data=path, skip_bad=True).skipped == 2
    assert len(data.train) + len(data.val) + len(data.test) == 50


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"mine\.smi: the file holds no molecule"),
        (["# a comment", "", "smiles"], r"mine\.smi: the file holds no molecule"),
        (["CCO", "OCC"] * 30, r"mine\.smi: all 60 lines are one molecule; at least 2"),
        (["C", "CC"] * 10, rf"mine\.smi: 20 molecules; at least {MIN_MOLECULES}"),
    ],
    ids=["empty", "no data", "duplicates", "few"],
)
def test_files_that_cannot_be_learnt_from(smi, lines, message):
    with pytest.raises(ValueError, match=message):
        load(data=smi(*lines))


def test_a_file_of_bad_lines_alone_names_the_first():
    with pytest.raises(ValueError, match=r"x: 0 molecules; .* \(2 lines were skipped; x, line 4: 'C1'"):
        tokenise([(4, "C1"), (5, "CC1")], "x", 32, skip_bad=True)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(data=tmp_path / "nowhere.smi")
    with pytest.raises(ValueError, match="a folder"):
        load(data=tmp_path)
    (tmp_path / "binary.smi").write_bytes(b"CCO\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"binary\.smi, line 2: not UTF-8"):
        load(data=tmp_path / "binary.smi")


def test_windows_line_ends_and_byte_order_marks(tmp_path):
    (tmp_path / "dos.smi").write_bytes(b"\xef\xbb\xbfCCO ethanol\r\nCC\r\n")
    assert read_smi(tmp_path / "dos.smi") == [(1, "CCO"), (2, "CC")]


def test_what_is_written_is_read(tmp_path):
    write_smi(tmp_path / "new" / "a.smi", ["CCO", "", "C1CC"])
    assert (tmp_path / "new" / "a.smi").read_text() == "CCO\n\nC1CC\n"
    assert read_smi(tmp_path / "new" / "a.smi") == [(1, "CCO"), (3, "C1CC")]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no data set 'zinc'; there are toy, qm9"):
        load("zinc")


def test_data_folders(tmp_path, qm9_dir, monkeypatch):
    monkeypatch.setenv("DRIFT_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"qm9_smiles\.txt exists; download https://raw"):
        QM9.path()
    shutil.copyfile(qm9_dir / "qm9" / "qm9_smiles.txt", tmp_path / "qm9_smiles.txt")
    assert QM9.path() == tmp_path / "qm9_smiles.txt"
    with (tmp_path / "qm9_smiles.txt").open("a") as file:
        file.write("\nC")
    with pytest.raises(ValueError, match="not the published file"):
        QM9.path()


def test_loading_again_needs_no_rdkit(smi, monkeypatch):
    path = smi(*FIFTY)
    first = load(data=path)
    monkeypatch.setattr("drift_qm9.data.canonical", lambda smiles: 1 / 0)
    again = load(data=path)
    assert torch.equal(first.train, again.train)
    assert decode(again.test[0].tolist()) in {canonical(text) for text in FIFTY}
