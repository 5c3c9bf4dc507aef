"""The page in a real browser: Debian's chromium, driven by Playwright. Both are for tests only."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.server.conftest import file_of, photo

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium here (apt install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need: pip install playwright")

pytestmark = pytest.mark.slow
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]  # fmt: skip
SHOTS = os.environ.get("PRIORPAINT_SCREENSHOTS")
LONG = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page in a window of its own; it asks nobody else for anything and reports no error."""
    yield from opened(browser, address, {"width": 1280, "height": 800})


def opened(browser: Any, address: str, size: dict[str, int]) -> Iterator[Any]:
    context = browser.new_context(viewport=size, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(LONG)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
    assert errors == []


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def give(page: Any, data: bytes, name: str, mime: str) -> None:
    page.locator("#file").set_input_files([{"name": name, "mimeType": mime, "buffer": data}])
    playwright.expect(page.locator("#work")).to_be_visible(timeout=LONG)


def fewer_steps(page: Any, samples: int = 2) -> None:
    page.locator("#samples").fill(str(samples))
    page.locator("#run-box summary").click()
    page.locator("[data-setting=steps]").fill("2")
    page.locator("#run-box summary").click()


def paint(page: Any, share: float = 0.5) -> None:
    box = page.locator("#stage").bounding_box()
    x, y = box["x"] + share * box["width"], box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 10, y + 10, steps=3)
    page.mouse.up()


def fill(page: Any, answers: int) -> None:
    page.locator("#run").click()
    playwright.expect(page.locator("#status")).to_contain_text("Done", timeout=LONG)
    playwright.expect(page.locator("#strip button")).to_have_count(answers + 1)


def downloaded(page: Any) -> Image.Image:
    with page.expect_download() as download:
        page.locator("#download").click()
    return Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))


def test_from_a_rotated_photo_to_an_answer_filled_in_again(page: Any) -> None:
    shot(page, "1-welcome")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(photo(64).crop((0, 0, 64, 48)), "JPEG", exif=exif)
    give(page, data, "turned.jpg", "image/jpeg")
    playwright.expect(page.locator("#status")).to_contain_text("48×64")
    paint(page, 0.48)
    paint(page, 0.55)
    page.locator("#undo").click()
    shot(page, "2-painted")
    playwright.expect(page.locator("#preset option").nth(1)).to_contain_text("about", timeout=LONG)
    fewer_steps(page)
    fill(page, 2)
    playwright.expect(page.locator("#badge")).to_have_text("0 known pixels changed")
    shot(page, "3-answers")
    page.locator("#show-heat").check()
    playwright.expect(page.locator("#heat")).to_be_visible()
    playwright.expect(page.locator("#legend-top")).to_contain_text("of 255")
    shot(page, "4-uncertainty")
    page.keyboard.press("u")
    page.keyboard.press("2")
    second = downloaded(page)
    page.keyboard.press("n")  # round to the first
    first = downloaded(page)
    upright = np.asarray(Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270))
    a, b = np.asarray(first), np.asarray(second)
    differs = (a != b).any(axis=2)
    assert a.shape == upright.shape and 0 < differs.mean() < 0.4
    assert (a[~differs] == upright[~differs]).mean() > 0.99  # a pixel of the hole may come out the same
    page.locator("#accept").click()
    paint(page, 0.45)
    fill(page, 2)
    playwright.expect(page.locator("#badge")).to_have_text("0 known pixels changed")
    playwright.expect(page.locator("#history button")).to_have_count(2)
    shot(page, "5-again")
    page.reload()
    playwright.expect(page.locator("#history button")).to_have_count(2)
    playwright.expect(page.locator("#strip button")).to_have_count(3)


def test_a_job_is_cancelled_and_another_window_sees_nothing_of_it(page: Any, browser: Any, address: str) -> None:
    page.locator("#example").click()
    playwright.expect(page.locator("#work")).to_be_visible()
    paint(page)
    page.locator("#run").click()
    playwright.expect(page.locator("#status")).to_contain_text("%", timeout=LONG)
    shot(page, "6-working")
    stranger = browser.new_context().new_page()
    stranger.goto(address)
    playwright.expect(stranger.locator("#welcome")).to_be_visible()
    stranger.context.close()
    page.reload()  # in the middle of it
    playwright.expect(page.locator("#cancel")).to_be_visible()
    page.locator("#cancel").click()
    playwright.expect(page.locator("#status")).to_contain_text("Stopped", timeout=LONG)
    playwright.expect(page.locator("#run")).to_be_visible()


def test_with_the_keyboard_alone(page: Any) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "example":
            break
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#status")).to_contain_text("480×320")
    for key in ("Enter", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    playwright.expect(page.locator("#undo")).to_be_enabled()
    page.keyboard.press("Control+z")
    playwright.expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("Shift+R")
    playwright.expect(page.locator("#status")).to_contain_text("Paint over what is to be filled first")
    page.keyboard.press("?")
    playwright.expect(page.locator("#help")).to_be_visible()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, a, summary')].filter((one) =>"
        " !(one.textContent || one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize(("name", "size"), [("narrow", (360, 740)), ("large", (3840, 2160))])
def test_sizes(browser: Any, address: str, name: str, size: tuple[int, int]) -> None:
    for page in opened(browser, address, dict(zip(("width", "height"), size, strict=True))):
        page.locator("#example").click()
        playwright.expect(page.locator("#work")).to_be_visible()
        page.locator("[data-tool=lasso]").click()
        paint(page)
        playwright.expect(page.locator("#undo")).to_be_enabled()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.emulate_media(color_scheme="dark")
        shot(page, f"7-{name}")
