"""Models of the hub: the form of a name, what is fetched from an endpoint, the cache, and being offline."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import priorpaint
from priorpaint import UsageError
from priorpaint.priors.hub import Place

pytest.importorskip("huggingface_hub")
models = pytest.importorskip("tests.priors.readers.diffusers_models")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("hf:google/ddpm-celebahq-256", Place("google/ddpm-celebahq-256")),
        ("hf:o/n@v1.0", Place("o/n", "v1.0")),
        ("hf:o/n@refs/pr/3/sub/folder", Place("o/n", "refs/pr/3", "sub/folder")),
        ("hf:o/n/sub/file.pt", Place("o/n", None, "sub/file.pt")),
        ("hf:o/n@main/sub/", Place("o/n", "main", "sub")),
    ],
)
def test_names(spec: str, place: Place) -> None:
    assert Place.parse(spec) == place


@pytest.mark.parametrize(
    "spec", ["hf:", "hf:name", "hf:o/n@", "hf:o/n/../x", "hf:o/n/a/../../x", "hf:o /n", "hf:o/n@a b"]
)
def test_other_forms_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="hf:owner/name"):
        Place.parse(spec)


class Hub:
    """A small endpoint that serves one folder as the model o/n, and notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def answer(self, body: bool) -> None:
                path = self.path.split("?")[0]
                name = next((path.removeprefix(f"/o/n/resolve/{r}/") for r in ("main", COMMIT) if f"/{r}/" in path), "")
                file = folder / name
                if not path.startswith("/o/n/resolve/"):
                    return self.refuse("RepoNotFound", 404)
                hub.asked.append(name)
                if not file.is_file():
                    return self.refuse("EntryNotFound", 404)
                data = file.read_bytes()
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def refuse(self, code: str, status: int) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    models.pixel(tmp_path / "model")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never fetched")
    (tmp_path / "model" / "unet" / "my_unet.py").write_text("never fetched")
    (tmp_path / "model" / "README.md").write_text("never fetched")
    served = Hub(tmp_path / "model")
    yield served
    served.server.shutdown()
    served.server.server_close()


def run(home: Path, url: str, code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its variables once."""
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    environment = {
        **plain, "HF_HOME": str(home), "HF_ENDPOINT": url, "PRIORPAINT_HOME": str(home / "own"),
        "PYTHONPATH": str(Path(priorpaint.__file__).parents[1]), "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)


LOAD = """
import json, sys
from priorpaint import PriorpaintError, load_prior
for spec, offline in json.loads({cases!r}):
    try:
        prior = load_prior(spec, device="cpu", offline=offline)
        print(json.dumps([prior.name, prior.spec, prior.hash, str(prior.source)]))
    except PriorpaintError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def loads(home: Path, url: str, *cases: tuple[str, bool], **more: str) -> list[list[str]]:
    done = run(home, url, LOAD.format(cases=json.dumps(cases)), **more)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_fetched_once_then_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    before, first, again, missing, wrong = loads(
        home, hub.url, ("hf:o/n", True), ("hf:o/n", False), ("hf:o/n", True), ("hf:o/n/sub", False), ("hf:a/b", False)
    )
    assert before[0] == "PriorError" and "not in the cache" in before[1] and "stay offline" in before[1]
    assert first[0] == "o/n" and first[1] == "hf:o/n" and first[3].startswith(str(home)) and first[3].endswith(COMMIT)
    assert again == first
    assert missing[0] == "PriorError" and "is not a file, and has no model_index.json" in missing[1]
    assert wrong[0] == "PriorError" and "not on the hub, or private" in wrong[1]
    fetched = {name for name in hub.asked if name.startswith(("unet", "scheduler", "model", "README"))}
    assert fetched >= {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"}
    assert not any(name.endswith((".bin", ".py", ".md")) for name in hub.asked)
    # Without a connection, told by the variable and not by an argument.
    hub.asked.clear()
    offline, unknown = loads(home, hub.url, ("hf:o/n", False), ("hf:c/d", False), HF_HUB_OFFLINE="1")
    assert offline == first and hub.asked == []
    assert unknown[0] == "PriorError" and "hf:c/d is not in the cache and the hub cannot be reached" in unknown[1]


def test_weights_in_pickles_only_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    [answer] = loads(tmp_path / "home", hub.url, ("hf:o/n", False))
    assert answer[0] == "PriorError" and "no safetensors weights of its unet" in answer[1]
    assert "unet/diffusion_pytorch_model.bin" not in hub.asked


def test_code_in_the_model_is_refused_before_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    models.edit(tmp_path / "model" / "model_index.json", unet=["my_unet", "MyUNet"])
    [answer] = loads(tmp_path / "home", hub.url, ("hf:o/n", False))
    assert answer[0] == "CheckpointError" and "my_unet.MyUNet" in answer[1]
    assert not any("diffusion_pytorch_model" in name for name in hub.asked)
