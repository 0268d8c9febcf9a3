"""From what is known of a site to a profile: every value says where it is from, and a guess how to check it."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_unit.sites import OUTPUTS, dev, university
from xgen.cluster.site import Association, Qos, Site, SiteGpus, SiteNode
from xgen.cluster.site.access import usable, why_closed
from xgen.cluster.site.draft import Draft, default_partition, draft, local_draft
from xgen.cluster.site.machine import Asked, Folder, LocalGpus, Machine
from xgen.cluster.site.text import guesses, profile_text, raw_profile
from xgen.cluster.site.write import read_back, write_profile
from xgen.spec import Profile, SpecError

SCRATCH = Folder(Path("/scratch/ana"), "lustre", "$SCRATCH")


def machine(**changes: Any) -> Machine:
    base = Machine(
        host="login1", user="ana", root=Path("/home/ana/xgen"),
        runtimes=(("pyxis", "srun --help has --container-image"), ("enroot", "/usr/bin/enroot is on this machine")),
        folders=(SCRATCH,), gpu_devices=None, gpus=None, image_dir=None, environment=None,
    )  # fmt: skip
    return replace(base, **changes)


def text_of(found: Draft, *overrides: str) -> str:
    raw, whys = raw_profile(found, overrides)
    return profile_text(found, raw, whys, "Written by a test.")


def said(found: Draft, *overrides: str) -> str:
    """Comments that were broken, each on one line again."""
    return re.sub(r"\n *#   ", " ", text_of(found, *overrides))


def profile_of(found: Draft, *overrides: str) -> Profile:
    return read_back(text_of(found, *overrides), "the profile")


def h100(kind: str = "partition_prio") -> Site:
    """The larger site without its odd node, and with GPUs of one type."""
    site = university(kind)
    config = {**site.config, "SelectType": "select/cons_tres", "KillWait": "60 sec", "JobRequeue": "1"}
    nodes = tuple(
        replace(site.nodes[0], name=f"g{n:02}", address=f"10.0.0.{n}", state="idle", gpus_used=0) for n in range(1, 17)
    )
    return replace(site, config=config, nodes=nodes)


def same_as_file(text: str, name: str) -> None:
    """XGEN_GOLDEN=write writes the file anew."""
    file = OUTPUTS / name
    if os.environ.get("XGEN_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_the_profile_of_the_dev_slurm_is_that_text() -> None:
    seen = machine(
        root=Path("/data/xgen"), runtimes=(("charliecloud", "/usr/bin/ch-run is on this machine"),), folders=(),
        gpu_devices="/srv/dev/fakegpu{}", image_dir=Folder(Path("/data/xgen/.cache/images"), "ext4", "/data/xgen"),
        environment=Path("/data/xgen/.venv"),
    )  # fmt: skip
    same_as_file(text_of(draft(dev(), seen, Asked())), "dev-profile.yaml")


def test_the_profile_of_an_h100_cluster_is_that_text() -> None:
    same_as_file(text_of(draft(h100(), machine(), Asked())), "h100-profile.yaml")


def test_the_profile_of_a_machine_without_slurm_is_that_text() -> None:
    seen = machine(gpus=LocalGpus(2, "NVIDIA GeForce RTX 4090", 24564))
    same_as_file(text_of(local_draft(seen, Asked(), "scontrol is not on PATH")), "gpu-box-profile.yaml")


def test_a_machine_without_gpus_has_a_profile_too() -> None:
    profile = profile_of(local_draft(machine(), Asked(), "scontrol is not on PATH"))
    assert (profile.scheduler, profile.gpus.request, profile.container.runtime) == ("local", "none", "none")


def test_what_preempts_by_cancel_or_is_not_requeued_goes_on_as_a_successor() -> None:
    site = dev()
    gpu, preempt = site.partitions
    cancels = replace(site, partitions=(gpu, replace(preempt, preempt_mode="CANCEL")))
    assert profile_of(draft(site, machine(), Asked())).restart_by == "requeue"
    assert profile_of(draft(cancels, machine(), Asked())).restart_by == "successor"
    assert "PreemptMode=CANCEL in preempt" in said(draft(cancels, machine(), Asked()))
    never = replace(site, config={**site.config, "JobRequeue": "0"})
    assert profile_of(draft(never, machine(), Asked())).restart_by == "successor"


def test_what_a_preempted_job_does_not_hear_stands_beside_its_partition() -> None:
    site = dev()
    deaf = replace(site, config={**site.config, "SlurmctldParameters": "idle_on_node_suspend"})
    assert "without preempt_send_user_signal: no --signal comes" in said(draft(deaf, machine(), Asked()))
    gpu, preempt = site.partitions
    at_once = replace(site, partitions=(gpu, replace(preempt, grace=0)))
    assert "GraceTime=0: only periodic checkpoints protect a run" in said(draft(at_once, machine(), Asked()))


def test_images_of_a_project_that_nodes_do_not_share_are_not_those_of_the_cluster() -> None:
    images, python = Path("/home/ana/xgen/.cache/images"), Path("/home/ana/xgen/.venv")
    own = machine(image_dir=Folder(images, "xfs", "/home/ana/xgen"), environment=python)
    container = profile_of(draft(h100(), own, Asked())).container
    assert (container.image_dir, container.python) == ("/scratch/ana/xgen/images", None)
    shared = machine(image_dir=Folder(images, "nfs4", "/home/ana/xgen"), environment=python)
    found = draft(h100(), shared, Asked())
    assert profile_of(found).container.image_dir == str(images)
    assert "(check: srun -N2 ls /home/ana/xgen/.venv/bin/python)" in said(found)


def test_a_suspended_job_is_not_a_preempted_one() -> None:
    site = h100()
    scavenge = profile_of(draft(site, machine(), Asked())).partitions["scavenge"]
    assert scavenge.preemptible is False
    assert "PreemptMode=SUSPEND: main suspend its jobs" in said(draft(site, machine(), Asked()))


def test_gpus_are_asked_for_as_the_site_understands_it() -> None:
    site = h100()
    old = replace(site, config={**site.config, "SelectType": "select/cons_res"})
    none = replace(site, nodes=tuple(replace(node, gpus=()) for node in site.nodes))
    assert [profile_of(draft(one, machine(), Asked())).gpus.request for one in (site, old, none)] == [
        "gpus-per-node", "gres", "none",
    ]  # fmt: skip


def test_of_several_types_none_is_chosen() -> None:
    site = h100()
    mixed = replace(site, nodes=(*site.nodes, replace(site.nodes[0], name="t1", gpus=(SiteGpus(4, "a100"),))))
    found = draft(mixed, machine(), Asked())
    assert profile_of(found).gpus.type is None
    raw, whys = raw_profile(found)
    assert raw["gpus"]["type"] is None
    assert guesses(whys)["gpus.type"].startswith("nodes have several: h100 on 16, a100 on 1")
    assert profile_of(found, "gpus.type=h100").gpus.type == "h100"


def test_the_shortest_of_the_limits_on_time_counts() -> None:
    week = Association("lab", None, ("normal",), "normal", 7 * 86400, "", "")
    day = Qos("normal", 0, (), None, (), 86400, "")
    site = replace(h100(), associations=(week,), default_account="lab", qos=(day,))
    found = draft(site, machine(), Asked())
    assert profile_of(found).partitions["main"].max_time == 86400
    assert "MaxWall of your QOS normal=1d" in text_of(found)
    assert profile_of(draft(h100(), machine(), Asked())).partitions["scavenge"].max_time == 365 * 86400


def test_partitions_that_are_closed_to_the_user_are_left_out_and_named() -> None:
    lab = Association("lab", None, ("normal",), None, None, "", "")
    site = replace(h100(), version="22.05.8", associations=(lab,), default_account="lab")
    main, scavenge, closed = site.partitions
    open_one = replace(closed, root_only=False, nodes=("g01",))
    site = replace(site, partitions=(main, replace(scavenge, deny_accounts=("lab",)), open_one))
    assert [part.name for part in usable(site)] == ["main"]
    text = text_of(draft(site, machine(), Asked()))
    assert "# Left out: partition closed: AllowAccounts=ops,physics, and yours are lab" in text
    assert "# Left out: partition scavenge: DenyAccounts=guest,students" not in text
    assert "# Left out: partition scavenge: DenyAccounts=lab" in text


def test_a_default_without_gpus_is_not_the_default_of_trainings() -> None:
    site = h100()
    main, scavenge, _ = site.partitions
    cpu = replace(main, name="cpu", nodes=("c1",))
    node = SiteNode("c1", "idle", "10.0.1.1", 64, 1 << 38, (), 0, (), ("cpu",), "")
    site = replace(site, partitions=(cpu, replace(main, default=False), scavenge), nodes=(*site.nodes, node))
    assert default_partition(site) == "main"
    assert profile_of(draft(site, machine(), Asked())).default_partition == "main"


def only(site: Site, **changes: Any) -> Site:
    """With `main` changed so, and no other partition."""
    return replace(site, partitions=(replace(site.partitions[0], **changes),))


def why_closed_of(site: Site) -> str | None:
    return why_closed(site, site.partitions[0])


def test_a_partition_of_other_groups_is_closed_but_to_root() -> None:
    site = only(h100(), allow_groups=("lab",))
    assert why_closed_of(site) is None  # whose groups nobody knows
    assert why_closed_of(replace(site, groups=("ana", "users"))) == "AllowGroups=lab, and yours are ana, users"
    assert why_closed_of(replace(site, groups=("ana", "lab"))) is None
    assert why_closed_of(replace(site, groups=("root",), user="root")) is None


def test_a_hidden_partition_one_that_is_down_and_a_short_one_are_not_the_default() -> None:
    site = h100()
    main = replace(site.partitions[0], default=False)
    all_nodes = tuple(replace(node, partitions=("cpu", "debug", "lab", "long", "maint")) for node in site.nodes)
    fewer = tuple(replace(node, partitions=("debug", "lab", "maint")) for node in all_nodes[:8])
    names: dict[str, dict[str, Any]] = {
        "debug": {"max_time": 1800}, "lab": {"hidden": True}, "maint": {"state": "DOWN"}, "long": {},
    }  # fmt: skip
    parts = tuple(replace(main, name=name, **changes) for name, changes in names.items())
    site = replace(site, partitions=parts, nodes=(*fewer, *all_nodes[8:]))
    assert default_partition(site) == "long"
    _, whys = raw_profile(draft(site, machine(), Asked()))
    assert "partitions.long" in guesses(whys)
    own = replace(parts[2], default=True)
    assert default_partition(replace(site, partitions=(own, parts[3]))) == "long"


def test_accounts_are_compared_as_slurm_compares_them() -> None:
    lab = Association("lab", None, (), None, None, "", "")
    old = replace(h100(), version="22.05.8", associations=(lab,), default_account="lab")
    assert why_closed_of(only(old, allow_accounts=("Lab",))) is None
    assert why_closed_of(only(old, deny_accounts=("LAB",))) == "DenyAccounts=LAB, and yours are lab"
    assert why_closed_of(only(old, allow_accounts=("lab",), deny_accounts=("lab",))) is None
    assert why_closed_of(only(old, allow_accounts=("ops",))) == "AllowAccounts=ops, and yours are lab"
    below = only(replace(old, version="24.11.1"), allow_accounts=("ops",))
    text = said(draft(below, machine(), Asked()))
    assert "closed, unless an account of yours lies below one of AllowAccounts=ops" in text
    assert "(check: srun --test-only -p main true)" in text


def test_a_partition_of_another_account_is_open_with_it_and_not_preferred() -> None:
    lab, other = (Association(name, None, (), None, None, "", "") for name in ("lab", "other"))
    site = replace(h100(), associations=(lab, other), default_account="lab")
    main, scavenge, _ = site.partitions
    parts = (replace(main, default=False, allow_accounts=("other",)), replace(scavenge, allow_qos=None))
    site = replace(site, partitions=parts)
    assert "only with `project:` other" in said(draft(site, machine(), Asked()))
    assert default_partition(site) == "scavenge"


def test_a_qos_that_a_partition_does_not_take_is_not_that_of_its_jobs() -> None:
    normal, standby = (
        Qos(name, 60, (), None, (), hours * 3600, "") for name, hours in (("normal", 48), ("standby", 4))
    )
    normal = replace(normal, preempts=("standby",))
    lab = Association("lab", None, ("normal", "standby"), "normal", None, "", "")
    site = replace(h100("qos"), associations=(lab,), default_account="lab", qos=(normal, standby))
    assert profile_of(draft(only(site), machine(), Asked())).partitions["main"].preemptible is False
    must = only(site, allow_qos=("standby",))
    main = profile_of(draft(must, machine(), Asked())).partitions["main"]
    assert (main.preemptible, main.grace, main.max_time) == (True, 60, 4 * 3600)
    assert "only with a QOS that you name: SBATCH_QOS=standby" in said(draft(must, machine(), Asked()))
    assert why_closed_of(only(site, allow_qos=("vip",))) == "AllowQos=vip, and none of it is yours"
    assert why_closed_of(only(site, deny_qos=("normal", "standby"))) is not None


def test_a_qos_may_lift_the_limit_of_a_partition() -> None:
    long = Qos("long", 0, (), None, ("PartitionTimeLimit",), 14 * 86400, "")
    lab = Association("lab", None, ("long",), None, None, "", "")
    site = only(replace(h100(), associations=(lab,), default_account="lab", qos=(long,)))
    assert profile_of(draft(site, machine(), Asked())).partitions["main"].max_time == 14 * 86400
    endless = replace(site, qos=(replace(long, max_wall=None),))
    assert "a QOS with PartitionTimeLimit and no MaxWall" in text_of(draft(endless, machine(), Asked()))


def test_nodes_without_gpus_are_counted_and_what_is_not_known_is_not_claimed() -> None:
    site = only(h100())
    few = replace(site, nodes=tuple(replace(n, gpus=n.gpus if i < 4 else ()) for i, n in enumerate(site.nodes)))
    assert "4 of 16 nodes with 8 GPUs each" in said(draft(few, machine(), Asked()))
    assert "16 nodes; MaxTime" in said(draft(replace(site, nodes=()), machine(), Asked()))


def test_types_in_partitions_that_are_closed_do_not_count() -> None:
    site = only(h100())
    foreign = replace(site.nodes[0], name="t1", gpus=(SiteGpus(4, "a100"),), partitions=("private",))
    assert profile_of(draft(replace(site, nodes=(*site.nodes, foreign)), machine(), Asked())).gpus.type == "h100"


def test_a_part_of_a_gpu_is_a_guess() -> None:
    site = only(h100())
    nodes = tuple(replace(node, gpus=(SiteGpus(14, "a100_3g.20gb"),)) for node in site.nodes)
    raw, whys = raw_profile(draft(replace(site, nodes=nodes), machine(), Asked()))
    assert (raw["gpus"]["flops"], raw["gpus"]["memory"]) == ("134T", "20GB")
    assert "3 of 7 slices" in guesses(whys)["gpus.flops"]


def test_the_newer_name_of_the_signal_counts_too() -> None:
    site = dev()
    newer = {**site.config, "SlurmctldParameters": "", "PreemptParameters": "send_user_signal"}
    assert "without preempt_send_user_signal" not in said(draft(replace(site, config=newer), machine(), Asked()))


def test_what_was_not_answered_is_not_printed_as_none_or_as_set() -> None:
    config = {key: value for key, value in dev().config.items() if key != "JobRequeue"}
    text = said(draft(replace(dev(), default_account=None, config=config), machine(), Asked()))
    assert "without one: SLURM's default, which it did not say" in text
    assert "JobRequeue is not said, and SLURM's default is 1" in text


def test_what_a_person_says_counts_more_than_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").touch()
    asked = Asked(run_root=Path("/lustre/runs"), image_dir=Path("/lustre/images"), python=tmp_path / "bin/python")
    profile = profile_of(draft(h100(), machine(), asked), "kill_wait=1m", "nodes.deaths=5", "gpus.mfu=0.5")
    assert (profile.run_root, profile.container.image_dir) == ("/lustre/runs", "/lustre/images")
    assert profile.container.python == f"{tmp_path}/bin/python"
    assert [mount.source for mount in profile.container.mounts] == [str(tmp_path)]
    bare = profile_of(draft(h100(), machine(runtimes=()), asked)).container
    assert (bare.runtime, bare.image_dir) == ("none", "/lustre/images")
    assert (profile.kill_wait, profile.nodes.deaths, profile.gpus.mfu) == (60, 5, 0.5)
    text = text_of(draft(h100(), machine(), Asked()), "partitions.scavenge.grace=1m")
    assert "grace: 1m" in text
    assert "partitions.scavenge.grace: as you said" in text


def test_a_wrong_override_names_the_key_and_nothing_is_written() -> None:
    with pytest.raises(SpecError, match=r"the profile: gpus\.request: 'cons' is not known"):
        profile_of(draft(h100(), machine(), Asked()), "gpus.request=cons")
    with pytest.raises(SpecError, match="is not KEY=VALUE"):
        profile_of(draft(h100(), machine(), Asked()), "gpus.request")


def test_mpi_is_switched_off_where_the_site_has_it_on() -> None:
    site = h100()
    pmix = replace(site, config={**site.config, "MpiDefault": "pmix"})
    assert profile_of(draft(pmix, machine(), Asked())).srun_args == ["--mpi=none"]
    assert profile_of(draft(site, machine(), Asked())).srun_args == []


def test_runs_lie_where_nodes_look_or_nowhere() -> None:
    local = replace(SCRATCH, file_system="xfs")
    assert profile_of(draft(h100(), machine(), Asked())).run_root == "/scratch/ana/xgen/runs"
    assert "which may be this machine's own" in said(draft(h100(), machine(folders=(local,)), Asked()))
    assert "run_root" not in raw_profile(draft(h100(), machine(folders=()), Asked()))[0]


def test_names_that_yaml_reads_otherwise_are_quoted() -> None:
    site = h100()
    main = replace(site.partitions[0], name="on")
    text = text_of(draft(replace(site, partitions=(main,)), machine(), Asked()))
    assert list(yaml.safe_load(text)["partitions"]) == ["on"]


def test_a_profile_that_is_there_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "clusters/a.yaml"
    assert write_profile(file, "one", force=False)
    assert not write_profile(file, "two", force=False)
    assert file.read_text() == "one"
    assert write_profile(file, "two", force=True)
    assert file.read_text() == "two"
    assert [path.name for path in file.parent.iterdir()] == ["a.yaml"]


def test_a_forced_profile_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "dotfiles.yaml")
    assert write_profile(tmp_path / "a.yaml", "one", force=True)
    assert (tmp_path / "a.yaml").is_symlink()
    assert (tmp_path / "dotfiles.yaml").read_text() == "one"


def test_a_home_without_hard_links_takes_a_profile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert write_profile(tmp_path / "a.yaml", "one", force=False)
    assert not write_profile(tmp_path / "a.yaml", "two", force=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one"]
