"""A version's inputs, parameters and outputs in MLflow, derived from `tav.SampleConfig`."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import mlflow
import pandas as pd
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema

from tav.config import SampleConfig

_TYPES = {bool: "boolean", int: "long", float: "double", str: "string"}


def signature() -> ModelSignature:
    """Return the signature: a row has a `prompt`, and may have every field; parameters apply to all rows.

    The fields of a row are of any type: MLflow would refuse the integer 7 for a number, and None for an integer.
    """
    fields = {"format": str, "use_inverted_latents": bool} | {
        name: _plain(field.annotation) for name, field in SampleConfig.model_fields.items()
    }
    columns = [ColSpec("string", "prompt"), *(ColSpec(AnyType(), name, required=False) for name in fields)]
    outputs = [
        ColSpec("binary", "video"),
        ColSpec("string", "format"),
        ColSpec("double", "fps"),
        ColSpec("long", "num_frames"),
        ColSpec(AnyType(), "size"),
    ]
    params = [spec for name, kind in fields.items() if (spec := _param(name, kind))]
    return ModelSignature(Schema(columns), Schema(outputs), ParamSchema(params))


def _plain(annotation: Any) -> Any:
    """Return the type of a field without None; a literal is a string."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation, *_ = (kind for kind in get_args(annotation) if kind is not type(None))
    return str if get_origin(annotation) is Literal else annotation


def _param(name: str, kind: Any) -> ParamSpec | None:
    if kind in _TYPES:
        return ParamSpec(name, _TYPES[kind], None)
    inner = set(get_args(kind)) - {Ellipsis}
    if get_origin(kind) is tuple and len(inner) == 1 and (of := inner.pop()) in _TYPES:
        return ParamSpec(name, _TYPES[of], [], shape=(-1,))
    return None


def describe(job_id: str, caption: str, folder: Path) -> None:
    """Write `MLmodel` and what MLflow keeps beside it into `folder`, which must not exist.

    It requires no packages: it loads where this project is installed.
    """
    pyfunc.save_model(
        str(folder),
        loader_module="registry.pyfunc",
        mlflow_model=Model(run_id=job_id, mlflow_version=mlflow.__version__),
        signature=signature(),
        input_example=(pd.DataFrame([{"prompt": caption}]), {"seed": 0}),
        pip_requirements=[],
    )
