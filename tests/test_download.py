"""Downloads from a real HTTP server on loopback: resumed, redirected, cut short, wrong, missing, offline."""

import hashlib
import json
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import Printed, mnx  # noqa: F401 (a fixture)

from mobilenet_export.architectures import build
from mobilenet_export.architectures.initialize import initialize
from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.pipeline.download import fetch, find_download
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import find_spec, read_spec, resize_spec

DATA = bytes(range(256)) * 2000


@dataclass
class Site:
    """What a server does, and what it was asked."""

    files: dict[str, bytes]
    cut_after: int | None = None
    ranges: bool = True
    redirect: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    what = Site({"/x.pth": DATA})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what.asked.append(self.headers.get("Range", "all"))
            if what.redirect and not self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", f"/moved{self.path}")
                self.end_headers()
                return
            data = what.files.get(self.path.removeprefix("/moved"))
            if data is None:
                self.send_error(404)
                return
            self.answer(data)

        def answer(self, data: bytes) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if what.ranges else 0
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:][: what.cut_after])

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    what.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MNX_CACHE", str(tmp_path / "cache"))
    yield what
    server.shutdown()
    server.server_close()
    thread.join()


def pin(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes = DATA, **more: str) -> None:
    """Write a list of one's own that pins a file of the site."""
    fields = {
        "name": "own:x",
        "arch": "v2",
        "url": f"{site.url}/x.pth",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in (fields | more).items()]
    (folder / "list.toml").write_text("[[weights]]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("MNX_DOWNLOADS", str(folder / "list.toml"))


def cached(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[1] for path in (folder / "cache" / "weights").iterdir())


def test_what_is_shipped_is_pinned_whole() -> None:
    entry = find_download("torchvision:mobilenet_v2")
    assert entry.url.startswith("https://")
    assert entry.weights.file.split("-")[1] == f"{entry.weights.sha256[:8]}.pth"  # torchvision's rule
    assert entry.weights.card_path
    assert entry.weights.card_path.is_file()


def test_a_file_is_downloaded_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(site, tmp_path, monkeypatch)
    path = fetch(find_download("own:x"))
    assert path.read_bytes() == DATA
    assert fetch(find_download("own:x")) == path
    assert site.asked == ["all"]
    assert cached(tmp_path) == ["x.pth"]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_download_that_was_cut_goes_on(
    ranges: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch)
    site.cut_after, site.ranges = 100_000, ranges
    with pytest.raises(MissingError, match="cut after 100,000 bytes") as caught:
        fetch(find_download("own:x"))
    assert "goes on from there" in caught.value.hint
    assert cached(tmp_path) == ["x.pth.part"]
    site.cut_after = None
    assert fetch(find_download("own:x")).read_bytes() == DATA
    assert site.asked == ["all", "bytes=100000-"]
    assert cached(tmp_path) == ["x.pth"]


def test_a_partial_file_that_is_too_long_is_made_anew(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch)
    path = fetch(find_download("own:x"))
    path.rename(path.with_name(path.name + ".part"))
    assert fetch(find_download("own:x")) == path
    assert site.asked == ["all"]  # it was whole
    path.rename(path.with_name(path.name + ".part")).write_bytes(DATA + b"more")
    assert fetch(find_download("own:x")).read_bytes() == DATA
    assert site.asked == ["all", f"bytes={len(DATA) + 4}-", "all"]


def test_another_file_than_the_pinned_one_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch, data=b"another")
    with pytest.raises(DamagedInputError, match="its sha256 differs"):
        fetch(find_download("own:x"))
    assert cached(tmp_path) == []


def test_a_cached_file_that_was_changed_is_had_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch)
    fetch(find_download("own:x")).write_bytes(b"changed")
    assert fetch(find_download("own:x")).read_bytes() == DATA


def test_a_redirect_is_followed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(site, tmp_path, monkeypatch)
    site.redirect = True
    assert fetch(find_download("own:x")).read_bytes() == DATA


def test_a_mirror_has_the_files_by_name(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(site, tmp_path, monkeypatch, url="https://nowhere.invalid/deep/x.pth")
    monkeypatch.setenv("MNX_MIRROR", f"{site.url}/")
    assert fetch(find_download("own:x")).read_bytes() == DATA


def test_a_file_whose_address_ends_in_a_common_name_has_one_of_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch, url="https://nowhere.invalid/a/model.safetensors", file="x.pth")
    monkeypatch.setenv("MNX_MIRROR", site.url)
    assert fetch(find_download("own:x")).name.endswith("-x.pth")


def test_the_shipped_list_names_files_of_known_variants() -> None:
    names = tomllib.loads(shipped_path("models", "weights", "downloads.toml").read_text(encoding="utf-8"))
    found = [find_download(table["name"]) for table in names["weights"]]
    assert {"torchvision:mobilenet_v2", "timm:mobilenetv1_100", "timm:mobilenetv2_140"} <= {
        download.weights.name for download in found
    }
    assert len({download.weights.file for download in found}) == len(found)
    assert all(find_spec(download.arch) and download.weights.licence for download in found)


def test_a_missing_file_and_no_network_are_told_apart(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch, url=f"{site.url}/gone.pth")
    with pytest.raises(MissingError, match=r"gone\.pth: 404 Not Found"):
        fetch(find_download("own:x"))
    monkeypatch.setenv("MNX_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(MissingError, match=r"http://127\.0\.0\.1:9/gone\.pth cannot be reached: ") as caught:
        fetch(find_download("own:x"))
    assert caught.value.hint.startswith("offline? download http://127.0.0.1:9/gone.pth elsewhere")
    assert "--checkpoint" in caught.value.hint
    assert "MNX_MIRROR" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "file:///etc/passwd"}, "no http or https address"),
        ({"sha256": "b0353104"}, "not 64 hexadecimal digits"),
        ({"licens": "MIT"}, "fields are"),
    ],
)
def test_a_list_that_pins_nothing_is_refused(
    change: dict[str, str], message: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(site, tmp_path, monkeypatch, **change)
    with pytest.raises(UsageError, match=message):
        find_download("own:x")


def publish(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the site have the weights of a small network, and pin them."""
    module = build(resize_spec(find_spec("v2"), 0.25, 96, 12))
    initialize(module, 3)
    torch.save({"state_dict": module.state_dict()}, folder / "x.pth")
    site.files["/x.pth"] = (folder / "x.pth").read_bytes()
    pin(site, folder, monkeypatch, data=site.files["/x.pth"], licence="MIT", source="somebody")


def test_export_takes_downloaded_weights_with_what_is_known_of_them(
    site: Site,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(site, tmp_path, monkeypatch)
    export = ["export", "--weights", "own:x", "--resolution", 96, "--formats", "onnx", "--out", "made"]
    printed = mnx(*export)
    assert printed.code == 0, printed.err
    assert "download x.pth (kB)" in printed.err
    assert "recognised: torchvision mobilenet_v2, width 0.25, 12 classes" in printed.err
    document = json.loads((tmp_path / "made" / "mnx.json").read_text(encoding="utf-8"))
    assert document["model"]["weights"]["licence"] == "MIT"
    assert document["source"]["sha256"] == document["model"]["weights"]["sha256"]
    assert str(tmp_path) not in json.dumps(document)
    again = mnx(*export, "--force")
    assert again.code == 0
    assert "(kB)" not in again.err
    assert site.asked == ["all"]


def test_import_takes_published_weights_with_what_is_known_of_them(
    site: Site,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(site, tmp_path, monkeypatch)
    (tmp_path / "taken.safetensors").touch()
    assert mnx("import", "own:x", "--out", "taken.safetensors").code == 2
    assert site.asked == []  # before anything is downloaded
    printed = mnx("import", "own:x", "--out", "taken.safetensors", "--force", "--source", "somebody else")
    assert printed.code == 0, printed.err
    assert "download x.pth (kB)" in printed.err
    spec = read_spec(tmp_path / "taken.toml")
    assert spec.summary == "read from own:x: torchvision mobilenet_v2"
    assert spec.weights
    assert (spec.weights.licence, spec.weights.source) == ("MIT", "somebody else")
    printed = mnx("import", "own:y", "--out", "y.safetensors")
    assert printed.code == 2
    assert printed.error.startswith("no sha256 is pinned for own:y; known: torchvision:mobilenet_v2, ")


def test_an_unknown_name_says_what_is_known(mnx: Callable[..., Printed]) -> None:  # noqa: F811
    printed = mnx("export", "--weights", "timm:mobilenetv2_035")
    assert printed.code == 2
    assert printed.error.startswith(
        "no sha256 is pinned for timm:mobilenetv2_035; known: torchvision:mobilenet_v2, "
    )
    assert "--checkpoint" in printed.hint
