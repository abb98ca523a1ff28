"""The command ``semanticlens``: arguments, messages and exit codes around what :mod:`semanticlens.cli.commands` does.

Results go to standard output, everything else to standard error; with ``--json`` standard output holds one JSON value and nothing more.
Exit codes: 0 done, 1 something was wrong (one line says what), 2 wrong use of the command, 130 interrupted, 143 ended by a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from semanticlens.cli.arguments import PROG, TRACEBACK, parser

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; None takes ``sys.argv``.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character must not end a long run
    options = parser().parse_args(arguments)
    if options.command is None:
        parser().print_help()
        return 0
    try:
        with _one_line_warnings(), _terminable():
            code = _run(options)
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (head, less) has had enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _complain(f"interrupted{_resume_note(options)}")
        return 130
    except Exception as error:
        if options.traceback or os.environ.get(TRACEBACK, "") not in ("", "0"):
            raise
        _complain(_message(error))
        return 1


def _run(options: argparse.Namespace) -> int:
    from semanticlens import _kernels
    from semanticlens.cli import commands, examine

    run = getattr(examine if options.command in examine.__all__ else commands, options.command)
    with _kernels.num_threads(options.threads) if options.threads is not None else contextlib.nullcontext():
        return int(run(options) or 0)


def _resume_note(options: argparse.Namespace) -> str:
    """How to go on after an interruption, if there is something to go on from."""
    from semanticlens.cli.commands import state_files

    kept = [str(path) for path in state_files(options) if path.exists()] if options.command == "build" else []
    return f"; the state is kept in {' and '.join(kept)}: the same command continues from there" if kept else ""


def _message(error: Exception) -> str:
    """What went wrong in one line; for errors nobody foresaw also how to learn more."""
    from semanticlens._errors import SemanticLensError

    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"not enough memory{f': {error}' if str(error) else ''}; try a smaller --batch-size or fewer layers"
    else:
        text = str(error)
    if not isinstance(error, (SemanticLensError, OSError, ValueError, TypeError, IndexError, MemoryError)):
        text = f"{type(error).__name__}: {text} (unexpected; --traceback shows where)"
    return text


def _complain(text: str, kind: str = "error") -> None:
    from semanticlens.cli.commands import printable

    line = printable(" ".join(text.split()))
    with contextlib.suppress(OSError):
        print(f"{PROG}: {line}" if kind == "error" else f"{PROG}: {kind}: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show warnings as messages of the command, without the place in the source; those about the data always."""
    from semanticlens._errors import ConceptWarning, SkippedDataWarning

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        _complain(str(message), "warning")

    with warnings.catch_warnings():
        for category in (SkippedDataWarning, ConceptWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind like an interruption, so that a run writes its checkpoint before it ends with code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
