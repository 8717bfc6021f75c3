"""The page in a browser: it opens from disk under its own policy, sorts, runs nothing else, and fits a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.report import draw_figures, write_page
from tests import report_example as example

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def _browse(url: str, profile: Path, *options: str) -> str:
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    command = [str(CHROMIUM), *flags.split(), "--disable-sync", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--v=0", *options, "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    table, context = example.score_table(), example.context()
    figures = draw_figures(table, example.STUDIES, context, out)
    return write_page(context, table, figures, example.SAMPLES, out, example.STUDIES)


def test_the_page_opens_from_disk_without_breaking_its_own_policy(page: Path, tmp_path: Path) -> None:
    shown = _browse(page.as_uri(), tmp_path)
    assert "Content Security Policy" not in shown
    assert "<title>demo · Pinch report</title>" in shown


def test_a_heading_sorts_and_the_page_is_no_wider_than_a_phone(page: Path, tmp_path: Path) -> None:
    # The page is put in a frame as wide as a phone by a page that may look into it and press its headings.
    outside = tmp_path / "outside.html"
    outside.write_text(
        f"""<!doctype html><iframe src="{page.as_uri()}" style="width:390px;height:800px;border:0"></iframe>
        <pre id="found"></pre><script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{
          const inside = frame.contentDocument;
          const head = [...inside.querySelectorAll("th")].find((th) => th.textContent.trim() === "IF");
          head.querySelector("button").click();
          const column = head.cellIndex;
          const rows = [...inside.querySelectorAll("tbody tr")];
          const values = rows.map((row) => parseFloat(row.cells[column].textContent));
          const sorted = values.every((value, at) => !at || values[at - 1] >= value);
          const wide = inside.documentElement.scrollWidth;
          found.textContent = `sorted=${{sorted}} aria=${{head.getAttribute("aria-sort")}} wide=${{wide}}`;
        }};
        </script>"""
    )
    shown = _browse(
        outside.as_uri(), tmp_path / "profile", "--allow-file-access-from-files", "--virtual-time-budget=5000"
    )
    found = re.search(r"sorted=(\w+) aria=(\w+) wide=(\d+)", shown)
    assert found is not None, shown[-2000:]
    assert found.groups()[:2] == ("true", "descending")
    assert int(found.group(3)) <= 390


def test_a_hostile_response_runs_nothing(page: Path, tmp_path: Path) -> None:
    shown = _browse(page.as_uri(), tmp_path, "--virtual-time-budget=3000")
    assert "<title>owned</title>" not in shown
    assert "&lt;script&gt;document.title=" in shown
