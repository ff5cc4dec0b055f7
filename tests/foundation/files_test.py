import errno
import os

import pytest

from alignpre_jax.foundation import UserError, disk_errors, read_json, write_bytes, write_json


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"x": (1, 2)})
    assert read_json(path) == {"x": [1, 2]}

    def breaks(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", breaks)
    with pytest.raises(UserError, match="no space left on the device") as caught:
        write_json(path, {"x": 3})
    assert str(path) in str(caught.value)
    assert read_json(path) == {"x": [1, 2]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_no_permission_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no permission"), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_broken_json_names_the_line(tmp_path):
    write_bytes(tmp_path / "b.json", b'{\n "x": ,\n}')
    with pytest.raises(UserError, match=r"b.json:2"):
        read_json(tmp_path / "b.json")
