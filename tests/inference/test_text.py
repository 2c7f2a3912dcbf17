"""Text queries: CLIP's text features, the image MLP, and maps; with a real tokenizer on a small random CLIP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer

from geoclip import load
from geoclip.config import GalleryConfig, PredictConfig, predict_problems
from geoclip.errors import AssetError, GeoclipError
from geoclip.evaluation.gallery import encode_gallery, read_gallery
from geoclip.model.text_encoder import TextEncoder
from geoclip.predict import predict

TEXTS = ["a desert", "a tropical beach at noon", "the Eiffel Tower"]
LONGEST = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's byte-level BPE over letters with some merges, and towers that project to GeoCLIP's 768 dimensions."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(number) for number in range(ord("!"), ord("~") + 1)]
    merges = [("t", "h"), ("th", "e</w>"), ("e", "r"), ("e", "a"), ("n", "o"), ("s", "er")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    start, end = (tokens.index(token) for token in ("<|startoftext|>", "<|endoftext|>"))
    text = tower | {"vocab_size": len(tokens), "max_position_embeddings": LONGEST}
    text |= {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    vision = tower | {"image_size": 28, "patch_size": 14}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)).save_pretrained(folder)
    return folder


def text_features(clip: Path, texts: list[str]) -> torch.Tensor:
    tokens = AutoTokenizer.from_pretrained(clip)(
        texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
    )
    with torch.inference_mode():
        found: Any = CLIPModel.from_pretrained(clip).eval().get_text_features(**tokens)
    features: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return features


@pytest.fixture
def predict_text(clip: Path, tiny_run: Any, tmp_path: Path) -> Callable[..., Path]:
    def run(**changes: Any) -> Path:
        gallery = GalleryConfig(name="tiny", path=str(tiny_run.gallery_csv))
        source: dict[str, Any] = {"checkpoint": "official", "backbone": str(clip), "gallery": gallery, "device": "cpu"}
        config = PredictConfig(**(source | {"output": str(tmp_path / "out")} | changes))
        assert predict_problems(config) == []
        return predict(config)

    return run


def test_features_agree_with_transformers_and_long_texts_are_cut_with_a_warning(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextEncoder.from_pretrained(str(clip))
    short = ["a b", "sea"]
    torch.testing.assert_close(encoder.encode(short), text_features(clip, short), atol=1e-5, rtol=1e-4)
    assert caplog.text == ""
    torch.testing.assert_close(encoder.encode(TEXTS), text_features(clip, TEXTS), atol=1e-5, rtol=1e-4)
    assert "a tropical beach at noon" in caplog.text and str(LONGEST) in caplog.text


def test_texts_pass_the_image_mlp_and_have_maps(predict_text: Callable[..., Path], clip: Path, tiny_run: Any) -> None:
    folder = predict_text(text=TEXTS, top_k=3)
    model = load("official", backbone=None)
    gallery = read_gallery(tiny_run.gallery_csv, "tiny")
    gallery_GD = encode_gallery(model.location_encoder, gallery, torch.device("cpu"))
    with torch.inference_mode():
        text_ND = F.normalize(model.image_encoder.head(text_features(clip, TEXTS)), dim=1)
    for text, name, vector_D in zip(
        TEXTS, ("a_desert", "a_tropical_beach_at_noon", "the_Eiffel_Tower"), text_ND, strict=True
    ):
        row = json.loads((folder / f"{name}.json").read_text())
        best = (gallery_GD @ vector_D).topk(3)
        assert row["text"] == text and "image" not in row
        assert [guess["cosine"] for guess in row["predictions"]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [guess["lat"] for guess in row["predictions"]] == gallery.gps_deg_G2[best.indices, 0].tolist()
    drawn = sorted(path.name for path in folder.glob("*.png"))
    assert drawn == ["a_desert.png", "a_tropical_beach_at_noon.png", "texts.png", "the_Eiffel_Tower.png"]
    with Image.open(folder / "texts.png") as image:
        assert image.width > 1000
    assert (folder / "index.html").is_file()
    assert len((folder / "predictions.csv").read_text().splitlines()) == 4


def test_an_encoder_without_a_text_tower_is_named(predict_text: Callable[..., Path], tiny_run: Any) -> None:
    with pytest.raises(GeoclipError, match=r"'a desert'.*resnet"):
        predict_text(text="a desert", checkpoint=str(tiny_run.folder))


def test_a_clip_without_a_tokenizer_is_named(predict_text: Callable[..., Path], clip: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    CLIPModel.from_pretrained(clip).save_pretrained(bare)
    with pytest.raises(AssetError, match=r"bare.*vocab\.json and merges\.txt"):
        predict_text(text="a desert", backbone=str(bare))
