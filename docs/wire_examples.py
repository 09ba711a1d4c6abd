#!/usr/bin/env python3
"""The examples of docs/WIRE.md, made from a second, independent implementation of the frame layout.

    wire_examples.py            prints the message tables with their bytes
    wire_examples.py --check    exits with 1 when docs/WIRE.md holds other bytes
"""
import hashlib
import pathlib
import struct
import sys

HEADER = struct.Struct("<4sHHIIQQQQIIHBBIII")  # docs/WIRE.md, "Header"
MAGIC, PROTOCOL = b"ECOP", 11


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# One encoder a type of field.
def number(code):
    return lambda value: struct.pack("<" + code, value)


u8, u16, u32, u64, i32, i64, f32, f64 = map(number, ["B", "H", "I", "Q", "i", "q", "f", "d"])


def boolean(value):
    return u8(1 if value else 0)


def char(value):
    return value.encode()


def text(value):
    return u32(len(value.encode())) + value.encode()


def listing(element):
    return lambda values: u32(len(values)) + b"".join(element(value) for value in values)


def record(*fields):
    return lambda values: b"".join(encode(value) for encode, value in zip(fields, values, strict=True))


i64s, u32s, u64s, f64s, texts = map(listing, [i64, u32, u64, f64, text])
peers = listing(record(text, text, boolean, u64))
transfers = listing(record(u32, u32, text))
optimizer = record(text, f64, f64, f64, u8)
loss = record(text, i64, f64s)
totals = record(f64, f64, u64, u64, f64)
actions = listing(record(char, u16, u32, i64, i64))
pairs = listing(record(text, text))
entries = listing(record(text, u8, i64s))



def classes_hash(names):
    return hashlib.sha256(b"".join(text(name) for name in names)).hexdigest()


def bytes_by_use(values):
    return b"".join(map(u64, values))


MEMORY_USES = ("weights", "gradients", "moments", "stash", "workspace", "arriving", "leaving", "evaluation", "recovery")

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

# Number, name, way, header fields other than 0, payload, fields: (name, type, encoder, value).
MESSAGES = [
    (1, "Hello", "stage to portal", {}, None, [
        ("device", "text", text, "pi"), ("program_version", "text", text, "0.1.0"),
        ("numeric_class", "u64", u64, 0x0123456789ABCDEF), ("numeric_summary", "text", text, "libtorch 1.13.1"),
        ("cpu", "text", text, "Cortex-A76"), ("cores", "u32", u32, 4), ("threads", "u32", u32, 1),
        ("memory_mib", "u64", u64, 3500), ("data_address", "text", text, ""), ("data_port", "u16", u16, 5600),
        ("process_id", "u64", u64, 4242),
        ("instance", "u64", u64, 0x1122334455667788)]),
    (2, "Welcome", "portal to stage", {"run": 7}, None, [
        ("ping_interval_ms", "u32", u32, 500), ("silence_max_ms", "u32", u32, 5000)]),
    (3, "Refuse", "portal to stage, server to cluster", {"run": 7}, None, [
        ("code", "u8", u8, 2), ("reason", "text", text, "a device named pi has already joined")]),
    (4, "Ping", "portal to stage, server to cluster", {"run": 7}, None, [("sent_ns", "i64", i64, 1000000000)]),
    (5, "Pong", "the answer", {"run": 7}, None, [
        ("echo_ns", "i64", i64, 1000000000), ("local_ns", "i64", i64, 2000000000),
        ("progress", "u64", u64, 48), ("busy_ns", "u64", u64, 3000000), ("longest_ns", "u64", u64, 9000000),
        ("step", "u64", u64, 3), ("micro_batch", "u32", u32, 2)]),
    (6, "Configure", "portal to stage", {"run": 7, "generation": 2, "step": 3}, None, [
        ("plan_json", "text", text, "{}"), ("device", "text", text, "pi"), ("model", "text", text, "lenet5"),
        ("model_sha256", "text", text, ""), ("num_classes", "u32", u32, 10),
        ("input_shape", "list of i64", i64s, [1, 28, 28]), ("freeze", "list of text", texts, ["features.*"]),
        ("seed", "u64", u64, 0),
        ("optimizer", "name text, momentum f64, weight_decay f64, proximal_mu f64, moments u8", optimizer, ("sgd", 0.9, 0.0, 0.0, 1)),
        ("loss", "name text, ignore_index i64, class_weights list of f64", loss, ("cross_entropy", -100, [1.0, 0.5])),
        ("peers", "list of (device text, endpoint text, dial bool, instance u64)", peers,
         [("hub", "tcp://10.0.0.1:5600", False, 9)]),
        ("restore", "list of (first_layer u32, last_layer u32, peer text)", transfers, [(0, 4, "pi"), (5, 6, "hub")]),
        ("supply", "the same", transfers, [(7, 7, "hub")]), ("keep_snapshots", "bool", boolean, True),
        ("buddy", "text", text, "hub"), ("cause", "text", text, "device b (stage 1) was lost at step 4"),
        ("course", "u32", u32, 1), ("graph", "text: a graph.json, or nothing", text, ""),
        ("frozen_norm_evaluates", "bool", boolean, False)]),
    (7, "Ready", "stage to portal", {"run": 7, "generation": 1}, None, [("state_bytes", "u64", u64, 246824)]),
    (8, "Begin", "portal to stage", {"run": 7, "generation": 1, "step": 3}, None, [
        ("mode", "u8: 0 train, 1 evaluate", u8, 0), ("micro_batch_samples", "list of u32", u32s, [8, 8, 7]),
        ("loss_divisor", "f64", f64, 23.0), ("recovery_point", "u64", u64, 3), ("trace", "bool", boolean, False)]),
    (9, "Done", "stage to portal", {"run": 7, "generation": 1, "step": 3, "micro_batch": 2}, None, [
        ("loss", "sum f64, weight f64, labels u64, correct u64, absolute_error f64", totals, (46.0, 23.0, 23, 5, 0.0)),
        ("squared_gradient_norms", "list of f64", f64s, [0.25, 1.5]), ("nonfinite_layer", "i32", i32, -1),
        ("busy_ms", "f64", f64, 12.5), ("wait_ms", "f64", f64, 4.0), 
        ("peak_memory", "u64 for each of " + ", ".join(MEMORY_USES), bytes_by_use,
         [1024, 1024, 0, 4096, 2048, 512, 512, 0, 0]),
        ("sent_bytes", "u64", u64, 4096),
        ("actions", "list of (kind char, slice u16, micro_batch u32, start_ns i64, end_ns i64)", actions,
         [("F", 0, 0, 1000, 2000)]),
        ("losses", "list of (micro_batch u32, as loss)", listing(record(u32, totals)), [(2, (16.0, 8.0, 8, 3, 0.0))])]),
    (10, "Commit", "portal to stage", {"run": 7, "generation": 1, "step": 3}, None, [
        ("learning_rate", "f64", f64, 0.01), ("gradient_scale", "f64", f64, 1.0), ("snapshot", "bool", boolean, True)]),
    (11, "Committed", "stage to portal", {"run": 7, "generation": 1, "step": 3}, None, [("update_ms", "f64", f64, 0.5)]),
    (12, "Fetch", "portal to stage", {"run": 7, "generation": 1, "step": 3}, None, [
        ("optimizer_state", "bool", boolean, False)]),
    (13, "Fetched", "stage to portal", {"run": 7, "generation": 1, "step": 3}, None, [
        ("state_tensors", "u32", u32, 6), ("peak_memory", "as in Done", bytes_by_use, [1024, 0, 0, 0, 0, 0, 0, 0, 1024])]),
    (14, "Failed", "stage to portal", {"run": 7, "generation": 1, "step": 3, "micro_batch": 2}, None, [
        ("code", "u8", u8, 1), ("reason", "text", text, "left on SIGTERM")]),
    (15, "End", "portal to stage", {"run": 7, "generation": 1, "step": 3}, None, [
        ("code", "u8", u8, 0), ("reason", "text", text, "done")]),
    (16, "Stored", "stage to portal", {"run": 7, "generation": 1, "step": 4}, None, [
        ("first_layer", "u32", u32, 3), ("last_layer", "u32", u32, 3)]),
    (17, "Leave", "stage to portal", {"run": 7, "generation": 1, "step": 3}, None, [
        ("reason", "text", text, "left on SIGTERM")]),
    (18, "ProbeLink", "portal to stage", {"run": 7}, None, [
        ("peer", "text", text, "laptop"), ("endpoint", "text", text, "tcp://10.0.0.2:5600")]),
    (19, "LinkProbed", "stage to portal", {"run": 7}, None, [
        ("peer", "text", text, "laptop"), ("mbps", "f64", f64, 940.0), ("latency_ms", "f64", f64, 0.25)]),
    (20, "Attach", "dialling device to the other", {"run": 7}, None, [
        ("device", "text", text, "hub"), ("instance", "u64", u64, 9)]),
    (21, "TensorChunk", "device to device", {"run": 7, "generation": 1, "step": 3, "micro_batch": 2}, bytes(8), [
        ("kind", "u8", u8, 1), ("producer", "u32", u32, 2), ("output", "u16", u16, 0), ("outputs", "u16", u16, 1),
        ("gradient_returns", "bool", boolean, True), ("name", "text", text, ""), ("dtype", "u8", u8, 1),
        ("shape", "list of i64", i64s, [1, 2]), ("offset", "u64", u64, 0),
        ("codec", "u8: 0 none, 1 fp16, 2 bf16, 3 int8", u8, 0), ("scale", "f32, of int8", f32, 1.0)]),
    (22, "Credit", "receiver to sender", {"run": 7}, None, [("bytes", "u64", u64, 524288)]),
    (23, "Attached", "the answer to Attach", {"run": 7}, None, [
        ("device", "text", text, "pi"), ("instance", "u64", u64, 0x1122334455667788), ("fresh", "bool", boolean, True)]),
    (30, "Introduce", "portal to stage", {"run": 7}, None, [
        ("peers", "list of (device text, public_key text)", listing(record(text, text)),
         [("pi", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")])]),
    (31, "Unreached", "stage to portal", {"run": 7, "generation": 1}, None, [
        ("devices", "list of text", listing(text), ["laptop"])]),
    (32, "Trace", "stage to portal", {"run": 7, "generation": 1, "step": 3}, None, [
        ("actions", "as in Done", actions, [("F", 0, 0, 1000, 2000)]),
        ("losses", "as in Done", listing(record(u32, totals)), [(2, (16.0, 8.0, 8, 3, 0.0))])]),
    (33, "MemoryMoved", "stage to portal", {"run": 7, "generation": 1, "step": 40}, None, [
        ("budget_bytes", "u64", u64, 25165824), ("needed_bytes", "u64", u64, 23068672), ("recompute_ms", "f64", f64, 1.75)]),
    (40, "ClusterHello", "cluster to server", {}, None, [
        ("cluster", "text", text, "north"), ("program_version", "text", text, "0.1.0"),
        ("model", "text", text, "lenet5"), ("instance", "u64", u64, 0x1122334455667788),
        ("samples", "u64", u64, 3000), ("label_counts", "list of u64", u64s, [1500, 1500]), ("working_on", "u64", u64, 0),
        ("epoch", "u64", u64, 0),
        ("class_count", "u32", u32, 2), ("classes", "list of text", texts, ["cat", "dog"]),
        ("classes_sha256", "text", text, classes_hash(["cat", "dog"])), ("tests", "bool", boolean, True)]),
    (41, "ClusterWelcome", "server to cluster", {}, None, [
        ("ping_interval_ms", "u32", u32, 1000), ("silence_max_ms", "u32", u32, 10000),
        ("client", "list of (key text, value text)", pairs, [("lr", "0.1")]), ("epoch", "u64", u64, 7)]),
    (42, "Task", "server to cluster", {}, None, [
        ("sequence", "u64", u64, 3), ("round", "u64", u64, 1), ("base_version", "u64", u64, 0),
        ("client", "list of (key text, value text)", pairs, [("lr", "0.1")]),
        ("tensors", "list of (name text, dtype u8, shape list of i64)", entries, [("0.weight", 1, [6, 1, 5, 5])]),
        ("sha256", "text", text, SHA), ("epoch", "u64", u64, 7), ("repeat", "u32", u32, 0)]),
    (43, "ModelRequest", "cluster to server", {}, None, [
        ("version", "u64", u64, 0), ("offset", "u64", u64, 0), ("bytes", "u32", u32, 524288),
        ("received", "u64", u64, 0)]),
    (44, "ModelChunk", "server to cluster", {}, bytes(8), [("version", "u64", u64, 0), ("offset", "u64", u64, 0)]),
    (45, "UpdateSlice", "cluster to server", {}, None, [
        ("base_version", "u64", u64, 0), ("sequence", "u64", u64, 1), ("slice", "u16", u16, 0),
        ("slices", "u16", u16, 1), ("first_layer", "u32", u32, 0), ("last_layer", "u32", u32, 11),
        ("encoding", "u8: 0 weights, fp32", u8, 0), ("samples", "u64", u64, 3000), ("train_loss", "f64", f64, 0.5),
        ("seconds", "f64", f64, 2.0), ("bytes", "u64", u64, 246824), ("sha256", "text", text, SHA),
        ("eval_samples", "u64", u64, 500), ("eval_loss", "f64", f64, 0.75), ("eval_accuracy", "f64", f64, 0.5),
        ("epoch", "u64", u64, 7)]),
    (46, "UpdateChunk", "cluster to server", {}, bytes(8), [
        ("sequence", "u64", u64, 1), ("slice", "u16", u16, 0), ("offset", "u64", u64, 0)]),
    (47, "Verdict", "server to cluster", {}, None, [
        ("sequence", "u64", u64, 1), ("accepted", "bool", boolean, True), ("reason", "text", text, "")]),
    (48, "FederationEnd", "server to cluster", {}, None, [
        ("code", "u8", u8, 0), ("reason", "text", text, "all rounds are done")]),
    (49, "UploadGrant", "server to cluster", {}, None, [
        ("sequence", "u64", u64, 3), ("slice", "u16", u16, 0), ("offset", "u64", u64, 0),
        ("until", "u64", u64, 1048576), ("reason", "text", text, "")]),
    (50, "ClusterStatus", "cluster to server", {}, None, [
        ("latency_s", "f64", f64, 12.5), ("degraded", "bool", boolean, True), ("note", "text", text, "device pi was lost")]),
    (51, "ClassList", "server to cluster", {}, None, [("classes", "list of text", texts, ["cat", "dog", "fish"])]),
]


def seal(type_number, body, payload=b"", run=0, sequence=0, step=0, generation=0, micro_batch=0, slice_index=0):
    """The header frame of a message."""
    fields = (MAGIC, PROTOCOL, type_number, 0, len(body), len(payload), run, sequence, step, generation, micro_batch,
              slice_index, 1, 1, crc32c(body), 0)
    unsealed = HEADER.pack(*fields, 0)
    return unsealed[:-4] + u32(crc32c(unsealed[:-4]))


def body_of(fields):
    return b"".join(encode(value) for _, _, encode, value in fields)


def hex_lines(data):
    return "\n".join(" ".join(f"{byte:02x}" for byte in data[at:at + 24]) for at in range(0, len(data), 24))


def shown(value):
    return f"`{value!r}`".replace("'", '"').replace("True", "true").replace("False", "false")


def section(number_, name, way, header, payload, fields):
    body = body_of(fields)
    lines = [f"### {number_} {name}", "", f"{way[0].upper()}{way[1:]}.", "", "| field | type | here |", "|---|---|---|"]
    lines += [f"| {field} | {kind} | {shown(value)} |" for field, kind, _, value in fields]
    others = ", ".join(f"{key} {value}" for key, value in header.items())
    lines += ["", f"Header with {others or 'run 0'}{f', {len(payload)} payload bytes' if payload else ''}; then the body:", "",
              "```", hex_lines(seal(number_, body, payload or b"", **header)), "", hex_lines(body), "```"]
    return "\n".join(lines)


def main():
    sections = [section(*message) for message in MESSAGES]
    if sys.argv[1:] != ["--check"]:
        print("\n\n".join(sections))
        return
    document = (pathlib.Path(__file__).parent / "WIRE.md").read_text(encoding="utf-8")
    stale = [part.splitlines()[0] for part in sections if part not in document]
    if stale:
        sys.exit("docs/WIRE.md differs from wire_examples.py at: " + ", ".join(stale))
    print(f"docs/WIRE.md: {len(sections)} examples agree")


if __name__ == "__main__":
    main()
