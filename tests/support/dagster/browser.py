"""A person at Dagster's pages, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.dagster.web_ui import WebUi

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PICTURES = os.environ.get("PICTURES")
HAS_BROWSER = _CHROMIUM is not None
PATIENCE_MS = 480_000
# The program of the pages shows another one without being loaded and compiled again.
_FOLLOW = "url => { history.pushState({}, '', url); dispatchEvent(new PopStateEvent('popstate', {state: {}})) }"
needs_browser = pytest.mark.skipif(
    not HAS_BROWSER, reason="no Chromium is installed; no package registry of Python brings one"
)


@dataclass(slots=True)
class Person:
    """Someone at the page that lists the partitions of the corpus."""

    page: Page
    url: str

    @classmethod
    @contextmanager
    def at(cls, web: WebUi) -> Generator[Self]:
        """Someone with a new browser."""
        with sync_playwright() as playwright:
            # As root, which CI is, Chromium runs without its sandbox or not at all.
            browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            yield cls(browser.new_page(viewport={"width": 1500, "height": 950}), web.url)
            browser.close()

    def open_partitions(self, asset: str = "metadata") -> None:
        self.page.goto(f"{self.url}/assets/docs/{asset}?view=partitions", wait_until="domcontentloaded")
        self.skip_invitation()

    def skip_invitation(self) -> None:
        """Dagster invites everybody to its community, once."""
        invitation = self.page.get_by_text("Skip", exact=True)
        counts = self.page.get_by_text(re.compile(r"^Materialized"))
        expect(invitation.or_(counts).first).to_be_visible(timeout=PATIENCE_MS)
        self.page.wait_for_timeout(1500)
        if invitation.is_visible():
            invitation.click()

    def sees(self, **counts: int) -> None:
        """Wait until the page shows these numbers of partitions; it follows by itself."""
        for name, count in counts.items():
            label = self.page.get_by_text(f"{name.capitalize()} ({count})", exact=True)
            expect(label.first).to_be_visible(timeout=PATIENCE_MS)

    def launches_a_backfill_of_all(self) -> None:
        self.page.get_by_role("button", name="Materialize").first.click()
        self.page.get_by_role("button", name="All", exact=True).click()
        self.picture("backfill")
        self.page.get_by_role("button", name="Launch backfill").click()
        expect(self.page.get_by_role("button", name="Launch backfill")).to_be_hidden(timeout=PATIENCE_MS)

    def looks_at(self, url: str) -> None:
        """Open a page as a link of another page does, and what it shows only when asked."""
        self.page.evaluate(_FOLLOW, url)
        self.page.wait_for_timeout(1500)
        for button in self.page.get_by_text(re.compile(r"(Show|View) (Markdown|Table|more)", re.IGNORECASE)).all():
            if button.is_visible():
                button.dispatch_event("click")  # another element of the page may lie over it
                self.page.wait_for_timeout(500)
                self.page.keyboard.press("Escape")
        self.picture(f"page-{len(url)}")

    def picture(self, name: str) -> None:
        if _PICTURES:
            self.page.wait_for_timeout(2000)
            self.page.screenshot(path=Path(_PICTURES) / f"{name}.png")
