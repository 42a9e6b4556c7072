"""`python -m tools.arm_device start|stop|kill|boot|ssh|status`: the test device by hand.

It lives on until it is stopped; nothing stops it by itself.
"""

import argparse
import os
import sys

from tools.arm_device.container import Device, described, start, started
from tools.arm_device.roots import ARCHITECTURES, SUITES
from tools.arm_device.unavailable import DeviceUnavailable


def _named(name: str | None) -> list[Device]:
    """The device of that name, or all that were started under it; without one, all."""
    found = [one for one in started() if name in (None, one.name, one.folder.parent.name)]
    if not found:
        raise ValueError(f"no device named {name} was started" if name else "no device was started")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.arm_device", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    starting = verbs.add_parser("start", help="a fresh disk, booted; the first of its kind takes minutes")
    starting.add_argument("--suite", choices=SUITES, default="bookworm")
    starting.add_argument("--arch", choices=ARCHITECTURES, default="arm64")
    starting.add_argument("--port", type=int, help="of the first one; a free one otherwise")
    starting.add_argument("--name")
    starting.add_argument("--clones", type=int, default=1, metavar="N")
    for verb, told in (
        ("stop", "end it and delete its disk; without a name, all"),
        ("kill", "SIGKILL to all of it at once; the disk stays"),
        ("boot", "start a killed one again from its disk"),
    ):
        verbs.add_parser(verb, help=told).add_argument("name", nargs="?")
    shell = verbs.add_parser("ssh", help="log in as pi, or run a command there")
    shell.add_argument("name")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("status", help="all devices")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    try:
        if given.verb == "start":
            found = start(suite=given.suite, arch=given.arch, name=given.name, port=given.port, clones=given.clones)
            print(f"identity     {found[0].identity}\nknown_hosts  {found[0].known_hosts}")
            for one in found:
                print(described(one))
        elif given.verb == "status":
            for one in started():
                print(described(one))
        elif given.verb == "ssh":
            words = _named(given.name)[0].ssh()
            os.execvp(words[0], [*words, *given.command])
        else:
            for one in _named(given.name):
                getattr(one, given.verb)()
                print(f"{one.name}: {given.verb}")
    except (DeviceUnavailable, RuntimeError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
