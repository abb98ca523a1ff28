"""A headless browser, driven over two pipes: enough of the DevTools protocol to open a page, press things and read values."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The browser, if there is one."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


def _high(end: int) -> int:
    """The same end of a pipe under a number that cannot be 3 or 4, which the browser wants."""
    found = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(end)
    return found


class Browser:
    """One page of one browser; a context manager."""

    def __init__(self, profile: Path, timeout: float = 120.0) -> None:
        self.timeout, self.number, self.buffer = timeout, 0, b""
        self.events: list[dict[str, Any]] = []
        down, self.down, self.up, up = (_high(end) for end in (*os.pipe(), *os.pipe()))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
                 "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]  # fmt: skip
        command = f'exec "$0" "$@" 3<&{down} 4>&{up} {down}<&- {up}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(executable()), *flags, "about:blank"],
            pass_fds=(down, up), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(down)
        os.close(up)
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.down)  # the browser ends when its pipe does
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait(20)
        os.close(self.up)

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.up], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(self.up, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser did not answer" if not ready else "the browser ended")
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        sent = {
            "id": self.number,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self.down, json.dumps(sent).encode() + b"\0")
        until = time.monotonic() + self.timeout
        while True:
            message = self._read(until)
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self.events.append(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the page."""
        return self._call(method, self.session, **parameters)

    def open(
        self,
        path: Path,
        width: int = 1280,
        height: int = 800,
        *,
        dark: bool = False,
        mobile: bool = False,
        scale: float = 1,
    ) -> None:
        """Show a file, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + self.timeout
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._read(until))

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(
                found["exceptionDetails"].get("exception", {}).get("description", str(found["exceptionDetails"]))
            )
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors that the page met or logged since it was opened."""
        self.value("1")
        found = [e["params"]["exceptionDetails"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return [str(entry) for entry in found + [entry for entry in logged if entry["level"] == "error"]]

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press, release or turn the wheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self, path: Path) -> None:
        """What is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
