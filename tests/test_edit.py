import numpy as np
import pytest
from mapfile_maps import make_map
from synthetic import compressed_scene, make_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.maps.edit import remove_images, shorten_codes, take_points


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_taken_points_keep_what_is_theirs(granularity):
    whole = make_map(granularity=granularity)
    rows = np.arange(1, whole.num_points, 3)
    part = take_points(whole, rows)
    assert part.num_points == len(rows)
    for i in range(whole.num_images):
        kept = np.isin(whole.visibility[i], rows)
        np.testing.assert_array_equal(rows[part.visibility[i]], whole.visibility[i][kept])
        codes = whole.codes[whole.code_rows(i)][kept]
        np.testing.assert_array_equal(part.codes[part.code_rows(i)], codes)
    np.testing.assert_array_equal(part.xyz, whole.xyz[rows])


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_removed_images_take_their_own_points_along(granularity):
    whole = make_map(granularity=granularity, with_global=True)
    gone = [whole.image_names[1], whole.image_names[4]]
    part = remove_images(whole, gone)
    kept = [0, 2, 3]
    assert part.image_names == [whole.image_names[i] for i in kept]
    still = np.unique(np.concatenate([whole.visibility[i] for i in kept]))
    np.testing.assert_array_equal(part.xyz, whole.xyz[still])
    for new, old in enumerate(kept):
        np.testing.assert_array_equal(still[part.visibility[new]], whole.visibility[old])
        codes = whole.codes[whole.code_rows(old)]
        np.testing.assert_array_equal(part.codes[part.code_rows(new)], codes)
        own = whole.cameras[whole.camera_index[old]]
        assert part.cameras[part.camera_index[new]].params.tolist() == own.params.tolist()
        np.testing.assert_array_equal(part.cam_from_world[new], whole.cam_from_world[old])
        stored = whole.global_descriptors.codes[old]
        np.testing.assert_array_equal(part.global_descriptors.codes[new], stored)


def test_unknown_names_and_all_names_are_refused():
    whole = make_map()
    with pytest.raises(InputError, match="1 of 2 images are not of the map"):
        remove_images(whole, [whole.image_names[0], "no.jpg"])
    with pytest.raises(InputError, match="all 5 images would be removed"):
        remove_images(whole, whole.image_names)


def test_codes_are_shortened_where_heads_are_codes(tmp_path):
    scene = make_scene(tmp_path, num_points=60, dim=16)
    whole = compressed_scene(scene, "nested", 2)
    short = shorten_codes(whole, 1)
    np.testing.assert_array_equal(short.codes, whole.codes[:, :1])
    assert short.codec.code_size == 1
    with pytest.raises(InputError, match="--code_bytes 3: the map has codes of 2 bytes"):
        shorten_codes(whole, 3)
    assert shorten_codes(make_map(), 4).codec.code_size == 4
    with pytest.raises(InputError, match="--code_bytes 2: pq has codes of 4"):
        shorten_codes(make_map(), 2)
