"""Headers of weight files from strangers: the good ones read, every other one refused in words."""

import json
import pickle
import struct
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.checkpoints import header

quiet = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write(path, table, data=b"", length=None):
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.safetensors"


def test_reads_what_the_format_s_own_library_wrote(file):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(5, dtype=torch.bfloat16),
        "c": torch.zeros(0),
        "d": torch.tensor(1),
    }
    library.save_file(tensors, file, metadata={"format": "pt"})
    names, metadata = header.safetensors_header(file)
    assert names == {"a": ("F32", (2, 3)), "b": ("BF16", (5,)), "c": ("F32", (0,)), "d": ("I64", ())}
    assert metadata == {"format": "pt"}


def test_sub_byte_dtypes(file):
    write(file, {"q": entry("F4", (4, 2), 0, 4)}, bytes(4))
    assert header.safetensors_header(file)[0] == {"q": ("F4", (4, 2))}


@pytest.mark.parametrize(
    ("table", "data", "words"),
    [
        ({"a": entry()}, bytes(7), "truncated: tensor 'a'"),
        ({"a": entry()}, bytes(9), "1 bytes follow"),
        ({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12), "'b' overlaps"),
        ({"a": entry(), "b": entry()}, bytes(8), "overlaps"),
        ({"a": entry(begin=4, end=12)}, bytes(12), "gap"),
        ({"a": entry(shape=(3,))}, bytes(8), "does not fit its 8 bytes"),
        ({"a": entry(shape=(-2,))}, bytes(8), "shape"),
        ({"a": entry(shape=(True, 2))}, bytes(8), "shape"),
        ({"a": entry(shape=[1] * 40)}, bytes(8), "shape"),
        ({"a": entry(dtype="X7")}, bytes(8), "unknown dtype 'X7'"),
        ({"a": entry(begin=8, end=0)}, bytes(8), "data_offsets"),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "data_offsets"),
        ({"a": [1]}, b"", "not a table"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        (b'{"a": ', b"", "not valid JSON"),
        (b"[]", b"", "not JSON"),
        (b'{"a": {}, "a": {}}', b"", "stands twice"),
        (b'{"\xff": 1}', b"", "not valid JSON"),
        (b'{"a":' * 50_000, b"", "not valid JSON"),
        (b'{"a": ' + b"9" * 9000 + b"}", b"", "not"),
    ],
)
def test_inconsistent_headers_are_refused(file, table, data, words):
    write(file, table, data)
    with pytest.raises(header.CheckpointError, match=words) as caught:
        header.safetensors_header(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated: 0 bytes"),
        (b"1234567", "truncated: 7 bytes"),
        (struct.pack("<Q", 1000) + b"{}", "truncated: its header has 1000"),
        (struct.pack("<Q", 2**63) + b"{}", "more than the 100000000 allowed"),
        (pickle.dumps({"a": 1}), "usable weight file|truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "allowed"),
    ],
)
def test_files_of_other_kinds_are_refused(file, content, words):
    file.write_bytes(content)
    with pytest.raises(header.CheckpointError, match=words):
        header.safetensors_header(file)


def test_a_missing_file_or_a_folder(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        for read in (header.safetensors_header, header.shard_index, header.torch_file_names):
            with pytest.raises(header.CheckpointError, match="cannot be read"):
                read(path)


readers = (header.safetensors_header, header.shard_index, header.torch_file_names)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@quiet
@given(st.binary(max_size=300))
def test_random_bytes_never_do_more_than_raise_the_documented_error(file, content):
    file.write_bytes(content)
    for read in readers:
        try:
            read(file)
        except header.CheckpointError:
            pass


@quiet
@given(json_values, st.binary(max_size=40))
def test_random_json_never_does_more_than_raise_the_documented_error(file, table, data):
    write(file, table if not isinstance(table, dict) else table | {"weight_map": table}, data)
    try:
        header.safetensors_header(file)
    except header.CheckpointError:
        pass
    file.write_text(json.dumps({"weight_map": table}))
    try:
        header.shard_index(file)
    except header.CheckpointError:
        pass


nearly = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__"]),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "U8", "F4", "Q"]) | json_values,
            "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
            "data_offsets": st.tuples(st.integers(0, 20), st.integers(0, 20)) | json_values,
        }
    ),
    max_size=3,
)


@quiet
@given(nearly, st.binary(max_size=20))
def test_accepted_headers_describe_exactly_the_data(file, table, data):
    write(file, table, data)
    try:
        tensors, _ = header.safetensors_header(file)
    except header.CheckpointError:
        return
    bits = 0
    for dtype, shape in tensors.values():
        count = header.BITS[dtype]
        for size in shape:
            count *= size
        bits += count
    assert bits == len(data) * 8


@quiet
@given(st.binary(max_size=200))
def test_random_pickles_in_a_torch_file_are_never_run(tmp_path, pickled):
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    try:
        header.torch_file_names(path)
    except header.CheckpointError:
        pass


class Hostile:
    def __reduce__(self):
        return (pytest.fail, ("executed",))


def test_a_hostile_pickle_is_read_and_not_run(tmp_path):
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"decoder.conv1.weight_v": Hostile()}, protocol=2))
    assert "decoder.conv1.weight_v" in header.torch_file_names(path)


def test_torch_files_tell_their_tensor_names(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"one.weight": torch.zeros(3), "two": torch.zeros(1)}, tmp_path / "x.bin")
    assert {"one.weight", "two"} <= header.torch_file_names(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\b.safetensors", "a\0b", 7, None, ["x"]],
)
def test_an_index_cannot_point_elsewhere(tmp_path, shard):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors", "b": shard}}))
    with pytest.raises(header.CheckpointError):
        header.shard_index(path)


def test_an_index_tells_which_part_holds_what(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    assert header.shard_index(path) == {"a": "model-00001-of-00001.safetensors"}
