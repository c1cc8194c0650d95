"""Reads pickles that describe tensors, and nothing else.

An interpreter of its own for the few opcodes that torch, numpy and paddle use to save weights. No class or function is
ever looked up by name: every global stands for one of `_REBUILDERS` or is refused. Byte strings are not read but
noted as a `Span`, so that a 13 GB `.pdparams` opens at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from chaku.errors import ModelError

_PIECE_BYTES = 1 << 24
_STACK_LIMIT = 1 << 24


@dataclass(frozen=True)
class Span:
    """Bytes that were left in the file."""

    offset_bytes: int
    num_bytes: int


@dataclass(frozen=True)
class Global:
    """A name of Python's that stands in a pickle; nothing is behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """What a persistent id of torch's names: the bytes of one or more tensors."""

    kind: str
    key: str
    num_values: int


@dataclass(frozen=True)
class StridedTensor:
    """A torch tensor: a view into a storage, counted in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Array:
    """A numpy array, filled in by its state."""

    shape: tuple[int, ...] = ()
    dtype: str = ""
    fortran: bool = False
    data: Span | bytes = b""


@dataclass
class ArrayDtype:
    """A numpy dtype such as `<f4`, filled in by its state."""

    code: str
    order: str = "|"


class PickleRefused(ModelError):
    """A pickle holds something that weights never need, or is damaged."""


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StridedTensor:
    whole = isinstance(storage, Storage) and isinstance(offset, int) and offset >= 0
    sizes = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not whole or not sizes or not all(isinstance(size, int) and size >= 0 for size in (*shape, *strides)):
        raise PickleRefused("it holds a tensor that is none")
    return StridedTensor(storage, offset, shape, strides)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleRefused("it encodes something else than bytes")
    return text.encode("latin1")


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": lambda sizes: tuple(sizes),
    "_codecs.encode": _encode,
    "builtins.tuple": lambda values: tuple(values),
    "__builtin__.tuple": lambda values: tuple(values),
    "numpy.dtype": lambda code, *_: ArrayDtype(str(code)),
    "numpy.core.multiarray._reconstruct": lambda *_: Array(),
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
}
_NAMES_ONLY = {"numpy.ndarray"}  # only ever an argument
_STORAGES = "Storage"


class _Stop(Exception):
    """The pickle is over."""


class _Mark:
    """What MARK puts on the stack."""


class _Machine:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            opcode = self._read(1)
            step = _OPCODES.get(opcode)
            if step is None:
                raise PickleRefused(f"its opcode {opcode!r} is none that weights need")
            try:
                step(self)
            except _Stop:
                return self.stack.pop()
            if len(self.stack) > _STACK_LIMIT:
                raise PickleRefused("it nests too deep")

    def _read(self, num_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < num_bytes:  # in pieces: a length may promise more than there is memory
            piece = self.file.read(min(num_bytes - len(data), _PIECE_BYTES))
            if not piece:
                raise PickleRefused("it is cut off")
            data += piece
        return bytes(data)

    def number(self, form: str) -> int:
        value = struct.unpack(form, self._read(struct.calcsize(form)))[0]
        assert isinstance(value, int)
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def text(self, num_bytes: int) -> str:
        # A protocol-2 pickle spells an array's bytes as text: as long as the array, so no limit but the file's.
        return self._read(num_bytes).decode("utf-8", "surrogatepass")

    def line(self) -> str:
        line = self.file.readline(_PIECE_BYTES)
        if not line.endswith(b"\n"):
            raise PickleRefused("it is cut off")
        return line[:-1].decode("utf-8")

    def span(self, num_bytes: int) -> Span:
        span = Span(self.file.tell(), num_bytes)
        end = self.file.seek(0, 2)
        if span.offset_bytes + num_bytes > end:
            raise PickleRefused("it is cut off")
        self.file.seek(span.offset_bytes + num_bytes)
        return span

    def long(self) -> int:
        return int.from_bytes(self._read(self.number("<B")), "little", signed=True)

    def pop_marked(self) -> list[Any]:
        position = len(self.stack) - 1
        while not isinstance(self.stack[position], _Mark):
            position -= 1
            if position < 0:
                raise PickleRefused("it is damaged")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def pop_tuple(self, count: int) -> tuple[Any, ...]:
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        self.push(self.memo[key])

    def name(self, module: str, name: str) -> None:
        found = Global(module, name)
        is_storage = module in ("torch", "torch.storage") and name.endswith(_STORAGES)
        if str(found) not in _REBUILDERS and str(found) not in _NAMES_ONLY and not is_storage:
            raise PickleRefused(f"it asks for {found}, which no weights need")
        self.push(found)

    def name_from_stack(self) -> None:
        module, name = self.pop_tuple(2)
        self.name(str(module), str(name))

    def call(self) -> None:
        function, arguments = self.pop_tuple(2)
        if not isinstance(function, Global) or str(function) not in _REBUILDERS or not isinstance(arguments, tuple):
            raise PickleRefused(f"it calls {function}, which no weights need")
        self.push(_REBUILDERS[str(function)](*arguments))

    def build(self) -> None:
        """BUILD: the state of what is on the stack. Attributes of containers (a state dict's versions) are let go."""
        state = self.stack.pop()
        built = self.stack[-1]
        if isinstance(built, Array):
            _, shape, dtype, built.fortran, built.data = state
            if not isinstance(dtype, ArrayDtype):
                raise PickleRefused("it holds an array without a dtype")
            built.shape, built.dtype = tuple(shape), dtype.order.replace("|", "") + dtype.code
        elif isinstance(built, ArrayDtype):
            built.order = str(state[1])
        elif not isinstance(built, dict):
            raise PickleRefused(f"it sets attributes of a {type(built).__name__}")

    def put_items(self, values: list[Any]) -> None:
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def storage(self) -> None:
        match self.stack.pop():
            case ("storage", Global() as kind, str() as key, str(), int() as num_values, *_) if num_values >= 0:
                self.push(Storage(kind.name, key, num_values))
            case _:
                raise PickleRefused("it refers to something that is not a storage")

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise PickleRefused("it appends to what is not a list")
        self.stack[-1].extend(values)

    def stop(self) -> None:
        raise _Stop


_OPCODES: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m.number("<B"),  # PROTO
    b"\x95": lambda m: m.number("<Q"),  # FRAME: only a hint for buffering
    b".": _Machine.stop,
    b"(": lambda m: m.push(_Mark()),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(m.long()),
    b"G": lambda m: m.push(struct.unpack(">d", m._read(8))[0]),
    b"\x8c": lambda m: m.push(m.text(m.number("<B"))),
    b"X": lambda m: m.push(m.text(m.number("<I"))),
    b"\x8d": lambda m: m.push(m.text(m.number("<Q"))),
    b"C": lambda m: m.push(m.span(m.number("<B"))),
    b"B": lambda m: m.push(m.span(m.number("<I"))),
    b"\x8e": lambda m: m.push(m.span(m.number("<Q"))),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": _Machine.name_from_stack,
    b"\x85": lambda m: m.push(m.pop_tuple(1)),
    b"\x86": lambda m: m.push(m.pop_tuple(2)),
    b"\x87": lambda m: m.push(m.pop_tuple(3)),
    b"t": lambda m: m.push(tuple(m.pop_marked())),
    b"R": _Machine.call,
    b"b": _Machine.build,
    b"s": lambda m: m.put_items(list(m.pop_tuple(2))),
    b"u": lambda m: m.put_items(m.pop_marked()),
    b"a": lambda m: m.append(list(m.pop_tuple(1))),
    b"e": lambda m: m.append(m.pop_marked()),
    b"Q": _Machine.storage,
    b"0": lambda m: m.stack.pop(),
}


def read_pickle(file: IO[bytes], path: Path) -> Any:
    """What one pickle in `file` says; the file is left behind its end.

    Raises ModelError naming `path` when there is anything in it that weights don't need, or when it is damaged.
    """
    try:
        return _Machine(file).run()
    except PickleRefused as error:
        raise PickleRefused(
            f"{path} is not read: {error.message}", fix="take the model as safetensors, or from a source you trust"
        ) from error
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise PickleRefused(f"{path} is not a pickle of weights, or damaged ({error})") from error
