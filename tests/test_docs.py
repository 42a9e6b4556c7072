"""What README and docs tell a reader to type: every command is parsed by the real verbs, and what can run here runs.

Fast: each `edgenn …` of every page goes through click's own parser, so that an option, a choice or a verb that does not
exist fails, and so does a file, module or make target that is not there. What needs no training runs on drawn photos.
Slow (`make test-slow`): README's and the tutorial's commands in their order, training included.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import cv2
import pytest
from click.testing import CliRunner

from edgenn.cli import VERBS, cli
from edgenn_device.garments import LABELS, draw
from tools import newcomer
from tools.examples_in_docstrings import fenced

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODEL = ROOT / "models" / "garments" / "garments.tflite"
SEPARATORS = frozenset({"|", "||", "&&", ";", "&", "(", ")"})


@dataclass(frozen=True)
class Command:
    """One `edgenn` command of a page. `whole` is False for a synopsis, in which brackets and dots stand for more."""

    page: Path
    line: int
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line} edgenn {' '.join(self.words)}"


def code(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, language, line) of fenced and indented blocks; a line that ends in a backslash with its next."""
    fence = language = ""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+)\s*(\w*)", line)
        if mark:
            fence, language = ("", "") if fence else (mark[1], mark[2])
        elif fence or line.startswith("    "):
            first = first or number
            held += line.strip()
            if held.endswith("\\"):
                held = held[:-1]
                continue
            yield first, language, held
            held, first = "", 0


def prose(text: str) -> Iterator[tuple[int, str]]:
    """(line number, words in backticks) outside of blocks."""
    fence = False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*```", line):
            fence = not fence
        elif not fence and not line.startswith("    "):
            yield from ((number, quoted) for quoted in re.findall(r"`([^`]+)`", line))


def typed(line: str) -> Iterator[tuple[str, ...]]:
    """What follows `edgenn` wherever it is the command in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:  # no shell: an apostrophe in a text
        return
    part: list[str] = []
    for token in [*tokens, ";"]:
        if token not in SEPARATORS:
            part.append(token)
            continue
        words, part = part, []
        while words and (words[0] in ("$", "sudo") or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            del words[0]
        if words and (words[0] == "edgenn" or words[0].endswith("/bin/edgenn")):
            redirected = next((index for index, word in enumerate(words) if word in ("<", ">", ">>")), len(words))
            yield tuple(words[1:redirected])


def verbs() -> list[str]:
    return [verb for verb in VERBS if find_spec(f"edgenn.cli.{verb}")]


@cache
def commands() -> list[Command]:
    """Every command of every page."""
    found = []
    for page in PAGES:
        for number, _, line in code(page.read_text()):
            for words in typed(line):
                if words and not words[0].startswith("-"):
                    whole = not re.search(r"…|\[-|\.\.\.|(?<!\w)\[", " ".join(words))
                    found.append(Command(page, number, words, whole))
    return found


def command_of(verb: str) -> click.Command:
    command = cli.get_command(click.Context(cli), verb)
    if command is None:
        raise click.UsageError(f"there is no verb {verb!r}")
    return command


def options(verb: str) -> dict[str, click.Option]:
    command = command_of(verb)
    return {
        name: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help": click.Option(["--help"]), "-h": click.Option(["-h"])}


@cache
def foreign() -> set[str]:
    """Options of other programs that pages speak of: of `python -m venv`, and of what lies in tools/."""
    tools = "".join(path.read_text() for path in (ROOT / "tools").rglob("*.py"))
    return {"--system-site-packages", *re.findall(r"""add_argument\("(--[a-z-]+)""", tools)}


def parse(words: tuple[str, ...]) -> None:
    """By click's own parser, without running anything.

    Raises:
      click.UsageError: a verb, an option, a type or a choice is not there, or something that is needed is missing.
    """
    command = command_of(words[0])
    if "--help" not in words and "-h" not in words:
        command.make_context(words[0], list(words[1:]), parent=click.Context(cli))


def name_options(text: str, verbs: list[str]) -> None:
    """Every `--option` of `text` is one of a verb of `verbs`, and its value one of its choices.

    Raises:
      click.UsageError: it is not.
    """
    for name, value in re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)(?:[ =]([\w.-]+))?", text):
        if name in ("--help", "--version"):
            continue
        having = [options(verb)[name] for verb in verbs if name in options(verb)]
        if not having and len(verbs) > 1 and name in foreign():
            continue
        if not having:
            raise click.UsageError(f"there is no option {name} of edgenn {'/'.join(verbs) if len(verbs) < 3 else ''}")
        choices = [option.type.choices for option in having if isinstance(option.type, click.Choice)]
        if value and len(choices) == len(having) and value.islower() and not any(value in some for some in choices):
            raise click.UsageError(f"{name} takes no {value!r}")


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_of_the_docs_is_one_that_edgenn_takes(command: Command) -> None:
    if command.whole:
        parse(command.words)
    else:
        name_options(" ".join(command.words[1:]), [command.words[0]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_named_in_the_text_exist(page: Path) -> None:
    for number, quoted in prose(page.read_text()):
        verb = re.match(r"(?:\.venv/bin/)?edgenn ([a-z]+)", quoted)
        try:
            if verb:
                assert verb[1] in VERBS, f"{page.name}:{number}: there is no verb {verb[1]!r}"
                name_options(quoted, [verb[1]])
            elif quoted.startswith("--"):
                name_options(quoted, verbs())
        except click.UsageError as error:
            pytest.fail(f"{page.name}:{number}: {error.format_message()}")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("run model.tflite --sauce 0", "--sauce"),  # no such option
        ("walk model.tflite", "walk"),  # no such verb
        ("convert runs/first --quantization int7", "int7"),  # no such choice
        ("run model.tflite --limit many", "many"),  # no number
        ("train photos", "out"),  # something needed is missing
        ("inspect a.tflite b.tflite", "b.tflite"),  # one too many
    ],
)
def test_a_wrong_command_would_be_found(words: str, wrong: str) -> None:
    with pytest.raises(click.UsageError, match=re.escape(wrong)):
        parse(tuple(words.split()))


def test_a_wrong_option_in_the_text_would_be_found() -> None:
    with pytest.raises(click.UsageError, match="--sauce"):
        name_options("--sauce 0", verbs())
    with pytest.raises(click.UsageError, match="int7"):
        name_options("--quantization int7", ["convert"])


def test_every_verb_is_in_the_docs() -> None:
    shown = {command.words[0] for command in commands()}
    for page in PAGES:
        shown |= {quoted.split()[1] for _, quoted in prose(page.read_text()) if re.match(r"edgenn [a-z]", quoted)}
    assert set(VERBS) - shown == set()


def places(page: Path) -> Iterator[str]:
    """Files of the project that a page speaks of, by links and in words."""
    # Without the first line of contributing.md's examples, which says where they would belong.
    text = re.sub(r"(```\w+\n)# \S+\n", r"\1", page.read_text())
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", link):
            yield str((page.parent / link).resolve().relative_to(ROOT))
    yield from re.findall(
        r"(?<![\w/.*-])((?:tools|tests|edgenn|device|models|docs)/[\w./-]*\w"
        r"\.(?:py|md|toml|service|conf|tflite|json|svg|webp))",
        text,
    )
    for module in re.findall(r"python3? -m (tools[\w.]*)", text):
        name = module.replace(".", "/")
        yield name if (ROOT / name).is_dir() else f"{name}.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_speaks_of_exist(page: Path) -> None:
    missing = [place for place in places(page) if not (ROOT / place).exists()]
    assert missing == []


def sources() -> list[Path]:
    return [*(ROOT / "edgenn").rglob("*.py"), *(ROOT / "device").rglob("*.py"), *(ROOT / "device").rglob("*.service")]


def test_pages_that_the_code_speaks_of_exist() -> None:
    told = {(path, page) for path in sources() for page in re.findall(r"docs/[\w-]+\.\w+", path.read_text())}
    assert told
    assert [f"{path}: {page}" for path, page in told if not (ROOT / page).exists()] == []


def said_by_the_code() -> str:
    """All texts in the sources, the pieces of one joined, a null character for what is put in."""
    found: list[str] = []
    for path in sources():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_symptoms_are_what_the_code_says() -> None:
    """A message that is quoted whole ends up in somebody's search field: it has to be the one that is printed."""
    said = said_by_the_code()
    quoted = []
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines():
        symptom = line.split("|")[1] if line.startswith("|") else ""
        quoted += [text for text in re.findall(r"`([^`]+)`", symptom) if " " in text]
    # Said by others: pip, NumPy, the loader, Python, the kernel, TFLite, the shell.
    others = re.compile(
        r"No matching|numpy|libGL|No module|Illegal|Didn't find|edgenn |edgenn: command not found|_ARRAY"
    )
    ours = [text for text in quoted if not others.match(text)]
    assert len(ours) > 30
    missing = [
        text for text in ours if not all(piece.strip() in said for piece in text.split("…") if len(piece.strip()) > 2)
    ]
    assert missing == []


def test_make_targets_that_the_docs_name_exist() -> None:
    have = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        lines = [line for _, _, line in code(text)] + [quoted for _, quoted in prose(text)]
        named = {word for line in lines if line.startswith("make ") for word in re.findall(r"^make ([a-z-]+)", line)}
        assert named <= have, f"{page.name}: make {named - have}"


def python_blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append((f"{page.relative_to(ROOT)}:{number}", block))
    return found


@pytest.mark.parametrize(("place", "block"), python_blocks(), ids=lambda value: value if "\n" not in value else "")
def test_python_of_the_docs_compiles_and_imports_what_there_is(place: str, block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgenn"):
            module = import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}"), f"{place}: {name.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edgenn":
            assert hasattr(import_module("edgenn"), node.attr), f"{place}: edgenn.{node.attr}"


@pytest.mark.parametrize(("page", "package"), [("edgenn", "edgenn"), ("edgenn_device", "edgenn_device")])
def test_the_whole_public_api_is_documented(page: str, package: str) -> None:
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text()
    for name in import_module(package).__all__:
        assert f"heading: {package}.{name}\n" in text, name
    for path in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name), path


def test_examples_of_docstrings_become_blocks_of_code() -> None:
    text = "Adds.\n\n>>> 1 + 1   # doctest: +SKIP\n2\n\nMore."
    assert fenced(text) == "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."


# What runs ------------------------------------------------------------------------------------------------------------


def furnish(folder: Path, each: int, side: tuple[int, int] = (120, 160)) -> None:
    """What the docs take for granted: photos of three classes, more pictures, and models under the names they use."""
    for label in LABELS:
        for place, first in (("photos", 0), ("catalogue", 5000)):
            (folder / place / label).mkdir(parents=True)
            for number in range(each if place == "photos" else 2):
                cv2.imwrite(str(folder / place / label / f"{number:04d}.jpg"), draw(label, first + number, side))
    (folder / "new-pictures").mkdir()
    for number, label in enumerate(LABELS):
        cv2.imwrite(str(folder / "new-pictures" / f"{number}.jpg"), draw(label, 9000 + number, side))
    (folder / "models" / "garments").mkdir(parents=True)
    shutil.copy(MODEL, folder / "models" / "garments" / "garments.tflite")


@pytest.fixture
def desk(tmp_path: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder as the docs take it for granted, its models the shipped one."""
    folder = tmp_path / "desk"
    shutil.copytree(made_once("desk", lambda place: furnish(place, 6)), folder)
    (folder / "runs" / "first").mkdir(parents=True)
    for name in ("model.tflite", "garments.tflite", "runs/first/model.tflite", "MODEL.tflite"):
        shutil.copy(MODEL, folder / name)
    # What `edgenn train` has left there.
    (folder / "runs" / "first" / "report.html").touch()
    return folder


def adapted(words: tuple[str, ...]) -> tuple[str, ...]:
    """The same command with what is here in the place of a camera, a broker and placeholders."""
    given = {"MODEL": "model.tflite", "PHOTOS": "photos", "RUN": "runs/first"}
    verb, *rest = (given.get(word, word) for word in words)
    if verb not in ("run", "collect"):
        return (verb, *rest)
    # A camera is drawn, and ends; there is no broker, and the page's port may be another's.
    kept: list[str] = []
    for previous, word in zip(["", *rest], rest, strict=False):
        if previous == "--source" and not word.startswith("new-pictures"):
            kept.append("synthetic")
        elif previous == "--sink" and word.partition(":")[0] not in ("jsonl", "csv", "sqlite", "video"):
            kept.pop()
        elif previous == "--web" and not word.startswith("--"):
            continue
        else:
            kept.extend(["--web", "127.0.0.1:0"] if word == "--web" else [word])
    ends = {"run": ["--limit", "5"], "collect": ["--count", "2", "--every", "0"]}
    return (verb, *kept, *ends[verb])


def fast(command: Command) -> bool:
    """Whether it needs no training, nothing that is not here, and ends by itself within a moment."""
    verb, *rest = command.words
    elsewhere = ("ray", "s3:", "https://", "/catalogue", "usb", "pci", "corrections.json", "--watch", "_edgetpu")
    if not command.whole or "--on" in rest or any(part in word for word in rest for part in elsewhere):
        return False
    if verb == "profile":
        return "--device" in rest and "FILE" not in " ".join(rest)
    return verb in ("doctor", "inspect", "evaluate", "run", "tag")


RUN_HERE = sorted({adapted(command.words) for command in commands() if fast(command)})


@pytest.mark.parametrize("words", RUN_HERE, ids=" ".join)
def test_a_command_of_the_docs_runs(words: tuple[str, ...], desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(desk / "config"))
    paths = "".join(f"{path}\n" for path in sorted(desk.glob("catalogue/*/*")))
    done = CliRunner().invoke(cli, words, input=paths if "-" in words else None, standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        # Whether the machine that runs the tests is a healthy one is for `doctor` to say, not for its page.
        assert words[0] == "doctor", f"{done.exception}\n{done.output}"


def test_enough_of_the_docs_runs() -> None:
    """That what is executed has not shrunk to nothing by a change of how pages are written."""
    assert {words[0] for words in RUN_HERE} == {"doctor", "inspect", "evaluate", "run", "tag", "profile"}
    assert len(RUN_HERE) >= 15


# What has no end, needs a device, or is tried whole by its own tests.
ELSEWHERE = ("demo", "serve", "deploy", "rollback", "releases", "undeploy", "status", "logs", "image", "sign")


def road(page: Path) -> list[tuple[str, ...]]:
    """What a reader types who follows a page, in order, as far as it can be done without internet and a device."""
    steps = []
    for command in commands():
        words = adapted(command.words)
        verb = words[0]
        if command.page != page or not command.whole or verb in ELSEWHERE or {"--on", "--from"} & set(words):
            continue
        if verb == "train" and "--out" in words and "runs/first" not in words:
            # The weights of ImageNet are not here; that this network, a teacher and --resume are taken is what counts.
            words = tuple(word for word in words if word not in ("--weights", "imagenet"))
            if "--resume" not in words:
                words += ("--epochs", "1", "--size", "64")
        if verb == "search":
            # The limits are for a machine that does nothing else.
            words += ("--trials", "1", "--networks", "simple_cnn", "--max-latency", "2s")
        if verb == "profile" and "--device" not in words:
            words += ("--seconds", "1")
        steps.append(words)
    return steps


def test_the_timed_road_is_the_one_of_readme() -> None:
    lines = [line.partition("#")[0].strip() for _, _, line in code((ROOT / "README.md").read_text())]
    places = [lines.index(line) for line in newcomer.LINES]
    assert places == sorted(places)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_road_of_a_page_can_be_gone(page: str, tmp_path: Path) -> None:
    furnish(tmp_path, 60)
    for words in road(ROOT / page):
        command = [str(Path(sys.executable).with_name("edgenn")), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
        allowed = (0, 1) if words[0] == "doctor" else (0,)
        # A finished run has nothing to resume, and says so.
        if "--resume" in words and "unfinished" in done.stderr:
            continue
        assert done.returncode in allowed, f"edgenn {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
