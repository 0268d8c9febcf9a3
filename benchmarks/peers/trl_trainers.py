"""TRL's trainers on a folder of the benchmark: `python trl_trainers.py sft|dpo|grpo FOLDER TURN [by-length]`.

Runs in the peers' environment, which has nothing of xgen. FOLDER holds a model, a tokenizer with its chat template, and
records. For every line on stdin it does TURN steps and prints `TURN {"seconds": [of each step, CPU time], …}`. Gradient
checkpointing is off, and the log-probabilities of DPO's reference are computed once: its defaults would be slower.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
    "logging_strategy": "no", "save_strategy": "no", "learning_rate": 1e-5, "max_steps": 1_000_000,
    "lr_scheduler_type": "constant", "optim": "adamw_torch",
}  # fmt: skip


def main() -> None:
    kind, folder, turn = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    torch.set_num_threads(1)
    import transformers

    settings = json.loads((folder / "settings.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    records = [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]
    trainer = {"sft": sft, "dpo": dpo, "grpo": grpo}[kind](model, tokenizer, records, folder / "trl", settings)
    trainer.add_callback(make_turns(turn, trainer))
    trainer.train()


def sft(model: Any, tokenizer: Any, records: list[Any], out: Path, settings: dict[str, Any]) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=settings["records"],
        assistant_only_loss=True,
        train_sampling_strategy="group_by_length" if "by-length" in sys.argv else "random",
        **COMMON,
    )
    return SFTTrainer(model, args, train_dataset=datasets.Dataset.from_list(records), processing_class=tokenizer)


def dpo(model: Any, tokenizer: Any, records: list[Any], out: Path, settings: dict[str, Any]) -> Any:
    import datasets
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=settings["records"] // 2,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=8,
        **COMMON,
    )
    return DPOTrainer(model, None, args, train_dataset=datasets.Dataset.from_list(records), processing_class=tokenizer)


def grpo(model: Any, tokenizer: Any, records: list[Any], out: Path, settings: dict[str, Any]) -> Any:
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    num = settings["prompts"] * settings["group"]
    args = GRPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=num,
        num_generations=settings["group"],
        max_completion_length=settings["max_tokens"],
        temperature=1.0,
        loss_type="dapo",
        epsilon_high=0.28,
        **COMMON,
    )
    trainer = GRPOTrainer(
        model,
        has_even_length,
        args,
        train_dataset=datasets.Dataset.from_list(records),
        processing_class=tokenizer,
    )
    generate = trainer._generate_single_turn

    def timed(*arguments: Any, **keywords: Any) -> Any:
        began = time.process_time()
        found = generate(*arguments, **keywords)
        trainer.generating = getattr(trainer, "generating", 0.0) + time.process_time() - began
        trainer.generated = getattr(trainer, "generated", 0) + sum(map(len, found[0]))
        return found

    trainer._generate_single_turn = timed
    return trainer


def has_even_length(completions: list[Any], **_: Any) -> list[float]:
    """Costs nothing, and answers differ in it."""
    return [float(len(one[0]["content"]) % 2 == 0) for one in completions]


def make_turns(turn: int, trainer: Any) -> Any:
    import transformers

    class Turns(transformers.TrainerCallback):
        """Waits for a line before every TURN steps."""

        def __init__(self) -> None:
            self.steps: list[float] = []
            self.began, self.tokens = 0.0, 0

        def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step % turn == 0:
                if state.global_step:
                    self.tell()
                if not sys.stdin.readline():
                    os._exit(0)
                self.began = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.process_time()
            self.steps.append(now - self.began)
            self.began = now

        def tell(self) -> None:
            high = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
            assert high
            said = {
                "seconds": self.steps,
                "tokens": trainer._total_train_tokens - self.tokens,
                "memory": int(high[1]) / 1024,
                "generating": getattr(trainer, "generating", 0.0),
                "generated": getattr(trainer, "generated", 0),
            }
            trainer.generating, trainer.generated = 0.0, 0
            self.tokens = trainer._total_train_tokens
            print(f"TURN {json.dumps(said)}", flush=True)
            self.steps = []

    return Turns()


if __name__ == "__main__":
    main()
