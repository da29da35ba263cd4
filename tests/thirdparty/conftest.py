import json

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random model with room for the prompts of other people's environments."""
    from ludus.engine.torch.presets import init_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    init_model(folder)
    for name, field in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, field: 16_384}))
    return folder
