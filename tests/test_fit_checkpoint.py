"""Fits that were interrupted end with the same bytes as those that were not."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
import torch
from codec_helpers import make_observations

from hloc_dpqed.codecs import CODECS, fit_codec
from hloc_dpqed.errors import InputError
from hloc_dpqed.training.checkpoint import FitCheckpoint, fit_folder, fit_key
from hloc_dpqed.training.loop import minimise

TRAINED = {
    "drqed": {"steps": 24, "refresh": 5, "batch": 64},
    "dpqed": {"steps": 120, "batch": 64, "hidden": 16},
}


class Stop(Exception):
    pass


def stop_at(monkeypatch, step):
    """Let a fit die after this step, before its state is saved."""
    adam = torch.optim.Adam.step
    count = 0

    def dying(self, *args, **kwargs):
        nonlocal count
        if count == step:
            raise Stop
        count += 1
        return adam(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", dying)


def same(a, b) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def test_all_codecs_that_train_are_tested():
    assert set(TRAINED) == {name for name, codec in CODECS.items() if codec.trains}


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_an_interrupted_fit_gives_the_same_bytes(name, tmp_path, monkeypatch):
    observations, options = make_observations(300, 4), TRAINED[name]
    whole = fit_codec(name, observations, 2, **options)
    steps, every = options["steps"], options.get("refresh", 50)
    stops = [0, 1, every - 1, every, every + 3, steps - 1]
    for stop in stops:  # each run dies once, and the next continues
        with monkeypatch.context() as patch:
            stop_at(patch, stop)
            with pytest.raises(Stop):
                fit_codec(name, observations, 2, resume=tmp_path / str(stop), **options)
        saved = list((tmp_path / str(stop)).glob("*"))
        assert len(saved) == (stop >= every)
        with monkeypatch.context() as patch:
            stop_at(patch, steps - stop // every * every)  # no step more than what was missing
            again = fit_codec(name, observations, 2, resume=tmp_path / str(stop), **options)
        assert same(again, whole)


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_finished_fit_makes_no_step(name, tmp_path, monkeypatch):
    observations, options = make_observations(300, 4), TRAINED[name]
    whole = fit_codec(name, observations, 2, resume=tmp_path, **options)
    stop_at(monkeypatch, 0)
    assert same(fit_codec(name, observations, 2, resume=tmp_path, **options), whole)
    with pytest.raises(Stop):  # another seed is another fit
        fit_codec(name, observations, 2, resume=tmp_path, seed=1, **options)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "other shapes", "other names"])
def test_a_damaged_state_is_dropped(tmp_path, damage):
    def fit(checkpoint):
        x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        minimise(
            [x], lambda step: (x**2).sum(), steps=6, learning_rate=0.1,
            checkpoint=checkpoint, save_every=3,
        )  # fmt: skip
        return x.detach().numpy()

    path = tmp_path / "state.safetensors"
    expected = fit(FitCheckpoint(path))
    good = path.read_bytes()
    shapes = {f"{key}.0": np.zeros(3, np.float32) for key in ("value", "mean", "square")}
    path.write_bytes(
        {
            "empty": b"",
            "cut": good[: len(good) // 2],
            "noise": b"\xff" * len(good),
            "other shapes": safetensors.numpy.save(shapes, metadata={"step": "3"}),
            "other names": safetensors.numpy.save({"x": np.zeros(2)}, metadata={"step": "3"}),
        }[damage]
    )
    assert np.array_equal(fit(FitCheckpoint(path)), expected)
    assert path.read_bytes() == good


def test_the_key_is_of_all_that_decides():
    observations = make_observations(50, 3)
    keys = [
        fit_key("drqed", observations, 4, {"seed": 0}),
        fit_key("dpqed", observations, 4, {"seed": 0}),
        fit_key("drqed", observations, 8, {"seed": 0}),
        fit_key("drqed", observations, 4, {"seed": 1}),
    ]
    for field in ("descriptors", "point_index", "image_index"):
        values = getattr(observations, field).copy()
        values[0] = values[1] + 1
        changed = dataclasses.replace(observations, **{field: values})
        keys.append(fit_key("drqed", changed, 4, {"seed": 0}))
    assert len(set(keys)) == len(keys)
    assert fit_key("drqed", make_observations(50, 3), 4, {"seed": 0}) == keys[0]


def test_the_folder_stays_after_an_interruption_only(tmp_path):
    output = tmp_path / "map.dpqed"
    for error, stays in ((KeyboardInterrupt, True), (InputError, False), (None, False)):
        try:
            with fit_folder(output) as folder:
                folder.mkdir(exist_ok=True)
                (folder / "a.safetensors").touch()
                (folder / ".a.safetensors.xyz.tmp").touch()
                if error is not None:
                    raise error("x")
        except (KeyboardInterrupt, InputError):
            pass
        assert folder.name == "map.dpqed.part" and folder.exists() == stays
    folder.mkdir()
    (folder / "notes.txt").touch()  # not ours
    with fit_folder(output):
        pass
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    folder.rmdir()
    folder.touch()
    with pytest.raises(InputError, match="in the way"), fit_folder(output):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        fit_codec(
            "drqed", make_observations(300, 2), 2, resume=tmp_path / "file", **TRAINED["drqed"]
        )
