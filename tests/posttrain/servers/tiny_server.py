"""A server that starts at once: /v1/completions, /load_model and /health as `transformers serve` has them.

The next token is a function of the model's name and of all tokens before it. It loads no folder with `FAIL` in it, and
none that is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VOCABULARY = 96


def next_token(model: str, tokens: list[int]) -> int:
    return zlib.crc32(f"{Path(model).name} {tokens}".encode()) % VOCABULARY


class Handler(BaseHTTPRequestHandler):
    pause = 0.0
    reply_to_health = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        if self.path == "/load_model":
            model = Path(body["model"])
            status = "ready" if model.is_dir() and not (model / "FAIL").exists() else "error"
            self._send({"status": status, "model": body["model"]})
            return
        tokens = [int(word) for word in body["prompt"].split()]
        for _ in range(json.loads(body["generation_config"])["max_new_tokens"]):
            tokens.append(next_token(body["model"], tokens))
            self._send({"choices": [{"text": f" {tokens[-1]}"}]})
            time.sleep(self.pause)

    def _send(self, message: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(message)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--model")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--fail", action="store_true")
    given = parser.parse_args()
    if given.fail or not Path(given.model).is_dir():
        sys.exit(3)
    Handler.pause = given.pause
    server = ThreadingHTTPServer((given.host, given.port), Handler)
    server.daemon_threads = True
    server.serve_forever(0.05)


if __name__ == "__main__":
    main()
