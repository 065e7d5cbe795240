// A map as a safetensors file of plain arrays.
#pragma once

#include <string>
#include <vector>

#include "dpqed/dpqed.hpp"

namespace dpqed {

// The file's bytes. Arrays, all little-endian and in C order:
//   cam_from_world (I, 3, 4) F64, xyz (P, 3) F64, camera_params F64 (one camera's after the
//   other's), camera_sizes (C, 2) U64, indptr (I + 1) I64, indices (N) I32, camera_index (I) I32,
//   codes (R, B) U8, scores (R) F32, descriptors (R, D) F32, global_codes and global_descriptors.
// Metadata: image_names, camera_models and made, as JSON.
inline std::string dump(const Map& map, bool with_descriptors = true) {
  std::string header = "{\"__metadata__\":{", data;
  const auto list = [](const std::vector<std::string>& words) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : ", ") + json_quote(word);
    return "[" + out + "]";
  };
  std::vector<std::string> models;
  std::vector<double> params;
  std::vector<std::uint64_t> sizes;
  for (const Camera& camera : map.cameras) {
    models.push_back(camera.model);
    params.insert(params.end(), camera.params.begin(), camera.params.end());
    sizes.insert(sizes.end(), {camera.width, camera.height});
  }
  header += "\"image_names\":" + json_quote(list(map.image_names)) +
            ",\"camera_models\":" + json_quote(list(models)) + ",\"made\":" +
            json_quote(map.made) + "}";
  const auto add = [&](const char* name, const char* dtype, const auto& values,
                       const std::vector<std::size_t>& shape) {
    std::string dims;
    for (const std::size_t n : shape) dims += (dims.empty() ? "" : ",") + std::to_string(n);
    const std::size_t first = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
    header += std::string(",\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + dims +
              "],\"data_offsets\":[" + std::to_string(first) + "," + std::to_string(data.size()) +
              "]}";
  };
  const std::size_t rows = map.local.rows;
  add("cam_from_world", "F64", map.cam_from_world, {map.num_images, 3, 4});
  add("xyz", "F64", map.xyz, {map.num_points, 3});
  add("camera_params", "F64", params, {params.size()});
  add("camera_sizes", "U64", sizes, {map.cameras.size(), 2});
  add("indptr", "I64", map.indptr, {map.num_images + 1});
  add("indices", "I32", map.indices, {map.num_observations});
  add("camera_index", "I32", map.camera_index, {map.num_images});
  add("scores", "F32", map.scores, {rows});
  if (with_descriptors) add("descriptors", "F32", map.local.decode(), {rows, map.local.codec->dim});
  if (map.global && with_descriptors) {
    add("global_descriptors", "F32", map.global->decode(),
        {map.num_images, map.global->codec->dim});
  }
  add("codes", "U8", map.local.codes, {rows, map.local.codec->code_size});
  if (map.global) {
    add("global_codes", "U8", map.global->codes, {map.num_images, map.global->codec->code_size});
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> 8 * i & 255);
  return out + header + data;
}

}  // namespace dpqed
