"""Published pipeline folders load, whatever old parts their index names."""

import shutil
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.models import loading

SHIPPED = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"


def test_an_index_may_name_an_extractor_that_transformers_dropped(tmp_path):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    index = storage.read_json(folder / "model_index.json")
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    storage.write_json(folder / "model_index.json", index)
    pipe = loading.load_pipeline(folder)
    assert pipe.feature_extractor is None and pipe.safety_checker is None
