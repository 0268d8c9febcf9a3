"""`python -m xgen.evals.tiny OUT`: the planted data of jobs/tiny/retrieval.yaml and evaluate.yaml."""

import sys

from xgen.data.planted import run_command
from xgen.evals.tiny.corpus import write_corpus

if __name__ == "__main__":
    sys.exit(run_command("python -m xgen.evals.tiny", __doc__, write_corpus))
