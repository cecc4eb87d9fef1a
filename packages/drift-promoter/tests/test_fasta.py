from pathlib import Path

import pysam
import pytest
import torch
from drift_promoter.fasta import write_fasta


def test_records_are_read_back_by_another_library(tmp_path, generator):
    names = ["chr1:100-224(+)", "chr9:5-129(-) with a remark"]
    tokens = torch.randint(4, (2, 124), generator=generator)
    write_fasta(tmp_path / "new" / "samples.fasta", names, tokens)
    with pysam.FastxFile(str(tmp_path / "new" / "samples.fasta")) as file:
        records = [(record.name, record.comment, record.sequence) for record in file]
    assert [name for name, _, _ in records] == ["chr1:100-224(+)", "chr9:5-129(-)"]
    assert records[1][1] == "with a remark"
    for (_, _, sequence), row in zip(records, tokens.tolist(), strict=True):
        assert ["ACGT".index(letter) for letter in sequence] == row


def test_lines_have_sixty_bases(tmp_path):
    path = tmp_path / "samples.fasta"
    write_fasta(path, ["a", "b"], torch.arange(120).expand(2, -1) % 4)
    assert path.read_text() == ">a\n" + ("ACGT" * 15 + "\n") * 2 + ">b\n" + ("ACGT" * 15 + "\n") * 2
    write_fasta(path, ["a"], torch.zeros(1, 61, dtype=torch.int64))
    assert path.read_text() == ">a\n" + "A" * 60 + "\nA\n"


def test_no_sequences_are_an_empty_file(tmp_path):
    write_fasta(tmp_path / "samples.fasta", [], torch.zeros(0, 5, dtype=torch.int64))
    assert (tmp_path / "samples.fasta").read_bytes() == b""


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"], "1 names for 2 sequences"), (["a", "b\n>c"], "not one line"), (["a", ""], "not one line")],
)
def test_names_that_fit_no_record_are_refused_before_anything_is_written(tmp_path, names, message):
    path = tmp_path / "samples.fasta"
    path.write_text("old")
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        write_fasta(path, names, torch.zeros(2, 5, dtype=torch.int64))
    assert path.read_text() == "old"
    assert list(Path(tmp_path).iterdir()) == [path]
