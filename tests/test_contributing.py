"""docs/contributing.md shown by doing: each example is taken from the page, put where it belongs, and used."""

from __future__ import annotations

import ast
import json
import re
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import grimp
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgenn import networks
from edgenn.cli import cli
from edgenn.conversion import targets
from edgenn.networks import registry
from edgenn_device import model_file

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "garments" / "garments.tflite"
PAGE = (ROOT / "docs" / "contributing.md").read_text()
# The first line of an example says which file it is.
EXAMPLES: dict[str, str] = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


def placed(name: str, module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as the module that it would be at its place in the packages."""
    path = folder / Path(name).name
    path.write_text(EXAMPLES[name])
    spec = spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, made)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("name", [name for name in EXAMPLES if (ROOT / name).exists()])
def test_an_example_that_is_a_file_is_that_file(name: str) -> None:
    assert EXAMPLES[name] == (ROOT / name).read_text()


def test_there_is_an_example_of_each_kind() -> None:
    assert len(EXAMPLES) == 6
    assert len([name for name in EXAMPLES if (ROOT / name).exists()]) == 3


def test_the_network_is_built_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed("edgenn/networks/tiny_cnn.py", "edgenn.networks.tiny_cnn", tmp_path, monkeypatch)
    monkeypatch.setattr(registry, "_NAMES", (*registry._NAMES, "tiny_cnn"))
    model = networks.build("tiny_cnn", (32, 32, 3), 3, width=4)
    scores = np.asarray(model(np.zeros((1, 32, 32, 3), np.float32)))
    assert scores.shape == (1, 3)
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    assert networks.network("tiny_cnn").cut() in networks.cut_points(model)


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's target, put in its place."""
    name = "edgenn.conversion.targets.micro"
    monkeypatch.setattr(targets, "TARGETS", (*targets.TARGETS, "micro"))
    return placed("edgenn/conversion/targets/micro.py", name, tmp_path, monkeypatch)


def test_the_target_judges_models(micro: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_file.load(MODEL)
    assert targets.check(model, "micro").ok
    monkeypatch.setattr(micro, "FLASH", 1 << 10)
    monkeypatch.setattr(micro, "OPERATORS", frozenset({"CONV_2D"}))
    refused = targets.check(model, "micro")
    assert not refused.ok
    assert any("train a narrower network" in reason for reason in refused.reasons)
    assert any("has no SOFTMAX" in reason for reason in refused.reasons)
    shown = CliRunner().invoke(cli, ["inspect", str(MODEL)], standalone_mode=False)
    assert re.search(r"^micro\s+no", shown.output, re.MULTILINE)


def test_models_are_converted_for_the_target(
    micro: ModuleType, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its choices are read from the targets when the verb is loaded.
    monkeypatch.delitem(sys.modules, "edgenn.cli.convert", raising=False)

    def convert(out: str, *options: str) -> Result:
        where = ["--target", "micro", "--out", str(tmp_path / out), "--max-drop", "100", "--json"]
        return CliRunner().invoke(cli, ["convert", str(tiny / "run"), *where, *options])

    made = json.loads(convert("good.tflite").stdout)
    assert made["passed"]
    assert made["target"] == "micro"
    # The runtimes that it names, and no other.
    assert {ran["name"].split()[0] for ran in made["runtimes"]} == {"ai-edge-litert"}
    mixed = convert("mixed.tflite", "--quantization", "mixed")
    assert str(mixed.exception) == "the board computes in int8 only: --quantization mixed is not for --target micro"
    monkeypatch.setattr(micro, "OPERATORS", frozenset({"CONV_2D"}))
    refused = json.loads(convert("bad.tflite").stdout)
    assert not refused["passed"]
    assert any("The board has no SOFTMAX" in reason for reason in refused["reasons"])


def test_the_board_is_estimated_for(tmp_path: Path) -> None:
    board = tmp_path / "shelf.toml"
    board.write_text(EXAMPLES["device/edgenn_device/profiler/devices/shelf.toml"])
    told = CliRunner().invoke(cli, ["profile", str(MODEL), "--device", str(board)], standalone_mode=False)
    assert told.exception is None
    assert "A board on the shelf" in told.output


# What the page says of every module -----------------------------------------------------------------------------------


MODULES = [*(ROOT / "edgenn").rglob("*.py"), *(ROOT / "device").rglob("*.py")]


def test_modules_are_short_and_begin_with_what_they_are_for() -> None:
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 500, f"{path} is too long to be read at once"
        assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("edgenn", "edgenn_device", exclude_type_checking_imports=True)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
