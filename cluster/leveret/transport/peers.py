"""All links of one node: which there should be, which there are, and who hears of it.

Of two nodes the one with the higher id dials, so that there is one connection a pair. After a
half-open failure the acceptor may still hold the old one when the new one comes; the new one
replaces it. Listeners hear of a node's down before its next up, and after a down nothing of the
old connection is handed on. Listeners and handlers run on the loop and must only tell or queue;
what they raise is a bug and ends `run`.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import trio

from .admission import JOIN
from .admitting import Admitter
from .config import TransportConfig
from .errors import Refused, TransportError
from .handshake import HELLO, WELCOME, Hello, Party
from .link import Link, tick_s
from .listener import accept_forever, is_loopback, listen
from .notices import Notices
from .opening import read_opening, say_refused
from .wire import WIRE_ERRORS, connect, describe, plain, secure

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from .admitting import JoinHandler
    from .identity import Address, Identity, NodeId
    from .security import ClusterCredentials
    from .sockets import Sockets
    from .wire import Wire

__all__ = ["Peers"]

log = logging.getLogger("leveret.transport")


class Peers:
    """The links of one node to the other members of its cluster."""

    def __init__(
        self,
        identity: Identity,
        credentials: ClusterCredentials,
        *,
        listen: Address,
        members: Mapping[NodeId, Address],
        rng: random.Random,
        config: TransportConfig | None = None,
        make_nonce: Callable[[int], bytes] = secrets.token_bytes,
        sockets: Sockets = trio.socket,
    ) -> None:
        """Take what a node is and whom it should know; nothing is opened before `run`.

        `members` may contain this node itself. `make_nonce(n)` returns n bytes that nobody can
        foretell; only a simulation gives another one. `sockets` is where they come from.

        Raises:
            TransportError: the certificate files cannot be used, or the cluster ids differ.
        """
        if identity.cluster != credentials.cluster:
            raise TransportError(
                f"the credentials are for the cluster {credentials.cluster!r}, but this node"
                f" belongs to {identity.cluster!r}"
            )
        self.up: frozenset[NodeId] = frozenset()
        """The nodes reported up and not yet down."""
        self._me = identity
        self._config = config or TransportConfig()
        self._party = Party(identity, credentials, make_nonce, self._config.hello_max_bytes)
        tls = credentials.tls
        self._server_tls = tls.context(server_side=True) if tls else None
        self._client_tls = tls.context(server_side=False) if tls else None
        self._admitter = Admitter(self._party, self._config, hosts=self._hosts)
        self._listen = listen
        self._members = {node: at for node, at in members.items() if node != identity.node}
        self._rng = rng
        self._sockets = sockets

        self._handlers: dict[str, Callable[[NodeId, object], None]] = {}
        self._up_listeners: list[Callable[[NodeId], None]] = []
        self._down_listeners: list[Callable[[NodeId], None]] = []
        self._links: dict[NodeId, Link] = {}
        self._incarnations: dict[NodeId, int] = {}  # the newest known of each member
        self._dials: dict[NodeId, trio.CancelScope] = {}  # a node is here while it has a dial task
        self._dial_count = 0
        self._strangers = 0
        self._takes_unknown: Callable[[], bool] = lambda: False
        self._notices = Notices()
        self._nursery: trio.Nursery | None = None

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        """Let `handler(node, payload)` take each message on `channel`; one handler a channel."""
        assert not channel.startswith("#"), "such channels are the link's own"
        assert channel not in self._handlers, f"{channel!r} has a handler"
        self._handlers[channel] = handler

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        """Call `handler(node)` whenever a link is there; it may send at once."""
        self._up_listeners.append(handler)

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        """Call `handler(node)` whenever a link is gone (not when this node itself stops)."""
        self._down_listeners.append(handler)

    def on_join(self, handler: JoinHandler, *, now: Callable[[], datetime]) -> None:
        """Let `await handler(request)` decide whether a newcomer becomes a member.

        It is asked when the newcomer has proved to hold the token and was reached at its address,
        for several at once, and cancelled after `join_timeout_s`. It raises Refused with a reason
        for people, and no other error. `now` (with a time zone) dates the certificate.
        """
        self._admitter.handle_with(handler, now)

    def take_unknown(self, while_: Callable[[], bool]) -> None:
        """Accept nodes that are no members as far as is known here, as long as `while_()`.

        They have proved to hold the cluster's token. For a node that lost its disk: those whom its
        configuration names may have been replaced since.
        """
        self._takes_unknown = while_

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        """Queue a message, encoded now; it goes out with all others queued by the next turn.

        Returns False if there is no link or its queue is full (it is then dropped and made
        anew). True promises only order within the channel: a large payload goes in parts, and
        other channels' pass it; what a link loses when it breaks is lost.

        Raises:
            EnvelopeError: the payload is not made of MessagePack's types or is too large.
        """
        link = self._links.get(node)
        return link is not None and link.queue(channel, payload)

    def congested(self, node: NodeId) -> bool:
        """Tell whether so much is queued for `node` that producers should hold back."""
        link = self._links.get(node)
        return link is not None and link.queued_bytes > self._config.queue_congested_bytes

    def incarnation(self, node: NodeId) -> int:
        """Return the incarnation of `node` at the other end of the link that is up; 0 if none is.

        It is that of the link whose `on_up` was called last, from before that call on.
        """
        link = self._links.get(node)
        return 0 if link is None else link.hello.identity.incarnation

    def add_peer(self, node: NodeId, address: Address, *, incarnation: int = 0) -> None:
        """Let `node` be a member from now on, or give a member another address.

        A link that is up stays until it breaks; the new address is dialled then. Links of an
        older incarnation than the given are refused from now on, and one that is up is broken.
        """
        if node == self._me.node:
            return
        if self._members.get(node, address) != address:
            self._redial(node)
        self._members[node] = address
        if incarnation > self._incarnations.get(node, 0):
            self._incarnations[node] = incarnation
            link = self._links.get(node)
            if link is not None and link.hello.identity.incarnation < incarnation:
                link.fail("its data folder was replaced by a newer one")
        if self._nursery is not None and node < self._me.node and node not in self._dials:
            self._dials[node] = trio.CancelScope()
            self._nursery.start_soon(self._dial_forever, node)

    def remove_peer(self, node: NodeId) -> None:
        """Let `node` be no member any more; its link goes down and no new one is accepted.

        All that was known of it is forgotten, so that it may be added again like a new one.
        """
        self._members.pop(node, None)
        self._incarnations.pop(node, None)
        if (link := self._links.get(node)) is not None:
            link.fail("it is no longer a member")
        self._redial(node)

    def _redial(self, node: NodeId) -> None:
        """End the dialling or waiting under way; what comes next sees the node as it is then."""
        self._notices.forget(f"dial {node}")
        if (scope := self._dials.get(node)) is not None:
            scope.cancel()

    def _hosts(self) -> list[str]:
        return [self._listen.host, *(address.host for address in self._members.values())]

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen, dial and keep links until cancelled. Starts with the address listened on.

        Raises:
            TransportError: this node may not or cannot listen on its address.
        """
        listener, bound = await listen(
            self._listen, has_tls=self._server_tls is not None, sockets=self._sockets
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._tick_forever)
                for node, address in list(self._members.items()):
                    self.add_peer(node, address)
                task_status.started(bound)
                await accept_forever(listener, self._take)
        finally:
            listener.close()
            self._nursery = None
            self._links.clear()
            self._dials.clear()
            self.up = frozenset()

    async def _tick_forever(self) -> None:
        while True:
            await trio.sleep(tick_s(self._config))
            for link in list(self._links.values()):
                link.tick()

    # The dialler's side

    async def _dial_forever(self, node: NodeId) -> None:
        config, failures = self._config, 0
        try:
            while node in self._members:
                link = None
                with trio.CancelScope() as self._dials[node]:
                    link = await self._dial(node)
                if link is not None and node in self._members:
                    since = trio.current_time()
                    self._register(link)
                    await self._keep(link)
                    if trio.current_time() - since > config.retry_max_s:
                        failures = 0
                elif link is not None:
                    link.close()
                delay = min(config.retry_max_s, config.retry_min_s * 2 ** min(failures, 16))
                failures += 1
                with trio.CancelScope() as self._dials[node]:
                    await trio.sleep(self._rng.uniform(max(config.retry_min_s, delay / 2), delay))
        finally:
            self._dials.pop(node, None)

    async def _dial(self, node: NodeId) -> Link | None:
        address, notice = self._members[node], f"dial {node}"
        try:
            with trio.fail_after(self._config.connect_timeout_s):
                socket = await connect(address, self._sockets)
        except (OSError, trio.TooSlowError) as error:
            reason = describe(error) if isinstance(error, OSError) else "no answer"
            if self._notices.is_news(notice, reason):
                log.info(
                    "node not reached, dialling on",
                    extra={"peer": node, "address": str(address), "reason": reason},
                )
            return None
        self._dial_count += 1
        number = self._dial_count

        async def speak(wire: Wire, _: trio.CancelScope) -> Link:
            hello = await self._party.dial(wire, expected=node, number=number, check=self._check)
            self._check(hello)  # what is known may have changed during the proofs
            return Link(wire, hello, self._handlers, self._config)

        return await self._meet(socket, self._client_tls, speak, notice=notice, about=str(address))

    # The acceptor's side

    def _take(self, socket: trio.socket.SocketType) -> None:
        if self._strangers >= self._config.handshakes_max or self._nursery is None:
            socket.close()
            if self._notices.is_news("strangers", "too many"):
                log.warning(
                    "too many connections without a hello", extra={"count": self._strangers}
                )
            return
        self._strangers += 1
        self._nursery.start_soon(self._accept, socket)

    async def _accept(self, socket: trio.socket.SocketType) -> None:
        async def speak(wire: Wire, deadline: trio.CancelScope) -> Link | None:
            first = await read_opening(wire, (HELLO, JOIN), max_bytes=self._config.hello_max_bytes)
            if first.channel == JOIN:
                await self._admitter.admit(wire, first, until_proof=deadline)
                return None
            hello, welcome = await self._party.accept(wire, first)
            self._check(hello)
            self._check_newer(hello)
            link = Link(wire, hello, self._handlers, self._config)
            link.queue(WELCOME, welcome)  # before anything that a listener may send
            self._register(link)
            return link

        try:
            host = str(socket.getpeername()[0])
            link = await self._meet(
                socket, self._server_tls, speak, notice=f"accept {host}", about=host
            )
        except OSError:  # it was gone before it was looked at
            socket.close()
            return
        finally:
            self._strangers -= 1
            if self._strangers == 0:
                self._notices.forget("strangers")
        if link is not None:
            await self._keep(link)

    def _check_newer(self, hello: Hello) -> None:
        """Raise Refused unless `hello` may replace the link that its node has, if any."""
        they, old = hello.identity, self._links.get(hello.identity.node)
        if they.node < self._me.node:
            raise Refused(f"node {they.node} must wait for node {self._me.node} to dial it")
        if old is None or old.failure is not None:
            return
        known = old.hello.identity
        if they.incarnation > known.incarnation:
            return
        if they.boot < known.boot or (they.boot == known.boot and they.instance != known.instance):
            raise Refused(
                f"another process is linked as node {they.node} already; each node needs its own"
                " id and data folder"
            )
        if they.boot == known.boot and hello.dial <= old.hello.dial:
            raise Refused("a newer connection of this node is there")

    # Both sides

    async def _meet(
        self,
        socket: trio.socket.SocketType,
        tls: ssl.SSLContext | None,
        speak: Callable[[Wire, trio.CancelScope], Awaitable[Link | None]],
        *,
        notice: str,
        about: str,
    ) -> Link | None:
        """Speak until there is a link; None, with the socket closed, if there is to be none.

        Then the reason is logged. `speak` may put off the deadline that it is given.
        """
        link: Link | None = None
        wire: Wire | None = None
        try:
            with trio.fail_after(self._config.handshake_timeout_s) as deadline:
                wire = await self._wrap(socket, tls)
                link = await speak(wire, deadline)
        except Refused as refused:
            if refused.by_peer:
                self._warn(notice, about, f"refused by the other node: {refused}")
            else:
                self._warn(notice, about, f"refused by this node: {refused}")
                assert wire is not None
                await say_refused(wire, str(refused))
        except TransportError as error:
            self._warn(notice, about, str(error))
        except trio.TooSlowError:
            self._warn(notice, about, "the hello was not finished in time")
        except WIRE_ERRORS as error:
            self._warn(notice, about, describe(error))
        finally:
            if link is None:
                socket.close()
        return link

    async def _wrap(self, socket: trio.socket.SocketType, tls: ssl.SSLContext | None) -> Wire:
        if tls is not None:
            return await secure(socket, tls, server_side=tls is self._server_tls)
        wire = plain(socket)
        if not is_loopback(wire.remote.host):
            raise TransportError(
                f"refusing a link with {wire.remote.host} without TLS: give this node the cluster's"
                " certificate (ca.pem, node.pem and node.key)"
            )
        return wire

    def _check(self, hello: Hello) -> None:
        """Raise Refused if the node is no member, was replaced, or has the name of another one."""
        they = hello.identity
        if they.node not in self._members and not self._takes_unknown():
            raise Refused(f"node {they.node} is not a member, as node {self._me.node} knows")
        if they.incarnation < self._incarnations.get(they.node, 0):
            raise Refused(
                f"the data folder of node {they.node} was replaced by a newer one; start the node"
                " with the newer folder, or with an empty one"
            )
        for node, link in self._links.items():
            if node != they.node and link.hello.identity.name == they.name:
                raise Refused(f"nodes {they.node} and {node} have the same name {they.name!r}")

    def _register(self, link: Link) -> None:
        node, they = link.node, link.hello.identity
        if (old := self._links.get(node)) is not None:
            old.fail("a newer connection replaces it")
            self._report_down(old)
        self._links[node] = link
        self._incarnations[node] = they.incarnation  # `_check` has seen that it is not older
        self.up |= {node}
        self._notices.forget(f"dial {node}")
        self._notices.forget(f"accept {link.remote.host}")
        log.info(
            "link up",
            extra={
                "peer": node,
                "peer_name": they.name,
                "incarnation": they.incarnation,
                "boot": they.boot,
                "with": they.software,
            },
        )
        for listener in self._up_listeners:
            listener(node)

    async def _keep(self, link: Link) -> None:
        try:
            await link.run()
            self._report_down(link)
            await link.say_last_words()
        finally:
            link.close()

    def _report_down(self, link: Link) -> None:
        """Report, unless this was done when a newer link replaced this one."""
        node = link.node
        if self._links.get(node) is not link:
            return
        del self._links[node]
        self.up -= {node}
        log.warning("link down", extra={"peer": node, "reason": link.failure})
        for listener in self._down_listeners:
            listener(node)

    def _warn(self, notice: str, about: str, reason: str) -> None:
        if self._notices.is_news(notice, reason):
            log.warning("no link", extra={"address": about, "reason": reason})
