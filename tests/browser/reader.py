"""Somebody who looks at a page, in a headless Chromium."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-device-scale-factor=1", "--disable-extensions")


@contextmanager
def in_a_browser(*more_options: str) -> Iterator[Reader]:
    """A reader with a headless Chromium, which is closed at the end."""
    options = webdriver.ChromeOptions()
    for option in (*_OPTIONS, *more_options):
        options.add_argument(option)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Reader(driver)
    finally:
        driver.quit()


class Reader:
    """Opens pages, and does by hand what a reader does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path, link: str = "", width: int = 1440, height: int = 1000, theme: str = "light") -> Reader:
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what others left
        self.driver.get("about:blank")  # else another link of the same page would not load it anew
        self.driver.get(file.as_uri() + link)
        self.until("return document.getElementById('name').textContent !== '' && document.getElementById('at').textContent !== ''")
        return self

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any) -> None:
        """Waits until the script returns something true."""
        WebDriverWait(self.driver, 20, poll_frequency=0.02).until(lambda driver: driver.execute_script(script, *arguments), script)

    def text(self, id_: str) -> str:
        return self.ask("return document.getElementById(arguments[0]).textContent", id_)

    def set(self, id_: str, value: str | bool) -> None:
        """As if chosen by hand."""
        self.ask(
            "const at = document.getElementById(arguments[0]), value = arguments[1];"
            "if (typeof value === 'boolean') at.checked = value; else at.value = value;"
            "for (const kind of ['input', 'change']) at.dispatchEvent(new Event(kind, {bubbles: true}))",
            id_,
            value,
        )

    def click(self, id_: str) -> None:
        self.ask("document.getElementById(arguments[0]).click()", id_)

    def press(self, *keys: str, on: str = "") -> None:
        self.ask("arguments[0] ? document.getElementById(arguments[0]).focus() : document.activeElement.blur()", on)
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def reached_by_keys(self) -> dict[str, str]:
        """What the tabulator key goes to, from the page's beginning: id, or which one it is, -> its name as a screen reader has it."""
        found: dict[str, str] = {}
        while True:
            ActionChains(self.driver, duration=0).send_keys(Keys.TAB).perform()
            at = self.driver.switch_to.active_element
            name = at.get_attribute("id") or str(len(found))
            if at.tag_name == "body" or name in found:
                return found
            found[name] = at.accessible_name

    def point(self, id_: str, x: float, y: float, *, click: bool = False, drag: tuple[int, int] | None = None) -> None:
        """Moves the pointer there, in pixels from the element's upper left corner."""
        self.ask("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", id_)
        left, top = self.ask("const box = document.getElementById(arguments[0]).getBoundingClientRect(); return [box.left, box.top]", id_)
        chain = ActionChains(self.driver, duration=0)
        chain.w3c_actions.pointer_action.move_to_location(round(left + x), round(top + y))
        if click:
            chain.w3c_actions.pointer_action.click()
        if drag is not None:
            chain.w3c_actions.pointer_action.pointer_down()
            chain.w3c_actions.pointer_action.move_to_location(round(left + x + drag[0]), round(top + y + drag[1]))
            chain.w3c_actions.pointer_action.pointer_up()
        chain.perform()
        self.drawn()

    def drawn(self) -> None:
        """Waits until what was asked for is drawn."""
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")

    def shot(self) -> bytes:
        """The window as a PNG."""
        self.drawn()
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])

    def picture(self, id_: str) -> str:
        self.drawn()
        return self.ask("return document.getElementById(arguments[0]).toDataURL()", id_)

    @property
    def complaints(self) -> list[str]:
        """What the browser's console has said since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self) -> list[str]:
        """What the page has asked for since it was opened, itself among them."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "about:"))]
