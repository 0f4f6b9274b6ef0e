"""The control API through a real daemon: the tree of sysfs, our own resources, errors, clients at once."""

import errno
import http.client
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from zramcore.attributes import ATTRIBUTES
from zramcore.daemon.api import MOST_CHANGES
from zramcore.daemon.client import Client, NoDaemon
from zramcore.errors import ZramError


def http_request(running, method, path, body=None, headers=None):
    """Status, headers and body, without our client in between."""
    connection = http.client.HTTPConnection("localhost")
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(str(running.socket))
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return response.status, dict(response.getheaders()), response.read()


def create(client, name="disk", **device):
    return client.create(name, {"disksize": "4M", **device}, [], "/")


def refused(client, *arguments, **options):
    with pytest.raises(ZramError) as caught:
        create(client, *arguments, **options)
    return caught.value


# The tree of sysfs


def test_a_device_is_made_used_and_removed_as_in_sysfs(running, client):
    assert http_request(running, "GET", "/sys/class/zram-control/hot_add")[2] == b"0\n"
    assert http_request(running, "POST", "/sys/class/zram-control/hot_add")[2] == b"1\n"
    assert http_request(running, "GET", "/sys/block/")[2] == b"zram0\nzram1\n"
    status, headers, _ = http_request(running, "PUT", "/sys/block/zram1/disksize", "8M\n")
    assert status == 200
    assert http_request(running, "GET", "/sys/block/zram1/disksize")[2] == b"8388608\n"
    status, headers, text = http_request(running, "GET", "/sys/block/zram1/mm_stat")
    assert text == b"       0 " * 8 + b"       0\n"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert http_request(running, "PUT", "/sys/class/zram-control/hot_remove", "0")[0] == 200
    assert client.info()["devices"] == ["zram1"]


def test_the_attributes_are_listed_and_nul_bytes_survive(running, client):
    create(client, recomp_algorithm=["algo=lz4 priority=1", "algo=zstd priority=2"])
    names = http_request(running, "GET", "/sys/block/disk/")[2].decode().split()
    assert set(ATTRIBUTES) <= set(names)
    assert "\0" in client.show("disk", "recomp_algorithm")


def test_a_label_and_the_kernels_name_are_the_same_device(client):
    create(client)
    client.store("disk", "mem_limit", "1M")
    assert client.show("zram0", "mm_stat") == client.show("disk", "mm_stat")
    assert client.show("zram0", "mm_stat").split()[3] == str(1 << 20)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "name"),
    [
        ("GET", "/sys/block/zram9/mm_stat", None, 404, "ENODEV"),
        ("GET", "/sys/block/disk/mm_stats", None, 404, "ENOENT"),
        ("GET", "/sys/block/disk/reset", None, 403, "EACCES"),
        ("PUT", "/sys/block/disk/mm_stat", "1", 403, "EACCES"),
        ("PUT", "/sys/block/disk/disksize", "8M", 409, "EBUSY"),
        ("PUT", "/sys/block/disk/idle", "sometimes", 400, "EINVAL"),
        ("PUT", "/sys/block/disk/writeback", "idle", 404, "ENODEV"),
        ("PUT", "/sys/block/disk/recomp_algorithm", "algo=" + "x" * 200, 413, "E2BIG"),
        ("PUT", "/sys/class/zram-control/hot_remove", "7", 404, "ENODEV"),
        ("PUT", "/sys/class/zram-control/hot_remove", "x", 400, "EINVAL"),
        ("GET", "/sys/class/zram-control/hot_remove", None, 403, "EACCES"),
        ("PUT", "/sys/class/zram-control/hot_add", "1", 403, "EACCES"),
        ("HEAD", "/sys/class/zram-control/hot_add", None, 405, None),
        ("DELETE", "/sys/block/disk", None, 405, "EOPNOTSUPP"),
        ("GET", "/nothing/here", None, 404, "ENOENT"),
        ("GET", "/sys/block/disk/../../etc", None, 404, "ENOENT"),
        ("POST", "/devices", "{", 400, "EINVAL"),
        ("POST", "/devices", "[]", 400, "EINVAL"),
        ("POST", "/devices", '{"name": "x", "size": 1}', 400, "EINVAL"),
        ("PUT", "/devices/disk/policies", '{"name": "idle"}', 400, "EINVAL"),
        ("PUT", "/devices/disk/policies", '[{"name": "nope"}]', 400, "EINVAL"),
        ("PUT", "/devices/disk/policies", '[{"name": "idle"}]', 400, "EINVAL"),
        ("GET", "/devices/disk/map?cells=0", None, 400, "EINVAL"),
        ("GET", "/reload", None, 400, "EINVAL"),
    ],
)
def test_errors_have_the_kernels_errno_and_a_fitting_status(running, client, method, path, body, status, name):
    create(client)
    answered, headers, text = http_request(running, method, path, body)
    assert answered == status
    if name is None:
        assert text == b""
    else:
        error = json.loads(text)
        assert error["name"] == name
        assert error["errno"] == getattr(errno, name)
        assert error["message"]
        assert set(error) == {"errno", "name", "message", "attribute", "value", "hint"}
    if status == 405:
        assert headers["Allow"]
    assert client.info()["devices"] == ["zram0"]


def test_an_error_names_attribute_and_hint_and_the_client_raises_it(client):
    create(client)
    with pytest.raises(ZramError) as caught:
        client.store("disk", "comp_algorithm", "zstd")
    error = caught.value
    assert (error.errno, error.attribute, error.value) == (errno.EBUSY, "comp_algorithm", "zstd")
    assert "reset first" in error.hint


def test_a_body_that_is_too_long_is_refused(running, client):
    create(client)
    assert http_request(running, "PUT", "/sys/block/disk/idle", "x" * 70_000)[0] == 413


def test_head_is_get_without_its_body(running, client):
    create(client)
    status, headers, text = http_request(running, "HEAD", "/sys/block/disk/disksize")
    assert (status, headers["Content-Length"], text) == (200, "8", b"")


# Creating and removing


def test_create_makes_what_it_says(client, tmp_path):
    made = client.create(
        "swap",
        {
            "disksize": "16M",
            "comp_algorithm": "zstd",
            "backing_dev": "file:b.img,size=1M",
            "mem_limit": "2M",
            "policy": [{"name": "idle", "age": "1h"}],
        },
        ["unix:swap.sock"],
        str(tmp_path),
    )
    assert (made["name"], made["label"], made["origin"], made["disksize"]) == ("zram0", "swap", "create", 16 << 20)
    assert made["comp_algorithm"] == "zstd"
    assert made["mm_stat"]["mem_limit"] == 2 << 20
    assert made["backing_dev"] == f"file:{tmp_path}/b.img,size=1M"
    assert [(policy["name"], policy["options"]) for policy in made["policies"]] == [("idle", {"age": "1h"})]
    assert [f"socket={tmp_path}/swap.sock" in uri for uri in made["nbd"]] == [False, True]
    client.remove("swap")
    assert os.listdir(tmp_path) == ["b.img"]
    assert client.devices() == []


@pytest.mark.parametrize(
    ("keys", "name", "attribute"),
    [
        ({"comp_algorithm": "nope"}, "EINVAL", "comp_algorithm"),
        ({"disksize": "lots"}, "EINVAL", "disksize"),
        ({"mem_limt": "1M"}, "EINVAL", "mem_limt"),
        ({"compressed_writeback": "yes"}, "EINVAL", "compressed_writeback"),
        ({"backing_dev": "file:/nonexistent/b.img,size=1M"}, "EINVAL", "backing_dev"),
        ({"policy": [{"name": "none", "colour": "red"}]}, "EINVAL", "policy[0].colour"),
        ({"image": {"load": "/nonexistent"}}, "EINVAL", "image.load"),
    ],
)
def test_a_failed_create_leaves_nothing(client, tmp_path, keys, name, attribute):
    error = refused(client, **{"backing_dev": f"file:{tmp_path}/b.img,size=1M", **keys})
    assert (error.errno_name, error.attribute) == (name, attribute)
    assert os.listdir(tmp_path) == []
    assert client.devices() == []


def test_a_policy_that_writes_back_needs_a_backing_device(client):
    error = refused(client, policy=[{"name": "idle"}])
    assert (error.errno_name, error.attribute) == ("EINVAL", "policy[0]")
    assert client.devices() == []


def test_a_failed_create_leaves_no_socket_and_no_backing_file(client, tmp_path):
    device = {"disksize": "1M", "backing_dev": "file:b.img,size=1M"}
    for nbd in (["unix:a.sock", "tcp:0.0.0.0:0"], ["unix:a.sock", "udp:1"], ["unix:a.sock", "unix:missing/b.sock"]):
        with pytest.raises(ZramError) as caught:
            client.create("x", device, nbd, str(tmp_path))
        assert caught.value.attribute == "nbd"
        assert os.listdir(tmp_path) == []
    assert client.devices() == []


def test_names_are_never_two_devices(client):
    create(client, "swap")
    assert refused(client, "swap").errno == errno.EEXIST
    assert refused(client, "zram0").errno == errno.EEXIST
    assert refused(client, "zram5").errno == errno.EINVAL
    assert refused(client, "a/b").errno == errno.EINVAL
    create(client, "zram1")
    assert [(device["name"], device["label"]) for device in client.devices()] == [("zram0", "swap"), ("zram1", "zram1")]


@pytest.mark.parametrize("text", ["7", "x"])
def test_what_hot_remove_refuses_names_it(running, text):
    body = http_request(running, "PUT", "/sys/class/zram-control/hot_remove", text)[2]
    error = json.loads(body)
    assert (error["attribute"], error["value"]) == ("hot_remove", text)


def test_a_hot_removed_device_leaves_its_name_free(client):
    create(client, "swap")
    client.request("PUT", "/sys/class/zram-control/hot_remove", b"0")
    create(client, "swap")
    assert len(client.devices()) == 1


def test_the_nbd_server_of_a_device_goes_with_it_however_it_goes(client, tmp_path):
    for way in ("hot_remove", "remove"):
        made = client.create("swap", {"disksize": "1M"}, ["unix:own.sock"], str(tmp_path))
        assert len(made["nbd"]) == 2
        assert os.listdir(tmp_path) == ["own.sock"]
        if way == "remove":
            client.remove("swap")
        else:
            client.request("PUT", "/sys/class/zram-control/hot_remove", b"0")
        assert os.listdir(tmp_path) == []
        assert len(create(client, "other")["nbd"]) == 1
        client.remove("other")


def test_an_image_is_saved_by_remove_and_not_when_told(client, tmp_path):
    image = {"image": {"save": str(tmp_path / "disk.img")}}
    create(client, **image)
    assert client.remove("disk", save=False) is None
    assert os.listdir(tmp_path) == []
    create(client, **image)
    assert client.remove("disk") == 0
    assert (tmp_path / "disk.img").stat().st_size == 4 << 20


# Policies and the map


def test_policies_are_replaced_and_removed(client, tmp_path):
    create(client, backing_dev=f"file:{tmp_path}/b.img,size=1M")
    assert client.policies("disk") == []
    (policy,) = client.set_policies("disk", [{"name": "idle", "options": {"age": 30, "mode": "huge_idle"}}])
    assert policy["options"] == {"age": "30", "mode": "huge_idle"}
    with pytest.raises(ZramError) as caught:
        client.set_policies("disk", [{"name": "none"}, {"name": "idle", "options": {"age": "soon"}}])
    assert caught.value.errno == errno.EINVAL
    assert [policy["name"] for policy in client.policies("disk")] == ["idle"]
    client.request("DELETE", "/devices/disk/policies")
    assert client.policies("disk") == []


def test_the_map_counts_every_slot(client):
    create(client)
    drawn = client.slot_map("disk", 10)
    assert drawn["slots"] == 1024
    assert drawn["slots_per_cell"] == 103
    assert [sum(counts) for counts in drawn["counts"]] == [103] * 9 + [97]
    assert drawn["totals"]["empty"] == 1024


# Clients at once


def test_many_clients_at_once_get_their_own_answers(running, client):
    for number in range(4):
        create(client, f"disk{number}", mem_limit=f"{number + 1}M")
    start = threading.Barrier(8)

    def look(worker):
        with running.client() as mine:
            start.wait(30)
            limits = [mine.show(f"disk{(worker + turn) % 4}", "mm_stat").split()[3] for turn in range(20)]
            return limits == [str(((worker + turn) % 4 + 1) << 20) for turn in range(20)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(8)))


def test_changes_at_once_make_one_device_each(running, client):
    def make(number):
        with running.client() as mine:
            return create(mine, f"disk{number}")["name"]

    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(make, range(6)))
    assert sorted(names) == [f"zram{number}" for number in range(6)]
    assert MOST_CHANGES > 6


def test_a_client_that_goes_away_midway_hurts_nobody(running, client):
    create(client)
    for text in (
        b"GET /sys/blo",
        b"PUT /sys/block/disk/idle HTTP/1.1\r\nContent-Length: 100\r\n\r\nall",
        b"\0\xff\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(running.socket))
            rude.sendall(text)
    assert client.show("disk", "initstate") == "1\n"


def test_no_daemon_is_said_with_how_to_start_one(tmp_path):
    path = str(tmp_path / "none.sock")
    with pytest.raises(NoDaemon) as caught:
        Client(path).devices()
    assert caught.value.hint == f"start one: zramcore daemon --socket {path}"
