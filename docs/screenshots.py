"""Make the pictures of docs/operate-ui.md, in a home of its own: `uv run python docs/screenshots.py`. Look at each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests import browser

IMAGES = Path(__file__).parent / "images"
WIDTH = 900
SWEEP = Path(__file__).parent.parent / "config" / "sweeps" / "sma_grid.yaml"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ntrader-shots-") as home:
        os.environ["NTRADER_HOME"] = home
        try:
            from flows.launch import bring_up
            from ntrader.settings import load_settings
            from tasks.server import running_server

            settings = load_settings()
            bring_up(settings)
            ntrader("sweep", "run", str(SWEEP))
            server = running_server(settings.home)
            assert server is not None
            with browser.browser_page() as page:
                photograph(page, server.ui_url)
        finally:
            ntrader("down")


def ntrader(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cli.main", *arguments], check=True)


def smaller(shot: bytes) -> Image.Image:
    """As wide as it is read, and with as many colours as such a page needs."""
    image = Image.open(BytesIO(shot)).convert("RGB")
    size = WIDTH, round(image.height * WIDTH / image.width)
    return image.resize(size, Image.Resampling.LANCZOS).quantize(64)


def photograph(page: Page, root: str) -> None:
    def look(name: str) -> None:
        page.wait_for_timeout(1_500)  # what fades in has done so
        smaller(page.screenshot()).save(IMAGES / f"{name}.png", optimize=True)

    def look_at_all(name: str) -> None:
        """The whole of a page that is longer than the window."""
        height = page.evaluate("Math.max(...[...document.querySelectorAll('main *')].map(it => it.scrollHeight))")
        page.set_viewport_size({"width": 1180, "height": min(height + 40, 1_500)})
        look(name)
        page.set_viewport_size({"width": 1180, "height": 760})

    def look_as_asked(name: str) -> None:
        (look_at_all if name == "form" else look)(name)

    days = {"First day": "2006-01-01", "Last day": "2010-12-31"}
    browser.start_from_form(page, root, "backtest", {"Symbol": "MSFT"}, days, look_as_asked)
    browser.wait_until_completed(page)
    page.reload()  # the note that it was started goes, and every task run is counted
    browser.wait_until_completed(page, look)
    run = page.url
    browser.open_artifact(page, "backtest-summary", look)
    look_at_all("summary")
    page.goto(run)
    browser.open_artifact(page, "backtest-metrics")
    look("metrics")
    page.goto(f"{root}/v2/artifacts/key/sweep-1-summary")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    browser.widths_of_pictures(page)
    look("sweep")


if __name__ == "__main__":
    main()
