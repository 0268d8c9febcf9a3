"""The server under both exporters: how many clients it lets in before it knows them."""

from __future__ import annotations

import socket
import threading
import urllib.request

from prometheus_client import make_wsgi_app

from tests.metrics.fake_slurm import wait_for
from xgen.metrics.serve import _MAX_CLIENTS, Serving


def test_more_clients_than_there_is_room_for_are_sent_away_until_others_have_gone() -> None:
    serving = Serving(make_wsgi_app(), "127.0.0.1", name="web")
    before = threading.active_count()
    try:
        silent = [socket.create_connection(("127.0.0.1", serving.port), timeout=10) for _ in range(_MAX_CLIENTS)]
        wait_for(lambda: threading.active_count() == before + len(silent))
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as refused:
                assert refused.recv(1) == b""
        assert threading.active_count() == before + len(silent)
        for connection in silent:
            connection.close()
        wait_for(lambda: threading.active_count() == before)
        with urllib.request.urlopen(f"http://127.0.0.1:{serving.port}/metrics", timeout=10) as answer:
            assert answer.status == 200
    finally:
        serving.close()
