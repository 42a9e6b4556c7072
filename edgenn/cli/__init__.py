"""The `edgenn` command: one file per verb, loaded when it is called, and one place where errors become lines.

Nothing heavy is imported here: `edgenn --help` costs click and nothing more.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
from importlib import import_module
from typing import NoReturn

import click

from edgenn_device.errors import AnswerIsNo, EdgennError

from .. import __version__

# In the order of the road. The module of a verb is edgenn.cli.VERB and its click command is called `command`.
VERBS = {
    "demo": "The whole road on drawn garments: train, quantize, classify a video.",
    "networks": "The networks there are: size, cost, and what can run them.",
    "train": "Train a network on labelled photos.",
    "search": "Find the network that is best within a latency and a size.",
    "convert": "Quantize a trained run to a .tflite that is checked before it leaves.",
    "debug": "Why int8 loses: layer by layer, picture by picture.",
    "evaluate": "How good a model is, class by class.",
    "inspect": "What is in a model, and what can run it.",
    "run": "Classify a camera, a video or a folder, live.",
    "collect": "Take labelled photos with a camera, for the next training.",
    "tag": "Label a catalogue of pictures.",
    "serve": "Answer pictures over HTTP: JSON, and the Open Inference Protocol.",
    "profile": "Where the time goes: latency, memory, stages, operators.",
    "deploy": "Bring a model to devices; one that does not work there takes itself back.",
    "rollback": "Go back to the release before.",
    "releases": "What was deployed to devices, and what became of it.",
    "undeploy": "Take edgenn off devices again; what they have recorded stays.",
    "status": "How devices are: release, health, speed, temperature, label now.",
    "logs": "What devices write in their journal.",
    "image": "Make a new SD card come up as a working device.",
    "sign": "Sign a model for devices that accept signed ones alone.",
    "doctor": "What this machine can and cannot do, and the line to type to mend it.",
}

# Characters of an error that nobody has foreseen.
_MOST_TOLD = 300


class _Verbs(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"edgenn.cli.{name}").command
        command.name, command.short_help = name, VERBS[name]
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError:
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1, cutoff=0.7)
            hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(VERBS)}"
            raise click.UsageError(f"no verb {args[0]!r}: {hint}") from None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: edgenn train photos --out runs/first && edgenn convert runs/first",
)
@click.version_option(__version__, prog_name="edgenn", message="%(prog)s %(version)s")
def cli() -> None:
    """From labelled photos to an int8 model that classifies a live camera on a Raspberry Pi or Coral board."""


def main() -> None:
    """Run the command; exit 0 done, 1 the answer is no, 2 the request or its input is wrong, 130 interrupted.

    EDGENN_DEBUG=1 shows the traceback of any error.
    """
    _open_what_is_closed()
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = 2
    except click.UsageError as error:
        hint = f"; try `{error.ctx.command_path} --help`" if error.ctx else ""
        status = _say(error.format_message().removesuffix("."), hint)
    except (click.Abort, KeyboardInterrupt):
        click.echo("edgenn: interrupted", err=True)
        status = 130
    except AnswerIsNo as answer:
        click.echo(f"edgenn: {answer}", err=True)
        status = 1
    except SystemExit:
        # How click ends when the reader of our output has gone (`| head`): that is no failure of ours.
        status = 0
    except EdgennError as error:
        status = _say(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            status = _say(f"no room left on the disk ({error.filename or 'while writing'}): free some and try again")
        else:
            status = _say(f"{error.filename or 'the system'}: {error.strerror or error}")
    except MemoryError:
        status = _say("out of memory: close other programs, or use smaller pictures or a smaller --batch")
    except Exception as error:
        # Some errors carry all that they were given, and a line of a megabyte hides what it says.
        told = str(error)
        told = told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]} …"
        status = _say(f"a defect in edgenn: {type(error).__name__}: {told} (EDGENN_DEBUG=1 shows where)")
    _end(status if isinstance(status, int) else 0)


def _open_what_is_closed() -> None:
    """Put the null device in the place of a standard stream that is closed (`>&-`), for which Python gives None.

    Verbs ask streams for more than to be written to; and the next file that is opened would be the stream's descriptor,
    into which native libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="replace"))  # noqa: SIM115 - to the end


def _end(status: int) -> NoReturn:
    """End the process; at once where a thread was left behind (a camera that hangs, a model that is still loaded).

    Python would end such a thread when it comes back from a native library, which C++ takes for an error: the process
    would abort, and systemd call a service failed that was stopped.
    """
    if not any(one.daemon for one in threading.enumerate()):
        sys.exit(status)
    # As Python does at its end: wait for the other threads, then what was to be done last.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # Its reader has gone.
    os._exit(status)


def _say(message: str, hint: str = "") -> int:
    if os.environ.get("EDGENN_DEBUG"):
        import traceback

        traceback.print_exc()
    click.echo(f"edgenn: {' '.join(message.split())}{hint}", err=True)
    return 2
