"""The stream's clients in the simulator do what the seeds rely on."""

from __future__ import annotations

from contextlib import suppress
from random import Random

from chaos.checkers.streams import streams
from chaos.history import Following, History, Outcome, Publish, Read
from chaos.simulation.client import Gone
from chaos.simulation.scenario import plan
from chaos.simulation.streams import NumberedPublisher, StreamClients, StreamPlan
from chaos.simulation.workload import Clients
from chaos.simulation.world import World, run, until
from leveret.amqp import spec

PLAN = StreamPlan(max_bytes=None, publishers=0, numbered=1, readers=1, rate=1.0)


def test_what_a_publisher_with_numbers_left_in_doubt_it_sends_again_and_all_read_it_once() -> None:
    history = History()

    async def main(world: World) -> None:
        clients = Clients(world, history)
        world.start()
        assert await until(lambda: world.are_serving, within_s=20)
        await clients.set_up()
        stream = StreamClients(clients, PLAN)
        await stream.set_up()
        publisher = NumberedPublisher(clients, "n", Random(1))
        numbering = publisher.numbering
        with suppress(Gone):
            async with clients.connected(world.nodes[0], out_of_band=numbering) as client:
                await client.call(spec.ConfirmSelect(), spec.ConfirmSelectOk)
                for _ in range(3):
                    await publisher.publish(client)
                await client.next(within_s=1)  # stored, and the confirm is not looked at
                raise Gone("it left without a word")
        assert publisher.is_in_doubt
        assert publisher.numbering == numbering
        clients.publishing = False
        async with clients.connected(world.nodes[1], out_of_band=numbering) as client:
            await publisher.run(client, 1.0)
        assert not publisher.is_in_doubt
        await stream.read_all("calm")

    run(1, main)

    events = history.events
    assert [3, 3] == [sum(isinstance(e, kind) for e in events) for kind in (Publish, Outcome)]
    sessions = [e.session for e in events if isinstance(e, Following) and e.start == "first"]
    assert len(sessions) == 3
    for session in sessions:
        read = [event for event in events if isinstance(event, Read) and event.session == session]
        assert [0, 1, 2] == [event.offset for event in read]
    assert [] == list(streams(events))


def test_the_plans_of_the_seeds_draw_streams_with_and_without_a_limit_and_seeds_without() -> None:
    drawn = [plan(seed).stream for seed in range(100)]

    assert {None, 10_000, 40_000} == {stream.max_bytes for stream in drawn if stream is not None}
    assert None in drawn
