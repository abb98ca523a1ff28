"""Stub of the extension; tests/test_build.py compares it with the module."""

from typing import Any

def build_info() -> dict[str, Any]: ...
