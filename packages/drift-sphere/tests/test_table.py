from pathlib import Path

import pytest
import torch
from drift_sphere import read_csv, write_csv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROWS = [(float(i), float(10 * i)) for i in range(1, 13)]
EXPECTED = torch.tensor(ROWS, dtype=torch.float64)
PLAIN = "".join(f"{a},{b}\n" for a, b in ROWS)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "events.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        "# a comment\n\n" + PLAIN + "\n  # another, 1, 2\n\n",
        "lat,long\n" + PLAIN,
        "x,y\n" + PLAIN,
        "My events\n\nLatitude , LONGITUDE\n" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        b"\xef\xbb\xbf# comment\nlat,lon\n" + PLAIN.encode(),
        PLAIN.replace(",", " , "),
        "lon,LATITUDE\n" + "".join(f"{b},{a}\n" for a, b in ROWS),
        "id,place,lng,lat\n" + "".join(f'7,"A, #b",{b},{a}\n' for a, b in ROWS),
        "".join(f'"{a}","{b}"\n' for a, b in ROWS),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_reads_every_ordinary_form(tmp_path, content):
    assert torch.equal(read_csv(written(tmp_path, content)), EXPECTED)


def test_wraps_longitudes_above_180(tmp_path):
    longitudes = [-180, -179.5, 0, 179.5, 180, 180.5, 270, 359, 360, 1]
    latlon = read_csv(written(tmp_path, "".join(f"0,{longitude}\n" for longitude in longitudes)))
    assert latlon[:, 1].tolist() == [-180, -179.5, 0, 179.5, 180, -179.5, -90, -1, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 rows"),
        ("# only a comment\nlat,lon\n", "0 rows"),
        ("1,2\n", "1 row of data; at least 10"),
        ("1,2\n" * 9, "9 rows of data; at least 10"),
        ("lat,lon\n" + PLAIN + "north,5\n", "line 14: .*not numbers of degrees"),
        ("lat,lon\nn/a,n/a\n" + PLAIN, "line 2: .*not numbers of degrees"),
        (PLAIN + "\n\n5,\n", "line 15: .*not numbers of degrees"),
        (PLAIN + "nan,5\n", "line 13: latitude nan"),
        ("nan,nan\n" + PLAIN, "line 1: latitude nan"),
        (PLAIN + "5,inf\n", "line 13: longitude inf"),
        (PLAIN + "5,1e999\n", "line 13: longitude inf"),
        ("# c\r\n" + PLAIN + "90.5,5\r\n", "line 14: latitude 90.5"),
        (PLAIN + "5,-180.5\n", "line 13: longitude -180.5"),
        (PLAIN + "5,361\n", "line 13: longitude 361"),
        ("5\n" + PLAIN, "line 1: number of columns is 1, not 2"),
        ("1 2\n1 2\n", "0 rows"),
        (PLAIN + "5,6,7\n", "line 13: number of columns is 3, not 2"),
        ("id,lat,lon\n" + "1,2,3\n" * 10 + "4,5\n", "line 12: number of columns is 2, not 3"),
        ("longitude,y\n" + PLAIN, "line 1: names latitude or longitude, but not both"),
        (PLAIN.encode() + b"\xff\xfe,1\n", "line 13: not UTF-8"),
        (PLAIN.encode("utf-16"), "line 1: not UTF-8"),
        ("1," + "9" * 200_000 + "\n", "line 1: field larger"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        read_csv(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="a folder"):
        read_csv(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.text(alphabet='0123456789.,-+e#"\n\rnalit ', max_size=300).map(str.encode)
    | st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 360)), min_size=10, max_size=20).map(
        lambda rows: "".join(f"{a},{b}\n" for a, b in rows).encode()
    )
)
def test_any_bytes_are_read_or_refused(tmp_path, content):
    path = written(tmp_path, content)
    try:
        latlon = read_csv(path)
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        assert len(latlon) >= 10
        assert (latlon.abs() <= torch.tensor([90, 180])).all()


def test_writing_and_reading_round_trips(tmp_path):
    write_csv(tmp_path / "out.csv", EXPECTED / 7)
    torch.testing.assert_close(read_csv(tmp_path / "out.csv"), EXPECTED / 7, atol=5e-7, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_million_rows_are_read_quickly_and_a_bad_one_is_found(tmp_path):
    content = "12.345678,-123.456789\n" * 1_000_000
    assert read_csv(written(tmp_path, content)).shape == (1_000_000, 2)
    with pytest.raises(ValueError, match="line 1000001: latitude 91"):
        read_csv(written(tmp_path, content + "91,0\n"))
