"""The files of the corpus: a tokenizer, documents to train on, and others to hold out."""

from __future__ import annotations

import json
from pathlib import Path

from xgen.data.staging import exclusive, staged
from xgen.evals.ruler.tokens import Counter
from xgen.evals.tiny.documents import Domain, documents, make_tokenizer

VERSION = 1  # raised when the same seed gives other files
MARK_FILE = "corpus.json"
# By part, what is drawn and how many documents of it.
_PARTS = {
    "train": {
        Domain("plain", "plain", 28, 40): 6000,
        Domain("keyed", "keyed", 28, 128): 5000,
        Domain("far", "keyed", 40, 512): 4000,
        Domain("asked", "asked", 100, 512): 6000,
    },
    "held-out": {Domain("short", "asked", 250, 300): 64, Domain("long", "asked", 2100, 2200): 32},
}


def write_corpus(out: Path, seed: int = 0, share: float = 1.0) -> None:
    """Write it into `out`, which appears whole; does nothing where it is there. `share`: of the documents to train on.

    Raises OSError, StoreError.
    """
    mark = {"version": VERSION, "seed": seed, "share": share}
    with exclusive(out, 60):
        if (out / MARK_FILE).is_file() and json.loads((out / MARK_FILE).read_bytes()) == mark:
            return
        with staged(out) as folder:
            tokenizer = make_tokenizer()
            (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            counter = Counter(tokenizer)
            for part, domains in _PARTS.items():
                (folder / part).mkdir()
                for domain, count in domains.items():
                    wanted = round(share * count) if part == "train" else count
                    texts = documents(domain, wanted, counter, held_out=part == "held-out", seed=seed)
                    rows = (json.dumps({"text": text, "domain": domain.name}) + "\n" for text in texts)
                    (folder / part / f"{domain.name}.jsonl").write_text("".join(rows), encoding="utf-8")
            (folder / MARK_FILE).write_text(json.dumps(mark) + "\n")
