"""The protocol's errors: a reply code decides the scope, the text is `NAME - detail`.

Client libraries and their test suites match on code and text, so both are RabbitMQ's.
Everything here is raised or reported as a value; nothing is written to a socket.
"""

from __future__ import annotations

from typing import Final, Literal

from leveret.amqp.definitions import PROTOCOL_HEADER, REPLY_CODES

Scope = Literal["channel", "connection"]

# A reply text travels as a shortstr; RabbitMQ cuts longer ones to 252 octets and three dots.
_TEXT_MAX: Final = 255
# The most octets of an offending payload that a reply text quotes: more would only be cut.
_QUOTED_MAX: Final = 64
_ESCAPES: Final = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}


class ProtocolError(Exception):
    """Base of what the peer can do wrong."""


class ProtocolHeaderError(ProtocolError):
    """The first eight octets are not the protocol header; `answer` says which one is spoken.

    Do this about it: write `answer`, close the socket.
    """

    def __init__(self, received: bytes) -> None:
        super().__init__(f"not an AMQP 0-9-1 protocol header: {received!r}")
        self.received = received
        self.answer = PROTOCOL_HEADER


class AmqpError(ProtocolError):
    """An error with a reply code: send channel.close or connection.close, as `scope` says.

    `class_id` and `method_id` name the method that caused it, or are 0.
    """

    def __init__(
        self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0
    ) -> None:
        reply_text = _fitted(reply_text)
        super().__init__(reply_code, reply_text, class_id, method_id)
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.class_id = class_id
        self.method_id = method_id

    @property
    def scope(self) -> Scope:
        """Which of the two this error closes, by RabbitMQ's fixed table; unknown codes: all."""
        return (
            "channel"
            if REPLY_CODES.get(self.reply_code, ("", ""))[1] == "channel"
            else ("connection")
        )

    def caused_by(self, class_id: int, method_id: int) -> AmqpError:
        """The same error, naming the method that caused it."""
        return AmqpError(self.reply_code, self.reply_text, class_id, method_id)

    def __str__(self) -> str:
        return f"{self.reply_code} {self.reply_text}"


def amqp_error(reply_code: int, detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """The error with `reply_code` from the table and the text `NAME - detail`."""
    return AmqpError(reply_code, f"{REPLY_CODES[reply_code][0]} - {detail}", class_id, method_id)


def content_too_large(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """311, channel."""
    return amqp_error(311, detail, class_id, method_id)


def no_route(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """312, channel."""
    return amqp_error(312, detail, class_id, method_id)


def no_consumers(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """313, channel."""
    return amqp_error(313, detail, class_id, method_id)


def connection_forced(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """320, connection: an operator or the broker itself ends it."""
    return amqp_error(320, detail, class_id, method_id)


def access_refused(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """403, channel."""
    return amqp_error(403, detail, class_id, method_id)


def not_found(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """404, channel."""
    return amqp_error(404, detail, class_id, method_id)


def resource_locked(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """405, channel."""
    return amqp_error(405, detail, class_id, method_id)


def precondition_failed(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """406, channel."""
    return amqp_error(406, detail, class_id, method_id)


def frame_error(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """501, connection: a frame or its arguments cannot be decoded."""
    return amqp_error(501, detail, class_id, method_id)


def syntax_error(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """502, connection: a table or property list is malformed or beyond a limit."""
    return amqp_error(502, detail, class_id, method_id)


def command_invalid(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """503, connection."""
    return amqp_error(503, detail, class_id, method_id)


def channel_error(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """504, connection: a method where its channel's state does not allow it."""
    return amqp_error(504, detail, class_id, method_id)


def unexpected_frame(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """505, connection: a frame of the wrong kind, most often in the middle of a message."""
    return amqp_error(505, detail, class_id, method_id)


def resource_error(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """506, connection: a limit of the broker is reached."""
    return amqp_error(506, detail, class_id, method_id)


def not_allowed(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """530, connection."""
    return amqp_error(530, detail, class_id, method_id)


def not_implemented(detail: str, class_id: int = 0, method_id: int = 0) -> AmqpError:
    """540, connection."""
    return amqp_error(540, detail, class_id, method_id)


def internal_error(class_id: int = 0, method_id: int = 0) -> AmqpError:
    """541, connection. RabbitMQ gives it no detail, so that no inner state leaks."""
    return AmqpError(541, REPLY_CODES[541][0], class_id, method_id)


def malformed_arguments(arguments: bytes, class_id: int, method_id: int) -> AmqpError:
    """501 as RabbitMQ words it for arguments that do not fit their method."""
    return frame_error(f"cannot decode {quoted(arguments)}", class_id, method_id)


def quoted(octets: bytes) -> str:
    """`octets` as Erlang prints a binary: `<<"abc">>` if all are printable, else `<<1,2>>`.

    RabbitMQ quotes offending payloads so; only the first 64 octets are shown.
    """
    octets = octets[:_QUOTED_MAX]
    if octets and all(32 <= o <= 126 or o >= 160 or o in _ESCAPES or o == 27 for o in octets):
        shown = "".join(
            _ESCAPES.get(o) or ("\\e" if o == 27 else "\\" + chr(o) if o in b'"\\' else chr(o))
            for o in octets
        )
        return f'<<"{shown}">>'
    return f"<<{','.join(map(str, octets))}>>"


def _fitted(text: str) -> str:
    """`text` cut so that its UTF-8 fits a shortstr."""
    octets = text.encode("utf-8", "surrogateescape")
    if len(octets) <= _TEXT_MAX:
        return text
    return octets[: _TEXT_MAX - 3].decode("utf-8", "ignore") + "..."
