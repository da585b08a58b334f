"""Whole nodes that start, in a simulated world: what they know, and what they do not."""

from __future__ import annotations

from chaos.simulation.world import World, run, until


def test_a_node_that_starts_knows_no_members_until_its_catalog_is_that_of_the_cluster() -> None:
    """A group that it leads by then would undo what was changed while the node was down."""

    async def main(world: World) -> None:
        world.start()
        assert await until(lambda: world.are_serving, within_s=20)
        one, *others = world.nodes
        for node in world.nodes:
            world.hold_down(node)
            world.kill(node)

        world.let_up(one)
        assert await until(lambda: world.replicas(one) is not None, within_s=5)
        alone = world.replicas(one)
        assert alone is not None
        assert set(world.nodes) == set(alone.groups[0].configuration.voters)
        assert not await until(lambda: bool(alone.desired()), within_s=5)

        for node in others:
            world.let_up(node)
        assert await until(lambda: world.are_serving, within_s=20)
        assert set(world.nodes) == set(alone.desired())

    run(1, main)


def test_a_clock_that_is_put_back_makes_no_new_folder_an_older_one() -> None:
    """The other nodes would refuse it for ever, as an operator's old copy."""

    async def main(world: World) -> None:
        world.start()
        assert await until(lambda: world.are_serving, within_s=20)
        node = world.nodes[2]
        world.hold_down(node)
        world.shift_clock(node, 50_000)
        world.replace_disk(node)
        world.shift_clock(node, -60_000)
        world.let_up(node)
        assert await until(lambda: world.are_serving, within_s=20)
        shown_ms = world.wall_clock_ms(world.hosts[node])
        world.shift_clock(node, -60_000)
        assert shown_ms - 60_000 == world.wall_clock_ms(world.hosts[node])

    run(1, main)
