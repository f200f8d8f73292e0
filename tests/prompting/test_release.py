"""The authors' wording: from a clone, from the cache, or fetched once and checked; parsed, never executed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from bad_server import Server, completion, tagged

from sdg import load_detector
from sdg.errors import SdgError
from sdg.io import download as downloads
from sdg.io.download import download
from sdg.prompting import release
from sdg.prompting.chat import given_profile
from sdg.prompting.constants import MAX_BYTES
from sdg.prompting.release import CLONE, ReleasedText
from sdg.scorers import load_scorer

SOURCE = """
raise RuntimeError("this file is not to be run")
WORDS = ("Look at {caption}. "
         "Answer {{like}} this.")
QUESTION = "Rate [{prompt}], {{please}}"
"""


class Host:
    """A server of files on 127.0.0.1; counts what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                content = host.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Host()
    thread = threading.Thread(target=served.server.serve_forever, daemon=True)
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(CLONE, raising=False)


def words(address: str = "http://127.0.0.1:9", constant: str = "WORDS") -> ReleasedText:
    return ReleasedText("code/words.py", constant, hashlib.sha256(SOURCE.encode()).hexdigest(), address)


def clone(folder: Path, source: str = SOURCE) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "words.py").write_text(source)
    return folder


def test_the_file_is_fetched_once_checked_and_kept(host: Host, tmp_path: Path) -> None:
    host.files["/code/words.py"] = SOURCE.encode()
    text = words(host.url).read()
    assert text == "Look at {caption}. Answer {{like}} this."
    assert words(host.url).read() == text
    assert words().read() == text  # the cache alone; that address is closed
    assert host.asked == ["/code/words.py"]
    (kept,) = (file for file in (tmp_path / "cache" / "sdg").rglob("*") if file.is_file())
    assert kept.read_text() == SOURCE


@pytest.mark.parametrize("changed", ["WORDS = 'something else, {caption}'", "#" * (MAX_BYTES + 1)])
def test_a_cached_file_that_was_changed_is_fetched_anew(host: Host, tmp_path: Path, changed: str) -> None:
    host.files["/code/words.py"] = SOURCE.encode()
    words(host.url).read()
    (kept,) = (file for file in (tmp_path / "cache" / "sdg").rglob("*") if file.is_file())
    kept.write_text(changed)
    assert words(host.url).read().startswith("Look at")
    assert len(host.asked) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SOURCE.encode() + b"\n", "holds other bytes than were published"),
        (b"x" * (MAX_BYTES + 1), "is larger than"),
        (None, "cannot be fetched: HTTP Error 404"),
    ],
)
def test_what_is_not_the_pinned_file_is_refused_and_not_kept(
    host: Host, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        host.files["/code/words.py"] = content
    with pytest.raises(SdgError, match=said) as raised:
        words(host.url).read()
    assert "set SDG_RELEASE to it, or put that file to" in str(raised.value)
    assert not (tmp_path / "cache").exists()


def test_without_a_network_one_sentence_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(SdgError) as raised:
        words().read()
    place = tmp_path / "cache" / "sdg" / "release" / "23745709" / "words.py"
    said = str(raised.value)
    assert said.startswith("http://127.0.0.1:9/code/words.py cannot be fetched")
    assert said.endswith(
        f"clone github.com/nianbai006/SDG and set SDG_RELEASE to it, or put that file to {place}."
    )
    place.parent.mkdir(parents=True)
    place.write_text(SOURCE)
    assert words().read().startswith("Look at")


def test_a_clone_is_read_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CLONE, str(clone(tmp_path / "SDG")))
    assert words().read().startswith("Look at")
    assert not caplog.records
    monkeypatch.setenv(CLONE, str(clone(tmp_path / "windows", SOURCE.replace("\n", "\r\n"))))
    assert words().read().startswith("Look at")
    assert not caplog.records
    monkeypatch.setenv(CLONE, str(clone(tmp_path / "changed", SOURCE.replace("Look", "Stare"))))
    assert words().read().startswith("Stare at")
    assert "differs from that of commit 23745709" in caplog.text


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_folder_that_is_no_clone_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(CLONE, str(tmp_path / name))
    with pytest.raises(SdgError, match=r"code/words\.py is not; name a clone of github\.com/nianbai006/SDG"):
        words().read()


def test_the_word_release_stands_for_it_in_uris_of_detectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLONE, str(clone(tmp_path / "SDG")))
    monkeypatch.setattr(release, "DETECTOR", words())
    profile = given_profile("release")
    assert profile is not None
    assert profile.user_text("a {cup}") == "Look at a {cup}. Answer {like} this."
    with Server(lambda index, attempt: completion("<think>t</think><answer>[]</answer>")) as server:
        detector = load_detector(f"openai:{server.url}?profile=release#sdg")
        assert detector.diagnose([(tagged(0), "a cup")])[0].is_clean
    (body,) = server.bodies
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"][1]["text"] == "Look at a cup. Answer {like} this."
    assert body["max_completion_tokens"] == 4096


def test_the_base_reward_is_asked_in_the_wording_that_the_uri_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLONE, str(clone(tmp_path / "SDG")))
    monkeypatch.setattr(release, "UNIFIED_REWARD", words(constant="QUESTION"))
    (tmp_path / "ours.toml").write_text(
        'system = "Be brief."\nplaceholder = "{prompt}"\ndoubled_braces = true\n'
        'template_from = { file = "SDG/code/words.py", constant = "QUESTION" }\n'
        "image = { longest_side = 8 }\ngeneration = { max_new_tokens = 33 }\n"
    )
    answer = completion("Alignment Score (1-5): 5\nCoherence Score (1-5): 3\nStyle Score (1-5): 3")
    with Server(lambda index, attempt: answer) as server:
        for profile in ("release", tmp_path / "ours.toml", "default"):
            scorer = load_scorer(f"unified-reward:{server.url}?profile={profile}#judge")
            assert scorer.score([tagged(0)], ["a {cup}"]) == [pytest.approx(0.92)]
    theirs, ours, default = (body["messages"] for body in server.bodies)
    assert theirs[-1]["content"][1]["text"] == "Rate [a {cup}], {please}"
    assert len(theirs) == 1
    assert ours[0] == {"role": "system", "content": "Be brief."}
    assert ours[1]["content"][1]["text"] == "Rate [a {cup}], {please}"
    assert "a {cup}" in default[0]["content"][1]["text"] != theirs[0]["content"][1]["text"]
    assert [body["max_completion_tokens"] for body in server.bodies] == [512, 33, 256]


def test_a_download_is_bounded_in_time_and_of_the_web_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.files["/a"] = b"abc"
    assert download(f"{host.url}/a", 3) == b"abc"
    with pytest.raises(SdgError, match="is larger than the 2 bytes"):
        download(f"{host.url}/a", 2)
    clock = iter(range(0, 1000, 31))
    monkeypatch.setattr(downloads.time, "monotonic", lambda: next(clock))
    with pytest.raises(SdgError, match="did not come within 30 seconds"):
        download(f"{host.url}/a", 3)
    with pytest.raises(SdgError, match="is no address of the web"):
        download("file:///etc/passwd", 3)
