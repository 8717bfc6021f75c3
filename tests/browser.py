"""Chromium without a window: an HTML file is put in a frame as wide as a phone, by a page beside it that may look into
it and do what a reader does, and writes what it found as JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390
"""CSS pixels."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def browse(url: str, profile: Path, *options: str) -> str:
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    command = [str(CHROMIUM), *flags.split(), "--disable-sync", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", "--v=0", *options, "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout + done.stderr


def ask(page: Path, folder: Path, script: str) -> Any:
    """What ``script``, the body of an async function of the page's window and document, returns."""
    outside = folder / "outside.html"
    outside.write_text(
        f"""<!doctype html><iframe style="width:{PHONE}px;height:800px;border:0"></iframe><pre id="found"></pre><script>
        const frame = document.querySelector("iframe");
        const soon = () => new Promise((done) => setTimeout(done, 50));
        frame.onload = async () => {{
          frame.onload = null;
          const inside = frame.contentWindow, page = frame.contentDocument;
          const point = (kind, spot, type) => {{
            const box = spot.getBoundingClientRect();
            const where = {{ clientX: box.x + 3, clientY: box.y + 3, pointerType: type, bubbles: true }};
            spot.dispatchEvent(new inside.PointerEvent(kind, where));
          }};
          const press = (key) => page.activeElement.dispatchEvent(
            new inside.KeyboardEvent("keydown", {{ key, bubbles: true, cancelable: true }}));
          let said;
          try {{ said = await (async () => {{ {script} }})(); }} catch (problem) {{ said = String(problem); }}
          found.textContent = "<<" + encodeURIComponent(JSON.stringify(said)) + ">>";
        }};
        frame.src = "{page.as_uri()}";
        </script>"""
    )
    shown = browse(outside.as_uri(), folder / "profile", "--allow-file-access-from-files", "--virtual-time-budget=8000")
    found = re.search(r"&lt;&lt;(.*?)&gt;&gt;", shown)
    assert found is not None, shown[-2000:]
    return json.loads(unquote(found.group(1)))
