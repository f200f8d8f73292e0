"""The OpenAPI description of `sdg serve`, and a page of it that needs no other server."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment

_NUMBER: Final = {"type": ["number", "null"]}
_COUNT: Final = {"type": ["integer", "null"]}
_WHY: Final = {"type": ["string", "null"], "description": "Why something is null."}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _list(of: dict[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": of, **bounds}


_ITEM: Final = _object(
    {
        "image": {"type": "string", "contentEncoding": "base64", "description": "A picture file."},
        "prompt": {"type": "string", "description": "What it was generated from."},
    }
)
_ITEMS: Final = _list(_ITEM, maxItems=64)
_DEFECT: Final = _object(
    {
        "box": _list({"type": "integer"}, minItems=4, maxItems=4),
        "type": {"enum": ["artifact", "misalignment"]},
        "reason": {"type": "string"},
        "importance": {"type": "integer", "minimum": 1, "maximum": 100},
    },
    "box",
    "type",
)
_STATUS: Final = {"enum": ["ok", "repaired", "truncated", "unparseable", "failed"]}
_MAP: Final = _list(_list({"type": "number"}))
_MAPS: Final = {**_object({"artifact": _MAP, "misalignment": _MAP}), "type": ["object", "null"]}
_ROW: Final = _object(
    {"defects": _COUNT, "artifacts": _COUNT, "misalignments": _COUNT, "clean": _COUNT, "reward": _NUMBER}
)
_VERDICT: Final = {"type": ["boolean", "null"]}
_POSTS: Final = {
    "/v1/diagnose": (
        "The defects of each picture: boxes on 0 to 1000; null where nothing is known.",
        _object({"items": _ITEMS}),
        _object(
            {
                "items": _list(
                    _object(
                        {
                            "status": _STATUS,
                            "defects": {**_list(_DEFECT), "type": ["array", "null"]},
                            "error": _WHY,
                        }
                    )
                )
            }
        ),
    ),
    "/v1/reward": (
        "The scalar reward R of each picture, its defects, and on a grid their weights W (SDG eq. 4).",
        _object({"items": _ITEMS, "grid": _list({"type": "integer"}, minItems=2, maxItems=2)}, "items"),
        _object(
            {
                "items": _list(
                    _object(
                        {
                            "reward": _NUMBER,
                            "defects": _COUNT,
                            "severity": _NUMBER,
                            "maps": _MAPS,
                            "error": _WHY,
                        }
                    )
                )
            }
        ),
    ),
    "/v1/guard": (
        "Defects of pictures of held-out prompts, and whether they grew since the first entry of the history "
        "while the reward rose.",
        _object(
            {"items": _ITEMS, "rewards": _list(_NUMBER), "history": _list(_list(_ROW))},
            "items",
        ),
        _object(
            {
                "means": _ROW,
                "known": {"type": "integer"},
                "worse": _VERDICT,
                "rose": _VERDICT,
                "hacking": _VERDICT,
                "pictures": _list(_ROW),
            }
        ),
    ),
    "/v1/chat/completions": (
        "OpenAI's format: one user turn with one picture, as a data: URL, and its prompt.",
        _object({"model": {"type": "string"}, "messages": _list({"type": "object"})}, "messages"),
        _object({"choices": _list({"type": "object"})}),
    ),
}
_GETS: Final = {
    "/v1/models": "The name of the detector, as OpenAI lists models.",
    "/metrics": "Counters, for Prometheus.",
    "/healthz": "Whether the server answers.",
    "/openapi.json": "This description.",
    "/docs": "This description as a page.",
}
_ERRORS: Final = {
    "400": "It is no request of this form.",
    "401": "The token is missing or wrong.",
    "403": "The Host header names another machine.",
    "408": "The request came too slowly.",
    "413": "The request is too large.",
    "415": "The content type is not application/json.",
    "422": "The picture got no answer.",
    "429": "Too much waits; come back after Retry-After seconds.",
}
_OPEN: Final = ("/healthz", "/openapi.json", "/docs")


def describe(version: str, *, closed: bool) -> dict[str, Any]:
    """The description as a document; closed: whether a token is asked for."""
    paths: dict[str, Any] = {}
    for path, (summary, request, answer) in _POSTS.items():
        responses = {"200": {"description": "Answered.", **_content(answer)}}
        errors = {status: {"description": text} for status, text in _ERRORS.items()}
        if path != "/v1/chat/completions":
            del errors["422"]
        body = {"required": True, **_content(request)}
        paths[path] = {"post": {"summary": summary, "requestBody": body, "responses": responses | errors}}
    for path, summary in _GETS.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "Answered."}}}}
    document = {"openapi": "3.1.0", "info": {"title": "sdg serve", "version": version}, "paths": paths}
    if closed:
        document["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        for path, methods in paths.items():
            for method in methods.values():
                method["security"] = [] if path in _OPEN else [{"token": []}]
    return document


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


_PAGE: Final = """{% macro form(about) %}
<pre>{{ about.content["application/json"].schema | tojson(indent=2) }}</pre>
{% endmacro %}<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sdg serve</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#f3f4f6;padding:1rem;overflow:auto}</style>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>The same for machines: <a href="openapi.json">openapi.json</a>.</p>
{% for path, methods in paths.items() %}{% for method, about in methods.items() %}
<h2>{{ method | upper }} {{ path }}</h2>
<p>{{ about.summary }}</p>
{% if about.requestBody %}<h3>Request</h3>
{{ form(about.requestBody) }}
{% for status, response in about.responses.items() %}<h3>{{ status }}</h3><p>{{ response.description }}</p>
{% if response.content %}{{ form(response) }}{% endif %}
{% endfor %}{% endif %}{% endfor %}{% endfor %}</html>
"""


def page(description: dict[str, Any]) -> str:
    """The description as HTML."""
    return Environment(autoescape=True).from_string(_PAGE).render(description)
