"""A profile beside what its site says now: what differs, and what to write instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.cluster_unit.sites import dev, university
from tests.conftest import ROOT
from xgen.cluster.site.compare import compare, partitions_now
from xgen.spec import Profile, load_profile
from xgen.spec.layers import show_key


def ours(**changes: Any) -> Profile:
    """The dev profile as the checkout has it."""
    raw = load_profile(ROOT / "slurm/clusters/dev.yaml").model_dump(mode="json")
    return Profile.model_validate(raw | changes)


def to_write(profile: Profile, site: Any = None) -> dict[str, str]:
    return {show_key(row.key): row.write for row in compare(profile, site or dev()) if row.write}


def test_the_dev_profile_is_what_the_dev_slurm_says() -> None:
    assert to_write(ours()) == {}
    assert [show_key(row.key) for row in compare(ours(), dev())] == [
        "partitions.gpu.max_time", "partitions.gpu.preemptible", "partitions.preempt.max_time",
        "partitions.preempt.preemptible", "partitions.preempt.grace", "gpus.request", "kill_wait", "restart_by",
    ]  # fmt: skip


def test_each_value_that_differs_comes_with_what_to_write() -> None:
    partitions = {"gpu": {"max_time": "2d", "preemptible": True}, "preempt": {"max_time": "1d", "preemptible": False}}
    assert to_write(ours(partitions=partitions, kill_wait="30s")) == {
        "partitions.gpu.max_time": "1d",
        "partitions.gpu.preemptible": "false",
        "partitions.preempt.preemptible": "true",
        "partitions.preempt.grace": "30s",
        "kill_wait": "10s",
    }


def test_a_partition_that_is_not_there_or_closed_is_named() -> None:
    profile = ours(partitions={"gpus": {"max_time": "1d"}, "gpu": {"max_time": "1d"}})
    assert to_write(profile) == {"partitions.gpus": "one of gpu, preempt, or nothing"}
    gpu, preempt = dev().partitions
    site = replace(dev(), partitions=(replace(gpu, allow_accounts=("ops",)), preempt))
    assert to_write(ours(partitions={"gpu": {"max_time": "1d"}}), site) == {"partitions.gpu": "nothing"}


def test_gpus_that_the_site_would_not_give_are_named() -> None:
    site = replace(dev(), config={**dev().config, "SelectType": "select/cons_res"})
    assert to_write(ours(), site) == {"gpus.request": "gres"}
    assert to_write(ours(gpus={"request": "gres"})) == {}  # which cons_tres understands too
    assert to_write(ours(gpus={"request": "gpus-per-node", "type": "h100"})) == {"gpus.type": "null"}
    big = replace(university(), partitions=())
    assert to_write(ours(gpus={"request": "gres", "type": "v10"}), big)["gpus.type"] == "h100"
    assert "gpus.type" not in to_write(ours(gpus={"request": "gres", "type": "a100"}), big)


def test_a_requeue_that_cannot_be_is_named_and_a_successor_is_a_choice() -> None:
    site = replace(dev(), config={**dev().config, "JobRequeue": "0"})
    assert to_write(ours(), site) == {"restart_by": "successor"}
    assert to_write(ours(restart_by="successor")) == {}


def test_less_than_the_site_gives_is_a_choice_and_so_is_another_qos() -> None:
    gpu, preempt = dev().partitions
    site = replace(dev(), partitions=(replace(gpu, max_time=7 * 86400), preempt))
    assert to_write(ours(), site) == {}
    by_qos = replace(dev(), config={**dev().config, "PreemptType": "preempt/qos"})
    assert to_write(ours(), by_qos) == {}


def test_a_partition_without_a_limit_contradicts_no_profile() -> None:
    gpu, preempt = dev().partitions
    site = replace(dev(), partitions=(replace(gpu, max_time=None), preempt))
    assert to_write(ours(), site) == {}


def test_what_slurm_did_not_say_is_not_compared() -> None:
    site = replace(dev(), partitions=(), nodes=(), unanswered=("nodes: Access denied",))
    assert [show_key(row.key) for row in compare(ours(), site)] == ["kill_wait", "restart_by"]


def test_partitions_now_with_what_is_free_in_them() -> None:
    site = dev()
    one, *others = site.nodes
    nodes = (replace(one, gpus_used=3), replace(others[0], state="drained", gpus_used=0), *others[1:])
    gpu, preempt = partitions_now(ours(partitions={"gpu": {"max_time": "1d"}}), replace(site, nodes=nodes))
    assert (gpu.name, gpu.in_profile, gpu.nodes, gpu.nodes_out, gpu.gpus, gpu.gpus_free) == ("gpu", True, 4, 1, 32, 21)
    assert (preempt.in_profile, preempt.preempted_by, preempt.preempt_mode) == (False, ("gpu",), "REQUEUE")
    silent = replace(site, nodes=tuple(replace(node, gpus_used=None) for node in nodes))
    assert partitions_now(ours(), silent)[0].gpus_free is None
    reserved = replace(site, nodes=tuple(replace(node, reserved=True) for node in site.nodes))
    assert partitions_now(ours(), reserved)[0].gpus_free == 0


def test_nodes_that_slurm_does_not_show_are_not_said_to_be_none() -> None:
    gpu, _ = partitions_now(ours(), replace(dev(), nodes=()))
    assert (gpu.nodes, gpu.nodes_out, gpu.gpus, gpu.gpus_free) == (4, None, None, None)
