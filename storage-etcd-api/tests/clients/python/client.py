"""What the Python client `etcd3` makes of a cluster, whose endpoints (host:port) are the arguments.

Prints the name of each part that did as it should, and fails at the first that did not.
"""

import sys

import etcd3

ENDPOINTS = [argument.rsplit(":", 1) for argument in sys.argv[1:]]


def connect(place):
    host, port = ENDPOINTS[place]
    return etcd3.client(host=host, port=int(port), timeout=20)


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def puts_and_gets(one, other):
    equal(one.get("a"), (None, None))
    one.put("a", "1")
    value, meta = other.get("a")
    equal((value, meta.key, meta.version, meta.lease_id), (b"1", b"a", 1, 0))
    equal(meta.create_revision, meta.mod_revision)
    equal(other.put("a", "2", prev_kv=True).prev_kv.value, b"1")
    equal(one.get("a")[1].version, 2)
    equal((one.put_if_not_exists("a", "3"), one.replace("a", "2", "4"), one.replace("a", "2", "5")), (False, True, False))
    equal(other.get("a")[0], b"4")
    equal((other.delete("a"), one.delete("a"), one.get("a")[0]), (True, False, None))
    binary = bytes(range(256))
    one.put(binary, binary)
    equal(other.get(binary)[0], binary)


def prefix_ranges(one, other):
    for number in range(5):
        one.put(f"p/{number}", str(number))
    one.put("p0", "behind the prefix")
    found = [(meta.key, value) for value, meta in other.get_prefix("p/")]
    equal(found, [(f"p/{n}".encode(), str(n).encode()) for n in range(5)])
    descending = other.get_prefix("p/", sort_order="descend", sort_target="value")
    equal([value for value, _ in descending], [b"4", b"3", b"2", b"1", b"0"])
    equal([meta.key for _, meta in one.get_prefix("p/", keys_only=True)], [f"p/{n}".encode() for n in range(5)])
    equal([value for value, _ in one.get_range("p/1", "p/3")], [b"1", b"2"])
    equal(other.delete_prefix("p/").deleted, 5)
    equal([value for value, _ in one.get_prefix("p")], [b"behind the prefix"])


def transactions(one, other):
    of = one.transactions
    one.put("t/a", "1")

    def attempt():
        return one.transaction(
            compare=[of.value("t/a") == "1", of.version("t/a") > 0, of.create("t/b") == 0],
            success=[of.put("t/b", "made"), of.get("t/a"), of.delete("t/a")],
            failure=[of.get("t/b")],
        )

    succeeded, answers = attempt()
    equal(succeeded, True)
    equal([value for value, _ in answers[1]], [b"1"])
    equal([value for value, _ in other.get_prefix("t/")], [b"made"])
    succeeded, answers = attempt()
    equal(succeeded, False)
    equal([value for value, _ in answers[0]], [b"made"])


def watches(one, other):
    events, cancel = other.watch_prefix("w/")
    one.put("w/a", "1")
    one.put("elsewhere", "unseen")
    one.put("w/b", "2")
    one.delete("w/a")
    seen = [(type(event).__name__, event.key, event.value) for event in (next(events) for _ in range(3))]
    equal(seen, [("PutEvent", b"w/a", b"1"), ("PutEvent", b"w/b", b"2"), ("DeleteEvent", b"w/a", b"")])
    cancel()
    revision = one.get("w/b")[1].mod_revision
    past, cancel = one.watch("w/b", start_revision=revision)
    event = next(past)
    equal((event.value, event.mod_revision), (b"2", revision))
    cancel()


def leases(one, other):
    lease = one.lease(2)
    one.put("l/kept", "1", lease=lease)
    equal((lease.granted_ttl, lease.keys), (2, [b"l/kept"]))
    events, cancel = other.watch("l/kept")
    for _ in range(3):
        equal([answer.TTL for answer in lease.refresh()], [2])
    equal(one.get("l/kept")[0], b"1")
    # Nobody keeps it from now on.
    equal(type(next(events)).__name__, "DeleteEvent")
    equal(lease.remaining_ttl, -1)
    cancel()
    revoked = one.lease(1000)
    one.put("l/revoked", "1", lease=revoked)
    revoked.revoke()
    equal(other.get("l/revoked")[0], None)


def locks(one, other):
    mine, yours = one.lock("fence", ttl=60), other.lock("fence", ttl=60)
    equal((mine.acquire(), mine.is_acquired()), (True, True))
    equal((yours.acquire(timeout=0.5), yours.is_acquired()), (False, False))
    equal((mine.release(), yours.acquire()), (True, True))
    equal((mine.is_acquired(), mine.release()), (False, False))
    yours.release()
    # One whose holder no longer refreshes it passes to who waits.
    equal(one.lock("left", ttl=1).acquire(), True)
    equal(other.lock("left", ttl=60).acquire(timeout=20), True)


def cluster(one, other):
    equal(sorted(member.id for member in one.members), [1, 2, 3])
    status = other.status()
    equal(status.leader.id in (1, 2, 3), True)
    equal(status.version.startswith("3.6."), True)
    one.compact(one.get("w/b")[1].mod_revision)
    equal(list(other.list_alarms()), [])


def main():
    one, other = connect(0), connect(1)
    for part in (puts_and_gets, prefix_ranges, transactions, watches, leases, locks, cluster):
        part(one, other)
        print(part.__name__, flush=True)
    one.close()
    other.close()


main()
