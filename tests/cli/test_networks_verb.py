"""`edgenn networks`: the table, its JSON, and that nothing heavy is loaded for it."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from edgenn import networks
from edgenn.cli.networks import command

ROOT = Path(__file__).parents[2]


def asked(*arguments):
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_the_table_has_every_network_and_what_the_papers_say():
    lines = asked().output.splitlines()
    for name in networks.names():
        assert sum(line.startswith(f"{name} ") for line in lines) >= 2  # its row, its source
    row = next(line.split() for line in lines if line.startswith("resnet8 "))
    assert row == ["resnet8", "width=16", "32", "78,666", "12.5", "M", "96", "yes"]


def test_the_docs_show_what_the_command_says():
    page = (ROOT / "docs/networks.md").read_text()
    table = asked().output.split("\n\n")[0]
    assert f"\n{table}\n" in page, "put the output of `edgenn networks` into docs/networks.md"


def test_without_options_tensorflow_is_not_loaded():
    code = (
        "import sys; from edgenn.cli.networks import command; command([], standalone_mode=False);"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_another_size_and_number_of_classes_are_counted():
    result = asked("--size", "16", "--classes", "3", "--json")
    document = json.loads(result.stdout)
    assert document["classes"] == 3
    found = {it["name"]: it for it in document["networks"]}
    assert found["resnet8"]["parameters"] == 78_666 - 7 * 65  # seven classes fewer, each 64 weights and a bias
    assert found["resnet8"]["size"] == 16
    assert found["resnet8"]["edgetpu"] == {"ok": True, "reason": ""}
    assert found["ds_cnn"]["cut"] in found["ds_cnn"]["cuts"]
    assert "mobilenet_v1" not in found  # takes 32 pixels at least, and that is said
    assert "left out: mobilenet_v1 needs pictures of 32 pixels or more" in result.stderr


def test_the_json_without_options_is_the_registry():
    document = json.loads(asked("--json").stdout)
    assert next(it["name"] for it in document["networks"]) == "simple_cnn"
    assert {it["name"] for it in document["networks"]} == set(networks.names())
    assert all(it["macs"] > 0 and it["int8_bytes"] > 0 and it["source"] for it in document["networks"])
    assert {it["name"]: it["imagenet"] for it in document["networks"]}["mobilenet_v2"] is True
