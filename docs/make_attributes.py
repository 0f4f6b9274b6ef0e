"""Print docs/attributes.md, from the attribute table: ``python docs/make_attributes.py > docs/attributes.md``."""

from zramcore.attributes import ATTRIBUTES, Attribute

HEAD = """\
# Attributes

Every setting and every figure of a device is a text attribute with the kernel's name, format and errno. Read one and
write one with a script (`zramcore exec`, see [exec.md](exec.md)), a config file ([config.md](config.md)), or
`zramcore.attributes.show` and `store` in Python. Behaviour is that of Linux 7.3.4; "since" is the kernel version that
has the attribute, a dash marks our own. This page is generated: `python docs/make_attributes.py`.

Order: `comp_algorithm`, `recomp_algorithm`, then `algorithm_params`, then `allocator`, `backing_dev` and
`compressed_writeback`, then `disksize`; the others at any time. After `disksize` the former fail with EBUSY until
`reset`, which forgets them all except `writeback_limit`, `writeback_limit_enable`, `writeback_batch_size` and
`compressed_writeback`.

The class attributes `hot_add` (reading creates a device and gives its number) and `hot_remove` (writing a number
removes that device) are those of /sys/class/zram-control, since 4.2. What `idle_histogram` and `writeback_preview` show
is in [insight.md](insight.md); dictionaries for `algorithm_params` are in [dict.md](dict.md).

| attribute | mode | since | what it does |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = "".join(
        f"| [`{name}`](#{name}) | {attribute.mode} | {attribute.since} | {_cell(attribute.summary)} |\n"
        for name, attribute in ATTRIBUTES.items()
    )
    sections = "".join(
        f"\n## {name}\n\n{attribute.summary}\n\n"
        f"Mode {attribute.mode}; since {_since(attribute.since)}.{_difference(attribute)}\n"
        for name, attribute in ATTRIBUTES.items()
    )
    return HEAD + rows + sections


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _difference(attribute: Attribute) -> str:
    if attribute.differs:
        return f" How ours differs: {attribute.differs}"
    return "" if attribute.since == "-" else " Ours does not differ."


def _since(version: str) -> str:
    return "zramcore 0.1, not in the kernel" if version == "-" else f"Linux {version}"


if __name__ == "__main__":
    print(page(), end="")
