"""What the scheduler says of its site: settings, partitions, nodes, and what its user may do there."""

from xgen.cluster.site.ask import ask_site
from xgen.cluster.site.facts import Association, Qos, Site, SiteGpus, SiteNode, SitePartition
from xgen.cluster.site.preemption import Preemption, preemption

__all__ = [
    "Association",
    "Preemption",
    "Qos",
    "Site",
    "SiteGpus",
    "SiteNode",
    "SitePartition",
    "ask_site",
    "preemption",
]
