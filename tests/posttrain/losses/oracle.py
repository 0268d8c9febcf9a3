"""TRL's own trainers around transformers' Llama, as the oracle of our losses. Nothing of TRL is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
VOCAB = 512
_COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
_PREFERENCE = {"prompt": ["t5 t6"], "chosen": ["t7"], "rejected": ["t8"]}  # a trainer must be given a data set


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="t2", pad_token="t0", unk_token="t1")


def dpo(model: Any, reference: Any, folder: Path, **settings: Any) -> Any:
    import datasets
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(output_dir=str(folder), **_COMMON, **settings)
    data = datasets.Dataset.from_dict(_PREFERENCE)
    return DPOTrainer(model, reference, args, train_dataset=data, processing_class=tokenizer())


def cpo(model: Any, folder: Path, **settings: Any) -> Any:
    """The one of TRL's trainers that knows SimPO."""
    import datasets
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    args = CPOConfig(output_dir=str(folder), max_length=64, **_COMMON, **settings)
    data = datasets.Dataset.from_dict(_PREFERENCE)
    return CPOTrainer(model, args, train_dataset=data, processing_class=tokenizer())


def sft(model: Any, folder: Path) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(output_dir=str(folder), **_COMMON)
    data = datasets.Dataset.from_dict({"prompt": ["t5"], "completion": ["t6"]})
    return SFTTrainer(model, args, train_dataset=data, processing_class=tokenizer())


def grpo(model: Any, folder: Path, rollout: dict[str, Any], rewards: list[float | None], **settings: Any) -> Any:
    """Its answers, and what their sampler thought of them, come from `rollout`. It corrects for a sampler as it does
    with vLLM, where `vllm_importance_sampling_mode` is given; the reference is what `folder / "reference"` holds."""
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    num = len(rewards)
    group = settings.pop("num_generations")
    args = GRPOConfig(
        output_dir=str(folder), num_generations=group, per_device_train_batch_size=num, num_iterations=2,
        steps_per_generation=1, temperature=1.0, **_COMMON, **settings,
    )  # fmt: skip
    model.config._name_or_path = str(folder / "reference")
    trainer = GRPOTrainer(
        model,
        lambda **_: rewards,
        args,
        datasets.Dataset.from_dict({"prompt": ["t5"] * num}),
        processing_class=tokenizer(),
        rollout_func=lambda *_: rollout,
    )
    trainer.current_gradient_accumulation_steps = 1  # as its training loop sets it
    if "vllm_importance_sampling_mode" in settings:
        # What vLLM would be asked for is in `rollout`: nothing is to be started.
        trainer.use_vllm, trainer._last_loaded_step = True, 0
    return trainer


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
