"""AWS documents as data: dicts in, JSON out. Never templates, because a quote in a template is another document."""

from __future__ import annotations

import json
from typing import Any

from haptk.render.artefact import Artefact

FORMAT = "2010-09-09"


def document(path: str, what: str, body: Any, validate: tuple[str, ...] = ()) -> Artefact:
    """A JSON file that is sent to an API."""
    return Artefact(path=path, what=what, text=json.dumps(body, indent=2) + "\n", validate=validate)


def stack(path: str, what: str, description: str, resources: dict[str, Any], outputs: dict[str, Any]) -> Artefact:
    """A CloudFormation template."""
    body = {"AWSTemplateFormatVersion": FORMAT, "Description": description, "Resources": resources}
    if outputs:
        body["Outputs"] = outputs
    return document(path, what, body, ("cfn-lint", "{}"))


def logical(*words: str) -> str:
    """A logical id of CloudFormation: letters and digits only, so `web-a` becomes `WebA`."""
    parts = [part for word in words for part in "".join(c if c.isalnum() else " " for c in word).split()]
    return "".join(part[:1].upper() + part[1:] for part in parts)


def tags(name: str, **more: str) -> list[dict[str, str]]:
    """The tags by which haptk finds what belongs to a tier."""
    pairs = {"Name": name, **more}
    return [{"Key": key, "Value": value} for key, value in pairs.items()]
