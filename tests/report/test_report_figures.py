"""Figures are SVG that reads, and show the numbers at their places."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from kitae.report.figures import PANEL, Panel, Point, box_plots, curves, left_of
from kitae.report.svg import Scale, shortened, spanning, width_of

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "</text><script>x</script>\x1b&"


def shapes(picture: str, name: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    found = [dict(item.attrib) | {"text": item.text or ""} for item in root.iter(f"{SVG}{name}")]
    for item in found:
        for key, value in item.items():
            if key in ("x", "x1", "x2", "cx"):
                assert -0.1 <= float(value) <= width + 0.1, f"{name} leaves the picture"
            if key in ("y", "y1", "y2", "cy"):
                assert -0.1 <= float(value) <= height + 0.1, f"{name} leaves the picture"
    return found


def test_a_box_is_the_middle_half_and_far_values_are_rings() -> None:
    values = [5.0, 10.0, 11.0, 12.0, 13.0, 14.0, 30.0]
    picture = box_plots("times", [Panel(title="training, s", groups={"a": values, "b": [12.5]})])
    left = left_of(["a", "b"])
    scale = spanning([*values, 12.5], left, left + PANEL, zero=True)
    (box,) = [item for item in shapes(picture, "rect") if item["fill"] != "white"]
    first, third = np.quantile(values, (0.25, 0.75))
    assert float(box["x"]) == pytest.approx(scale(first), abs=0.06)
    assert float(box["x"]) + float(box["width"]) == pytest.approx(scale(third), abs=0.11)
    dots = shapes(picture, "circle")
    assert len(dots) == 8
    assert [float(dot["cx"]) for dot in dots if dot["fill"] == "white"] == pytest.approx([scale(5.0), scale(30.0)], abs=0.06)
    whiskers = sorted(float(x) for item in shapes(picture, "line") if item["y1"] == dots[0]["cy"] for x in (item["x1"], item["x2"]))
    assert whiskers == pytest.approx([scale(10.0), scale(first), scale(third), scale(14.0)], abs=0.06)
    (median,) = [item for item in shapes(picture, "line") if item["stroke-width"] == "2.5"]
    assert float(median["x1"]) == pytest.approx(scale(12.0), abs=0.06)


def test_few_values_have_no_box_but_their_median() -> None:
    picture = box_plots("times", [Panel(title="s", groups={"two": [10.0, 20.0], "one": [15.0], "four": [1.0, 2.0, 3.0, 40.0]})])
    assert [item for item in shapes(picture, "rect") if item["fill"] != "white"] == []
    assert len([item for item in shapes(picture, "line") if item["stroke-width"] == "2.5"]) == 2
    dots = shapes(picture, "circle")
    assert len(dots) == 7
    assert all(dot["fill"] != "white" for dot in dots), "of so few none is far"
    left = left_of(["four"])
    scale = spanning([1.0, 40.0], left, left + PANEL, log=True)
    assert [float(dot["cx"]) for dot in dots[-4:]] == pytest.approx([scale(value) for value in (1.0, 2.0, 3.0, 40.0)], abs=0.06)


@pytest.mark.parametrize("name", ["\u65e5\u672c\u8a9e\u30e2\u30c7\u30eb", "bert-base-japanese-whole-word-masking"])
def test_names_of_usual_length_are_shown_whole(name: str) -> None:
    point = Point(count=10, value=0.5, low=0.4, high=0.6)
    for picture in (box_plots("t", [Panel(title="s", groups={name: [1.0]})]), curves("t", {name: [point]}, x="x", y="y")):
        assert name in [item["text"] for item in shapes(picture, "text")]


def test_long_names_are_cut_where_they_are_alike() -> None:
    one, two = (f"{x}{'-and-so-on' * 20}{y}" for x, y in (("first", "a"), ("other", "b")))
    assert shortened(one, 200).startswith("first-and-so")
    assert shortened(two, 200).endswith("-so-onb")
    assert "..." in shortened(one, 200)


def test_times_far_apart_stand_on_a_logarithmic_axis() -> None:
    far = box_plots("times", [Panel(title="s", groups={"majority": [0.02], "large": [300.0, 310.0]})])
    near = box_plots("times", [Panel(title="s", groups={"majority": [200.0], "large": [300.0, 310.0]})])
    assert "logarithmic" in far
    assert "logarithmic" not in near
    zero = box_plots("times", [Panel(title="s", groups={"majority": [0.0], "large": [300.0]})])
    assert "logarithmic" not in zero


def test_curves_show_every_point_with_its_interval_and_labels_that_do_not_meet() -> None:
    series = {
        f"encoder {k}": [Point(count=n, value=0.8 + k / 1000, low=0.75, high=0.85) for n in (10, 30, 100, 300, 736)] for k in range(5)
    }
    series["majority"] = [Point(count=736, value=0.2, low=0.15, high=0.25)]
    picture = curves("kyoto", series, x="training examples", y="accuracy")
    assert len(shapes(picture, "circle")) == 26
    assert len(shapes(picture, "polyline")) == 5
    texts = shapes(picture, "text")
    assert {"10", "30", "100", "300", "736", "majority"} <= {item["text"] for item in texts}
    places = sorted(float(item["y"]) for item in texts if item["text"].startswith("encoder"))
    assert min(np.diff(places)) >= 14.9
    dots = [(float(dot["cx"]), float(dot["cy"])) for dot in shapes(picture, "circle")]
    assert max(y for _, y in dots) == dots[-1][1], "the lowest score stands lowest"


def test_the_axis_ends_where_the_score_does() -> None:
    series = {"a": [Point(count=10, value=0.3, low=0.0, high=0.7), Point(count=100, value=0.9, low=0.6, high=1.0)]}

    def ticks(picture: str) -> tuple[dict[str, float], float]:
        """Heights of the labels of the axis, and of its foot."""
        axis = [item for item in shapes(picture, "line") if item["x1"] == item["x2"] and item["x1"] == "64.0"]
        said = [item for item in shapes(picture, "text") if item["text-anchor"] == "end"]
        return {item["text"]: float(item["y"]) - 4 for item in said}, max(float(item["y2"]) for item in axis)

    free, foot = ticks(curves("t", series, x="x", y="y"))
    assert foot - free["0"] > 5, "below 0 there is air"
    picture = curves("t", series, x="x", y="y", within=(0.0, 1.0))
    cut, foot = ticks(picture)
    assert cut["0"] == pytest.approx(foot)
    assert cut["1"] == min(cut.values())
    high = cut["1"] - cut["0"]
    bars = [item for item in shapes(picture, "line") if item["stroke-width"] == "1.2" and item["x1"] == item["x2"]]
    ends = [(float(item["y1"]) - cut["0"], float(item["y2"]) - cut["0"]) for item in bars]
    assert ends[0] == pytest.approx((0, 0.7 * high), abs=0.11)
    assert ends[1] == pytest.approx((0.6 * high, high), abs=0.11)
    assert [float(dot["cy"]) - cut["0"] for dot in shapes(picture, "circle")] == pytest.approx([0.3 * high, 0.9 * high], abs=0.11)


def test_more_lines_than_colors_differ_by_their_dashes() -> None:
    series = {f"encoder {k}": [Point(count=n, value=k / 30, low=0.0, high=1.0) for n in (10, 100)] for k in range(20)}
    picture = curves("t", series, x="x", y="y")
    lines = shapes(picture, "polyline")
    looks = [(item["stroke"], item.get("stroke-dasharray", "")) for item in lines]
    assert len(lines) == 40, "every name has a piece of its line beside it"
    assert len(set(looks)) == 20
    places = sorted(float(item["y"]) for item in shapes(picture, "text") if item["text"].startswith("encoder"))
    assert min(np.diff(places)) >= 14.9


@pytest.mark.parametrize("name", [NASTY, "\u65e5\u672c\u8a9e" * 30, "x" * 400, ""])
def test_names_cannot_break_out(name: str) -> None:
    point = Point(count=1, value=0.5, low=0.5, high=0.5)
    for picture in (box_plots(name, [Panel(title=name, groups={name: [1.0]})]), curves(name, {name: [point]}, x=name, y=name)):
        assert not list(ElementTree.fromstring(picture).iter(f"{SVG}script"))
        shapes(picture, "text")
    assert width_of(shortened(name, 100)) <= 100


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        box_plots("x", [Panel(title="y", groups={"a": []})])
    with pytest.raises(ValueError, match="nothing to draw"):
        curves("x", {"a": []}, x="", y="")


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.93, 0.95), (0.0, 12345.0), (-0.2, 0.6), (5.0, 5.5)])
def test_ticks_are_round_and_few(span: tuple[float, float]) -> None:
    ticks = Scale(low=span[0], high=span[1], start=0, end=100).ticks()
    assert 3 <= len(ticks) <= 8
    assert all(span[0] - 1e-9 <= tick <= span[1] + 1e-9 for tick in ticks)
    logarithmic = Scale(low=0.01, high=2000, start=0, end=100, log=True)
    assert logarithmic.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])
    assert logarithmic(0.01) == 0
    assert logarithmic(2000) == pytest.approx(100)
    assert logarithmic(20) == pytest.approx(100 * np.log(2000) / np.log(200000))
