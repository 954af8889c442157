"""The page of a real run, opened in Chromium: nothing missing, nothing loaded, no complaints."""

import json
import re
import shutil
import subprocess

import pytest

from entropy_cli.cli import main

pytest.importorskip("matplotlib")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, shared):
    """Folder with a tokenizer trained on photographs, its result on others, and the page of that."""
    folder = tmp_path_factory.mktemp("run")
    data = str(shared / "imagenet-sample")
    argv = ["train", "--data", f"{data}/train", "--output", str(folder), "--image-size", "32"]
    assert main([*argv, "--steps", "8", "--batch-size", "8"]) == 0
    argv = ["estimate", "--data", data, "--split", "val", "--ckpt", str(folder / "model.safetensors")]
    argv += ["--temperature", "1,0.5,0.25,2", "--workers", "0"]
    assert main([*argv, "-o", str(folder / "result.json"), "--report", str(folder / "page.html")]) == 0
    return folder


def opened(page, tmp_path, width=1280):
    """The page's DOM once its scripts have run, and what was written to the console."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            f"--window-size={width},900",
            "--dump-dom",
            f"file://{page}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def test_everything_is_there_and_nothing_is_loaded(run, tmp_path):
    dom, console = opened(run / "page.html", tmp_path)
    assert console == []
    assert "default-src 'none'" in dom
    assert len(re.findall(r"<figure><svg[^>]* aria-label=", dom)) == 4
    result = json.loads((run / "result.json").read_text())
    tables = {
        name: re.findall(r"<tr\b.*?</tr>", part.partition("</table>")[0], re.S)
        for name, part in re.findall(r'<h2 id="(\w+)">(.*?)(?=<h2|$)', dom, re.S)
    }
    scales = len(result["scales"])
    assert len(tables["soft"]) == len(tables["hard"]) == 1 + scales + 3
    assert len(tables["temperatures"]) == 1 + 4
    assert len(tables["codes"]) == 1 + 20


def test_a_click_sorts(run, tmp_path):
    page = run / "clicked.html"
    click = (
        "<script>document.querySelectorAll('h2#temperatures + div button')[0].click()</script></body>"
    )
    page.write_text((run / "page.html").read_text().replace("</body>", click))
    dom, console = opened(page, tmp_path)
    table = dom[dom.index('id="temperatures"') :].partition("</table>")[0]
    assert console == []
    assert re.findall(r'<th scope="row">([\d.]+)</th>', table) == ["2", "1", "0.5", "0.25"]
    assert 'aria-sort="descending"' in table


@pytest.mark.parametrize("width", [400, 1280])
def test_a_caveat_is_on_the_screen_with_its_number(run, tmp_path, width):
    other = json.loads((run / "result.json").read_text())
    for scale in other["scales"]:
        scale["temperature"] = 9.0
    (run / "other.json").write_text(json.dumps(other))
    page = run / "both.html"
    assert main(["report", str(run / "result.json"), str(run / "other.json"), "-o", str(page)]) == 0
    measure = """<script>
      const row = [...document.querySelectorAll("#differences + div tbody tr")].pop();
      const wide = row.closest(".wide"), before = row.cells[0].getBoundingClientRect();
      const shown = [2, 0].map((i) => row.cells[i].getBoundingClientRect().right <= innerWidth);
      wide.scrollLeft = 9999;
      const stays = row.cells[0].getBoundingClientRect().left === before.left;
      const fits = document.documentElement.scrollWidth <= innerWidth;
      document.body.append(JSON.stringify([row.cells[0].innerText, shown, stays, fits]));
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", measure))
    dom, console = opened(page, tmp_path, width)
    assert console == []
    caveat = r"other\\nNOT COMPARABLE: different temperatures"
    assert re.search(rf'\["{caveat}",\[true,true\],true,true\]', dom)


def test_a_page_that_loads_something_would_be_noticed(run, tmp_path):
    """What the tests above go by."""
    page = run / "loading.html"
    loading = '<img src="http://example.org/picture.png" alt=""></body>'
    page.write_text((run / "page.html").read_text().replace("</body>", loading))
    _, console = opened(page, tmp_path)
    assert any("Content Security Policy" in line for line in console)
