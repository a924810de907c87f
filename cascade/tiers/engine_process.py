"""The child process of ``EmbeddedEngine``: llama.cpp's HTTP server on loopback, and nothing else.

Started as ``python -m cascade.tiers.engine_process``. The first line of its standard input is its
``EngineSettings``, key included (arguments can be read by every user of the machine). It then
writes its base URL as one line to standard output, and serves until standard input is closed:
the pipe breaks however its parent ends, ``kill -9`` included.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import msgspec
import xllamacpp


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one engine needs to start.

    slot_tokens : context of one slot. llama.cpp divides its whole context by the slots.
    """

    model_path: str
    model_name: str
    api_key: str
    slots: int
    slot_tokens: int
    threads: int


def main() -> None:
    """Serve until the parent goes away."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineSettings)
    parent = _take_over_stdout()
    server = _listening(settings)
    parent.write(f"{server.listening_address}/v1\n".encode())
    parent.flush()
    sys.stdin.buffer.read()  # returns when the parent closes the pipe or dies
    os._exit(0)  # requests still running would keep the server's threads, and us, alive


def _take_over_stdout() -> BinaryIO:
    """Keep the pipe to the parent; whatever the engine prints goes where the log goes."""
    parent = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return parent


def _listening(settings: EngineSettings) -> xllamacpp.Server:
    """The server, its model loaded, on a free port of loopback."""

    params = xllamacpp.CommonParams()
    params.model.path = settings.model_path
    params.model_alias = {settings.model_name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.cors_origins = ""  # its default lets every web page ask
    params.api_keys = [settings.api_key]
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.slot_tokens
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.endpoint_metrics = True
    params.endpoint_slots = False  # it shows prompts
    params.ui = False
    params.cache_ram_mib = 0  # prefixes live in the slots; its default may take 8 GiB more
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
