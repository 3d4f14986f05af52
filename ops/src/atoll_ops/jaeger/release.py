"""The official release: fetched by HTTPS, no byte more than pinned, its checksum verified before anything is unpacked.

The checksum is the whole trust: it was pinned by hand, so neither the host, nor a mirror, nor whoever is between can
give us another file. Everything else here keeps a bad host from costing more than a failed attempt: redirects stay on
HTTPS, silence and slowness are bounded, and of the archive one regular file is copied out, whatever else it holds.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from atoll_ops.jaeger.pins import Archive, Pins

RELEASES_URL = "https://github.com/jaegertracing/jaeger/releases/download"
#: Companies have mirrors: the same tree of vVERSION/FILE under another address.
RELEASES_VARIABLE = "ATOLL_RELEASES_URL"
SILENCE_SECONDS_MAX = 15.0
DOWNLOAD_SECONDS_MAX = 1800.0
REDIRECTS_MAX = 5
BINARY_BYTES_MAX = 512 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Say = Callable[[str], None]


class ReleaseError(Exception):
    """This release cannot be had from there; the text says why. Nothing of it was kept."""


def fetch(pins: Pins, archive: Archive, workroom: Path, say: Say) -> Path:
    """Bring the binary of the pinned release into `workroom`; its path. Raises ReleaseError."""
    name = pins.release.archive_name(pins.here)
    packed = workroom / name
    url = f"{releases_url()}/v{pins.release.version}/{name}"
    got = _download(url, packed, archive.bytes, lambda done: say(f"downloading {100 * done // archive.bytes} %"))
    if got.bytes != archive.bytes:
        raise ReleaseError(f"{url}: ended after {got.bytes} of {archive.bytes} bytes")
    if got.sha256 != archive.sha256:
        raise ReleaseError(f"{url}: its checksum is {got.sha256}, pinned is {archive.sha256}")
    return unpack(packed, name.removesuffix(".tar.gz"), workroom / "jaeger")


def fetch_unpinned(url: str, to: Path, say: Say) -> Archive:
    """Bring a file whose checksum nobody knows yet, for who pins it. Raises ReleaseError."""
    return _download(url, to, BINARY_BYTES_MAX, lambda done: say(f"{done >> 20} MB"))


def releases_url() -> str:
    """Where releases are fetched: the project's own place, or the mirror that the user named."""
    return (os.environ.get(RELEASES_VARIABLE) or RELEASES_URL).rstrip("/")


def unpack(packed: Path, folder: str, to: Path) -> Path:
    """Copy `folder`/jaeger, and nothing else, out of an archive that was verified. Raises ReleaseError."""
    try:
        with tarfile.open(packed, "r:gz") as archive:
            member = archive.getmember(f"{folder}/jaeger")
            if not member.isreg() or member.size > BINARY_BYTES_MAX:
                raise ReleaseError(f"{packed.name}: {member.name} is no regular file of a sensible size")
            source = archive.extractfile(member)
            assert source is not None  # it is a regular file
            with source, to.open("xb") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
    except KeyError as error:
        raise ReleaseError(f"{packed.name}: there is no {folder}/jaeger in it") from error
    except (tarfile.TarError, EOFError) as error:
        raise ReleaseError(f"{packed.name}: {error}") from error
    return to


def _download(url: str, to: Path, bytes_max: int, progress: Callable[[int], None]) -> Archive:
    """Fetch a file of at most so many bytes; what it is. Raises ReleaseError."""
    _check_url(url, RELEASES_VARIABLE)
    progress(0)
    try:
        with _OPENER.open(url, timeout=SILENCE_SECONDS_MAX) as answer, to.open("xb") as file:
            return _copy(answer, file, url, bytes_max, progress)
    except urllib.error.HTTPError as error:
        raise ReleaseError(f"{url} answers {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReleaseError(f"{url}: {getattr(error, 'reason', None) or error}") from error


def _copy(answer: Any, file: BinaryIO, url: str, bytes_max: int, progress: Callable[[int], None]) -> Archive:
    deadline = time.monotonic() + DOWNLOAD_SECONDS_MAX
    digest, got = hashlib.sha256(), 0
    while chunk := answer.read1(_CHUNK_BYTES):
        got += len(chunk)
        if got > bytes_max:
            raise ReleaseError(f"{url}: more than the {bytes_max} bytes that it may have")
        if time.monotonic() > deadline:
            raise ReleaseError(f"{url}: not done after {DOWNLOAD_SECONDS_MAX:.0f} s")
        digest.update(chunk)
        file.write(chunk)
        progress(got)
    return Archive(digest.hexdigest(), got)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few, and only to where we would have gone ourselves: the real host redirects to its storage."""

    max_redirections = REDIRECTS_MAX

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_url(newurl, f"{req.full_url} redirects")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)


def _check_url(url: str, who: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise ReleaseError(f"{who}: {url}: expected https:// (http:// for a loopback address alone)")
