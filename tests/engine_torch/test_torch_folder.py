"""A bad model folder is refused by name; a good one survives a round trip."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ludus.engine.torch import folder as folder_module
from ludus.engine.torch.config import DecoderConfig
from ludus.engine.torch.files import save_tensors, tensors_hash
from ludus.engine.torch.folder import load_decoder, save_decoder
from ludus.errors import ModelFolderError, RunFolderError
from ludus.programs.models import model_folder
from ludus.store import RunFolder


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder):
    with pytest.raises(ModelFolderError) as caught:
        load_decoder(folder)
    return str(caught.value)


def test_round_trip_keeps_weights_config_and_tokenizer(tiny, tmp_path):
    decoder = load_decoder(tiny)
    save_decoder(decoder, tmp_path / "copy", tokenizer_from=tiny)
    again = load_decoder(tmp_path / "copy")
    assert again.config == decoder.config
    assert hash_of(again) == hash_of(decoder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (tiny / name).read_bytes()
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["eos_token_id"] == 1


def test_hash_sees_every_bit(tiny):
    decoder = load_decoder(tiny)
    before = hash_of(decoder)
    with torch.no_grad():
        decoder.model.norm.weight[0] += 2**-23
    assert hash_of(decoder) != before


def hash_of(decoder):
    return tensors_hash(decoder.named_parameters())


def test_missing_files_are_named(folder, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "model.safetensors is missing" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder)


@pytest.mark.parametrize(("text", "expected"), [("{", "not valid JSON"), ("[]", "expected a JSON object, got list")])
def test_damaged_config_is_refused(folder, text, expected):
    (folder / "config.json").write_text(text)
    assert expected in refusal(folder)


def test_unknown_architecture_names_the_nearest(folder):
    edit_config(folder, model_type="qwen3_meo")
    assert "did you mean 'qwen3_moe'" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["linear_attention"] * 4},
        {"rope_type": "dynamic", "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}},
        {"hidden_act": "gelu"},
        {"quantization_config": {"bits": 4}},
        {"num_experts": 8},
        {"attention_dropout": 0.1},
    ],
)
def test_settings_that_change_the_arithmetic_are_refused(folder, change):
    edit_config(folder, **change)
    text = refusal(folder)
    assert next(iter(change)).split(".")[0] in text
    assert "not supported" in text


def test_bad_numbers_are_refused(folder):
    edit_config(folder, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4})
    assert "rope_type 'yarn' needs a number under 'factor', got None" in refusal(folder)
    edit_config(folder, rope_parameters=None, use_sliding_window=True, max_window_layers=0)
    assert "expected a positive integer under 'sliding_window', got None" in refusal(folder)
    edit_config(folder, use_sliding_window=False)
    edit_config(folder, hidden_size="big")
    assert "expected a positive integer under 'hidden_size', got 'big'" in refusal(folder)
    edit_config(folder, hidden_size=128, num_key_value_heads=3)
    assert "must be a multiple of num_key_value_heads, got 4 and 3" in refusal(folder)


def test_tensors_that_do_not_fit_are_named(folder):
    edit_weights(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert "unexpected tensor 'extra'" in refusal(folder)
    edit_weights(folder, lambda tensors: (tensors.pop("extra"), tensors.update({"model.norm.weight": torch.zeros(7)})))
    assert "'model.norm.weight': expected shape [128], got [7]" in refusal(folder)
    edit_weights(folder, lambda tensors: tensors.pop("model.norm.weight"))
    text = refusal(folder)
    assert "'model.norm.weight' of shape [128] is missing" in text


def test_truncated_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert "1000 bytes) is not a whole safetensors file" in refusal(folder)


def test_half_precision_weights_are_read_as_float32(folder):
    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].bfloat16()

    edit_weights(folder, halve)
    decoder = load_decoder(folder)
    assert all(parameter.dtype == torch.float32 for parameter in decoder.parameters())


def test_config_round_trip(tiny):
    config = load_decoder(tiny).config
    assert DecoderConfig.from_hf(config.to_hf(), tiny / "config.json") == config


@pytest.mark.parametrize("last", ["save_config", "save_tensors", "shutil.copyfile"])
async def test_an_export_that_ends_between_two_files_leaves_the_one_before(tiny, tmp_path, monkeypatch, last):
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    async def write(folder):
        save_decoder(decoder, folder, tokenizer_from=tiny)

    decoder = load_decoder(tiny)
    with RunFolder.create(tmp_path / "run") as run:
        await run.export(9, write)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(folder_module, last, kill) if "." not in last else patched.setattr(last, kill)
            await run.export(10, write)
        found = model_folder(str(run.path))
        assert found.name == "9"
        assert hash_of(load_decoder(found)) == hash_of(decoder)
        await run.export(10, write)
        assert model_folder(str(run.path)).name == "10"


async def test_a_disk_that_takes_no_weights_is_one_clean_error(tmp_path):
    async def write(folder):
        save_tensors({"weight": torch.zeros(1)}, folder / "gone" / "model.safetensors")

    with RunFolder.create(tmp_path / "run") as run:
        with pytest.raises(RunFolderError, match=r"can't save the state of step 1: .*No such file"):
            await run.save_state_async(1, write)
        with pytest.raises(RunFolderError, match=r"can't export to .*No such file"):
            await run.export(1, write)
        assert run.states() == []
