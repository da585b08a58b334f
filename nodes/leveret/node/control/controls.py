"""What an operator can ask of a node: a table of named functions, and the answer to any line.

Owns the form of requests and answers. Knows neither sockets nor what the functions do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
import trio

log = logging.getLogger(__name__)

REQUEST_WITHIN_S: Final = 10.0
"""How long one request may take; then it is answered with an error, and what it began may go on."""

ErrorKind = Literal["malformed", "not_found", "refused", "unavailable", "timeout", "internal"]
"""malformed: no request of ours; not_found: what it names does not exist; refused: it must not be
done; unavailable: it cannot be done now; timeout: it was not done in time; internal: a bug."""


class ControlError(Exception):
    """Why a request was not carried out, in words for an operator, and what to do."""

    def __init__(self, kind: ErrorKind, text: str, *, remedy: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.remedy = remedy


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of a request's arguments: what stands beside `do`."""


class NoArguments(Arguments, frozen=True):
    """For requests that take none."""


A = TypeVar("A", bound=Arguments)
R = TypeVar("R")


class _Control(NamedTuple):
    kind: type[Arguments]
    handler: Callable[[Any], Awaitable[object]]


class Controls:
    """The table. Whoever asks is the node's owner, or a node of the cluster: nothing is checked."""

    def __init__(
        self,
        *,
        within_s: float = REQUEST_WITHIN_S,
        otherwise: Callable[[], ControlError] | None = None,
    ) -> None:
        """Answer within `within_s`; what is not in the table by `otherwise`, if that is given."""
        self._within_s = within_s
        self._otherwise = otherwise
        self._table: dict[str, _Control] = {}

    def add(self, name: str, kind: type[A], handler: Callable[[A], Awaitable[object]]) -> None:
        """Have requests to do `name` answered by `handler`, which returns what msgspec can encode.

        The handler raises `ControlError` for whatever an operator should read.
        """
        assert name not in self._table, f"{name!r} is there"
        self._table[name] = _Control(kind, handler)

    async def answer(self, request: bytes) -> bytes:
        """Return the answer to a request, both one line without its end; raises for no input."""
        try:
            with trio.fail_after(self._within_s):
                result = await self._carry_out(request)
            return msgspec.json.encode({"ok": result})
        except ControlError as error:
            return encode_error(error)
        except trio.TooSlowError:
            return encode_error(
                ControlError(
                    "timeout",
                    f"not done within {self._within_s:g} s",
                    remedy="look at `leveret ctl cluster status`, then try again",
                )
            )
        except Exception:
            # An operator's question must not end a node that serves clients.
            # Its arguments may be secret.
            log.exception("a request failed", extra={"request": _name_of(request)})
            return encode_error(
                ControlError(
                    "internal",
                    "internal failure",
                    remedy="the stack is in the node's log; please report it",
                )
            )

    async def _carry_out(self, request: bytes) -> object:
        try:
            fields = msgspec.json.decode(request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ControlError("malformed", f"a request is a JSON object: {error}") from None
        if not isinstance(fields, dict) or not isinstance(name := fields.pop("do", None), str):
            raise ControlError("malformed", 'a request is an object such as {"do": "status"}')
        control = self._table.get(name)
        if control is None:
            if self._otherwise is not None:
                raise self._otherwise()
            known = ", ".join(sorted(self._table))
            raise ControlError(
                "malformed",
                f"nothing is called {name[:100]!r}",
                remedy=f"this node can do: {known}; another version may do more",
            )
        try:
            arguments = msgspec.convert(fields, control.kind)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ControlError("malformed", f"{name}: {error}") from None
        return await control.handler(arguments)


def _name_of(request: bytes) -> str:
    """Return what a request that was understood is to do."""
    return msgspec.json.decode(request, type=_Named).do


class _Named(msgspec.Struct):
    do: str


class _Error(msgspec.Struct):
    kind: ErrorKind
    text: str
    remedy: str = ""


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


def encode_request(do: str, arguments: Mapping[str, object]) -> bytes:
    """Return the request to do something, as `Controls.answer` takes it."""
    return msgspec.json.encode({"do": do, **arguments})


def decode_answer(answer: bytes, kind: type[R]) -> R:
    """Return what an answer holds.

    Raises:
        ControlError: it holds an error, or is not what a node of this version answers.
    """
    try:
        decoded = msgspec.json.decode(answer, type=_Answer)
        if decoded.error is None:
            return msgspec.json.decode(decoded.ok, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        remedy = "use the `leveret` of the node's version"
        raise ControlError("internal", f"unknown answer: {error}", remedy=remedy) from None
    told = decoded.error
    raise ControlError(told.kind, told.text, remedy=told.remedy)


def encode_error(error: ControlError) -> bytes:
    """Return the answer that tells an error."""
    fields = {"kind": error.kind, "text": error.text, "remedy": error.remedy}
    return msgspec.json.encode({"error": fields})
