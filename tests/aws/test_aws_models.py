"""The trimmed service data: fits the installed botocore, and holds every call that haptk makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import botocore
import pytest
from botocore.loaders import Loader

from haptk.aws import trim

SOURCE = Path(trim.__file__).parent


def test_the_data_are_what_the_script_writes_from_the_installed_botocore() -> None:
    """Byte for byte with the botocore they were made from; with another one, see the test below."""
    if trim.made_from() != botocore.__version__:
        pytest.skip(f"made from botocore {trim.made_from()}, installed is {botocore.__version__}")
    assert trim.drift() == [], "run: python -m haptk.aws.trim"


@pytest.mark.parametrize("service", sorted(trim.OPERATIONS))
def test_the_installed_botocore_still_speaks_these_calls_this_way(service: str) -> None:
    """Drift that would matter: a call, its wire protocol or a member that we have and the installed one has not."""
    whole = Loader().load_service_model(service, "service-2")
    (path,) = (trim.MODELS / service).glob("*/service-2.json")
    ours = json.loads(path.read_text())
    assert ours["metadata"]["protocol"] == whole["metadata"]["protocol"]
    assert ours["metadata"]["apiVersion"] == whole["metadata"]["apiVersion"]
    for name, operation in ours["operations"].items():
        assert operation["http"] == whole["operations"][name]["http"]
        assert operation["input"]["shape"] == whole["operations"][name]["input"]["shape"]
    for name, shape in ours["shapes"].items():
        assert shape["type"] == whole["shapes"][name]["type"]
        assert set(shape.get("members", {})) <= set(whole["shapes"][name].get("members", {}))


def test_every_call_in_the_code_is_in_the_data() -> None:
    wanted = {
        name for path in SOURCE.glob("*.py") for name in re.findall(r'_call\(\s*"([A-Z][A-Za-z]+)"', path.read_text())
    }
    known = {name for operations in trim.OPERATIONS.values() for name in operations}
    assert wanted and wanted <= known


def test_no_prose_is_shipped() -> None:
    for path in trim.MODELS.rglob("service-2.json"):
        assert '"documentation":"' not in path.read_text()


def test_drift_is_found(tmp_path: Path) -> None:
    trim.write(tmp_path)
    assert trim.drift(tmp_path) == []
    (model,) = tmp_path.glob("ec2/*/service-2.json")
    model.write_text(model.read_text().replace("AssociateAddress", "AssociateAdress"))
    (tmp_path / "stray.json").write_text("{}")
    (tmp_path / "partitions.json").unlink()
    assert trim.drift(tmp_path) == [str(model.relative_to(tmp_path)), "partitions.json", "stray.json"]
    trim.write(tmp_path)
    assert trim.drift(tmp_path) == []
