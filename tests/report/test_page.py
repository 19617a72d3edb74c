"""The page in a real browser: it renders, asks for nothing, runs nothing, and shows any token as it is."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from featurestore.report.measuring import report_on
from featurestore.report.page.rendering import render_page
from tests.report.conftest import WILD, labelled_by_vectors


@pytest.fixture(scope="module")
def page(reported, tmp_path_factory):
    made = report_on(reported, sample=0, examples=labelled_by_vectors(reported, 1), label="<u>sign</u>")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(made), encoding="utf-8")
    return path


class Outline(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_names_nothing_outside_itself(page):
    text = page.read_text(encoding="utf-8")
    outline = Outline(text).tags
    tags = {tag for tag, _ in outline}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in outline:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(text.encode()) < 5_000_000


def test_every_plot_says_what_it_shows_and_has_its_numbers(page):
    outline = Outline(page.read_text(encoding="utf-8")).tags
    ids = [attributes["id"] for _, attributes in outline if "id" in attributes]
    assert len(ids) == len(set(ids))
    images = [attributes for _, attributes in outline if attributes.get("role") == "img"]
    tags = [tag for tag, _ in outline]
    assert len(images) == tags.count("figure") == tags.count("details") - 1  # one table is folded alone
    assert len(images) >= 6
    assert all(attributes["aria-labelledby"] in ids for attributes in images)
    links = [a["href"][1:] for tag, a in outline if tag == "a"]
    assert set(links) <= set(ids)


def test_equal_reports_make_equal_pages(reported):
    first, second = (render_page(report_on(reported, sample=9)) for _ in range(2))
    assert first == second


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", "--window-size=1000,1200"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def test_it_renders_without_an_error_or_a_request(page, browser):
    browser.get(page.as_uri())
    assert browser.title.startswith("featurestore report: ")
    assert browser.get_log("browser") == []
    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(s => [s.clientWidth, s.clientHeight])"
    )
    assert len(sizes) >= 6
    assert all(width > 200 and height > 100 for width, height in sizes)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_tokens_are_shown_and_never_run(page, browser):
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    shown = browser.execute_script("return document.body.innerText")
    assert "<script>" in shown
    assert "<b>bold</b>" in shown
    assert "שלום" in shown
    assert "\u202e" not in shown
    assert "<u>sign</u>" in shown
    assert browser.execute_script("return document.querySelectorAll('script, img').length") == 0
    marked = browser.execute_script("return [...document.querySelectorAll('bdi')].map(e => e.textContent)")
    assert {"שלום", WILD[0][0]} <= set(marked)


def test_light_and_dark_and_by_keyboard(page, browser):
    from selenium.webdriver.common.keys import Keys

    colours = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.get(page.as_uri())
        colours[scheme] = browser.execute_script(
            "const s = getComputedStyle(document.body);"
            "const text = document.querySelector('figure svg text');"
            "return [s.backgroundColor, s.color, getComputedStyle(text).fill]"
        )
    assert colours["light"][0] != colours["dark"][0]
    for background, ink, label in colours.values():
        assert label == ink != background
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    summary = browser.find_element("css selector", "summary")
    summary.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.querySelector('details').open")
