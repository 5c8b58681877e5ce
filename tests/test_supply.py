"""What is installed: `.ci/supply.py` finds what is not as it must be. A fault is planted in each test but the first."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
HASH = "--hash=sha256:" + "a" * 64


@pytest.fixture
def supply(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci/supply.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pin_has_a_hash_is_installed_and_has_an_allowed_licence_on_record(supply: ModuleType) -> None:
    assert list(supply.faults()) == []


def test_no_file_of_pins_names_an_index(supply: ModuleType) -> None:
    assert not any("://" in path.read_text() for path in supply.REQUIREMENTS.values())


def test_the_gpu_pins_are_those_of_cuda_and_the_cpu_pins_are_not(supply: ModuleType) -> None:
    cpu, gpu = (supply.pins(supply.REQUIREMENTS[name].read_text()) for name in ("cpu", "gpu"))
    assert cpu["torch"] == f"{gpu['torch']}+cpu"
    assert "nvidia-nccl-cu13" in gpu and "vllm" in gpu
    assert not any(name.startswith("nvidia-") or name == "vllm" for name in cpu)


@pytest.mark.parametrize(
    "line", ["ray==2.60.0", f"ray>=2.60.0 {HASH}", "ray==2.60.0 --hash=sha256:abc", "ray @ https://example.com/ray.whl"]
)
def test_a_requirement_without_version_or_hash_is_found(supply: ModuleType, line: str) -> None:
    assert list(supply.unpinned(f"ray==2.60.0 \\\n    {HASH} \\\n    {HASH}\n")) == []
    assert "make lock" in next(supply.unpinned(line))


def test_an_environment_that_differs_from_the_pins_is_found(supply: ModuleType) -> None:
    found = list(supply.foreign({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1", "pip": "9"}))
    assert [fault.split(":")[0] for fault in found] == [
        "b is 2 in .venv, and 1 in the requirements",
        "c is missing in .venv, and 1 in the requirements",
        "d is 1 in .venv, and none in the requirements",
    ]


def test_a_list_of_licences_that_is_not_of_these_pins_is_found(
    supply: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "LICENSES.md"
    changed.write_text(
        supply.LIST.read_text().replace("| ray | 2.60.0 | Apache-2.0 |", "| ray | 2.59.0 | Apache-2.0 |")
    )
    monkeypatch.setattr(supply, "LIST", changed)
    assert [fault.split(",")[0] for fault in supply.faults()] == [
        "LICENSES.md has ray 2.59.0",
        "LICENSES.md lacks ray 2.60.0",
    ]


@pytest.mark.parametrize(
    "told, expected",
    [
        ({"license_expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"license": "Apache 2.0"}, "Apache-2.0"),
        ({"license": "All rights\nreserved", "classifier": ["License :: OSI Approved :: BSD License"]}, "BSD"),
        ({"license": "Ask us first"}, "Ask us first"),
        ({}, "not said"),
    ],
)
def test_a_licence_is_read_from_what_a_package_says(supply: ModuleType, told: dict[str, object], expected: str) -> None:
    assert supply.licence("some-package", told) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "AGPL-3.0-only",
        "MIT AND AGPL-3.0-only",
        "GPL-2.0-only",
        "not said",
        "GPL-3.0-only AND MIT OR AGPL-3.0-only",
        "(MIT OR Apache-2.0) AND AGPL-3.0-only",
    ],
)
def test_a_licence_that_is_not_allowed_is_refused(supply: ModuleType, expression: str) -> None:
    assert supply.refused("some-package", "MIT OR AGPL-3.0-only") is None
    assert supply.refused("some-package", "(MIT OR AGPL-3.0-only) AND Apache-2.0") is None
    assert "some-package" in supply.refused("some-package", expression)
