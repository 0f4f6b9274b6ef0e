"""The negotiation, said right and said wrong."""

from __future__ import annotations

import pytest

from zramcore.nbd import protocol as p

FLAGS = (
    p.SEND_HAS_FLAGS | p.SEND_FLUSH | p.SEND_FUA | p.SEND_TRIM | p.SEND_WRITE_ZEROES | p.CAN_MULTI_CONN
    | p.SEND_CACHE | p.SEND_FAST_ZERO
)  # fmt: skip


def info(name: bytes, count: int, rest: bytes = b"") -> bytes:
    return len(name).to_bytes(4, "big") + name + count.to_bytes(2, "big") + rest


def meta(name: bytes, count: int, *queries: bytes) -> bytes:
    strings = b"".join(len(query).to_bytes(4, "big") + query for query in queries)
    return len(name).to_bytes(4, "big") + name + count.to_bytes(4, "big") + strings


# Choosing an export ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_zeroes", [False, True])
def test_export_name_pads_unless_told_not_to(house, no_zeroes):
    client = house.connect().greet(p.FLAG_FIXED_NEWSTYLE | (p.FLAG_NO_ZEROES if no_zeroes else 0))
    client.send_option(p.OPT_EXPORT_NAME, b"zram0")
    assert p.EXPORT_NAME_REPLY.unpack(client.exactly(10)) == (1 << 20, FLAGS)
    if not no_zeroes:
        assert client.exactly(124) == bytes(124)
    assert client.read(0, 4096) == bytes(4096)
    client.disconnect()


def test_newstyle_that_is_not_fixed_has_export_name_only(house):
    client = house.connect().greet(0)
    client.send_option(p.OPT_EXPORT_NAME)
    assert len(client.exactly(134)) == 134
    client.disconnect()
    for option in (p.OPT_GO, p.OPT_ABORT, p.OPT_LIST):
        client = house.connect().greet(0)
        client.send_option(option)
        assert client.closed()


def test_export_name_has_no_error_but_the_end(house):
    for name in (b"zram7", b"\xff\xfe", b"a\0b", b"x" * 5000):
        client = house.connect().greet()
        client.send_option(p.OPT_EXPORT_NAME, name)
        assert client.closed()


def test_go_gives_what_was_asked_for(house):
    infos = house.connect().greet().go("zram0", p.INFO_NAME, p.INFO_DESCRIPTION, p.INFO_BLOCK_SIZE, 77)
    assert infos == {
        p.INFO_EXPORT: (1 << 20).to_bytes(8, "big") + FLAGS.to_bytes(2, "big"),
        p.INFO_NAME: b"zram0",
        p.INFO_DESCRIPTION: b"zram, 1 MiB, lz4, 4 KiB pages",
        p.INFO_BLOCK_SIZE: b"".join(size.to_bytes(4, "big") for size in (1, 4096, 32 << 20)),
    }


def test_go_without_questions_tells_the_size(house):
    assert set(house.connect().greet().go("")) == {p.INFO_EXPORT}


def test_info_leaves_the_negotiation_open_and_the_device_free(house):
    client = house.connect().greet()
    asked = client.go("zram0", p.INFO_BLOCK_SIZE, option=p.OPT_INFO)
    assert house.control.device("zram0").holders == 0
    assert client.go("zram0", p.INFO_BLOCK_SIZE) == asked
    assert house.control.device("zram0").holders == 1
    client.disconnect()


def test_df_is_offered_with_structured_replies_only(house):
    infos = house.connect().greet().negotiate_structured().go("")
    assert infos[p.INFO_EXPORT][8:] == (FLAGS | p.SEND_DF).to_bytes(2, "big")


def test_read_only_exports_say_so(house):
    infos = house.connect(house.serve(read_only=True)).greet().go("")
    flags = int.from_bytes(infos[p.INFO_EXPORT][8:], "big")
    assert flags & p.SEND_READ_ONLY
    assert not flags & (p.SEND_TRIM | p.SEND_WRITE_ZEROES | p.SEND_FAST_ZERO)


@pytest.mark.parametrize("option", [p.OPT_INFO, p.OPT_GO])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", p.REP_ERR_INVALID),
        (b"\0\0\0", p.REP_ERR_INVALID),
        (info(b"zram0", 0)[:-1], p.REP_ERR_INVALID),
        ((99).to_bytes(4, "big") + b"zram0\0\0", p.REP_ERR_INVALID),
        ((2**32 - 1).to_bytes(4, "big") + b"zram0\0\0", p.REP_ERR_INVALID),
        (info(b"zram0", 3, b"\0\1\0\2"), p.REP_ERR_INVALID),
        (info(b"zram0", 1, b"\0\1\0\2"), p.REP_ERR_INVALID),
        (info(b"\xff", 0), p.REP_ERR_INVALID),
        (info(b"zr\0am", 0), p.REP_ERR_INVALID),
        (info(b"x" * 4097, 0), p.REP_ERR_TOO_BIG),
        (info(b"x" * 70000, 0), p.REP_ERR_TOO_BIG),
        (info(b"zram1", 0), p.REP_ERR_UNKNOWN),
        (info(b"ZRAM0", 0), p.REP_ERR_UNKNOWN),
    ],
)
def test_wrong_questions_are_refused_and_the_negotiation_goes_on(house, option, data, error):
    client = house.connect().greet()
    assert client.answer(option, data) == error
    client.go("zram0")
    client.disconnect()


def test_the_empty_name_is_the_only_device(house):
    house.serve()
    assert house.control.device("zram0").initialized
    assert p.INFO_NAME in house.connect().greet().go("", p.INFO_NAME)
    house.add(8192)
    client = house.connect().greet()
    kind, text = client.option(p.OPT_INFO, info(b"", 0))[-1]
    assert (kind, text) == (p.REP_ERR_UNKNOWN, b"there is no default export: choose one of 2")
    assert client.go("zram1")[p.INFO_EXPORT][:8] == (8192).to_bytes(8, "big")


def test_a_device_without_disksize_is_no_export(house):
    house.add(0)
    client = house.connect().greet()
    assert [name for name, _ in exports(client)] == ["zram0"]
    assert client.answer(p.OPT_GO, info(b"zram1", 0)) == p.REP_ERR_UNKNOWN
    assert house.control.device("zram1").holders == 0
    house.control.target("zram1").store("disksize", "1M")
    client.go("zram1")


def test_only_the_named_devices_are_exports(house):
    house.add(8192)
    client = house.connect(house.serve(only={"zram1"})).greet()
    assert [name for name, _ in exports(client)] == ["zram1"]
    assert client.answer(p.OPT_GO, info(b"zram0", 0)) == p.REP_ERR_UNKNOWN
    assert client.go("")[p.INFO_EXPORT][:8] == (8192).to_bytes(8, "big")


# Other options --------------------------------------------------------------------------------------------------------


def exports(client):
    *found, last = client.option(p.OPT_LIST)
    assert last == (p.REP_ACK, b"")
    assert all(kind == p.REP_SERVER for kind, _ in found)
    lengths = [int.from_bytes(data[:4], "big") for _, data in found]
    return [(data[4 : 4 + n].decode(), data[4 + n :].decode()) for n, (_, data) in zip(lengths, found, strict=True)]


def test_list_names_and_describes_every_device(house):
    house.add(64 << 10)
    client = house.connect().greet()
    assert [name for name, _ in exports(client)] == ["zram0", "zram1"]
    assert exports(client)[1][1].startswith("zram, 0.0625 MiB, ")


def test_options_without_data_refuse_some(house):
    client = house.connect().greet()
    for option in (p.OPT_LIST, p.OPT_STRUCTURED_REPLY):
        assert client.answer(option, b"x") == p.REP_ERR_INVALID
    assert client.answer(p.OPT_STARTTLS, b"x") == p.REP_ERR_INVALID


def test_abort_is_acknowledged_whatever_it_carries(house):
    for data in (b"", b"because"):
        client = house.connect().greet()
        assert client.answer(p.OPT_ABORT, data) == p.REP_ACK
        assert client.closed()


def test_starttls_without_a_certificate(house):
    client = house.connect().greet()
    assert client.answer(p.OPT_STARTTLS) == p.REP_ERR_POLICY
    client.go("")


@pytest.mark.parametrize("option", [0, 4, p.OPT_EXTENDED_HEADERS, 12, 999, 2**32 - 1])
def test_unknown_options_are_unsupported(house, option):
    client = house.connect().greet()
    assert client.answer(option, b"data" * 100) == p.REP_ERR_UNSUP
    assert client.answer(option) == p.REP_ERR_UNSUP
    client.go("")


# Metadata contexts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "listed", "set_"),
    [
        ((), {"base:allocation", "zram:state"}, set()),
        (("base:allocation",), {"base:allocation"}, {"base:allocation"}),
        (("zram:state", "base:allocation"), {"base:allocation", "zram:state"}, {"base:allocation", "zram:state"}),
        (("base:",), {"base:allocation"}, set()),
        (("zram:",), {"zram:state"}, set()),
        (("base:dirty", "qemu:dirty-bitmap:x", "x-y:"), set(), set()),
        (("zram:state", "zram:state"), {"zram:state"}, {"zram:state"}),
    ],
)
def test_contexts_by_query(house, queries, listed, set_):
    client = house.connect().greet().negotiate_structured()
    assert set(client.contexts(*queries, option=p.OPT_LIST_META_CONTEXT)) == listed
    agreed = client.contexts(*queries)
    assert set(agreed) == set_
    assert len(set(agreed.values())) == len(agreed)


@pytest.mark.parametrize("option", [p.OPT_LIST_META_CONTEXT, p.OPT_SET_META_CONTEXT])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", p.REP_ERR_INVALID),
        (meta(b"zram0", 1), p.REP_ERR_INVALID),
        (meta(b"zram0", 2**32 - 1, b"base:allocation"), p.REP_ERR_INVALID),
        (meta(b"zram0", 0, b"base:allocation"), p.REP_ERR_INVALID),
        (meta(b"zram0", 1, b"allocation"), p.REP_ERR_INVALID),
        (meta(b"zram0", 1, b"base:\xff"), p.REP_ERR_INVALID),
        (meta(b"zram0", 1, b"base:" + b"a" * 4096), p.REP_ERR_TOO_BIG),
        (meta(b"zram0", 5000, *[b"base:allocation"] * 5000), p.REP_ERR_TOO_BIG),
        (meta(b"zram9", 1, b"base:allocation"), p.REP_ERR_UNKNOWN),
    ],
)
def test_wrong_queries_are_refused(house, option, data, error):
    client = house.connect().greet().negotiate_structured()
    assert client.answer(option, data) == error
    client.go("")


def test_contexts_need_structured_replies(house):
    client = house.connect().greet()
    for option in (p.OPT_LIST_META_CONTEXT, p.OPT_SET_META_CONTEXT):
        assert client.answer(option, meta(b"", 0)) == p.REP_ERR_INVALID


def status_error(client):
    return client.do(p.CMD_BLOCK_STATUS, 0, 4096).error


def test_the_last_set_counts_also_one_that_failed(house):
    for last in (meta(b"", 0), meta(b"", 1), meta(b"zram9", 0), meta(b"", 5000, *[b"base:allocation"] * 5000)):
        client = house.connect().greet().negotiate_structured()
        assert client.contexts("base:allocation")
        client.option(p.OPT_SET_META_CONTEXT, last)
        client.go("")
        assert status_error(client) == p.EINVAL


def test_contexts_belong_to_the_export_they_were_set_for(house):
    house.add(8192)
    for chosen, error in (("zram1", p.EINVAL), ("zram0", 0)):
        client = house.connect().greet().negotiate_structured()
        client.contexts("base:allocation", name="zram0")
        client.go(chosen)
        assert status_error(client) == error


# Beyond the protocol --------------------------------------------------------------------------------------------------


def test_unknown_client_flags_end_it(house):
    assert house.connect().greet(p.FLAG_FIXED_NEWSTYLE | 4).closed()


def test_a_wrong_option_magic_ends_it(house):
    client = house.connect().greet()
    client.send_option(p.OPT_LIST, magic=p.OPTION_MAGIC + 1)
    assert client.closed()


def test_an_announcement_of_gigabytes_ends_it(house):
    client = house.connect().greet()
    client.send_option(p.OPT_LIST, length=2**32 - 1)
    assert client.closed()


def test_a_client_that_stops_midway_is_let_go(house):
    for said in (
        b"",
        b"\0\0",
        b"\0\0\0\3" + b"IHAVE",
        b"\0\0\0\3" + p.OPTION.pack(p.OPTION_MAGIC, p.OPT_GO, 50) + b"x",
    ):
        client = house.connect()
        client.exactly(18)
        client.sock.sendall(said)
        client.sock.close()
    client = house.connect().greet()
    client.go("")
    assert client.read(0, 10) == bytes(10)


def test_a_client_that_dawdles_is_cut_off(house):
    client = house.connect(house.serve(handshake_timeout=0.2)).greet()
    assert client.closed()


def test_the_handshake_timeout_ends_with_the_handshake(house):
    client = house.connect(house.serve(handshake_timeout=0.3)).greet()
    client.go("")
    assert client.sock.gettimeout() > 0.3
    client.sock.settimeout(0.6)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    assert client.read(0, 4096) == bytes(4096)
