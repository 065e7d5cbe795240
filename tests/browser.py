"""A headless Chromium, driven through ChromeDriver's HTTP interface (W3C WebDriver)."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # 3D figures need WebGL, which without a graphics card is drawn in software.
    "--enable-unsafe-swiftshader",
    "--window-size=1300,1000",
)


class Browser:
    """One page in a browser; see ``open_browser``."""

    def __init__(self, address: str):
        self._address = address

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A command of the WebDriver protocol; returns its value."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:2000]) from error

    def open(self, path: Path) -> None:
        """Load a file and wait until it is loaded."""
        self.call("POST", "/url", {"url": Path(path).resolve().as_uri()})

    def run(self, script: str) -> Any:
        """What the body of a function in JavaScript returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def wait_for(self, script: str, seconds: float = 300) -> Any:
        """The first true value of ``script``."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"waited {seconds} s for: {script}"
            time.sleep(0.2)
        return value

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries of the log 'browser' (the console) or 'performance' since the last call."""
        return self.call("POST", "/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """Addresses of all requests that the page made."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the window."""
        Path(path).write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a fresh profile in ``folder``; skips the test where it is absent."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium or no ChromeDriver (Debian: chromium, chromium-driver)")
    log = folder / "chromedriver.log"
    with open(log, "wb") as file:
        process = subprocess.Popen([driver, "--port=0"], stdout=file, stderr=file)
    session = None
    try:
        address = f"http://127.0.0.1:{_port(log, process)}/session"
        options = {
            "binary": chromium,
            "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        started = Browser(address).call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        session = Browser(f"{address}/{started['sessionId']}")
        yield session
    finally:
        if session is not None:
            with contextlib.suppress(OSError, RuntimeError):
                session.call("DELETE", "")
        process.terminate()
        process.wait(30)


def _port(log: Path, process: subprocess.Popen) -> int:
    """The port that ChromeDriver chose, as it prints it."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if "started successfully on port" in line:
                return int(line.rstrip(".").rsplit(" ", 1)[1])
        time.sleep(0.1)
    raise AssertionError(f"ChromeDriver did not start: {log.read_text(errors='replace')[-500:]}")
