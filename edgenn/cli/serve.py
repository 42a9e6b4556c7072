"""`edgenn serve`: a model behind HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edgenn_device.errors import EdgennError

from . import options as shared

if TYPE_CHECKING:
    from edgenn.serving.server import Serving


@click.command(
    "serve",
    epilog="Example: edgenn serve model.tflite, and then: curl --data-binary @photo.jpg http://127.0.0.1:8000/classify",
)
@click.argument("model", type=click.Path())
@click.option(
    "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="To listen on; elsewhere with a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", default=8000, show_default=True, help="0 takes a free one."
)
@click.option(
    "--name", metavar="NAME", help="What the model is called in answers and paths.  [default: the card's name]"
)
@shared.labels
@click.option("--workers", type=shared.PARALLEL, metavar="N", help="Interpreters.  [default: the cores]")
@shared.runtime
@click.option(
    "--token-file", type=click.Path(), metavar="FILE", help="A private file with the token that clients must show."
)
@click.option(
    "--queue", type=click.IntRange(min=1), metavar="N", default=32, show_default=True, help="Requests that may wait."
)
@click.option(
    "--max-body",
    type=shared.NumberRange(0.001, 1024),
    metavar="MB",
    default=16,
    show_default=True,
    help="Of a request.",
)
@click.option(
    "--max-pixels",
    type=shared.NumberRange(0.001, 134),
    metavar="MILLIONS",
    default=50,
    show_default=True,
    help="Of a picture.",
)
@click.option(
    "--drain",
    type=shared.NumberRange(0.1, 3600),
    metavar="SECONDS",
    default=20,
    show_default=True,
    help="To end after SIGTERM.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout once it accepts connections.")
def command(
    model: str,
    host: str,
    port: int,
    name: str | None,
    labels: str | None,
    workers: int | None,
    runtime: str,
    token_file: str | None,
    queue: int,
    max_body: float,
    max_pixels: float,
    drain: float,
    as_json: bool,
) -> None:
    """Serve MODEL (a .tflite) until SIGTERM or Ctrl-C: POST a picture to /classify and get its label.

    Beside it the Open Inference Protocol (KServe v2) at /v2 and Prometheus metrics at /metrics. Listens on this
    machine only; with --host elsewhere, clients must show the token that is kept in a file.
    """
    try:
        from edgenn.serving.limits import Limits
        from edgenn.serving.server import serve
    except ModuleNotFoundError as error:
        raise EdgennError(f"{error.name} is missing; serving needs its extra: pip install 'edgenn[serve]'") from None

    body = int(max_body * 1_000_000)
    defaults = Limits()
    limits = Limits(
        body=body,
        bodies=max(defaults.bodies, 4 * body),
        pixels=int(max_pixels * 1_000_000),
        queue=queue,
        drain_time=drain,
    )
    serve(
        model,
        labels=labels,
        name=name,
        host=host,
        port=port,
        workers=workers,
        runtime=runtime,
        token_file=token_file,
        limits=limits,
        ready=lambda serving: click.echo(_json(serving) if as_json else _text(serving)),
    )


def _json(serving: Serving) -> str:
    return json.dumps(
        {
            "model": serving.model,
            "url": serving.url,
            "workers": serving.workers,
            "runtime": serving.runtime,
            "token_file": None if serving.token_file is None else str(serving.token_file),
        }
    )


def _text(serving: Serving) -> str:
    lines = [
        f"{serving.model} at {serving.url} ({serving.workers} interpreters, {serving.runtime}); Ctrl-C ends it",
        f"  curl --data-binary @photo.jpg {serving.url}/classify",
    ]
    if serving.token_file is not None:
        lines[1] += f' -H "Authorization: Bearer $(cat {serving.token_file})"'
    return "\n".join(lines)
