"""Archives are unpacked inside their folder, within limits, whole or not at all."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topokd_edge.data import archive
from topokd_edge.data.archive import unpack
from topokd_edge.errors import BadInputError, MissingError

TEXT = b"1.5 2.5 nan\n" * 50


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return out.getvalue()


def refused(tmp_path: Path, content: bytes, match: str, error: type[Exception] = BadInputError) -> str:
    """Unpacking raises, and leaves the parent folder as it was."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    path = tmp_path / "set.zip"
    path.write_bytes(content)
    with pytest.raises(error, match=match) as caught:
        unpack(path, home / "set")
    assert list(home.iterdir()) == []
    assert {item.name for item in tmp_path.iterdir()} == {"home", "set.zip"}
    return str(caught.value)


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class TestWhole:
    def test_a_tree_comes_out_as_it_went_in(self, tmp_path: Path) -> None:
        members = {"a/b/c.txt": TEXT, "d.bin": b"", "a/ä ü.txt": b"x", "./e/f": b"y"}
        (tmp_path / "set.zip").write_bytes(packed(members))
        into = tmp_path / "new" / "set"
        assert unpack(tmp_path / "set.zip", into) == into
        assert files_below(into) == {name.removeprefix("./"): body for name, body in members.items()}
        assert not any(p.stat().st_mode & (stat.S_IXUSR | stat.S_ISUID) for p in into.rglob("*.txt"))

    def test_an_archive_inside_becomes_a_folder_one_level_deep(self, tmp_path: Path) -> None:
        deepest = packed({"z": b"z"})
        inner = packed({"PAMAP2_Dataset/Protocol/subject101.dat": TEXT, "more.zip": deepest})
        (tmp_path / "set.zip").write_bytes(packed({"PAMAP2_Dataset.zip": inner, "readme.pdf": b"%"}))
        into = unpack(tmp_path / "set.zip", tmp_path / "set")
        assert files_below(into) == {
            "readme.pdf": b"%",
            "PAMAP2_Dataset.zip/PAMAP2_Dataset/Protocol/subject101.dat": TEXT,
            "PAMAP2_Dataset.zip/more.zip": deepest,
        }

    def test_an_empty_folder_may_be_filled_but_no_other(self, tmp_path: Path) -> None:
        (tmp_path / "set.zip").write_bytes(packed({"a": b"a"}))
        into = tmp_path / "set"
        into.mkdir()
        unpack(tmp_path / "set.zip", into)
        (tmp_path / "set.zip").write_bytes(packed({"a": b"other"}))
        with pytest.raises(BadInputError, match="already exists"):
            unpack(tmp_path / "set.zip", into)
        assert files_below(into) == {"a": b"a"}

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        tree=st.dictionaries(
            st.lists(st.sampled_from(["a", "b", "c.txt", "d e"]), min_size=1, max_size=3).map("/".join),
            st.binary(max_size=200),
            max_size=8,
        ),
        method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    )
    def test_any_tree(self, tmp_path: Path, tree: dict[str, bytes], method: int) -> None:
        into = tmp_path / "set"
        shutil.rmtree(into, ignore_errors=True)
        (tmp_path / "set.zip").write_bytes(packed(tree, method))
        clash = any(other.startswith(name + "/") for name in tree for other in tree)
        if clash:
            with pytest.raises(BadInputError, match="name of a folder"):
                unpack(tmp_path / "set.zip", into)
            assert not into.exists()
        else:
            assert files_below(unpack(tmp_path / "set.zip", into)) == tree


class TestOutside:
    @pytest.mark.parametrize(
        "name",
        ["../x", "a/../../x", "a/..", "/x", "//x", "C:/x", "c:x", "a\\b", "..\\x", "\\\\host\\x", ".", "./"],
    )
    def test_a_name_that_leads_out_is_refused(self, tmp_path: Path, name: str) -> None:
        message = refused(tmp_path, packed({"good": b"1", name: b"2"}), "not to unpack")
        assert repr(name) in message
        assert "'good'" not in message

    @pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "x" * 256, "/".join(["abcdefgh"] * 130)])
    def test_a_name_no_one_would_give_is_refused(self, tmp_path: Path, name: str) -> None:
        refused(tmp_path, packed({name: b"2"}), r"control|too long")

    def test_a_name_cut_by_a_nul_is_refused(self, tmp_path: Path) -> None:
        refused(tmp_path, packed({"good.txtQ.exe": b""}).replace(b"txtQ", b"txt\0"), "control")

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK])
    def test_a_link_or_device_is_refused(self, tmp_path: Path, kind: int) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as zipped:
            link = zipfile.ZipInfo("link")
            link.external_attr = (kind | 0o777) << 16
            zipped.writestr(link, "/etc/passwd")
            zipped.writestr("link/x", "through the link")
        refused(tmp_path, out.getvalue(), "'link': it is a link or a device")

    def test_two_members_of_one_place_are_refused(self, tmp_path: Path) -> None:
        out = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as zipped:
            warnings.simplefilter("ignore")
            for name in ("a", "a", "./b", "b", "c", "c/d", "e", "e/"):
                zipped.writestr(name, "")
        message = refused(tmp_path, out.getvalue(), "4 reason")
        assert message.count("two of this name") == 2
        assert message.count("name of a folder") == 2

    def test_an_archive_inside_is_held_to_the_same_rules(self, tmp_path: Path) -> None:
        message = refused(tmp_path, packed({"b": b"1", "a/in.zip": packed({"../x": b"2"})}), "not to unpack")
        assert message.startswith("set.zip, a/in.zip: ")


class TestLimits:
    def test_a_bomb_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        message = refused(tmp_path, packed({"bomb": bytes(20 << 20)}), "over 200 times")
        assert "20,971,520" in message

    def test_a_nested_bomb_is_refused(self, tmp_path: Path) -> None:
        refused(tmp_path, packed({"a.zip": packed({"bomb": bytes(20 << 20)})}), "over 200 times")

    def test_a_small_repetitive_member_is_no_bomb(self, tmp_path: Path) -> None:
        (tmp_path / "set.zip").write_bytes(packed({"zeros": bytes(1 << 20)}))
        assert files_below(unpack(tmp_path / "set.zip", tmp_path / "set")) == {"zeros": bytes(1 << 20)}

    def test_members_that_share_their_bytes_are_refused(self, tmp_path: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as zipped:
            zipped.writestr("kernel", np.random.default_rng(0).bytes(100_000))
            first = zipped.filelist[0]
            for index in range(9):
                other = zipfile.ZipInfo(f"copy{index}")
                for key in ("CRC", "compress_size", "file_size", "header_offset", "external_attr"):
                    setattr(other, key, getattr(first, key))
                zipped.filelist.append(other)
        refused(tmp_path, out.getvalue(), "overlap")

    def test_members_in_all_are_counted_over_both_levels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = packed({"a": b"", "in.zip": packed({"b": b"", "c": b""})})
        monkeypatch.setattr(archive, "MAX_MEMBERS", 4)
        (tmp_path / "set.zip").write_bytes(content)
        unpack(tmp_path / "set.zip", tmp_path / "whole")
        shutil.rmtree(tmp_path / "whole")
        monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
        refused(tmp_path, content, "2 more members, at most 3")

    def test_bytes_in_all_are_counted_over_both_levels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = packed({"b": bytes(1000)})
        monkeypatch.setattr(archive, "MAX_BYTES", len(inner) + 1500)
        refused(tmp_path, packed({"a": bytes(501), "in.zip": inner}), "1,000 bytes more")

    def test_a_full_disk_is_said_beforehand(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_501, 499))
        refused(tmp_path, packed({"a": bytes(500)}), r"500 bytes.*499 free", MissingError)

    @pytest.mark.parametrize("wide", [False, True])
    def test_a_huge_list_of_members_is_not_read(self, tmp_path: Path, wide: bool) -> None:
        content = bytearray(packed({"a": b"1"}))
        end = len(content) - 22
        if wide:
            record = b"PK\6\6" + bytes(36) + struct.pack("<QQ", 1 << 40, 0)
            locator = b"PK\6\7" + bytes(16)
            content[end:end] = record + locator
        else:
            struct.pack_into("<I", content, end + 12, 1 << 30)
        refused(tmp_path, bytes(content), "its list of members takes")

    def test_the_form_for_large_archives_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        content = packed({"a": b"1", "b": b"2"})
        assert b"PK\6\6" in content
        (tmp_path / "set.zip").write_bytes(content)
        assert files_below(unpack(tmp_path / "set.zip", tmp_path / "set")) == {"a": b"1", "b": b"2"}


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [b"", b"PK", b"no archive at all" * 9, packed({"a": TEXT})[:-30]],
        ids=["empty", "begun", "text", "cut off"],  # an archive has the time in it
    )
    def test_what_is_no_archive(self, tmp_path: Path, content: bytes) -> None:
        refused(tmp_path, content, "not a .zip archive")

    def test_a_missing_archive(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="no such file"):
            unpack(tmp_path / "set.zip", tmp_path / "set")

    def test_a_wrong_check_sum_names_the_member(self, tmp_path: Path) -> None:
        content = packed({"good": TEXT, "bad/one": b"Z" * 99}, zipfile.ZIP_STORED)
        refused(tmp_path, content.replace(b"ZZZ", b"ZYZ", 1), "member 'bad/one': damaged")

    def test_damaged_deflate_names_the_member(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).bytes(3000).hex().encode()
        content = bytearray(packed({"good": TEXT, "bad": noise}))
        content[-1500:-1400] = bytes(100)
        refused(tmp_path, bytes(content), "member 'bad': damaged")

    @pytest.mark.parametrize("says", [0, 10, 599, 601, 100_000])
    def test_a_size_that_is_not_the_true_one(self, tmp_path: Path, says: int) -> None:
        content = bytearray(packed({"a": TEXT}))
        struct.pack_into("<I", content, content.rfind(b"PK\1\2") + 24, says)
        refused(tmp_path, bytes(content), "member 'a'")

    def test_more_than_the_size_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Were zipfile to hand out more than a member's size, not all of it would be written."""
        content, endless = packed({"a": TEXT}), io.BytesIO(bytes(8 << 20))
        monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: endless)
        refused(tmp_path, content, "holds 1,048,576 bytes or more, the archive says 600")

    def test_a_packed_size_beyond_the_archive(self, tmp_path: Path) -> None:
        content = bytearray(packed({"a": TEXT}))
        struct.pack_into("<I", content, content.rfind(b"PK\1\2") + 20, 1 << 30)
        refused(tmp_path, bytes(content), "'a': it says to take 1,073,741,824 bytes")

    def test_an_encrypted_member(self, tmp_path: Path) -> None:
        content = bytearray(packed({"a": TEXT}))
        content[content.rfind(b"PK\1\2") + 8] |= 1
        content[6] |= 1
        refused(tmp_path, bytes(content), "'a': it is encrypted")

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_another_compression(self, tmp_path: Path, method: int) -> None:
        refused(tmp_path, packed({"a": TEXT}, method), f"'a': compression method {method}")


def fuzz(tmp_path: Path, mutants: int, seed: int) -> int:
    """Return how many damaged archives were refused; the others must give what they always gave."""
    members = {"a/b.txt": TEXT, "in.zip": packed({"c": TEXT}), "d": np.random.default_rng(1).bytes(300)}
    content = packed(members)
    into = tmp_path / "set"
    random = np.random.default_rng(seed)
    count = 0
    for _ in range(mutants):
        mutant = bytearray(content)
        if random.random() < 0.2:
            del mutant[int(random.integers(len(mutant))) :]
        for _ in range(int(random.integers(1, 4))):
            if mutant:
                mutant[int(random.integers(len(mutant)))] = int(random.integers(256))
        (tmp_path / "set.zip").write_bytes(mutant)
        try:
            unpack(tmp_path / "set.zip", into)
        except (BadInputError, MissingError):
            count += 1
            assert not into.exists()
        else:
            # A name may differ, content not: it is guarded by its check sum.
            assert set(files_below(into).values()) <= {*members.values(), TEXT, b""}
            shutil.rmtree(into)
        assert [item.name for item in tmp_path.iterdir()] == ["set.zip"]
    return count


def test_damaged_anywhere(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 150, seed=0) > 50


@pytest.mark.slow
def test_damaged_anywhere_many_times(tmp_path: Path) -> None:
    assert fuzz(tmp_path, 5000, seed=1) > 2000
