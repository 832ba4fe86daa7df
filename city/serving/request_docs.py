"""Documents the bodies of prediction requests in OpenAPI: their schemas, and an example of each declared model. The
routes parse these bodies themselves, so that FastAPI does not know them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from city.models.model import Model

JSON = "application/json"


def describe_body(
    kind: type[BaseModel], examples: Mapping[str, object], others: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Describes a JSON body, for `openapi_extra` of a route. `kind` is the model that it is validated with. `examples`
    are by name. `others` are further content types and their schemas."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema = _inline_references(schema, schema.pop("$defs", {}))
    json = {"schema": schema} | ({"examples": {name: {"value": v} for name, v in examples.items()}} if examples else {})
    return {"requestBody": {"required": True, "content": {JSON: json, **(others or {})}}}


def prediction_examples(models: Iterable[Model]) -> dict[str, object]:
    """Returns bodies of `/predict` by name: of features and of an entity, for each model."""
    examples: dict[str, object] = {}
    for model in models:
        examples[model.name] = {
            "model_name": model.name,
            "features": _example_features(model),
            "return_probabilities": True,
        }
        entity = {name: f"a {name}" for name in model.view.entities}
        examples[f"{model.name} of an entity"] = {"model_name": model.name, "entity": entity}
    return examples


def batch_examples(models: Iterable[Model]) -> dict[str, object]:
    """Returns a body of `/predict/batch` for each model, by its name."""
    return {m.name: {"model_name": m.name, "instances": [_example_features(m)] * 2} for m in models}


def infer_examples(models: Iterable[Model]) -> dict[str, object]:
    """Returns a body of the Open Inference Protocol for each model, by its name."""
    examples: dict[str, object] = {}
    for model in models:
        width = len(model.inputs)
        tensor = {"name": "inputs", "shape": [1, width], "datatype": "FP32", "data": [1.0] * width}
        examples[model.name] = {"inputs": [tensor]}
    return examples


def _inline_references(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline_references(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline_references(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline_references(part, definitions) for name, part in schema.items()}


def _example_features(model: Model) -> dict[str, bool | float]:
    """Returns an example value of each input's kind, by input."""
    examples: dict[str, bool | float] = {"float": 12.5, "integer": 3, "boolean": False}
    return {name: examples.get(model.view.features[name].kind, 0) for name in model.inputs}
