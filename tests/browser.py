"""A person in front of Prefect's pages: what is clicked and typed, by what stands on the screen.

Used by the tests, and by docs/screenshots.py, which takes a picture at each `look`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RUN_SECONDS = 90

Look = Callable[[str], None]


def _no_look(_name: str) -> None:
    """Nobody takes a picture."""


@contextmanager
def browser_page(width: int = 1180, height: int = 760, arguments: Sequence[str] = ()) -> Iterator[Page]:
    """A page of a Chromium that is on this machine; it sees the loopback address and files and nothing else."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(arguments))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.route(lambda url: "//127.0.0.1:" not in url and not url.startswith("file:"), lambda route: route.abort())
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def start_from_form(
    page: Page, root: str, deployment: str, texts: Mapping[str, str], days: Mapping[str, str], look: Look = _no_look
) -> None:
    """From the list of deployments to a form filled in and sent, and to the page of the flow run that it starts."""
    page.goto(f"{root}/v2/deployments")
    page.get_by_role("link", name=deployment, exact=True).first.wait_for()
    look("deployments")
    page.get_by_role("link", name=deployment, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    for label, text in texts.items():
        page.get_by_label(f"{label} (Optional)").fill(text)
    for label, day in days.items():
        page.get_by_label(f"{label} (Optional)").click()
        page.get_by_label("Date (yyyy-MM-dd)").fill(day)
        page.keyboard.press("Escape")
    look("form")
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="View run").click()
    page.wait_for_url("**/runs/flow-run/**")


def wait_until_completed(page: Page, look: Look = _no_look) -> None:
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible(timeout=RUN_SECONDS * 1_000)
    look("run")


def open_artifact(page: Page, key: str, look: Look = _no_look) -> None:
    """From the page of a flow run: the tab, the card, and the newest of its kind."""
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link", name=key).last.wait_for()
    look("artifacts")
    page.get_by_role("link", name=key).last.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_role("tab", name="Raw").wait_for()


def widths_of_pictures(page: Page) -> list[int]:
    """Of those within the page, in their own pixels: 0 where one could not be drawn."""
    found = page.wait_for_function(
        """() => {
            const all = [...document.querySelectorAll("img[src^='data:']")];
            return all.length && all.every(it => it.complete) ? all.map(it => it.naturalWidth) : null;
        }"""
    )
    return [int(width) for width in found.json_value()]
