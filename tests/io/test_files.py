import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sdg.errors import SdgError
from sdg.io.files import (
    atomic_writer,
    is_folder,
    open_binary,
    read_text,
    require_other,
    write_text,
    writing,
)


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "out.txt"
    with atomic_writer(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert [file.name for file in path.parent.iterdir()] == ["out.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def write_half():
        with atomic_writer(path) as file:
            file.write(b"half of the n")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "out.txt", "x")
    assert (tmp_path / "out.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path):
    # A limit on the size of files stands for the disk: writing beyond it fails in the same place.
    code = (
        "import resource, sys; from sdg.io.files import write_text; from sdg.errors import SdgError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_text(sys.argv[1], 'x' * 100_000)\n"
        "except SdgError as error: print(error)"
    )
    path = tmp_path / "out.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} cannot be written: File too large.\n"
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"]


def test_a_device_without_space_is_one_sentence():
    with pytest.raises(SdgError, match=r"^/dev/full cannot be written: No space left on device\.$"):
        write_text("/dev/full", "x" * 100_000)


def test_devices_and_pipes_are_written_directly():
    write_text("/dev/null", "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("use", [lambda path: write_text(path, "x"), read_text])
def test_a_folder_is_not_a_file(tmp_path, use):
    with pytest.raises(SdgError, match=f"^{tmp_path} is a folder"):
        use(tmp_path)


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SdgError, match=r"out\.txt cannot be written: "):
        write_text(tmp_path / "file" / "out.txt", "x")


def test_a_missing_file_is_one_sentence(tmp_path):
    with (
        pytest.raises(SdgError, match=r"^.*none.txt does not exist; check the path\.$"),
        open_binary(tmp_path / "none.txt"),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty."), (b" \n", "is empty."), (b"\xff\xfe", "is not UTF-8 text; save it as UTF-8.")],
)
def test_text_that_is_none_is_one_sentence(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SdgError) as error:
        read_text(tmp_path / "a.txt")
    assert str(error.value) == f"{tmp_path / 'a.txt'} {message}"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx")
    assert read_text(tmp_path / "a.txt") == "x"


def test_half_a_surrogate_pair_costs_no_file(tmp_path):
    write_text(tmp_path / "a.txt", "a \ud83d hand")
    assert (tmp_path / "a.txt").read_text() == "a ? hand"


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "x/" * 3000, "\x1b[31m"])
def test_a_name_that_no_file_has_is_one_sentence(name):
    with pytest.raises(SdgError) as caught:
        read_text(name)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()
    assert not is_folder(name)


def test_a_file_is_read_up_to_what_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_text(tmp_path / "a", 3) == "abc"
    with pytest.raises(SdgError, match="larger than the 2 bytes"):
        read_text(tmp_path / "a", 2)
    with pytest.raises(SdgError, match="larger than the 9 bytes"):
        read_text("/dev/zero", 9)


def test_what_is_done_with_an_open_file_raises_what_it_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(ValueError, match="mine"), open_binary(tmp_path / "a"):
        raise ValueError("mine")


def test_a_loop_of_links_is_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert not is_folder(tmp_path / "loop")
    with pytest.raises(SdgError, match="cannot be written"):
        write_text(tmp_path / "loop" / "x", "a")


def test_a_name_as_long_as_names_get_can_be_written(tmp_path: Path) -> None:
    for name in ("é" * 127, "x" * 255):
        write_text(tmp_path / name, "a")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "é" * 200, "y/" * 5000])
def test_a_name_that_no_file_can_have_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(SdgError) as caught:
        write_text(tmp_path / name, "a")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_what_safetensors_says_of_a_full_disk_is_a_sentence(tmp_path):
    from safetensors import SafetensorError

    with pytest.raises(SdgError, match=r"cannot be written: I/O error: No"), writing(tmp_path / "weights"):
        raise SafetensorError("I/O error: No space left on device")
    with pytest.raises(ValueError, match="no fault of the disk"), writing(tmp_path / "weights"):
        raise ValueError("no fault of the disk")


def test_an_output_is_no_input_under_whatever_name(tmp_path):
    (tmp_path / "in.jsonl").write_text("x")
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    inputs = [tmp_path / "other.jsonl", tmp_path / "in.jsonl"]
    for name in ("in.jsonl", "link.jsonl", "../" + tmp_path.name + "/in.jsonl"):
        with pytest.raises(SdgError, match="is an input, and would be replaced; name another output"):
            require_other(tmp_path / name, inputs)
    require_other(tmp_path / "out.jsonl", inputs)
    require_other(None, inputs)
