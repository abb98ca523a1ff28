"""The errors a user can meet.  Each message names what was wrong, the value, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SemanticLensError(Exception):
    """Base of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args)      # by message: the arguments of __init__ are other ones in some subclasses


def _restore(kind: type[SemanticLensError], args: tuple[Any, ...]) -> SemanticLensError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ModelFileError(SemanticLensError, ValueError):
    """A model, database or weight file is missing parts, damaged, hostile or of another format."""


class UnsupportedOperationError(SemanticLensError, NotImplementedError):
    """A network uses an operation or attribute this package does not have; the message names the node."""


class DataError(SemanticLensError, ValueError):
    """Pictures or arrays that cannot be used: unreadable, empty, of the wrong shape, not finite."""


class MismatchError(SemanticLensError, ValueError):
    """Two things that must come from the same source do not: encoders, data sets, networks, checkpoints."""


class LayerNotFoundError(SemanticLensError, LookupError):
    """A layer name that the network or database does not have; the message offers the nearest ones."""

    def __init__(self, name: str, known: Iterable[str], where: str = "the network") -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or known[:8]
        super().__init__(f"layer {name!r} is not in {where}; nearest: {', '.join(near) if near else '(it has no layers)'}")


class NumericalError(SemanticLensError, ArithmeticError):
    """A result is undefined for these numbers, for example because weights or inputs are NaN."""


class MemoryLimitError(SemanticLensError, MemoryError):
    """A run would need more memory than is allowed; the message says how many bytes. Nothing was allocated."""


class MissingExtraError(SemanticLensError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: pip install 'semanticlens-native[{extra}]'")


class SkippedDataWarning(UserWarning):
    """Some data was left out, as asked; the message says how much and why."""


class ConceptWarning(UserWarning):
    """Concept examples that say less than they seem to: too few pictures, components that never fire."""
