"""Query lists, pairs and result files."""

import numpy as np
import pycolmap
import pytest
from hypothesis import given, strategies as st

from hloc_dpqed.errors import InputError
from hloc_dpqed.io import lists
from hloc_dpqed.io.lists import (
    read_lines,
    read_pairs,
    read_poses,
    read_queries,
    result_name,
    write_poses,
)

MODELS = [m for m in pycolmap.CameraModelId.__members__ if m != "INVALID"]
PINHOLE = "PINHOLE 640 480 500 500 320 240"


def written(tmp_path, text, name="list.txt", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def camera_of(model: str) -> pycolmap.Camera:
    """Some valid camera of each model."""
    count = next(
        n
        for n in range(1, 20)
        if pycolmap.Camera(model=model, width=640, height=480, params=[1.0] * n).verify_params()
    )
    return pycolmap.Camera(
        model=model, width=640, height=480, params=[500.0 + k for k in range(count)]
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_camera_model_is_read(tmp_path, model):
    camera = camera_of(model)
    params = " ".join(map(str, camera.params))
    path = written(tmp_path, f"a/q.jpg {model} 640 480 {params}\n")
    ((name, read),) = read_queries(path)
    assert name == "a/q.jpg"
    assert (read.model.name, read.width, read.height) == (model, 640, 480)
    np.testing.assert_array_equal(read.params, camera.params)


@pytest.mark.parametrize(
    "name",
    [
        "q.jpg",
        "a/b/q.jpg",
        "with space.jpg",
        "two  spaces/and more.jpg",
        "Straße/été 夜.jpg",
        "PINHOLE.jpg",
        "a PINHOLE b.jpg",
        "OPENCV PINHOLE",
        "line\u2028separator.jpg",
    ],
)
def test_names_of_queries(tmp_path, name):
    path = written(tmp_path, f"{name} {PINHOLE}\n")
    assert [n for n, _ in read_queries(path)] == [name]


def test_blank_lines_comments_windows_line_ends_and_byte_order_mark(tmp_path):
    text = f"\ufeffa.jpg {PINHOLE}\r\n\r\n# c.jpg {PINHOLE}\r\n  \r\n  b.jpg {PINHOLE}  "
    assert [n for n, _ in read_queries(written(tmp_path, text))] == ["a.jpg", "b.jpg"]


def test_patterns(tmp_path):
    for name in ("night", "day"):
        written(tmp_path, f"{name}.jpg {PINHOLE}\n", f"{name}_list.txt")
    names = [n for n, _ in read_queries(tmp_path / "*_list.txt")]
    assert names == ["day.jpg", "night.jpg"]
    odd = written(tmp_path, f"odd.jpg {PINHOLE}\n", "odd[1].txt")
    assert [n for n, _ in read_queries(odd)] == ["odd.jpg"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "holds no query"),
        ("# only a comment", "holds no query"),
        ("q.jpg", "no known camera model"),
        ("q.jpg NOT_A_MODEL 640 480 500 320 240", "no known camera model"),
        ("q.jpg INVALID 640 480", "no known camera model"),
        (PINHOLE, "no known camera model"),  # the name is missing
        ("q.jpg PINHOLE", "bad intrinsics"),
        ("q.jpg PINHOLE 640", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480 500 500 320", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480 500 500 320 240 1", "bad intrinsics"),
        ("q.jpg PINHOLE 0 480 500 500 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE -640 480 500 500 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE 640.5 480 500 500 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480 nan 500 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480 500 inf 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE 640 480 500 x 320 240", "bad intrinsics"),
        ("q.jpg PINHOLE 99999999999999999999999 480 500 500 320 240", "bad intrinsics"),
    ],
)
def test_bad_queries(tmp_path, line, told):
    path = written(tmp_path, f"\n{line}\n")
    with pytest.raises(InputError, match=told) as error:
        read_queries(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("read", [read_queries, read_pairs, read_poses])
def test_files_that_cannot_be_read(tmp_path, read):
    for path, told in [
        (tmp_path / "absent.txt", "no such file"),
        (tmp_path, "no such file"),
        (written(tmp_path, "épée.jpg x", encoding="latin-1"), "not UTF-8"),
    ]:
        with pytest.raises(InputError, match=told) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_lines_are_numbered_as_in_the_file(tmp_path):
    path = written(tmp_path, "\n# x\na\r\n\nb")
    assert read_lines(path, "text") == [(3, "a"), (5, "b")]


def test_pairs(tmp_path):
    path = written(tmp_path, "q1 b\nq1 a\r\n\nq2 a\nq1 b\n")
    assert read_pairs(path) == {"q1": ["b", "a"], "q2": ["a"]}


def test_pairs_of_names_with_spaces(tmp_path):
    known = ["q 1.jpg", "p"], ["db 1.jpg", "a.jpg"]
    path = written(tmp_path, "q 1.jpg db 1.jpg\np a.jpg\np db 1.jpg\nq 1.jpg gone.jpg\n")
    assert read_pairs(path, *known) == {
        "q 1.jpg": ["db 1.jpg", "gone.jpg"],
        "p": ["a.jpg", "db 1.jpg"],
    }
    # Another list's query with a known reference.
    path = written(tmp_path, "other q.jpg db 1.jpg\n")
    assert read_pairs(path, *known) == {"other q.jpg": ["db 1.jpg"]}


@pytest.mark.parametrize("line", ["one", "a b c", "q 1.jpg x q"])
def test_bad_pairs(tmp_path, line):
    path = written(tmp_path, f"q a\n{line}\n")
    with pytest.raises(InputError, match=r":2: expected two image names"):
        read_pairs(path, ["q", "q 1.jpg"], ["x q", "1.jpg x q"] if line.startswith("q") else [])


def test_scores_of_pairs(tmp_path):
    """A third column of numbers; the order stays that of the file."""
    text = "q1 b 0.9\nq1 a 1e-3\r\nq2\ta\t7\nq 3.jpg b .5\nq1 c nan\n"
    expected = {"q1": ["b", "a", "c"], "q2": ["a"], "q 3.jpg": ["b"]}
    assert read_pairs(written(tmp_path, text), ["q1", "q2", "q 3.jpg"], "abc") == expected
    plain = text.replace("q 3.jpg", "q3")
    assert read_pairs(written(tmp_path, plain)) == {
        k.replace("q 3.jpg", "q3"): v for k, v in expected.items()
    }
    # A name may end with a number, and have a score behind it.
    known = ["q"], ["db 1", "db 2"]
    text = "q db 1\nq db 2 0.5\n"
    assert read_pairs(written(tmp_path, text), *known) == {"q": ["db 1", "db 2"]}


@pytest.mark.parametrize(
    ("scores", "warned"), [((3, 2, 2, 1), 0), ((1, 2, 3, 3), 0), ((1, 3, 2, 4), 1)]
)
def test_scores_in_no_order_are_told_once(tmp_path, monkeypatch, scores, warned):
    told: list[str] = []
    monkeypatch.setattr(lists.logger, "warning", told.append)
    lines = [f"{q} {r} {s}\n" for q in "pq" for r, s in zip("abcd", scores, strict=True)]
    path = written(tmp_path, "".join(lines))
    assert read_pairs(path) == {"p": list("abcd"), "q": list("abcd")}
    assert len(told) == warned
    assert all("'p'" in line and "in the order of the file" in line for line in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q a\nq,a\n", ":2: .*commas"),
        ("q,a\n", ":1: .*commas"),
        ("q, a\n", ":1: commas between the names, expected `query reference` with a space"),
        ("q, a, 0.5\n", ":1: commas between the names"),
        ("q;a\n", ":1: .*semicolons"),
        ("q; a\n", ":1: semicolons between the names"),
        ("q a 0.5.1\n", ":1: expected two image names, found three words, and .* '0.5.1', is not"),
        ("other x\na q\nb q\n", ":2: a database image and then a query, .* the wrong way round"),
        ("a q 0.5\nb q 0.4\n", ":1: a database image and then a query, .* the wrong way round"),
        ("db 1 q 2\n", "the wrong way round"),
    ],
)
def test_other_forms_of_pairs_are_named(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=told) as error:
        read_pairs(path, ["q", "q 2"], ["a", "b", "db 1"])
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_names_with_commas_and_images_that_are_queries_too(tmp_path):
    path = written(tmp_path, "q,1 a,b\nq,1 a\n")
    assert read_pairs(path, ["q,1"], ["a,b", "a"]) == {"q,1": ["a,b", "a"]}
    path = written(tmp_path, "a b\nb a\n")  # leaving one out
    assert read_pairs(path, ["a", "b"], ["a", "b"]) == {"a": ["b"], "b": ["a"]}
    path = written(tmp_path, "a q\nq a\n")  # one of them is right
    assert read_pairs(path, ["q"], ["a"]) == {"a": ["q"], "q": ["a"]}


def test_tabs_marks_and_line_ends(tmp_path):
    """What Windows' editors make of the lists, and comments."""
    bom = "\ufeff# a comment\r\n"
    pairs = written(tmp_path, f"{bom}q.jpg\ta.jpg\r\n\r\n#x y\r\nq.jpg \t b.jpg\r\n")
    assert read_pairs(pairs) == {"q.jpg": ["a.jpg", "b.jpg"]}
    tabs = PINHOLE.replace(" ", "\t")
    ((name, camera),) = read_queries(written(tmp_path, f"{bom}q.jpg\t{tabs}\r\n"))
    assert name == "q.jpg" and camera.params.tolist() == [500, 500, 320, 240]
    poses = read_poses(written(tmp_path, f"{bom}q.jpg\t1 0 0 0\t1 2 3\r\n"))
    assert poses["q.jpg"][:, 3].tolist() == [1, 2, 3]
    assert read_lines(written(tmp_path, "a\rb\r"), "text") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "line",
    [
        "q.jpg," + PINHOLE.replace(" ", ","),
        "q.jpg, " + PINHOLE.replace(" ", ", "),
        "q.jpg PINHOLE 640,480,500,500,320,240",
        "q.jpg;PINHOLE;640;480;500;500;320;240",
    ],
)
def test_query_lists_with_commas(tmp_path, line):
    with pytest.raises(InputError, match=r":1: values are separated by commas, expected spaces"):
        read_queries(written(tmp_path, line))
    assert len(read_queries(written(tmp_path, f"a,b PINHOLE.jpg {PINHOLE}"))) == 1


@pytest.mark.parametrize("line", ["q.jpg,1,0,0,0,1,2,3", "q.jpg, 1, 0, 0, 0, 1, 2, 3"])
def test_poses_with_commas(tmp_path, line):
    with pytest.raises(InputError, match=r":1: expected `name .*`, separated by spaces, not comm"):
        read_poses(written(tmp_path, line))


def test_result_names():
    assert result_name("a/b/c.jpg") == "c.jpg"
    assert result_name("a/b/c.jpg", prepend_camera_name=True) == "b/c.jpg"
    assert result_name("c.jpg", prepend_camera_name=True) == "c.jpg"
    assert result_name("a/b/c.jpg", full_names=True) == "a/b/c.jpg"


@given(st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7))
def test_poses_survive_a_round_trip(tmp_path_factory, values):
    quaternion = np.array(values[:4]) if np.linalg.norm(values[:4]) > 1e-3 else np.eye(4)[0]
    pose = pycolmap.Rigid3d(
        pycolmap.Rotation3d((quaternion / np.linalg.norm(quaternion))[[1, 2, 3, 0]]), values[4:]
    ).matrix()
    path = tmp_path_factory.mktemp("poses") / "poses.txt"
    write_poses(path, {"a b.jpg": pose, "x/y.jpg": pose})
    read = read_poses(path)
    assert list(read) == ["a b.jpg", "x/y.jpg"]
    np.testing.assert_allclose(read["x/y.jpg"], pose, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        "a 1 0 0 0 0 0",
        "1 0 0 0 0 0 0",
        "a 1 0 0 0 0 0 x",
        "a 1 0 0 0 0 0 nan",
        "a 0 0 0 0 1 2 3",
        "a inf 0 0 0 1 2 3",
    ],
)
def test_bad_poses(tmp_path, line):
    with pytest.raises(InputError, match=r":1: expected `name qw qx qy qz tx ty tz`"):
        read_poses(written(tmp_path, line))


@pytest.mark.parametrize("more", ["", " 526.22", " 0.266396 0.009945"])
@pytest.mark.parametrize("name", ["seq-03/frame-000844.color.png", "query 7.jpg", "7", "a 0.5 1"])
def test_numbers_behind_a_pose(tmp_path, name, more):
    """As in published estimates: a focal length, or an algorithm's own figures."""
    (tmp_path / "poses.txt").write_text(f"{name} 0.970878 0.238647 -0.00107 -0.021031 -3 1 2{more}")
    ((read, pose),) = read_poses(tmp_path / "poses.txt").items()
    assert read == name
    np.testing.assert_array_equal(pose[:, 3], [-3, 1, 2])
    assert abs(pose[1, 2] - -0.463) < 1e-3


def test_numbers_behind_poses_are_told_from_the_whole_file(tmp_path):
    """In one line the end of the quaternion and the start of the position have length 1."""
    line = "b.png 0.8 0.6 0 0 0.8 1 2 526.22"
    (tmp_path / "poses.txt").write_text(
        f"a.png 1 0 0 0 3 1 2 526.22\n{line}\nc.png 0 1 0 0 3 1 2 526.22\n"
    )
    poses = read_poses(tmp_path / "poses.txt")
    assert list(poses) == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(poses["b.png"][:, 3], [0.8, 1, 2])


def test_a_quaternion_of_another_length_is_normalised(tmp_path):
    (tmp_path / "poses.txt").write_text("a 7 2 0 0 0 1 2 3")
    ((name, pose),) = read_poses(tmp_path / "poses.txt").items()
    assert name == "a 7" and (pose[:, :3] == np.eye(3)).all()


def test_a_name_twice_among_poses(tmp_path):
    with pytest.raises(InputError, match=r":2: 'a' comes twice"):
        read_poses(written(tmp_path, "a 1 0 0 0 0 0 0\na 1 0 0 0 0 0 0\n"))
