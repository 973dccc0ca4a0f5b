"""Every byte of a torch file is held against another: no flipped bit passes, and every file that torch writes does."""

from __future__ import annotations

import io
import random
import zipfile

import pytest
import torch

from tutorlib import archive


def written(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [1, {}, {"a": torch.empty(0)}, [torch.ones(n) for n in range(70)], {"x" * 300: torch.ones(5000, dtype=torch.uint8)}],
    ids=["int", "empty", "empty tensor", "many", "long"],
)
def test_what_torch_wrote_is_right(content):
    archive.verify(io.BytesIO(written(content)))


def test_no_single_bit_can_be_flipped():
    whole, rng = written({"a": torch.arange(4), "b": torch.ones(3)}), random.Random(0)
    passed = []
    for bit in rng.sample(range(len(whole) * 8), 4000):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            archive.verify(io.BytesIO(damaged))
        except ValueError:
            continue
        passed.append(divmod(bit, 8))
    assert passed == []


def test_nothing_can_be_cut_off_put_between_or_appended():
    whole = written({"a": torch.arange(4)})
    for size in range(0, len(whole), 7):
        with pytest.raises(ValueError):
            archive.verify(io.BytesIO(whole[:size]))
    for damaged in (whole + b"\0", b"\0" + whole, whole + whole):
        with pytest.raises(archive.Damaged):
            archive.verify(io.BytesIO(damaged))


def test_a_hidden_second_record_of_the_same_name_is_seen():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("a/data.pkl", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("a/data.pkl", b"2")
    with pytest.raises(archive.Damaged, match="its directory contradicts itself"):
        archive.verify(file)


def test_compressed_records_are_named():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a/data.pkl", b"1" * 100)
    with pytest.raises(archive.Damaged, match="a record is compressed, which torch never does"):
        archive.verify(file)


def test_the_structure_of_a_file_in_its_own_order():
    found = archive.structure(io.BytesIO(written({"b": [torch.ones(2, 3), 5], "a": {"c": torch.zeros(1, dtype=torch.int8)}})))
    assert [(t.key, t.shape, t.dtype, t.bytes) for t in found.tensors] == [
        ("b.0", (2, 3), "float32", 24),
        ("a.c", (1,), "int8", 1),
    ]
    assert found.values == {"b.1": 5}
    assert found.names == (
        "collections.OrderedDict",
        "torch.CharStorage",
        "torch.FloatStorage",
        "torch._utils._rebuild_tensor_v2",
    )


class Far(io.BytesIO):
    """The part of a file that begins behind four gigabytes."""

    def seek(self, position, whence=0):
        return super().seek(position - 4400000792, whence)


def test_headers_behind_four_gigabytes():
    """As torch 2.15 wrote them in a file of 4.4 GB: the offset needs 64 bits, and the header repeats it."""
    record = archive.Record("huge/data/1", (0, 2056, 0, 0, 0), 0xDC7C4E94, 12, 4400000792, True)
    header = b"PK\3\4\0\0\x08\x08" + bytes(18) + b"\x0b\0\x3f\0huge/data/1"
    extra = b"\1\0\x08\0\x18\xafB\6\1\0\0\0FB\x2f\0" + b"Z" * 47
    assert archive._start(Far(header + extra), record) == 4400000792 + 30 + 11 + 63
    for bit in range(8):
        damaged = bytearray(header + extra)
        damaged[len(header) + 6] ^= 1 << bit
        with pytest.raises(archive.Damaged, match="the header of record 'huge/data/1' contradicts the directory"):
            archive._start(Far(damaged), record)
