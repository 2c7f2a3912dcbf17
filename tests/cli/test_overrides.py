"""Text and paths on a command line arrive as typed."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from geoclip.cli.app import composition_sentence
from geoclip.cli.overrides import literal_overrides
from geoclip.config import FeaturesConfig, PredictConfig, ShardsConfig, TrainConfig
from geoclip.config.composed import conf_dir

TYPED = [
    *("epoch=9-step=100.ckpt", "IMG_1 (1).jpg", "mp-16-{000000..000393}.tar", "a,b.jpg", "l'été à Nîmes.jpg"),
    *("back\\slash's.jpg", "ends in a quote'", "'unbalanced", "[brackets].jpg", "[x]", "{a: b}", "a#b&c;d!~e.jpg"),
    *("~/x.jpg", "C:\\Users\\x y.jpg", "(${oc.env:HOME}).jpg", "007", "1e3", "true", "50%", "not UTF-8 \udce9.jpg"),
    *("escape \x1b[31m.jpg", "two\nlines", " lead", "trail ", " both, (1) "),
]


def composed(config: str, schema: type[Any], arguments: list[str]) -> Any:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return OmegaConf.to_container(
            compose(config, literal_overrides(arguments, schema)), resolve=True, throw_on_missing=False
        )


@pytest.mark.parametrize("typed", TYPED)
def test_a_path_arrives_as_typed(typed: str) -> None:
    assert composed("predict", PredictConfig, [f"image={typed}"])["image"] == typed
    assert composed("shards", ShardsConfig, [f"input={typed}"])["input"] == typed


@pytest.mark.parametrize("argument", ["image=plain.jpg", "image='quoted (1).jpg'", "image=${runs_dir}/a.jpg"])
def test_valid_overrides_are_unchanged(argument: str) -> None:
    assert literal_overrides([argument], PredictConfig) == [argument]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("une plage à Nîmes", "une plage à Nîmes"),
        ("a desert, with dunes", "a desert, with dunes"),
        ("[une plage à Nîmes]", ["une plage à Nîmes"]),
        ("[a desert,l'eau (1)]", ["a desert", "l'eau (1)"]),
        ("['one, with a comma',été]", ["one, with a comma", "été"]),
        ("[a,b]", ["a", "b"]),
        ("[[x],[y]]", ["[x]", "[y]"]),
        ("[{a: b},[c,[d]]]", ["{a: b}", "[c,[d]]"]),
        ("[2024,1e3]", ["2024", "1e3"]),
        ("{a: b}", "{a: b}"),
        (" lead", " lead"),
    ],
)
def test_text_and_lists_of_text_arrive_as_typed(typed: str, expected: Any) -> None:
    assert composed("predict", PredictConfig, [f"text={typed}"])["text"] == expected


def test_a_list_of_texts_alone() -> None:
    assert composed("features", FeaturesConfig, ["splits=[été,val]"])["splits"] == ["été", "val"]


@pytest.mark.parametrize(
    ("typed", "points"),
    [
        ("a (1).jpg,b=2.jpg", ["a (1).jpg", "b=2.jpg"]),
        ("{a,b}.jpg,c.jpg", ["{a,b}.jpg", "c.jpg"]),
        ("'one, comma',été", ["one, comma", "été"]),
        (",epoch=9.ckpt", ["", "epoch=9.ckpt"]),
        ("open (1.jpg,b.jpg", ["open (1.jpg", "b.jpg"]),
    ],
)
def test_commas_separate_the_points_of_a_multirun(typed: str, points: list[str]) -> None:
    _, argument = literal_overrides(["-m", f"image={typed}"], PredictConfig)
    sweep = OverridesParser.create().parse_override(argument)
    assert sweep.is_sweep_override()
    found = [getattr(point, "text", point) for point in sweep.sweep_iterator(lambda value: value)]
    assert found == points


def test_an_experiment_may_be_a_multirun() -> None:
    arguments = ["+experiment=search", "gallery.path=a.csv,b (1).csv"]
    assert literal_overrides(arguments, TrainConfig)[1] == "gallery.path=a.csv,'b (1).csv'"


def test_hydras_own_paths_are_texts_too() -> None:
    assert literal_overrides(["hydra.run.dir=out (1)"], TrainConfig) == ["hydra.run.dir='out (1)'"]


@pytest.mark.parametrize("argument", ["optim.lr=1=2", "nothing=a=b"])
def test_a_value_that_cannot_be_parsed_is_named_with_its_quoted_form(argument: str) -> None:
    assert literal_overrides([argument], TrainConfig) == [argument]
    with pytest.raises(OverrideParseException) as refused:
        OverridesParser.create().parse_overrides([argument])
    sentence = composition_sentence(refused.value, TrainConfig)
    assert argument in sentence and "\n" not in sentence
    key, value = argument.split("=", 1)
    assert f"{key}='{value}'" in sentence


@pytest.mark.parametrize(
    ("argument", "taken"),
    [
        ("top_k=1e3", ["number"]),
        ("top_k=null", ["number"]),
        ("smooth_km=far", ["number"]),
        ("refine_m=far", ["number", "null"]),
        ("box=[a,b]", ["list", "number"]),
        ("tta=foo", ["single", "five_crop", "ten_crop"]),
        ("gallery=foo", ["own", "released_100k"]),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_valid_ones(argument: str, taken: list[str]) -> None:
    with pytest.raises(HydraException) as refused:
        composed("predict", PredictConfig, [argument])
    sentence = composition_sentence(refused.value, PredictConfig)
    assert sentence.startswith(argument) and "\n" not in sentence
    assert [word for word in taken if word not in sentence] == []
    assert "full_key" not in sentence and "type '" not in sentence


@pytest.mark.parametrize("typed", ["1", "a(b", "{a: 1}", "null"])
def test_an_unknown_option_is_named_with_the_existing_ones(typed: str) -> None:
    with pytest.raises(MissingConfigException, match="released_100k"):
        composed("train", TrainConfig, [f"gallery={typed}"])


def test_outside_a_multirun_a_text_may_look_like_a_sweep() -> None:
    for text in ("choice(a,b)", "glob(*)", "range(1,3)"):
        (word,) = literal_overrides([f"image={text}"], PredictConfig)
        assert OverridesParser.create().parse_override(word).value() == text
