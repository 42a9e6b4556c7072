"""tools/mutate.py can be run: every mutation still fits its file and names tests that there are; and it tells right."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tools.mutate import ROOT, sweep
from tools.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_its_file_and_names_tests_that_there_are(mutation: Mutation) -> None:
    mutated = mutation.text(ROOT)
    assert mutated != (ROOT / mutation.file).read_text()
    compile(mutated, mutation.file, "exec")
    assert mutation.tests
    for test in mutation.tests:
        file, name = test.split("::")
        functions = [node.name for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")]
        assert name in functions, test


def test_names_differ_and_there_are_enough() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 12


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with both packages, one function and its test, which does not look at 0."""
    files = {
        "edgenn/__init__.py": "",
        "device/edgenn_device/__init__.py": "def larger(a, b):\n    return a > b\n",
        "tests/test_larger.py": "from edgenn_device import larger\n\ndef test_larger():\n    assert larger(2, 1)\n"
        "    assert not larger(1, 2)\n",
        "tests/test_skipped.py": "import pytest\n\n@pytest.mark.skip(reason='never')\ndef test_skipped():\n    pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def larger(old: str, new: str, test: str = "tests/test_larger.py::test_larger") -> Mutation:
    return Mutation(new, "device/edgenn_device/__init__.py", old, new, (test,))


def test_what_is_caught_and_what_survives(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep([larger("a > b", "a < b"), larger("a > b", "a >= b")], checkout) == 1
    told = capsys.readouterr().out
    assert re.search(r"^edgenn_device is imported from \S*edgenn-mutate-\S*/device/edgenn_device/", told, re.MULTILINE)
    assert re.search(r"^a < b +\| tests/test_larger.py::test_larger \| [\d.]+$", told, re.MULTILINE)
    assert re.search(r"^a >= b +\| SURVIVED \| [\d.]+$", told, re.MULTILINE)
    assert told.endswith("1 of 2 caught\n")
    # The checkout itself is as it was.
    assert "a > b" in (checkout / "device/edgenn_device/__init__.py").read_text()


def test_a_fixture_that_breaks_has_caught_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "tests/test_larger.py").write_text(
        "import pytest\nfrom edgenn_device import larger\n\n@pytest.fixture\ndef two():\n    assert larger(2, 1)\n\n"
        "def test_larger(two):\n    pass\n"
    )
    assert sweep([larger("a > b", "a < b")], checkout) == 1
    assert "a < b | not run:" in capsys.readouterr().out


def test_all_caught_is_status_0(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep([larger("a > b", "a < b")], checkout) == 0
    assert capsys.readouterr().out.endswith("1 of 1 caught\n")


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        (larger("a >= b", "a < b"), "stands 0 times in device/edgenn_device/__init__.py, not once"),
        (larger("a", "x"), "stands 3 times"),
        # What is left out catches nothing.
        (larger("a > b", "a < b", "tests/test_skipped.py::test_skipped"), "never"),
        (larger("a > b", "a < b", "tests/test_larger.py::test_gone"), "not found"),
    ],
)
def test_what_cannot_be_tried_is_not_taken_for_caught(
    mutation: Mutation, said: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep([mutation], checkout) == 1
    told = capsys.readouterr().out
    assert said in told
    assert "nothing is tried before all of the tests can be run" in told
