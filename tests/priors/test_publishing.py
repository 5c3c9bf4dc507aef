"""A prior is saved, and pushed to a local imitation of the hub's HTTP API, from where `load_prior` reads it back."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from priorpaint import DenoiserPrior, UsageError, load_prior, schedules
from priorpaint.priors.native.unet import UNet, UNetConfig
from priorpaint.priors.native.weights_file import WeightsMetadata, save_weights
from priorpaint.priors.publishing import FILES, target, write_model
from tests.command_line import exit_code

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a prior as `priorpaint train` leaves it."""
    folder = tmp_path_factory.mktemp("prior")
    network = UNet(UNetConfig((8, 8), (1, 1), 8), seed=0)
    save_weights(folder / "weights.safetensors", network, WeightsMetadata(size=(16, 16), training={"data": ["a/b"]}))
    return folder


class Hub:
    """The hub's API as huggingface_hub speaks it: models, commits, large files (LFS), downloads. It keeps bytes.

    Attributes:
        files: of the models, by owner/name and path.
        private: of the models that were made.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        large: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.download()

            def do_GET(self) -> None:
                self.download()

            def do_PUT(self) -> None:
                large[self.path.rsplit("/", 1)[1]] = self.body()
                self.answer({})

            def do_POST(self) -> None:
                body, path = self.body(), self.path.split("?")[0]
                if path == "/api/validate-yaml":
                    return self.answer({"errors": [], "warnings": []})
                if self.headers["Authorization"] != "Bearer secret":
                    return self.answer({"error": "Invalid username or password."}, 401)
                if path == "/api/repos/create":
                    asked = json.loads(body)
                    repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                    hub.files.setdefault(repo, {})
                    hub.private.setdefault(repo, asked.get("private", asked.get("visibility") == "private"))
                    return self.answer({"url": f"{hub.url}/{repo}", "id": repo})
                if path.endswith("/info/lfs/objects/batch"):
                    objects = [
                        {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}}
                        for one in json.loads(body)["objects"]
                    ]
                    return self.answer({"transfer": "basic", "objects": objects})
                repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
                if "/preupload/" in path:
                    modes = [
                        {"path": one["path"], "shouldIgnore": False,
                         "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                        for one in json.loads(body)["files"]
                    ]  # fmt: skip
                    return self.answer({"files": modes})
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                    if line["key"] == "lfsFile":
                        hub.files[repo][value["path"]] = large[value["oid"]]
                self.answer({"commitUrl": f"{hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

            def download(self) -> None:
                parts = self.path.split("?")[0].split("/")
                data = hub.files.get("/".join(parts[1:3]), {}).get("/".join(parts[5:]))
                if data is None:
                    return self.answer({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                etag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.answer(data, headers={"ETag": etag, "X-Repo-Commit": COMMIT})

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
                for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The imitation, which huggingface_hub takes for the hub, with an empty cache. Large files go by LFS alone."""
    served = Hub()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in {"HF_HUB_CACHE": tmp_path / "cache", "HF_TOKEN_PATH": tmp_path / "no-token"}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(value))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    endpoint(monkeypatch, served.url)
    huggingface_hub.close_session()
    yield served
    huggingface_hub.close_session()
    served.server.shutdown()
    served.server.server_close()


def endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # inside huggingface_hub
def test_pushed_and_read_back(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    push = ("priors", "push", folder, "hf:me/faces", "--license", "cc-by-4.0", "--samples", 2)
    info = ("priors", "info", "hf:me/faces", "--json")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert exit_code(monkeypatch, *push, "--private") == 0
    printed = capfd.readouterr()
    assert printed.out == f"{hub.url}/me/faces\n" and "Warning: it does not find the noise" in printed.err
    assert exit_code(monkeypatch, *info) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["name"] == "me/faces" and facts["sha256"] == load_prior(folder, device="cpu").hash
    assert hub.private == {"me/faces": True} and set(hub.files["me/faces"]) == set(FILES)
    card = hub.files["me/faces"]["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "--prior hf:me/faces" in card and facts["sha256"] in card
    assert "does not find the noise" in card and "3 channels, 16 x 16 pixels" in card
    monkeypatch.delenv("HF_TOKEN")
    assert exit_code(monkeypatch, *push) == 1
    assert "the hub does not let you write to me/faces; log in as its owner" in capfd.readouterr().err

    # Without a connection there is what was fetched, and one sentence for what was not.
    endpoint(monkeypatch, "http://127.0.0.1:9")
    assert exit_code(monkeypatch, *info) == 0
    assert json.loads(capfd.readouterr().out)["sha256"] == facts["sha256"]
    assert exit_code(monkeypatch, "priors", "info", "hf:me/other") == 1
    assert capfd.readouterr().err == (
        "priorpaint: hf:me/other is not in the cache and the hub cannot be reached (ConnectError); run once with a "
        "connection to fetch it.\n"
    )
    assert exit_code(monkeypatch, *push) == 1
    *_, last = capfd.readouterr().err.splitlines()
    assert last == "priorpaint: hf:me/faces: the hub cannot be reached (ConnectError); push again with a connection."


def test_saved_as_it_is_now(folder: Path, tmp_path: Path) -> None:
    prior = load_prior(folder, device="cpu")
    assert prior.save(tmp_path / "a").read_bytes() == (folder / "weights.safetensors").read_bytes()
    with pytest.raises(UsageError, match="already"):
        prior.save(tmp_path / "a")
    weight = next(iter(prior.parameters()))
    with torch.no_grad():
        weight.view(-1)[0] = 1 / 3  # which float16 cannot hold
    prior.save(tmp_path / "a", overwrite=True)
    again = next(iter(load_prior(tmp_path / "a", device="cpu").parameters()))
    assert torch.equal(again, weight)
    latent = load_prior("avatars-latent", device="cpu")
    latent.save(tmp_path / "latent")
    assert load_prior(tmp_path / "latent", device="cpu").hash == latent.hash


def test_what_cannot_be_published_is_refused(folder: Path, tmp_path: Path) -> None:
    function = DenoiserPrior(lambda x_t, t: x_t, schedules.VP("linear"), shape=(3, 8, 8))
    with pytest.raises(UsageError, match="is not in priorpaint's own format"):
        function.save(tmp_path)
    with pytest.raises(UsageError, match="'CC BY' is not a licence as the hub spells it"):
        write_model(load_prior(folder, device="cpu"), tmp_path / "model", title="t", licence="CC BY")
    for spec in ("hf:me/faces@main", "hf:me/faces/sub"):
        with pytest.raises(UsageError, match="a model of its own, hf:me/faces, without"):
            target(spec)
    assert list(tmp_path.iterdir()) == []
