"""Devices of adb, without one: how they are named, listed and chosen. `test_adb.py` has a real daemon."""

from dataclasses import replace

import pytest

from mobilenet_export.deployment.choose import Wishes, choose
from mobilenet_export.deployment.probe import Android, Interpreter, Probe
from mobilenet_export.devices import adb, find_target
from mobilenet_export.errors import MissingError, UsageError

LISTING = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M41ABCDE            device usb:1-1 product:beyond1 model:SM_G973F device:beyond1 transport_id:3
0a388e93               unauthorized usb:1-2 transport_id:4
192.168.1.7:5555       offline product:shiba model:Pixel_8 device:shiba transport_id:5
emulator-5554          authorizing transport_id:6
FA79J1A00421           no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-4
84B7N16728001234       recovery usb:1-5 product:sailfish model:Pixel device:sailfish transport_id:8

"""
"""As `adb devices -l` of adb 1.0.41 prints them."""


@pytest.mark.parametrize(
    ("text", "address", "folder"),
    [
        ("adb", "", None),
        ("adb:R58M41ABCDE", "R58M41ABCDE", None),
        ("adb:192.168.1.7:5555", "192.168.1.7:5555", None),
        ("adb:192.168.1.7:5555:/sdcard/a net", "192.168.1.7:5555", "/sdcard/a net"),
        ("adb:~/net", "", "net"),
        ("adb:emulator-5554:~/net/", "emulator-5554", "net"),
    ],
)
def test_a_device_is_named(text: str, address: str, folder: str | None) -> None:
    target = find_target(text)
    assert (target.transport, target.address, target.folder) == ("adb", address, folder)
    assert target.name == (f"adb:{address}" if address else "adb")


@pytest.mark.parametrize("text", ["adb:", "adb:-s", "adb:a b", "adb:x:/", "adb:x:/a/..", "adb:\n"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        find_target(text)


def test_devices_are_listed_as_adb_lists_them() -> None:
    found = adb.attached(LISTING)
    assert [str(one) for one in found] == [
        "R58M41ABCDE (SM G973F)",
        "0a388e93 (unauthorized)",
        "192.168.1.7:5555 (Pixel 8, offline)",
        "emulator-5554 (authorizing)",
        "FA79J1A00421 (no permissions)",
        "84B7N16728001234 (Pixel, recovery)",
    ]
    assert adb.attached("List of devices attached\n\n") == ()
    with pytest.raises(MissingError, match="adb:R58: no such device, and no other"):
        adb.choose((), "R58")
    with pytest.raises(MissingError, match="adb: no device"):
        adb.choose((), "")


@pytest.mark.parametrize(
    ("serial", "message", "hint"),
    [
        ("", "adb: 6 devices: R58M41ABCDE (SM G973F), 0a388e93 (unauth", "name one: adb:R58M41ABCDE"),
        ("R58", "adb:R58: no such device; there is R58M41ABCDE (SM G973F), ", "adb:R58M41ABCDE"),
        ("0a388e93", "adb:0a388e93: unauthorized: it does not trust this computer", "allow USB debugging"),
        ("emulator-5554", "adb:emulator-5554: authorizing: it is being asked", "allow USB debugging"),
        (
            "192.168.1.7:5555",
            "adb:192.168.1.7:5555: offline: it does not answer adb",
            "adb reconnect offline",
        ),
        ("FA79J1A00421", "adb:FA79J1A00421: no permissions: this user may not open", "replug"),
        (
            "84B7N16728001234",
            "adb:84B7N16728001234: recovery: it is in recovery, not in Android",
            "adb reboot",
        ),
    ],
)
def test_a_device_has_to_be_one_and_willing(serial: str, message: str, hint: str) -> None:
    with pytest.raises(MissingError) as caught:
        adb.choose(adb.attached(LISTING), serial)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert adb.choose(adb.attached(LISTING), "R58M41ABCDE").state == adb.READY


PHONE = Probe(
    "aarch64", "Android 14", "Google Pixel 8", "", (), 8, 8 << 30, None, True, (),
    Android("14", "34", "arm64-v8a", "Tensor G3"),
)  # fmt: skip
BOTH = ("onnx", "tflite")


def test_a_phone_without_a_runtime_gets_what_its_apps_read() -> None:
    choice = choose("phone", PHONE, BOTH, Wishes())
    assert (choice.python, choice.formats, choice.lack) == (None, ("tflite",), "no python3 there")
    assert choose("phone", PHONE, BOTH, Wishes("onnxruntime")).formats == ("onnx",)
    bare = Interpreter("/usr/bin/python3", (3, 12, 4), {}, 64, None, False, False)
    found = choose("phone", replace(PHONE, interpreters=(bare,)), BOTH, Wishes())
    assert found.lack == "Python 3.12.4 there has no runtime that works"
    ready = replace(bare, packages={"numpy": "2", "pillow": "11", "onnxruntime": "1.20"})
    assert choose("phone", replace(PHONE, interpreters=(ready,)), BOTH, Wishes()).python == "/usr/bin/python3"


def test_a_phone_is_not_promised_what_it_cannot_have() -> None:
    with pytest.raises(UsageError, match="Android's apps read tflite; the bundle has only onnx"):
        choose("phone", PHONE, ("onnx",), Wishes())
    with pytest.raises(MissingError, match="phone: runtimes cannot be installed on Android"):
        choose("phone", PHONE, BOTH, Wishes(install=True))
