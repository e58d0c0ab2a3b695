"""GGUF v3, little endian: a small writer and a small reader, numpy only.

File: "GGUF", u32 version, u64 tensors, u64 keys; per key: string, u32 type, value; per tensor:
string name, u32 dims, u64 dim[dims] (fastest first), u32 type, u64 offset into the data; then
zeros up to a multiple of 32 and the data. A string is u64 length and UTF-8 bytes.
Q8_0 block, 34 bytes for 32 values of a row: f16 scale, then int8 q[32]; value = scale * q.
Source: the GGUF specification in ggml's docs/gguf.md.
"""

import struct

import numpy as np

ALIGNMENT = 32
F32, Q8_0 = 0, 8  # tensor types
U32, FLOAT, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # key types
BLOCK = np.dtype([("scale", "<f2"), ("q", "i1", 32)])


def quantize_q8_0(x):
    """x (N, K) f32, K a multiple of 32 -> blocks (N, K / 32); halves round away from zero."""
    x = x.astype(np.float32).reshape(x.shape[0], -1, 32)
    scale = np.abs(x).max(-1) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = x * inverse[..., None]
    blocks = np.zeros(scale.shape, BLOCK)
    blocks["scale"] = scale
    blocks["q"] = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))
    return blocks


def dequantize_q8_0(blocks):
    """blocks (N, K / 32) -> (N, K) f32, exact."""
    values = blocks["scale"].astype(np.float32)[..., None] * blocks["q"].astype(np.float32)
    return values.reshape(blocks.shape[0], -1)


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    """One key's value; `kind` is a type above or (ARRAY, element type)."""
    if isinstance(kind, tuple):
        return struct.pack("<IQ", kind[1], len(v)) + b"".join(value(kind[1], e) for e in v)
    if kind == STRING:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], v)


def write(path, keys, tensors):
    """keys: {name: (kind, value)}; tensors: {name: f32 array}, matrices become Q8_0.

    Returns the number of bytes written.
    """
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    for name, (kind, v) in keys.items():
        code = kind[0] if isinstance(kind, tuple) else kind
        head += string(name) + struct.pack("<I", code) + value(kind, v)
    data = b""
    for name, x in tensors.items():
        body = (quantize_q8_0(x) if x.ndim == 2 else x.astype("<f4")).tobytes()
        head += string(name) + struct.pack("<I", x.ndim)
        head += struct.pack(f"<{x.ndim}Q", *reversed(x.shape))
        head += struct.pack("<IQ", Q8_0 if x.ndim == 2 else F32, len(data))
        data += body + bytes(-len(body) % ALIGNMENT)
    head += bytes(-len(head) % ALIGNMENT)
    path.write_bytes(head + data)
    return len(head) + len(data)


def read(path):
    """The file that `write` made: keys {name: value} and tensors {name: f32 array}."""
    raw, at = path.read_bytes(), 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]

    def take_value(kind):
        if kind == STRING:
            return take(f"{take('Q')}s").decode()
        if kind == ARRAY:
            element, count = take("IQ")
            return [take_value(element) for _ in range(count)]
        return take({U32: "I", I32: "i", FLOAT: "f", BOOL: "?"}[kind])

    magic, version, tensor_count, key_count = take("4sIQQ")
    assert (magic, version) == (b"GGUF", 3), f"{path} is not GGUF version 3"
    keys = {take_value(STRING): take_value(take("I")) for _ in range(key_count)}
    infos = []
    for _ in range(tensor_count):
        name, dims = take_value(STRING), take("I")
        shape = [take("Q") for _ in range(dims)][::-1]
        infos.append((name, shape, *take("IQ")))
    start, tensors = at + -at % ALIGNMENT, {}
    for name, shape, kind, offset in infos:
        count = int(np.prod(shape))
        if kind == Q8_0:
            blocks = np.frombuffer(raw, BLOCK, count // 32, start + offset)
            tensors[name] = dequantize_q8_0(blocks.reshape(shape[0], -1))
        else:
            tensors[name] = np.frombuffer(raw, "<f4", count, start + offset).copy()
    return keys, tensors
