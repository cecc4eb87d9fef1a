"""The cache is made once, whole or not at all, whatever happens to the processes that make it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from drift_promoter.data import load
from drift_promoter.genome import cache, digests, extract
from drift_promoter.genome.benchmark import DATA_DIR_VARIABLE, FASTA, NAMES, TSS, find_sources

BLOCKS = "windows-*.part/[0-9]*.npz"
"""Finished blocks of an extraction that is not."""

SCRIPT = """
import sys
from pathlib import Path
import pooch

pooch.os_cache = lambda project: Path(sys.argv[2]) / project

if __name__ == "__main__":
    from drift_promoter.genome import extract
    from drift_promoter.data import load

    extract.BLOCK = 10
    data = load("promoter", data_dir=sys.argv[1], workers=int(sys.argv[3]))
    print(len(data.train), len(data.test))
"""


@pytest.fixture
def many(small) -> Path:
    """A data folder with 2,000 start sites."""
    rng = np.random.default_rng(0)
    sites = [(str(c), int(tss), "+-"[tss % 2]) for c in (1, 8) for tss in rng.integers(522, 3400, 1000)]
    return small(sites, {"1": 4000, "8": 4000}).write()


def start(folder: Path, data: Path, cache: Path, workers: int) -> subprocess.Popen[str]:
    script = folder / "extract.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(data), str(cache), str(workers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def contents(cache: Path) -> dict[str, bytes]:
    (folder,) = cache.glob("windows-*")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.001)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_extraction_continues_and_ends_with_the_same_bytes(many, tmp_path, monkeypatch, empty_cache):
    process = start(tmp_path, many, tmp_path / "cache", workers=2)
    wait_for(lambda: len(list(empty_cache.glob(BLOCKS))) > 4, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(children) >= 2
    until = time.monotonic() + 20
    while any(is_running(int(pid)) for pid in children):
        assert time.monotonic() < until, "the workers outlive the process that was killed"
        time.sleep(0.01)
    done = len(list(empty_cache.glob(BLOCKS)))
    assert 4 < done < 200
    assert not list(empty_cache.glob("windows-*[!t]"))

    cuts, cut = [], extract.cut
    monkeypatch.setattr(extract, "BLOCK", 10)
    monkeypatch.setattr(extract, "cut", lambda *arguments: cuts.append(1) or cut(*arguments))
    load("promoter", data_dir=many, workers=1)
    assert len(cuts) == 200 - done
    continued = contents(empty_cache)
    assert not list(empty_cache.glob("*.part"))

    shutil.rmtree(empty_cache)
    monkeypatch.setattr(extract, "BLOCK", 1024)
    load("promoter", data_dir=many, workers=1)
    assert contents(empty_cache) == continued


def test_of_two_processes_at_once_one_extracts_and_the_other_waits_for_it(
    many, tmp_path, monkeypatch, empty_cache, capsys
):
    process = start(tmp_path, many, tmp_path / "cache", workers=1)
    wait_for(lambda: list(empty_cache.glob(BLOCKS)), process)
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(cache, "_make", lambda *arguments: 1 / 0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(load, "promoter", data_dir=many, workers=1)
        wait_for(lambda: "another process prepares these data" in capsys.readouterr().err, process)
        assert not waiting.done()
        process.send_signal(signal.SIGCONT)
        data = waiting.result(timeout=60)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == "1000 1000\n"
    assert (len(data.train), len(data.test)) == (1000, 1000)


def test_many_threads_at_once_do_each_other_no_harm(many, empty_cache, monkeypatch):
    made, make = [], cache._make
    monkeypatch.setattr(cache, "_make", lambda *arguments: made.append(1) or make(*arguments))
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(load, "promoter", data_dir=many, workers=1) for _ in range(8)]
    assert {len(result.result().train) for result in results} == {1000}
    assert len(made) == 1


def test_damaged_blocks_of_a_killed_extraction_are_made_again(many, empty_cache, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "BLOCK", 100)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            load("promoter", data_dir=many, workers=1)
    blocks = sorted(empty_cache.glob(BLOCKS))
    assert len(blocks) == 20
    half = blocks[0].read_bytes()
    blocks[0].write_bytes(half[: len(half) // 2])
    blocks[1].write_bytes(b"")
    blocks[2].write_bytes(half[:5000] + b"x" + half[5001:])
    cuts, cut = [], extract.cut
    monkeypatch.setattr(extract, "cut", lambda *arguments: cuts.append(1) or cut(*arguments))
    load("promoter", data_dir=many, workers=1)
    assert len(cuts) == 3
    continued = contents(empty_cache)
    shutil.rmtree(empty_cache)
    load("promoter", data_dir=many, workers=1)
    assert contents(empty_cache) == continued


def test_loading_again_reads_the_store_and_leaves_the_data_folder_as_it_was(small, empty_cache, monkeypatch):
    data = small().write()
    before = {path: path.stat().st_mtime_ns for path in [data, *data.iterdir()]}
    data.chmod(0o555)
    first = load("promoter", data_dir=data, workers=1)
    monkeypatch.setattr(cache, "_make", lambda *arguments: 1 / 0)
    again = load("promoter", data_dir=data, workers=1)
    data.chmod(0o755)
    assert isinstance(again.train.bases, np.memmap)
    assert isinstance(again.train.signal, np.memmap)
    assert np.array_equal(first.train.bases, again.train.bases)
    assert np.array_equal(first.test.signal, again.test.signal)
    assert first.val.names(torch.arange(10)) == again.val.names(torch.arange(10))
    assert {path: path.stat().st_mtime_ns for path in [data, *data.iterdir()]} == before


def test_loading_the_miniature_again_is_fast(tiled, mini, monkeypatch):
    monkeypatch.setattr(cache, "_make", lambda *arguments: 1 / 0)
    start = time.process_time()
    load("promoter", tss="tiled.tsv", data_dir=mini)
    assert time.process_time() - start < 0.5  # 65,520 windows, which take seconds to extract


def test_100_000_windows_take_half_a_gigabyte(tiled, own_cache):
    size = sum(
        windows.bases.nbytes + windows.signal.nbytes for windows in (tiled.train, tiled.val, tiled.test)
    )
    assert size / 65_520 * 100_000 < 0.53e9


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_any_file_gives_another_store(small, empty_cache, name):
    genome = small()
    data = genome.write()
    load("promoter", data_dir=data, workers=1)
    if name == FASTA:
        path = data / name
        path.write_text(path.read_text().replace("A", "C"))
    elif name == TSS:
        genome.sites[0] = ("1", 1234, "+")
        genome.write()
    elif name.endswith("bw"):
        genome.values["1"] += 1
        other = genome.folder
        genome.folder = other.parent / "other"
        shutil.copyfile(genome.write() / name, other / name)
    else:
        genome.blacklists["plus" if "plus" in name else "minus"] = [("8", 600, 1600)]
        genome.write()
    load("promoter", data_dir=data, workers=1)
    folders = list(empty_cache.glob("windows-*"))
    assert len(folders) == 2
    arrays = [{f: (folder / f).read_bytes() for f in ("bases.npy", "signal.npy")} for folder in folders]
    assert arrays[0] != arrays[1]


def test_a_copy_of_the_files_has_the_same_store(small, empty_cache, tmp_path, monkeypatch):
    data = small().write()
    load("promoter", data_dir=data, workers=1)
    shutil.copytree(data, tmp_path / "copy" / "promoter")
    monkeypatch.setattr(cache, "_make", lambda *arguments: 1 / 0)
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "copy"))
    load("promoter", workers=1)


def test_a_file_newer_than_the_index_of_its_copy_is_read(small, empty_cache, tmp_path):
    """pyfaidx would make the index again in every worker, or warn."""
    genome = small()
    data = genome.write()
    load("promoter", data_dir=data, workers=1)
    later = time.time() + 3600
    os.utime(data / FASTA, (later, later))
    (data / "other.tsv").write_text("chr\tTSS\tstrand\nchr1\t1000\t+\nchr8\t1000\t-\n")
    assert len(load("promoter", tss="other.tsv", data_dir=data, workers=1).train) == 1
    assert len(list((empty_cache / "index").iterdir())) == 1


def test_a_damaged_store_is_made_again(small, empty_cache):
    data = small().write()
    load("promoter", data_dir=data, workers=1)
    good = contents(empty_cache)
    (folder,) = empty_cache.glob("windows-*")
    for name, content in good.items():
        for damage in (b"", b"nonsense", content[: len(content) // 2]):
            (folder / name).write_bytes(damage)
            assert len(load("promoter", data_dir=data, workers=1).train) == 20
            assert contents(empty_cache) == good
        (folder / name).unlink()
        load("promoter", data_dir=data, workers=1)
        assert contents(empty_cache) == good


def test_a_digest_is_computed_again_when_a_file_changes(tmp_path, monkeypatch):
    file, memory = tmp_path / "file", tmp_path / "digests.json"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    one = digests.sha256(file, memory)
    assert one == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    computed = monkeypatch.setattr
    computed(digests, "_computed", lambda *arguments: "new")
    assert digests.sha256(file, memory) == one
    for change in (lambda: os.utime(file, (2, 2)), lambda: file.write_bytes(b"four")):
        change()
        assert digests.sha256(file, memory) == "new"
    for damage in ("", "[]", "{", '{"a": 1}', json.dumps({str(file): 3}), json.dumps({str(file): []})):
        memory.write_text(damage)
        assert digests.sha256(file, memory) == "new"


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    file, memory = tmp_path / "file", tmp_path / "digests.json"
    file.write_bytes(b"one")
    digests.sha256(file, memory)
    assert not memory.exists()


def test_a_cache_that_cannot_be_written_is_named(small, empty_cache):
    data = small().write()
    empty_cache.parent.mkdir(parents=True)
    empty_cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="promoter"):
        load("promoter", data_dir=data, workers=1)


def test_a_full_disk_leaves_what_is_done_to_be_continued(many, empty_cache, monkeypatch):
    savez, saved = np.savez, []

    def full(file, **arrays):
        if len(saved) == 3:
            raise OSError(28, "No space left on device")
        saved.append(1)
        savez(file, **arrays)

    monkeypatch.setattr(extract, "BLOCK", 100)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match=r"No space left on device.*\.npz"):
            load("promoter", data_dir=many, workers=1)
    (part,) = empty_cache.glob("windows-*")
    assert len(list(part.iterdir())) == 3
    assert len(load("promoter", data_dir=many, workers=1).train) == 1000


def test_where_the_files_are_looked_for(small, tmp_path, monkeypatch, empty_cache):
    data = small().write()
    for depth in ("", "promoter", "promoter/mini"):
        root = tmp_path / f"root{len(depth)}"
        shutil.copytree(data, root / depth)
        assert find_sources(root).fasta == root / depth / FASTA
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(root))
        assert find_sources().tss == root / depth / TSS
    (data / TSS).rename(data / "mine.tsv")
    assert find_sources(data, "mine.tsv").tss == data / "mine.tsv"
    monkeypatch.chdir(data)
    assert find_sources(tmp_path / "root0", Path("mine.tsv")).tss == Path("mine.tsv")
    with pytest.raises(FileNotFoundError, match=rf"data holds no {TSS}$"):
        find_sources(data)
    with pytest.raises(FileNotFoundError, match=r"no table nowhere\.tsv or .*data/nowhere\.tsv$"):
        find_sources(data, "nowhere.tsv")
    with pytest.raises(FileNotFoundError, match=r"^no table /nowhere\.tsv$"):
        find_sources(data, "/nowhere.tsv")
    monkeypatch.delenv(DATA_DIR_VARIABLE)
    with pytest.raises(
        FileNotFoundError, match=r"not in .*cache/drift, nor in promoter/.*drift_promoter.genome.archive"
    ):
        load("promoter")
