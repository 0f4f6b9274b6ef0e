"""Deployments: reading and merging, every kind of mistake with its file, key and hint, and the order of the writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zramcore import config as config_module
from zramcore.attributes import ATTRIBUTES, Attribute
from zramcore.config import ACTIONS, ORDER, Write, check, check_file, load_config, plan
from zramcore.config.model import DEVICE_KEYS, IMAGE_KEYS
from zramcore.config.target import TARGET_KEYS
from zramcore.config.use import USE_KEYS
from zramcore.errors import ConfigError
from zramcore.interfaces import Catalogue, PolicyTarget, Tick, WritebackPolicy
from zramcore.kernel import KernelControl
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.testing.sysfs import make_sysfs

FULL = """
[device.zram0]
writeback_limit_enable = true
writeback_limit = 1000
mem_limit = "512M"
disksize = "2G"
compressed_writeback = false
backing_dev = "file:zram0.img,size=1M"
allocator = "zsmalloc"
algorithm_params = ["algo=zstd level=3", "priority=1 level=9"]
recomp_algorithm = "algo=deflate priority=1"
comp_algorithm = "zstd"
writeback_batch_size = 64
workers = 2

[device.zram0.image]
load = "disk.img"
save = "out/disk.img"
optional = true

[[device.zram0.policy]]
name = "idle"
age = "2h"

[[device.zram0.policy]]
name = "huge"
period = 900

[device.zram1]
disksize = 1048576
page_size = 16384
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(load_plugins())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "test.toml"


def problems_of(file: Path, text: str, catalogue: Catalogue) -> list[ConfigError]:
    file.write_text(text)
    return check_file(file, catalogue)[1]


def one_problem(file: Path, text: str, catalogue: Catalogue) -> ConfigError:
    problems = problems_of(file, text, catalogue)
    assert len(problems) == 1, [str(problem) for problem in problems]
    assert problems[0].file == str(file)
    assert str(problems[0]).startswith(f"{file}: {problems[0].key}: ")
    return problems[0]


# Reading ----------------------------------------------------------------------------------------------------------


def test_a_full_deployment(file: Path, catalogue: Catalogue) -> None:
    file.write_text(FULL)
    config = load_config(file)
    assert check(config, catalogue) == []
    first, second = config.devices
    assert (first.name, first.page_size, second.name, second.page_size) == ("zram0", 4096, "zram1", 16384)
    assert first.image is not None
    assert (first.image.load, first.image.save) == (file.parent / "disk.img", file.parent / "out/disk.img")
    assert first.image.optional
    assert [(policy.name, dict(policy.options)) for policy in first.policies] == [
        ("idle", {"age": "2h"}),
        ("huge", {"period": "900"}),
    ]
    assert second.image is None
    assert not (file.parent / "zram0.img").exists()


def test_writes_are_planned_in_the_kernels_order_whatever_the_files(file: Path) -> None:
    file.write_text(FULL)
    backing = f"file:{file.parent}/zram0.img,size=1M"
    assert plan(load_config(file)) == [
        Write("zram0", "comp_algorithm", "zstd"),
        Write("zram0", "recomp_algorithm", "algo=deflate priority=1"),
        Write("zram0", "algorithm_params", "algo=zstd level=3"),
        Write("zram0", "algorithm_params", "priority=1 level=9"),
        Write("zram0", "allocator", "zsmalloc"),
        Write("zram0", "backing_dev", backing),
        Write("zram0", "compressed_writeback", "0"),
        Write("zram0", "disksize", "2G"),
        Write("zram0", "mem_limit", "512M"),
        Write("zram0", "workers", "2"),
        Write("zram0", "writeback_batch_size", "64"),
        Write("zram0", "writeback_limit", "1000"),
        Write("zram0", "writeback_limit_enable", "1"),
        Write("zram1", "disksize", "1048576"),
    ]


def test_every_attribute_that_can_be_written_has_its_place_or_is_an_action() -> None:
    writable = {name for name, attribute in ATTRIBUTES.items() if "w" in attribute.mode}
    assert writable == set(ORDER) | set(ACTIONS)
    assert not set(ORDER) & set(ACTIONS)
    assert not set(ATTRIBUTES) & set(DEVICE_KEYS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[device.zram0\n", r"is not TOML: .*line 1"),
        ("[device.zram0]\ndisksize = 1\ndisksize = 2\n", r"is not TOML: .*line 3"),
        ("", "declares no device"),
        ("device = 3\n", "is not a table"),
        ("[device]\nzram0 = 3\n", "is not a table"),
        ('[device."a/b"]\ndisksize = 1\n', "is not a name for a device"),
    ],
)
def test_what_is_no_deployment(file: Path, catalogue: Catalogue, text: str, reason: str) -> None:
    problems = problems_of(file, text, catalogue)
    assert len(problems) == 1
    assert re.match(reason, problems[0].reason)
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    assert str(raised.value) == str(problems[0])


def test_files_that_cannot_be_read(tmp_path: Path, catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8: byte 5 is 0xe9"):
        load_config(tmp_path / "latin.toml")


# Drop-ins ---------------------------------------------------------------------------------------------------------


def test_drop_ins_merge_in_order_of_their_names(file: Path, catalogue: Catalogue) -> None:
    file.write_text(FULL)
    drop_ins = file.parent / "test.toml.d"
    drop_ins.mkdir()
    (drop_ins / "20-late.toml").write_text('[device.zram0]\nmem_limit = "1G"\ncomp_algorithm = "lz4"\n')
    (drop_ins / "10-early.toml").write_text(
        '[device.zram0]\nmem_limit = "2G"\nbacking_dev = "file:b.img,size=1M"\nalgorithm_params = []\n'
        'recomp_algorithm = []\n[device.zram0.image]\nsave = "saved.img"\n'
        '[[device.zram0.policy]]\nname = "none"\n[device.extra]\ndisksize = "1M"\n'
    )
    (drop_ins / "30-ignored.txt").write_text("not toml")
    config = load_config(file)
    assert [path.name for path in config.files] == ["test.toml", "10-early.toml", "20-late.toml"]
    assert check(config, catalogue) == []
    writes = {write.attribute: write.value for write in plan(config) if write.device == "zram0"}
    assert writes["mem_limit"] == "1G"
    assert writes["comp_algorithm"] == "lz4"
    assert writes["backing_dev"] == f"file:{drop_ins}/b.img,size=1M"
    assert writes["disksize"] == "2G"
    assert "algorithm_params" not in writes
    first = config.devices[0]
    assert first.image is not None
    assert (first.image.load, first.image.save) == (file.parent / "disk.img", drop_ins / "saved.img")
    assert [policy.name for policy in first.policies] == ["none"]
    assert [device.name for device in config.devices] == ["zram0", "zram1", "extra"]


def test_a_problem_names_the_drop_in_that_has_it(file: Path, catalogue: Catalogue) -> None:
    file.write_text('[device.zram0]\ndisksize = "1M"\n')
    drop_in = file.parent / "test.toml.d" / "a.toml"
    drop_in.parent.mkdir()
    drop_in.write_text('[device.zram0]\nmem_limt = "1M"\n')
    _, problems = check_file(file, catalogue)
    assert [(problem.file, problem.key) for problem in problems] == [(str(drop_in), "device.zram0.mem_limt")]


def test_a_table_does_not_replace_a_value(file: Path) -> None:
    file.write_text('[device.zram0]\ndisksize = "1M"\n')
    drop_in = file.parent / "test.toml.d" / "a.toml"
    drop_in.parent.mkdir()
    drop_in.write_text("[device.zram0.disksize]\nbytes = 3\n")
    with pytest.raises(ConfigError, match=rf"device\.zram0\.disksize: is a table here and a value in {file}"):
        load_config(file)


# Mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    # keys
    ("disksiz = '1M'", "disksiz", "is not a key of a device", "did you mean 'disksize'?"),
    ("mm_stat = 3", "mm_stat", "is read-only", "orig_data_size"),
    ("idle = 'all'", "idle", "is an action and not a setting", "policy"),
    ("writeback = 'huge'", "writeback", "is an action and not a setting", "policy"),
    ("recompress = 'type=idle'", "recompress", "is an action and not a setting", "policy"),
    ("reset = 1", "reset", "is an action and not a setting", ""),
    ("compact = 1", "compact", "is an action and not a setting", ""),
    ("mem_used_max = 0", "mem_used_max", "is an action and not a setting", ""),
    ("polcy = [{name = 'idle'}]", "polcy", "is a list, not the value of an attribute", "did you mean 'policy'?"),
    ("imag = {load = 'x'}", "imag", "is a table, not the value of an attribute", "did you mean 'image'?"),
    ("mem_limit = 1979-05-27", "mem_limit", "is a date or time, not the value", ""),
    ("page_size = 8192", "page_size", "is 8192, not a page size", "4096, 16384, 65536"),
    ("page_size = true", "page_size", "is true, not a page size", ""),
    # types
    ("mem_limit = true", "mem_limit", "is true, not a size", "512M"),
    ("mem_limit = 1.5", "mem_limit", "is 1.5, not a size", ""),
    ("mem_limit = -1", "mem_limit", "is -1, out of range", ""),
    ("mem_limit = ['1M', '2M']", "mem_limit", "is a list, but it is written once", "one value"),
    ("mem_limit = 'lots'", "mem_limit", "'lots' is not a size", ""),
    ("mem_limit = '1.5M'", "mem_limit", "'1.5M' would be read as 1 bytes", ""),
    ("writeback_limit = '1000'", "writeback_limit", "is '1000', not a whole number", "without quotes"),
    ("writeback_limit = -5", "writeback_limit", "is -5, out of range", ""),
    ("writeback_limit_enable = 'yes'", "writeback_limit_enable", "is 'yes', not true or false", ""),
    ("compressed_writeback = 2", "compressed_writeback", "is 2, not true or false", ""),
    ("writeback_batch_size = 0", "writeback_batch_size", "a batch has at least 1 page", ""),
    ("workers = 0", "workers", "workers is 1 to 1024", "1: every request on its own thread alone"),
    ("comp_algorithm = 3", "comp_algorithm", "is 3, not text", "quotes"),
    ("comp_algorithm = ''", "comp_algorithm", "is empty", ""),
    # names and values
    ("comp_algorithm = 'zsdt'", "comp_algorithm", "there is no compression algorithm 'zsdt'", "did you mean 'zstd'?"),
    ("allocator = 'zsmaloc'", "allocator", "there is no allocator 'zsmaloc'", "did you mean 'zsmalloc'?"),
    ("recomp_algorithm = 'zstd'", "recomp_algorithm", "'zstd' needs a value", ""),
    ("recomp_algorithm = ['algo=lz4', 'algo=lz5 priority=2']", "recomp_algorithm[1]", "'lz5'", "did you mean 'lz4'?"),
    ("recomp_algorithm = 'algo=lz4 priority=4'", "recomp_algorithm", "priority 4 is not one of 1, 2, 3", ""),
    ("algorithm_params = 'algo=lz4hc level=3'", "algorithm_params", "'lz4hc' is not chosen for any priority", ""),
    ("comp_algorithm='zstd'\nalgorithm_params = 'level=99'", "algorithm_params", "99", ""),
    ("algorithm_params = 'dict=absent.dict'", "algorithm_params", "absent.dict cannot be read", ""),
    ("backing_dev = 'absent.img'", "backing_dev", "cannot open /", "file:PATH,size=64M"),
    ("backing_dev = 'fiel:a.img,size=1M'", "backing_dev", "there is no backing driver 'fiel'", "did you mean 'file'?"),
    ("backing_dev = 'file:a.img,size'", "backing_dev", "option 'size' has no value", ""),
    ("backing_dev = 'file:a.img,siz=1M'", "backing_dev", "has no option 'siz'", "did you mean 'size'?"),
    ("backing_dev = 'file:no/such/a.img,size=1M'", "backing_dev", "no/such does not exist", ""),
    # images
    ("image = 'disk.img'", "image", "is 'disk.img', not a table", "[device.NAME.image]"),
    ("image = {}", "image", "names no file", ""),
    ("image = {laod = 'x', save = 'x'}", "image.laod", "is not a key of an image", "did you mean 'load'?"),
    ("image = {load = 3}", "image.load", "is 3, not a path", ""),
    ("image = {load = 'absent'}", "image.load", "absent does not exist", "optional = true"),
    ("image = {load = '.'}", "image.load", "is not a plain file", ""),
    ("image = {load = 'big'}", "image.load", "has 1048577 bytes, the device 1048576", "raise disksize"),
    ("image = {load = 'big', optional = 'no'}", "image.optional", "is 'no', not true or false", ""),
    ("image = {save = 'x', optional = true}", "image.optional", "means nothing without load", ""),
    ("image = {save = 'no/such/x'}", "image.save", "no/such does not exist", ""),
    ("image = {save = '.'}", "image.save", "is not a plain file", ""),
    # policies
    ("policy = 'idle'", "policy", "is 'idle', not a list of tables", "[[device.NAME.policy]]"),
    ("policy = {name = 'none'}", "policy", "is a table, not a list of tables", "[[device.NAME.policy]]"),
    ("policy = [{age = '3h'}]", "policy[0]", "has no name", 'name = "idle"'),
    ("policy = [{name = 3}]", "policy[0]", "has a name that is 3, not text", ""),
    ("policy = [{name = 'none'}, {name = 'idel'}]", "policy[1]", "no policy 'idel'", "did you mean 'idle'?"),
    ("policy = [{name = 'idle'}]", "policy[0]", "policy idle writes pages back, but the device has no backing_dev", ""),
    ("policy = [{name = 'none', ages = 3}]", "policy[0].ages", "policy none has no option 'ages'", ""),
    ("policy = [{name = 'idle', age = 'soon'}]", "policy[0].age", "age=soon: not a duration", "3h"),
    ("policy = [{name = 'idle', agee = '3h'}]", "policy[0].agee", "no option 'agee'", "did you mean 'age'?"),
    ("policy = [{name = 'idle', age = ['3h']}]", "policy[0].age", "is a list, not the value of an option", ""),
]


@pytest.mark.parametrize(("line", "key", "reason", "hint"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_mistakes(file: Path, catalogue: Catalogue, line: str, key: str, reason: str, hint: str) -> None:
    (file.parent / "big").write_bytes(bytes((1 << 20) + 1))
    problems = problems_of(file, f"[device.zram0]\ndisksize = '1M'\n{line}\n", catalogue)
    (problem,) = [problem for problem in problems if problem.key == f"device.zram0.{key}"]
    assert reason in problem.reason
    assert hint in problem.hint
    # a wrong shape may leave its table empty, which is said too; nothing else may be
    assert len(problems) <= 2
    assert all(other.key.startswith(f"device.zram0.{key.partition('.')[0]}") for other in problems)


@pytest.mark.parametrize("size", ["'0'", "0", "'G'"])
def test_a_disksize_of_nothing(file: Path, catalogue: Catalogue, size: str) -> None:
    problem = one_problem(file, f"[device.zram0]\ndisksize = {size}\n", catalogue)
    assert problem.key == "device.zram0.disksize"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("mem_limit = '1M'", "mem_limit"),
        ("writeback_limit = 3", "writeback_limit"),
        ("image = {save = 'x'}", "image"),
        ("policy = [{name = 'none'}]", "policy[0]"),
    ],
)
def test_what_comes_after_disksize_needs_it(file: Path, catalogue: Catalogue, line: str, key: str) -> None:
    problem = one_problem(file, f"[device.zram0]\ncomp_algorithm = 'lz4'\n{line}\n", catalogue)
    assert problem.key == f"device.zram0.{key}"
    assert problem.reason == "comes after disksize, which this device does not set"


def test_a_device_may_be_left_uninitialised(file: Path, catalogue: Catalogue) -> None:
    assert problems_of(file, "[device.zram0]\ncomp_algorithm = 'lz4'\n", catalogue) == []


def test_an_unknown_table(file: Path, catalogue: Catalogue) -> None:
    text = "[device.zram0]\ndisksize = '1M'\n[devices.zram1]\ndisksize = '1M'\n"
    problem = one_problem(file, text, catalogue)
    assert (problem.key, problem.reason) == ("devices", "is not a key of a deployment")
    assert "did you mean 'device'?" in problem.hint


def test_all_problems_are_found_in_one_go(file: Path, catalogue: Catalogue) -> None:
    text = "[device.a]\ndisksize = 'x'\nfoo = 1\n[device.b]\ndisksize = '1M'\npolicy = [{name = 'idle'}]\n"
    keys = [problem.key for problem in problems_of(file, text, catalogue)]
    assert sorted(keys) == ["device.a.disksize", "device.a.foo", "device.b.policy[0]"]


def test_devices_do_not_share_files(file: Path, catalogue: Catalogue) -> None:
    one = "disksize = '1M'\nbacking_dev = 'file:b.img,size=1M'\nimage = {save = 'i'}\n"
    two = "disksize = '1M'\nbacking_dev = 'file:./out/../b.img,size=1M'\nimage = {save = './i'}\n"
    problems = problems_of(file, f"[device.a]\n{one}[device.b]\n{two}", catalogue)
    assert [problem.key for problem in problems] == ["device.b.backing_dev", "device.b.image.save"]
    assert all("of device a already" in problem.reason for problem in problems)


def test_sizes_as_the_kernel_reads_them(file: Path, catalogue: Catalogue) -> None:
    for size in ("'1MB'", "'1MiB'", "'0x100000'", "'4096k'", "4096", "'1'"):
        assert problems_of(file, f"[device.zram0]\ndisksize = {size}\n", catalogue) == []


def test_a_dictionary_is_relative_to_its_file(file: Path, catalogue: Catalogue) -> None:
    (file.parent / "words.dict").write_bytes(b"slot handle page " * 100)
    text = "[device.zram0]\ndisksize = '1M'\ncomp_algorithm = 'zstd'\nalgorithm_params = 'level=3 dict=words.dict'\n"
    assert problems_of(file, text, catalogue) == []
    writes = {write.attribute: write.value for write in plan(load_config(file))}
    assert writes["algorithm_params"] == f"level=3 dict={file.parent}/words.dict"


def test_checking_touches_nothing(file: Path, catalogue: Catalogue) -> None:
    file.write_text(FULL)
    before = sorted(file.parent.rglob("*"))
    assert check_file(file, catalogue)[1] == []
    assert sorted(file.parent.rglob("*")) == before


# Plugins ----------------------------------------------------------------------------------------------------------


class _Explosive(WritebackPolicy):
    """Cannot be made, and not by an error of ours."""

    name = "explosive"

    def __init__(self, options: object) -> None:
        raise KeyError("ouch")

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        return Tick()


class _Foreign(WritebackPolicy):
    """Writes an attribute that a plugin brings."""

    name = "foreign"
    writes = ("colour",)

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        return Tick()


@pytest.fixture
def extended(catalogue: Catalogue) -> Catalogue:
    policies = {**catalogue.policies, "explosive": _Explosive, "foreign": _Foreign}
    return Catalogue(catalogue.compressors, catalogue.allocators, catalogue.backing_drivers, policies)


def test_a_policy_that_cannot_be_made(file: Path, extended: Catalogue) -> None:
    text = "[device.zram0]\ndisksize = '1M'\npolicy = [{name = 'explosive'}]\n"
    problem = one_problem(file, text, extended)
    assert problem.reason == "policy explosive cannot be set up: KeyError: 'ouch'"


def test_attributes_of_plugins_are_keys_and_written_last(file: Path, extended: Catalogue) -> None:
    def never(device: object, text: str) -> None:
        raise AssertionError("checking must not write a plugin's attribute")

    colour = Attribute("colour", None, never, "-", "Its colour.")
    text = "[device.zram0]\ncolour = ['red', 'blue']\ndisksize = '1M'\npolicy = [{name = 'foreign'}]\n"
    problems = problems_of(file, text, extended)
    assert [problem.key for problem in problems] == ["device.zram0.colour", "device.zram0.policy[0]"]
    assert "policy foreign writes colour, which devices do not have" in problems[1].reason
    assert check_file(file, extended, {**ATTRIBUTES, "colour": colour})[1] == []
    assert [(write.attribute, write.value) for write in plan(load_config(file))] == [
        ("disksize", "1M"),
        ("colour", "red"),
        ("colour", "blue"),
    ]


def test_without_any_plugin(file: Path) -> None:
    problems = problems_of(file, "[device.zram0]\ndisksize = '1M'\n", Catalogue({}, {}, {}))
    assert [problem.reason for problem in problems] == ["no compressor or no allocator is installed"]


# The page that describes them -------------------------------------------------------------------------------------

DOC = Path(__file__).parent.parent / "docs" / "config.md"


def test_every_key_is_documented_and_nothing_else() -> None:
    documented = set(re.findall(r"^### `([a-z_.]+)`", DOC.read_text(), re.MULTILINE))
    keys = {*ORDER, *USE_KEYS, *TARGET_KEYS, "page_size", *(f"image.{key}" for key in IMAGE_KEYS), "policy.name"}
    assert documented == keys


def test_the_examples_of_the_page_are_right(tmp_path: Path, catalogue: Catalogue) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", DOC.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= len(ORDER)
    kernel = KernelControl(sysfs=make_sysfs(tmp_path / "sys"))
    kernel.target("zram0").store("initstate", "1")
    (tmp_path / "words.dict").write_bytes(b"slot handle page " * 100)
    for number, example in enumerate(examples):
        text = example.replace("/var/tmp/", f"{tmp_path}/").replace("/etc/zramcore/", f"{tmp_path}/")
        file = tmp_path / f"example{number}.toml"
        # an example without a heading is about the keys of one device
        file.write_text(text if "[device." in text else f"[device.zram0]\n{_with_disksize(text)}")
        assert [str(problem) for problem in check_file(file, catalogue, kernel=kernel)[1]] == []
        config = load_config(file)
        assert plan(config) or config.devices[0].target.device


def _with_disksize(text: str) -> str:
    return text if "disksize" in text else f'disksize = "1G"\n{text}'


def test_the_package_says_what_it_exports() -> None:
    assert all(hasattr(config_module, name) for name in config_module.__all__)


def test_the_options_of_the_built_in_policies_are_documented(catalogue: Catalogue) -> None:
    rows: dict[str, set[str]] = {}
    policy = ""
    for name, option in re.findall(r"^\| (?:`([a-z]+)`)? ?\| (?:`([a-z]+)`)? ?\|", DOC.read_text(), re.MULTILINE):
        policy = name or policy
        rows.setdefault(policy, set()).update({option} - {""})
    assert rows == {name: {option.name for option in catalogue.policies[name].options} for name in rows}
    assert set(rows) == {"idle", "huge", "none"}
