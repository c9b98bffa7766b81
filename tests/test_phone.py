"""The server of `mnx phone` without a browser: who is let in, what is served, and what reports become."""

import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenet_export.agent.check import CheckRow
from mobilenet_export.bundle import read_bundle
from mobilenet_export.cli import run
from mobilenet_export.cli.phone import _code
from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.phone import assets
from mobilenet_export.phone.address import LOOPBACK
from mobilenet_export.phone.visitor import parse, read_visit
from mobilenet_export.pipeline.deploy import DeviceReport
from mobilenet_export.pipeline.export import ExportRequest, export
from mobilenet_export.pipeline.phone import PhoneRequest, Service, serve
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import find_spec, resize_spec

ANDROID = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36"


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[CheckRow] = []

    def checked(self, row: CheckRow) -> None:
        self.rows.append(row)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights, in fp32 and int8, as ONNX and TFLite."""
    out = tmp_path_factory.mktemp("phone") / "small"
    spec = resize_spec(find_spec("v2"), 0.25, 96, None)
    recipe = find_recipe("int8-fast")
    export(ExportRequest(spec, out, ("fp32", "int8"), ("onnx", "tflite"), recipe, weights="none"))
    return out


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes that hold nothing but their names, where npm has not brought the real ones."""
    monkeypatch.setattr(assets, "ASSETS", tmp_path / "assets")
    for name in assets.PACKED:
        path = tmp_path / "assets" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(name.encode()))


class Client:
    """Asks a service as a page would."""

    def __init__(self, service: Service, listener: Listener) -> None:
        self.service, self.listener = service, listener
        self.origin, self.token = service.url.split("/#")
        self.address = self.origin.split("://")[1]

    def ask(
        self, path: str, document: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        body = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
        told = {"X-Mnx-Token": self.token} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection.request(method or ("GET" if body is None else "POST"), path, body, told)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response, data

    def json(self, path: str, document: Any = None) -> Any:
        status, _, data = self.ask(path, document)
        assert status == 200, data
        return json.loads(data)


@pytest.fixture
def client(bundle_folder: Path, packed: None) -> Iterator[Client]:
    listener = Listener()
    with serve(PhoneRequest(read_bundle(bundle_folder), LOOPBACK, 0, runs=2), listener) as service:
        yield Client(service, listener)


def answers(client: Client, folder: Path) -> list[dict[str, Any]]:
    """Rows of a browser that computes exactly what was recorded."""
    expected = json.loads((folder / "self_check" / "expected.json").read_text(encoding="utf-8"))
    return [
        {
            "file": file["path"],
            "runtime": file["runtime"],
            "provider": "wasm",
            "outputs": [image["output"] for image in expected[file["path"]].values()],
            "rounds_ms": [[10.0 + index, 10.5 + index] for _ in range(8)],
        }
        for index, file in enumerate(client.json("/job.json")["files"])
    ]


def visit(rows: list[dict[str, Any]], page: str = "a1", **more: Any) -> dict[str, Any]:
    told = {"page": page, "notes": [], "features": ["threads"], "threads": 1, "userAgent": ANDROID}
    return (
        told | {"platform": "Android 14", "model": "Pixel 8", "cores": 8, "memory_gb": 8, "rows": rows} | more
    )


def test_the_page_and_its_runtimes_need_no_token_and_everything_else_does(client: Client) -> None:
    for path in ("/", "/page/app.js", "/ort/ort.wasm.min.mjs"):
        assert client.ask(path, X_Mnx_Token="")[0] == 200
    for path in ("/job.json", "/files/0", "/images/0"):
        assert client.ask(path)[0] == 200
        status, _, data = client.ask(path, X_Mnx_Token="wrong")
        assert status == 401
        assert "scan the code again" in json.loads(data)["hint"]
    assert client.ask("/check", {}, X_Mnx_Token="wrong")[0] == 401
    assert client.listener.rows == []


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/page/../../errors.py",
        "/page/%2e%2e/x",
        "/files/9",
        "/page",
        "/page/",
        "/files",
        "//x",
        "/?a",
    ],
)
def test_only_a_fixed_table_of_paths_is_served(client: Client, path: str) -> None:
    assert client.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert client.ask("/job.json", method=method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost"])
def test_a_page_of_another_name_is_refused(client: Client, host: str) -> None:
    status, _, data = client.ask("/", Host=host)
    assert status == 421
    assert json.loads(data)["error"] == f"this page is not at {host}"


def test_a_post_from_another_page_is_refused(client: Client) -> None:
    assert client.ask("/check", {}, Origin="http://evil.example")[0] == 421


def test_bodies_are_capped_and_need_a_length(client: Client) -> None:
    status, _, data = client.ask("/report", b"", Content_Length="99999999999")
    assert status == 413
    assert "is the most" in json.loads(data)["error"]
    with socket.create_connection(client.address.split(":"), timeout=10) as raw:
        raw.sendall(f"POST /report HTTP/1.1\r\nHost: {client.address}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 411")


def test_pages_are_kept_to_their_own_origin(client: Client) -> None:
    _, response, _ = client.ask("/")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-")
    assert "http" not in policy
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["Access-Control-Allow-Origin"] is None


def test_runtimes_go_compressed_to_whoever_takes_that(client: Client) -> None:
    path = "/ort/ort-wasm-simd-threaded.wasm"
    _, response, data = client.ask(path, Accept_Encoding="gzip")
    assert (response.headers["Content-Type"], response.headers["Content-Encoding"]) == (
        "application/wasm",
        "gzip",
    )
    assert gzip.decompress(data) == client.ask(path)[2] == path[1:].encode()


def test_a_check_is_judged_and_told(client: Client, bundle_folder: Path) -> None:
    rows = answers(client, bundle_folder)
    for row in rows:
        judged = client.json("/check", row)
        assert judged["verdict"] == "pass", judged
    rows[0]["outputs"] = (-np.array(rows[0]["outputs"])).tolist()
    assert client.json("/check", rows[0])["verdict"] == "fail"
    rows[0]["outputs"][0][0] = None  # what JSON makes of NaN
    judged = client.json("/check", rows[0])
    assert (judged["detail"], judged["top5"]) == ("outputs hold NaN or infinity", [])
    wanted = ["pass"] * len(rows) + ["fail"] * 2
    end = time.monotonic() + 5
    while len(client.listener.rows) < len(wanted) and time.monotonic() < end:
        time.sleep(0.01)  # told after the answer was sent
    assert [row.verdict for row in client.listener.rows] == wanted


def test_a_report_is_kept_in_the_bundle_and_the_fastest_recommended(
    client: Client, bundle_folder: Path
) -> None:
    answer = client.json("/report", visit(answers(client, bundle_folder), notes=["a note"]))
    assert (answer["name"], answer["verdict"]) == ("pixel-8-chrome-126-android-14", "pass")
    assert answer["recommended"]["file"].endswith("fp32.onnx")
    assert answer["recommended"]["p50_ms"] == 10.0
    assert answer["notes"][-1] == "a note"
    assert all(row["here_ms"] > 0 for row in answer["rows"])
    report = client.service.arrived.get(timeout=5)
    kept = json.loads((bundle_folder / "devices" / f"{answer['name']}.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(report.to_json()))
    assert kept["check"]["machine"]["board"] == "Pixel 8"
    assert kept["latency"]["rows"][1]["rounds_ms"][0] == [11.0, 11.5]


def test_the_int8_file_to_take_in_browsers_is_named(client: Client, bundle_folder: Path) -> None:
    rows = answers(client, bundle_folder)
    for row in rows:
        row["rounds_ms"] = [[40.0 if row["file"].endswith("int8.onnx") else 20.0]] * 8
    notes = client.json("/report", visit(rows))["notes"]
    assert "int8 in this browser: take the TFLite file, which is 2.0 times as fast as the ONNX file" in notes


def test_what_does_not_load_fails_with_its_reason(client: Client, bundle_folder: Path) -> None:
    rows = answers(client, bundle_folder)
    rows[0] = {name: rows[0][name] for name in ("file", "runtime", "provider")} | {
        "refusal": "does not load: \x1b[31mno"
    }
    assert client.json("/report", visit(rows))["verdict"] == "fail"
    report = client.service.arrived.get(timeout=5)
    assert report.check is not None
    assert report.check.failures == (f"{rows[0]['file']} in onnxruntime-web:wasm: does not load: [31mno",)


def test_a_second_phone_of_one_kind_gets_a_name_of_its_own(client: Client, bundle_folder: Path) -> None:
    rows = answers(client, bundle_folder)
    names: list[str] = []

    def measure(page: str) -> None:
        names.append(client.json("/report", visit(rows, page))["name"])

    threads = [threading.Thread(target=measure, args=(page,)) for page in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measure("a")
    assert sorted(names[:2]) == ["pixel-8-chrome-126-android-14", "pixel-8-chrome-126-android-14-2"]
    assert names[2] in names[:2]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": None},
        {"rows": [1]},
        {"rows": [{"file": "other", "runtime": "x", "provider": "wasm"}]},
        {"cores": True},
        {"cores": 10**9},
        {"threads": "1"},
        {"notes": [1]},
        {"userAgent": None},
    ],
)
def test_a_report_that_is_none_is_refused(
    client: Client, bundle_folder: Path, change: dict[str, Any]
) -> None:
    status, _, data = client.ask("/report", visit(answers(client, bundle_folder)) | change)
    assert status == 400
    assert json.loads(data)["error"].startswith("what the browser sent cannot be read: ")
    assert client.service.arrived.empty()


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": [[1.0]]},
        {"outputs": "x"},
        {"outputs": [[{}]]},
        {"rounds_ms": [[0.0]]},
        {"rounds_ms": [[]]},
        {"rounds_ms": [["1"]]},
        {"rounds_ms": [[1.0]]},
        {"rounds_ms": [[10**400]]},
    ],
)
def test_a_row_that_is_none_is_refused(client: Client, bundle_folder: Path, change: dict[str, Any]) -> None:
    rows = answers(client, bundle_folder)
    rows[0] |= change
    assert client.ask("/report", visit(rows))[0] == 400


@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b"[" * 100_000, b"NaN"])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(DamagedInputError, match="what the browser sent cannot be read"):
        parse(body)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (ANDROID, "chrome-126-android-14"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Mobile/15E148 Safari/604.1",
            "safari-17-ios-17",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "firefox-128-linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0", "edge-126-windows"),
        ("../../x", "unknown-browser-unknown-system"),
    ],
)
def test_a_device_is_named_by_what_its_browser_says(agent: str, name: str) -> None:
    told = visit([], userAgent=agent, platform="", model="")
    assert read_visit(told, {}, None).name == name  # type: ignore[arg-type]  # of no row, nothing was recorded


def test_a_report_of_nothing_passes_nothing(client: Client) -> None:
    status, _, data = client.ask("/report", visit([]))
    assert (status, json.loads(data)["error"]) == (400, "the browser ran no file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 is no address that a phone can open"),
        (["--threads", "2"], "browsers give threads to https alone"),
    ],
)
def test_what_no_browser_can_do_is_refused(
    bundle_folder: Path, packed: None, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert run(["phone", str(bundle_folder), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(bundle_folder: Path, packed: None) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        request = PhoneRequest(read_bundle(bundle_folder), LOOPBACK, port, runs=1)
        with (
            pytest.raises(MissingError, match=f"port {port} of 127.0.0.1 is taken") as caught,
            serve(request, Listener()),
        ):
            pass
    assert "--port" in caught.value.hint


def test_an_address_that_is_not_this_computers_is_told(bundle_folder: Path, packed: None) -> None:
    request = PhoneRequest(read_bundle(bundle_folder), "203.0.113.7", 0, runs=1)
    with pytest.raises(MissingError, match=r"cannot listen at 203\.0\.113\.7"), serve(request, Listener()):
        pass


def test_without_a_network_only_this_computer_is_served(
    bundle_folder: Path, packed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilenet_export.pipeline.phone.lan_address", lambda: None)
    with serve(PhoneRequest(read_bundle(bundle_folder), None, 0, runs=1), Listener()) as service:
        assert service.url.startswith("http://127.0.0.1:")
        assert service.is_local


def test_without_the_runtimes_the_command_that_brings_them_is_named(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "ASSETS", tmp_path)
    assert run(["phone", str(bundle_folder)]) == 3
    assert "make phone-assets" in capsys.readouterr().err


def test_a_file_that_changed_is_not_served(bundle_folder: Path, packed: None, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle_folder.rglob("*"):
        target = copy / path.relative_to(bundle_folder)
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    model = next(copy.glob("*.onnx"))
    model.write_bytes(model.read_bytes() + b"x")
    with (
        pytest.raises(DamagedInputError, match="changed since"),
        serve(PhoneRequest(read_bundle(copy)), Listener()),
    ):
        pass


def test_a_bundle_without_such_files_is_refused(bundle_folder: Path, packed: None) -> None:
    bundle = read_bundle(bundle_folder)
    bare = type(bundle)(bundle.folder, dict(bundle.document) | {"files": []})
    with (
        pytest.raises(UsageError, match="no ONNX, ORT or TFLite file"),
        serve(PhoneRequest(bare), Listener()),
    ):
        pass


def test_a_bundle_that_does_not_say_what_a_file_gives_is_refused(bundle_folder: Path, packed: None) -> None:
    bundle = read_bundle(bundle_folder)
    files = [{key: entry[key] for key in entry if key != "output"} for entry in bundle.document["files"]]
    bare = type(bundle)(bundle.folder, dict(bundle.document) | {"files": files})
    with (
        pytest.raises(DamagedInputError, match="does not say the output of"),
        serve(PhoneRequest(bare), Listener()),
    ):
        pass


def test_tls_has_a_certificate_for_the_address(bundle_folder: Path, packed: None) -> None:
    with serve(
        PhoneRequest(read_bundle(bundle_folder), LOOPBACK, 0, tls=True, runs=1), Listener()
    ) as service:
        host, port = service.url.split("/")[2].split(":")
        pem = ssl.get_server_certificate((host, int(port)))
        trusting = ssl.create_default_context(cadata=pem)
        connection = http.client.HTTPSConnection(host, int(port), context=trusting, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        with socket.create_connection((host, int(port)), timeout=10) as plain:  # and plain http ends nothing
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.recv(100)
        assert ssl.get_server_certificate((host, int(port))) == pem


def test_the_code_is_dark_on_light_and_fits_a_terminal() -> None:
    lines = _code("https://192.168.178.123:8765/#0123456789012345678901").splitlines()
    assert all(line.startswith("\x1b[30;107m") and line.endswith("\x1b[0m") for line in lines)
    assert len(lines[0]) < 60


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((assets.PAGE.parent / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(
        "resolved" not in entry and entry["integrity"].startswith("sha512-") for entry in packages.values()
    )
    for name, version in assets.versions().items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_nothing_is_served_once_the_block_ends(bundle_folder: Path, packed: None) -> None:
    with serve(PhoneRequest(read_bundle(bundle_folder), LOOPBACK, 0, runs=1), Listener()) as service:
        client = Client(service, Listener())
        client.json("/report", visit(answers(client, bundle_folder)))
        report: DeviceReport = next(service.reports())
        assert report.verdict == "pass"
        address = client.address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
