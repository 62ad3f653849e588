"""Builds `models/`: botocore's service data cut down to the operations that haptk calls, with every word of prose out.

    python -m haptk.aws.trim            write haptk/aws/models from the installed botocore
    python -m haptk.aws.trim --check    exit 1 and name the files that no longer fit the installed botocore

Why: a client made from the whole EC2 model costs 100 ms and 30 MB, from this one 7 ms and almost nothing. The data stay
botocore's own (Apache-2.0, see models/NOTICE); nothing is written by hand. `OPERATIONS` is the list to extend when
another call is needed: a call that is missing there fails at once with AttributeError, in the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent / "models"

OPERATIONS: dict[str, tuple[str, ...]] = {
    "ec2": (
        "AssignPrivateIpAddresses",
        "AssociateAddress",
        "AuthorizeSecurityGroupIngress",
        "CreateRoute",
        "CreateSecurityGroup",
        "DescribeAddresses",
        "DescribeInstances",
        "DescribeNetworkInterfaces",
        "DescribeRouteTables",
        "DescribeSecurityGroups",
        "DescribeSubnets",
        "DisassociateAddress",
        "ReplaceRoute",
        "StopInstances",
        "UnassignPrivateIpAddresses",
    ),
    # Classic load balancers are only read.
    "elb": (
        "DescribeInstanceHealth",
        "DescribeLoadBalancerAttributes",
        "DescribeLoadBalancerPolicies",
        "DescribeLoadBalancers",
    ),
    "elbv2": (
        "CreateListener",
        "CreateLoadBalancer",
        "CreateTargetGroup",
        "DeleteListener",
        "DeregisterTargets",
        "DescribeListenerAttributes",
        "DescribeListeners",
        "DescribeLoadBalancerAttributes",
        "DescribeLoadBalancers",
        "DescribeTargetGroupAttributes",
        "DescribeTargetGroups",
        "DescribeTargetHealth",
        "ModifyListener",
        "ModifyListenerAttributes",
        "ModifyLoadBalancerAttributes",
        "ModifyTargetGroup",
        "ModifyTargetGroupAttributes",
        "RegisterTargets",
        "SetSecurityGroups",
        "SetSubnets",
    ),
    "route53": (
        "ChangeResourceRecordSets",
        "CreateHealthCheck",
        "DeleteHealthCheck",
        "ListHealthChecks",
        "ListResourceRecordSets",
    ),
    "dynamodb": ("CreateTable", "DescribeTable", "GetItem", "UpdateItem"),
    "sts": ("AssumeRole", "AssumeRoleWithWebIdentity", "GetCallerIdentity"),
    # Only for credentials of profiles that sign in through IAM Identity Center.
    "sso": ("GetRoleCredentials",),
    "sso-oidc": ("CreateToken",),
}
NOTICE = """The JSON files in this directory are cut from the service data of botocore, https://github.com/boto/botocore
Copyright Amazon.com, Inc. or its affiliates. Licensed under the Apache License, Version 2.0.
Written by `python -m haptk.aws.trim` from botocore {version}; do not edit.
"""


def without_prose(value: Any) -> Any:
    """A copy of a model without documentation, all the way down.

    Member names are data, not prose: below `members` only the members' own bodies are cleaned, never their names.
    """
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for key, item in value.items():
        if key in ("documentation", "documentationUrl") and isinstance(item, str):
            continue
        cleaned[key] = without_prose(item)
    return cleaned


def reachable(shapes: dict[str, Any], roots: set[str]) -> set[str]:
    """The names of all shapes that the roots refer to, directly or not."""
    found: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo.extend(_references(shapes[name]))
    return found


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["shape"]] if isinstance(value.get("shape"), str) else []
    return own + [name for item in value.values() for name in _references(item)]


def trim_service(model: dict[str, Any], operations: tuple[str, ...]) -> dict[str, Any]:
    """A service model with these operations and the shapes they reach."""
    kept = {name: without_prose(model["operations"][name]) for name in operations}
    roots = set(_references(kept))
    shapes = reachable(model["shapes"], roots)
    return {
        "version": model["version"],
        "metadata": model["metadata"],
        "operations": kept,
        "shapes": {name: without_prose(model["shapes"][name]) for name in sorted(shapes)},
    }


def trim_endpoints(document: dict[str, Any], prefixes: set[str]) -> dict[str, Any]:
    """endpoints.json with the services of these endpoint prefixes."""
    partitions = [
        {**part, "services": {name: body for name, body in part["services"].items() if name in prefixes}}
        for part in document["partitions"]
    ]
    return {**document, "partitions": partitions}


def build() -> dict[str, str]:
    """path below models/ -> content, from the installed botocore."""
    import botocore
    from botocore.loaders import Loader

    loader = Loader()
    files = {"NOTICE": NOTICE.format(version=botocore.__version__)}
    prefixes = set()
    for service, operations in OPERATIONS.items():
        version = loader.determine_latest_version(service, "service-2")
        model = loader.load_service_model(service, "service-2", version)
        prefixes.add(model["metadata"]["endpointPrefix"])
        rules = loader.load_service_model(service, "endpoint-rule-set-1", version)
        files[f"{service}/{version}/service-2.json"] = _dump(trim_service(model, operations))
        files[f"{service}/{version}/endpoint-rule-set-1.json"] = _dump(without_prose(rules))
    files["endpoints.json"] = _dump(trim_endpoints(loader.load_data("endpoints"), prefixes))
    for name in ("partitions", "sdk-default-configuration", "_retry"):
        files[f"{name}.json"] = _dump(without_prose(loader.load_data(name)))
    return files


def made_from(root: Path = MODELS) -> str:
    """The version of botocore that the files below `root` were made from."""
    return (root / "NOTICE").read_text().rpartition("from botocore ")[2].partition(";")[0]


def _dump(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def drift(root: Path = MODELS) -> list[str]:
    """The files below `root` that the installed botocore would write differently, or that should not be there."""
    wanted = build()
    there = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    changed = [name for name, text in wanted.items() if name not in there or (root / name).read_text() != text]
    return sorted(set(changed) | (there - set(wanted)))


def write(root: Path = MODELS) -> list[str]:
    """Make `root` what the installed botocore gives; returns the names of the files."""
    wanted = build()
    for path in root.rglob("*"):
        if path.is_file() and str(path.relative_to(root)) not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return sorted(wanted)


def main(argv: list[str]) -> int:
    """The command of the module's text; returns its exit code."""
    if argv == ["--check"]:
        changed = drift()
        for name in changed:
            print(f"differs from the installed botocore: models/{name}")
        return 1 if changed else 0
    if argv:
        print("usage: python -m haptk.aws.trim [--check]", file=sys.stderr)
        return 2
    print(f"{len(write())} files written below {MODELS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
