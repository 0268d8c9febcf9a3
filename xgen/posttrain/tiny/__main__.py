"""`python -m xgen.posttrain.tiny OUT`: the planted data of jobs/tiny/sft.yaml, dpo.yaml and grpo.yaml."""

import sys

from xgen.data.planted import run_command
from xgen.posttrain.tiny.corpus import write_corpus

if __name__ == "__main__":
    sys.exit(run_command("python -m xgen.posttrain.tiny", __doc__, write_corpus))
