"""Build an image from its recipe with the tool that is here, and import it: once for every key of a recipe."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from xgen.images import commands
from xgen.images.errors import ImageError
from xgen.images.formats import CONTENT, check_name
from xgen.images.importing import Imported, import_image
from xgen.images.progress import Progress, Tick
from xgen.images.recipe import DOCKERFILE, RECIPE_LABEL, Recipe, base_id, local_bases, recipe_key
from xgen.images.record import RECORD, STORE, Format, ImageRecord, read_record
from xgen.images.store import ImageStore, locked
from xgen.images.tools import PROBE_SECONDS, ToolError, answers, installed, run
from xgen.spec.errors import Problem, SpecError

Tool = Literal["docker", "podman", "buildah"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
BUILD_SECONDS = 6 * 3600.0  # flash-attn takes hours on a few cores
LOCK_SECONDS = BUILD_SECONDS
_SHOWN_LINES = 20
_MATERIAL: dict[Tool, str] = {"docker": "docker-daemon", "podman": "podman", "buildah": "containers-storage"}
_SLOW = {"FROM", "RUN", "COPY", "ADD"}
_STEP = re.compile(  # podman, buildah and docker's classic builder; BuildKit
    r"^(?:\[\d+/\d+\] )?(?:STEP|Step) (?P<n>\d+)/(?P<of>\d+) ?: (?P<text>.*)|"
    r"^#\d+ \[(?:\S+ )?(?P<kit_n>\d+)/(?P<kit_of>\d+)\] (?P<kit_text>.*)"
)


@dataclass(frozen=True)
class Plan:
    """All that a build does: what `--dry-run` prints is what runs."""

    recipe: Recipe
    name: str
    key: str
    tool: Tool
    tag: str
    bases: tuple[tuple[commands.Argv, ...], ...]  # of each base archive: the commands that load it; the last tags it
    build: commands.Argv

    @property
    def source(self) -> str:
        """The image as `xgen image import` takes it."""
        return f"{_MATERIAL[self.tool]}:{self.tag}"

    def commands(self, image_dir: Path, formats: Sequence[Format]) -> list[commands.Argv]:
        kinds = tuple(word for kind in formats for word in ("--format", kind))
        imports = ("xgen", "image", "import", self.source, "--name", self.name, *kinds, "--image-dir", str(image_dir))
        return [*(argv for base in self.bases for argv in base), self.build, imports]


@dataclass(frozen=True)
class Built:
    """What a build did. `built` is False where an image of this key was there."""

    imported: Imported
    key: str
    built: bool


def choose_tool(wanted: str) -> Tool:
    """`auto`: docker where its daemon answers, else podman, else buildah. Raises SpecError, ImageError."""
    if wanted == "auto":
        for tool in TOOLS:
            if _usable(tool):
                return tool
        raise ImageError(
            "no docker that answers, no podman and no buildah on this machine; install one (Debian: apt-get install "
            "buildah), or build on another machine and write `xgen image import ARCHIVE.tar` here"
        )
    for tool in TOOLS:
        if wanted == tool:
            if not _usable(tool):
                hint = "does not answer; start it, or set DOCKER_HOST" if tool == "docker" else "is not installed"
                others = [other for other in TOOLS if other != tool and _usable(other)]
                raise ImageError(f"--tool {tool}: it {hint}" + (f", or write --tool {others[0]}" if others else ""))
            return tool
    raise SpecError(Problem("", "--tool", f"{wanted!r} is not known; write auto, {', '.join(TOOLS)}"))


def _usable(tool: Tool) -> bool:
    return installed(tool) and (tool != "docker" or answers(commands.DOCKER_ANSWERS))


def identify_recipe(recipe: Recipe, args: Mapping[str, str], tool: str) -> tuple[str, dict[str, str]]:
    """The key of a recipe, and base -> digest of the bases that lie here: of an archive by the argument that names it,
    of `localhost/…`, which a tool's storage holds and no registry knows, by its name.

    Raises SpecError, ImageError.
    """
    archives = local_bases(recipe, args)
    ids = {arg: base_id(path) for arg, path in archives.items()}
    named = [base for base in recipe.dockerfile.bases(args) if base.startswith("localhost/")]
    if named:
        chosen = choose_tool(tool)
        ids |= {base: _local_id(chosen, base) for base in named}
    return recipe_key(recipe, {name: value for name, value in args.items() if name not in archives}, ids), ids


def make_plan(
    recipe: Recipe,
    args: Mapping[str, str],
    name: str,
    key: str,
    ids: Mapping[str, str],
    tool: Tool,
    *,
    network: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Plan:
    """`key` and `ids` as `identify_recipe` says them."""
    archives = local_bases(recipe, args)
    base_tags = {arg: f"localhost/xgen-base:{_short(ids[arg])}" for arg in archives}
    tag = f"localhost/xgen-{name.lower()}:{_short(key)}"
    return Plan(
        recipe,
        name,
        key,
        tool,
        tag,
        tuple(load_commands(tool, path, ids[arg], base_tags[arg]) for arg, path in archives.items()),
        build_command(tool, recipe, tag, {**args, **base_tags}, {**(labels or {}), RECIPE_LABEL: key}, network),
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def load_commands(tool: Tool, archive: Path, image: str, tag: str) -> tuple[commands.Argv, ...]:
    """Put a base archive into the tool's storage under a name that FROM can say."""
    if tool == "buildah":
        return (
            ("buildah", "pull", "--quiet", f"docker-archive:{archive}"),
            ("buildah", "tag", image.removeprefix("sha256:"), tag),
        )
    return ((tool, "load", "--quiet", f"--input={archive}"), (tool, "tag", image.removeprefix("sha256:"), tag))


def build_command(
    tool: Tool, recipe: Recipe, tag: str, args: Mapping[str, str], labels: Mapping[str, str], network: str | None
) -> commands.Argv:
    return (
        tool,
        "build",
        # chroot: needs neither a runtime nor a cgroup of its own, so it builds as any user, and inside a container.
        # Docker's own format: its image ID is the one that every archive of the image has.
        *(() if tool == "docker" else ("--isolation=chroot", "--format=docker", "--layers")),
        *((f"--network={network}",) if network else ()),
        f"--tag={tag}",
        *(f"--build-arg={name}={value}" for name, value in sorted(args.items())),
        *(f"--label={name}={value}" for name, value in sorted(labels.items())),
        f"--file={recipe.folder / DOCKERFILE}",
        str(recipe.folder),
    )


def built_labels(folder: Path, now: float) -> dict[str, str]:
    """What only the build knows (OCI image-spec, annotations.md). `now` in seconds since the epoch."""
    labels = {"org.opencontainers.image.created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))}
    try:
        commit = run(("git", "-C", str(folder), "rev-parse", "HEAD"), timeout=PROBE_SECONDS).strip()
        changed = run(("git", "-C", str(folder), "status", "--porcelain", "--", "."), timeout=PROBE_SECONDS).strip()
    except ImageError:
        return labels  # no git, or no checkout
    return {**labels, "org.opencontainers.image.revision": f"{commit}+dirty" if changed else commit}


def find_built(image_dir: Path, key: str) -> Path | None:
    """Content of the newest image of this key in the image folder; None where there is none."""
    found: list[tuple[float, Path]] = []
    for place in (image_dir / STORE).glob(f"*/{RECORD}"):
        record = read_record(place)
        if record is not None and record.labels.get(RECIPE_LABEL) == key:
            found += [(record.created, path) for path in _contents(place.parent, record)[:1]]
    return max(found)[1] if found else None


def _contents(place: Path, record: ImageRecord) -> list[Path]:
    return [place / CONTENT[kind] for kind in record.formats if (place / CONTENT[kind]).exists()]


def build_image(
    recipe: Recipe,
    args: Mapping[str, str],
    name: str,
    image_dir: Path,
    formats: Sequence[Format],
    progress: Progress,
    *,
    tool: str = "auto",
    network: str | None = None,
    lock_timeout: float = LOCK_SECONDS,
    timeout: float = BUILD_SECONDS,
) -> Built:
    """The image of a recipe under `name`, built where none of its key is there; no tool is asked otherwise.

    Two at once build once: the second waits for the first, at most `lock_timeout` seconds. `timeout` in seconds, of
    the build. Raises SpecError, ImageError; a failed build leaves its log and nothing else.
    """
    name = check_name(name)
    ImageStore(image_dir).check_free(name)
    key, ids = identify_recipe(recipe, args, tool)
    there = find_built(image_dir, key)
    if there is not None:
        return Built(import_image(str(there), image_dir, formats, progress, name=name), key, False)
    chosen = choose_tool(tool)
    logs = image_dir / STORE / "building"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(Problem(str(image_dir), "", f"{error.strerror}; write --image-dir DIR")) from None
    with locked(logs / f"{_short(key)}.lock", lock_timeout, progress.say):
        there = find_built(image_dir, key)
        if there is not None:
            return Built(import_image(str(there), image_dir, formats, progress, name=name), key, False)
        labels = built_labels(recipe.folder, time.time())
        plan = make_plan(recipe, args, name, key, ids, chosen, network=network, labels=labels)
        for base in plan.bases:
            _load(plan.tool, base, timeout, progress)
        log = logs / f"{name}-{_short(key)}.log"
        with progress.step(f"build {name} from {recipe.folder} with {chosen}") as tick:
            _build(plan.build, log, timeout, progress, tick)
        imported = import_image(plan.source, image_dir, formats, progress, name=name)
        log.unlink(missing_ok=True)
        return Built(imported, key, True)


def _load(tool: Tool, base: Sequence[commands.Argv], timeout: float, progress: Progress) -> None:
    """Where it is not loaded already: the last command gives it its name."""
    if answers(commands.image_id(tool, base[-1][-1])):
        return
    with progress.step(f"load {base[-1][-1]} into {tool}") as tick:
        for argv in base:
            run(argv, timeout=timeout, tick=tick)


def _build(argv: commands.Argv, log: Path, timeout: float, progress: Progress, tick: Tick) -> None:
    """Run the tool with its output in a log, and say each step that it begins."""
    log.unlink(missing_ok=True)
    read = 0
    rest = b""

    def follow(_: int) -> None:
        nonlocal read, rest
        tick(0)
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(read)
            new = file.read()
        read += len(new)
        *lines, rest = (rest + new).split(b"\n")
        for line in lines:
            said = step_of(line.decode(errors="replace"))
            if said:
                progress.say(f"  {said}")

    shell = ("sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "sh", str(log), *argv)
    try:
        run(shell, timeout=timeout, tick=follow, env={"BUILDKIT_PROGRESS": "plain"})
    except ToolError as error:
        follow(0)
        ending = f"did not end within {timeout:.0f} s" if "did not end" in str(error) else "failed"
        raise ImageError(f"{argv[0]} build {ending}; the end of {log}:\n{_end(log)}") from None
    follow(0)


def step_of(line: str) -> str:
    """`STEP 3/9: RUN apt-get …` -> `3/9 RUN apt-get …`, in a line's length; '' for what takes no time, and all else."""
    match = _STEP.match(line)
    if match is None:
        return ""
    number, total = match["n"] or match["kit_n"], match["of"] or match["kit_of"]
    text = " ".join((match["text"] or match["kit_text"] or "").split())
    if text.partition(" ")[0].upper() not in _SLOW:
        return ""
    return f"{number}/{total} {text if len(text) <= 90 else text[:89] + '…'}"


def _end(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "  (it said nothing)"
    shown = [line if len(line) <= 300 else line[:299] + "…" for line in lines if line.strip()][-_SHOWN_LINES:]
    return "\n".join(f"  {line}" for line in shown) or "  (it said nothing)"


def _local_id(tool: Tool, image: str) -> str:
    try:
        return run(commands.image_id(tool, image), timeout=PROBE_SECONDS).strip().removeprefix("sha256:")
    except ToolError:
        raise ImageError(f"{image} is not in the storage of {tool}; load it there, or write a docker archive") from None
