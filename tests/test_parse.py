"""The kernel's parsers against vectors measured on Linux 7.3.4 and against obvious models."""

import shlex
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore import parse
from zramcore.errors import InvalidValue, OutOfRange

STEADY = settings(deadline=None, derandomize=True)

U64 = 2**64


class TestMemparse:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            # disksize and mem_limit answers of transcripts 01a and 01c, before rounding to pages
            ("1", 1),
            ("4097", 4097),
            ("1K", 1 << 10),
            ("1k", 1 << 10),
            ("1M", 1 << 20),
            ("1g", 1 << 30),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
            ("1E", 1 << 60),
            ("1MB", 1 << 20),
            ("1 M", 1),
            ("1M ", 1 << 20),
            ("1.5M", 1),
            ("0x100000", 1 << 20),
            ("010000", 4096),
            ("12junk", 12),
            ("1Mjunk", 1 << 20),
            ("0", 0),
            ("0K", 0),
            ("", 0),
            ("foo", 0),
            ("-1", 0),
            (" 1M", 0),
            ("10M\n", 10 << 20),
            # from the source of simple_strtoull
            ("0x", 0),
            ("0xK", 0),
            ("0X1fK", 0x1F << 10),
            ("0x1e", 0x1E),
            ("08", 0),
            ("019", 1),
            ("1\x002", 1),
        ],
    )
    def test_vectors(self, text: str, value: int) -> None:
        assert parse.memparse(text) == value

    @pytest.mark.parametrize("text", ["", "foo", "-1", " 1M", "\n"])
    def test_no_number_is_einval_where_it_matters(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            parse.memparse_checked(text)

    def test_a_bare_suffix_counts_as_read(self) -> None:
        assert parse.memparse_rest("K\n") == (0, "\n")
        assert parse.memparse_checked("K\n") == 0

    def test_overflow_wraps(self) -> None:
        assert parse.memparse("18446744073709551616") == 0
        assert parse.memparse("16E") == 0
        assert parse.memparse("17E") == 1 << 60
        assert parse.memparse("0xfffffffffffffffff") == U64 - 1

    @STEADY
    @given(st.integers(0, 2**80), st.sampled_from(["", *"KMGTPEkmgtpe"]), st.sampled_from(["{}", "{:#x}", "0{:o}"]))
    def test_against_a_model(self, number: int, suffix: str, form: str) -> None:
        if form == "{:#x}" and suffix.lower() == "e":
            return  # an E after hexadecimal digits is one of them
        shift = " kmgtpe".index(suffix.lower() or " ") * 10
        text = form.format(number) + suffix
        assert parse.memparse_rest(text + " tail") == ((number << shift) % U64, " tail")

    @STEADY
    @given(st.text())
    def test_never_raises_and_consumes_a_prefix(self, text: str) -> None:
        value, rest = parse.memparse_rest(text)
        assert 0 <= value < U64
        assert text.split("\0")[0].endswith(rest)


class TestKstrto:
    @pytest.mark.parametrize(
        ("text", "value"), [("0", 0), ("1\n", 1), ("+7", 7), ("007", 7), ("18446744073709551615", U64 - 1)]
    )
    def test_decimal(self, text: str, value: int) -> None:
        assert parse.kstrtoull(text) == value

    @pytest.mark.parametrize(
        "text", ["", "\n", "+", "-1", " 1", "1 ", "1\n\n", "0x1", "1M", "foo", "1.5", "++1", "+-1", "\u0663", "1_0"]
    )
    def test_not_a_number(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            parse.kstrtoull(text)

    @pytest.mark.parametrize("text", ["18446744073709551616", "99999999999999999999", "99999999999999999999junk"])
    def test_too_big_for_64_bits(self, text: str) -> None:
        with pytest.raises(OutOfRange):
            parse.kstrtoull(text)

    def test_widths(self) -> None:
        assert parse.kstrtou16("65535") == 65535
        assert parse.kstrtouint("4294967295") == 2**32 - 1
        assert parse.kstrtoint("-2147483648") == -(2**31)
        assert parse.kstrtoll("-9223372036854775808") == -(2**63)
        for read, text in (
            (parse.kstrtou16, "65536"),
            (parse.kstrtouint, "4294967296"),
            (parse.kstrtoint, "2147483648"),
            (parse.kstrtoint, "-2147483649"),
            (parse.kstrtoll, "9223372036854775808"),
        ):
            with pytest.raises(OutOfRange):
                read(text)

    @pytest.mark.parametrize(("text", "value"), [("0x1", 1), ("010", 8), ("0", 0), ("10", 10), ("0XfF\n", 255)])
    def test_base_0_reads_the_prefix(self, text: str, value: int) -> None:
        assert parse.kstrtouint(text, 0) == value

    @pytest.mark.parametrize("text", ["0x", "08", "0xg", "1s", "all"])
    def test_base_0_bad(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            parse.kstrtouint(text, 0)

    def test_signed_takes_one_sign(self) -> None:
        assert parse.kstrtoint("-5\n") == -5
        assert parse.kstrtoint("-0") == 0
        for text in ("--5", "-+5", "+-5", "-"):
            with pytest.raises(InvalidValue):
                parse.kstrtoint(text)

    @STEADY
    @given(st.integers(-(2**70), 2**70), st.sampled_from([16, 32, 64]), st.booleans(), st.sampled_from(["", "\n"]))
    def test_against_int(self, number: int, bits: int, signed: bool, end: str) -> None:
        text = f"{number}{end}"
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        if number < 0 and not signed:
            with pytest.raises(InvalidValue):
                parse.kstrto(text, bits=bits, signed=signed)
        elif low <= number <= high:
            assert parse.kstrto(text, bits=bits, signed=signed) == number
        else:
            with pytest.raises(OutOfRange):
                parse.kstrto(text, bits=bits, signed=signed)

    @STEADY
    @given(st.text(alphabet="0123456789abcxXf+-\n \0", max_size=8), st.sampled_from([0, 8, 10, 16]))
    def test_only_zram_errors_come_out(self, text: str, base: int) -> None:
        try:
            value = parse.kstrto(text, base)
        except (InvalidValue, OutOfRange):
            return
        digits = text.split("\0")[0].removesuffix("\n").removeprefix("+")
        assert value == int(digits, base if base != 0 else (8 if digits[:1] == "0" and digits[1:2] not in "xX" else 0))


class TestKstrtobool:
    @pytest.mark.parametrize("text", ["yes", "1", "y", "on", "true", "100000", "Y\n", "ON", "T", "enabled"])
    def test_true(self, text: str) -> None:
        assert parse.kstrtobool(text) is True

    @pytest.mark.parametrize("text", ["no", "0", "n", "off", "foo", "False", "oF", "disable"])
    def test_false(self, text: str) -> None:
        assert parse.kstrtobool(text) is False

    @pytest.mark.parametrize("text", ["", "\n", "-1", "32", "64", "4294967296", "o", "ox", " 1"])
    def test_neither(self, text: str) -> None:
        with pytest.raises(InvalidValue):
            parse.kstrtobool(text)


class TestSysfsStreq:
    @pytest.mark.parametrize(("text", "same"), [("all", True), ("all\n", True), ("all\n\n", False), (" all", False)])
    def test_all(self, text: str, same: bool) -> None:
        assert parse.sysfs_streq(text, "all") is same

    @STEADY
    @given(st.text(alphabet="ab\n", max_size=4), st.text(alphabet="ab\n", max_size=4))
    def test_against_the_c_loop(self, left: str, right: str) -> None:
        assert parse.sysfs_streq(left, right) == _streq_as_in_c(left, right)


def _streq_as_in_c(left: str, right: str) -> bool:
    s1, s2 = left + "\0\0", right + "\0\0"
    i = 0
    while s1[i] != "\0" and s1[i] == s2[i]:
        i += 1
    if s1[i] == s2[i]:
        return True
    if s1[i] == "\0" and s2[i] == "\n" and s2[i + 1] == "\0":
        return True
    return s1[i] == "\n" and s1[i + 1] == "\0" and s2[i] == "\0"


class TestNextArgs:
    @pytest.mark.parametrize(
        ("text", "arguments"),
        [
            ("", []),
            ("  \n", []),
            ("huge", [("huge", None)]),
            (" huge\n", [("huge", None)]),
            ("type=huge page_index=9\n", [("type", "huge"), ("page_index", "9")]),
            ("page_index= 3", [("page_index", ""), ("3", None)]),
            ("page_indexes=1-2", [("page_indexes", "1-2")]),
            ("algo=zstd=x", [("algo", "zstd=x")]),
            ('dict="/a b" level=3', [("dict", "/a b"), ("level", "3")]),
            ('"dict=/a b" level=3', [("dict", "/a b"), ("level", "3")]),
            ('"a b"', [("a b", None)]),
            ('dict="/a b', [("dict", "/a b")]),
            ('dict=/a" "b', [("dict", '/a" "b')]),
            ("=x", [("=x", None)]),
            ("=x=y", [("=x", "y")]),
            ("a=1\0b=2", [("a", "1")]),
        ],
    )
    def test_vectors(self, text: str, arguments: list[tuple[str, str | None]]) -> None:
        assert parse.next_args(text) == arguments

    @STEADY
    @given(
        st.lists(st.text(alphabet=string.ascii_letters + "=_", min_size=1).filter(lambda w: w[0] != "="), max_size=5)
    )
    def test_plain_words_against_shlex(self, words: list[str]) -> None:
        text = "  ".join(words)
        model = [
            (key, value if equals else None) for key, equals, value in (w.partition("=") for w in shlex.split(text))
        ]
        assert parse.next_args(text) == model

    @STEADY
    @given(st.text(alphabet='ab=" \n', max_size=12))
    def test_ends_on_any_text(self, text: str) -> None:
        for key, value in parse.next_args(text):
            assert key in text
            assert value is None or value in text
