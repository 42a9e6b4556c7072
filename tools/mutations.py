"""Mutations of the code on which most depends: each a line that is made wrong, and the tests that ought to notice.

tools/mutate.py tries them; tests/test_mutate.py holds them to the files as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    """A change that makes the code wrong.

    Attributes:
      name: what is wrong then.
      file: below the checkout.
      old, new: text that stands in it once, and what takes its place.
      tests: those that ought to catch it, as pytest names them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def text(self, root: Path) -> str:
        """The mutated file.

        Raises:
          ValueError: the old text does not stand in it exactly once.
        """
        text = (root / self.file).read_text()
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {found} times in {self.file}, not once")
        return text.replace(self.old, self.new)


_PREPROCESS = "device/edgenn_device/preprocess.py"
_INTERPRETER = "device/edgenn_device/interpreter.py"
_GATE = "edgenn/conversion/gate.py"
_RELEASES = "device/edgenn_device/releases.py"
_FILES = "device/edgenn_device/release_files.py"
_PROOF = "device/edgenn_device/release_proof.py"
_APPENDED = "device/edgenn_device/sinks/appended_file.py"
_SIGNATURE = "device/edgenn_device/signature.py"
_SERVICE = "device/edgenn_device/service.py"

_TEST_PREPROCESS = "tests/device/test_preprocess.py::test_"
_TEST_GATE = "tests/conversion/test_gate.py::test_"
_TEST_RELEASES = "tests/device/test_releases.py::test_"
_TEST_FILES = "tests/device/test_release_files.py::test_"
_TEST_PROOF = "tests/device/test_release_proof.py::test_"
_TEST_LINES = "tests/device/test_sink_files.py::test_"
_TEST_SIGNATURE = "tests/device/test_signature.py::test_"
_TEST_SERVICE = "tests/device/test_service.py::test_"

MUTATIONS = (
    Mutation(
        "colours in the camera's order",
        _PREPROCESS,
        '(3, "rgb"): cv2.COLOR_BGR2RGB,',
        '(3, "rgb"): None,',
        (f"{_TEST_PREPROCESS}colours_are_the_same_bytes_in_another_order",),
    ),
    Mutation(
        "crop offset",
        _PREPROCESS,
        "top, left = (height - window_height) // 2,",
        "top, left = (height - window_height + 1) // 2,",
        (f"{_TEST_PREPROCESS}crop_takes_the_largest_centred_window",),
    ),
    Mutation(
        "crop rounded down",
        _PREPROCESS,
        "(2 * height * aspect_width + aspect_height) // (2 * aspect_height)",
        "height * aspect_width // aspect_height",
        (f"{_TEST_PREPROCESS}crop_takes_the_largest_centred_window",),
    ),
    Mutation(
        "resize without averaging",
        _PREPROCESS,
        "cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR",
        "cv2.INTER_LINEAR",
        (f"{_TEST_PREPROCESS}shrinking_averages_and_growing_interpolates",),
    ),
    Mutation(
        "int8 input off by one",
        _PREPROCESS,
        "np.bitwise_xor(raw, np.uint8(0x80), out=raw)",
        "np.bitwise_xor(raw, np.uint8(0x7F), out=raw)",
        (f"{_TEST_PREPROCESS}the_three_dtypes_say_the_same",),
    ),
    Mutation(
        "normalisation without its zero point",
        _PREPROCESS,
        "np.float32(spec.mean), out=tensor[0]",
        "np.float32(0), out=tensor[0]",
        (f"{_TEST_PREPROCESS}the_three_dtypes_say_the_same",),
    ),
    Mutation(
        "dequantize: no zero point",
        _INTERPRETER,
        "(raw.astype(np.float32) - np.float32(self.output.zero_point))",
        "raw.astype(np.float32)",
        ("tests/device/test_interpreter.py::test_integers_become_real_by_zero_point_and_scale",),
    ),
    Mutation(
        "dequantize: scale left out",
        _INTERPRETER,
        " * np.float32(self.output.scale)",
        "",
        ("tests/device/test_interpreter.py::test_integers_become_real_by_zero_point_and_scale",),
    ),
    Mutation(
        "golden vectors: other scores pass",
        "device/edgenn_device/golden.py",
        ".max() > tolerance:",
        ".max() > 256:",
        (f"{_TEST_PROOF}a_model_that_computes_something_else_is_refused",),
    ),
    Mutation(
        "gate: comparison flipped",
        _GATE,
        "if lost > max(1.0,",
        "if lost < max(1.0,",
        (f"{_TEST_GATE}what_may_pass",),
    ),
    Mutation(
        "gate: any drop allowed",
        _GATE,
        "self.max_drop / 100 * len(self.truth)",
        "self.max_drop * len(self.truth)",
        (f"{_TEST_GATE}what_may_pass",),
    ),
    Mutation(
        "gate: no least agreement",
        _GATE,
        "LEAST_AGREEMENT = 0.9",
        "LEAST_AGREEMENT = 0.0",
        (f"{_TEST_GATE}what_may_pass",),
    ),
    Mutation(
        "gate: a runtime that refuses the file is not heard",
        _GATE,
        "it.reason for it in ran if it.ok is False",
        "it.reason for it in ran if it.ok is None",
        (f"{_TEST_GATE}what_a_runtime_says_counts",),
    ),
    Mutation(
        "gate: float tensors in an int8 file",
        _GATE,
        "not in_float and floats:",
        "in_float and floats:",
        (f"{_TEST_GATE}a_float_tensor_is_no_int8",),
    ),
    Mutation(
        "McNemar: one-sided",
        "edgenn/evaluation/metrics.py",
        "min(1.0, (2 * tail) / (1 << trials))",
        "min(1.0, tail / (1 << trials))",
        ("tests/evaluation/test_metrics.py::test_mcnemar_equals_enumeration",),
    ),
    Mutation(
        "switch: the release goes live before it is written where from",
        _RELEASES,
        """\
        write_synced(self.places.intent, json.dumps({"from": old, "to": id}))
        reached("intent written")
        # From here on, until it is proved again, a loss of power leads back to the release before. What an earlier try
        # said of it goes too: a mark is of the last one.
        for name in (PROVED, FAILED):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        reached("unproved")
        self._point(id)
        reached("link swapped")
""",
        """\
        # From here on, until it is proved again, a loss of power leads back to the release before. What an earlier try
        # said of it goes too: a mark is of the last one.
        for name in (PROVED, FAILED):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        reached("unproved")
        self._point(id)
        reached("link swapped")
        write_synced(self.places.intent, json.dumps({"from": old, "to": id}))
        reached("intent written")
""",
        (f"{_TEST_RELEASES}power_lost_during_a_rollback_leads_back_to_where_it_began",),
    ),
    Mutation(
        "switch: what worked once counts as proved",
        _RELEASES,
        "for name in (PROVED, FAILED):",
        "for name in (FAILED,):",
        (f"{_TEST_RELEASES}what_worked_once_has_to_prove_itself_again",),
    ),
    Mutation(
        "switch: files are not verified",
        _RELEASES,
        "            self._verify(id)\n",
        "",
        (f"{_TEST_RELEASES}a_damaged_release_is_refused_before_anything_is_switched",),
    ),
    Mutation(
        "switch: nothing waits for the first frames",
        _RELEASES,
        "            watch.until_well(within, reloaded=alone)\n",
        "",
        (f"{_TEST_RELEASES}a_release_that_does_not_prove_itself_is_taken_back",),
    ),
    Mutation(
        "switch: a bad release stays",
        _RELEASES,
        "        self._point(old)\n",
        "        self._point(id)\n",
        (f"{_TEST_RELEASES}a_release_that_does_not_prove_itself_is_taken_back",),
    ),
    Mutation(
        "switch: the link is not on the disk",
        _RELEASES,
        "        sync_folder(current.parent)\n",
        "",
        (f"{_TEST_FILES}the_link_is_on_the_disk_before_anything_builds_upon_it",),
    ),
    Mutation(
        "switch: a mark is renamed before its content is on the disk",
        _FILES,
        "            os.fsync(file.fileno())\n        aside.replace(path)\n",
        "        aside.replace(path)\n",
        (f"{_TEST_FILES}a_file_is_on_the_disk_before_it_has_its_name",),
    ),
    Mutation(
        "proof: an unsigned model is taken",
        _PROOF,
        "    if accepted.exists():\n",
        "    if not accepted.exists():\n",
        (f"{_TEST_PROOF}only_what_an_accepted_key_signed_is_tried",),
    ),
    Mutation(
        "record: rotation is not noticed",
        _APPENDED,
        "return (found.st_dev, found.st_ino) != self._identity",
        "return False",
        (f"{_TEST_LINES}a_new_file_that_was_put_in_its_place_is_taken",),
    ),
    Mutation(
        "record: a torn last line is written on",
        _APPENDED,
        'return b"" if os.pread(file, 1, size - 1) == b"\\n" else b"\\n"',
        'return b""',
        (f"{_TEST_LINES}what_a_power_cut_tore_stays_on_a_line_of_its_own",),
    ),
    Mutation(
        "record: half a line stays when the disk is full",
        _APPENDED,
        "                os.ftruncate(file, before)\n",
        "                pass\n",
        (f"{_TEST_LINES}a_line_is_in_the_file_whole_or_not_at_all",),
    ),
    Mutation(
        "events: one begins before the other has ended",
        "device/edgenn_device/events.py",
        "return [*changes, self._open.event(None)]",
        "return [self._open.event(None), *changes]",
        ("tests/device/test_events.py::test_what_begins_and_ends_when",),
    ),
    Mutation(
        "events: not through to the disk",
        "device/edgenn_device/sinks/sqlite.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        ("tests/device/test_sink_sqlite.py::test_an_event_is_on_the_disk_when_it_has_been_taken",),
    ),
    Mutation(
        "spool: the newest first",
        "device/edgenn_device/sinks/spool.py",
        "SELECT id, payload FROM entry ORDER BY number LIMIT ?",
        "SELECT id, payload FROM entry ORDER BY number DESC LIMIT ?",
        ("tests/device/test_spool.py::test_entries_come_back_in_order_until_they_are_done",),
    ),
    Mutation(
        "signature: not compared with the file",
        _SIGNATURE,
        "if not _holds(key, signature, message):",
        "if not message:",
        (f"{_TEST_SIGNATURE}a_model_that_was_changed",),
    ),
    Mutation(
        "signature: a changed comment passes",
        _SIGNATURE,
        "if not _holds(key, over_all, signature + comment.encode()):",
        "if not over_all:",
        (f"{_TEST_SIGNATURE}a_trusted_comment_that_was_changed",),
    ),
    Mutation(
        "ssh: an unknown host key is learned",
        "edgenn/deployment/connection.py",
        '"StrictHostKeyChecking=yes",',
        '"StrictHostKeyChecking=accept-new",',
        ("tests/deployment/test_ssh_connection.py::test_an_unknown_host_key_is_refused_with_the_line_to_type",),
    ),
    Mutation(
        "watchdog: fed by a timer",
        _SERVICE,
        "if lost or value != last:",
        "if True:",
        (f"{_TEST_SERVICE}a_decoder_that_hangs_stops_the_watchdog",),
    ),
    Mutation(
        "watchdog: a lost camera restarts the service",
        _SERVICE,
        "if lost or value != last:",
        "if value != last:",
        (f"{_TEST_SERVICE}a_camera_that_is_known_to_be_lost_is_no_reason_to_restart",),
    ),
    Mutation(
        "service: ready before the first frame",
        _SERVICE,
        "elif self._health.frames:",
        "elif True:",
        (f"{_TEST_SERVICE}a_start_without_a_camera_is_extended",),
    ),
)
