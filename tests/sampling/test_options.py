"""An option of sampling, or of memory, is written down once in each package: these tests name what lacks it where.

`tav.SampleConfig` and `tav.memory.MemorySetting` are the method's. The client's schemas repeat them, because the client does
without the method; the command line takes its options from the schemas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError

from tav.config import SampleConfig
from tav.errors import InvalidConfig
from tav.estimate.video import VideoWork
from tav.memory import MemorySetting
from tav_client import schemas
from tav_client._async.videos import AsyncVideos
from tav_client.cli import _app

REQUEST_ONLY = {"model", "prompt", "truncate", "use_inverted_latents", "seconds", "format", "record"}
"""Fields of a video that are none of sampling's: what to sample, and what becomes of it."""
NOT_OFFERED = {"injected_layers"}
"""What the service leaves to the base."""
OTHER: dict[str, Any] = {
    "scheduler": "unipc",
    "num_inference_steps": 7,
    "guidance_scale": 1.0,
    "guidance_interval": (0.0, 0.5),
    "negative_prompt": "blurred",
    "strength": 0.5,
    "feature_injection": 0.5,
    "injected_layers": (),
    "cache_interval": 3,
    "noise_blend": 0.5,
    "seed": 7,
    "num_frames": 3,
    "size": (96, 64),
    "fps": 4.0,
}
"""By option, a value that is not the default."""
FREE = {"scheduler", "negative_prompt", "strength", "injected_layers", "noise_blend", "seed", "fps"}
"""Options that make a video no dearer than the estimate: most cost nothing, a lower strength saves guidance."""

OPTIONS = sorted(SampleConfig.model_fields.keys() - NOT_OFFERED)


def test_a_video_has_every_option_of_sampling_and_no_other() -> None:
    offered = schemas.VideoCreate.model_fields.keys()
    assert set(OPTIONS) - offered == set(), "tav_client/schemas/videos.py lacks these fields of tav.SampleConfig"
    assert offered - set(OPTIONS) - REQUEST_ONLY == set(), "tav.SampleConfig lacks these fields of a video"


@pytest.mark.parametrize("name", OPTIONS)
def test_what_a_video_may_ask_for_can_be_sampled(name: str) -> None:
    """At its bounds, and by every word."""
    field = schemas.VideoCreate.model_fields[name]
    request = schemas.VideoCreate.model_validate({"model": "m", "prompt": "p", name: OTHER[name]})
    assert getattr(SampleConfig(**{name: getattr(request, name)}), name) == OTHER[name]
    inside = [rule.ge if isinstance(rule, Ge) else rule.le for rule in field.metadata if isinstance(rule, Ge | Le)]
    words = [word for kind in get_args(field.annotation) for word in get_args(kind) if isinstance(word, str)]
    for value in [*inside, *words]:
        assert getattr(SampleConfig(**{name: value}), name) == value


def test_a_video_may_ask_for_every_solver() -> None:
    named = {word for kind in get_args(schemas.VideoCreate.model_fields["scheduler"].annotation) for word in get_args(kind)}
    assert named == set(get_args(SampleConfig.model_fields["scheduler"].annotation))


@pytest.mark.parametrize("name", sorted(SampleConfig.model_fields))
def test_what_makes_a_video_dearer_is_in_its_estimate(name: str) -> None:
    assert name in OTHER, "give it another value here"
    plain, other = (VideoWork.of(SampleConfig(**options), 8, (64, 64), inverted=True) for options in ({}, {name: OTHER[name]}))
    assert (other == plain) == (name in FREE), "tav.estimate.video.VideoWork.of does not know it"


def help_of(*words: str) -> dict[str, str | None]:
    """Return the help of a command's options by the field that they set."""
    command: Any = typer.main.get_command(_app.app)
    for word in words:
        command = command.commands[word]
    return {parameter.name: getattr(parameter, "help", None) for parameter in command.params}


@pytest.mark.parametrize("name", sorted(schemas.VideoCreate.model_fields))
def test_every_field_of_a_video_is_an_option_and_in_the_documents(name: str) -> None:
    assert help_of("videos", "create").get(name), "`tav videos create` has no option for it, or without help"
    options = str(AsyncVideos.__doc__)
    assert name in {"model", "prompt"} or f"`{name}`" in options, "tav_client/_async/videos.py does not name it"
    contract = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    assert f"`{name}`" in contract or f'"{name}"' in contract, "docs/http.md does not name it"


@pytest.mark.parametrize("schema", [schemas.MemorySetting, schemas.JobMemory])
def test_a_memory_setting_is_the_same_in_the_method_and_on_the_wire(schema: type[BaseModel]) -> None:
    def described(model: type[BaseModel]) -> dict[str, Any]:
        return {name: (field.annotation, field.default) for name, field in model.model_fields.items()}

    assert described(schema) == described(MemorySetting), "tav.memory and tav_client/schemas/estimates.py differ"
    assert MemorySetting.model_validate(schema().model_dump()) == MemorySetting()


def test_a_memory_setting_that_cannot_be_is_refused_in_the_same_words() -> None:
    with pytest.raises(InvalidConfig, match="offload_params needs zero_stage 3"):
        MemorySetting(offload_params=True)
    with pytest.raises(ValidationError, match="offload_params needs zero_stage 3"):
        schemas.MemorySetting(offload_params=True)


def test_every_field_of_a_memory_setting_is_named_on_the_command_line() -> None:
    for words in (("jobs", "submit"), ("jobs", "estimate")):
        assert all(name in str(help_of(*words)["memory"]) for name in MemorySetting.model_fields)
