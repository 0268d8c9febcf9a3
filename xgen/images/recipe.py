"""An image's recipe: a folder with a Dockerfile. What it is built from, and the key that says whether that changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xgen.images.resolve import image_id
from xgen.images.treehash import tree_digest
from xgen.spec.errors import Problem, SpecError
from xgen.spec.load import project_root

DOCKERFILE = "Dockerfile"
RECIPE_LABEL = "xgen.recipe"  # of an image: the key of what it was built from
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY)", re.IGNORECASE)
# Every builder knows these without an ARG line, and leaves them out of the image.
_PREDEFINED = {name for word in ("http", "https", "ftp", "no") for name in (f"{word}_proxy", f"{word}_proxy".upper())}


@dataclass(frozen=True)
class From:
    """One FROM line: `image` with its variables as written."""

    image: str
    stage: str  # '' without AS


@dataclass(frozen=True)
class Dockerfile:
    """The part of a Dockerfile that decides what it starts from. Read, not run: heredocs may not hold FROM lines."""

    froms: tuple[From, ...]
    global_args: dict[str, str]  # before the first FROM, with their defaults
    args: frozenset[str]  # all that are declared anywhere

    def base_args(self) -> set[str]:
        """The arguments that say what an image is built from."""
        return {name for line in self.froms for name in _names(line.image)} & set(self.global_args)

    def bases(self, args: Mapping[str, str]) -> list[str]:
        """The images that it starts from, without its own stages."""
        values = {**self.global_args, **{k: v for k, v in args.items() if k in self.global_args}}
        stages = {line.stage for line in self.froms if line.stage}
        found = [_filled(line.image, values) for line in self.froms]
        return [image for image in dict.fromkeys(found) if image not in stages and image != "scratch"]


@dataclass(frozen=True)
class Recipe:
    name: str
    folder: Path
    dockerfile: Dockerfile


def find_recipe(text: str | None, start: Path) -> Recipe:
    """A folder, or a name in docker/ of the project around `start`. Raises SpecError that lists what there is."""
    shelf = project_root(start.resolve()) / "docker"
    known = sorted(place.parent.name for place in shelf.glob(f"*/{DOCKERFILE}"))
    named = f"write a folder with a {DOCKERFILE}, or one of {', '.join(known) or 'none: there is no docker/ here'}"
    if text is None:
        raise SpecError(Problem("", "RECIPE", f"none named; {named}"))
    folder = (start / text).resolve() if "/" in text or text.startswith(".") else shelf / text
    file = folder / DOCKERFILE
    if not file.is_file():
        raise SpecError(Problem("", "RECIPE", f"{text!r}: {file} is not there; {named}"))
    dockerfile = parse_dockerfile(file.read_text(encoding="utf-8"))
    if not dockerfile.froms:
        raise SpecError(Problem(str(file), "", "has no FROM line; write what the image starts from"))
    return Recipe(folder.name, folder, dockerfile)


def parse_dockerfile(text: str) -> Dockerfile:
    """FROM and ARG lines (docs.docker.com/reference/dockerfile); lines that end in a backslash go on."""
    froms: list[From] = []
    global_args: dict[str, str] = {}
    args: set[str] = set()
    for verb, rest in instructions(text):
        if verb == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            stage = words[2] if len(words) == 3 and words[1].upper() == "AS" else ""
            froms.append(From(words[0] if words else "", stage))
        elif verb == "ARG":
            for word in rest.split():
                name, _, default = word.partition("=")
                args.add(name)
                if not froms:
                    global_args[name] = default.strip("\"'")
    return Dockerfile(tuple(froms), global_args, frozenset(args))


def instructions(text: str) -> list[tuple[str, str]]:
    """(`RUN`, what follows), comments and line ends taken out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(verb.upper(), rest.strip()) for verb, _, rest in pairs]


def parse_args(recipe: Recipe, pairs: Sequence[str]) -> dict[str, str]:
    """`K=V` -> {K: V}, each an ARG of the recipe. Raises SpecError."""
    args: dict[str, str] = {}
    problems = []
    known = ", ".join(sorted(recipe.dockerfile.args)) or "none"
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            problems.append(Problem("", "--arg", f"{pair!r} is no KEY=VALUE; write e.g. --arg WITH_TORCH=1"))
        elif _SECRET.search(name):
            problems.append(Problem("", "--arg", f"{name} would stay in the image's history; mount secrets into a job"))
        elif name not in recipe.dockerfile.args | _PREDEFINED:
            problems.append(Problem("", "--arg", f"{name} is no ARG of {recipe.folder / DOCKERFILE}; it has: {known}"))
        else:
            args[name] = value
    if problems:
        raise SpecError(*problems)
    return args


def local_bases(recipe: Recipe, args: Mapping[str, str]) -> dict[str, Path]:
    """The base arguments whose value is a file: argument -> archive. Raises SpecError for one that is not there."""
    found = {}
    for name in sorted(recipe.dockerfile.base_args() & set(args)):
        value = args[name]
        if value.endswith(".tar") or value.startswith(("/", "./", "../")):
            if not Path(value).is_file():
                message = f"{name}={value} is not there; write a docker archive, or REGISTRY/NAME:TAG"
                raise SpecError(Problem("", "--arg", message))
            found[name] = Path(value)
    return found


def base_id(archive: Path) -> str:
    """The ID of the image in an archive. Raises SpecError."""
    try:
        return image_id(archive)
    except (OSError, ValueError) as error:
        raise SpecError(Problem("", "--arg", str(error))) from None


def recipe_key(recipe: Recipe, args: Mapping[str, str], base_ids: Mapping[str, str]) -> str:
    """'sha256:…' of every file of the recipe, the arguments and the bases that lie here. The tool has no part in it.

    `base_ids`: base -> its digest, for those that a registry does not say. A base archive counts by its content,
    whatever it is called.
    """
    total = hashlib.sha256(tree_digest(recipe.folder, lambda _: None).encode())
    for kind, values in (("arg", args), ("base", base_ids)):
        for name, value in sorted(values.items()):
            total.update(f"\n{kind} {len(name)} {name}={len(value)} {value}".encode())
    return f"sha256:{total.hexdigest()}"


def _names(text: str) -> set[str]:
    return {match[1] or match[3] for match in _VARIABLE.finditer(text)}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[3]) or match[2] or "", text)
