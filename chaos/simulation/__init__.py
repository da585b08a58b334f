"""A deterministic world for whole clusters: one seed decides scheduling, network, disks, faults."""
