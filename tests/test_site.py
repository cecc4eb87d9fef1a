"""The documentation site builds without warnings, leads somewhere, and opens offline on all screens."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from drift_core.runs.figures import written_figure

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "packages" / "drift-core" / "docs"
PACKAGES = sorted(path.name.replace("-", "_") for path in ROOT.glob("packages/drift-*"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

LOOKED_AT = ("index", "idea", "results", "packages/drift-qm9", "api/drift_core", "gallery/index")
WIDTHS = (390, 1280)


class Page(HTMLParser):
    """Names of the elements of a page, where its links lead and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found.get("href") or "")
        else:
            self.loaded += [found[name] for name in ("src", "href") if found.get(name)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A study and a benchmark, measured by nobody."""
    runs = tmp_path_factory.mktemp("runs")
    study = runs / "reproduce" / "table1-quick"
    for figure in (study / "figures" / "samples-0.2.png", runs / "benchmark" / "new.png"):
        with written_figure(figure, 1.0, 20.0):
            pass
    (study / "table1.json").write_text("{}")
    (study / "table1.md").write_text(
        "**Table 1**\n\n| method | metric |\n|---|---|\n| ours | 0.1234 ± 0.0005 |\n"
    )
    measured = {"seconds": 0.5, "ratio": 1.0, "memory": None, "error": None}
    case = {"group": "S2", "name": "a case", "sizes": {"n": 4096, "m": 4096, "d": 3}}
    report = {
        "machine": {"processor": "abacus", "threads": 2, "cores": 2, "torch": "2.6", "load": 0.1},
        "ceilings": {"sgemm_flops": 1e11, "copy_bytes": 1e10, "exps": 1e9},
        "cases": [{**case, "candidates": {"smoothed_score": measured}}],
        "skipped": {},
    }
    (runs / "benchmark" / "new.json").write_text(json.dumps(report))
    return runs


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    flags = ["-W", "--keep-going", "-q", "-t", "draft", "-D", f"drift_runs={runs}", "-d", f"{out}.trees"]
    command = [sys.executable, "-m", "sphinx", *flags, str(DOCS), str(out)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr
    return out


def test_links_lead_to_what_there_is_and_pages_load_nothing_from_elsewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    for path, page in pages.items():
        for target in [*page.links, *page.loaded]:
            file, anchor = urldefrag(unquote(target))
            if file.startswith(("https://", "mailto:")):
                assert target in page.links, f"{path.name} loads {target}"
                continue
            found = (path.parent / file.partition("?")[0]).resolve() if file else path
            assert found.is_file(), f"{path.name}: {target}"
            if anchor and found in pages:
                assert anchor in pages[found].ids, f"{path.name}: {target}"
    external = (site / "external-links.txt").read_text()
    assert "https://arxiv.org/abs/2605.10727  " in external
    listed = {line.split()[0] for line in external.splitlines()}
    assert listed >= {link for link in Page(site / "index.html").links if "arxiv" in link}


def test_every_public_name_is_described(site):
    for package in PACKAGES:
        described = Page(site / "api" / f"{package}.html").ids
        names = importlib.import_module(package).__all__
        assert [name for name in names if f"{package}.{name}" not in described] == []


def test_results_and_benchmarks_are_what_was_measured(site):
    results, benchmarks = ((site / f"{name}.html").read_text() for name in ("results", "benchmarks"))
    assert "0.1234\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.0005" in results
    kept = [path.stem for path in ROOT.glob("packages/*/results/*.md")]
    assert len(kept) > 4
    assert results.count("Made by") == len(set(kept) - {"table1-quick"})
    assert "Not measured in this working tree" not in results
    assert {"abacus", "500 ms"} <= set(re.findall(r"abacus|500 ms", benchmarks))


MEASURE = """<body></body><pre id="found"></pre><script>
for (const page of %s) for (const width of %s) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border: 0; height: 900px; width: ${width}px`;
  frame.dataset.width = width;
  frame.src = page;
  document.body.append(frame);
}
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, width = Number(frame.dataset.width);
    const parts = [...page.querySelectorAll("h1, h2, article > * > *, article img")];
    return {
      width: width,
      root: page.documentElement.scrollWidth,
      wide: parts.filter(part => part.getBoundingClientRect().right > width + 1).map(part => part.outerHTML),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
      back: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def browse(address: str, profile: Path, *flags: str) -> str:
    """Document that Chromium makes of a page; files may read one another, and no request leaves."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    alone = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-background-networking"]
    alone += ["--disable-component-update", "--no-first-run", "--proxy-server=127.0.0.1:9"]
    command = [CHROMIUM, *alone, f"--user-data-dir={profile}", *flags, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser_pages_fit_and_ask_for_nothing(site, tmp_path, dark):
    addresses = [(site / f"{name}.html").as_uri() for name in LOOKED_AT]
    (tmp_path / "measured.html").write_text(MEASURE % (json.dumps(addresses), json.dumps(WIDTHS)))
    flags = ["--allow-file-access-from-files", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    document = browse((tmp_path / "measured.html").as_uri(), tmp_path / "profile", *flags)
    frames = json.loads(unescape(document.partition('id="found">')[2].partition("</pre>")[0]))
    assert len(frames) == len(LOOKED_AT) * len(WIDTHS)
    for frame in frames:
        assert (frame["root"], frame["wide"]) == (frame["width"], [])
        assert [name for name in frame["loaded"] if not name.startswith(("file:", "data:"))] == []
        assert (sum(map(int, re.findall(r"\d+", frame["back"])[:3])) < 200) == dark


def test_the_search_works_without_a_server(site, tmp_path):
    address = f"{(site / 'search.html').as_uri()}?q=lengthscale"
    found = browse(address, tmp_path / "profile", "--virtual-time-budget=10000")
    assert 'href="lengthscale.html' in found.partition('id="search-results"')[2]
