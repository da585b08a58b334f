"""Limits that policies set and clear, known to each node at another time, beside all that fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from leveret.broker.messages import FeaturesChanged
from leveret.broker.queues.dead_letters import Reason
from leveret.broker.queues.features import PLAIN, QueueFeatures
from leveret.broker.queues.lead import Lead
from tests.broker.queue_cluster import Node
from tests.broker.test_queue_cluster import Chaos, check

POLICIES = (PLAIN, QueueFeatures(max_length=3), QueueFeatures(max_length=40))


class PolicyChaos(Chaos):
    """Nodes hear of other policies, too; at the end of none."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, is_calm=False)
        self.dropped: set[bytes] = set()
        self.actions.append((4, self.hear_of_policy))

    def hear_of_policy(self) -> None:
        node = self.cluster.nodes[self.node()]
        self.tell(node, self.random.choice(POLICIES))

    def tell(self, node: Node, features: QueueFeatures) -> None:
        # An actor that is made anew after a crash has what its node heard last.
        node.features = features
        node.mailbox.tell(FeaturesChanged(features))

    def run(self) -> None:
        super().run()
        for node in self.cluster.nodes.values():
            self.tell(node, PLAIN)


@pytest.mark.parametrize("seed", range(30))
def test_only_what_was_too_much_is_lost_and_nothing_is_stuck(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chaos = PolicyChaos(seed)
    end = Lead._end

    def watch(lead: Lead, sequences: Sequence[int], reason: Reason) -> None:
        assert reason == "maxlen"
        for sequence in sequences:
            location = lead._state.locate(sequence)
            if location is not None:
                entry = lead._log.read(location.entry)
                chaos.dropped.add(bytes(entry[location.offset :][: location.size]))
        end(lead, sequences, reason)

    monkeypatch.setattr(Lead, "_end", watch)

    check(chaos, dropped=chaos.dropped)
