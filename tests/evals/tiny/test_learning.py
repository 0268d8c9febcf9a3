"""What the documents are for: from them a model learns to find a number that it has never seen.

Here is the first of the two stages of jobs/tiny/retrieval.yaml, with the settings of that job. All of it, with the
evaluation of its checkpoints, is `make evaluate`; the slow test runs it on the local executor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.train.forked import Training, warm_up
from xgen.data.ingest import Recipe, build_store
from xgen.data.readers import Defaults, Keys
from xgen.evals.protocol import Prompt
from xgen.evals.ruler import Counter
from xgen.evals.subject import open_subject
from xgen.evals.tiny.documents import Domain, documents, make_tokenizer
from xgen.runs import RunDir
from xgen.spec import Evaluate, Pretrain, load_job

STEPS, NUM_ASKED = 240, 40
PLAIN = Domain("plain", "plain", 28, 40)


def _trained(folder: Path) -> RunDir:
    tokenizer, text, store = folder / "tokenizer.json", folder / "plain.jsonl", folder / "store"
    tokenizer.write_text(make_tokenizer().to_str(), encoding="utf-8")
    trained_on = documents(PLAIN, 6000, Counter.load(tokenizer), held_out=False, seed=0)
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in trained_on), encoding="utf-8")
    build_store(store, Recipe((str(text),), Defaults("plain", "tiny"), Keys(), tokenizer), workers=1)
    job = load_job(ROOT / "jobs/tiny/retrieval.yaml").job
    assert isinstance(job, Pretrain)
    spec = job.model_dump(mode="json", exclude_defaults=True)
    stage = spec["stages"][0]
    spec["data"] |= {"store": str(store), "mixtures": {"copy": {"plain": 1}}}
    spec["stages"] = [stage | {"tokens": STEPS * stage["global_batch"], "parallelism": {"fsdp": 1}}]
    spec["resources"] |= {"gpus_per_node": 1}
    spec["checkpoint"] = {"every": STEPS}
    warm_up()
    training = Training(RunDir(folder / "tiny-aaaaaa"), world_size=1)
    training.run.spec_file.write_text(yaml.safe_dump(spec))
    assert [outcome.status for outcome in training.go(timeout=300)] == ["finished"]
    return training.run


def test_a_model_learns_to_say_again_a_number_that_it_has_never_seen(tmp_path: Path) -> None:
    run = _trained(tmp_path)
    spec = {
        "spec_version": 1, "kind": "evaluate", "name": "tiny-evaluate", "resources": {"gpus_per_node": 1, "time": "5m"},
        "checkpoints": run.name, "needles": {"lengths": [256]},
    }  # fmt: skip
    subject = open_subject(Evaluate.model_validate(spec), run, STEPS, RunDir(tmp_path / "evaluate-aaaaaa"))
    counter = Counter(subject.tokenizer)
    texts = list(documents(PLAIN, NUM_ASKED, counter, held_out=True, seed=0))
    halves = [text.rpartition(" ") for text in texts]
    prompts = [Prompt(counter.encode(question), 8, subject.stop) for question, _, _ in halves]
    answers = dict(subject.model().generate(prompts))
    said = [subject.tokenizer.decode(list(answers[number].ids)).strip() for number in range(NUM_ASKED)]
    digits = [
        a == b for answer, (_, _, right) in zip(said, halves, strict=True) for a, b in zip(answer, right, strict=False)
    ]
    assert sum(digits) / (8 * NUM_ASKED) > 0.6, said  # of 7 digits and a full stop; by chance 0.2


@pytest.mark.slow
def test_make_evaluate_shows_all_that_it_is_to_show_on_the_local_executor(tmp_path: Path) -> None:
    profile = (ROOT / "slurm/clusters/local.yaml").read_text().replace("run_root: runs", f"run_root: {tmp_path}/runs")
    (tmp_path / "local.yaml").write_text(profile.replace(".venv/bin/python", sys.executable))
    options = ["--cluster", str(tmp_path / "local.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/tiny/evaluate.py"), *options], capture_output=True, text=True, timeout=2400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  yes: ") == 5 and "NO: " not in done.stdout
    assert (tmp_path / "out/results.md").is_file()
