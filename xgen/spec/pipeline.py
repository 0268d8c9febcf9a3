"""The kind `pipeline`: job specs that follow one another. A value that one hands to another makes it wait."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Strict, nearest

How = Literal["ok", "any"]
SELF = "self"  # the step itself, where a step is named
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_LONGEST = 48  # of a run's name without its id, which is PIPELINE-STEP
_REFERENCE = re.compile(r"(?<!\$)\$\{([^}]*)\}")
_PARTS = re.compile(r"(?P<step>[a-z0-9-]+)\.(?P<value>[a-z0-9_]+)")


class Step(Strict):
    """One job spec, with what it takes from other steps."""

    spec: str = Field(description="a job spec; a relative path begins at the project's root")
    set: dict[str, Any] = Field(
        default={},
        description="keys of it, as --set has them. ${STEP.VALUE} is a value of another step, which this one then "
        "waits for; ${self.path} is the folder of its own run",
    )
    after: dict[str, How] = Field(
        default={}, description="further steps to wait for: ok, until it has finished; any, however it ended"
    )

    @field_validator("after", mode="before", json_schema_input_type=str | list[str] | dict[str, How])
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        return dict.fromkeys(names, "ok") if isinstance(names, list) and all(map(_is_text, names)) else value

    @property
    def needs(self) -> dict[str, How]:
        """Every step that this one waits for. One whose value it takes must have finished, unless `after` says any."""
        referred = dict.fromkeys(step for step, _ in references(self.set) if step != SELF)
        return {**dict.fromkeys(referred, "ok"), **self.after}


class Pipeline(Strict):
    """Steps in the order of what each needs; those that do not wait for each other run side by side."""

    spec_version: Literal[1] = 1
    kind: Literal["pipeline"]
    name: str = Field(description="lower case letters, digits and dashes; a step's run is <name>-<step>-<6 characters>")
    cluster: str | None = Field(default=None, description="name of a cluster profile, for all steps")
    steps: dict[str, Step] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            fixed = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:32].strip("-") or "my-pipeline"
            raise ValueError(f"{value!r} has other characters than a-z, 0-9 and '-', or is too long; write {fixed}")
        return value

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        for name, step in self.steps.items():
            self._check_name(name)
            for value in step.set.values():
                for text in _wrong_references(value):
                    raise ValueError(
                        f"steps.{name}.set: ${{{text}}} names no value of a step; write ${{STEP.VALUE}}, "
                        f"or $${{{text}}} for the text itself"
                    )
            for other in step.needs:
                if other not in self.steps:
                    raise ValueError(f"steps.{name}: {other!r} is no step; {nearest(other, self.steps)}")
        if circle := _circle({name: list(step.needs) for name, step in self.steps.items()}):
            raise ValueError(f"steps: {' waits for '.join(circle)}: none could begin; take one of these out")
        return self

    def _check_name(self, name: str) -> None:
        if name == SELF or not _NAME.fullmatch(name):
            raise ValueError(f"steps.{name} is no name of a step; write a-z, 0-9 and '-', 32 at most, and not `self`")
        if (much := len(f"{self.name}-{name}") - _LONGEST) > 0:
            raise ValueError(
                f"steps.{name}: its run would be called {self.name}-{name}, which is {much} characters too long; "
                f"write a shorter name of the step or of the pipeline, {_LONGEST} together"
            )

    @property
    def order(self) -> list[str]:
        """The steps, none before one that it needs, else as they are written."""
        return in_order({name: list(step.needs) for name, step in self.steps.items()})


def in_order(needs: Mapping[str, list[str]]) -> list[str]:
    """Keys, none before one that it needs. There is no circle."""
    found: dict[str, None] = {}
    for name in needs:
        stack = [name]
        while stack:
            if stack[-1] in found:
                stack.pop()
            elif missing := [other for other in needs[stack[-1]] if other not in found]:
                stack += reversed(missing)
            else:
                found[stack.pop()] = None
    return list(found)


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Step and name of each value that stands in a text of it, however deep."""
    for text in _texts(value):
        for inner in _REFERENCE.findall(text):
            if found := _PARTS.fullmatch(inner):
                yield found["step"], found["value"]


def fill_in(value: Any, values: Mapping[tuple[str, str], str]) -> Any:
    """The same with values in place of references."""
    match value:
        case str():
            filled = _REFERENCE.sub(lambda found: values[_split(found[1])], value)
            return filled.replace("$${", "${")
        case list():
            return [fill_in(one, values) for one in value]
        case dict():
            return {key: fill_in(one, values) for key, one in value.items()}
    return value


def _split(inner: str) -> tuple[str, str]:
    found = _PARTS.fullmatch(inner)
    assert found, inner  # the model was checked
    return found["step"], found["value"]


def _wrong_references(value: Any) -> Iterator[str]:
    for text in _texts(value):
        yield from (inner for inner in _REFERENCE.findall(text) if not _PARTS.fullmatch(inner))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)


def _circle(needs: Mapping[str, list[str]]) -> list[str]:
    """Steps that wait for each other, the first once more at the end; [] where there are none."""
    left = dict(needs)
    while ready := [name for name, others in left.items() if not any(other in left for other in others)]:
        for name in ready:
            del left[name]
    if not left:
        return []
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(next(other for other in left[path[-1]] if other in left))
    return path[path.index(path[-1]) :]


def _is_text(value: object) -> bool:
    return isinstance(value, str)
