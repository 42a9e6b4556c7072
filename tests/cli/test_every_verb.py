"""What holds for every verb: an example in its help, one meaning for one name, and completion in three shells.

The verbs are walked as click has them, so that a new one is held to the same without being named here.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from edgenn.cli import VERBS, cli
from edgenn.training.recipe import DEFAULTS, Recipe

ROOT = Path(__file__).parents[2]
# Options whose meaning goes with the verb, and why it may.
PER_VERB = {
    "--out": "what the verb writes",
    "--config": "run: its own options; deploy, image: those of the devices",
    "--to": "tag: the folder of --apply; rollback: a release",
    "--json": "run, logs: a line for each; serve, status, tag: when",
    "--size": "train: the input's side; run: what a camera is asked for; networks: what is counted",
    "--name": "run: of the device; serve: of the model",
    "--source": "run, collect: of a camera; profile: of the pipeline that is measured; deploy, image: of the devices",
    "--labels": "convert: the labels of a network without a run; else those of a model",
    "--photos": "where the photos are now",
    "--weights": "train: one; search: several, the first that fits",
    "--runtime": "profile: several, timed in turns",
    "--epochs": "train: of training; convert: of quantization-aware training",
    "--classes": "networks: how many; elsewhere which folders",
    "--workers": "tag: processes; serve: interpreters",
    "--watch": "tag: a folder; status: look again and again",
    "--recipe": "search: what is not searched",
    "--seed": "of what is drawn at random",
}


def verbs() -> list[str]:
    return [verb for verb in VERBS if find_spec(f"edgenn.cli.{verb}")]


def command(verb: str) -> click.Command:
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    return found


def options(verb: str) -> list[click.Option]:
    return [parameter for parameter in command(verb).params if isinstance(parameter, click.Option)]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_there(verb: str) -> None:
    assert command(verb).name == verb
    # What zsh and fish show beside the verb that they complete.
    assert command(verb).get_short_help_str(200).removesuffix(".") == VERBS[verb].removesuffix(".")


@pytest.mark.parametrize("verb", verbs())
def test_help_has_an_example_that_the_verb_takes(verb: str) -> None:
    epilog = command(verb).epilog or ""
    assert epilog.lstrip("\b\n").startswith("Example"), f"edgenn {verb} --help has no example"
    examples = re.findall(rf"edgenn ({verb}\b[^\n|<>#&;]*)", epilog)
    assert examples, f"the example of edgenn {verb} is of another verb"
    for example in examples:
        words = shlex.split(re.sub(r",? and then:.*|  .*| …", "", example))
        if words[1:]:
            command(verb).make_context(verb, words[1:], parent=click.Context(cli))


@pytest.mark.parametrize("verb", verbs())
def test_help_says_what_each_option_is_for(verb: str) -> None:
    for option in options(verb):
        assert option.help, f"edgenn {verb} {option.opts[0]} has no help"
        assert option.help.rstrip().endswith((".", ")", "]")), (
            f"{verb} {option.opts[0]}: a sentence ends in a full stop"
        )
    assert (command(verb).help or "").strip()


def kind(option: click.Option) -> str:
    """The type as a person sees it."""
    if option.is_flag or option.is_bool_flag:
        return "flag"
    if isinstance(option.type, click.Path):
        return "path"
    if isinstance(option.type, click.Choice):
        return "choice " + "|".join(option.type.choices)
    if isinstance(option.type, click.IntRange | click.types.IntParamType):
        return "integer"
    if isinstance(option.type, click.FloatRange | click.types.FloatParamType):
        return "number"
    return "text"


def explained(option: click.Option) -> str:
    """Its help without the default, which click appends where it knows it."""
    return " ".join((option.help or "").partition("  [default")[0].split())


def by_name() -> dict[str, list[tuple[str, click.Option]]]:
    found = defaultdict(list)
    for verb in verbs():
        for option in options(verb):
            found[option.opts[0]].append((verb, option))
    return found


@pytest.mark.parametrize("name", sorted(name for name, having in by_name().items() if len(having) > 1))
def test_one_name_has_one_meaning(name: str) -> None:
    having = by_name()[name]
    if name not in PER_VERB:
        told = {explained(option) for _, option in having}
        assert len(told) == 1, f"{name} is explained in {len(told)} ways: {told}"
    kinds = {kind(option): verb for verb, option in having}
    assert len(kinds) == 1 or name in PER_VERB_WORD, f"{name}: {kinds}"
    repeatable = {option.multiple: verb for verb, option in having}
    assert len(repeatable) == 1 or name in ("--out", "--weights"), f"{name} may be repeated in {repeatable.get(True)}"


# One name, and yet another word for what stands behind it, because that is another thing.
PER_VERB_WORD = {
    "--out": "a folder, a file, or what tag makes of it",
    "--size": "a side; what a camera is asked for",
    "--classes": "networks: how many; elsewhere which",
    "--runtime": "profile takes several, timed in turns",
    "--threads": "profile takes several, timed in turns",
    "--to": "tag: a folder; rollback: a release",
    "--watch": "tag: a folder; status: a switch",
}


def word(option: click.Option) -> str:
    """What help shows behind the option's name; "" for one that takes no value."""
    return "" if option.is_flag or option.is_bool_flag else option.make_metavar(click.Context(cli))


@pytest.mark.parametrize("name", sorted(by_name()))
def test_what_an_option_takes_is_named_in_a_persons_words_and_everywhere_the_same(name: str) -> None:
    words = {word(option): verb for verb, option in by_name()[name]}
    # What click writes where nobody has said it: the name of a type.
    types = re.compile(r"INTEGER|FLOAT|TEXT|RANGE|FILENAME")
    assert not [shown for shown in words if types.search(shown)], f"{name}: {words}"
    assert "PATH" not in words, f"{name}: FILE or DIR? {words}"
    assert len(words) == 1 or name in PER_VERB_WORD, f"{name}: {words}"


@pytest.mark.parametrize("verb", verbs())
def test_a_default_is_told_in_brackets(verb: str) -> None:
    for option in options(verb):
        help = option.help or ""
        assert "if not given" not in help, f"{verb} {option.opts[0]}: write [default: …]"
        assert "given repeatedly" not in help, f"{verb} {option.opts[0]}: write repeatable"
        assert "[default" not in help or re.search(r"  \[default: [^\]]+\]$", help), f"{verb} {option.opts[0]}: {help}"
        if option.show_default is True:
            assert not str(option.default).endswith(".0"), f"{verb} {option.opts[0]}: {option.default}"


def test_help_of_train_tells_the_defaults_that_hold() -> None:
    shown = {option.name: option.help or "" for option in options("train")}
    for setting in ("epochs", "patience", "batch", "learning_rate", "weight_decay"):
        scratch, transfer = (DEFAULTS[mode][setting] for mode in ("scratch", "transfer"))
        assert f"[default: {scratch:g}" in shown[setting]
        assert scratch == transfer or f"with --weights {transfer:g}]" in shown[setting]
    for setting in ("network", "resize", "weights", "seed", "precision"):
        assert f"[default: {getattr(Recipe(), setting)}]" in shown[setting]


def test_exceptions_are_needed() -> None:
    """That the list of what differs shrinks when a difference goes."""
    assert set(PER_VERB) <= {name for name, having in by_name().items() if len(having) > 1}
    told = {name: {explained(option) for _, option in having} for name, having in by_name().items()}
    assert [name for name in PER_VERB if len(told[name]) == 1] == []
    assert [name for name in PER_VERB_WORD if len({word(option) for _, option in by_name()[name]}) == 1] == []


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_speaks_json(verb: str) -> None:
    assert "--json" in {option.opts[0] for option in options(verb)}


@pytest.mark.parametrize("verb", verbs())
def test_a_number_is_finite(verb: str) -> None:
    for option in options(verb):
        if kind(option) != "number":
            continue
        for text in ("nan", "-nan", "inf", "-inf", "1e999"):
            with pytest.raises(click.BadParameter, match="is not a finite number"):
                option.type.convert(text, option, None)


def test_options_that_messages_tell_to_type_exist() -> None:
    known = {name for verb in verbs() for option in options(verb) for name in (*option.opts, *option.secondary_opts)}
    known |= {"--help", "--version", "--config"}
    # Of other programs that a line tells to type.
    known |= {
        "--force-reinstall",
        "--system-site-packages",
        "--sort",
        "--reinstall",
        "--list-cameras",
        "--no-install-recommends",
    }
    known |= {"--vacuum-size", "--without-pip", "--system"}
    unknown = []
    for path in [*(ROOT / "edgenn").rglob("*.py"), *(ROOT / "device").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", getattr(node.func, "attr", ""))
                in (
                    "EdgennError",
                    "AnswerIsNo",
                    "UsageError",
                    "BadParameter",
                    "Check",
                )
            ):
                continue
            for text in ast.walk(node):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text.value)) - known
                    unknown += [f"{path.relative_to(ROOT)}:{text.lineno} {name}" for name in sorted(named)]
    assert unknown == []


# Completion -----------------------------------------------------------------------------------------------------------


def complete(shell: str, *words: str, index: int | None = None, folder: Path | None = None) -> list[str]:
    """What the shell is told when the last word is to be completed."""
    environment = {**os.environ, "_EDGENN_COMPLETE": f"{shell}_complete"}
    if shell == "fish":
        environment |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": words[-1]}
    else:
        environment |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    program = str(Path(sys.executable).with_name("edgenn"))
    done = subprocess.run(
        [program], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_gives_verbs_options_and_files(shell: str) -> None:
    first = "\n".join(complete(shell, "edgenn", "con"))
    assert "convert" in first
    assert "collect" not in first
    assert "--quantization" in "\n".join(complete(shell, "edgenn", "convert", "--quan"))
    assert "equalized" in "\n".join(complete(shell, "edgenn", "convert", "--quantization", "eq"))
    # Files are the shell's own to complete: it is told so.
    assert "file" in "\n".join(complete(shell, "edgenn", "inspect", "mod"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_that_switches_completion_on_gives_a_script(shell: str) -> None:
    environment = {**os.environ, "_EDGENN_COMPLETE": f"{shell}_source"}
    program = str(Path(sys.executable).with_name("edgenn"))
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert f"{shell}_complete" in done.stdout
    assert done.stderr == ""


def test_completion_works_in_a_real_bash(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    program = Path(sys.executable).with_name("edgenn")
    script = f"""
        PATH={program.parent}:$PATH
        eval "$(_EDGENN_COMPLETE=bash_source edgenn)"
        COMP_WORDS=(edgenn ins) COMP_CWORD=1; _edgenn_completion edgenn ins edgenn; echo "verbs ${{COMPREPLY[@]}}"
        COMPREPLY=() COMP_WORDS=(edgenn run --rota) COMP_CWORD=2
        _edgenn_completion edgenn --rota run; echo "options ${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "verbs inspect" in done.stdout, done.stderr
    assert "options --rotate" in done.stdout, done.stderr
