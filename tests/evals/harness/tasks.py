"""Tasks in lm-eval's YAML over sentences of Python's own documentation (PSF licence), which every Python brings."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.json, test: {folder}/{file}.json}}}}
training_split: train
test_split: test
fewshot_split: {shots_from}
output_type: multiple_choice
process_docs: !function noisy.process_docs
doc_to_text: "{{{{begin}}}}"
doc_to_choice: "{{{{ends}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
LAST_WORD = """
task: last_word
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.json, test: {folder}/test.json}}}}
training_split: train
test_split: test
output_type: loglikelihood
num_fewshot: 0
doc_to_text: "{{{{begin}}}}"
doc_to_target: " {{{{ends[gold]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
SPOKEN = """
task: spoken
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.json, test: {folder}/test.json}}}}
training_split: train
test_split: test
output_type: generate_until
num_fewshot: 2
doc_to_text: "{{{{begin}}}}"
doc_to_target: " the"
generation_kwargs: {{until: ["\\n\\n", "."], max_gen_toks: 8, do_sample: false}}
filter_list:
  - name: first
    filter:
      - {{function: regex, regex_pattern: "([a-z]+)"}}
      - {{function: take_first}}
  - name: whole
    filter:
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}}
"""
GROUP = """
group: endings
task: [endings_a, endings_b]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
"""
NOISY = """
def process_docs(docs):
    print('{"sample": {"a line": "of JSON", "that": "is none of ours"')
    return docs
"""
FAULTY = {
    "family.yaml": "group: family\ntask: [endings_a, endings_b]\n",
    "alike.yaml": GROUP.replace("endings\n", "alike\n").replace("weight_by_size: true", "weight_by_size: false"),
    "code.yaml": LAST_WORD.replace("last_word", "code") + "unsafe_code: true\n",
    "rolling.yaml": LAST_WORD.replace("last_word", "rolling").replace("loglikelihood", "loglikelihood_rolling").replace(
        "  - {{metric: acc, aggregation: mean, higher_is_better: true}}\n", ""
    ).replace("metric: perplexity, aggregation: perplexity", "metric: word_perplexity"),
    "absent.yaml": "task: absent\ndataset_path: org/absent\ntest_split: test\noutput_type: loglikelihood\n"
    "doc_to_text: '{{{{a}}}}'\ndoc_to_target: '{{{{b}}}}'\n",
    "stuck.yaml": CHOICE.replace("noisy.process_docs", "stuck.process_docs"),
    "stuck.py": "import time\n\ndef process_docs(docs):\n    time.sleep(600)\n",
}  # fmt: skip


def write_tasks(folder: Path) -> Path:
    """endings_a (24 documents) and endings_b (7), of which examples come from the test's documents; the group endings;
    last_word; spoken."""
    folder.mkdir(parents=True)
    documents = _documents()
    for name, of in (("train", documents[:12]), ("test", documents[12:36]), ("few", documents[36:43])):
        (folder / f"{name}.json").write_text(json.dumps(of))
    (folder / "noisy.py").write_text(NOISY)
    _write(folder / "endings_a.yaml", CHOICE, name="endings_a", file="test", shots_from="train")
    _write(folder / "endings_b.yaml", CHOICE, name="endings_b", file="few", shots_from="test")
    _write(folder / "last_word.yaml", LAST_WORD)
    _write(folder / "spoken.yaml", SPOKEN)
    (folder / "endings.yaml").write_text(GROUP)
    return folder


def write_faulty(folder: Path) -> Path:
    """Tasks that are refused, or never ready."""
    for name, text in FAULTY.items():
        if name in ("alike.yaml", "family.yaml") or name.endswith(".py"):
            (folder / name).write_text(text)
        else:
            _write(folder / name, text, name="stuck", file="test", shots_from="train")
    return folder


def _write(path: Path, text: str, **keys: str) -> None:
    path.write_text(text.format(folder=path.parent, **keys))


def _documents() -> list[dict[str, Any]]:
    text = re.sub(r"\s+", " ", " ".join(topics.values()))
    sentences = [one for one in re.findall(r"[A-Z][a-z][a-z ,']{40,120}\.", text) if len(one.split()) > 8]
    words = [one.rstrip(".").split() for one in dict.fromkeys(sentences)]
    draw = random.Random(3)
    documents = []
    for number in range(43):
        own = words[number]
        ends = [" ".join(draw.choice(words)[-draw.randint(1, 3) :]) for _ in range(3)]
        gold = draw.randrange(4)
        ends.insert(gold, " ".join(own[-2:]))
        documents.append({"begin": " ".join(own[:-2]), "ends": ends, "gold": gold})
    return documents
