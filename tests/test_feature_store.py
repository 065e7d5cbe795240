import multiprocessing
import pickle
import threading

import faiss
import h5py
import numpy as np
import pytest
import torch
from synthetic import make_scene, write_compressed_scene

import hloc_dpqed.hloc_bridge.feature_store as feature_store
from hloc_dpqed import FeatureStore
from hloc_dpqed.errors import InputError
from hloc_dpqed.hloc_bridge.feature_store import NotInMapError, is_map_file
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.maps.image_rows import image_rows


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def path(scene):
    return write_compressed_scene(scene, scene.folder / "map.dpqed")


@pytest.fixture(scope="module")
def twin(scene, path):
    """A real HDF5 file that holds what the map should answer, written from the map's arrays."""
    compressed = read_map(path)
    twin = scene.folder / "twin.h5"
    with h5py.File(twin, "w", libver="latest") as file:
        for i, name in enumerate(compressed.image_names):
            _, keypoints, codes = image_rows(compressed, i)
            camera = compressed.cameras[compressed.camera_index[i]]
            group = file.create_group(name)
            group["keypoints"] = keypoints
            group["descriptors"] = compressed.codec.decode(compressed.codes[codes]).T
            group["scores"] = compressed.scores[codes]
            group["image_size"] = np.array([camera.width, camera.height])
            stored = compressed.global_descriptors
            group["global_descriptor"] = stored.codec.decode(stored.codes[i : i + 1])[0]
    return twin


@pytest.fixture
def both(path, twin):
    with FeatureStore(path) as store, h5py.File(twin, "r", libver="latest") as file:
        yield store, file


def test_same_names_in_the_same_order(both):
    def walk(file):
        seen = []
        file.visititems(lambda name, item: seen.append((name, isinstance(item, h5py.Dataset))))
        return seen

    def names(file):
        seen = []
        file.visit(seen.append)
        return seen

    store, file = both
    assert walk(store) == walk(file) and len(walk(store)) > 40
    assert names(store) == names(file)
    assert store.visititems(lambda name, _: name if "night" in name else None) == "db/night"


def test_same_answers_about_groups(both):
    store, file = both
    for path in ("/", "db", "db/day", "/db/day/", "db//night", "db/day/0.jpg", "./db"):
        a, b = store[path], file[path]
        assert list(a) == list(b) == list(a.keys())
        assert (a.name, len(a), a.parent.name) == (b.name, len(b), b.parent.name)
        assert isinstance(a, h5py.Group)
        assert [k for k, _ in a.items()] == [k for k, _ in b.items()]
    for path in (
        "nothing",
        "db/day/9.jpg",
        "db/day/0.jpg/nothing",
        "day",
        "/day",
        "db/da",
        "0.jpg",
    ):
        assert path not in store and path not in file
        assert store.get(path) is None and store.get(path, 3) == 3
        for f in (store, file):
            with pytest.raises(KeyError):
                f[path]
    assert "db/day/0.jpg" in store and "db/day/0.jpg/keypoints" in store
    assert "/db/night/1.jpg" in store["db/day"] and "1.jpg" in store["db/day"]
    assert isinstance(store, h5py.File) and isinstance(store, FeatureStore)
    assert store.filename and store.mode == file.mode == "r" and store.attrs == {}


def test_same_answers_about_datasets(both):
    store, file = both
    for image in ("db/day/0.jpg", "db/night/2.jpg"):
        for key in file[image]:
            a, b = store[image][key], file[f"{image}/{key}"]
            assert isinstance(a, h5py.Dataset)
            assert (a.shape, a.ndim, a.size, a.nbytes, len(a)) == (
                b.shape,
                b.ndim,
                b.size,
                b.nbytes,
                len(b),
            )
            assert (a.dtype, a.name, a.parent.name) == (b.dtype, b.name, b.parent.name)
            np.testing.assert_allclose(a.__array__(), b.__array__(), atol=1e-6)
            np.testing.assert_array_equal(np.asarray(a), a[()])
            np.testing.assert_allclose(a[:1], b[:1], atol=1e-6)
            np.testing.assert_allclose(a[...], b[...], atol=1e-6)
            np.testing.assert_allclose(a[-1], b[-1], atol=1e-6)
            assert np.asarray(a, np.float16).dtype == np.float16
            assert a.__array__().flags.writeable and a.__array__().flags.c_contiguous
        size = store[image]["image_size"]
        # hloc makes an empty image of this shape.
        assert (
            torch.empty((1, *tuple(size)[::-1])).shape[1:] == tuple(file[image]["image_size"])[::-1]
        )


def test_reads_are_copies(both):
    store, _ = both
    keypoints = store["db/day/0.jpg"]["keypoints"].__array__()
    keypoints += 0.5  # as hloc does with a query's keypoints
    assert not np.shares_memory(keypoints, store["db/day/0.jpg"]["keypoints"].__array__())
    assert (keypoints == store["db/day/0.jpg"]["keypoints"].__array__() + 0.5).all()
    descriptors = store["db/day/0.jpg"]["descriptors"][:]
    descriptors[:] = 0
    assert store["db/day/0.jpg"]["descriptors"][:].any()


def test_uncertainty_of_keypoints_as_recorded(scene, tmp_path, path):
    from synthetic import compressed_scene

    from hloc_dpqed.io.features import feature_kind
    from hloc_dpqed.mapfile import write_map

    compressed = compressed_scene(scene)
    compressed.metadata["features"] = feature_kind(scene.features)
    write_map(tmp_path / "with.dpqed", compressed)
    with FeatureStore(tmp_path / "with.dpqed") as store:
        assert store["db/day/0.jpg/keypoints"].attrs.get("uncertainty") == 2.0
        assert store["db/day/0.jpg/scores"].attrs.get("uncertainty") is None
    with FeatureStore(path) as store:
        assert store["db/day/0.jpg/keypoints"].attrs.get("uncertainty") is None


def test_observation_maps_give_each_image_its_own_descriptors(scene, tmp_path):
    path = write_compressed_scene(
        scene, tmp_path / "obs.dpqed", granularity="observation", codec="none"
    )
    with FeatureStore(path) as store, h5py.File(scene.features) as original:
        for name in scene.db_names:
            decoded = store[name]["descriptors"].__array__()
            float_ = original[name]["descriptors"].__array__().astype(np.float32)
            nearest = (decoded.T @ float_).max(1)  # each is one of the image's own
            assert nearest.min() > 0.999


def test_a_map_without_global_descriptors(scene, tmp_path):
    path = write_compressed_scene(scene, tmp_path / "local.dpqed", with_global=False)
    with FeatureStore(path) as store:
        assert list(store["db/day/0.jpg"]) == ["descriptors", "image_size", "keypoints", "scores"]
        with pytest.raises(NotInMapError, match="no global descriptors, see --global_features"):
            store["db/day/0.jpg"]["global_descriptor"]


def test_messages(path, tmp_path):
    store = FeatureStore(path)
    with pytest.raises(InputError, match=r"image 'db/x.jpg' is not in the map, which has 7 images"):
        store["db/x.jpg"]
    with pytest.raises(InputError, match=r"image 'db/x.jpg' is not in the map"):
        store["db"]["x.jpg"]
    with pytest.raises(InputError, match=r"image 'db/day/0.jpg' has no 'oris', only descriptors"):
        store["db/day/0.jpg"]["oris"]
    with pytest.raises(InputError, match="read-only"):
        FeatureStore(path, "a")
    with pytest.raises(InputError, match="read-only"):
        store.create_group("x")
    with pytest.raises(InputError, match="no such file"):
        FeatureStore(tmp_path / "none.dpqed")
    (tmp_path / "bad.dpqed").write_bytes(b"nonsense" * 9)
    with pytest.raises(InputError, match=r"bad\.dpqed"):
        list(FeatureStore(tmp_path / "bad.dpqed"))
    store.close()
    assert not store
    with pytest.raises(InputError, match="closed"):
        list(store)


def test_is_map_file(path, twin, tmp_path):
    assert is_map_file(path) and is_map_file(str(path))
    assert not is_map_file(twin)
    assert not is_map_file(tmp_path) and not is_map_file(tmp_path / "none") and not is_map_file(3)
    (tmp_path / "empty").touch()
    assert not is_map_file(tmp_path / "empty")


def test_the_cache_is_bounded_and_does_not_change_answers(scene, path, tmp_path):
    expected = FeatureStore(path)
    size = expected["db/day/0.jpg"]["descriptors"].nbytes
    for limit in (0, 2 * size):
        copy = tmp_path / f"{limit}.dpqed"
        copy.write_bytes(path.read_bytes())
        with FeatureStore(copy, cache_bytes=limit) as store:
            for name in [n for n in scene.db_names for _ in range(2)]:
                for key in ("descriptors", "keypoints"):
                    np.testing.assert_array_equal(store[name][key][()], expected[name][key][()])
                assert store._open()._cached_bytes <= limit


def test_a_map_is_loaded_once_and_again_when_the_file_changes(scene, tmp_path, monkeypatch):
    path = write_compressed_scene(scene, tmp_path / "map.dpqed")
    loads = []
    real = feature_store.read_map
    monkeypatch.setattr(feature_store, "read_map", lambda p: loads.append(p) or real(p))
    for _ in range(3):  # hloc opens the file for each pair
        with FeatureStore(path) as store:
            assert not loads or len(loads) == 1
            store["db/day/0.jpg"]["descriptors"].__array__()
    assert len(loads) == 1
    write_compressed_scene(scene, path, code_bytes=16)
    with FeatureStore(path) as store:
        assert store.compressed.codec.code_size == 16
    assert len(loads) == 2


def _digest(store, queue):
    queue.put({n: store[n]["descriptors"][()].sum() for n in store.compressed.image_names})


def _busy_parent():
    """Use the thread pools of torch and faiss, as the parent of hloc's workers has."""
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    x = torch.randn(400, 400)
    (x @ x).sum()
    rows = np.random.default_rng(0).standard_normal((5000, 64)).astype(np.float32)
    index = faiss.IndexFlatL2(64)
    index.add(rows)
    index.search(rows, 3)
    pq = faiss.ProductQuantizer(64, 4, 8)
    pq.train(rows)
    pq.decode(pq.compute_codes(rows))


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("read_in_parent", [False, True])
def test_other_processes(path, method, read_in_parent):
    store = FeatureStore(path, cache_bytes=0)
    if read_in_parent:
        store["db/day/0.jpg"]["descriptors"].__array__()
    _busy_parent()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    # A lock held by another thread at the moment of the fork must not stop the child.
    with feature_store._lock:
        processes = [context.Process(target=_digest, args=(store, queue)) for _ in range(2)]
        for process in processes:
            process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    here = {n: store[n]["descriptors"][()].sum() for n in store.compressed.image_names}
    for answer in answers:
        assert answer == pytest.approx(here, rel=1e-4, abs=1e-3)


def test_pickling_keeps_the_path_only(path):
    store = FeatureStore(path, cache_bytes=123)
    store["db/day/0.jpg"]["descriptors"].__array__()
    data = pickle.dumps(store)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert isinstance(again, FeatureStore) and again.cache_bytes == 123
    np.testing.assert_array_equal(
        again["db/day/0.jpg/keypoints"][()], store["db/day/0.jpg/keypoints"][()]
    )


def test_threads_share_a_store(path):
    store = FeatureStore(path, cache_bytes=100_000)
    expected = {n: store[n]["descriptors"][()] for n in store.compressed.image_names}
    failures = []

    def read():
        for _ in range(5):
            for name, value in expected.items():
                if not np.array_equal(store[name]["descriptors"][()], value):
                    failures.append(name)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_decoding_leaves_the_number_of_threads_alone(path):
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    FeatureStore(path, cache_bytes=0)["db/day/1.jpg"]["descriptors"].__array__()
    assert torch.get_num_threads() == 2 and faiss.omp_get_max_threads() == 2
