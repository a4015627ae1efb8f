"""Ray's own models of a Serve configuration, made strict: Ray drops unknown keys without a word."""

import json
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from .manifests import without_nulls

__all__ = ["problems"]


def problems(text: str) -> list[str]:
    """What is wrong with a Serve configuration; empty where nothing is."""
    config = yaml.safe_load(text)
    found = list(_unknown(config, ServeDeploySchema, ""))
    try:
        _validated(ServeDeploySchema, config)
    except (AttributeError, ValueError) as error:  # the former of its own validators, at an item without a value
        return [*found, str(error)]
    for application in config.get("applications", ()):
        for deployment in application.get("deployments", ()):
            found += _autoscaling(without_nulls(deployment))
    return found


def _validated(model: type[BaseModel], given: Any) -> None:
    """Strictly: what Ray takes in place of a number, "60" for one, the rules would not. Enums are text in JSON only."""
    model.model_validate_json(json.dumps(given, default=str), strict=True)


def _unknown(value: Any, model: type[BaseModel], path: str):
    """Keys that the model does not have, wherever a model stands behind them."""
    names = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for key, inner in value.items():
        if key not in names:
            yield f"{path}{key}: unknown key"
            continue
        for nested in _models(names[key]):
            for number, one in enumerate(inner if isinstance(inner, list) else [inner]):
                if isinstance(one, dict):
                    yield from _unknown(one, nested, f"{path}{key}[{number}].")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside `Optional[...]`, `List[...]` and `Union[...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _autoscaling(deployment: dict[str, Any]) -> list[str]:
    """Ray reads `autoscaling_config` as any dictionary, and checks it when it deploys."""
    given = deployment.get("autoscaling_config")
    if not given:
        return ["autoscaling_config: expected one"]
    try:
        _validated(AutoscalingConfig, given)
    except ValueError as error:
        return [f"autoscaling_config: {error}"]
    found = []
    if not given.get("min_replicas"):
        found.append("min_replicas: expected at least 1; Serve does not come back from zero reliably")
    if given.get("target_ongoing_requests", 0) >= deployment.get("max_ongoing_requests", 0):
        found.append("target_ongoing_requests: expected below max_ongoing_requests, or it never scales up")
    if deployment.get("max_queued_requests", -1) < 1:
        found.append("max_queued_requests: expected a bound; without one nothing is ever RESOURCE_EXHAUSTED")
    return found
