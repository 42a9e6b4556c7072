"""The schedule: what happens in a day, and what must be told of it and where."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from edgenn.deployment.releases import releases, rollback

from .camera import How
from .day import Day, Expected, Happening, Work, rose
from .seen import LOGS, METRICS, MQTT, PAGE, STATUS, SYSTEMD

DATA = "/var/lib/edgenn"
_FAILED = r'edgenn_health_state\{state="failed"\} 1\.0'
_DEGRADED = r'edgenn_health_state\{state="degraded"\} 1\.0'
# Room for the service's files on the small disk.
_SMALL = 24
_CLOCK = "/etc/edgenn-clock"
_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def _camera(name: str, how: How, says: str, state: str = "failed") -> Happening:
    """A fault of the camera: everything that shows the device's health says what the camera does."""
    return Happening(
        name,
        cause=lambda day: day.camera.now(how),
        told={
            STATUS: rf"^{state} .*source: .*{says}",
            LOGS: says,
            PAGE: rf'"state": "{state}", "reasons": \["source: .*{says}',
            MQTT: rf'^state .*"health": "{state}", "reasons": \["source: .*{says}',
            METRICS: r'edgenn_part_ok\{part="source"\} 0\.0',
            SYSTEMD: rf"Status: .*{says}",
        },
        mend=lambda day: day.camera.now("well"),
    )


def _broker(name: str, cause: Work, mend: Work, *, offline: bool) -> Happening:
    told: dict[str, Expected] = {
        STATUS: r"^degraded .*sink:mqtt",
        LOGS: r"mqtt://\S+: ",
        PAGE: r'"state": "degraded", "reasons": \["sink:mqtt',
        METRICS: r'edgenn_part_ok\{part="sink:mqtt[^"]*"\} 0\.0',
        SYSTEMD: r"Status: .*sink:mqtt",
    }
    if offline:
        told[MQTT] = "^availability offline"
    return Happening(name, cause, told, mend)


def _wrong_address(day: Day) -> None:
    wrong = day.folder / "wrong.toml"
    wrong.write_text(day.options.read_text().replace(day.camera.url, "http://127.0.0.1:9/stream.mjpg"))
    day.must_not_deploy(day.models[1], wrong)


def _roll_back(day: Day) -> None:
    [answer] = rollback([day.host], within=day.patience)
    if not answer.ok:
        raise AssertionError(f"the rollback does not work: {answer.reason}")


def _cut_while_updating(day: Day) -> None:
    """No picture comes from the moment the new model has been proved to compute: so the switch is surely under way."""
    computed, switched = threading.Event(), threading.Event()

    def hear(step: str) -> None:
        if step == "golden vectors":
            day.camera.now("frozen")
            computed.set()
        if step == "switched":
            switched.set()

    def update() -> None:
        day.deploy(day.models[2], told=hear)

    day.running = threading.Thread(target=update, daemon=True)
    day.running.start()
    # The deploy may have to make an environment first.
    day.until("the switch is under way", switched.is_set, times=5)
    day.device.kill()
    day.camera.now("well")
    day.device.boot()


def _reboot(day: Day) -> None:
    before = day.run("cat /proc/sys/kernel/random/boot_id; systemctl show --property=UserspaceTimestampMonotonic")
    day.run("sudo systemctl reboot", check=False)

    def is_back() -> bool:
        try:
            now = day.device.run("systemctl show --property=UserspaceTimestampMonotonic", check=False, timeout=20)
        except Exception:
            return False
        return now.returncode == 0 and now.stdout.strip() not in before

    day.until("it boots", is_back)


def _fill(day: Day) -> None:
    day.run(f"sudo dd if=/dev/zero of={DATA}/ballast bs=1M; sudo dd if=/dev/zero of={DATA}/ballast2 bs=4k; true")


def _small_disk(day: Day) -> None:
    """The service's files on a file system of their own, as on a card with partitions."""
    move = f"mount -t tmpfs -o size={_SMALL}m,mode=0750 tmpfs /mnt && cp -a {DATA}/. /mnt/ && chown edgenn:edgenn /mnt"
    day.run(
        f"sudo systemctl stop edgenn && sudo sh -c '{move} && mount --move /mnt {DATA} || mount --bind /mnt {DATA}'"
    )
    day.run("sudo systemctl start edgenn")


def _large_disk(day: Day) -> None:
    day.run(f"sudo systemctl stop edgenn; sudo umount {DATA}; sudo umount /mnt 2>/dev/null; true")
    day.run("sudo systemctl start edgenn")


def _own_clock(day: Day) -> None:
    """The service gets a clock that can be set without setting everybody's on this machine."""
    day.device.put(_LIBRARY, "/tmp/clock")
    drop_in = (
        f"[Service]\\nEnvironment=LD_PRELOAD=/opt/{_LIBRARY.name} FAKETIME_TIMESTAMP_FILE={_CLOCK} "
        "FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_CACHE_DURATION=1\\n"
    )
    day.run(
        f"sudo install -m 755 /tmp/clock/{_LIBRARY.name} /opt/ && echo +0 | sudo tee {_CLOCK} && "
        "sudo mkdir -p /etc/systemd/system/edgenn.service.d && "
        f"printf '{drop_in}' | sudo tee /etc/systemd/system/edgenn.service.d/clock.conf && "
        "sudo systemctl daemon-reload && sudo systemctl restart edgenn"
    )


def _set_clock(offset: str) -> Work:
    return lambda day: day.run(f"echo {offset} | sudo tee {_CLOCK}")


def _no_own_clock(day: Day) -> None:
    day.run("sudo rm /etc/systemd/system/edgenn.service.d/clock.conf && sudo systemctl daemon-reload")
    day.run("sudo systemctl restart edgenn")


def _a_month_later(day: Day) -> None:
    _set_clock("+40d")(day)
    day.run("sudo systemctl restart --no-block edgenn")


def _look_for_old(day: Day) -> None:
    """What is older than a month by the service's clock is gone."""
    database = f"sqlite3.connect('file:{DATA}/events.db?mode=ro', uri=True)"
    script = f"import sqlite3; print({database}.execute('SELECT min(started) FROM events').fetchone()[0])"
    oldest = float(day.run(f'sudo python3 -c "{script}"'))
    if oldest < time.time() + 8 * 86400:
        raise AssertionError(f"an event of {oldest:.0f} is still there")


def _rotate(day: Day) -> None:
    day.run(
        f"sudo mv {DATA}/frames.jsonl {DATA}/frames.jsonl.1 && sudo journalctl --rotate --vacuum-time=1s --quiet; "
        f"sudo systemctl kill --signal=HUP --kill-whom=main edgenn"
    )
    day.until("a new file", lambda: day.device.run(f"sudo test -s {DATA}/frames.jsonl", check=False).returncode == 0)


def _releases_are_few(day: Day) -> None:
    [answer] = releases([day.host])
    if len(answer.said["releases"]) > 4:
        raise AssertionError(f"{len(answer.said['releases'])} releases are kept")


def schedule() -> list[Happening]:
    """A day, from morning to night."""
    return [
        Happening(
            "more frames than it can take",
            cause=lambda day: day.camera.now("flood"),
            told={
                METRICS: rose("edgenn_dropped_frames_total"),
                STATUS: r"^ok .* ([1-9]\d\d|[1-9]\d|9)\.\d fps",
                PAGE: r'"dropped": [1-9]',
            },
            mend=lambda day: day.camera.now("well"),
            never={STATUS: "^(failed|degraded)"},
        ),
        _camera("camera freezes", "frozen", "no whole picture|timed out|no answer in time"),
        Happening(
            "camera is unplugged",
            cause=lambda day: day.camera.off(),
            told=_camera("", "well", "ended the stream|does not answer|trying again").told,
            mend=lambda day: day.camera.on(),
        ),
        _camera("camera sends rubbish", "garbage", "cannot be read", "degraded"),
        _camera("lens is covered", "covered", "of one colour all over", "degraded"),
        _camera("camera asks for a password", "asks", "asks for a name and a password"),
        Happening(
            "camera changes its size",
            cause=lambda day: day.camera.now("large"),
            told={LOGS: "960x720 now, 320x240 before", METRICS: rose("edgenn_frames_total")},
            mend=lambda day: day.camera.now("well"),
            never={STATUS: "^(failed|degraded)"},
        ),
        _broker("broker refuses", lambda day: day.broker.line.cut(), lambda day: day.broker.line.mend(), offline=True),
        _broker("broker is killed", lambda day: day.broker.kill(), lambda day: day.broker.start(), offline=False),
        _broker(
            "line to the broker is dead",
            lambda day: day.broker.line.dead(),
            lambda day: day.broker.line.mend(),
            offline=True,
        ),
        Happening(
            "Home Assistant starts anew",
            cause=lambda day: day.broker.say("homeassistant/status", "online"),
            told={MQTT: '^config .*"manufacturer": "edgenn"'},
        ),
        Happening(
            "model update",
            cause=lambda day: day.must_deploy(day.models[1]),
            told={STATUS: r"^ok ", LOGS: r"release \S+ runs now, after", MQTT: "^state "},
        ),
        Happening(
            "model update that computes something else",
            cause=lambda day: day.must_not_deploy(day.models[3]),
            told={STATUS: r"^ok .*was not taken: .*golden vectors", LOGS: "was not taken: .*golden vectors"},
        ),
        Happening(
            "update with a wrong camera address",
            cause=_wrong_address,
            told={STATUS: r"^ok .*was not taken: .*127.0.0.1:9", LOGS: "127.0.0.1:9", MQTT: "^availability offline"},
        ),
        Happening(
            "rollback", cause=_roll_back, told={STATUS: r"^ok ", LOGS: "gone back"}, tidy=_releases_are_few_and_first
        ),
        Happening(
            "process is killed",
            cause=lambda day: day.run("sudo systemctl kill --signal=KILL --kill-whom=main edgenn"),
            told={
                STATUS: r"^ok .*restarted .*KILL",
                LOGS: "code=killed, status=9/KILL",
                MQTT: "^availability offline",
                METRICS: "does not answer",
                PAGE: "does not answer",
                SYSTEMD: "auto-restart|activating",
            },
        ),
        Happening(
            "process hangs",
            cause=lambda day: day.run("sudo systemctl kill --signal=STOP --kill-whom=main edgenn"),
            told={
                STATUS: r"^failed .*does not answer",
                LOGS: "Watchdog timeout",
                MQTT: "^availability offline",
            },
        ),
        Happening(
            "somebody stops the service",
            cause=lambda day: day.run("sudo systemctl stop edgenn"),
            told={
                STATUS: r"^failed .*not running.*systemctl start edgenn",
                LOGS: "Stopped edgenn.service",
                MQTT: "^availability offline",
                SYSTEMD: "inactive",
            },
            mend=lambda day: day.run("sudo systemctl start --no-block edgenn"),
        ),
        Happening(
            "disk is full",
            prepare=_small_disk,
            cause=_fill,
            told={
                STATUS: r"^degraded .*(full|No space)",
                LOGS: "full|No space",
                PAGE: r'"state": "degraded".*(full|No space)',
                MQTT: r'^state .*"health": "degraded".*(full|No space)',
                METRICS: r'edgenn_part_ok\{part="sink:sqlite[^"]*"\} 0\.0',
                SYSTEMD: "Status: .*(full|No space)",
            },
            mend=lambda day: day.run(f"sudo rm {DATA}/ballast {DATA}/ballast2"),
            tidy=_large_disk,
        ),
        Happening(
            "clock is set two days ahead",
            prepare=_own_clock,
            cause=_set_clock("+2d"),
            told={LOGS: "clock was set .*forward", STATUS: "^ok "},
            only=("amd64",),
            never={STATUS: "^(failed|degraded)"},
        ),
        Happening(
            "a month passes",
            cause=_a_month_later,
            told={LOGS: "Started edgenn.service", STATUS: "^(starting|ok) "},
            mend=_look_for_old_when_well,
            tidy=_no_own_clock,
            only=("amd64",),
        ),
        Happening(
            "journal and files are rotated",
            cause=_rotate,
            told={STATUS: "^ok ", METRICS: rose("edgenn_frames_total")},
            never={STATUS: "^(failed|degraded)"},
        ),
        Happening(
            "reboot",
            cause=_reboot,
            told={STATUS: "^(unreachable|starting|ok)", LOGS: "Started edgenn.service", MQTT: "^availability offline"},
        ),
        Happening(
            "power is cut in the middle of an update",
            cause=_cut_while_updating,
            told={
                STATUS: r"^ok .*was not taken: interrupted",
                LOGS: "interrupted before it was proved",
                MQTT: "^availability offline",
            },
        ),
    ]


def _releases_are_few_and_first(day: Day) -> None:
    _releases_are_few(day)
    day.must_deploy(day.models[0])


def _look_for_old_when_well(day: Day) -> None:
    began = time.monotonic()
    day.until("it is well", lambda: day.well(began))
    _look_for_old(day)


def usable_clock() -> bool:
    """Whether a service's clock can be set here (apt install faketime)."""
    return _LIBRARY.exists() and os.uname().machine == "x86_64"
