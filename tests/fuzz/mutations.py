"""Files made wrong on purpose: the same seed makes the same file again."""

import copy
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import onnx

Mutate = Callable[[random.Random, Sequence[bytes]], bytes]
"""Makes a wrong file of several right ones."""

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    "",
    "x",
    "\x00",
    "../../../../etc/passwd",
    "/etc/passwd",
    "a/b",
    ".",
    "..",
    "\x1b[2J\r",
    "\u202e",
    "ü" * 300,
    "x" * 70_000,
)
_RAW = (
    "NaN",
    "Infinity",
    "1e400",
    "-1e400",
    "9" * 5000,
    '"\\ud800"',
    "[" * 100_000,
    '{"a":' * 100_000,
    "[" * 60 + "]" * 60,
    "{",
)
"""What no value spells: numbers beyond any type, half a character, brackets without end."""
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    10**9,
    10**12,
    2**31,
    2**63,
    10**400,
    [],
    {},
    [[]],
    [0, 0, 0],
    ["a", 1],
    {"a": 1},
    {"": {"": []}},
    *_TEXTS,
)


def bytes_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Flip, cut, insert, copy, splice; or write a huge number where a length may stand."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        _BYTE_STEPS[rng.randrange(len(_BYTE_STEPS))](rng, data, seeds)
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    """Near either end twice as often as anywhere: that is where headers and tables are."""
    size = max(1, len(data))
    near = rng.randrange(min(size, 2048))
    return rng.choice((near, size - 1 - near, rng.randrange(size)))


def _flip(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[_place(rng, data)] = rng.randrange(256)


def _edge(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    width, place = rng.choice((1, 2, 4, 4, 8)), _place(rng, data)
    value = (rng.choice(_EDGES) % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]
    place -= rng.choice((0, place % 4))
    data[place : place + width] = value


def _cut(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _remove(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = _place(rng, data)
    del data[place : place + rng.choice((1, 4, 64, 1024))]


def _insert(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place:place] = rng.choice((rng.randbytes(8), bytes(64), b"\xff" * 16, rng.randbytes(1024)))


def _repeat(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = _place(rng, data)
    block = data[place : place + rng.choice((4, 64, 1024))]
    data[place:place] = block * rng.choice((1, 2, 16))


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[_place(rng, data) :] = other[_place(rng, bytearray(other)) :]


_BYTE_STEPS = (_flip, _flip, _set, _edge, _edge, _cut, _remove, _insert, _repeat, _splice)


def tree_of(rng: random.Random, tree: Any) -> Any:
    """Exchange values of a tree for others, remove and rename keys, copy entries."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        places = list(_places(tree))
        if not places:
            return rng.choice(_VALUES)
        holder, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice((*_TEXTS, *map(str, holder)))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 3:
                holder[key] = copy.deepcopy(_value_at(rng.choice(places)))
            case 4:
                holder[key] = [holder[key]]
            case _:
                holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return tree


def _places(tree: Any) -> Any:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys)[:50]:  # of long lists the beginning
        yield tree, key
        yield from _places(tree[key])


def _value_at(place: tuple[Any, Any]) -> Any:
    return place[0][place[1]]


def _with_raw(rng: random.Random, tree: Any, spell: Callable[[Any], str]) -> str:
    """Spell a tree in which, now and then, one value is what no value spells."""
    raw, mark, places = rng.choice(_RAW), "@raw@", list(_places(tree))
    if not places or rng.random() < 0.8:
        return spell(tree)
    holder, key = rng.choice(places)
    holder[key] = mark
    return spell(tree).replace(json.dumps(mark), raw)


def json_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate a JSON document as a tree, or as bytes."""
    if rng.random() < 0.15:
        return bytes_of(rng, seeds)
    tree = tree_of(rng, json.loads(rng.choice(seeds)))
    return _with_raw(rng, tree, json.dumps).encode("utf-8", "surrogatepass")


def toml_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate a TOML document, given as JSON seeds, as a tree, or as bytes."""
    trees = [json.loads(seed) for seed in seeds]
    if rng.random() < 0.15:
        return bytes_of(rng, [toml(tree).encode() for tree in trees])
    tree = tree_of(rng, rng.choice(trees))
    return _with_raw(rng, tree, toml).encode("utf-8", "surrogatepass")


def toml(table: Any) -> str:
    """Spell a table as TOML: its own keys a line each, all below them in braces."""
    if not isinstance(table, dict):
        return _toml_value(table)
    return "".join(f"{json.dumps(key)} = {_toml_value(value)}\n" for key, value in table.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return '"null"' if value is None else json.dumps(value)


def onnx_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate an ONNX model field by field, or as bytes."""
    if rng.random() < 0.3:
        return bytes_of(rng, seeds)
    model = onnx.load_from_string(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        message, field = rng.choice(list(_fields(model)))
        _change_field(rng, message, field)
    return bytes(model.SerializeToString())


def _fields(message: Any) -> Any:
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for one in value if _is_repeated(value) else (value,):
                yield from _fields(one)


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "extend") and not hasattr(value, "ListFields")


def _change_field(rng: random.Random, message: Any, field: Any) -> None:
    value = getattr(message, field.name)
    if _is_repeated(value):
        place = rng.randrange(len(value)) if len(value) else 0
        match rng.randrange(4):
            case 0:
                message.ClearField(field.name)
            case 1 if len(value):
                del value[place]
            case 2 if len(value):
                value.extend([copy.deepcopy(value[place])])
            case _ if field.type != field.TYPE_MESSAGE and len(value):
                with suppress(ValueError):
                    value[place] = _scalar(rng, value[place])
    elif field.type == field.TYPE_MESSAGE or rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        with suppress(ValueError):  # protobuf refuses some by itself
            setattr(message, field.name, _scalar(rng, value))


_NAMES = (
    *(
        "Conv",
        "Add",
        "Relu",
        "Clip",
        "Gemm",
        "MatMul",
        "Flatten",
        "Reshape",
        "Pad",
        "ReduceMean",
        "Transpose",
    ),
    *(
        "BatchNormalization",
        "AveragePool",
        "GlobalAveragePool",
        "Softmax",
        "Constant",
        "ConstantOfShape",
        "Tile",
    ),
    *(
        "Expand",
        "Squeeze",
        "Loop",
        "If",
        "input",
        "output",
        "group",
        "strides",
        "pads",
        "axes",
        "value",
        "perm",
    ),
)


def _scalar(rng: random.Random, value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return rng.choice((0, 1, 2, 3, 7, -1, -2, 10**6, 2**31 - 1, -(2**31)))
        case float():
            return rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
        case bytes():
            return bytes_of(rng, [value]) if value and rng.random() < 0.5 else rng.choice(_NAMES).encode()
        case _:
            return rng.choice((*_NAMES, *_TEXTS[:-1]))


def safetensors_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate the JSON header of a safetensors file, or all of it as bytes."""
    if rng.random() < 0.3:
        return bytes_of(rng, seeds)
    data = rng.choice(seeds)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json_of(rng, [data[8:end].rstrip()])
    size = len(header) if rng.random() < 0.9 else rng.choice(_EDGES)
    return size.to_bytes(8, "little") + header + data[end:]


def zip_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate a zip's members, their names, or all of it as bytes."""
    data = rng.choice(seeds)
    if rng.random() < 0.4:
        return bytes_of(rng, seeds)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    small = [index for index, (_, held) in enumerate(members) if len(held) < 20_000]
    index = rng.choice(small) if small and rng.random() < 0.7 else rng.randrange(len(members))
    name, held = members[index]
    match rng.randrange(8):
        case 0:
            members[index] = (rng.choice(_TEXTS[1:-1]) + rng.choice((".png", ".npy", "/data.pkl", "")), held)
        case 1:
            del members[index]
        case 2:
            members.insert(index, members[index])
        case 3:
            members[index] = (name, b"")
        case _:
            members[index] = (name, _member_of(rng, name, held))
    kinds = (
        zipfile.ZIP_STORED,
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_LZMA,
        zipfile.ZIP_BZIP2,
    )
    kind = rng.choice(kinds) if len(data) < 100_000 else zipfile.ZIP_STORED  # the others take their time
    return _zipped(members, kind)


def _member_of(rng: random.Random, name: str, held: bytes) -> bytes:
    if name.endswith(".pkl"):
        return pickle_of(rng, [held])
    if name.endswith(".npy"):
        return npy_of(rng, [held])
    return bytes_of(rng, [held])


def _zipped(members: Sequence[tuple[str, bytes]], kind: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, held in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            archive.writestr(info, held)
    return stream.getvalue()


_PICKLES = (
    pickle.dumps(range(3)),
    b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01h\x00u.",  # a dict that is in itself
    b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueR.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(K\x02K\x03t(K\x03K\x01t\x89tR.",
    b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
    b"\x80\x02" + b"]" + b"]a" * 100 + b".",
    b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
)


def pickle_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate a pickle: its numbers (sizes, strides, offsets), its bytes, or exchange it for a wicked one."""
    if rng.random() < 0.2:
        return rng.choice(_PICKLES)
    data = bytearray(rng.choice(seeds))
    numbers = [index for index, byte in enumerate(data[:-4]) if byte in b"KMJ"]
    if not numbers or rng.random() < 0.4:
        return bytes_of(rng, [bytes(data)])
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.choice(numbers)
        width = {ord("K"): 1, ord("M"): 2, ord("J"): 4}[data[place]]
        data[place + 1 : place + 1 + width] = (rng.choice(_EDGES) % 2 ** (8 * width)).to_bytes(
            width, "little"
        )
    return bytes(data)


_SHAPES = ("()", "(0,)", "(0, 32, 32, 3)", "(1000000000000, 0, 32, 3)", "(8, 32, 32, 3)", "(-1, 32, 32, 3)")
_SHAPES += ("(8, 3, 16, 16)", "(8, 3, 0, 0)", "(1000000, 100000, 100000, 3)", "8", "(8, 3, '16', 16)")
_DTYPES = ("|u1", "<f4", ">f4", "|O", "|V8", "<U3", "<f8", "<M8[ns]", "|S0", "x", "[('a', '|u1')]")


def npy_of(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Mutate the header of an array, or all of it as bytes."""
    data = rng.choice(seeds)
    if rng.random() < 0.4 or data[:6] != b"\x93NUMPY":
        return bytes_of(rng, seeds)
    end = 10 + int.from_bytes(data[8:10], "little")
    kind, shape = rng.choice(_DTYPES), rng.choice(_SHAPES)
    spelled = kind if kind.startswith("[") else repr(kind)
    order = rng.choice(("False", "True", "None", "'x'"))
    header = f"{{'descr': {spelled}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    if rng.random() < 0.3:
        header = bytes_of(rng, [header])
    header = header[:60_000]
    return data[:8] + len(header).to_bytes(2, "little") + header + data[end:]
