"""Secrets on their way from the person who submits to the tasks: sealed in the run directory, never in plain text.

The values lie encrypted (Fernet) in a file of mode 0600 that the end of the run removes. The key travels in the job's
environment, which SLURM keeps and gives to every attempt and successor. Neither is worth anything alone: a run
directory that is copied or a job record that is dumped gives nothing away.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from xgen.runs import Refused, RunDir, write_atomic
from xgen.spec import Job, Problem, Secret, SpecError

KEY_VARIABLE = "XGEN_SECRETS_KEY"
_COMMAND_TIMEOUT = 60  # seconds; a password manager may ask for a finger
_brought: dict[str, str] = {}  # by whoever asked for this command from another machine


def bring(values: Mapping[str, str]) -> None:
    """Values for this process, by `source_of` what they are: they are not looked for here."""
    _brought.update(values)


def source_of(secret: Secret) -> str:
    return secret.model_dump_json(exclude_none=True)


def read_secrets(job: Job) -> dict[str, str]:
    """The values, from where the spec says. Raises SpecError that names the key and never a value."""
    values, problems = {}, []
    for name, secret in job.secrets.items():
        try:
            value = read_secret(secret)
            if not value or "\0" in value:
                raise ValueError("gives nothing" if not value else "gives a NUL, which no environment can hold")
            values[name] = value
        except (OSError, ValueError) as error:
            kind = next(k for k in ("env", "file", "command") if getattr(secret, k) is not None)
            problems.append(Problem("", f"secrets.{name}.{kind}", str(error)))
    if problems:
        raise SpecError(*problems)
    return values


def read_secret(secret: Secret) -> str:
    """Raises OSError or ValueError, which say nothing of the value."""
    if (brought := _brought.get(source_of(secret))) is not None:
        return brought
    if secret.env is not None:
        value = os.environ.get(secret.env)
        if value is None:
            raise ValueError(f"{secret.env} is not set here; write export {secret.env}=… first")
        return value
    if secret.file is not None:
        with Path(secret.file).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise ValueError(
                    f"{secret.file} is open to others (mode {mode & 0o777:o}); write chmod 600 {secret.file}"
                )
            return file.read().removesuffix("\n")
    assert secret.command is not None
    try:
        done = subprocess.run(
            secret.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{secret.command[0]} did not answer within {_COMMAND_TIMEOUT} s") from None
    if done.returncode:
        raise ValueError(f"{secret.command[0]} exited with {done.returncode}")
    return done.stdout.decode().removesuffix("\n")


def seal(values: dict[str, str], run: RunDir) -> str:
    """Write them to the run directory. Returns the key, '' when there is nothing to seal."""
    if not values:
        return ""
    from cryptography.fernet import Fernet  # 30 ms, for jobs with secrets only

    key = Fernet.generate_key()
    write_atomic(_file(run), Fernet(key).encrypt(json.dumps(values).encode()).decode(), mode=0o600)
    return key.decode()


def unseal(run: RunDir, key: str) -> dict[str, str]:
    """What `seal` wrote. Raises Refused when file and key do not belong together: no other try would help."""
    from cryptography.fernet import Fernet, InvalidToken

    try:
        values: dict[str, str] = json.loads(Fernet(key).decrypt(_file(run).read_bytes()))
    except (OSError, InvalidToken, ValueError) as error:
        said = "is not of this submission" if isinstance(error, InvalidToken | ValueError) else str(error)
        raise Refused(f"the run's secrets cannot be opened: {_file(run).name} {said}; write xgen resume") from None
    return values


def _file(run: RunDir) -> Path:
    return run.path / ".secrets"
