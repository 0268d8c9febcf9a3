"""Sites to test with: our dev SLURM as it was recorded, and a larger one of a newer version."""

from __future__ import annotations

from pathlib import Path

from xgen.cluster.site import Site, parse

OUTPUTS = Path(__file__).with_name("site_outputs")


def said(name: str) -> str:
    return (OUTPUTS / name).read_text()


def dev() -> Site:
    """The dev SLURM, as it was recorded."""
    config = parse.config(said("22.05.8_show-config.txt"))
    return Site(
        cluster=config["ClusterName"],
        version=config["SLURM_VERSION"],
        config=config,
        partitions=parse.partitions(said("22.05.8_show-partition.txt"), config),
        nodes=parse.nodes(said("22.05.8_show-node.txt")),
        user="root",
        accounting=True,
        default_account="root",
        associations=parse.associations(said("22.05.8_show-assoc.txt")),
        qos=parse.qos(said("22.05.8_show-qos.txt")),
    )


def university(kind: str = "partition_prio") -> Site:
    """A larger one, of SLURM 24.11."""
    config = {"PreemptType": f"preempt/{kind}", "PreemptMode": "CANCEL"}
    return Site(
        cluster="uni", version="24.11.1", config=config, user="ana",
        partitions=parse.partitions(said("24.11_show-partition.txt"), config),
        nodes=parse.nodes(said("24.11_show-node.txt")),
    )  # fmt: skip
