"""TLS: the server proves itself, and may ask the client to."""

from __future__ import annotations

import random
import ssl
import warnings

import pytest

from zramcore.errors import InvalidValue
from zramcore.nbd import listen, server_context
from zramcore.nbd import protocol as p
from zramcore.nbd.transmission import BUFFER


@pytest.fixture
def context(certificates):
    return server_context(certificates["server-cert"], certificates["server-key"])


@pytest.fixture
def strict(certificates):
    """A server that asks for certificates of clients."""
    return server_context(certificates["server-cert"], certificates["server-key"], certificates["ca-cert"])


def wrap(client, certificates, who=None):
    """Upgrade a client that has had its STARTTLS acknowledged."""
    trust = ssl.create_default_context(cafile=certificates["ca-cert"])
    if who:
        trust.load_cert_chain(certificates[f"{who}-cert"], certificates[f"{who}-key"])
    client.sock = trust.wrap_socket(client.sock, server_hostname="localhost")
    return client


def secure(house, server, certificates, who=None):
    client = house.connect(server).greet()
    assert client.answer(p.OPT_STARTTLS) == p.REP_ACK
    return wrap(client, certificates, who)


@pytest.mark.parametrize("structured", [False, True])
def test_everything_goes_through_tls(house, context, certificates, structured):
    name = house.add(16 << 20, comp_algorithm="lz4")
    client = secure(house, house.serve("tcp:127.0.0.1:0", tls=context), certificates)
    if structured:
        client.negotiate_structured()
    client.go(name)
    data = random.Random(3).randbytes(2 * BUFFER + 777)
    assert client.write(5, data) == 0
    assert client.read(5, len(data)) == data
    for at in range(20):
        client.send(p.CMD_READ, at * 4096, 4096)
    assert len(client.receive(20)) == 20
    (listed,) = house.servers[0].clients
    assert listed.tls
    client.send(p.CMD_DISC)
    client.sock.unwrap().close()


def test_before_tls_only_starttls_and_abort_are_heard(house, context, certificates):
    server = house.serve(tls=context)
    client = house.connect(server).greet()
    for option in (p.OPT_LIST, p.OPT_GO, p.OPT_INFO, p.OPT_STRUCTURED_REPLY, p.OPT_SET_META_CONTEXT, 99):
        assert client.answer(option, b"") == p.REP_ERR_TLS_REQD
    assert client.answer(p.OPT_STARTTLS, b"data") == p.REP_ERR_INVALID
    assert client.answer(p.OPT_STARTTLS) == p.REP_ACK
    wrap(client, certificates)
    assert client.answer(p.OPT_STARTTLS) == p.REP_ERR_INVALID
    client.go("")

    client = house.connect(server).greet()
    assert client.answer(p.OPT_ABORT) == p.REP_ACK
    client = house.connect(server).greet()
    client.send_option(p.OPT_EXPORT_NAME, b"zram0")
    assert client.closed()


def test_a_server_with_tls_may_be_reached_from_anywhere(house, context):
    server = house.serve("tcp:0.0.0.0:0", tls=context)
    assert server.uri("zram0").startswith("nbds://0.0.0.0:")


@pytest.mark.parametrize("who", [None, "stranger"])
def test_clients_without_the_right_certificate_are_sent_away(house, strict, certificates, who):
    server = house.serve(tls=strict)
    client = house.connect(server).greet()
    assert client.answer(p.OPT_STARTTLS) == p.REP_ACK
    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        # TLS 1.3 tells the client with its first data.
        wrap(client, certificates, who).go("")
    good = secure(house, server, certificates, "client")
    good.go("")
    assert good.read(0, 10) == bytes(10)


def test_nonsense_instead_of_tls_ends_it(house, context, certificates):
    server = house.serve(tls=context)
    client = house.connect(server).greet()
    assert client.answer(p.OPT_STARTTLS) == p.REP_ACK
    client.send_option(p.OPT_GO, bytes(6))
    rest = b""
    while not client.closed():
        rest += b"."
    assert len(rest) < 100, "no more than an alert"
    secure(house, server, certificates).go("")


def test_options_smuggled_in_before_tls_are_not_obeyed(house, context, certificates):
    """What somebody in the middle puts behind STARTTLS becomes part of the TLS handshake, and breaks it."""
    client = house.connect(house.serve(tls=context)).greet()
    smuggled = p.OPTION.pack(p.OPTION_MAGIC, p.OPT_STRUCTURED_REPLY, 0)
    client.sock.sendall(p.OPTION.pack(p.OPTION_MAGIC, p.OPT_STARTTLS, 0) + smuggled)
    assert client.exactly(20)[12:16] == p.REP_ACK.to_bytes(4, "big")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        wrap(client, certificates)


def test_stop_ends_tls_connections(house, context, certificates):
    server = house.serve(tls=context)
    client = secure(house, server, certificates)
    client.go("")
    server.stop()
    assert client.closed()
    assert house.control.device("zram0").holders == 0


def test_old_tls_is_refused(house, context, certificates):
    client = house.connect(house.serve(tls=context)).greet()
    assert client.answer(p.OPT_STARTTLS) == p.REP_ACK
    old = ssl.create_default_context(cafile=certificates["ca-cert"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(client.sock, server_hostname="localhost")


def test_files_that_cannot_be_used_are_named(certificates, tmp_path):
    (tmp_path / "junk.pem").write_text("junk")
    for arguments, named in [
        ((tmp_path / "missing.pem",), "missing.pem"),
        ((tmp_path / "junk.pem",), "junk.pem"),
        ((certificates["server-cert"], certificates["client-key"]), "client-key.pem"),
        ((certificates["server-cert"], certificates["server-key"], tmp_path / "junk.pem"), "junk.pem"),
        ((certificates["server-cert"], certificates["server-key"], tmp_path / "missing.pem"), "missing.pem"),
    ]:
        with pytest.raises(InvalidValue, match=named) as caught:
            server_context(*arguments)
        assert caught.value.attribute == "tls"


def test_the_refusal_without_tls_says_what_to_do(house):
    listener = listen("tcp:0.0.0.0:0")
    with pytest.raises(InvalidValue, match="no TLS"):
        type(house.serve())(house.control, listener)
    listener.close()
