"""`topokd-edge data fetch` against a real web server that breaks off, lies and changes its mind."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import io
import json
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

from topokd_edge.cli.fetch import fetch_data
from topokd_edge.data.addresses import SecureRedirects, check_url
from topokd_edge.data.download import Patience
from topokd_edge.data.fetch import Fetched, fetch
from topokd_edge.data.sources import SOURCES, Source, source
from topokd_edge.errors import BadInputError, CheckFailedError, MissingError, TopokdError, UsageError

PATIENCE = Patience(timeout_s=0.3, attempts=3, pause_s=0.0)


def zip_of(seed: int) -> bytes:
    """A zip file of about 200 kB, the same for the same seed."""
    noise = b"".join(hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(6250))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.dat"), noise)
    return made.getvalue()


BODY, OTHER = zip_of(1), zip_of(2)
SHA = hashlib.sha256(BODY).hexdigest()
Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: Any) -> None:
        pass

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    """Gives `answers` in order, the last again and again; keeps the headers of what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.seen: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/set.zip"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def serve(
    body: bytes = BODY, *, etag: str | None = '"1"', stop: int | None = None, ranges: bool = True
) -> Answer:
    """Answer as a good server does, but end the connection before byte `stop` of the file."""

    def answer(h: Handler) -> None:
        marks = {"ETag": etag} if etag else {}
        asked = h.headers.get("Range")
        if ranges and asked and h.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                h.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
                return
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            h.head(206, Content_Range=span, Content_Length=len(body) - start, **marks)
            h.wfile.write(body[start:stop])
        else:
            h.head(200, Content_Length=len(body), **marks)
            h.wfile.write(body[:stop])

    return answer


def say(status: int, body: bytes = b"", **headers: object) -> Answer:
    def answer(h: Handler) -> None:
        h.head(status, **{"Content_Length": len(body)} | headers)
        h.wfile.write(body)

    return answer


def chunked(body: bytes, *, whole: bool = True) -> Answer:
    """No Content-Length, no ETag: a file that the server packs while it sends."""

    def answer(h: Handler) -> None:
        h.protocol_version = "HTTP/1.1"
        h.head(200, Transfer_Encoding="chunked", Connection="close")
        h.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n" + (b"0\r\n\r\n" if whole else b""))

    return answer


def made_source(**changed: Any) -> Source:
    named = {"name": "made", "title": "a made set", "licence": "CC BY 4.0", "citation": "A. Author, 2020"}
    return Source(
        **{**named, "url": "https://h.invalid/made.zip", "home": "https://h.invalid", "format": "npz"}
        | changed
    )


def get(server: Server, folder: Path, **options: Any) -> Fetched:
    set_ = options.pop("source", made_source())
    return fetch(set_, folder, url=server.url, patience=PATIENCE, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


WHOLE = {"made.zip", "made.zip.receipt.json"}
PART = {"made.zip.part", "made.zip.part.json"}


class TestDownload:
    def test_file_and_receipt(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        got = get(server, tmp_path / "new" / "folder")
        assert got.file.read_bytes() == BODY
        assert (got.bytes, got.sha256, got.verified, got.downloaded) == (len(BODY), SHA, False, True)
        assert "no SHA-256 of this file is known" in got.basis
        assert names(got.file.parent) == WHOLE
        receipt = json.loads(got.file.with_name("made.zip.receipt.json").read_text())
        assert {
            "url": server.url,
            "bytes": len(BODY),
            "sha256": SHA,
            "verified": False,
            "etag": '"1"',
        }.items() <= receipt.items()
        assert receipt["licence"] == "CC BY 4.0"

    @pytest.mark.parametrize("etag", ['"1"', None])
    def test_no_length(self, server: Server, tmp_path: Path, etag: str | None) -> None:
        server.answers = [chunked(BODY)]
        seen: list[tuple[int, int]] = []
        got = get(server, tmp_path, progress=lambda task, done, total, note="": seen.append((done, total)))
        assert got.sha256 == SHA
        assert seen[-1] == (1, 1)

    def test_progress_ends(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        seen: list[tuple[int, int]] = []
        get(server, tmp_path, progress=lambda task, done, total, note="": seen.append((done, total)))
        assert seen[0] == (0, 1) and seen[-1] == (1, 1)

    def test_redirect(self, server: Server, tmp_path: Path) -> None:
        server.answers = [say(302, Location="/elsewhere.zip"), serve()]
        assert get(server, tmp_path).sha256 == SHA

    @pytest.mark.parametrize(
        "to", ["http://h.invalid/x.zip", "ftp://h.invalid/x.zip", "file:///etc/passwd", "http://[", "data:,x"]
    )
    def test_redirect_away_from_https_is_refused(self, server: Server, tmp_path: Path, to: str) -> None:
        server.answers = [say(302, Location=to)]
        with pytest.raises((BadInputError, MissingError)) as caught:
            get(server, tmp_path)
        if to.startswith("http://h"):
            assert "'http://h.invalid/x.zip', which is not https" in str(caught.value)
        assert not WHOLE & names(tmp_path)

    def test_secure_address_is_not_sent_to_an_insecure_one(self) -> None:
        request = urllib.request.Request("https://h.invalid/a.zip")
        for to in ("http://h.invalid/a.zip", "http://127.0.0.1/a.zip"):
            with pytest.raises(BadInputError, match="not https"):
                SecureRedirects().redirect_request(request, io.BytesIO(), 302, "", mock.Mock(), to)
        assert SecureRedirects().redirect_request(
            request, io.BytesIO(), 302, "", {}, "https://b.invalid/a.zip"
        )  # type: ignore[arg-type]


class TestResume:
    def test_within_one_call(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(stop=70_000), serve(stop=150_000), serve()]
        assert get(server, tmp_path).sha256 == SHA
        assert [h.get("Range") for h in server.seen] == [None, "bytes=70000-", "bytes=150000-"]
        assert server.seen[1]["If-Range"] == '"1"'
        assert names(tmp_path) == WHOLE

    def test_by_the_next_call(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(stop=100_000), serve(stop=100_000)]
        with pytest.raises(MissingError, match=f"ended after 100,000 of {len(BODY):,} bytes") as caught:
            get(server, tmp_path)
        assert "https://h.invalid" in caught.value.hint and "topokd-edge data import npz" in caught.value.hint
        assert names(tmp_path) == PART
        server.answers, server.seen = [serve()], []
        assert get(server, tmp_path).sha256 == SHA
        assert [h.get("Range") for h in server.seen] == ["bytes=100000-"]

    def test_date_instead_of_a_weak_etag(self, server: Server, tmp_path: Path) -> None:
        date = "Wed, 21 Oct 2015 07:28:00 GMT"

        def rest(h: Handler) -> None:
            assert h.headers["If-Range"] == date
            h.head(206, Content_Range=f"bytes 1000-{len(BODY) - 1}/{len(BODY)}", ETag='W/"1"')
            h.wfile.write(BODY[1000:])

        server.answers = [
            say(200, BODY[:1000], Content_Length=len(BODY), ETag='W/"1"', Last_Modified=date),
            rest,
        ]
        assert get(server, tmp_path).sha256 == SHA
        assert len(server.seen) == 2

    def test_nothing_to_recognise_the_file_by(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(etag=None, stop=1000), serve(etag=None)]
        assert get(server, tmp_path).sha256 == SHA
        assert "Range" not in server.seen[1]

    def test_broken_while_packed(self, server: Server, tmp_path: Path) -> None:
        server.answers = [chunked(BODY[:150_000], whole=False), chunked(BODY)]
        assert get(server, tmp_path).sha256 == SHA

    def test_server_without_ranges(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(stop=100_000), serve(ranges=False)]
        assert get(server, tmp_path).sha256 == SHA
        assert len(server.seen) == 2

    def test_changed_file(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(OTHER, etag='"old"', stop=100_000), serve()]
        assert get(server, tmp_path).sha256 == SHA

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content_Range": f"bytes 100000-{len(BODY) - 1}/{len(BODY)}", "ETag": '"2"'},
            {"Content_Range": f"bytes 100000-{len(BODY) - 1}/{len(BODY) + 1}", "ETag": '"1"'},
            {"Content_Range": f"bytes 99999-{len(BODY) - 1}/{len(BODY)}", "ETag": '"1"'},
            {"Content_Range": "bytes nonsense", "ETag": '"1"'},
            {"Content_Range": f"bytes {'9' * 5000}-9/9", "ETag": '"1"'},
            {"ETag": '"1"'},
        ],
    )
    def test_wrong_part_begins_again(self, server: Server, tmp_path: Path, headers: dict[str, str]) -> None:
        server.answers = [serve(stop=100_000), say(206, b"x" * (len(BODY) - 100_000), **headers), serve()]
        assert get(server, tmp_path).sha256 == SHA
        assert "Range" not in server.seen[2]

    def test_part_nobody_asked_for(self, server: Server, tmp_path: Path) -> None:
        server.answers = [say(206, BODY, Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}"), serve()]
        assert get(server, tmp_path).sha256 == SHA
        assert len(server.seen) == 2

    def test_part_of_an_unmarked_file(self, server: Server, tmp_path: Path) -> None:
        rest = say(206, OTHER[1000:], Content_Range=f"bytes 1000-{len(BODY) - 1}/{len(BODY)}")
        server.answers = [serve(etag=None, stop=1000), rest, serve()]
        assert get(server, tmp_path).sha256 == SHA

    def test_part_of_another_address_or_of_nothing(self, server: Server, tmp_path: Path) -> None:
        for notes in (
            '{"url": "https://x", "total": null, "etag": "\\"1\\"", "last_modified": null}',
            "no",
            "[]",
        ):
            (tmp_path / "made.zip.part").write_bytes(b"x" * 1000)
            (tmp_path / "made.zip.part.json").write_text(notes)
            server.answers = [serve()]
            assert get(server, tmp_path, overwrite=True).sha256 == SHA
        assert all("Range" not in headers for headers in server.seen)

    def test_interrupted(self, server: Server, tmp_path: Path) -> None:
        def interrupt(task: str, done: int, total: int, note: str = "") -> None:
            if (tmp_path / "made.zip.part").stat().st_size:
                raise KeyboardInterrupt

        server.answers = [serve()]
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path, progress=interrupt)
        assert names(tmp_path) == PART
        have = (tmp_path / "made.zip.part").stat().st_size
        assert 0 < have < len(BODY)
        assert get(server, tmp_path).sha256 == SHA
        assert server.seen[-1]["Range"] == f"bytes={have}-"

    def test_whole_part_needs_no_network(self, server: Server, tmp_path: Path) -> None:
        """Killed between the last byte and the new name."""
        server.answers = [serve()]
        with (
            mock.patch("topokd_edge.data.fetch.write_json", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            get(server, tmp_path)
        assert names(tmp_path) == PART
        server.answers, server.seen = [say(404)], []
        assert get(server, tmp_path).sha256 == SHA
        assert server.seen == []

    def test_two_at_once(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        with (tmp_path / "made.zip.part").open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(BadInputError, match="another process is downloading"):
                get(server, tmp_path)
        assert server.seen == []


class TestServerFailures:
    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_no_such_file_is_not_asked_for_again(self, server: Server, tmp_path: Path, status: int) -> None:
        server.answers = [say(status)]
        with pytest.raises(MissingError, match=f"answered {status}") as caught:
            get(server, tmp_path)
        assert "by hand from https://h.invalid" in caught.value.hint
        assert names(tmp_path) == set()
        assert len(server.seen) == 1

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_busy_server_is_asked_again(self, server: Server, tmp_path: Path, status: int) -> None:
        server.answers = [say(status), say(status), serve()]
        assert get(server, tmp_path).sha256 == SHA

    def test_pauses_grow(self, server: Server, tmp_path: Path) -> None:
        server.answers = [say(503)]
        with mock.patch("time.sleep") as sleep, pytest.raises(MissingError, match=r"503.*4 attempts"):
            fetch(made_source(), tmp_path, url=server.url, patience=Patience(0.3, 4, 1.5))
        assert [call.args[0] for call in sleep.call_args_list] == [1.5, 3.0, 6.0]

    def test_silent_server(self, server: Server, tmp_path: Path) -> None:
        def wait(h: Handler) -> None:
            h.head(200, Content_Length=len(BODY), ETag='"1"')
            h.wfile.write(BODY[:70_000])
            h.wfile.flush()
            h.connection.recv(1)

        server.answers = [wait, serve()]
        assert get(server, tmp_path).sha256 == SHA

    def test_nobody_listens(self, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip"
            with pytest.raises(MissingError, match="no answer"):
                fetch(made_source(), tmp_path, url=url, patience=PATIENCE)

    def test_tls_with_a_server_that_has_none(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        with pytest.raises(MissingError, match="no answer"):
            fetch(made_source(), tmp_path, url=server.url.replace("http:", "https:"), patience=PATIENCE)
        assert server.seen == []

    def test_hostile_chunk_size(self, server: Server, tmp_path: Path) -> None:
        def answer(h: Handler) -> None:
            h.protocol_version = "HTTP/1.1"
            h.head(200, Transfer_Encoding="chunked", Connection="close")
            h.wfile.write(b"-5\r\nxxxxxxxxxx")

        server.answers = [answer]
        with pytest.raises(MissingError, match="broke after 0 bytes"):
            get(server, tmp_path)

    def test_not_http(self, server: Server, tmp_path: Path) -> None:
        server.answers = [lambda h: h.wfile.write(b"\x00\x01nonsense\n" * 10) and None]
        with pytest.raises(MissingError):
            get(server, tmp_path)

    @pytest.mark.parametrize(
        "answer",
        [
            say(200, b"<html>accept our terms</html>", Content_Type="text/html; charset=utf-8"),
            say(200, b"\x1f\x8b", Content_Encoding="gzip"),
            say(204),
        ],
    )
    def test_page_instead_of_the_file_leaves_the_part_alone(
        self, server: Server, tmp_path: Path, answer: Answer
    ) -> None:
        server.answers = [serve(stop=100_000), answer]
        with pytest.raises(MissingError, match="sent no data file"):
            get(server, tmp_path)
        assert (tmp_path / "made.zip.part").read_bytes() == BODY[:100_000]

    def test_length_that_promises_too_much(self, server: Server, tmp_path: Path) -> None:
        server.answers = [say(200, BODY, Content_Length=len(BODY) + 1, ETag='"1"'), serve()]
        assert (
            get(server, tmp_path).sha256 == SHA
        )  # the rest is asked for, is not there (416), and all begins again
        assert [h.get("Range") for h in server.seen] == [None, f"bytes={len(BODY)}-", None]

    @pytest.mark.parametrize(
        "answer",
        [
            say(200, BODY, Content_Length=len(BODY) - 1),
            say(200, b"", Content_Length=0),
            say(200, b"no zip at all", Content_Type="application/zip"),
            chunked(BODY[:-100]),
        ],
    )
    def test_what_is_no_whole_zip_is_not_put_in_place(
        self, server: Server, tmp_path: Path, answer: Answer
    ) -> None:
        server.answers = [answer]
        with pytest.raises(BadInputError, match="no whole zip"):
            get(server, tmp_path)
        assert names(tmp_path) == set()

    def test_no_room(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        usage = mock.Mock(free=(64 << 20) + len(BODY) - 1)
        with (
            mock.patch("shutil.disk_usage", return_value=usage),
            pytest.raises(MissingError, match="67 MB free") as caught,
        ):
            get(server, tmp_path)
        assert "--to" in caught.value.hint
        assert names(tmp_path) == set()

    def test_room_that_ends_while_an_endless_answer_comes(self, server: Server, tmp_path: Path) -> None:
        server.answers = [chunked(BODY)]
        usages = [mock.Mock(free=free) for free in (10**12, 10**12, 0)]
        with (
            mock.patch("shutil.disk_usage", side_effect=usages),
            pytest.raises(MissingError, match="0 MB free"),
        ):
            get(server, tmp_path)
        assert names(tmp_path) == PART


class TestChecksum:
    @pytest.mark.parametrize("stated", [SHA, SHA.upper()])
    def test_stated_by_the_user(self, server: Server, tmp_path: Path, stated: str) -> None:
        server.answers = [serve()]
        got = get(server, tmp_path, sha256=stated)
        assert got.verified
        assert json.loads((tmp_path / "made.zip.receipt.json").read_text())["verified"]

    def test_stated_by_the_table(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        assert get(server, tmp_path, source=made_source(sha256=SHA)).verified
        with pytest.raises(CheckFailedError):
            get(server, tmp_path, source=made_source(sha256="0" * 64), overwrite=True)

    def test_wrong(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        with pytest.raises(CheckFailedError) as caught:
            get(server, tmp_path, sha256="ab" * 32)
        assert SHA in str(caught.value) and "ab" * 32 in str(caught.value)
        assert names(tmp_path) == set()

    def test_wrong_leaves_the_file_that_is_there(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(), serve(OTHER, etag='"2"')]
        get(server, tmp_path)
        with pytest.raises(CheckFailedError, match="the receipt of 20") as caught:
            get(server, tmp_path, overwrite=True)
        assert SHA in str(caught.value) and hashlib.sha256(OTHER).hexdigest() in str(caught.value)
        assert (tmp_path / "made.zip").read_bytes() == BODY
        assert names(tmp_path) == WHOLE

    def test_new_version_that_the_user_states(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(), serve(OTHER, etag='"2"')]
        get(server, tmp_path)
        new = hashlib.sha256(OTHER).hexdigest()
        assert get(server, tmp_path, overwrite=True, sha256=new).verified
        assert get(server, tmp_path).sha256 == new

    def test_second_download_is_compared_with_the_first(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(), serve(), serve(OTHER)]
        get(server, tmp_path)
        (tmp_path / "made.zip").unlink()
        again = get(server, tmp_path)
        assert (again.verified, again.downloaded) == (False, True)
        assert "receipt of 20" in again.basis
        (tmp_path / "made.zip").unlink()
        with pytest.raises(CheckFailedError, match="receipt"):
            get(server, tmp_path)

    def test_there_already(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve(), say(404)]
        first = get(server, tmp_path, sha256=SHA)
        again = get(server, tmp_path)
        assert (again.sha256, again.verified, again.downloaded) == (first.sha256, True, False)
        assert len(server.seen) == 1

    def test_there_but_changed(self, server: Server, tmp_path: Path) -> None:
        server.answers = [serve()]
        get(server, tmp_path)
        (tmp_path / "made.zip").write_bytes(OTHER)
        with pytest.raises(CheckFailedError, match="left as it is"):
            get(server, tmp_path)
        assert (tmp_path / "made.zip").read_bytes() == OTHER
        assert get(server, tmp_path, overwrite=True).file.read_bytes() == BODY

    def test_there_and_unknown(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "made.zip").write_bytes(BODY)
        with pytest.raises(BadInputError, match="nothing says where it came from"):
            get(server, tmp_path)
        assert get(server, tmp_path, sha256=SHA).verified
        assert server.seen == []

    def test_there_and_no_file(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "made.zip").mkdir()
        for overwrite in (False, True):
            with pytest.raises(BadInputError, match="is not a file"):
                get(server, tmp_path, overwrite=overwrite)

    def test_folder_that_is_a_file(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "here").write_text("")
        for folder in ("here", "here/below"):
            with pytest.raises(BadInputError, match="is not a folder"):
                get(server, tmp_path / folder)
        assert server.seen == []

    @pytest.mark.parametrize("text", ["no", "[]", '{"sha256": "12", "date": "x", "verified": false}'])
    def test_damaged_receipt(self, server: Server, tmp_path: Path, text: str) -> None:
        server.answers = [serve()]
        get(server, tmp_path)
        (tmp_path / "made.zip.receipt.json").write_text(text)
        with pytest.raises(BadInputError, match=r"receipt\.json"):
            get(server, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://h.invalid/x.zip",
        "http://127.0.0.1.h.invalid/x.zip",
        "file:///etc/passwd",
        "ftp://h.invalid/x.zip",
        "ftp://localhost/x.zip",
        "file://localhost/etc/passwd",
        "data:,x",
        "x.zip",
        "https://",
        "https://u:p@h.invalid/x.zip",
        "https://h.invalid:port/x.zip",
        "https://[::1/x.zip",
        "https://h.invalid/a b.zip",
        "https://h.invalid/\r\nX: y",
        "https://h.invalid/\u00e4.zip",
        "",
    ],
)
def test_address_is_refused_before_anything_is_done(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "u:p" not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_certificate_of_nobody_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    command = ["openssl", *request.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers = [serve()]
    url = server.url.replace("http:", "https:")
    with pytest.raises(MissingError, match="certificate does not hold") as caught:
        fetch(made_source(), tmp_path, url=url, patience=PATIENCE)
    assert "attempts" not in caught.value.message
    assert server.seen == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def _known_source(self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        server.answers = [serve()]
        monkeypatch.setitem(SOURCES, "made", made_source(url=server.url, about_mb=1))
        monkeypatch.chdir(tmp_path)

    def run(self, *arguments: str, answer: str | None = None) -> tuple[str, str]:
        app = typer.Typer()
        app.command()(fetch_data)
        terminal = io.StringIO(f"{answer}\n")
        terminal.isatty = lambda: answer is not None  # type: ignore[method-assign]
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", terminal):
            try:
                app(arguments, standalone_mode=False)
            finally:
                self.out, self.err = out.getvalue(), err.getvalue()
        return self.out, self.err

    def test_json(self, server: Server) -> None:
        out, err = self.run("made", "--to", "here", "--yes", "--json")
        answer = json.loads(out)
        assert {
            "name": "made",
            "file": "here/made.zip",
            "bytes": len(BODY),
            "sha256": SHA,
            "verified": False,
        }.items() <= answer.items()
        assert answer["import"] == "topokd-edge data import npz here/made.zip --out windows"
        assert (answer["licence"], answer["citation"]) == ("CC BY 4.0", "A. Author, 2020")
        assert "cannot be verified" in err

    def test_for_people(self) -> None:
        out, err = self.run("made", "--yes", "--sha256", SHA)
        assert SHA in out and "yes: the same as the SHA-256 that was stated" in out
        assert "licence: CC BY 4.0" in err and "cannot be verified" not in err

    def test_without_a_terminal_it_stops_before_the_network(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--yes"):
            self.run("made", "--json")
        assert "CC BY 4.0" in self.err and "A. Author" in self.err and self.out == ""
        assert server.seen == [] and names(tmp_path) == set()

    def test_on_a_terminal_it_asks(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not accepted"):
            self.run("made", answer="n")
        assert server.seen == [] and names(tmp_path) == set()
        assert SHA in self.run("made", answer="y")[0]

    def test_there_already_needs_no_consent(self, server: Server) -> None:
        self.run("made", "--yes")
        assert "was there" in self.run("made")[0]
        assert len(server.seen) == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nope",), "pamap2"),
            (("made", "--yes", "--url", "file:///etc/passwd"), "https"),
            (("made", "--yes", "--url", "http://h.invalid/x"), "https"),
            (("made", "--yes", "--sha256", "12"), "64 hexadecimal"),
        ],
    )
    def test_wrong_usage(
        self, server: Server, tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        with pytest.raises(UsageError, match=words):
            self.run(*arguments)
        assert server.seen == [] and names(tmp_path) == set()

    def test_interrupted_says_what_is_kept(self, capsys: pytest.CaptureFixture[str]) -> None:
        with (
            mock.patch("topokd_edge.data.fetch.fetch", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            fetch_data("made", yes=True)
        assert "goes on from there" in capsys.readouterr().err

    def test_import_command_says_what_the_format_has_to_be_told(
        self, monkeypatch: pytest.MonkeyPatch, server: Server
    ) -> None:
        monkeypatch.setitem(SOURCES, "made", made_source(url=server.url, format="uea", options="--rate 16"))
        answer = json.loads(self.run("made", "--to", "a b", "--yes", "--json")[0])
        assert answer["import"] == "topokd-edge data import uea 'a b/made.zip' --rate 16 --out windows"

    def test_list(self, server: Server) -> None:
        out, _ = self.run()
        assert all(name in out for name in SOURCES) and "about 656 MB" in out
        listed = json.loads(self.run("--json")[0])["sources"]
        assert [item["name"] for item in listed] == list(SOURCES)
        assert server.seen == []


class TestSources:
    @pytest.mark.parametrize("name", list(SOURCES))
    def test_says_what_a_person_must_know(self, name: str) -> None:
        set_ = source(name)
        check_url(set_.url)
        check_url(set_.home)
        assert set_.url.endswith(".zip") and set_.url.startswith("https:")
        assert set_.licence and set_.citation and set_.title and set_.format
        assert name == set_.name == name.lower()

    def test_a_failure_is_explained(self) -> None:
        with pytest.raises(TopokdError, match="data fetch says what each is"):
            source("nope")
