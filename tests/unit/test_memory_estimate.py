"""What a fine-tuning needs: counted from shapes, and compared with what real models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.memory_estimate import ModelShape, Training, activations, adapter_parameters, memory
from scheduler.engine.queries.model_files import read_shape
from tests.tiny_model import make_tiny_model

TINY = ModelShape(
    tensors={
        "model.embed_tokens.weight": (100, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.mlp.up_proj.weight": (32, 8),
        "model.layers.0.input_layernorm.weight": (8,),
        "lm_head.weight": (100, 8),
    },
    layers=1,
    width=8,
    vocabulary=100,
)
PARAMETERS = 800 + 64 + 256 + 8 + 800


def full(**fields: Any) -> Training:
    return Training(**{"method": "full", "half": False, "tokens": 10, **fields})


def lora(**fields: Any) -> Training:
    return Training(**{"method": "lora", "half": False, "tokens": 10, "lora_rank": 2, **fields})


class TestParts:
    def test_in_full_each_weight_has_a_gradient_and_two_moments(self) -> None:
        parts = memory(TINY, full())
        assert TINY.num_parameters == PARAMETERS
        assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (
            4 * PARAMETERS,
            4 * PARAMETERS,
            8 * PARAMETERS,
        )

    def test_an_adapter_alone_has_gradients_and_moments(self) -> None:
        """That is what it is good for."""
        adapter = 2 * (8 + 8) + 2 * (32 + 8)
        parts = memory(TINY, lora())
        assert adapter_parameters(TINY, lora()) == adapter
        assert (parts["gradients"], parts["optimizer"]) == (4 * adapter, 8 * adapter)
        assert parts["weights"] == 4 * (PARAMETERS + adapter)

    def test_frozen_weights_have_the_precision_of_the_computation_and_trained_ones_do_not(self) -> None:
        adapter = adapter_parameters(TINY, lora())
        assert memory(TINY, lora(half=True))["weights"] == 2 * PARAMETERS + 4 * adapter
        assert memory(TINY, full(half=True))["weights"] == 4 * PARAMETERS

    def test_named_layers_alone_get_an_adapter(self) -> None:
        assert adapter_parameters(TINY, lora(target_modules=["q_proj"])) == 2 * (8 + 8)
        assert adapter_parameters(TINY, lora(target_modules=["proj"])) == 0, "a part of a name is no name"

    def test_several_ranks_keep_the_gradients_twice(self) -> None:
        assert memory(TINY, full(num_ranks=2))["gradients"] == 2 * memory(TINY, full())["gradients"]

    def test_activations_grow_with_the_tokens_and_halve_with_the_precision(self) -> None:
        assert activations(TINY, full(tokens=20)) == 2 * activations(TINY, full(tokens=10))
        assert activations(TINY, full(half=True)) == 10 * 8 * 34 + 10 * 100 * (2 + 8)


class TestFiles:
    @pytest.mark.parametrize("tied", [False, True])
    def test_the_count_is_that_of_the_loaded_model(self, tmp_path: Path, tied: bool) -> None:
        """A head that shares the table of vectors is stored once, and held once."""
        from transformers import AutoModelForCausalLM

        folder = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        shape = read_shape(folder)
        assert shape.num_parameters == loaded.num_parameters()
        assert (shape.layers, shape.width) == (2, 32)

    @pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
    def test_the_adapter_is_as_large_as_the_one_that_peft_makes(self, tmp_path: Path, targets: Any) -> None:
        from peft import LoraConfig, TaskType, get_peft_model
        from transformers import AutoModelForCausalLM

        folder = make_tiny_model(tmp_path / "model")
        config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=targets)
        made = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
        trained, _ = made.get_nb_trainable_parameters()
        assert adapter_parameters(read_shape(folder), lora(lora_rank=4, target_modules=targets)) == trained

    def test_a_model_in_parts_is_read_as_its_index_says(self, tmp_path: Path) -> None:
        """Weights of an older save may lie beside it."""
        make_tiny_model(tmp_path)
        whole = read_shape(tmp_path)
        file = tmp_path / "model.safetensors"
        file.rename(tmp_path / "model-00001-of-00001.safetensors")
        file.write_bytes(b"left behind")
        parts = dict.fromkeys(whole.tensors, "model-00001-of-00001.safetensors")
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
        assert read_shape(tmp_path) == whole

    def test_the_index_leads_nowhere_else(self, tmp_path: Path) -> None:
        """A model folder is somebody's: what it names must stay inside."""
        make_tiny_model(tmp_path / "theirs")
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "config.json").write_bytes((tmp_path / "theirs" / "config.json").read_bytes())
        index = {"weight_map": {"a": "../theirs/model.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="cannot be read"):
            read_shape(folder)

    @pytest.mark.parametrize(
        ("config", "weights", "complaint"),
        [
            (None, b"", "cannot be read"),
            ("{", b"", "not as expected"),
            ("{}", None, "no .safetensors file"),
            ("{}", b"\xff" * 8, "bytes long"),
            ("{}", (2).to_bytes(8, "little") + b"[]", "not as expected"),
            (
                "{}",
                (24).to_bytes(8, "little") + b'{"a": {"shape": [2, 3]}}',
                "does not say num_hidden_layers",
            ),
        ],
    )
    def test_a_folder_that_does_not_tell_says_why(
        self, tmp_path: Path, config: str | None, weights: bytes | None, complaint: str
    ) -> None:
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        if weights is not None:
            (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(ValueError, match=complaint):
            read_shape(tmp_path)
