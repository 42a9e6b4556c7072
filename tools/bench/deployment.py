"""Benchmarks on test devices (tools/arm_device): deploys, power cuts, a fleet, kernels. They need root."""

from __future__ import annotations

import re
import statistics

from .benchmark import (
    EXACT,
    TIME,
    Benchmark,
    Figure,
    NotFound,
    Outcome,
    Reader,
    Tolerance,
    document,
    printed,
    told,
    written,
)

_DEPLOY = "Deployment"


def _all(key: str) -> Reader:
    """The most of a figure of all exchanges of a model."""
    return lambda outcome: max(float(one[key]) for one in document(outcome)["model"])


def _failed(outcome: Outcome) -> float:
    """Tests that failed or were left out, of pytest's last line."""
    if not re.search(r"\d+ passed", outcome.text):
        raise NotFound("no test passed")
    return sum(float(count) for count in re.findall(r"(\d+) (?:failed|error|skipped)", outcome.text))


def _differing(model: str, kernels: str, runtime: str, group: int) -> Reader:
    """Scores that differ on aarch64 (1), and by how many steps (2): the most of all Pythons."""
    line = rf"(?im)^{model} +{kernels} +aarch64 .*{runtime}.* \d+ +(\d+) +(\d+)$"

    def read(outcome: Outcome) -> float:
        found = re.findall(line, outcome.text)
        if not found:
            raise NotFound(f"no line of the output is like {line!r}")
        return max(float(groups[group - 1]) for groups in found)

    return read


_KERNELS = "| built-in | LiteRT 2.3.0 | 3.11 and 3.13 |"
_OLD_KERNELS = "| built-in | tflite-runtime 2.14.0 | 3.11 |"
_XNNPACK = "| XNNPACK | LiteRT 2.3.0 | 3.11 and 3.13 |"

DEPLOYMENT = (
    Benchmark(
        "deploy",
        _DEPLOY,
        "python -m tools.bench_deploy --arch arm64 --repeat 3",
        15,
        (
            Figure(
                "fresh device",
                "| fresh device to the first classified frame | | {} s",
                told("fresh", "seconds"),
                TIME,
                unit="s",
            ),
            Figure(
                "nothing changed, longest",
                "| nothing changed | {target} s |…, …, {} s: met",
                lambda outcome: max(document(outcome)["nothing"]),
                TIME,
                unit="s",
            ),
            Figure(
                "a model alone, longest",
                "| a model alone (…) | {target} s |…, {}, … s (golden",
                _all("seconds"),
                TIME,
                unit="s",
            ),
            Figure(
                "longest gap",
                "| longest gap between frames meanwhile | {target} s |…, …, {} s (",
                _all("gap_s"),
                TIME,
                unit="s",
            ),
            Figure(
                "frames displaced, most",
                "before the exchange, too: …); …, … and {} frames displaced",
                _all("missing_frames"),
                Tolerance(absolute=5),
            ),
        ),
        more=" --json",
        needs=("device",),
    ),
    Benchmark(
        "deploy-native",
        _DEPLOY,
        "python -m tools.bench_deploy --arch arm64 --repeat 3",
        2,
        (
            Figure("fresh device", "natively on amd64: {} s", told("fresh", "seconds"), TIME, unit="s"),
            Figure(
                "nothing changed",
                "natively on amd64: … s, {} s, …, gap",
                lambda outcome: statistics.median(document(outcome)["nothing"]),
                TIME,
                unit="s",
            ),
            Figure(
                "a model alone",
                "natively on amd64: … s, … s, {} s, gap",
                lambda outcome: statistics.median(one["seconds"] for one in document(outcome)["model"]),
                TIME,
                unit="s",
            ),
            Figure(
                "longest gap",
                "natively on amd64: …, gap {} ms",
                lambda outcome: 1e3 * _all("gap_s")(outcome),
                TIME,
                unit="ms",
            ),
        ),
        each=({"--arch arm64": "--arch amd64 --suite trixie"},),
        more=" --json",
        needs=("device",),
    ),
    Benchmark(
        "kills-native",
        _DEPLOY,
        "python -m tools.kill_deploys --kills 50 --arch amd64",
        25,
        (
            Figure(
                "work afterwards",
                "the same disk: {} of 50 worked afterwards",
                printed(r"^(\d+) of \d+ work after it"),
                EXACT,
            ),
        ),
        needs=("device",),
    ),
    Benchmark(
        "kills",
        _DEPLOY,
        "python -m tools.kill_deploys --kills 10 --arch arm64",
        20,
        (Figure("work afterwards", "on emulated arm64 {} of 10", printed(r"^(\d+) of \d+ work after it"), EXACT),),
        needs=("device",),
    ),
    Benchmark(
        "taken-back",
        _DEPLOY,
        "EDGENN_TEST_DEVICE=arm64 python -m pytest -m arm tests/deployment/test_deploy_device.py",
        20,
        (Figure("not taken back", "each taken back, each with its reason", _failed, EXACT, value=0),),
        needs=("device",),
    ),
    *(
        Benchmark(
            name,
            _DEPLOY,
            command,
            10,
            (
                Figure(
                    "events told and recovered from",
                    recorded,
                    printed(r"^(\d+) of \d+ told and recovered from"),
                    EXACT,
                ),
            ),
            needs=("device", "mosquitto"),
        )
        for name, command, recorded in (
            ("operator-day", "python -m tools.operator_day", "arm64. {} of 24 and, without"),
            ("operator-day-arm64", "python -m tools.operator_day --arch arm64", "clock, {} of 22 were told"),
        )
    ),
    Benchmark(
        "newcomer",
        _DEPLOY,
        "python -m tools.newcomer CLOTHING/train --classes t-shirt,shirt,outwear",
        8,
        (
            Figure(
                "make demo",
                "`make demo` is done {} s after `git clone` began",
                told("ends", "make demo"),
                TIME,
                unit="s",
            ),
            Figure("first frame", "first classified frame comes {} s after", told("first_frame"), TIME, unit="s"),
            Figure(
                "first frame, own photos", "began, {} s of them for these photos", told("own_photos"), TIME, unit="s"
            ),
        ),
        more=" --json",
        needs=("device",),
    ),
    Benchmark(
        "fleet",
        _DEPLOY,
        "python -m tools.bench_fleet --devices 20 --arch amd64",
        15,
        (
            *(
                Figure(row, f"| {row} | {{}} |", written("fleet.json", "steps", step, "seconds"), TIME, unit="s")
                for step, row in enumerate(
                    (
                        "fresh deploy",
                        "`edgenn status`",
                        "the same again",
                        "another model, `--canary 5%`",
                        "a model that computes another thing, `--canary 5%`",
                        "another model, one device switched off",
                    )
                )
            ),
            Figure(
                "not as it must be",
                "the canary took it back and said why; 19 were not tried",
                lambda outcome: 0.0 if re.search(r"all as it must be$", outcome.text, re.MULTILINE) else 1.0,
                EXACT,
                value=0,
            ),
        ),
        more=" --json fleet.json",
        needs=("device",),
    ),
    Benchmark(
        "kernels",
        _DEPLOY,
        "python -m tools.compare_kernels_on_arm",
        5,
        (
            Figure(
                "XNNPACK, garments",
                f"{_XNNPACK} equal bits |",
                _differing("garments", "xnnpack", "litert", 1),
                EXACT,
                value=0,
            ),
            Figure(
                "XNNPACK, MobileNetV2",
                f"{_XNNPACK}…| equal bits",
                _differing("mobilenet", "xnnpack", "litert", 1),
                EXACT,
                value=0,
            ),
            Figure(
                "built-in, garments",
                f"{_KERNELS} {{}} scores differ",
                _differing("garments", "builtin", "litert", 1),
                EXACT,
            ),
            Figure(
                "built-in, garments: by steps",
                f"{_KERNELS}…, by {{}} steps of 255",
                _differing("garments", "builtin", "litert", 2),
                EXACT,
            ),
            Figure(
                "built-in, MobileNetV2",
                f"{_KERNELS}…| {{}} differ",
                _differing("mobilenet", "builtin", "litert", 1),
                EXACT,
            ),
            Figure(
                "built-in, MobileNetV2: by steps",
                f"{_KERNELS}…|…, by {{}} at most",
                _differing("mobilenet", "builtin", "litert", 2),
                EXACT,
            ),
            Figure(
                "old, garments",
                f"{_OLD_KERNELS} equal bits",
                _differing("garments", "builtin", "tflite", 1),
                EXACT,
                value=0,
            ),
            Figure(
                "old, MobileNetV2",
                f"{_OLD_KERNELS}…| {{}} differ",
                _differing("mobilenet", "builtin", "tflite", 1),
                EXACT,
            ),
            Figure(
                "old, MobileNetV2: by steps",
                f"{_OLD_KERNELS}…|…, by {{}} at most",
                _differing("mobilenet", "builtin", "tflite", 2),
                EXACT,
            ),
        ),
        needs=("device", "tflite-runtime"),
    ),
)
