#!/usr/bin/env python3
"""A minimal client for Ringway: creates topics, produces lines, consumes values. To be read beside
docs/format.md (F) and docs/protocol.md (P), whose sections the comments name. It takes its time:
CRCs in Python, one request at a time on a connection; and it inflates nothing.
"""
import argparse, io, os, socket, struct, sys, threading, time
from collections import defaultdict, namedtuple

HELLO, METADATA, PRODUCE, FETCH, LIST_OFFSETS, CREATE_TOPIC, INIT_PRODUCER = 1, 2, 3, 4, 5, 6, 10
RETRIABLE, LOG_TRUNCATED = {20, 21, 22, 23, 24, 60, 62, 63, 64}, 51     # P: Errors
PRODUCE_MS, WAIT_MS = 10_000, 5_000     # what produce may take; how long fetch waits for records
SILENCE_S, RETRY_S = 15, 30             # when a connection counts as dead; when retrying ends
MIB, U64 = 1 << 20, (1 << 64) - 1

class Fault(Exception):                                         # an error reply
    def __init__(self, code, message, fields):
        super().__init__(f"error {code}: {message}")
        self.code, self.fields = code, fields

def check(right, what):
    if not right:
        raise ValueError(what)

# ---- The batch (F: The batch) ----
CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [crc >> 1 ^ 0x82f63b78 * (crc & 1) for crc in CRC_TABLE]

def crc32c(data, crc=0):                # crc: that of the bytes before data
    crc ^= 0xffffffff
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ 0xffffffff

HEADER = struct.Struct("<4sHHQQqIIIIIIIIIIqqQQIHHQQ")           # F: Header
Header = namedtuple("Header", """magic version zero_6 log_id base_offset append_time_us leader_epoch
    prev_header_crc body_crc header_crc batch_bytes archive_bytes blob_bytes record_count
    last_offset_delta attributes first_timestamp_us max_timestamp_us producer_id tag_summary
    first_sequence producer_epoch zero_110 layout zero_120""", defaults=[0] * 25)
CODEC, CONTROL = 0x0f, 0x10                                     # bits of the attributes
ENTRY, ROOT = struct.Struct("<IIIiIIIHBB"), struct.Struct("<iIiI")      # F: Table, Root

def round16(n):
    return -(-n // 16) * 16

def encode_batch(records, producer_id, producer_epoch, first_sequence):
    """A batch of (key or None, value) pairs as a producer sends it: the leader's fields are 0."""
    now_us, count, table, blob = time.time_ns() // 1000, len(records), bytearray(), bytearray()
    for index, (key, value) in enumerate(records):
        record, flags = value + (key or b""), 2 | (key is not None)
        entry = ENTRY.pack(index, len(blob), 0, 0, len(value), len(key or b""), 0, 0, 0, flags)
        table += entry[:8] + struct.pack("<I", crc32c(record, crc32c(entry[12:]))) + entry[12:]
        blob += record
    root_at = round16(len(table) + len(blob))
    root = ROOT.pack(-root_at, count, len(table) - (root_at + 8), len(blob))
    archive = bytes(table + blob).ljust(root_at, b"\0") + root
    header = Header(magic=b"RWB1", version=1, batch_bytes=128 + len(archive), record_count=count,
                    archive_bytes=len(archive), blob_bytes=len(blob), last_offset_delta=count - 1,
                    first_timestamp_us=now_us, max_timestamp_us=now_us, producer_id=producer_id,
                    producer_epoch=producer_epoch, first_sequence=first_sequence)
    body_crc = crc32c(archive, crc32c(HEADER.pack(*header)[48:]))
    return HEADER.pack(*header._replace(body_crc=body_crc)) + archive

def read_header(data, log, offset, last):
    """The header of the batch at `offset` of a log, if it is that, whole, and follows `last`."""
    check(len(data) >= 128, "length")                           # F: What is checked at the door
    h = Header(*HEADER.unpack_from(data))
    check((h.magic, h.version) == (b"RWB1", 1), "magic and version")
    check(not (h.zero_6 or h.zero_110 or h.zero_120 or h.attributes >> 8), "reserved bits")
    check(crc32c(data[48:128], crc32c(data[:44])) == h.header_crc, "header CRC")
    check(128 + h.archive_bytes == h.batch_bytes <= len(data), "lengths")
    check(crc32c(data[48:h.batch_bytes]) == h.body_crc, "body CRC")
    check(h.log_id == log, "log id")                            # F: CRCs and the chain
    check(h.base_offset <= offset <= h.base_offset + h.last_offset_delta, "offset")
    if last:
        check(h.base_offset == offset and h.leader_epoch >= last.leader_epoch, "offset and epoch")
        check(h.prev_header_crc == last.header_crc, "chain")
    return h

def read_records(h, batch):
    """Yields offset and value of each record (the door, 4 to 6, but for headers and tags)."""
    if h.attributes & CODEC:                                    # F: Codecs
        raise NotImplementedError("a batch is compressed: Python alone has neither lz4 nor zstd")
    blob_at, root_at, last = 128 + 32 * h.record_count, h.batch_bytes - 16, -1
    root = 128 - root_at, h.record_count, blob_at - (root_at + 8), h.blob_bytes
    check(ROOT.unpack_from(batch, root_at) == root, "root")
    for at in range(128, blob_at, ENTRY.size):
        delta, start, crc, _, value, key, _, headers, tag, _ = ENTRY.unpack_from(batch, at)
        check(last < delta <= h.last_offset_delta, "order of the records")
        last, record = delta, batch[blob_at + start:][:value + key + headers + tag]
        right = crc32c(record, crc32c(batch[at + 12:at + 32])) == crc
        check(right, f"record CRC at offset {h.base_offset + delta}")
        if not h.attributes & CONTROL:
            yield h.base_offset + delta, bytes(record[:value])

def mix(z):                                                     # P: Keys and partitions
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & U64
    z = (z ^ z >> 27) * 0x94d049bb133111eb & U64
    return z ^ z >> 31

def log_id(topic, partition):                                   # F: Log id
    lo, hi = struct.unpack("<QQ", topic)
    return mix((lo ^ (hi << 32 & U64 | hi >> 32)) + (partition + 1) * 0x9e3779b97f4a7c15 & U64)

def jump(h, n):
    following = 0
    while following < n:
        bucket, h = following, h * 2862933555777941757 + 1 & U64
        following = int((bucket + 1) * (2.0 ** 31 / ((h >> 33) + 1)))
    return bucket

def partition_of(key, active, count):
    """The partition of a key; `active` are those of `count` partitions that take new records."""
    h = 0xcbf29ce484222325
    for byte in key:
        h = (h ^ byte) * 0x100000001b3 & U64
    h = hashed = mix(h)
    for _ in range(64):
        if jump(h, count) in active:
            return jump(h, count)
        h = mix(h + 0x9e3779b97f4a7c15 & U64)
    return max(active, key=lambda p: mix(hashed + (p + 1) * 0x9e3779b97f4a7c15 & U64))

# ---- Connections (P: Connections, Frames, Fields) ----
class Fields(io.BytesIO):                                       # of a reply's head
    def take(self, layout):
        values = struct.unpack("<" + layout, self.read(struct.calcsize("<" + layout)))
        return values if len(values) > 1 else values[0]
    def string(self):
        return self.read(self.take("H")).decode()
    def list(self, element):
        return [element() for _ in range(self.take("I"))]
    def fault(self):
        if code := self.take("H"):
            raise Fault(code, self.string(), self)
        return self

def string(text):
    return struct.pack("<H", len(text.encode())) + text.encode()

class Connection:
    def __init__(self, address, connect_s):
        self.socket, self.correlation = socket.create_connection(address, connect_s), 0
        self.socket.settimeout(SILENCE_S)
        self.stream = self.socket.makefile("rb")
        hello, _ = self.call(HELLO, struct.pack("<HH", 1, 1) + string("ringway_min.py"))
        _version, _node, _cluster, self.batch_bytes_max = hello.take("HI16sI")

    def call(self, kind, head, data=b""):
        """Sends a request and returns the next reply: the fields behind its fault, and its data."""
        self.correlation += 1
        body = head.ljust(round16(len(head)), b"\0") + data
        start = struct.pack("<IHHII", 16 + len(body), kind, 0, self.correlation, len(head))
        self.socket.sendall(start + body)
        size, _kind, _, _correlation, head_bytes = struct.unpack("<IHHII", self.read(16))
        body = self.read(size - 16)
        return Fields(body[:head_bytes]).fault(), body[round16(head_bytes):]

    def read(self, size):
        data = self.stream.read(size)
        if len(data) < size:
            raise ConnectionError("the broker closed the connection")
        return memoryview(data)

Topic = namedtuple("Topic", "id epoch partitions")
Partition = namedtuple("Partition", "index leader shard leader_epoch state")

class Client:
    def __init__(self, address):
        self.address, self.connections, self.brokers, self.topics = address, {}, {}, {}

    def connection(self, address, connect_s=SILENCE_S):
        self.connections[address] = self.connections.get(address) or Connection(address, connect_s)
        return self.connections[address]

    def topic(self, name):                                      # P: 2 metadata
        if name not in self.topics:
            request = struct.pack("<BI", 1, 1) + string(name)   # one topic
            reply, _ = self.connection(self.address).call(METADATA, request)
            self.brokers = dict(reply.list(lambda: (reply.take("I"), (
                reply.string(), reply.take("H"), reply.list(lambda: reply.take("H"))))))
            reply.take("I"), reply.fault(), reply.string()
            topic, epoch, _codec, _timestamp = reply.take("16sQBB")
            partitions = reply.list(lambda: Partition(*reply.take("IIHIB")))
            self.topics[name] = Topic(topic, epoch, partitions)
        return self.topics[name]

    def leader(self, partition):                                # P: Connections
        host, port, shard_ports = self.brokers[partition.leader]
        address = host, shard_ports[partition.shard]
        try:
            return self.connection(address, connect_s=0.25)
        except OSError:                                         # the shared port's from now on
            self.connections[address] = self.connection((host, port))
        return self.connections[address]

    def ask_leader(self, name, partition, kind, head, data=b""):
        """Asks a partition's leader, again and again where that may help (P: Errors)."""
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                topic = self.topic(name)
                place = topic.id + struct.pack("<I", partition)
                reply = self.leader(topic.partitions[partition]).call(kind, place + head, data)
                if reply[0].take("Q") > topic.epoch:            # P: 2 metadata, at its end
                    del self.topics[name]
                return reply
            except (OSError, Fault) as problem:                 # OSError: the connection broke
                again = not isinstance(problem, Fault) or problem.code in RETRIABLE
                if not again or time.monotonic() > give_up:
                    raise
                self.connections.clear(), self.topics.clear()   # all anew: metadata, too
                time.sleep(0.2)

# ---- Commands ----
def lines_of_input(block_bytes):
    rest = b""
    while block := os.read(0, block_bytes):
        *lines, rest = (rest + block).split(b"\n")
        yield lines
    yield [rest] if rest else []

def produce(client, name, separator):
    connection, sequences = client.connection(client.address), defaultdict(int)
    producer, limit = connection.call(INIT_PRODUCER, b"")[0].take("QH"), connection.batch_bytes_max
    for turn, lines in enumerate(lines_of_input(limit // 66)):  # each fits, even if all are empty
        partitions, groups = client.topic(name).partitions, defaultdict(list)
        active = [p.index for p in partitions if p.state == 0]
        for line in lines:
            keyed = separator and separator in line
            key, value = line.split(separator, 1) if keyed else (None, line)
            to = partition_of(key, active, len(partitions)) if keyed else active[turn % len(active)]
            groups[to].append((key, value))
        for to, records in groups.items():
            batch = encode_batch(records, *producer, sequences[to])
            check(len(batch) <= limit, f"too large a record: batches have at most {limit} bytes")
            client.ask_leader(name, to, PRODUCE, struct.pack("<BBI", 2, 0, PRODUCE_MS), batch)
            sequences[to] = sequences[to] + len(records) & 0xffffffff

def print_partition(client, name, partition, from_start, exit_at_end, lock):
    reply, _ = client.ask_leader(name, partition, LIST_OFFSETS, struct.pack("<Bq", 0, 0))
    _epoch, first, _start, high_watermark, _bytes = reply.take("IQQQQ")
    offset, end = first if from_start else high_watermark, high_watermark if exit_at_end else U64
    last = None if offset else Header()                         # of the batch before
    log = log_id(client.topic(name).id, partition)
    while offset < end:
        epoch = (1, last.leader_epoch) if last and offset else (0, 0)
        request = struct.pack("<QBIIII", offset, *epoch, MIB, 0, WAIT_MS)
        try:
            _, data = client.ask_leader(name, partition, FETCH, request)
            while data:
                last = header = read_header(data, log, offset, last)
                with lock:
                    for at, value in read_records(header, data):
                        sys.stdout.buffer.write(value + b"\n" if offset <= at < end else b"")
                    sys.stdout.buffer.flush()
                offset = header.base_offset + header.last_offset_delta + 1
                data = data[header.batch_bytes:]
        except ValueError as wrong:
            raise ValueError(f"damaged: {name}, partition {partition}, batch at {offset}: {wrong}")
        except Fault as fault:
            if fault.code != LOG_TRUNCATED:
                raise
            offset, last = fault.fields.take("QIQQQ")[4], None  # safe_offset
            print(f"{name}, partition {partition}: {fault}; going on at {offset}", file=sys.stderr)

def consume(client, name, *how):
    lock = threading.Lock()             # each partition has a thread, so a fetch of its own waits
    threads = [threading.Thread(target=print_partition, daemon=True, args=(
        Client(client.address), name, p.index, *how, lock)) for p in client.topic(name).partitions]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

def fail(kind, problem, *_):
    print(f"ringway_min.py: {kind.__name__}: {problem}", file=sys.stderr, flush=True)
    os._exit(1)

def main():
    parser = argparse.ArgumentParser(description="A minimal client for Ringway.")
    parser.add_argument("--broker", default="127.0.0.1:7420", metavar="HOST:PORT")
    parser.add_argument("command", choices=["create", "produce", "consume"])
    parser.add_argument("topic")
    parser.add_argument("--partitions", type=int, default=1, help="create: how many")
    parser.add_argument("--key-separator", type=os.fsencode, help="produce: between key and value")
    parser.add_argument("--from-start", action="store_true", help="consume: not only what is new")
    parser.add_argument("--exit-at-end", action="store_true", help="consume: end at today's end")
    args = parser.parse_args()
    host, _, port = args.broker.rpartition(":")
    client = Client((host.strip("[]"), int(port)))
    sys.excepthook, threading.excepthook = fail, lambda thread: fail(*thread)
    if args.command == "create":
        request = string(args.topic) + struct.pack("<IHI", args.partitions, 0, 0)
        client.connection(client.address).call(CREATE_TOPIC, request)
    elif args.command == "produce":
        produce(client, args.topic, args.key_separator)
    else:
        consume(client, args.topic, args.from_start, args.exit_at_end)

if __name__ == "__main__":
    main()
