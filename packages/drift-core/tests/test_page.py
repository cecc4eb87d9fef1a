"""Pages: what they say is what they were given, whatever it is, in a parser and in a browser."""

import html
import json
import math
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from drift_core import Domain
from drift_core.files import write_json
from drift_core.runs.chart import Chart
from drift_core.runs.config import DomainConfig
from drift_core.runs.figures import written_figure
from drift_core.runs.metrics import Metric
from drift_core.runs.page import Cell, Figure, Section, Table, Text, write_page
from drift_core.runs.report_page import REPORT, write_report
from drift_core.runs.study import StudyReport, write_study
from drift_core.training.config import Settings

HOSTILE = '"\'><script src="http://example.invalid/a.js">alert(1)</script><img src=x onerror=alert(1)>&amp;'
LONG = "a_name_without_any_place_to_break_it_" * 8
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """Elements of a page by name, each its attributes, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.texts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.found.setdefault(tag, []).append(dict(attributes))

    def handle_data(self, data):
        self.texts.append(data.strip())


def page_of(path: Path, *parts: object) -> Elements:
    write_page(path, "Title", [Section("Section", parts)])
    return Elements(path)


def test_hostile_text_stays_text_everywhere(tmp_path):
    with written_figure(tmp_path / "a.png", 1.0, 1.0):
        pass
    parts = [
        Table([HOSTILE, "b"], [[HOSTILE, Cell(HOSTILE, order=HOSTILE, link=HOSTILE)]], caption=HOSTILE),
        Figure(tmp_path / "a.png", HOSTILE),
        Chart(HOSTILE, {HOSTILE: [(0.0, 1.0)], "other": [(0.0, 2.0)]}, x_label=HOSTILE),
        Text(HOSTILE),
        Text(HOSTILE, code=True),
    ]
    write_page(tmp_path / "page.html", HOSTILE, [Section(HOSTILE, parts)], lead=HOSTILE)
    page = Elements(tmp_path / "page.html")
    assert page.texts.count(HOSTILE) == 14
    assert page.found["script"] == [{}]
    (image,) = page.found["img"]
    assert set(image) == {"src", "alt"}
    assert image["alt"] == HOSTILE
    assert [a["href"] for a in page.found["a"]] == [HOSTILE]
    assert not any(name.startswith("on") for all_ in page.found.values() for a in all_ for name in a)


def test_cells_say_their_numbers_and_sort_by_them(tmp_path):
    row = [1234, 0.00012345, None, math.nan, "text", Cell("3 ± 1", order=3.0)]
    page = page_of(tmp_path / "page.html", Table(list("abcdef"), [row]))
    assert [cell["data-order"] for cell in page.found["td"]] == [
        "1234.0",
        "0.00012345",
        "",
        "",
        "text",
        "3.0",
    ]
    assert ["number" in (cell.get("class") or "") for cell in page.found["td"]] == [1, 1, 1, 1, 0, 1]
    assert {"1,234", "0.0001234", "–", "text", "3 ± 1"} <= set(page.texts)


def test_rows_that_do_not_fit_their_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 2 cells in a row, got 1"):
        page_of(tmp_path / "page.html", Table(["a", "b"], [["x"]]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_place_points_by_their_values(logarithmic):
    """The path of a curve, read back through two ticks of each axis, is the curve."""
    curve = [(0.0, 1.0), (50.0, 30.0), (100.0, 1000.0)]
    chart = Chart("", {"a": [*curve, (60.0, math.nan), (70.0, math.inf)]}, logarithmic=logarithmic)
    scale = math.log10 if logarithmic else float
    read = []
    for axis, warp in ((chart.x, float), (chart.y, scale)):
        (p, a), *_, (q, b) = ((t.position, warp(float(t.label.replace(",", "")))) for t in axis.ticks)
        read.append(lambda pixel, p=p, q=q, a=a, b=b: a + (b - a) * (pixel - p) / (q - p))
    points = chart.paths["a"].removeprefix("M").removesuffix("m-2,0h4").split("L")
    for point, (x, y) in zip(points, curve, strict=True):
        px, py = map(float, point.split(","))
        assert read[0](px) == pytest.approx(x, abs=0.5)
        assert read[1](py) == pytest.approx(scale(y), abs=0.02 if logarithmic else 6)
        assert chart.left <= px <= chart.right
        assert chart.top <= py <= chart.bottom


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [5.0], [-2.0, -2.0], [1e-30, 1e30], [3.0, 3.1]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_of_few_or_odd_values(values, logarithmic):
    chart = Chart("", {"a": [(float(x), y) for x, y in enumerate(values)]}, logarithmic=logarithmic)
    for axis, low, high in ((chart.x, chart.left, chart.right), (chart.y, chart.top, chart.bottom)):
        assert 2 <= len(axis.ticks) <= 6
        assert all(low - 0.1 <= tick.position <= high + 0.1 for tick in axis.ticks)
    assert bool(chart.paths) == any(map(math.isfinite, values))
    if min(values, default=0.0) >= 0 and not chart.y.logarithmic:
        assert chart.y.low == 0  # a fraction that is 0 throughout is not between -0.5 and 0.5
    assert "nan" not in str(chart.paths)


# Reports of runs.


@dataclass(frozen=True, kw_only=True)
class Data(Settings):
    data: Path | None = None
    text: str = "usual"


@dataclass(frozen=True, kw_only=True)
class Config(DomainConfig):
    data: Data = field(default_factory=Data)


DOMAIN = MagicMock(spec=Domain)
DOMAIN.name, DOMAIN.config_type = "toy", Config


def report_of(folder: Path, config: Config, metrics: dict[str, Metric]) -> Path:
    write_json(folder / "config.json", {"domain": "toy"})
    write_report(DOMAIN, folder, config, metrics)
    return folder / REPORT


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Report of a run with everything in it that could be too wide or dangerous."""
    for name in ("samples.png", "training.png", "<script>.png"):
        with written_figure(tmp_path / "run" / "figures" / name, 3.0):
            pass
    records = [{"step": 50 * k, "loss": 10.0**-k, "ess": 3.0, HOSTILE: k, LONG: k} for k in range(4)]
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    write_json(
        tmp_path / "run" / "environment.json",
        {"program": "drift train sphere", "command": LONG, "torch": HOSTILE},
    )
    config = Config.of(steps=7, data=Path(f"{HOSTILE}.csv"), text=LONG)
    metrics = {
        name: Metric(v, 0.01, 0.5, 0.1) for name, v in (("ten", 10.0), ("nine", 9.0), (LONG, 0.123456))
    }
    return report_of(tmp_path / "run", config, {**metrics, "nothing": Metric(None, None, 0.25, 0.0)})


def test_a_report_holds_what_the_run_holds(run):
    page = Elements(run)
    assert page.found["script"] == [{}]
    assert len(page.found["img"]) == 2  # the curves are drawn as charts
    assert len(page.found["svg"]) == 4
    assert {
        "0.123 ± 0.010",
        "0.50 ± 0.10",
        "0.25",
        "undefined",
        "0.2500",
        "drift train sphere --config RUN/config.json --out NEW",
    } <= set(page.texts)
    strong = [cell for cell in page.found["td"] if "strong" in (cell.get("class") or "")]
    assert [cell["data-order"] for cell in strong] == ["7", str(Path(f"{HOSTILE}.csv")), LONG]
    assert page.texts[page.texts.index("7") + 2] == "4000"  # the default


def test_a_run_without_figures_log_and_environment_has_a_report(tmp_path):
    page = Elements(report_of(tmp_path, Config(), {"mmd": Metric(math.nan, math.nan, None, None)}))
    assert page.texts.count("None.") == 2
    assert {"It was not recorded.", "undefined"} <= set(page.texts)
    assert "strong" not in str(page.found["td"])


def test_changes_on_resuming_are_told(tmp_path):
    write_json(tmp_path / "config.json", {"domain": "toy", "changes": ["lr was 1, is 2"]})
    write_report(DOMAIN, tmp_path, Config(), {})
    assert "Changed while it was trained: lr was 1, is 2." in Elements(tmp_path / REPORT).texts


# In a browser.

MEASURE = """<iframe id="frame" style="height: 900px; border: 0" srcdoc="%s"></iframe>
<pre id="found"></pre><script>
frame.onload = () => {
  const page = frame.contentDocument, found = {overflow: {}};
  found.fetched = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
  const root = page.documentElement;
  const parts = page.querySelectorAll("p, pre, h1, h2, figure, figcaption, svg, img, .scroll, .legend span");
  for (const width of [320, 390, 768, 1280]) {
    frame.style.width = width + "px";
    const wide = [...parts].filter(part => part.getBoundingClientRect().right > width + 0.5);
    found.overflow[width] = [root.scrollWidth > width, ...wide.map(part => part.tagName)];
  }
  const heads = page.querySelector("table").tHead.rows[0].cells;
  found.orders = [0, 1, 1].map(column => {
    heads[column].firstChild.click();
    return Array.from(page.querySelector("tbody").rows, row => row.cells[0].textContent);
  });
  const scroll = page.querySelector(".scroll");
  if (scroll) {
    frame.style.width = "390px";
    scroll.scrollLeft = 1e4;
    const left = part => part.getBoundingClientRect().left;
    found.scrolled = [scroll.scrollLeft > 0, left(page.querySelector("td")) - left(scroll)];
  }
  found.back = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[str]]]:
    """Port of a proxy that refuses all requests, and the addresses asked for."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            line = self.rfile.readline().decode()
            asked.extend(line.split()[1:2])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def browse(page: Path, port: int, *, dark: bool) -> dict[str, Any]:
    """What `MEASURE` finds of a page in Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    measured = page.with_name("measured.html")
    measured.write_text(MEASURE % html.escape(page.read_text()))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-component-update", "--no-first-run", f"--user-data-dir={page.parent / 'profile'}"]
    flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--proxy-server=127.0.0.1:{port}"]
    command = [CHROMIUM, *flags, "--window-size=1400,1000", "--dump-dom", measured.as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(document.partition('id="found">')[2].partition("</pre>")[0]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser_a_report_fits_sorts_and_asks_for_nothing(run, proxy, dark):
    port, asked = proxy
    found = browse(run, port, dark=dark)
    assert found["overflow"] == {str(width): [False] for width in (320, 390, 768, 1280)}
    names, ascending, descending = found["orders"]
    assert names == [LONG, "nine", "nothing", "ten"]
    assert ascending == [LONG, "nine", "ten", "nothing"]
    assert descending == ["ten", "nine", LONG, "nothing"]
    assert found["back"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
    assert not any("example.invalid" in address for address in asked)  # Chromium's own requests are others


def test_in_a_browser_a_study_fits_and_its_rows_keep_their_names_in_sight(tmp_path, proxy):
    port, asked = proxy
    columns = ["method", *(f"data set {k}" for k in range(12))]
    cell = Cell("0.125 ± 0.003 (1.14)", 0.125, strong=True)
    rows = [[f"a method with a long name, {k}", *[cell] * 12] for k in range(3)]
    study = StudyReport("Table 9", ["About."], [Table(columns, rows, "MMD (lower is better)")])
    write_study(tmp_path / "study.html", [study], {"table8": "no data"}, "uv run apps/reproduce.py all")
    found = browse(tmp_path / "study.html", port, dark=False)
    assert found["overflow"] == {str(width): [False] for width in (320, 390, 768, 1280)}
    assert found["scrolled"] == [True, 0]
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
    assert not any("example.invalid" in address for address in asked)


def test_what_is_measured_in_the_browser_would_be_seen(tmp_path, proxy):
    """A page that is too wide, and whose image and script are fetched."""
    port, asked = proxy
    (tmp_path / "page.html").write_text(
        '<p style="width: 1000px">wide</p>'
        "<table><thead><tr><th><i></i><th><i></i></thead><tbody></tbody></table>"
        '<img src="http://example.invalid/a.png"><script src="http://example.invalid/a.js"></script>'
    )
    found = browse(tmp_path / "page.html", port, dark=False)
    assert {width: over[:2] for width, over in found["overflow"].items()} == {
        **{width: [True, "P"] for width in ("320", "390", "768")},
        "1280": [False],
    }
    assert {f"http://example.invalid/a.{kind}" for kind in ("png", "js")} <= {*asked} & {*found["fetched"]}
