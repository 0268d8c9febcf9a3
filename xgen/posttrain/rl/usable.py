"""Whether the rewards can say anything at all, before the first answer is generated. No torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import islice

from xgen.data.chat.prompts import PromptSource
from xgen.posttrain.rewards import Task
from xgen.posttrain.rewards.jobs import job_of
from xgen.posttrain.rewards.verify.reply import Reply
from xgen.runs import Refused
from xgen.spec import Rl
from xgen.spec.rewards import Function, Math
from xgen.spec.units import format_bytes

_TRIED = 64  # prompts of a source
_IMPORT = """\
import resource, sys
from xgen.posttrain.rewards.verify.function import imported
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
imported(sys.argv[1])
"""


def check_rewards(job: Rl, sources: Mapping[str, PromptSource]) -> None:
    """Raises Refused for a function that cannot be imported, a package that is missing, and a source of which no
    prompt has what its reward goes by."""
    for source in sources.values():
        for reward in job.rewards_of(source.name):
            at = f"rewards.{source.name}"
            if isinstance(reward, Function):
                _check_import(at, reward.function, job.verification.limits.memory)
            if isinstance(reward, Math) and find_spec("math_verify") is None:
                raise Refused(f"{at}: math needs math-verify, which is not installed; write pip install 'xgen[rl]'")
            said = [
                job_of(reward, Task(source.name, (reward,), prompt.text, "", 0, prompt.record), 1.0)
                for prompt in islice(source.prompts, _TRIED)
            ]
            lacking = [one.detail for one in said if isinstance(one, Reply) and one.failure]
            if lacking and len(lacking) == len(said):
                raise Refused(f"{at}: {reward.kind} can judge none of the first {len(said)} prompts: {lacking[0]}")


def _check_import(at: str, function: str, memory: int) -> None:
    """In a process of its own, which has `memory` bytes as a verdict has: the user's code is not the trainer's."""
    try:
        command = [sys.executable, "-c", _IMPORT, function, str(memory)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise Refused(
            f"{at}: {function} cannot be imported: {why}; write it into the project that the spec lies in, where git "
            f"knows it, or install it in the image; it has verification.limits.memory, {format_bytes(memory)}"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{at}: importing {function} takes more than two minutes; make it quicker") from None
