"""Weights and config.json between torchtitan's form and Hugging Face's, both ways."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.model.parity import SMALL, hugging_face, titan, titan_logits
from xgen.model.hf import Context, HuggingFaceError, config_json, from_hf, hf_name, import_hf, parameter_shapes, to_hf
from xgen.model.shards import plan_shards, write_shards
from xgen.spec import ModelSpec, RopeScaling

LENGTH = 128
CONTEXT = Context(LENGTH, 1e6, RopeScaling(factor=4, original=32), "float32", eos=0)


def spec_of(folder: Path, **sizes: Any) -> ModelSpec:
    return ModelSpec(**SMALL | {"num_kv_heads": 2, "name": folder.name} | sizes)


def write(folder: Path, spec: ModelSpec, state: dict[str, torch.Tensor], max_bytes: int = 10**9) -> None:
    names = {hf_name(name): name for name in parameter_shapes(spec)}
    shapes = {found: tuple(state[name].shape) for found, name in names.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json(spec, CONTEXT)))
    dtype = state["norm.weight"].dtype
    write_shards(folder, shapes, dtype, lambda found: to_hf(names[found], state[names[found]], spec), max_bytes)


def any_bits(spec: ModelSpec, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every bit drawn at random: infinities and NaNs of any kind are among them."""
    torch.manual_seed(3)
    return {
        name: torch.randint(256, (*shape[:-1], shape[-1] * dtype.itemsize), dtype=torch.uint8).view(dtype)
        for name, shape in parameter_shapes(spec).items()
    }


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_bytes", [10**9, 20_000], ids=["one file", "shards"])
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, qk_norm: bool, dtype: torch.dtype, max_bytes: int) -> None:
    folder = tmp_path / "model"
    spec = spec_of(folder, qk_norm=qk_norm)
    state = any_bits(spec, dtype)
    write(folder, spec, state, max_bytes)
    found, back = import_hf(folder)
    assert found == spec
    assert list(back) == list(state)
    assert all(torch.equal(state[name].view(torch.uint8), back[name].view(torch.uint8)) for name in state)
    assert {tensor.dtype for tensor in back.values()} == {dtype}


def test_names_and_layout_are_those_of_torchtitans_own_adapter() -> None:
    from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter

    spec = ModelSpec(**SMALL | {"num_kv_heads": 2})
    model: Any = titan(spec, LENGTH)
    expected = Llama3StateDictAdapter(model.config, None).to_hf(model.state_dict())
    state = model.state_dict()
    ours = {hf_name(name): to_hf(name, state[name], spec) for name in parameter_shapes(spec)}
    assert {name: tuple(t.shape) for name, t in state.items()} == parameter_shapes(spec)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_model_that_transformers_saved_computes_the_same_here(tmp_path: Path, qk_norm: bool) -> None:
    torch.manual_seed(5)
    folder = tmp_path / "theirs"
    spec = spec_of(folder, qk_norm=qk_norm)
    theirs = hugging_face(spec, titan(spec, LENGTH).state_dict(), CONTEXT)
    theirs.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    found, state = import_hf(folder)
    assert found == spec
    ours = titan(spec, LENGTH, CONTEXT.rope_theta, CONTEXT.rope_scaling, seed=9)
    ours.load_state_dict(state, strict=True)
    tokens = torch.randint(spec.vocab_size, (1, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(titan_logits(ours, tokens), theirs(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_transformers_finds_every_tensor_in_our_shards(tmp_path: Path, qk_norm: bool) -> None:
    import transformers

    folder = tmp_path / "ours"
    spec = spec_of(folder, qk_norm=qk_norm)
    state = titan(spec, LENGTH).state_dict()
    write(folder, spec, state, max_bytes=50_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    found = model.state_dict()
    assert len(found) == len(state)
    assert all(torch.equal(found[hf_name(name)], to_hf(name, state[name], spec)) for name in state)


def test_norms_of_queries_and_keys_change_places_with_their_rows() -> None:
    spec = ModelSpec(**SMALL)
    norm = torch.arange(16.0)
    name = "layers.1.attention.q_norm.weight"
    there = to_hf(name, norm, spec)
    assert there.tolist() == [*range(0, 16, 2), *range(1, 16, 2)]
    assert torch.equal(from_hf(name, there, spec), norm)


def test_config_says_how_positions_turn_to_old_readers_too() -> None:
    spec = ModelSpec(**SMALL)
    config = config_json(spec, CONTEXT)
    assert config["rope_parameters"] == config["rope_scaling"]
    assert config["rope_scaling"]["attention_factor"] == 1.0
    plain = config_json(spec, Context(LENGTH, 1e6, None, "bfloat16", eos=7))
    assert (plain["rope_theta"], plain["rope_scaling"], plain["eos_token_id"]) == (1e6, None, 7)
    assert plain["bos_token_id"] is None


def test_transformers_reads_every_fact_of_our_config(tmp_path: Path) -> None:
    import transformers

    for qk_norm in (False, True):
        spec = ModelSpec(**SMALL | {"qk_norm": qk_norm, "norm_eps": 1e-6})
        content = config_json(spec, CONTEXT)
        (tmp_path / "config.json").write_text(json.dumps(content))
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        there = {**config.to_dict(), "rope_theta": 1e6, "rope_scaling": config.rope_parameters, "dtype": "float32"}
        assert config.dtype == torch.float32
        assert {key: there.get(key) for key in content} == content


sizes = st.dictionaries(st.text(min_size=1), st.integers(0, 60), min_size=1)


@given(sizes, st.integers(1, 80))
def test_shards_hold_every_tensor_once_in_order_and_no_more_than_fits(sizes: dict[str, int], most: int) -> None:
    shards = plan_shards(sizes, most)
    assert [name for shard in shards for name in shard] == list(sizes)
    assert all(shard for shard in shards)
    assert all(sum(sizes[name] for name in shard) <= most or len(shard) == 1 for shard in shards)
    # No shard could have taken the first tensor of the next.
    for shard, after in itertools.pairwise(shards):
        assert sum(sizes[name] for name in shard) + sizes[after[0]] > most


def _config(**changed: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changed
        (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))

    return change


def _truncate(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-10])


def _index(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def _drop_a_shard_from_the_index(folder: Path) -> None:
    file = folder / "model.safetensors.index.json"
    weight_map = json.loads(file.read_text())["weight_map"]
    last = max(weight_map.values())
    kept = {name: shard for name, shard in weight_map.items() if shard != last}
    file.write_text(json.dumps({"weight_map": kept}))


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "absent": (shutil.rmtree, "config.json: No such file or directory; name a folder with a model"),
    "no JSON": (lambda f: (f / "config.json").write_text("{") and None, "config.json: cannot be read: JSONDecodeError"),
    "no mapping": (lambda f: (f / "config.json").write_text("3") and None, "config.json: cannot be read: TypeError"),
    "architecture": (_config(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel is none that can be imported; name"),
    "no architecture": (_config(architectures="absent"), "config.json: no architecture is none that can be imported"),
    "tied": (_config(tie_word_embeddings=True), "tie_word_embeddings is True, and our models have False"),
    "biases": (_config(attention_bias=True), "attention_bias is True, and our models have False"),
    "activation": (_config(hidden_act="gelu"), "hidden_act is 'gelu', and our models have 'silu'"),
    "window": (_config(use_sliding_window=True), "use_sliding_window is true, and our models see all"),
    "wide heads": (_config(head_dim=32), "head_dim is 32, and our models have hidden_size / num_attention_heads = 16"),
    "no size": (_config(hidden_size="absent"), "config.json: has no 'hidden_size'"),
    "no number": (_config(num_hidden_layers="two"), "config.json: Input should be a valid integer"),
    "fewer layers": (_config(num_hidden_layers=1), "has model.layers.1.input_layernorm.weight, which a 1-layer model"),
    "more layers": (_config(num_hidden_layers=3), "lacks 9 tensors, model.layers.2.input_layernorm.weight first"),
    "wider": (_config(intermediate_size=97), "is [96, 64], and config.json makes it [97, 64]"),
    "truncated": (_truncate, "cannot be read: Error while deserializing header"),
    "a file less": (lambda f: sorted(f.glob("*.safetensors"))[1].unlink(), "model-00002-of-"),
    "broken index": (_index("{"), "model.safetensors.index.json: cannot be read"),
    "index without a map": (_index("{}"), "model.safetensors.index.json: cannot be read: KeyError('weight_map')"),
    "index without a file": (_drop_a_shard_from_the_index, "lacks 1 tensors, lm_head.weight first; fetch it again"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_cannot_be_imported_is_an_error_that_says_why(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "model"
    spec = spec_of(folder)
    write(folder, spec, any_bits(spec, torch.float32), max_bytes=20_000)
    damage, message = WRONG[what]
    damage(folder)
    with pytest.raises(HuggingFaceError) as caught:
        import_hf(folder)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
