"""What the bridge relies on of hloc 1.5 (commit c13273b), stated as facts.

``FUNCTIONS`` are parameter names in order, by module and function; ``ATTRIBUTES`` are other names
that a module has. The layouts of hloc's files are in test_hloc_contract.py.
"""

FUNCTIONS: dict[str, dict[str, str]] = {
    "match_features": {
        "main": "conf pairs features export_dir matches features_ref overwrite",
        "match_from_paths": "conf pairs_path match_path feature_path_q feature_path_ref overwrite",
    },
    "localize_sfm": {
        "main": "reference_sfm queries retrieval features matches results ransac_thresh "
        "covisibility_clustering prepend_camera_name config",
        "get_matches": "path name0 name1",
    },
    "pairs_from_retrieval": {
        "main": "descriptors output num_matched query_prefix query_list db_prefix db_list "
        "db_model db_descriptors",
        "read_images_binary": "path_to_model_file",
    },
    "pairs_from_covisibility": {
        "main": "model output num_matched",
        "read_model": "path ext",
    },
    "pairs_from_poses": {
        "main": "model output num_matched rotation_threshold",
        "read_images_binary": "path_to_model_file",
    },
    "visualization": {
        "visualize_sfm_2d": "reconstruction image_dir color_by selected n seed dpi",
        "visualize_loc": "results image_dir reconstruction db_image_dir selected n seed prefix "
        "kwargs",
    },
    "utils.io": {
        "list_h5_names": "path",
        "get_keypoints": "path name return_uncertainty",
    },
    "utils.parsers": {"parse_retrieval": "path"},
    "utils.base_model": {"dynamic_load": "root model"},
}

# What pipelines/ relies on besides.
PIPELINE_FUNCTIONS: dict[str, dict[str, str]] = {
    "extract_features": {
        "main": "conf image_dir export_dir as_half image_list feature_path overwrite",
    },
    "triangulation": {
        "main": "sfm_dir reference_model image_dir pairs features matches "
        "skip_geometric_verification estimate_two_view_geometries min_match_score verbose "
        "mapper_options",
        "run_triangulation": "model_path database_path image_dir reference_model verbose options",
    },
}

ATTRIBUTES: dict[str, list[str]] = {
    "match_features": ["confs", "h5py"],
    "localize_sfm": ["pycolmap"],
    "visualization": ["pycolmap"],
    "pairs_from_retrieval": ["h5py"],
    "pairs_from_covisibility": [],
    "pairs_from_poses": [],
    "utils.io": ["h5py"],
    "utils.parsers": [],
    "utils.base_model": ["BaseModel"],
    "utils.read_write_model": ["Camera", "Image", "Point3D"],
    "matchers": [],
}

# What install() replaces: nothing else of hloc may change.
REPLACED = {
    "match_features": {"h5py", "match_from_paths", "confs"},
    "localize_sfm": {"pycolmap", "main", "get_matches"},
    "visualization": {"pycolmap"},
    "pairs_from_retrieval": {"h5py", "read_images_binary", "main"},
    "pairs_from_poses": {"read_images_binary", "main"},
    "pairs_from_covisibility": {"read_model"},
    "utils.io": {"h5py"},
}

# The fields of hloc's COLMAP records, in order.
RECORDS = {
    "Camera": "id model width height params",
    "Image": "id qvec tvec camera_id name xys point3D_ids",
    "Point3D": "id xyz rgb error image_ids point2D_idxs",
}

MATCH_CONFS = [
    "superpoint+lightglue",
    "disk+lightglue",
    "aliked+lightglue",
    "superglue",
    "superglue-fast",
    "NN-superpoint",
    "NN-ratio",
    "NN-mutual",
    "adalam",
]
