"""What pydantic finds is told in sentences of ours."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic_core._pydantic_core import list_all_errors  # pydantic's own messages, all of them

import tav
from registry.settings import RegistrySettings
from services.platform.settings import PlatformSettings
from services.settings import Settings
from tav.config import ClipConfig
from tav.errors import InvalidConfig
from tav.memory import MemorySetting
from tav.sentences import faults, sentence
from tav_client import InvalidRequest, schemas
from tav_client._calls import request_of

ERRORS = list_all_errors()


def pydantic_says(text: str) -> list[str]:
    """Pydantic's messages that occur in a text."""
    templates = {t for e in ERRORS for t in (e["message_template_python"], e.get("message_template_json")) if t}
    literal = {max(re.split(r"\{\w+\}", t), key=len).strip(" ,.:'") for t in templates}
    return [part for part in literal if len(part) > 8 and part.lower() in text.lower()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error["type"]))
def test_no_kind_of_error_is_told_in_pydantics_words(error: dict[str, Any]) -> None:
    ctx = error.get("example_context") or {}
    found = faults(
        [{"type": error["type"], "loc": ("params", "steps"), "input": "x y", "ctx": ctx, "msg": "Should be so, and so"}]
    )
    assert len(found) == 1 and found[0].type == error["type"]
    assert pydantic_says(found[0].text) == []
    assert found[0].text.endswith(".") and "{" not in found[0].text.replace('{"name": value}', "")


REQUESTS = [schemas.TuningJobCreate, schemas.VideoCreate, schemas.EstimateCreate, schemas.UploadCreate, schemas.AliasSet]
ODD: list[Any] = [None, True, -1, 0, 1, 1.5, 10**30, float("inf"), "", " ", "x", "Man Skiing\x1b[31m", "x" * 5000]
ODD += [[], ["x", ""], [1], [7, 9, 3], {}, {"a b": 1}, {"zero_stage": 9}]


@pytest.mark.parametrize("model", REQUESTS, ids=lambda model: model.__name__)
def test_whatever_a_field_is_given_the_answer_names_it_in_our_words(model: type[BaseModel]) -> None:
    refused = 0
    wrong = [{name: odd} for name in model.model_fields for odd in ODD]
    wrong += [{"params": {name: odd}} for name in schemas.TuningParams.model_fields for odd in ODD]
    for given in wrong:
        try:
            model.model_validate(given)
        except ValidationError as error:
            refused += 1
            for fault in faults(error.errors(include_url=False), model):
                assert pydantic_says(fault.text) == []
                assert fault.text.endswith(".") and "\x1b" not in fault.text and "MemorySetting" not in fault.text
                assert "literal" not in str(fault.loc) and "^" not in fault.text  # neither unions nor patterns
                assert str(fault.loc[0]) in fault.text
    assert refused > 10


VIDEO, JOB = schemas.VideoCreate, schemas.TuningJobCreate


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        (VIDEO, {"width": 512}, "There is no field width: use size."),
        (VIDEO, {"seed": -1}, "seed must be 0 or more, not -1: leave it out"),
        (VIDEO, {"model": "Man Skiing"}, 'may not be "Man Skiing": write name, name@alias or name/version; man-skiing'),
        (VIDEO, {"promt": "x"}, "There is no field promt: perhaps prompt is meant; otherwise leave it out."),
        (VIDEO, {"steps": 20}, "There is no field steps: use num_inference_steps."),
        (VIDEO, {"size": [500, 512]}, "size[0] must be a multiple of 8, not 500"),
        (VIDEO, {"prompt": "  "}, "prompt must be a text that is not empty"),
        (JOB, {"model": "Ein Skifahrer fährt"}, "ein-skifahrer-fahrt would do."),
        (JOB, {"steps": 20}, "There is no field steps here: it belongs into params, as params.steps."),
        (JOB, {"params": {"lr": 1e-5}}, "There is no field params.lr: use learning_rate."),
        (JOB, {"params": {"memory": "low"}}, "params.memory must be 'auto' or an object"),
        (JOB, {"params": {"memory": {"zero_stage": 5}}}, "params.memory.zero_stage must be 1, 2 or 3, not 5."),
        (JOB, {"validation_prompts": "a blue ball"}, 'must be a list, as in ["one", "two"]'),
        (JOB, {"metadata": {"my shot": "1"}}, "my-shot would do."),
    ],
)  # fmt: skip
def test_a_sentence_says_the_way(model: type[BaseModel], given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of(model, given)
    assert told in str(caught.value)


def test_a_list_of_many_faults_says_how_many_more() -> None:
    with pytest.raises(ValidationError) as caught:
        schemas.VideoCreate.model_validate({"a": 1, "b": 1, "c": 1})
    assert sentence(caught.value, schemas.VideoCreate).endswith("(2 more.)")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: tav.TuneConfig(steps=0), "steps must be 1 or more, not 0."),
        (lambda: tav.TuneConfig(lr=1e-4), "There is no field lr: use learning_rate."),
        (lambda: tav.SampleConfig(guidance_interval=(0.9, 0.1)), "guidance_interval: give two shares"),
        (lambda: MemorySetting(offload_params=True), "offload_params needs zero_stage 3"),
        (lambda: ClipConfig(size="big"), 'size must be a list, as in [1, 2], not "big".'),
    ],
)  # fmt: skip
def test_a_setting_of_the_library_that_will_not_do_is_refused_in_a_sentence(make: Any, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        make()
    assert told in str(caught.value) and pydantic_says(str(caught.value)) == []


@pytest.mark.parametrize("kind", [Settings, RegistrySettings, PlatformSettings])
def test_a_setting_of_the_environment_is_told_by_its_variable_and_without_its_value(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAV_S3_BUCKET", "se")
    with pytest.raises(InvalidConfig) as caught:
        kind()
    assert str(caught.value) == "TAV_S3_BUCKET must be of 3 characters or more."


def test_a_record_that_holds_settings_is_still_read_or_refused_whole() -> None:
    class Record(BaseModel):
        tune: tav.TuneConfig = Field(default_factory=tav.TuneConfig)

    assert Record.model_validate({"tune": {"steps": 3}}).tune.steps == 3
    with pytest.raises(ValidationError):
        Record.model_validate({"tune": {"steps": 0}})
