from dataclasses import dataclass

import pytest

from clockwork_experiments.config.parse import parse


@dataclass(frozen=True)
class Inner:
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size {self.size} is less than 1")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    scale: float = 1.0
    widths: tuple[int, ...] = ()
    pair: tuple[int, int] = (1, 2)
    maybe: str | None = None
    by_id: dict[str, Inner] | None = None


GOOD = {"name": "a", "inner": {"size": 2}}


def test_parses_nested_data_and_json():
    spec = parse(
        Outer, {**GOOD, "scale": 2, "widths": [1, 2], "by_id": {"x": GOOD["inner"]}}
    )
    assert spec == Outer("a", Inner(2), 2.0, (1, 2), (1, 2), None, {"x": Inner(2)})
    assert parse(Outer, '{"name": "a", "inner": {"size": 2}}') == Outer("a", Inner(2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**GOOD, "nmae": 1}, "unknown key 'nmae' in spec; known are name, inner"),
        ({"name": "a"}, "spec lacks the key 'inner'"),
        ({**GOOD, "inner": {"size": 0}}, r"spec\.inner: size 0 is less than 1"),
        ({**GOOD, "inner": {"size": "2"}}, r"spec\.inner\.size must be of type int"),
        ({**GOOD, "inner": {"size": True}}, "must be of type int, not True"),
        ({**GOOD, "widths": 3}, r"spec\.widths must be a list, not 3"),
        ({**GOOD, "pair": [1, 2, 3]}, r"spec\.pair must have 2 items, not 3"),
        ("[1]", r"spec must be a mapping, not \[1\]"),
        ("{", "spec is not valid JSON"),
    ],
)
def test_bad_data_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        parse(Outer, data)
