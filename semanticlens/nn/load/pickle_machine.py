"""A stack machine for the data part of Python's pickle format: it reads containers and scalars, and can call nothing.

``pickle.Unpickler`` with a restricted ``find_class`` still lets a file choose memo indices (a memory bomb), set the state of any object and
nest tuples until hashing them exhausts the C stack. This machine instead knows the opcodes that checkpoints consist of, keeps classes and
functions as names, and hands each call to a table of our own functions. Work and memory are bounded by the length of the pickle.

The format is documented in the ``pickletools`` module of the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1 << 24                                   # a state dict needs about 100 bytes for each tensor
MAX_WORK = 2_000_000                                  # opcodes, plus items copied by calls
MAX_LONG = 64                                         # bytes of one integer


class PickleRefused(ValueError):
    """Why a pickle was refused; whoever knows the file's name adds it."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A class or function the pickle names; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Function:
    """What a call of a named function does: ``call(machine, *arguments)`` with ``least`` to ``most`` arguments."""

    call: Callable[..., Any]
    least: int
    most: int


_SCALARS = (str, int, float, bool, bytes, type(None))


class PickleMachine:
    """Reads one pickle.

    Parameters
    ----------
    data : bytes or memoryview
        A buffer that starts with the pickle; it may go on behind it.
    calls : mapping of str to Function
        What ``module.name(*arguments)`` gives. The functions get hostile arguments and must check them; they raise `PickleRefused`.
    constants : mapping of str to object
        What ``module.name`` gives when it is no function. Any other name raises `PickleRefused` with that name.
    persistent : function, optional
        What a persistent id gives; without it such ids are refused.
    """

    def __init__(self, data: bytes | memoryview, *, calls: Mapping[str, Function] | None = None,
                 constants: Mapping[str, Any] | None = None, persistent: Callable[[PickleMachine, Any], Any] | None = None) -> None:
        self.data, self.position = data, 0
        self.calls, self.constants, self.persistent = calls or {}, constants or {}, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def load(self) -> Any:
        """Run to the STOP opcode; ``position`` is then the first byte behind the pickle."""
        while True:
            self.spend(1)
            code = self._take(1)[0]
            if code == 0x2E:
                if len(self.stack) != 1 or self.marks:
                    raise PickleRefused("the pickle ends with an unbalanced stack")
                return self._plain(self.stack.pop())
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise PickleRefused(f"pickle opcode 0x{code:02x} at byte {self.position - 1} is not one that checkpoints need")
            operation(self)

    def spend(self, items: int) -> None:
        """Account for work, so that a short pickle cannot ask for much of it."""
        self.work += items
        if self.work > MAX_WORK:
            raise PickleRefused(f"the pickle asks for more than {MAX_WORK:,} operations")

    # reading the buffer

    def _take(self, n: int) -> bytes:
        end = self.position + n
        if end > min(len(self.data), MAX_BYTES):
            if end > MAX_BYTES:
                raise PickleRefused(f"the pickle is longer than {MAX_BYTES:,} bytes")
            raise PickleRefused(f"the pickle is truncated at byte {len(self.data)}")
        piece = self.data[self.position : end]
        self.position = end
        return bytes(piece)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self, encoding: str = "utf-8") -> str:
        end = bytes(self.data[self.position : self.position + 1000]).find(b"\n")
        if end < 0:
            raise PickleRefused(f"no line ends within 1000 bytes of byte {self.position} of the pickle")
        try:
            return self._take(end + 1)[:-1].decode(encoding)
        except UnicodeDecodeError:
            raise PickleRefused(f"a line before byte {self.position} of the pickle is not text") from None

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise PickleRefused(f"a text before byte {self.position} of the pickle is not UTF-8") from None

    # the stack

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleRefused(f"the pickle takes from an empty stack at byte {self.position - 1}")
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise PickleRefused(f"the pickle uses a mark it has not set at byte {self.position - 1}")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or type(self.stack[-1]) is not kind:
            raise PickleRefused(f"the pickle fills a {kind.__name__} where there is none, at byte {self.position - 1}")
        return self.stack[-1]

    @staticmethod
    def _plain(value: Any) -> Any:
        """A value that is stored; the name of a function is none."""
        if isinstance(value, Symbol):
            raise PickleRefused(f"the pickle holds {value} as a value")
        return value

    # operations

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise PickleRefused(f"the pickle refers to memo {index}, which it has not set")
        self._push(self.memo[index])

    def _put(self, index: int) -> None:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleRefused(f"the pickle memorises from an empty stack at byte {self.position - 1}")
        self.memo[index] = self.stack[-1]

    def _long(self, length: int) -> None:
        if not 0 <= length <= MAX_LONG:
            raise PickleRefused(f"the pickle holds an integer of {length} bytes")
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def _digits(self, kind: type[int] | type[float]) -> Any:
        text = self._line().rstrip("L")
        if kind is int and text in ("00", "01"):      # how protocol 0 writes a truth value
            return text == "01"
        try:
            if len(text) > 100:
                raise ValueError
            return kind(text)
        except ValueError:
            raise PickleRefused(f"{text[:30]!r} in the pickle is not a number") from None

    def _set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            raise PickleRefused("a dictionary of the pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            flat = key if type(key) is tuple else (key,)
            if len(flat) > 8 or not all(type(part) in _SCALARS for part in flat):
                raise PickleRefused(f"a dictionary of the pickle has a key of type {type(key).__name__}")
            target[key] = self._plain(value)

    def _values(self, items: list[Any]) -> list[Any]:
        for value in items:
            if type(value) is Symbol:
                self._plain(value)
        return items

    def _make_tuple(self, n: int) -> None:
        items = [self._pop() for _ in range(n)][::-1]
        self._push(tuple(items))                      # may hold symbols: arguments of calls, persistent ids

    def _make_set(self, items: list[Any]) -> set[Any]:
        if not all(type(item) in _SCALARS for item in items):
            raise PickleRefused("a set of the pickle holds something else than numbers and texts")
        return set(items)

    def _symbol(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleRefused("the pickle builds the name of a function from something that is not text")
        symbol = Symbol(module, name)
        if str(symbol) in self.constants:
            self._push(self.constants[str(symbol)])
        elif str(symbol) in self.calls:
            self._push(symbol)
        else:
            raise PickleRefused(f"the pickle needs {_shown(symbol)}, which is neither a tensor nor a plain container; nothing was executed")

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._symbol(module, name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Symbol) or type(arguments) is not tuple:
            raise PickleRefused(f"the pickle calls a {type(function).__name__}, which is no function it may name; nothing was executed")
        own = self.calls[str(function)]
        if not own.least <= len(arguments) <= own.most:
            raise PickleRefused(f"the pickle calls {function} with {len(arguments)} arguments, which it does not take")
        self._push(own.call(self, *arguments))

    def _build(self) -> None:
        state = self._pop()
        if not self.stack:
            raise PickleRefused("the pickle sets the state of nothing")
        target = self.stack[-1]
        if hasattr(target, "set_state"):
            target.set_state(state)
        elif not (type(target) is dict and type(state) is dict and all(type(key) is str for key in state)):
            raise PickleRefused(f"the pickle sets the state of a {type(target).__name__}; nothing was executed")
        # the attributes of an OrderedDict ("_metadata" of a state dict) hold no tensors and are dropped

    def _refuse_new(self) -> None:
        raise PickleRefused("the pickle builds an object of a class of its own (NEWOBJ or OBJ); nothing was executed")

    def _refuse_inst(self) -> None:
        symbol = Symbol(self._line(), self._line())
        raise PickleRefused(f"the pickle needs {_shown(symbol)}, which is neither a tensor nor a plain container; nothing was executed")

    def _refuse_persistent(self) -> None:
        raise PickleRefused(f"the pickle holds the textual persistent id {self._line()[:60]!r}, which no checkpoint has")

    def _persistent(self) -> None:
        if self.persistent is None:
            raise PickleRefused("the pickle refers to outside data (a persistent id) where none may be")
        self._push(self.persistent(self, self._pop()))

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise PickleRefused(f"the pickle protocol {version} is newer than 5")


def _shown(symbol: Symbol) -> str:
    text = str(symbol)
    return text if len(text) <= 120 and text.isprintable() else ascii(text[:120])


def _list_append(m: PickleMachine) -> None:
    value = m._plain(m._pop())
    m._top(list).append(value)


def _list_extend(m: PickleMachine) -> None:
    items = m._values(m._pop_mark())
    m._top(list).extend(items)


def _dict_set(m: PickleMachine) -> None:
    value, key = m._pop(), m._pop()
    m._set_items(m._top(dict), [key, value])


def _dict_update(m: PickleMachine) -> None:
    items = m._pop_mark()
    m._set_items(m._top(dict), items)


def _dict_make(m: PickleMachine) -> None:
    result: dict[Any, Any] = {}
    m._set_items(result, m._pop_mark())
    m._push(result)


def _set_update(m: PickleMachine) -> None:
    items = m._make_set(m._pop_mark())
    m._top(set).update(items)


_OPERATIONS: dict[int, Callable[[PickleMachine], Any]] = {
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m._pop(),
    ord("1"): lambda m: m._pop_mark(),
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("F"): lambda m: m._push(m._digits(float)),
    ord("I"): lambda m: m._push(m._digits(int)),
    ord("L"): lambda m: m._push(m._digits(int)),
    ord("J"): lambda m: m._push(m._number("<i")),
    ord("K"): lambda m: m._push(m._number("<B")),
    ord("M"): lambda m: m._push(m._number("<H")),
    ord("G"): lambda m: m._push(m._number(">d")),
    0x8A: lambda m: m._long(m._number("<B")),
    0x8B: lambda m: m._long(m._number("<i")),
    ord("X"): lambda m: m._push(m._text(m._number("<I"))),
    0x8C: lambda m: m._push(m._text(m._number("<B"))),
    0x8D: lambda m: m._push(m._text(m._number("<Q"))),
    ord("V"): lambda m: m._push(m._line("raw-unicode-escape")),
    ord("U"): lambda m: m._push(m._text(m._number("<B"))),
    ord("T"): lambda m: m._push(m._text(m._number("<I"))),
    ord("C"): lambda m: m._push(m._take(m._number("<B"))),
    ord("B"): lambda m: m._push(m._take(m._number("<I"))),
    0x8E: lambda m: m._push(m._take(m._number("<Q"))),
    ord("]"): lambda m: m._push([]),
    ord("}"): lambda m: m._push({}),
    ord(")"): lambda m: m._push(()),
    0x8F: lambda m: m._push(set()),
    ord("l"): lambda m: m._push(m._values(m._pop_mark())),
    ord("d"): _dict_make,
    ord("t"): lambda m: m._push(tuple(m._pop_mark())),
    0x85: lambda m: m._make_tuple(1),
    0x86: lambda m: m._make_tuple(2),
    0x87: lambda m: m._make_tuple(3),
    0x91: lambda m: m._push(frozenset(m._make_set(m._pop_mark()))),
    ord("a"): _list_append,
    ord("e"): _list_extend,
    ord("s"): _dict_set,
    ord("u"): _dict_update,
    0x90: _set_update,
    ord("g"): lambda m: m._get(m._digits(int)),
    ord("h"): lambda m: m._get(m._number("<B")),
    ord("j"): lambda m: m._get(m._number("<I")),
    ord("p"): lambda m: m._put(m._digits(int)),
    ord("q"): lambda m: m._put(m._number("<B")),
    ord("r"): lambda m: m._put(m._number("<I")),
    0x94: lambda m: m._put(len(m.memo)),
    ord("c"): lambda m: m._symbol(m._line(), m._line()),
    0x93: lambda m: m._stack_global(),
    ord("R"): lambda m: m._reduce(),
    ord("b"): lambda m: m._build(),
    ord("i"): lambda m: m._refuse_inst(),
    ord("o"): lambda m: m._refuse_new(),
    0x81: lambda m: m._refuse_new(),
    0x92: lambda m: m._refuse_new(),
    ord("P"): lambda m: m._refuse_persistent(),
    ord("Q"): lambda m: m._persistent(),
    0x80: lambda m: m._protocol(),
    0x95: lambda m: m._number("<Q"),                  # FRAME: a hint for buffering; the buffer's end is checked at each read
}
