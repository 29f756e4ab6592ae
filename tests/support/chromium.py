"""A headless Chromium, driven over its DevTools protocol through a pipe: no port, no driver, no other library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--mute-audio",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowRight": 39}  # by the numbers that Windows gives them
PATIENCE = 60.0  # seconds for one answer
SOON = 10.0  # seconds that the page may take to follow an input


def find_chromium() -> str | None:
    """The browser's program (`TL_CHROMIUM`, or the first of the usual names), None where there is none."""
    given = os.environ.get("TL_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page in the browser, and everything that it reported since it was opened.

    events: of the network, the console and exceptions, in order.
    """

    def __init__(self, to: int, since: int) -> None:
        self._to, self._from = to, since
        self._next, self._rest = 0, b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Open an empty page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something and wait for the answer. Raises RuntimeError where the browser refuses."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda m: m.get("id") == self._next)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def show(self, width: int = 1100, *, dark: bool = False, on_paper: bool = False) -> None:
        """The open page at a width in pixels, in light or dark colours, on a screen or on paper."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if on_paper else "", features=[scheme])

    def open(self, path: Path) -> None:
        """Load a file as a user with a large light screen sees it."""
        self.show()
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._until(lambda m: m.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a script's expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "script failed"))
        return answer["result"].get("value")

    def soon(self, expression: str, wanted: Any) -> bool:
        """Whether an expression comes to this within a few seconds: what follows on an input takes a moment."""
        end = time.monotonic() + SOON
        while (found := self.value(expression)) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        return bool(found == wanted)

    def press(self, key: str) -> None:
        """A key of the keyboard, down and up."""
        given = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **given, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def click(self, selector: str) -> None:
        """The mouse in the middle of the first element that fits."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{find}.scrollIntoView({{block: 'center', inline: 'center'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({find}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """What the console says: errors, warnings, exceptions, breaches of the content security policy."""
        told = []
        for event in self.events:
            given = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                told.append(str(given["exceptionDetails"].get("text")))
            elif event["method"] == "Runtime.consoleAPICalled":
                told.append(f"console.{given['type']}")
            elif event["method"] == "Log.entryAdded":
                told.append(str(given["entry"]["text"]))
        return told

    def requests(self) -> list[str]:
        """The addresses that the page asked for; data that it holds itself are none."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def _until(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while b"\0" in self._rest:
                raw, _, self._rest = self._rest.partition(b"\0")
                message: dict[str, Any] = json.loads(raw)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            block = os.read(self._from, 1 << 16)
            if not block:
                raise RuntimeError("the browser has ended")
            self._rest += block
        raise RuntimeError(f"no answer from the browser within {PATIENCE:.0f} s")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with one page, ended with the block. profile: an empty folder for its settings."""
    # the browser reads its orders from descriptor 3 and answers on 4
    shell = ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1', "sh"]
    command = [*shell, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            tab = Tab(process.stdin.fileno(), process.stdout.fileno())
            tab.attach()
            yield tab
        finally:
            process.stdin.close()  # its sign to end
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
