"""The images-edit API: what is sent, and that whatever a server does costs the request it concerns."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from edit_api import Api, echo, failure, reply
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.refinement import build_request, load_editor
from sdg.refinement.openai_editor import OpenAIEditor

FOUND = Diagnosis((Defect((250, 250, 750, 750), "artifact", "a melted handle", 60),))


def editor(api, **settings):
    return OpenAIEditor(
        api.url, "painter", **{"first_pause": 0.01, "per_minute": 1e6, "attempts": 3, **settings}
    )


def requests(count=1, mode="sdg"):
    picture = Image.new("RGB", (40, 24), "green")
    return [build_request(picture, "a cup", FOUND, mode=mode) for _ in range(count)]


def test_the_request_holds_picture_frames_mask_and_instruction(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    (request,) = requests()
    with Api(reply()) as api:
        (result,) = editor(api).edit([request])
    assert result.picture.size == (40, 24)
    assert result.picture.getpixel((20, 12)) == (255, 0, 0)
    assert api.paths == ["/v1/images/edits"]
    assert api.keys == ["Bearer secret-key"]
    fields = api.asked[0]
    names = ["image[]", "image[]", "mask", "model", "n", "prompt", "quality", "size"]
    assert sorted(name for name, _ in fields) == names
    sent = dict(fields)
    assert sent["prompt"].decode() == request.instruction
    assert (sent["size"], sent["quality"], sent["n"]) == (b"1536x1024", b"high", b"1")
    picture, marked = pictures(fields)
    assert picture.shape == marked.shape == (1024, 1536, 3)
    # 40 × 24 becomes 1536 × 922: 51 rows of padding at either end.
    assert (picture[51:973] == (0, 128, 0)).all()
    assert (np.delete(picture, slice(51, 973), axis=0) == 128).all()
    red, green, blue = marked[51 + 6 * 38 + 19, 10 * 38 + 19]  # in a corner of the frame, 38 times as large
    assert red > 200 > 60 > max(green, blue)
    alpha = np.asarray(Image.open(io.BytesIO(sent["mask"])))[..., 3]
    across, down = (np.arange(1536) + 0.5) * 40 / 1536, (np.arange(922) + 0.5) * 24 / 922
    assert np.array_equal(alpha[51:973] == 0, (request.mask > 0)[down.astype(int)][:, across.astype(int)])
    assert (np.delete(alpha, slice(51, 973), axis=0) == 255).all()
    assert len(sent["mask"]) < 100_000  # the API takes no more than 4 MB


def pictures(fields):
    return [np.asarray(Image.open(io.BytesIO(data))) for name, data in fields if name == "image[]"]


def test_a_picture_of_a_size_the_api_knows_is_sent_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    with Api(echo) as api:
        (result,) = editor(api).edit([build_request(Image.fromarray(noise), "a cup", FOUND, mode="fixed")])
    assert np.array_equal(pictures(api.asked[0])[0], noise)
    assert np.array_equal(np.asarray(result.picture), noise)
    assert dict(api.asked[0])["size"] == b"1024x1024"
    assert "mask" not in dict(api.asked[0])  # nothing is padded, and all of it may change


@pytest.mark.parametrize(
    ("size", "asked"), [((60, 60), "1024x1024"), ((96, 64), "1536x1024"), ((30, 90), "1024x1536")]
)
def test_what_comes_back_lies_where_the_picture_does(size, asked):
    # A cross in the middle of a bright picture: where the canvas is not cut right, its arms are elsewhere.
    width, height = size
    values = np.full((height, width, 3), 200, np.uint8)
    values[height // 2 - 2 : height // 2 + 2] = values[:, width // 2 - 2 : width // 2 + 2] = 20
    picture = Image.fromarray(values)
    with Api(echo) as api:
        (result,) = editor(api).edit([build_request(picture, "a cup", FOUND)])
    assert dict(api.asked[0])["size"].decode() == asked
    assert np.abs(np.asarray(result.picture).astype(int) - values).mean() < 4


def test_an_answer_of_another_shape_is_refused_and_never_squeezed():
    with Api(reply(size=(1024, 1024))) as api:
        (result,) = editor(api).edit(requests())
    assert result.picture is None
    assert result.error == (
        "The server gave a picture of 1024 × 1024 pixels where one of 1536 × 1024 was asked for."
    )


def test_heat_maps_are_sent_as_pictures_and_stand_in_for_the_mask():
    heat = (np.array([[1.0, 0.0]]), np.array([[0.0, 0.5]]))
    request = build_request(Image.new("RGB", (512, 512)), "a cup", FOUND, mode="heatmap", heat=heat)
    with Api(reply(size=(1024, 1024))) as api:
        editor(api).edit([request])
    picture, artifact, misalignment = pictures(api.asked[0])
    assert picture.shape == artifact.shape == misalignment.shape == (1024, 1024, 3)
    assert [artifact[512, place, 0] for place in (0, 1023)] == [255, 0]
    assert [misalignment[512, place, 0] for place in (0, 1023)] == [0, 128]
    assert "mask" not in dict(api.asked[0])


def test_options_stand_in_the_uri():
    with Api(reply()) as api:
        loaded = load_editor(f"openai:{api.url}#painter?quality=low&concurrency=5&per_minute=600&attempts=1")
        assert loaded.concurrency == 5
        loaded.edit(requests())
    assert dict(api.asked[0])["quality"] == b"low"
    for options, sentence in {
        "qualty=low": "The openai editor has no option 'qualty'; did you mean 'quality'?",
        "quality=best": "The openai editor's option quality is one of high, medium, low, auto, not 'best'.",
    }.items():
        with pytest.raises(SdgError) as raised:
            load_editor(f"openai:{api.url}#painter?{options}")
        assert str(raised.value) == sentence


def test_two_requests_at_a_time_are_sent_however_many_threads_ask():
    with Api(*[reply()] * 12, delay=0.05) as api, ThreadPoolExecutor(4) as threads:
        both = editor(api, concurrency=2)
        results = [result for found in threads.map(both.edit, [requests(3)] * 4) for result in found]
    assert all(result.picture is not None for result in results)
    assert len(results) == 12
    assert api.busiest == 2


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down"),
        failure(500, "broken"),
        (0, b""),
        (200, b'{"data": [{'),
        (200, b'{"data": []}'),
    ],
    ids=["busy", "broken", "hang-up", "half JSON", "no picture"],
)
def test_trouble_is_waited_out(trouble):
    with Api(trouble, trouble, reply()) as api:
        (result,) = editor(api).edit(requests())
    assert result.picture is not None
    assert len(api.asked) == 3


def test_a_refusal_costs_its_picture_alone_and_is_not_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with Api(failure(400, "Content policy, secret-key."), reply()) as api:
        first, second = editor(api, concurrency=1).edit(requests(2))
    assert first.picture is None
    assert "Content policy" in first.error
    assert "secret-key" not in first.error
    assert second.picture is not None
    assert len(api.asked) == 2


def test_what_is_no_picture_is_an_error_in_words():
    nonsense = json.dumps({"data": [{"b64_json": base64.b64encode(b"no picture").decode()}]}).encode()
    with Api((200, nonsense)) as api:
        (result,) = editor(api).edit(requests())
    assert result.picture is None
    assert "the edited picture" in result.error


def test_an_address_in_place_of_the_picture_is_paid_for_once():
    answer = {"data": [{"url": "https://pictures.example/1.png", "b64_json": None}]}
    with Api((200, json.dumps(answer).encode()), reply()) as api:
        (result,) = editor(api).edit(requests())
    assert "gave an address in place of the picture" in result.error
    assert len(api.asked) == 1


def test_an_answer_nested_without_end_is_an_error_in_words():
    with Api((200, b"[" * 100_000)) as api:
        (result,) = editor(api, attempts=1).edit(requests())
    assert "holds no picture" in result.error


def test_a_picture_beside_an_error_or_another_picture_is_none():
    picture = json.loads(reply()[1])["data"]
    for answer in (
        {"data": picture, "error": {"message": "overloaded"}},
        {"data": picture, "error": "overloaded"},
        {"data": [picture[0] | {"error": "unfinished"}]},
        {"data": picture * 2},
        {"data": picture[0]},
        {"data": []},
    ):
        with Api((200, json.dumps(answer).encode()), reply()) as api:
            (result,) = editor(api).edit(requests())
        assert result.picture is not None
        assert len(api.asked) == 2, answer


def test_a_dead_server_is_not_asked_for_ever():
    with Api() as api:
        results = editor(api, concurrency=1, attempts=2).edit(requests(9))
    assert len(results) == 9
    assert all(result.picture is None and result.error for result in results)
    assert len(api.asked) == 8  # four requests, twice each
    assert "Not asked" in results[-1].error


def test_requests_start_no_faster_than_the_limit(pauses):
    with Api(*[reply()] * 4) as api:
        editor(api, per_minute=1, concurrency=4).edit(requests(4))
    waited = sorted(seconds for seconds in pauses if seconds > 20)  # the first one waits for nothing
    assert waited == pytest.approx([60, 120, 180], abs=15)


def test_an_address_that_is_none_is_said():
    for uri in ("openai:nowhere#m", "openai:http://localhost:1/v1"):
        with pytest.raises(SdgError, match="openai:BASE_URL#MODEL"):
            load_editor(uri)
