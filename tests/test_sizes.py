import pytest

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300KB", 300_000),
        ("1MB", 1_000_000),
        ("1.5mb", 1_500_000),
        (" 2 GB ", 2_000_000_000),
        ("1234", 1234),
        ("12B", 12),
        (1, 1),
    ],
)
def test_sizes_are_powers_of_ten(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["0", "0KB", "-1", "", "MB", "1TB", "1 000", "1e6", "nan", "inf", "0.4", "1KiB", "9" * 400],
)
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="not a size"):
        parse_size(text)


def test_sizes_for_people():
    assert [format_size(s) for s in (12, 1500, 2_340_000)] == ["12 B", "1.5 KB", "2.3 MB"]
