"""torchtitan is imported without what we never call, and nothing is lost by it. Each case has its own interpreter."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from tests.conftest import ROOT

on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="an accelerator compiles")


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_what_a_training_never_calls_is_not_loaded_and_can_still_be() -> None:
    said = python("""
        import sys
        import xgen.model, xgen.train.config
        print([name for name in ("datasets", "pandas", "tensorboard", "aiohttp") if name in sys.modules])
        from torchtitan.hf_datasets import text_datasets
        import datasets
        print(text_datasets.load_dataset is not datasets.load_dataset, datasets.load_dataset.__module__)
    """)
    assert said == "[]\nTrue datasets.load\n"


def test_a_name_taken_from_a_stand_in_loads_the_real_one_when_it_is_called() -> None:
    said = python("""
        import sys, tempfile
        import xgen.model
        from torchtitan.components.metrics import SummaryWriter
        from torchtitan.hf_datasets.text_datasets import Dataset
        assert not isinstance(1, Dataset) and "tensorboard" not in sys.modules
        writer = SummaryWriter(tempfile.mkdtemp())
        writer.close()
        import torch.utils.tensorboard
        print(type(writer) is torch.utils.tensorboard.SummaryWriter)
    """)
    assert said.endswith("True\n")


@on_cpu
def test_on_a_cpu_the_compiler_stays_out_until_it_is_asked_for() -> None:
    said = python("""
        import sys
        import torch, xgen.model, xgen.train.config
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        print([name for name in ("torch._dynamo.eval_frame", "torch._inductor", "networkx") if name in sys.modules])
        stand_in = sys.modules["torch._dynamo"]
        compiled = torch.compile(lambda x: torch.sin(x) + 1, backend="eager")
        print(torch.equal(compiled(torch.ones(3)), torch.sin(torch.ones(3)) + 1))
        print(sys.modules["torch._dynamo"] is not stand_in, torch._dynamo.config is sys.modules["torch._dynamo.config"])
        optimizer.step()
        from torchtitan.models.common.attention import FlexAttention
        from torchtitan.distributed.activation_checkpoint import get_default_op_list
        print(len(get_default_op_list().__dict__) > 0, torch._inductor.config.max_autotune)
    """)
    assert said == "[]\nTrue\nTrue True\nTrue False\n"


@on_cpu
@pytest.mark.parametrize(
    ("part", "name"), [("eval_frame", "optimize"), ("decorators", "graph_break"), ("config", "__name__")]
)
def test_a_part_of_the_compiler_is_loaded_once(part: str, name: str) -> None:
    said = python(f"""
        import xgen.model
        import torch._dynamo.{part} as part
        import torch._dynamo
        of_package = torch._dynamo.config if "{part}" == "config" else torch._dynamo
        print(part.__spec__.origin.endswith("{part}.py"), getattr(of_package, "{name}") == part.{name})
    """)
    assert said == "True True\n"


def test_where_torchtitan_needs_more_of_a_package_it_is_imported_as_it_is() -> None:
    said = python("""
        import sys, types
        sys.modules["xgen.model"] = package = types.ModuleType("xgen.model")  # its own import would come first
        package.__path__ = ["xgen/model"]
        from xgen.model import device, lean
        lean._UNUSED += ("torchtitan.components.dataloader",)  # whose classes others inherit from
        lean.import_torchtitan(on_cpu=device.ON_CPU)
        import torchtitan.trainer
        print("datasets" in sys.modules, isinstance(torchtitan.trainer.BaseDataLoader, lean._Late))
    """)
    assert "torchtitan is not as expected" in said
    assert "True False\n" in said


def test_with_an_accelerator_torchtitan_compiles_as_ever() -> None:
    said = python("""
        import sys, types
        sys.modules["xgen.model"] = package = types.ModuleType("xgen.model")  # its own import would come first
        package.__path__ = ["xgen/model"]
        from xgen.model import lean
        lean.import_torchtitan(on_cpu=False)
        from torch.nn.attention.flex_attention import flex_attention
        from torchtitan.models.common.attention import FlexAttention
        print(FlexAttention._compiled_flex_attn is not flex_attention, isinstance(sys.modules["torch._dynamo"],
              lean._DynamoStandIn), [name for name in ("datasets", "tensorboard") if name in sys.modules])
    """)
    assert "True False []" in said.splitlines()  # torchao warns of itself
