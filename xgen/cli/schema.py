"""`xgen schema`: the JSON schema of a job spec, of a pipeline, or of a cluster profile."""

from __future__ import annotations

from typing import Annotated

import typer

from xgen.cli.common import print_json


def command(
    profile: Annotated[
        bool, typer.Option("--cluster-profile", help="The schema of a cluster profile instead.")
    ] = False,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="The schema of a pipeline instead.")] = False,
) -> None:
    """Print the JSON schema of a job spec, for editors and other programs.

    VS Code with the YAML extension: save it and add `# yaml-language-server: $schema=FILE` to a spec.
    """
    from xgen.spec.schema import job_schema, pipeline_schema, profile_schema

    print_json(profile_schema() if profile else pipeline_schema() if pipeline else job_schema())
