from __future__ import annotations

import importlib.metadata
import itertools
import logging
import subprocess
import sys
import textwrap
import threading
import timeit
import tomllib
import types
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

from zramcore.errors import DuplicateName
from zramcore.pluginmanager import load_plugins
from zramcore.pluginset import DISABLE_VARIABLE, EVENTS, HOOKS, TRIAL, PluginSet

ROOT = Path(__file__).parents[1]
WRITEBACK = {"device": "zram0", "mode": "idle", "pages": 3, "freed": 4096, "error": ""}

GOOD = """
    from zramcore.hookspecs import hookimpl

    class Good:
        name = "good"
        summary = "works"

    @hookimpl
    def zramcore_compressors():
        return [Good]
"""


class FakeDistribution(Distribution):
    """An installed distribution without files: a name, a version and entry points."""

    def __init__(self, name: str, **entries: str) -> None:
        self._texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
            "entry_points.txt": "[zramcore]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()),
        }

    def read_text(self, filename: str) -> str | None:
        return self._texts.get(filename)

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


MakeModule = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeModule]:
    """Writes a module under a fresh name and returns the name; forgets them all afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = itertools.count()
    names: list[str] = []

    def make(source: str) -> str:
        name = f"zplug_{tmp_path.name.replace('-', '_')}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        names.append(name)
        return name

    yield make
    for name in names:
        sys.modules.pop(name, None)


def entries(distribution: str, **values: str) -> list[EntryPoint]:
    return list(FakeDistribution(distribution, **values).entry_points)


def load_one(value: str) -> PluginSet:
    return load_plugins(entries("zram-one", one=value))


# Loading ------------------------------------------------------------------------------------------------------------


def test_built_ins_come_first_then_the_others_by_distribution_name(module: MakeModule) -> None:
    found = [
        *entries("Zebra", z=module(GOOD)),
        *entries("zram_B.c", b=module(GOOD)),
        *entries("zramcore", second=module(GOOD), first=module(GOOD)),
        *entries("zram-a", a=module(GOOD)),
    ]
    rows = load_plugins(found).rows
    assert [row.name for row in rows] == ["second", "first", "z", "a", "b"]
    assert [row.status for row in rows] == ["ok"] * 5
    assert rows[2].label == "z (Zebra 1.2)"


def test_a_row_says_where_the_plugin_comes_from_and_what_it_offers(module: MakeModule, tmp_path: Path) -> None:
    name = module(GOOD)
    (row,) = load_one(name).rows
    assert (row.name, row.distribution, row.version) == ("one", "zram-one", "1.2")
    assert row.origin == f"{name} ({tmp_path / name}.py)"
    assert [str(offer) for offer in row.provides] == ["compressors:good"]
    assert row.provides[0].summary == "works"
    assert (row.reason, row.traceback, row.warnings) == ("", "", [])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('no\\n  luck')", "import failed: ValueError: no luck"),
        ("import sys; sys.exit(3)", "import failed: SystemExit: 3"),
        (
            "import zramcore_missing_thing",
            "import failed: ModuleNotFoundError: No module named 'zramcore_missing_thing'",
        ),
        ("def broken(:", "import failed: SyntaxError: "),
        ("raise BaseException", "import failed: BaseException"),
        (
            "class Odd(Exception):\n    def __str__(self): raise TypeError\nraise Odd",
            "import failed: Odd: (its text cannot be read: TypeError)",
        ),
    ],
)
def test_an_import_that_raises_is_a_failed_row_and_the_rest_works(module: MakeModule, source: str, reason: str) -> None:
    broken = module(source)
    plugins = load_plugins([*entries("zram-a", bad=broken), *entries("zram-b", good=module(GOOD))])
    bad, good = plugins.rows
    assert bad.status == "failed"
    assert bad.reason.startswith(reason)
    assert broken in bad.traceback
    assert bad.file.endswith(f"{broken}.py")
    assert good.status == "ok"
    assert [offer.name for _, offer in plugins.offers("compressors")] == ["good"]


def test_an_interrupt_during_an_import_is_not_swallowed(module: MakeModule) -> None:
    name = module("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_one(name)


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("", "no hooks in it; mark its functions with @hookimpl"),
        (":number", "no hooks in it; mark its functions with @hookimpl"),
        (":nothing", " is None, not a module or an object with hooks"),
        (":Plugin", " is a class; name a module, or an instance of the class"),
        (":missing", "import failed: AttributeError: "),
    ],
)
def test_what_cannot_be_a_plugin_is_refused(module: MakeModule, suffix: str, reason: str) -> None:
    source = """
        from zramcore.hookspecs import hookimpl
        number = 5
        nothing = None
        class Plugin:
            @hookimpl
            def zramcore_compressors(self):
                return []
    """
    (row,) = load_one(module(source) + suffix).rows
    assert row.status == "failed"
    assert reason in row.reason


def test_an_object_of_a_class_can_be_a_plugin(module: MakeModule) -> None:
    source = """
        from zramcore.hookspecs import hookimpl
        class Plugin:
            def __init__(self, names):
                self.names = names
            @hookimpl
            def zramcore_policies(self):
                return [type(name, (), {"name": name}) for name in self.names]
        plugin = Plugin(["one", "two"])
    """
    plugins = load_one(module(source) + ":plugin")
    assert [str(offer) for offer in plugins.rows[0].provides] == ["policies:one", "policies:two"]
    assert plugins.rows[0].file.endswith(".py")


def test_a_value_that_is_no_entry_point_is_refused() -> None:
    (row,) = load_plugins([EntryPoint("bad", "not an entry!", "zramcore")]).rows
    assert row.status == "failed"
    assert row.reason == "'not an entry!' is not an entry point; write module or module:object"
    assert row.label == "bad"


def test_a_module_without_a_spec_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zram_made_up", types.ModuleType("zram_made_up"))
    (row,) = load_one("zram_made_up").rows
    assert (row.file, row.origin) == ("", "zram_made_up")
    assert row.reason.startswith("no hooks in it")


def test_the_same_object_twice_is_a_conflict(module: MakeModule) -> None:
    name = module(GOOD)
    first, second = load_plugins(entries("zram-one", a=name, b=name)).rows
    assert first.status == "ok"
    assert second.status == "conflict"
    assert second.reason == f"{name} is already loaded as a (zram-one 1.2)"


# Hooks --------------------------------------------------------------------------------------------------------------


def test_a_misspelled_hook_refuses_its_plugin_by_name(module: MakeModule) -> None:
    source = (
        GOOD
        + """
    @hookimpl
    def zramcore_polices():
        return []
    """
    )
    plugins = load_plugins([*entries("zram-a", bad=module(source)), *entries("zram-b", good=module(GOOD))])
    bad, good = plugins.rows
    assert bad.status == "failed"
    assert bad.reason == "unknown hook 'zramcore_polices'; did you mean 'zramcore_policies'?"
    assert bad.offers == []
    assert good.status == "ok"


def test_an_optional_hook_may_be_unknown(module: MakeModule) -> None:
    source = (
        GOOD
        + """
    @hookimpl(optionalhook=True)
    def zramcore_of_the_future():
        return []
    """
    )
    assert load_one(module(source)).rows[0].status == "ok"


def test_a_hook_without_marker_is_a_warning(module: MakeModule) -> None:
    source = (
        GOOD
        + """
    def zramcore_allocators():
        return []

    zramcore_version = "1.0"
    """
    )
    (row,) = load_one(module(source)).rows
    assert row.status == "ok"
    assert row.warnings == ["zramcore_allocators has no @hookimpl: it is never called"]


def test_a_plugin_whose_only_hook_lacks_the_marker_is_refused_saying_so(module: MakeModule) -> None:
    (row,) = load_one(module("def zramcore_allocators(): return []")).rows
    assert row.reason == "no hooks in it; zramcore_allocators has no @hookimpl: it is never called"


def test_wrong_arguments_refuse_the_plugin_and_say_the_right_ones(module: MakeModule) -> None:
    source = (
        GOOD
        + """
    @hookimpl
    def zramcore_device_initialized(device, size):
        pass
    """
    )
    (row,) = load_one(module(source)).rows
    assert row.status == "failed"
    assert "'size'" in row.reason
    assert row.reason.endswith("the arguments of zramcore_device_initialized are: device, disksize")
    assert (row.offers, row.observes) == ([], ())


def test_wrong_arguments_of_a_hook_without_arguments(module: MakeModule) -> None:
    source = """
        from zramcore.hookspecs import hookimpl
        @hookimpl
        def zramcore_compressors(config):
            return []
    """
    assert load_one(module(source)).rows[0].reason.endswith("zramcore_compressors takes no arguments")


def test_a_wrapper_is_refused_and_an_order_is_warned_about(module: MakeModule) -> None:
    wrapper = """
        from zramcore.hookspecs import hookimpl
        @hookimpl(wrapper=True)
        def zramcore_compressors():
            return (yield)
    """
    (row,) = load_one(module(wrapper)).rows
    assert row.reason == "hook 'zramcore_compressors' is a wrapper; each plugin is called alone, with nothing to wrap"
    (row,) = load_one(module(GOOD.replace("@hookimpl", "@hookimpl(tryfirst=True)"))).rows
    assert row.status == "ok"
    assert row.warnings == ["tryfirst and trylast of zramcore_compressors have no effect: the order is fixed"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('boom')", "zramcore_compressors raised RuntimeError: boom"),
        ("raise SystemExit(1)", "zramcore_compressors raised SystemExit: 1"),
        ("return 5", "zramcore_compressors raised TypeError: 'int' object is not iterable"),
        ("return None", "zramcore_compressors returned None, not a list"),
        ("yield 1; raise RuntimeError('late')", "zramcore_compressors raised RuntimeError: late"),
    ],
)
def test_a_registration_hook_that_fails_leaves_the_others(module: MakeModule, body: str, reason: str) -> None:
    source = f"""
        from zramcore.hookspecs import hookimpl
        @hookimpl
        def zramcore_compressors():
            {body}
        @hookimpl
        def zramcore_policies():
            return [type("Kept", (), dict(name="kept"))]
    """
    plugins = load_plugins([*entries("zram-a", bad=module(source)), *entries("zram-b", good=module(GOOD))])
    bad, good = plugins.rows
    assert (bad.status, bad.reason) == ("failed", reason)
    assert [str(offer) for offer in bad.provides] == ["policies:kept"]
    assert [str(offer) for offer in good.provides] == ["compressors:good"]


def test_an_interrupt_during_registration_is_not_swallowed(module: MakeModule) -> None:
    name = module(GOOD.replace("return [Good]", "raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        load_one(name)


def test_an_object_whose_hooks_cannot_be_read_is_refused(module: MakeModule) -> None:
    source = """
        class Odd:
            def __dir__(self):
                raise RuntimeError("no list")
        odd = Odd()
    """
    (row,) = load_one(module(source) + ":odd").rows
    assert (row.status, row.reason) == ("failed", "its hooks cannot be read: RuntimeError: no list")


# Switching off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["bad", " BAD ,", "Zram.A", "zram-a:bad", "other,zram_a"])
def test_a_plugin_is_switched_off_by_name_and_not_imported(
    module: MakeModule, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, variable)
    name = module(GOOD)
    bad, good = load_plugins([*entries("zram-a", bad=name), *entries("zram-b", good=module(GOOD))]).rows
    assert (bad.status, bad.reason) == ("disabled", "switched off by ZRAMCORE_DISABLE_PLUGINS")
    assert name not in sys.modules
    assert good.status == "ok"


def test_a_name_to_switch_off_that_nothing_has_is_warned_about(
    module: MakeModule, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "one,typo")
    assert load_one(module(GOOD)).rows[0].status == "disabled"
    assert [record.getMessage() for record in caplog.records] == [
        "ZRAMCORE_DISABLE_PLUGINS: no plugin or distribution is called 'typo'"
    ]


# Attributes and commands --------------------------------------------------------------------------------------------

ATTRIBUTES = """
    from types import SimpleNamespace
    from zramcore.hookspecs import hookimpl

    def show(device):
        return "1\\n"

    @hookimpl
    def zramcore_attributes():
        return [
            SimpleNamespace(name="fresh", mode="ro", show=show, store=None, summary="new"),
            SimpleNamespace(name="mm_stat", mode="ro", show=show, store=None, summary="taken"),
            SimpleNamespace(name="a/b", mode="ro", show=show, store=None, summary=""),
            SimpleNamespace(name="odd", mode="r", show=show, store=None, summary=""),
            SimpleNamespace(name="half", mode="rw", show=show, store=None, summary=""),
            "text",
        ]
"""


def test_attributes_are_checked_and_built_in_names_are_reserved(module: MakeModule) -> None:
    plugins = load_one(module(ATTRIBUTES))
    assert [attribute.name for attribute in plugins.extra_attributes] == ["fresh", "mm_stat"]
    plugins.reserve("attributes", ["disksize", "mm_stat"])
    plugins.reserve("attributes", ["disksize", "mm_stat"])
    assert [attribute.name for attribute in plugins.extra_attributes] == ["fresh"]
    reasons = [offer.error.reason for _, offer in plugins.offers("attributes") if offer.error]
    assert reasons == [
        "attribute 'mm_stat' is registered by zramcore and again by one (zram-one 1.2)",
        "attribute 'a/b' is not a file name",
        "attribute 'odd' has no mode",
        "attribute 'half' is rw but has no store function",
        "attribute \"'text'\" is not a file name",
    ]
    assert plugins.rows[0].status == "failed"


def test_an_attribute_of_two_plugins_stays_with_the_first(module: MakeModule) -> None:
    source = """
        from types import SimpleNamespace
        from zramcore.hookspecs import hookimpl
        @hookimpl
        def zramcore_attributes():
            return [SimpleNamespace(name="mine", mode="wo", store=print)]
    """
    plugins = load_plugins([*entries("zram-a", a=module(source)), *entries("zram-b", b=module(source))])
    first, second = plugins.rows
    assert list(plugins.extra_attributes) == [first.offers[0].value]
    assert second.status == "conflict"
    assert isinstance(second.problems[0], DuplicateName)
    assert "registered by a (zram-a 1.2) and again by b (zram-b 1.2)" in second.reason


def test_commands_are_checked_and_built_in_names_are_reserved(module: MakeModule) -> None:
    source = """
        import click
        from zramcore.hookspecs import hookimpl
        @click.command(short_help="Says hello.")
        def hello():
            click.echo("hello")
        @click.command()
        def run():
            "Taken by zramcore.\\n\\nMore text."
        @hookimpl
        def zramcore_cli_commands():
            return [hello, run, print, click.Command(None)]
    """
    plugins = load_one(module(source))
    plugins.reserve("cli_commands", ["run"])
    assert [command.name for command in plugins.cli_commands] == ["hello"]
    offers = plugins.rows[0].offers
    assert [offer.summary for offer in offers[:2]] == ["Says hello.", "Taken by zramcore."]
    assert [offer.error.reason for offer in offers if offer.error] == [
        "command 'run' is registered by zramcore and again by one (zram-one 1.2)",
        "<built-in function print> is not a click.Command",
        "a command has no name",
    ]


# Observers ----------------------------------------------------------------------------------------------------------

OBSERVER = """
    from zramcore.hookspecs import hookimpl
    seen = []

    @hookimpl
    def zramcore_writeback_done(pages, device):
        seen.append((device, pages))
        {body}
"""


def test_observers_are_told_one_by_one_and_one_that_raises_hurts_nobody(
    module: MakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    first, bad, last = (module(OBSERVER.format(body=body)) for body in ("", "raise KeyError('lost')", ""))
    plugins = load_plugins(
        [*entries("zram-a", first=first), *entries("zram-b", bad=bad), *entries("zram-c", last=last)]
    )
    assert [row.observes for row in plugins.rows] == [("writeback_done",)] * 3
    with caplog.at_level(logging.ERROR, "zramcore.plugins"):
        plugins.notify("writeback_done", **WRITEBACK)
        plugins.notify("writeback_done", **WRITEBACK)
    for name in (first, bad, last):
        assert sys.modules[name].seen == [("zram0", 3)] * 2
    assert [row.observer_errors for row in plugins.rows] == [0, 2, 0]
    assert plugins.rows[1].last_observer_error == "zramcore_writeback_done: KeyError: 'lost'"
    assert [row.status for row in plugins.rows] == ["ok", "failed", "ok"]
    assert plugins.rows[1].reason == ("its observers raised 2 times, last zramcore_writeback_done: KeyError: 'lost'")
    assert "raise KeyError" in plugins.rows[1].traceback
    assert [record.getMessage() for record in caplog.records] == [
        "plugin bad (zram-b 1.2): observer zramcore_writeback_done raised KeyError: 'lost'"
    ] * 2
    assert [record.exc_info is not None and record.exc_info[0] is KeyError for record in caplog.records] == [
        True,
        False,
    ]


def test_an_observer_cannot_end_the_program_but_the_user_can(
    module: MakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    plugins = load_one(module(OBSERVER.format(body="raise SystemExit(1)")))
    plugins.notify("writeback_done", **WRITEBACK)
    assert plugins.rows[0].last_observer_error == "zramcore_writeback_done: SystemExit: 1"
    plugins = load_one(module(OBSERVER.format(body="raise KeyboardInterrupt")))
    with pytest.raises(KeyboardInterrupt):
        plugins.notify("writeback_done", **WRITEBACK)
    assert len(caplog.records) == 1


def test_errors_of_observers_in_many_threads_are_all_counted(
    module: MakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    plugins = load_one(module(OBSERVER.format(body="raise OSError")))
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait(10)
        for _ in range(50):
            plugins.notify("writeback_done", **WRITEBACK)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plugins.rows[0].observer_errors == 200
    assert sum(record.exc_info is not None for record in caplog.records) == 1


def test_observers_can_be_tried_without_a_device(module: MakeModule, caplog: pytest.LogCaptureFixture) -> None:
    fine, bad = module(OBSERVER.format(body="")), module(OBSERVER.format(body="raise KeyError('lost')"))
    plugins = load_plugins([*entries("zram-a", fine=fine), *entries("zram-b", bad=bad)])
    plugins.try_observers()
    assert sys.modules[fine].seen == [("check", 1)]
    assert [row.observer_errors for row in plugins.rows] == [0, 1]
    assert caplog.records == []  # they are in the rows; nothing happened to a device
    assert {name for event in EVENTS for name in HOOKS[f"zramcore_{event}"]} == set(TRIAL)


def test_events_and_fields_must_be_those_of_a_hook(module: MakeModule) -> None:
    plugins = load_one(module(OBSERVER.format(body="")))
    with pytest.raises(ValueError, match="no hook zramcore_writeback_finished: the events are device_added"):
        plugins.notify("writeback_finished", **WRITEBACK)
    with pytest.raises(ValueError, match="no hook zramcore_compressors"):
        plugins.notify("compressors")
    with pytest.raises(
        TypeError, match="event writeback_done has the fields device, mode, pages, freed, error, not dev"
    ):
        plugins.notify("writeback_done", dev="zram0")


def test_every_event_reaches_an_observer_with_all_its_fields(module: MakeModule) -> None:
    source = "from zramcore.hookspecs import hookimpl\nseen = []\n"
    for event in EVENTS:
        arguments = HOOKS[f"zramcore_{event}"]
        source += f"@hookimpl\ndef zramcore_{event}({', '.join(arguments)}):\n"
        source += f"    seen.append(({event!r}, {', '.join(arguments)},))\n"
    name = module(source)
    plugins = load_one(name)
    for event in EVENTS:
        plugins.notify(event, **{argument: f"<{argument}>" for argument in HOOKS[f"zramcore_{event}"]})
    assert sys.modules[name].seen == [
        (event, *(f"<{argument}>" for argument in HOOKS[f"zramcore_{event}"])) for event in EVENTS
    ]
    assert plugins.rows[0].observes == EVENTS


def test_an_event_without_observers_costs_little_more_than_the_call() -> None:
    """Measured: 0.33 us; a pluggy call of no plugin is 3 us. A ratio holds on any machine, and under coverage too."""
    plugins = load_plugins([])

    def nothing(event: str, /, **fields: object) -> None:
        return None

    def best(notify: Callable[..., None]) -> float:
        return min(timeit.repeat(lambda: notify("writeback_done", **WRITEBACK), number=500, repeat=40))

    assert best(plugins.notify) < 6 * best(nothing)


# Installed metadata -------------------------------------------------------------------------------------------------


def install(folder: Path, name: str, entry_points: str, metadata: str | None = None) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_damaged_metadata_is_a_failed_row_and_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "zram_damaged", "[zramcore]\nthis line has no equals sign\n")
    install(tmp_path, "unrelated_damaged", "[other]\nthis line has no equals sign\n")
    (tmp_path / "zram_fine.py").write_text(textwrap.dedent(GOOD))
    install(tmp_path, "zram_fine", "[zramcore]\nfine = zram_fine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        rows = {row.distribution: row for row in load_plugins().rows}
    finally:
        sys.modules.pop("zram_fine", None)
    assert rows["zram_damaged"].status == "failed"
    assert rows["zram_damaged"].reason.startswith("its entry points cannot be read: ")
    assert rows["zram_fine"].status == "ok"
    assert "unrelated_damaged" not in rows


def test_a_nameless_distribution_is_loaded_after_the_built_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "zram_nameless", "[zramcore]\nanon = zram_nameless\n", metadata="Metadata-Version: 2.1\n")
    (tmp_path / "zram_nameless.py").write_text(textwrap.dedent(GOOD))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        rows = load_plugins().rows
    finally:
        sys.modules.pop("zram_nameless", None)
    assert rows[0].distribution == "zramcore"
    assert [row.label for row in rows if row.name == "anon" and row.status == "ok"] == ["anon"]


def test_of_two_copies_of_a_distribution_only_the_imported_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "front", "zram_twice", "[console_scripts]\n")
    install(tmp_path / "back", "zram_twice", "[zramcore]\ngone = zram_twice_gone\n")
    monkeypatch.syspath_prepend(str(tmp_path / "back"))
    assert [row.name for row in load_plugins().rows if row.distribution == "zram_twice"] == ["gone"]
    monkeypatch.syspath_prepend(str(tmp_path / "front"))
    assert [row.name for row in load_plugins().rows if row.distribution == "zram_twice"] == []


def test_the_same_plugins_further_down_the_path_are_not_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, entry in (("back", "old"), ("front", "new")):
        install(tmp_path / folder, "zram_twice", f"[zramcore]\n{entry} = zram_twice_gone\n")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert [row.name for row in load_plugins().rows if row.distribution == "zram_twice"] == ["new"]


def test_metadata_that_cannot_be_read_costs_the_name_only(module: MakeModule) -> None:
    class Unreadable(FakeDistribution):
        def read_text(self, filename: str) -> str | None:
            if filename == "entry_points.txt":
                return super().read_text(filename)
            raise UnicodeError(filename)

    (row,) = load_plugins(Unreadable("zram-one", one=module(GOOD)).entry_points).rows
    assert (row.label, row.status) == ("one", "ok")


def test_nothing_is_loaded_by_importing_zramcore() -> None:
    code = (
        "import sys, zramcore.pluginmanager, zramcore.registry\n"
        "print([name for name in ('zramcore_plugins', 'lz4', 'zstandard', 'click') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_pyproject_and_installed_metadata_and_plugin_packages_agree() -> None:
    """A new entry point is invisible until the editable install is repeated."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["zramcore"]
    metadata = importlib.metadata.distribution("zramcore").entry_points.select(group="zramcore")
    installed = {entry_point.name: entry_point.value for entry_point in metadata}
    assert installed == declared, "repeat: pip install -e ."
    folder = ROOT / "plugins" / "zramcore_plugins"
    packages = {f"zramcore_plugins.{path.parent.name}" for path in folder.glob("*/__init__.py")}
    assert set(declared.values()) == packages


def test_every_built_in_plugin_loads() -> None:
    rows = [row for row in load_plugins().rows if row.distribution == "zramcore"]
    assert len(rows) == 4
    assert [(row.name, row.reason) for row in rows if row.status != "ok"] == []
    assert all(row.provides and not row.warnings for row in rows)
