"""The page of an endpoint in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import Browser, need_chromium
from endpoint_daemon import Endpoint


@pytest.fixture
def shown(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    """An endpoint with a page, at the same address after a restart."""
    need_chromium()
    endpoint = make_endpoint(web={"address": "127.0.0.1:0"})
    endpoint.configure(web={"address": endpoint.card["web"]})
    return endpoint


@pytest.fixture
def browser(tmp_path: Path, shown: Endpoint) -> Iterator[Browser]:
    """A browser that shows the page."""
    with Browser(tmp_path) as browser:
        browser.tell("Page.navigate", url=f"http://{shown.card['web']}/")
        browser.wait_until("document.querySelector('#state')?.dataset.state === 'good'")
        yield browser


def text(element: str) -> str:
    """The expression for what an element shows."""
    return f"document.getElementById('{element}').textContent"


def problems(browser: Browser) -> list[object]:
    """What the browser complained of."""
    found: list[object] = []
    found += browser.told("Runtime.exceptionThrown")
    found += [
        entry for entry in browser.told("Log.entryAdded") if entry["entry"]["level"] == "error"
    ]
    found += [call for call in browser.told("Runtime.consoleAPICalled") if call["type"] == "error"]
    return found


def test_the_page_says_which_endpoint_it_is(shown: Endpoint, browser: Browser) -> None:
    assert browser.evaluate(text("name")) == shown.name
    assert browser.evaluate(text("id")) == shown.card["id"]
    assert browser.evaluate("document.title") == shown.name
    assert not problems(browser)


def test_what_is_stored_shows_without_a_reload(shown: Endpoint, browser: Browser) -> None:
    browser.evaluate("window.loadedOnce = true")
    width = "document.getElementById('memory').firstElementChild.getBoundingClientRect().width"
    browser.wait_until(f"{text('objects')} === '0'")
    assert browser.evaluate(width) == 0
    with shown.raw() as client:
        for number in range(3):
            client.put(f"object-{number}", bytes(1 << 20))
        browser.wait_until(f"{text('objects')} === '3'")
        browser.wait_until(f"{text('clients')} === '1'")
        assert browser.evaluate(text("memory-text")).startswith("3 MiB of ")
        assert browser.evaluate(width) > 0
    browser.wait_until(f"{text('clients')} === '0'")
    assert browser.evaluate("window.loadedOnce") is True
    assert not problems(browser)


def test_an_endpoint_that_is_gone_is_shown_so_until_it_is_back(
    shown: Endpoint, browser: Browser
) -> None:
    browser.evaluate("window.loadedOnce = true")
    gone = "document.getElementById('gone').checkVisibility()"
    assert not browser.evaluate(gone)
    shown.kill()
    browser.wait_until(f"{text('state')} === 'gone'")
    assert browser.evaluate(gone)
    assert browser.evaluate(text("name")) == shown.name
    shown.start()
    browser.wait_until(f"{text('state')} === 'running'")
    assert not browser.evaluate(gone)
    assert browser.evaluate("window.loadedOnce") is True


def test_the_page_asks_its_endpoint_and_nobody_else(shown: Endpoint, browser: Browser) -> None:
    browser.wait_until("performance.getEntriesByType('resource').length > 4")
    asked = {
        urlsplit(event["request"]["url"]) for event in browser.told("Network.requestWillBeSent")
    }
    assert {url.netloc for url in asked} == {shown.card["web"]}
    assert {url.path for url in asked} >= {"/", "/page.css", "/page.js", "/status.json"}
    assert not problems(browser)


def test_what_does_not_change_is_not_touched(shown: Endpoint, browser: Browser) -> None:
    browser.evaluate(
        "window.touched = [];"
        "new MutationObserver((all) => touched.push(...all.map((one) => one.target.id)))"
        ".observe(document.querySelector('main'),"
        " { subtree: true, childList: true, characterData: true, attributes: true })"
    )
    asked = "performance.getEntriesByName(`${location.origin}/status.json`).length"
    before = browser.evaluate(asked)
    browser.wait_until(f"{asked} >= {before + 3}")
    assert browser.evaluate("touched") == []


def test_the_page_fits_a_phone(shown: Endpoint, browser: Browser) -> None:
    browser.tell(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=700,
        deviceScaleFactor=2,
        mobile=True,
    )
    browser.wait_until("innerWidth === 360")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
