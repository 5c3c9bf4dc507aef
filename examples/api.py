"""Fill in a picture by the API of ``priorpaint serve``: python api.py ADDRESS PICTURE MASK OUT.png [TOKEN]."""

import json
import sys
import uuid
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.request import HTTPCookieProcessor, Request, build_opener

opener = build_opener(HTTPCookieProcessor(CookieJar()))  # the cookie says whose pictures these are


def ask(url: str, headers: dict[str, str], data: bytes | None = None):
    return opener.open(Request(url, data, {"X-Priorpaint": "1", **headers}))


def post(url: str, headers: dict[str, str], **fields: object) -> dict:
    """Send a form, in which paths are files."""
    border, body = uuid.uuid4().hex, b""
    for name, value in fields.items():
        file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
        content = value.read_bytes() if isinstance(value, Path) else str(value).encode()
        head = f'--{border}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    return json.load(ask(url, {**headers, **kind}, body + f"--{border}--\r\n".encode()))


def main(address: str, picture: str, mask: str, out: str, token: str = "") -> None:
    address, headers = address.rstrip("/"), {"Authorization": f"Bearer {token}"} if token else {}
    told = post(f"{address}/api/pictures", headers, file=Path(picture))
    settings = json.dumps({"steps": 15})
    form = {"picture": told["id"], "mask": Path(mask), "samples": 1, "settings": settings}
    job = post(f"{address}/api/jobs", headers, **form)["job"]
    for line in ask(address + job["events"], headers):  # until the last event
        if line.startswith(b"data: "):
            print(line[6:].decode().strip())
    done = json.load(ask(f"{address}/api/jobs/{job['id']}", headers))
    if not done["samples"]:
        sys.exit(done["message"])
    Path(out).write_bytes(ask(address + done["samples"][0]["file"], headers).read())


if __name__ == "__main__":
    main(*sys.argv[1:])
