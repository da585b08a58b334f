"""The table of all kinds of faults, and what each needs of the machine."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from chaos.nemesis import disks, membership, network, processes, resources, sequences
from chaos.nemesis.fault import Fault

Need = Literal["hosts", "iptables", "tc", "tun", "ss", "faketime", "tmpfs", "fuse"]


class Kind(NamedTuple):
    """A kind of fault. needs: what the machine must have for it, see `chaos/capabilities.py`."""

    make: type[Fault]
    needs: tuple[Need, ...] = ()


KINDS: Final[dict[str, Kind]] = {
    "kill": Kind(processes.Kill),
    "kill-majority": Kind(processes.Kill),
    "outage": Kind(processes.Kill),
    "stop": Kind(processes.Stop),
    "starve": Kind(processes.Starve),
    "restart": Kind(processes.Restart),
    "wipe": Kind(processes.Wipe),
    "transfer": Kind(processes.Transfer),
    "cut-off": Kind(network.CutOff, ("hosts", "iptables")),
    "partition": Kind(network.Partition, ("hosts", "iptables")),
    "one-way": Kind(network.OneWay, ("hosts", "iptables")),
    "bridge": Kind(network.Bridge, ("hosts", "iptables")),
    "loss": Kind(network.Loss, ("hosts", "iptables")),
    "slow-link": Kind(network.SlowLink, ("hosts", "tc")),
    "delay": Kind(network.Delay, ("hosts", "tun")),
    "reorder": Kind(network.Reorder, ("hosts", "tun")),
    "reset": Kind(network.Reset, ("hosts", "ss")),
    "clock": Kind(resources.Clock, ("faketime",)),
    "full-disk": Kind(resources.FullDisk, ("tmpfs",)),
    "descriptors": Kind(resources.Descriptors),
    "storm": Kind(resources.Storm),
    "power": Kind(disks.PowerCut, ("fuse",)),
    "blackout": Kind(disks.PowerCut, ("fuse",)),
    "sync-fails": Kind(disks.SyncFails, ("fuse",)),
    "slow-disk": Kind(disks.SlowDisk, ("fuse",)),
    "lone-copy": Kind(sequences.LoneCopy, ("hosts", "iptables", "fuse")),
    "lost-settler": Kind(sequences.LostSettler, ("fuse",)),
    "replace": Kind(membership.Replace),
}
