"""The unix group of a project: its members may read, write and remove what its runs leave."""

from __future__ import annotations

import grp
import os

from xgen.runs import RunDir
from xgen.runs.users import user_name
from xgen.spec import Job, Profile

_SHARED = 0o2070  # the group may write, and what is made below has the group too


def group_of(job: Job, profile: Profile) -> str:
    """'' where the project has none."""
    project = profile.projects.get(job.project or "")
    return (project and project.group) or ""


def why_not(job: Job, profile: Profile) -> str:
    """Why this person cannot give a run to the group of its project; '' if they can."""
    name = group_of(job, profile)
    if not name:
        return ""
    at = f"projects.{job.project}.group"
    try:
        number = grp.getgrnam(name).gr_gid
    except KeyError:
        return f"{job.project!r} is for group {name}, which this machine does not know; mend {at} in the profile"
    if os.geteuid() == 0 or number in {os.getegid(), *os.getgroups()}:
        return ""
    said = f"{job.project!r} is for group {name}, and {user_name(os.geteuid())} is not in it"
    return f"{said}; ask for it and log in again (`id` shows your groups), or write another project"


def open_to(group: str, run: RunDir) -> None:
    """Give a run directory that was just made to the group; what this process and the run's jobs make in it from now on
    is the group's as well. Raises OSError."""
    number = grp.getgrnam(group).gr_gid
    for folder in (run.path, *(path for path in run.path.iterdir() if path.is_dir())):
        os.chown(folder, -1, number)
        folder.chmod(folder.stat().st_mode & 0o7777 | _SHARED)
    os.umask(os.umask(0) & ~0o070)  # the batch script's is 002
